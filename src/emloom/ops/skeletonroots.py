"""Trees seen from a root: parents of nodes, and Strahler orders.

The Strahler order of an end is 1; a node has the highest order among its children, and one more where two of them
or more have it (Horton 1945, doi:10.1130/0016-7606(1945)56[275:EDOSAT]2.0.CO;2; Strahler 1957,
doi:10.1029/TR038i006p00913)::

    1--1--2--2--3        root on the right
       1--'     |
    1--2--2-----'
    1--'
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from emloom.errors import InputError
from emloom.geometry.skeletons import Rows, Skeletons
from emloom.ops.skeletongraph import require_row
from emloom.ops.skeletons import components

NO_PARENT = -1


def parents(skeletons: Skeletons, roots: ArrayLike) -> Rows:
    """Return the parent of each node, its neighbour on the way to the root; `NO_PARENT` of roots.

    Args:
        skeletons: trees, in any number of pieces.
        roots: rows of nodes, one in each piece.

    Returns:
        int64 [N].

    Raises:
        InputError: a skeleton has a cycle, there is no such row, or a piece has no root, or several.
    """
    return _required(skeletons, np.asarray(roots, np.int64).reshape(-1))[1]


def strahler_orders(skeletons: Skeletons, roots: ArrayLike) -> Rows:
    """Return the Strahler order of each node, int64 [N], at least 1; see the module, and `parents`."""
    order, above = _required(skeletons, np.asarray(roots, np.int64).reshape(-1))
    n = len(above)
    parent: list[int] = above.tolist()
    highest, twice = [0] * n, [False] * n  # of the children, so far
    orders = [1] * n
    for node in order[::-1].tolist():
        if highest[node]:
            orders[node] = highest[node] + twice[node]
        up = parent[node]
        if up != NO_PARENT:
            twice[up] = orders[node] == highest[up] or (twice[up] and orders[node] < highest[up])
            highest[up] = max(highest[up], orders[node])
    return np.array(orders, np.int64)


def rooted(n: int, links: Rows, roots: Rows) -> tuple[Rows, Rows]:
    """Return the nodes from the roots outwards, and the parent of each, `NO_PARENT` of roots.

    Args:
        n: number of nodes.
        links: int64 [M, 2], a forest.
        roots: one in each piece.
    """
    # One more node, in row n, that all roots hang from.
    ends = (
        np.concatenate([links[:, 0], np.full(len(roots), n)]),
        np.concatenate([links[:, 1], roots]),
    )
    graph: Any = coo_array((np.ones(len(ends[0])), ends), shape=(n + 1, n + 1)).tocsr()
    order, parent = breadth_first_order(graph, n, directed=False)
    above = parent[:n].astype(np.int64)
    above[above == n] = NO_PARENT
    return order[1:].astype(np.int64), above


def _required(skeletons: Skeletons, roots: Rows) -> tuple[Rows, Rows]:
    for row in roots.tolist():
        require_row(skeletons, row)
    number = components(skeletons)
    n, pieces = len(number), int(number.max(initial=-1)) + 1
    if len(skeletons.links) != n - pieces:
        raise InputError(f"{skeletons.source} has cycles, and only trees have parents: break them, without_cycles")
    counts = np.bincount(number[roots], minlength=pieces)
    wrong = np.flatnonzero(counts != 1)
    if wrong.size:
        row = int(np.flatnonzero(number == wrong[0])[0])
        raise InputError(
            f"{skeletons.source}: the piece of node {skeletons.node_ids[row]} of skeleton "
            f"{skeletons.ids[skeletons.skeletons[row]]} has {counts[wrong[0]]} roots: give one for each piece"
        )
    return rooted(n, skeletons.links, roots)
