"""Pairs are those of a global solution; gaps, duplicates and smoothing are what their definitions say."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from emloom.geometry.synapses import SynapseTable
from emloom.ops.gaps import nearest_other, run_gaps, touch
from emloom.ops.partnering import distance_nm, group_sites, medoids, near_pairs, nearest, one_to_one
from emloom.ops.runs import find_runs, link_runs
from emloom.ops.smoothing import reach, smooth
from emloom.ops.synapsededup import autapses, duplicates

seeds = st.integers(0, 10**6)


def points(seed: int, n: int, m: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return rng.random((n, 3)) * 300, rng.random((m, 3)) * 300


@given(seeds, st.integers(0, 30), st.integers(0, 30))
@settings(max_examples=50, deadline=None)
def test_near_pairs_are_all_pairs_within_reach(seed: int, n: int, m: int) -> None:
    pre, post = points(seed, n, m)
    pairs, distances = near_pairs(pre, post, 90)
    everything = cdist(pre, post) if n and m else np.zeros((n, m))
    assert pairs.tolist() == np.argwhere(everything <= 90).tolist()
    assert distances == pytest.approx(everything[tuple(pairs.T)])


@given(seeds, st.integers(1, 25), st.integers(1, 25))
@settings(max_examples=50, deadline=None)
def test_one_to_one_costs_what_the_global_solution_costs(seed: int, n: int, m: int) -> None:
    pre, post = points(seed, n, m)
    pairs, costs = near_pairs(pre, post, 90)
    chosen = one_to_one(pairs, costs, 90)
    assert len(np.unique(pairs[chosen, 0])) == len(np.unique(pairs[chosen, 1])) == len(chosen)
    assert (np.diff(pairs[chosen, 1]) > 0).all()
    size = max(n, m)
    square = np.full((size, size), 90.0)
    square[tuple(pairs.T)] = costs
    best = square[linear_sum_assignment(square)].sum()
    assert costs[chosen].sum() + 90 * (size - len(chosen)) == pytest.approx(best)


@given(seeds, st.integers(1, 25), st.integers(1, 25))
@settings(max_examples=30, deadline=None)
def test_nearest_is_the_least_of_every_column(seed: int, n: int, m: int) -> None:
    pre, post = points(seed, n, m)
    pairs, costs = near_pairs(pre, post, 120)
    found = {int(b): int(a) for a, b in pairs[nearest(pairs, costs)]}
    everything = cdist(pre, post)
    expected = {j: int(everything[:, j].argmin()) for j in range(m) if everything[:, j].min() <= 120}
    assert found == expected


def test_of_equal_costs_the_second_decides_then_the_number() -> None:
    pairs = np.array([[2, 0], [1, 0], [0, 0], [3, 1], [1, 1]])
    costs = np.array([5.0, 5, 5, 1, 1])
    assert nearest(pairs, costs).tolist() == [2, 4]
    assert nearest(pairs, costs, np.array([1.0, 2, 3, 1, 2])).tolist() == [0, 3]


def test_groups_are_chains_within_a_segment() -> None:
    at = np.array([[0.0, 0, 0], [0, 0, 500], [0, 0, 40], [0, 0, 80], [0, 0, 90]])
    segments = np.array([3, 3, 3, 3, 4], np.uint64)
    groups = group_sites(at, segments, 50)
    assert groups.tolist() == [0, 1, 0, 0, 2]
    assert medoids(at, groups).tolist() == [2, 1, 4]
    assert group_sites(at[:0], segments[:0], 50).tolist() == medoids(at[:0], groups[:0]).tolist() == []


# ---- gaps -----------------------------------------------------------------------------------------------------


@given(seeds, st.sampled_from([0.5, 1.0, 3.0, 6.5]), st.sampled_from([6, 26]))
@settings(max_examples=40, deadline=None)
def test_gaps_are_the_least_distances_of_voxels(seed: int, reach_nm: float, connectivity: Any) -> None:
    rng = np.random.default_rng(seed)
    spacing = (3.0, 1.0, 1.0)
    sides, members = [], []
    for _ in range(2):
        evidence = (rng.random((4, 9, 10)) > 0.9).astype(np.uint8)
        runs = find_runs(evidence, 1)
        linked = link_runs(runs, connectivity)
        sides.append((runs.rows, linked.labels.astype(np.int64)))
        labels = ndimage.label(evidence, ndimage.generate_binary_structure(3, 1 if connectivity == 6 else 3))[0]
        members.append([np.argwhere(labels == i + 1) * spacing for i in range(linked.n)])
    pairs, squares = run_gaps(*sides[0], *sides[1], spacing, reach_nm)
    expected = {}
    for (i, a), (j, b) in product(enumerate(members[0]), enumerate(members[1])):
        gap = cdist(a, b).min()
        if gap <= reach_nm + 1e-9:
            expected[i, j] = gap
    assert {(int(a), int(b)): float(s) ** 0.5 for (a, b), s in zip(pairs, squares, strict=True)} == pytest.approx(
        expected
    )


def test_segments_touch_by_faces_or_within_reach() -> None:
    segments = np.zeros((2, 4, 4), np.uint64)
    segments[0, 0, 0], segments[0, 1, 1], segments[1, 0, 0] = 1, 2, 3
    spacing = (40.0, 4.0, 4.0)
    assert touch(segments, 1, 3, spacing, 0)
    assert not touch(segments, 1, 2, spacing, 0)  # an edge is no face
    assert touch(segments, 1, 2, spacing, 6)
    assert not touch(segments, 2, 3, spacing, 30)
    assert not touch(segments, 1, 9, spacing, 400)


def test_the_nearest_other_segment_is_found_where_it_is() -> None:
    segments = np.zeros((3, 5, 5), np.uint64)
    segments[1, 2, 1], segments[1, 2, 4], segments[0, 2, 2] = 7, 8, 9
    spacing, at = (40.0, 4.0, 4.0), np.array([1, 2, 2])
    assert nearest_other(segments, at, 0, spacing, 50).tolist() == [1, 2, 1]
    assert nearest_other(segments, at, 7, spacing, 50).tolist() == [1, 2, 4]
    assert nearest_other(segments, at, 7, spacing, 7.9).tolist() == [-1, -1, -1]
    assert nearest_other(segments, np.array([1, 2, -1]), 0, spacing, 50).tolist() == [1, 2, 1]


# ---- duplicates -----------------------------------------------------------------------------------------------


def table(rows: list[tuple[float, float, int, int, float]]) -> SynapseTable:
    """Return synapses of (x of pre, x of post, pre segment, post segment, score)."""
    pre, post, a, b, scores = (np.array([row[k] for row in rows]) for k in range(5))
    zeros = np.zeros(len(rows))
    ids = np.arange(1, len(rows) + 1, dtype=np.uint64)
    at = [np.stack([zeros, zeros, x], axis=1) for x in (pre, post)]
    return SynapseTable(ids, ids, *at, a.astype(np.uint64), b.astype(np.uint64), zeros.astype(np.int64), scores)


def test_of_duplicates_the_best_stays_and_of_equals_the_first() -> None:
    found = table(
        [
            (0, 100, 1, 2, 0.5),
            (10, 110, 1, 2, 0.9),  # better than the one before
            (15, 135, 1, 2, 0.8),  # near the better one
            (20, 160, 1, 2, 0.4),  # near one that is gone, not near one that stays
            (0, 100, 2, 1, 0.1),  # the other way round
            (0, 100, 1, 3, 0.1),  # another partner
            (90, 112, 1, 2, 0.3),  # the post sites are near, the pre sites are not
            (500, 600, 1, 2, 0.7),
            (501, 601, 1, 2, 0.7),  # as good, but later
        ]
    )
    assert duplicates(found, 30).tolist() == [True, False, True, False, False, False, False, False, True]
    assert not duplicates(found, 0).any()
    assert not duplicates(found.rows(np.zeros(len(found), bool)), 30).any()


def test_autapses_are_synapses_of_a_segment_with_itself() -> None:
    found = table([(0, 9, 1, 1, 1), (0, 9, 1, 2, 1), (0, 9, 0, 0, 1)])
    assert autapses(found).tolist() == [True, False, False]


# ---- smoothing ------------------------------------------------------------------------------------------------


@given(seeds, st.sampled_from([(0.0, 1.5, 0.7), (1.0, 0.0, 0.0), (0.6, 2.0, 2.0)]))
@settings(max_examples=20, deadline=None)
def test_smoothing_is_scipys_and_the_same_in_any_box(seed: int, sigma: tuple[float, float, float]) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (9, 22, 24)).astype(np.uint8)
    margin = reach(sigma)
    whole = smooth(np.pad(values, [(m, m) for m in margin], mode="reflect"), sigma)
    theirs = ndimage.gaussian_filter(values.astype(np.float64), sigma, mode="mirror", truncate=3.0)
    assert np.abs(whole - theirs).max() < 1.5
    inner = smooth(values, sigma)
    z, y, x = margin
    assert np.array_equal(inner, whole[z : 9 - z, y : 22 - y, x : 24 - x])
    for axis in range(3):
        assert np.array_equal(np.flip(smooth(np.flip(values, axis).copy(), sigma), axis), inner)


def test_distances_are_those_of_rows() -> None:
    assert distance_nm(np.array([[0.0, 3, 0]]), np.array([[4.0, 0, 0]])).tolist() == [5.0]
