"""Skeletons are checked arrays; lengths do not depend on order, repetition or direction."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import dist, fsum
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.skeletons import Skeletons, grouped_fsum, joined, voxels_containing


def random_skeletons(seed: int) -> Skeletons:
    """Return skeletons with cycles, pieces, repeated edges, self-loops, and nodes in shuffled order."""
    rng = np.random.default_rng(seed)
    k, n = int(rng.integers(1, 5)), int(rng.integers(1, 30))
    whose = rng.integers(0, k, n)
    edges = rng.integers(0, n, (int(rng.integers(0, 60)), 2))
    edges = edges[whose[edges[:, 0]] == whose[edges[:, 1]]]
    return Skeletons(
        rng.choice(10**6, k, replace=False).astype(np.uint64),
        whose.astype(np.int64),
        rng.permutation(n).astype(np.uint64),
        rng.normal(0, 1000, (n, 3)),
        edges.astype(np.int64),
    )


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_lengths_are_those_of_a_simple_graph(seed: int) -> None:
    skeletons = random_skeletons(seed)
    graph = nx.Graph((a, b) for a, b in skeletons.edges.tolist() if a != b)
    positions = skeletons.positions_nm.tolist()
    for row, length in enumerate(skeletons.lengths_nm):
        parts = [dist(positions[a], positions[b]) for a, b in graph.edges if skeletons.skeletons[a] == row]
        assert length == pytest.approx(fsum(parts), rel=1e-14, abs=0)
    assert {tuple(sorted(edge)) for edge in graph.edges} == {(a, b) for a, b in skeletons.links.tolist()}


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=60)
def test_order_changes_no_bit_of_a_length(seed: int) -> None:
    skeletons = random_skeletons(seed)
    rng = np.random.default_rng(seed)
    nodes = rng.permutation(len(skeletons.node_ids))
    edges = np.argsort(nodes)[skeletons.edges]
    edges = np.concatenate([edges[:, ::-1], edges])[rng.permutation(2 * len(edges))]
    other = Skeletons(
        skeletons.ids, skeletons.skeletons[nodes], skeletons.node_ids[nodes], skeletons.positions_nm[nodes], edges
    )
    np.testing.assert_array_equal(other.lengths_nm, skeletons.lengths_nm)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_restricted_keeps_what_lies_inside(seed: int) -> None:
    skeletons = random_skeletons(seed)
    keep = np.random.default_rng(seed).random(len(skeletons.node_ids)) < 0.6
    part = skeletons.restricted(keep)
    expected = {(a, b) for a, b in skeletons.links.tolist() if keep[a] and keep[b]}
    back = np.flatnonzero(keep)
    assert {(int(back[a]), int(back[b])) for a, b in part.links} == expected
    np.testing.assert_array_equal(part.ids[part.skeletons], skeletons.ids[skeletons.skeletons[keep]])
    assert set(part.ids.tolist()) == set(skeletons.ids[skeletons.skeletons[keep]].tolist())
    everything = skeletons.restricted(np.ones(len(keep), bool))
    np.testing.assert_array_equal(everything.edges, skeletons.edges)


def test_trees_are_joined_and_named() -> None:
    line = np.array([[0, 0, 0], [0, 3, 4], [0, 3, 16]], float)
    one = Skeletons.from_trees([(7, line, [(0, 1), (1, 2)])], names=["axon"])
    two = Skeletons.from_trees([(3, line[:2], [(0, 1)]), (9, line[:1], [])])
    both = joined([one, two])
    assert both.ids.tolist() == [7, 3, 9]
    assert both.lengths_nm.tolist() == [17, 5, 0]
    assert both.node_ids.tolist() == [1, 2, 3, 1, 2, 1]
    assert both.names == ("axon", "", "")
    assert joined([]).lengths_nm.size == 0
    with pytest.raises(InputError, match="skeleton id 7 stands twice"):
        joined([one, one])


# 11.24 and 0.1 do not divide evenly in floating point; a corner must still lie in its own voxel.
@given(st.integers(0, 10**6), st.sampled_from([(32.0, 11.24, 11.24), (0.1, 0.3, 0.7), (30, 4, 4)]))
@settings(deadline=None, max_examples=40)
def test_voxels_are_those_of_the_grid(seed: int, voxel_size: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(seed)
    grid = Grid(voxel_size, tuple(rng.normal(0, 100, 3).tolist()))
    corners = rng.integers(-5000, 5000, (20, 3))
    positions = np.array([grid.to_world(v) for v in corners.tolist()] + rng.normal(0, 3e4, (20, 3)).tolist())
    found = voxels_containing(grid, positions)
    assert found.tolist() == [list(grid.containing(p)) for p in positions.tolist()]
    np.testing.assert_array_equal(found[:20], corners)


def test_grouped_sums_are_rounded_once() -> None:
    values = np.array([1e16, 1.0, -1e16, 3.0, 1.0])
    assert grouped_fsum(np.array([2, 2, 2, 0, 2]), values, 4).tolist() == [3, 0, 2, 0]


def arrays() -> dict[str, Any]:
    return {
        "ids": np.array([5, 6], np.uint64),
        "skeletons": np.array([0, 0, 1]),
        "node_ids": np.array([1, 2, 1], np.uint64),
        "positions_nm": np.zeros((3, 3)),
        "edges": np.array([[0, 1]]),
    }


def changed(name: str, value: Any) -> Callable[[], Skeletons]:
    return lambda: Skeletons(**(arrays() | {name: value}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (changed("ids", np.array([5, 5], np.uint64)), "skeleton id 5 stands twice"),
        (changed("ids", np.array([5, 6])), "ids is int64 of 1 dimensions: give uint64 of 1"),
        (changed("names", ("a",)), "2 skeleton ids and 1 names"),
        (changed("skeletons", np.array([0, 0, 2])), "node 1 belongs to skeleton number 2, but there are 2"),
        (changed("skeletons", np.array([0, 0])), "3 node ids, 2 skeletons of nodes"),
        (changed("node_ids", np.array([1, 1, 1], np.uint64)), "node 1 of skeleton 5 stands twice"),
        (changed("positions_nm", np.zeros((3, 2))), r"positions of shape \(3, 2\)"),
        (
            changed("positions_nm", np.array([[0, 0, 0], [0, np.nan, 0], [0, 0, 0]])),
            "node 2 of skeleton 5 lies at",
        ),
        (changed("positions_nm", np.full((3, 3), np.inf)), "node 1 of skeleton 5 lies at .*finite"),
        (
            changed("edges", np.array([[0, 1], [0, 3]])),
            r"edge 1 joins the nodes in rows \[0, 3\], but there are 3",
        ),
        (changed("edges", np.array([[-1, 1]])), "edge 0 joins the nodes"),
        (changed("edges", np.array([[1, 2]])), "node 2 of skeleton 5 and node 1 of skeleton 6"),
        (changed("edges", np.array([[1, 2, 0]])), r"edges have shape \(1, 3\)"),
        (lambda: Skeletons.from_trees([(1, np.zeros((2, 3)), [(0, 2)])]), "skeleton 1 has an edge to row 2"),
        (lambda: Skeletons(**arrays()).restricted(np.ones(2, bool)), "one boolean for each of 3 nodes"),
    ],
)
def test_wrong_skeletons_are_refused(make: Callable[[], Skeletons], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_skeletons_are_values() -> None:
    skeletons = Skeletons(**arrays())
    for array in (skeletons.edges, skeletons.positions_nm, skeletons.links, skeletons.link_lengths_nm):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0
    assert all(a == b for a, b in pairwise(skeletons.names))
