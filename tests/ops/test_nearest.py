"""Nearest points and coresets against the slow and obvious."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.ops.coreset import farthest_first, projected
from emloom.ops.nearest import nearest

seeds = st.integers(0, 2**32)


def cloud(seed: int, n: int, d: int, coarse: bool) -> np.ndarray:
    """Points, many of them equal or equally far where coarse."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 3, (n, d)).astype(float) if coarse else 100 + rng.standard_normal((n, d))


def squared(a: np.ndarray, b: np.ndarray) -> float:
    total = 0.0
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        total += (x - y) * (x - y)
    return total


@settings(max_examples=60)
@given(seed=seeds, q=st.integers(1, 12), n=st.integers(1, 25), d=st.integers(1, 40), coarse=st.booleans(),
       data=st.data())  # fmt: skip
def test_it_is_brute_force_with_ties_by_number(seed, q, n, d, coarse, data):
    k = data.draw(st.integers(1, n))
    queries, points = cloud(seed, q, d, coarse), cloud(seed + 1, n, d, coarse)
    distances, rows = nearest(queries, points, k, block=data.draw(st.sampled_from([1, 30, 1 << 20])))
    for i, query in enumerate(queries):
        expected = sorted((squared(query, point), number) for number, point in enumerate(points))[:k]
        assert rows[i].tolist() == [number for _, number in expected]
        assert distances[i].tolist() == [np.sqrt(square) for square, _ in expected]


@settings(max_examples=30)
@given(seed=seeds, n=st.integers(1, 60), d=st.integers(1, 70), block=st.sampled_from([1, 100, 1 << 20]))
def test_company_changes_no_bit(seed, n, d, block):
    queries, points = cloud(seed, 9, d, False), cloud(seed + 1, n, d, False)
    k = min(n, 3)
    together = nearest(queries, points, k, block=block)
    order = np.random.default_rng(seed).permutation(9)
    shuffled = nearest(queries[order], points, k)
    alone = [nearest(queries[i : i + 1], points, k) for i in range(9)]
    for part in (0, 1):
        np.testing.assert_array_equal(together[part][order], shuffled[part])
        np.testing.assert_array_equal(together[part], np.concatenate([one[part] for one in alone]))


@given(seed=seeds, n=st.integers(1, 40), d=st.integers(1, 20))
def test_a_point_is_at_no_distance_from_itself(seed, n, d):
    points = 1e6 + cloud(seed, n, d, False)
    assert (nearest(points, points, 1)[0] == 0).all()


@settings(max_examples=40)
@given(seed=seeds, n=st.integers(1, 9), d=st.integers(1, 3), data=st.data())
def test_a_coreset_covers_within_twice_the_best(seed, n, d, data):
    count = data.draw(st.integers(1, n))
    points = cloud(seed, n, d, data.draw(st.booleans()))
    chosen = farthest_first(points, count, data.draw(st.integers(0, n - 1)))
    best = min(
        nearest(points, points[list(centres)], 1)[0].max()
        for size in range(1, count + 1)
        for centres in combinations(range(n), size)
    )
    assert chosen.radius == nearest(points, points[chosen.rows], 1)[0].max()
    assert chosen.radius <= 2 * best * (1 + 1e-12)


@given(seed=seeds, n=st.integers(1, 30))
def test_a_coreset_begins_with_the_smaller_one(seed, n):
    points = cloud(seed, n, 2, True)
    whole = farthest_first(points, n)
    assert len(np.unique(whole.rows)) == len(whole.rows)
    assert whole.radius == 0
    assert len(whole.rows) == len(np.unique(points, axis=0))
    fewer = farthest_first(points, max(1, n // 2))
    np.testing.assert_array_equal(fewer.rows, whole.rows[: len(fewer.rows)])


def test_of_equally_far_points_the_smaller_number_is_taken():
    points = np.array([[0.0], [2.0], [-2.0], [2.0]])
    assert farthest_first(points, 2).rows.tolist() == [0, 1]
    assert farthest_first(points, 4).rows.tolist() == [0, 1, 2]


def test_a_projection_keeps_distances_about():
    points = cloud(0, 200, 1000, False)
    flat = projected(points, 128, np.random.default_rng(1))
    assert flat.shape == (200, 128)
    ratio = np.linalg.norm(flat[:-1] - flat[1:], axis=1) / np.linalg.norm(points[:-1] - points[1:], axis=1)
    assert abs(np.mean(ratio**2) - 1) < 0.05
    assert ratio.min() > 0.7
    assert ratio.max() < 1.3
    assert projected(points, 1000, np.random.default_rng(1)) is points


def test_what_has_no_answer_is_refused():
    points = np.zeros((3, 2))
    with pytest.raises(InputError, match="ask for 1 to 3"):
        nearest(points, points, 4)
    with pytest.raises(InputError, match="have no distances"):
        nearest(np.zeros((3, 1)), points, 1)
    with pytest.raises(InputError, match="NaN or infinity"):
        nearest(points, np.full((3, 2), np.inf), 1)
    with pytest.raises(InputError, match="at least one"):
        farthest_first(np.zeros((0, 2)), 1)
    with pytest.raises(InputError, match="from number 3 on"):
        farthest_first(points, 1, 3)
