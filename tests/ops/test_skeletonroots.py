"""Parents lead to the root; Strahler orders are those of the definition."""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons
from emloom.ops.skeletonroots import NO_PARENT, parents, strahler_orders
from tests.ops.neurites import as_graph, neurites


def slow_orders(graph: nx.Graph, node: int, above: int, found: dict[int, int]) -> int:
    children = sorted(
        (slow_orders(graph, child, node, found) for child in graph[node] if child != above), reverse=True
    )
    order = 1 if not children else children[0] + (len(children) > 1 and children[0] == children[1])
    found[node] = order
    return order


@given(st.integers(0, 10**6))
def test_orders_are_those_of_the_definition(seed: int) -> None:
    skeletons = neurites(seed, most=40)
    graph = as_graph(skeletons)
    rng = np.random.default_rng(seed)
    roots = [int(rng.choice(sorted(part))) for part in nx.connected_components(graph)]
    above = parents(skeletons, roots)
    orders: dict[int, int] = {}
    for root in roots:
        slow_orders(graph, root, -1, orders)
        to_root = nx.single_source_shortest_path(graph, root)
        for node, path in to_root.items():
            assert above[node] == (path[-2] if len(path) > 1 else NO_PARENT)
    assert strahler_orders(skeletons, roots).tolist() == [orders[node] for node in sorted(orders)]


def test_the_picture_of_the_module() -> None:
    edges = [(0, 1), (1, 2), (2, 3), (3, 4), (5, 2), (6, 7), (8, 7), (7, 9), (9, 4)]
    tree = Skeletons.from_trees([(1, np.random.default_rng(0).random((10, 3)), edges)])
    assert strahler_orders(tree, [4]).tolist() == [1, 1, 2, 2, 3, 1, 1, 2, 1, 2]
    assert strahler_orders(Skeletons.from_trees([]), []).size == 0


ring = Skeletons.from_trees([(1, np.eye(3), [(0, 1), (1, 2), (2, 0)])], source="a.nml")
two = Skeletons.from_trees([(7, np.eye(3), [(0, 1)])], source="a.nml")


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: parents(ring, [0]), "a.nml has cycles, and only trees have parents"),
        (lambda: parents(two, [0]), "the piece of node 3 of skeleton 7 has 0 roots: give one for each"),
        (lambda: strahler_orders(two, [0, 1, 2]), "the piece of node 1 of skeleton 7 has 2 roots"),
        (lambda: parents(two, [3]), "no node in row 3"),
    ],
)
def test_what_has_no_root_is_refused(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask()
