"""Choices of a segmentation: they partition its contacts, and say of each what agglomeration did."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.ops.agglomerate import agglomerate
from emloom.ops.mergechoices import Choices, choices_of
from emloom.ops.nodes import node_table
from emloom.ops.regions import RegionGraph, region_graph

OFFSETS = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
Rule = Literal["mean", "quantile", "max"]


def drawn(seed: int, kind: Rule) -> tuple[np.ndarray, RegionGraph]:
    rng = np.random.default_rng(seed)
    fragments = rng.integers(0, 25, (4, 6, 7)).astype(np.uint64)
    affinities = (rng.integers(0, 6, (3, 4, 6, 7)) * 51).astype(np.uint8)
    return fragments, region_graph(fragments, affinities, OFFSETS, bins=256 if kind == "quantile" else 0)


def chosen(seed: int, kind: Rule, threshold: float) -> tuple[np.ndarray, RegionGraph, Choices]:
    fragments, graph = drawn(seed, kind)
    tree = agglomerate(graph, linkage=kind, threshold=0.1)
    return fragments, graph, choices_of(graph, tree, threshold, node_table(fragments), rule=(kind, 50))


@given(
    st.integers(0, 10_000), st.sampled_from(["mean", "quantile", "max"]), st.sampled_from([0.3, 0.5, 0.55, 0.8])
)
@settings(max_examples=25)
def test_every_contact_belongs_to_one_choice_and_its_score_is_what_agglomeration_saw(
    seed: int, kind: Rule, threshold: float
) -> None:
    fragments, graph, found = chosen(seed, kind, threshold)
    tree = agglomerate(graph, linkage=kind, threshold=0.1)
    segments = tree.lut(graph.u, threshold), tree.lut(graph.v, threshold)
    assert (found.of_edge >= 0).all()
    assert found.contacts.sum() == graph.contacts.sum()
    np.testing.assert_array_equal(found.merged[found.of_edge], segments[0] == segments[1])
    assert (found.scores[found.merged] >= threshold - 1e-12).all()
    assert (found.scores[~found.merged] < threshold).all()
    sizes = dict(zip(*np.unique(tree.lut(fragments, threshold), return_counts=True), strict=True))
    apart = np.flatnonzero(~found.merged)
    assert [sizes[s] for s in found.segment_a[apart]] == found.size_a[apart].tolist()


def test_a_contact_belongs_to_the_merge_before_which_its_sides_were_apart() -> None:
    _, graph, found = chosen(4, "mean", 0.45)
    tree = agglomerate(graph, linkage="mean", threshold=0.1)
    scores = np.unique(np.r_[tree.scores, 1.0])
    for edge in range(len(graph)):
        choice = found.of_edge[edge]
        if not found.merged[choice]:
            continue
        score = found.scores[choice]
        pair = np.array([graph.u[edge], graph.v[edge]])
        assert len(set(tree.lut(pair, float(score) - 1e-9).tolist())) == 1
        above = scores[scores > score + 1e-9]
        if above.size:
            assert len(set(tree.lut(pair, float(above[0])).tolist())) == 2
    assert found.merged.any()
    assert (~found.merged).any()


def test_contacts_that_say_otherwise_are_counted() -> None:
    _, graph, found = chosen(7, "mean", 0.5)
    own = graph.total / (255 * graph.n)
    for choice in range(len(found)):
        mine = found.of_edge == choice
        against = (own[mine] >= 0.5) != found.merged[choice]
        assert found.against[choice] == graph.contacts[mine][against].sum()
    assert found.against.sum() > 0


def test_choices_about_dropped_segments_are_left_out() -> None:
    fragments, graph, found = chosen(2, "mean", 0.5)
    tree = agglomerate(graph, linkage="mean", threshold=0.1)
    gone = found.segment_a[:1]
    kept = choices_of(graph, tree, 0.5, node_table(fragments), dropped=gone)
    assert len(kept) < len(found)
    assert not np.isin(gone, np.r_[kept.segment_a, kept.segment_b]).any()
    assert kept.of_edge.max() == len(kept) - 1
    touching = np.isin(found.segment_a[found.of_edge], gone) | np.isin(found.segment_b[found.of_edge], gone)
    np.testing.assert_array_equal(kept.of_edge < 0, touching)


@pytest.mark.parametrize("kind", ["mean", "max"])
def test_pooling_adds_up_over_choices(kind: Rule) -> None:
    _, graph, found = chosen(11, kind, 0.6)
    assert found.pooled(graph.total).sum() == graph.total.sum()
