"""Longest paths are the longest of all shortest ones; stretches share out the links; cycles are found exactly."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons
from emloom.ops.skeletoncycles import (
    cycle_counts,
    cycle_links,
    cycle_nodes,
    pieces,
    spanning_links,
    without_cycles,
)
from emloom.ops.skeletongraph import degrees
from emloom.ops.skeletonpaths import longest_paths, stretches
from tests.ops.neurites import any_skeletons, as_graph, neurites, nodes_of

seeds = st.integers(0, 10**6)


def longest(graph: nx.Graph, nodes: list[int]) -> float:
    """Return the longest of the shortest paths between any two of the nodes."""
    every = (nx.single_source_dijkstra_path_length(graph, node, weight="nm") for node in nodes)
    return max((max(lengths.values()) for lengths in every), default=0.0)


@given(seeds, st.booleans())
def test_the_longest_path_is_the_longest_of_all_shortest_ones(seed: int, odd: bool) -> None:
    skeletons = any_skeletons(seed) if odd else neurites(seed, most=30, cycles=seed % 3)
    graph = as_graph(skeletons)
    paths = longest_paths(skeletons)
    assert len(paths) == len(skeletons.ids)
    for row, path in enumerate(paths):
        nodes = nodes_of(skeletons, row)
        assert path.length_nm == pytest.approx(longest(graph, nodes), rel=1e-11, abs=1e-9)
        rows = path.rows.tolist()
        assert bool(rows) == bool(nodes)
        assert set(rows) <= set(nodes)
        assert len(set(rows)) == len(rows)
        assert all(graph.has_edge(a, b) for a, b in pairwise(rows))
        assert path.length_nm == pytest.approx(sum(graph.edges[e]["nm"] for e in pairwise(rows)), abs=1e-9)
        if rows:
            short = nx.dijkstra_path_length(graph, rows[0], rows[-1], weight="nm")
            assert path.length_nm == pytest.approx(short, rel=1e-11, abs=1e-9)


@given(seeds, st.booleans())
def test_stretches_share_out_the_links(seed: int, some_kept: bool) -> None:
    skeletons = any_skeletons(seed) if seed % 2 else neurites(seed, cycles=seed % 5)
    keep = np.random.default_rng(seed).random(len(skeletons.node_ids)) < (0.2 if some_kept else 0)
    parts = stretches(skeletons, keep=keep)
    steps = [tuple(sorted(step)) for k in range(len(parts)) for step in pairwise(parts[k].tolist())]
    assert sorted(steps) == [tuple(link) for link in skeletons.links.tolist()]
    joint = (degrees(skeletons) != 2) | keep
    for k in range(len(parts)):
        first, *inner, last = parts[k].tolist()
        assert not joint[inner].any()
        assert len(set(inner)) == len(inner)
        assert first <= last
        assert parts.joints[k].tolist() == [first, last]
        # A ring begins at its first node, everything else at a joint.
        assert (joint[first] and joint[last]) or (first == last and first < min(inner))
    ends = [tuple(pair) for pair in parts.joints.tolist()]
    assert ends == sorted(ends)


@given(seeds)
def test_cycles_are_those_of_a_graph(seed: int) -> None:
    skeletons = any_skeletons(seed)
    graph = as_graph(skeletons)
    bridges = {tuple(sorted(bridge)) for bridge in nx.bridges(graph)}
    links = [tuple(link) for link in skeletons.links.tolist()]
    assert cycle_links(skeletons).tolist() == [link not in bridges for link in links]
    assert cycle_nodes(skeletons).tolist() == sorted({n for link in links if link not in bridges for n in link})
    for row, (count, n) in enumerate(zip(cycle_counts(skeletons), pieces(skeletons), strict=True)):
        part = graph.subgraph(nodes_of(skeletons, row))
        assert count == len(nx.cycle_basis(part))
        assert n == nx.number_connected_components(part)
    tree = without_cycles(skeletons)
    assert not cycle_counts(tree).any()
    assert pieces(tree).tolist() == pieces(skeletons).tolist()
    assert {tuple(edge) for edge in tree.edges.tolist()} <= set(links)
    assert len(tree.edges) == spanning_links(skeletons).sum()
    least = nx.minimum_spanning_tree(graph, weight="nm")
    assert tree.lengths_nm.sum() == pytest.approx(least.size(weight="nm"), rel=1e-12)


def test_the_longest_link_of_a_cycle_goes() -> None:
    corners = np.array([[0, 0, 0], [0, 0, 4], [0, 3, 4], [0, 0, 0]], float)
    ring = Skeletons.from_trees([(1, corners, [(0, 1), (1, 2), (2, 0), (0, 3)])])
    assert cycle_nodes(ring).tolist() == [0, 1, 2]
    assert without_cycles(ring).edges.tolist() == [
        [0, 1],
        [0, 3],
        [1, 2],
    ]  # 5 nm are gone, the link of 0 nm is not
    assert [ring.lengths_nm[0], without_cycles(ring).lengths_nm[0]] == [12, 7]


def test_two_cycles_and_the_path_between_them() -> None:
    edges = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 5), (5, 6), (6, 4)]
    glasses = Skeletons.from_trees([(1, np.random.default_rng(0).random((7, 3)), edges)])
    assert cycle_nodes(glasses).tolist() == [0, 1, 2, 4, 5, 6]
    assert cycle_counts(glasses).tolist() == [2]
    assert [stretches(glasses)[k].tolist() for k in range(3)] == [[2, 0, 1, 2], [2, 3, 4], [4, 5, 6, 4]]


def test_a_long_chain_and_a_large_mesh() -> None:
    n = 30_000
    positions = np.zeros((n, 3))
    positions[:, 2] = np.arange(n)
    chain = Skeletons.from_trees([(1, positions, np.stack([np.arange(n - 1), np.arange(1, n)], axis=1))])
    assert longest_paths(chain)[0].length_nm == n - 1
    assert stretches(chain)[0].tolist() == list(range(n))
    side = 40
    mesh = nx.convert_node_labels_to_integers(nx.grid_2d_graph(side, side), ordering="sorted")
    at = np.array([[0, k // side, k % side] for k in range(side**2)], float)
    grid = Skeletons.from_trees([(1, at, list(mesh.edges))])
    assert longest_paths(grid)[0].length_nm == 2 * (side - 1)
    assert cycle_links(grid).all()


def test_nothing_has_no_path() -> None:
    nothing = Skeletons.from_trees([])
    assert longest_paths(nothing) == []
    assert len(stretches(nothing)) == 0
    assert cycle_nodes(nothing).size == pieces(nothing).size == 0
    empty = Skeletons.from_trees([(1, np.zeros((0, 3)), []), (2, np.zeros((1, 3)), [])])
    assert [path.rows.tolist() for path in longest_paths(empty)] == [[], [0]]
    with pytest.raises(InputError, match="one boolean for each of 1 nodes"):
        stretches(empty, keep=np.zeros(3, bool))
