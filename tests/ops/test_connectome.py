"""Connectomes in memory: counted by hand, by networkx, and the same whatever neurons are called."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import fields

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.synapses import SynapseTable
from emloom.metrics.connections import Connectome
from emloom.ops.connectome import (
    Edges,
    Neurons,
    Rules,
    adjacency,
    busiest,
    clustered,
    edges_of,
    left_out,
    neurons_of,
    strongest,
)
from emloom.ops.labels import apply_lut
from tests.tasks.drawnsynapses import between, drawn

NONE = (np.zeros(0, np.uint64), np.zeros(0, np.int64))
seeds = st.integers(0, 10**6)


def same(a: Edges | Neurons, b: Edges | Neurons) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))


def inside(table: SynapseTable) -> np.ndarray:
    return np.zeros(len(table), bool)


def used(table: SynapseTable, rules: Rules) -> SynapseTable:
    return table.rows(np.flatnonzero(left_out(table, inside(table), rules) == ""))


def renamed(table: SynapseTable, keys: np.ndarray, values: np.ndarray) -> SynapseTable:
    pre, post = (apply_lut(ids, keys, values) for ids in (table.pre_segments, table.post_segments))
    return table.with_segments(pre, post)


@given(seeds)
def test_edges_are_what_a_dictionary_counts(seed: int) -> None:
    table = drawn(seed)
    want: defaultdict[tuple[int, int], list[tuple[int, float]]] = defaultdict(list)
    for a, b, size, score in zip(
        table.pre_segments.tolist(),
        table.post_segments.tolist(),
        table.sizes_vox.tolist(),
        table.scores.tolist(),
        strict=True,
    ):
        if a and b:
            want[a, b].append((size, score))
    found = edges_of(table)
    assert list(zip(found.pre.tolist(), found.post.tolist(), strict=True)) == sorted(want)
    rows = [want[key] for key in sorted(want)]
    assert found.counts.tolist() == [len(row) for row in rows]
    assert found.sizes_vox.tolist() == [sum(size for size, _ in row) for row in rows]
    assert found.max_scores.tolist() == [max(score for _, score in row) for row in rows]
    np.testing.assert_allclose(found.mean_scores, [np.mean([s for _, s in row]) for row in rows], atol=1e-9)


@given(seeds, st.integers(1, 4), st.booleans())
def test_the_metrics_count_the_same_connectome(seed: int, weight: int, autapses: bool) -> None:
    table = drawn(seed)
    found = edges_of(used(table, Rules(autapses=autapses, minimum_weight=weight)))
    want = Connectome.from_rows(table.pre_segments, table.post_segments).without([0]).at_least(weight)
    want = want if autapses else want.without_autapses()
    assert np.array_equal(found.pre, want.pre)
    assert np.array_equal(found.post, want.post)
    assert np.array_equal(found.counts, want.weights)


@given(seeds)
def test_permuting_segments_permutes_the_graph(seed: int) -> None:
    table, rng = drawn(seed), np.random.default_rng(seed)
    keys = np.arange(1, 10, dtype=np.uint64)
    values = rng.permutation(keys) + np.uint64(2**40)
    rules = Rules(autapses=bool(seed % 2), minimum_score=0.3, minimum_weight=1 + seed % 3)
    other = renamed(table, keys, values)
    assert np.array_equal(left_out(table, inside(table), rules), left_out(other, inside(table), rules))
    a, b = used(table, rules), used(other, rules)
    assert same(edges_of(a).merged(keys, values), edges_of(b))
    before, after = neurons_of(a, edges_of(a), *NONE), neurons_of(b, edges_of(b), *NONE)
    order = np.argsort(apply_lut(before.ids, keys, values))
    for name in ("pre_sites", "outputs", "inputs", "partners_out", "partners_in"):
        assert np.array_equal(getattr(before, name)[order], getattr(after, name))


@given(seeds)
def test_merging_before_or_after_counting_is_the_same(seed: int) -> None:
    table, rng = drawn(seed), np.random.default_rng(seed)
    keys = np.flatnonzero(rng.random(10) < 0.7).astype(np.uint64)
    values = rng.integers(0, 5, len(keys)).astype(np.uint64)
    values[keys == 0] = 0
    assert same(edges_of(table).merged(keys, values), edges_of(renamed(table, keys, values)))


@given(seeds)
def test_the_order_of_rows_changes_no_bit(seed: int) -> None:
    table = drawn(seed)
    mixed = table.rows(np.random.default_rng(seed).permutation(len(table)))
    assert same(edges_of(table), edges_of(mixed))


@given(seeds)
def test_neurons_have_the_degrees_that_networkx_counts(seed: int) -> None:
    table = used(drawn(seed), Rules())
    edges = edges_of(table)
    graph = nx.MultiDiGraph()
    graph.add_edges_from(zip(table.pre_segments.tolist(), table.post_segments.tolist(), strict=True))
    simple = nx.DiGraph(graph)
    neurons = neurons_of(table, edges, *NONE)
    assert neurons.ids.tolist() == sorted(graph)
    for row, i in enumerate(neurons.ids.tolist()):
        assert (neurons.outputs[row], neurons.inputs[row]) == (graph.out_degree(i), graph.in_degree(i))
        assert (neurons.partners_out[row], neurons.partners_in[row]) == (simple.out_degree(i), simple.in_degree(i))
        assert neurons.pre_sites[row] == len(np.unique(table.polyads[table.pre_segments == i]))
    order = neurons.ids[clustered(np.zeros((len(neurons), len(neurons)), np.int64))]
    matrix = nx.to_numpy_array(graph, nodelist=order.tolist(), dtype=np.int64)
    assert np.array_equal(adjacency(edges, order), matrix)


def test_every_contact_has_one_reason() -> None:
    table = between([(1, 2), (1, 2), (1, 2), (0, 2), (3, 0), (4, 4), (1, 3), (0, 0)], [1, 0.9, 0.1, 1, 1, 1, 1, 0])
    outside = np.arange(8) == 7
    rules = Rules(autapses=False, minimum_score=0.9, minimum_weight=2)
    why = left_out(table, outside, rules)
    assert why.tolist() == ["", "", "score", "background", "background", "autapse", "weight", "outside"]
    edges = edges_of(table.rows(np.flatnonzero(why == "")))
    assert (edges.pre.tolist(), edges.post.tolist(), edges.counts.tolist()) == ([1], [2], [2])


def test_a_score_at_the_minimum_is_kept_though_it_is_no_float32() -> None:
    table = between([(1, 2)], [0.9])
    assert left_out(table, inside(table), Rules(minimum_score=0.9)).tolist() == [""]


def test_contacts_that_are_left_out_make_no_neuron() -> None:
    table = used(between([(1, 2), (1, 2), (5, 6)]), Rules(minimum_weight=2))
    neurons = neurons_of(table, edges_of(table), np.array([2, 9], np.uint64), np.array([7, 8]))
    assert neurons.ids.tolist() == [1, 2, 9]
    assert neurons.voxels.tolist() == [0, 7, 8]
    assert busiest(neurons, 5).tolist() == [0, 1]  # 9 has no contact


def test_an_empty_table_is_an_empty_graph() -> None:
    table = SynapseTable.empty()
    edges = edges_of(table)
    assert len(edges) == 0
    assert len(edges.mean_scores) == 0
    assert len(neurons_of(table, edges, *NONE)) == 0
    assert len(left_out(table, inside(table), Rules(minimum_weight=3))) == 0
    assert len(edges.merged(np.array([1], np.uint64), np.array([2], np.uint64))) == 0


def test_the_strongest_come_first_and_ties_by_ids() -> None:
    edges = edges_of(between([(5, 1), (2, 3), (2, 3), (2, 1), (4, 4), (4, 4)]))
    top = strongest(edges, 3)
    assert list(zip(top.pre.tolist(), top.post.tolist(), strict=True)) == [(2, 3), (4, 4), (2, 1)]


def test_neurons_with_like_partners_stand_side_by_side() -> None:
    # Two groups, interleaved: each talks to its own only.
    group = np.arange(12) % 2
    matrix = np.where(group[:, None] == group[None], 5, 0)
    order = clustered(matrix)
    assert sorted(order.tolist()) == list(range(12))
    assert np.count_nonzero(np.diff(group[order])) == 1


@pytest.mark.parametrize("rules", [{"minimum_score": 1.5}, {"minimum_score": -0.1}, {"minimum_weight": 0}])
def test_rules_out_of_range_are_refused(rules: dict[str, float]) -> None:
    with pytest.raises(InputError, match="minimum"):
        Rules(**rules)  # type: ignore[arg-type]
