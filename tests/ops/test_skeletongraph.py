"""Neighbours, degrees and shortest paths are those of a graph library; lost nodes and long tables are refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons
from emloom.ops.skeletongraph import (
    adjacency,
    branch_nodes,
    degrees,
    end_nodes,
    neighbours,
    path_distances,
    reachable,
    shortest_path,
)
from tests.ops.neurites import any_skeletons, as_graph

seeds = st.integers(0, 10**6)


@given(seeds)
def test_nodes_have_the_neighbours_of_a_graph(seed: int) -> None:
    skeletons = any_skeletons(seed)
    graph = as_graph(skeletons)
    nodes = range(len(skeletons.node_ids))
    assert degrees(skeletons).tolist() == [graph.degree(node) for node in nodes]
    assert end_nodes(skeletons).tolist() == [node for node in nodes if graph.degree(node) == 1]
    assert branch_nodes(skeletons).tolist() == [node for node in nodes if graph.degree(node) > 2]
    assert [part.tolist() for part in neighbours(skeletons)] == [sorted(graph[node]) for node in nodes]
    for by, weight in (("length", "nm"), ("hops", None)):
        expected = nx.to_numpy_array(graph, nodelist=nodes, weight=weight)
        np.testing.assert_allclose(adjacency(skeletons, by=by).toarray(), expected)  # type: ignore[arg-type]
    assert adjacency(skeletons).nnz == 2 * graph.number_of_edges()  # links of length 0 are there


@given(seeds, st.booleans())
def test_shortest_paths_are_those_of_a_graph(seed: int, hops: bool) -> None:
    skeletons = any_skeletons(seed)
    graph = as_graph(skeletons)
    by, weight = ("hops", None) if hops else ("length", "nm")
    start, stop = np.random.default_rng(seed).integers(0, len(skeletons.node_ids), 2).tolist()
    reached = nx.node_connected_component(graph, start)
    assert set(np.flatnonzero(reachable(skeletons, start)).tolist()) == reached
    away = path_distances(skeletons, [start, stop], by=by)  # type: ignore[arg-type]
    for row, node in enumerate((start, stop)):
        lengths = nx.single_source_dijkstra_path_length(graph, node, weight=weight or (lambda *_: 1))
        expected = [lengths.get(other, np.inf) for other in range(len(skeletons.node_ids))]
        np.testing.assert_allclose(away[row], expected, rtol=1e-12)
    if stop not in reached:
        with pytest.raises(InputError, match="no path joins node"):
            shortest_path(skeletons, start, stop, by=by)  # type: ignore[arg-type]
        return
    path = shortest_path(skeletons, start, stop, by=by)  # type: ignore[arg-type]
    rows = path.rows.tolist()
    assert (rows[0], rows[-1]) == (start, stop)
    assert all(graph.has_edge(a, b) for a, b in pairwise(rows))
    assert path.length_nm == pytest.approx(sum(graph.edges[edge]["nm"] for edge in pairwise(rows)), rel=1e-12)
    best = away[0, stop]
    assert (path.hops if hops else path.length_nm) == pytest.approx(best, rel=1e-12)


def test_a_path_by_hops_may_be_longer_in_nm() -> None:
    line = np.array([[0, 0, 0], [0, 0, 10], [0, 0, 20], [0, 100, 10]], float)
    skeletons = Skeletons.from_trees([(1, line, [(0, 1), (1, 2), (0, 3), (3, 2), (2, 0), (1, 1)])])
    by_length, by_hops = shortest_path(skeletons, 0, 2), shortest_path(skeletons, 0, 2, by="hops")
    assert (by_hops.rows.tolist(), by_hops.hops, by_hops.length_nm) == ([0, 2], 1, 20)
    assert by_length.length_nm == 20
    there = shortest_path(skeletons, 3, 3)
    assert (there.rows.tolist(), there.hops, there.length_nm) == ([3], 0, 0)


line = Skeletons.from_trees([(7, np.eye(3), [(0, 1)])], source="a.nml")
many = Skeletons.from_trees([(7, np.zeros((30_000, 3)), [])], source="a.nml")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: shortest_path(line, 0, 3), "a.nml has no node in row 3: it has 3 nodes, counted from 0"),
        (lambda: shortest_path(line, -1, 0), "no node in row -1"),
        (lambda: reachable(line, 9), "no node in row 9"),
        (lambda: path_distances(line, [0, 5]), "no node in row 5"),
        (lambda: shortest_path(line, 0, 2), "no path joins node 1 of skeleton 7 and node 3 of skeleton 7: they"),
        (lambda: adjacency(line, by="nm"), "by='nm' is unknown: weigh links by 'length' or by 'hops'"),  # type: ignore[arg-type]
        (lambda: path_distances(many, np.arange(30_000)), r"30000 x 30000 distances take 6.7 GiB, more than 4"),
    ],
)
def test_what_cannot_be_measured_is_said(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask()


def test_nothing_has_no_neighbours() -> None:
    nothing = Skeletons.from_trees([])
    assert neighbours(nothing) == []
    assert degrees(nothing).size == end_nodes(nothing).size == 0
    assert path_distances(nothing, []).shape == (0, 0)
