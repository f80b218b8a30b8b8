"""The tree through a cloud of points is as short as the one that looks at every pair."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial import QhullError
from scipy.spatial.distance import cdist

from emloom.errors import InputError
from emloom.geometry.skeletons import Floats
from emloom.ops import skeletonbuild
from emloom.ops.skeletonbuild import _grown, spanning_skeletons, spanning_tree
from emloom.ops.skeletoncycles import cycle_counts, pieces

KINDS = (
    "any",
    "voxels",
    "section",
    "tilted plane",
    "line",
    "almost flat",
    "almost a line",
    "clumps",
    "repeated",
    "far",
)


def cloud(kind: str, seed: int, n: int) -> Floats:
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 100, (n, 3))
    turned, _ = np.linalg.qr(rng.normal(0, 1, (3, 3)))
    made = {
        "any": lambda: points,
        "voxels": lambda: rng.integers(0, 6, (n, 3)) * np.array([40.0, 4, 4]),
        "section": lambda: points * [0, 1, 1] + [1200, 0, 0],
        "tilted plane": lambda: points * [0, 1, 1] @ turned,
        "line": lambda: points * [0, 0, 1] @ turned,
        "almost flat": lambda: points * [10.0 ** rng.uniform(-15, -6), 1, 1] @ turned,
        "almost a line": lambda: points * [10.0 ** rng.uniform(-15, -6), 10.0 ** rng.uniform(-15, -6), 1],
        "clumps": lambda: rng.integers(0, 3, (n, 3)) * 1e4 + points * 1e-6,
        "repeated": lambda: points[rng.integers(0, max(1, n // 3), n)],
        "far": lambda: points + 1e8,
    }
    shape: Floats = made[kind]()
    return shape


def dense(points: Floats) -> float:
    """Return the length of the shortest tree, from every pair of points."""
    unique = np.unique(points, axis=0)
    return float(minimum_spanning_tree(cdist(unique, unique)).sum())


@given(st.sampled_from(KINDS), st.integers(0, 10**6), st.integers(1, 150))
@settings(max_examples=150)
def test_no_tree_is_shorter(kind: str, seed: int, n: int) -> None:
    points = cloud(kind, seed, n)
    edges = spanning_tree(points)
    assert edges.shape == (n - 1, 2)
    graph = np.zeros((n, n))
    graph[edges[:, 0], edges[:, 1]] = 1
    assert connected_components(graph, directed=False)[0] == 1
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1).sum()
    assert length == pytest.approx(dense(points), rel=1e-9, abs=1e-9)
    unique = np.unique(points, axis=0)
    grown = _grown(unique)
    slow = np.linalg.norm(unique[grown[:, 0]] - unique[grown[:, 1]], axis=1).sum()
    assert length == pytest.approx(slow, rel=1e-9, abs=1e-9)


def test_clouds_become_trees() -> None:
    rng = np.random.default_rng(3)
    clouds = [(4, rng.normal(0, 1, (300, 3))), (9, np.zeros((5, 3))), (2, np.zeros((0, 3))), (7, np.ones((1, 3)))]
    made = spanning_skeletons(clouds, names=["a", "b", "c", "d"])
    assert made.ids.tolist() == [4, 9, 2, 7]
    assert pieces(made).tolist() == [1, 1, 0, 1]
    assert not cycle_counts(made).any()
    assert made.lengths_nm[1:].tolist() == [0, 0, 0]
    assert len(made.edges) == 299 + 4
    np.testing.assert_array_equal(made.positions_nm[:300], clouds[0][1])


@pytest.mark.parametrize("points", [np.zeros((4, 2)), np.full((2, 3), np.nan), np.zeros(3)])
def test_what_is_no_cloud_is_refused(points: Floats) -> None:
    with pytest.raises(InputError, match=r"the points of skeleton 3 have shape .*: give \[n, 3\] finite"):
        spanning_skeletons([(3, points)])


def test_points_that_cannot_be_triangulated_have_a_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(points: Floats) -> None:
        raise QhullError("QH6154 initial simplex is flat")

    points = cloud("any", 0, 90)
    whole = spanning_tree(points)
    monkeypatch.setattr(skeletonbuild, "Delaunay", fails)
    grown = spanning_tree(points)
    assert {tuple(sorted(edge)) for edge in grown.tolist()} == {tuple(sorted(edge)) for edge in whole.tolist()}
