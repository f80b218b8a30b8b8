"""Odd skeletons are found, and only those; pieces are the components of a graph."""

from __future__ import annotations

import networkx as nx
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.geometry.skeletons import Skeletons
from emloom.ops.skeletons import components, findings


def test_every_oddity_is_named_with_its_count() -> None:
    rng = np.random.default_rng(0)
    trees = [
        (1, rng.random((3, 3)), [(0, 1), (1, 2)]),  # nothing odd
        (2, rng.random((3, 3)), [(0, 1), (1, 2), (2, 0), (0, 2), (2, 0), (1, 1)]),
        (3, rng.random((5, 3)), [(0, 1), (2, 3)]),
        (4, rng.random((2, 3)), []),
    ]
    found = findings(Skeletons.from_trees(trees))
    assert [(f.skeleton, f.kind, f.count) for f in found] == [
        (2, "cycles", 1),
        (2, "repeated edges", 2),
        (2, "self loops", 1),
        (3, "pieces", 3),
        (4, "no edge", 2),
    ]
    assert str(found[3]).startswith("skeleton 3 falls into 3 pieces and counts as one")
    assert findings(Skeletons.from_trees([])) == []


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_pieces_and_cycles_are_those_of_a_graph(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trees = []
    for number in range(1, int(rng.integers(1, 4)) + 1):
        n = int(rng.integers(1, 12))
        trees.append((number, rng.random((n, 3)), rng.integers(0, n, (int(rng.integers(0, 15)), 2))))
    skeletons = Skeletons.from_trees(trees)
    whole = nx.Graph()
    whole.add_nodes_from(range(len(skeletons.node_ids)))
    whole.add_edges_from(skeletons.links.tolist())
    number = components(skeletons)
    assert len(set(number.tolist())) == nx.number_connected_components(whole)
    assert all(len({int(number[node]) for node in part}) == 1 for part in nx.connected_components(whole))
    found = {(f.skeleton, f.kind): f.count for f in findings(skeletons)}
    for row, skeleton in enumerate(skeletons.ids.tolist()):
        graph = whole.subgraph(np.flatnonzero(skeletons.skeletons == row).tolist())
        assert found.get((skeleton, "cycles"), 0) == len(nx.cycle_basis(graph))
        pieces = nx.number_connected_components(graph)
        if graph.number_of_edges():
            assert found.get((skeleton, "pieces"), 1) == pieces
        else:
            assert found[skeleton, "no edge"] == graph.number_of_nodes()
