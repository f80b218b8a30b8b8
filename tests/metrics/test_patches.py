"""Scores of patches: joined with truths, resampled by section; objects counted alike on both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from math import inf, isnan

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.patches import PatchLabels
from emloom.geometry.patchscores import PatchScores
from emloom.metrics.bootstrap import bootstrap
from emloom.metrics.curves import at_false_positive_rate, at_threshold, average_precision
from emloom.metrics.patches import Judged, bootstrapped, covered_voxels, judged
from emloom.metrics.patchobjects import inferred_stride, object_scores, of_sections, patch_objects
from emloom.metrics.ranking import Ranking, ranking

GRID = Grid((35, 32, 32))


def lattice_patches(seed: int, *, sections: int = 4, side: int = 4, stride: int = 3) -> Judged:
    rng = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(np.arange(sections), np.arange(side), np.arange(side), indexing="ij"), -1)
    starts = index.reshape(-1, 3) * (1, stride, stride) + (7, -5, 11)
    starts = starts[rng.permutation(len(starts))]
    truth = rng.choice([-1, 0, 1], len(starts), p=[0.1, 0.6, 0.3]).astype(np.int8)
    scores = np.round(rng.random(len(starts)), 1)
    tissue = rng.choice(["soma", "neuropil"], len(starts))
    return Judged(starts.astype(np.int64), (1, 6, 6), GRID, scores, truth, {"tissue": tissue})


def by_ranking(statistic: Callable[[Ranking], float]) -> Callable[[Judged], float]:
    return lambda patches: statistic(ranking(patches.scores, patches.truth))


@given(st.integers(0, 10**6))
@settings(max_examples=15)
def test_intervals_are_those_of_one_ranking_per_section(seed: int) -> None:
    patches = lattice_patches(seed)
    known = patches.taken(patches.known)
    blocks = [known.taken(known.sections == z) for z in np.unique(known.sections)]

    def pool(parts: Sequence[Judged]) -> Judged:
        return replace(
            parts[0],
            scores=np.concatenate([p.scores for p in parts]),
            truth=np.concatenate([p.truth for p in parts]),
        )

    def recall(of: Ranking) -> float:
        return at_threshold(of, 0.5).recall

    for statistic in (average_precision, recall):
        slow = bootstrap(blocks, by_ranking(statistic), pool, np.random.default_rng(5), resamples=30)
        fast = bootstrapped(patches, {"it": statistic}, np.random.default_rng(5), resamples=30)["it"]
        assert repr(fast) == repr(slow)


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_the_threshold_of_a_false_positive_rate_is_the_lowest_allowed(seed: int, rate: float) -> None:
    patches = lattice_patches(seed)
    by_score = patches.ranking()
    if not by_score.n_positive or not by_score.n_negative:
        return
    allowed = [
        s for s in (*by_score.scores.tolist(), inf) if at_threshold(by_score, s).false_positive_rate <= rate
    ]
    assert at_false_positive_rate(by_score, rate) == at_threshold(by_score, min(allowed))
    fpr, tpr, _ = sk.roc_curve(
        patches.truth[patches.known], patches.scores[patches.known], drop_intermediate=False
    )
    assert at_false_positive_rate(by_score, rate).recall == pytest.approx(tpr[fpr <= rate].max())


@given(st.integers(0, 10**6), st.integers(0, 12), st.tuples(st.just(1), st.integers(1, 5), st.integers(1, 5)))
def test_the_area_counts_overlaps_once(seed: int, n: int, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(seed)
    starts = np.column_stack([rng.integers(0, 3, n), rng.integers(-4, 5, n), rng.integers(-4, 5, n)])
    voxels = {
        (z, y + dy, x + dx) for z, y, x in starts.tolist() for dy, dx in product(range(shape[1]), range(shape[2]))
    }
    assert covered_voxels(starts, shape) == len(voxels)


@given(st.integers(0, 10**6), st.floats(0.1, 0.9))
def test_objects_are_components_of_eight_neighbours(seed: int, part: float) -> None:
    patches = lattice_patches(seed, sections=3, side=5)
    positive = np.random.default_rng(seed + 1).random(len(patches)) < part
    found = patch_objects(patches.starts, positive, inferred_stride(patches.starts))
    graph = nx.Graph()
    rows = np.flatnonzero(positive).tolist()
    graph.add_nodes_from(rows)
    for i, j in product(rows, rows):
        dz, dy, dx = np.abs(patches.starts[i] - patches.starts[j])
        if i < j and dz == 0 and dy <= 3 and dx <= 3:
            graph.add_edge(i, j)
    components = sorted(nx.connected_components(graph), key=min)
    expected = np.zeros(len(patches), np.int64)
    for number, members in enumerate(components, 1):
        expected[list(members)] = number
    assert np.array_equal(found, expected)


@given(st.integers(0, 10**6))
def test_object_scores_count_sets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, truth = rng.integers(0, 5, (2, 20))
    known = (rng.random(20) < 0.7) | (truth > 0)
    scores = object_scores(found, truth, known)
    objects = {k: set(np.flatnonzero(found == k)) for k in set(found.tolist()) - {0}}
    true = {k: set(np.flatnonzero(truth == k)) for k in set(truth.tolist()) - {0}}
    counted = {k: v for k, v in objects.items() if v & set(np.flatnonzero(known))}
    right = sum(any(v & t for t in true.values()) for v in counted.values())
    hit = sum(any(v & t for v in counted.values()) for t in true.values())
    assert (scores.n_truth, scores.n_hit, scores.n_found, scores.n_right) == (len(true), hit, len(counted), right)
    if counted and true:
        assert (scores.precision, scores.recall) == (right / len(counted), hit / len(true))
    swapped = object_scores(truth, found, np.ones(20, np.bool_))
    both = object_scores(found, truth, np.ones(20, np.bool_))
    assert (both.n_hit, both.n_right) == (swapped.n_right, swapped.n_hit)


def test_both_sides_are_clustered() -> None:
    """The originals counted 12 found clusters as TP, 381 single patches as FP, and called it a precision."""
    starts = np.stack(np.meshgrid([0], np.arange(6), np.arange(6), indexing="ij"), -1).reshape(-1, 3)
    truth = ((starts[:, 1] < 2) & (starts[:, 2] < 2)).astype(np.int8)
    called = (truth == 1) | (starts[:, 1] >= 4)
    scores = object_scores(
        patch_objects(starts, called, (1, 1)), patch_objects(starts, truth == 1, (1, 1)), np.ones(36, np.bool_)
    )
    assert (scores.precision, scores.recall) == (1 / 2, 1)
    none = object_scores(np.zeros(36, int), np.zeros(36, int), np.ones(36, np.bool_))
    assert isnan(none.f1)
    assert none.reason
    assert object_scores(np.zeros(36, int), truth.astype(int), np.ones(36, np.bool_)).f1 == 0


@given(st.integers(0, 10**6))
def test_sections_hold_what_their_patches_do(seed: int) -> None:
    patches = lattice_patches(seed)
    sections, highest, truth = of_sections(patches.sections, patches.scores, patches.truth)
    for z, score, word in zip(sections.tolist(), highest.tolist(), truth.tolist(), strict=True):
        said = set(patches.truth[patches.sections == z].tolist())
        assert word == (1 if 1 in said else -1 if -1 in said else 0)
        assert score == patches.scores[patches.sections == z].max()


def tables(n: int = 6) -> tuple[PatchScores, PatchLabels]:
    starts = np.column_stack([np.arange(n), np.zeros((n, 2), np.int64)])
    scores = PatchScores(GRID, (1, 4, 4), starts, np.linspace(0, 1, n))
    labels = (np.arange(n)[:, None] % 2).astype(np.int8)
    return scores, PatchLabels(GRID, (1, 4, 4), starts, ("debris",), labels)


def test_tables_are_joined_by_place() -> None:
    scores, truth = tables()
    both = judged(scores, truth.taken(np.array([4, 1])))
    assert both.scores.tolist() == [0.8, 0.2]
    assert both.truth.tolist() == [0, 1]
    few = PatchScores(GRID, (1, 4, 4), scores.starts[:3], scores.scores[:3])
    with pytest.raises(InputError, match=r"3 of 6 patches .* have no score"):
        judged(few, truth)
    assert judged(few, truth, partial=True).n_unscored == 3


def test_tables_of_other_patches_are_refused() -> None:
    scores, truth = tables()
    with pytest.raises(InputError, match="same patches"):
        judged(scores, replace(truth, shape=(1, 5, 5)))
    with pytest.raises(InputError, match="no patch in common"):
        judged(scores, replace(truth, starts=truth.starts + 100))
    with pytest.raises(InputError, match="has a patch twice"):
        judged(scores, replace(truth, starts=truth.starts // 2, annotators=("A", "B"), annotator=np.arange(6) % 2))
    with pytest.raises(InputError, match="two scores"):
        PatchScores(GRID, (1, 4, 4), scores.starts // 2, scores.scores)
    with pytest.raises(InputError, match="score nan"):
        PatchScores(GRID, (1, 4, 4), scores.starts, scores.scores * np.nan)
    with pytest.raises(InputError, match="on no lattice"):
        inferred_stride(np.array([[0, 0, 0], [0, 3, 0], [0, 7, 0]]))
