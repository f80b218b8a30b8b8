"""Skeletons as a graph: neighbours, degrees, ends and branches, distances and shortest paths along links.

Its edges are `Skeletons.links`: every pair of different nodes once. A link weighs its length in nm, or 1 (a hop)::

    adjacency(skeletons)[a, b] == |position a - position b|     length
                                  1                             hops

Nodes are named by their row. Two nodes at one position are joined by a link of length 0, which is a link all the
same: where scipy reads a missing number as 0, no link is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, dijkstra

from emloom.errors import InputError
from emloom.geometry.skeletons import Floats, Rows, Skeletons
from emloom.ops.skeletons import components

By = Literal["length", "hops"]
Mask = NDArray[np.bool_]

_MOST_BYTES = 4 << 30  # a table of distances: more than that is rarely meant
_NONE = -9999  # scipy's "no predecessor"


@dataclass(frozen=True, eq=False)
class NodePath:
    """A path along links.

    Attributes:
        rows: int64 [P], the nodes in order, both ends included; empty where there is none.
        length_nm: sum of the lengths of its links, rounded once.
    """

    rows: Rows
    length_nm: float

    @property
    def hops(self) -> int:
        """Links it runs along."""
        return max(0, len(self.rows) - 1)


def adjacency(skeletons: Skeletons, *, by: By = "length") -> Any:
    """Return the symmetric sparse matrix of links, float64 [N, N] in CSR form.

    Args:
        skeletons: any; those of one table stand in one matrix and are not joined.
        by: what a link weighs, its `length` in nm or 1 for `hops`.

    Raises:
        InputError: `by` is unknown.
    """
    if by not in ("length", "hops"):
        raise InputError(f"by={by!r} is unknown: weigh links by 'length' or by 'hops'")
    a, b = skeletons.links.T
    weights = skeletons.link_lengths_nm if by == "length" else np.ones(len(a))
    n = len(skeletons.node_ids)
    both = (np.concatenate([a, b]), np.concatenate([b, a]))
    return coo_array((np.concatenate([weights, weights]), both), shape=(n, n)).tocsr()


def degrees(skeletons: Skeletons) -> Rows:
    """Return int64 [N], how many other nodes each node is linked to."""
    return np.bincount(skeletons.links.ravel(), minlength=len(skeletons.node_ids)).astype(np.int64)


def end_nodes(skeletons: Skeletons) -> Rows:
    """Return the rows of nodes with one neighbour; a node without any is no end."""
    return np.flatnonzero(degrees(skeletons) == 1)


def branch_nodes(skeletons: Skeletons) -> Rows:
    """Return the rows of nodes with three neighbours or more."""
    return np.flatnonzero(degrees(skeletons) >= 3)


def neighbours(skeletons: Skeletons) -> list[Rows]:
    """Return the rows that each node is linked to, ascending; one int64 array per node."""
    matrix = adjacency(skeletons, by="hops")
    matrix.sort_indices()
    return np.split(matrix.indices.astype(np.int64), matrix.indptr[1:-1]) if matrix.shape[0] else []


def reachable(skeletons: Skeletons, row: int) -> Mask:
    """Return bool [N], the nodes that a path joins to one node, itself included.

    Raises:
        InputError: there is no such row.
    """
    require_row(skeletons, row)
    number = components(skeletons)
    found: Mask = number == number[row]
    return found


def path_distances(skeletons: Skeletons, rows: Rows | list[int], *, by: By = "length") -> Floats:
    """Return how far all nodes lie from some, along the shortest path.

    Args:
        skeletons: any.
        rows: S nodes to measure from.
        by: in nm along links, or in hops.

    Returns:
        float64 [S, N], infinite where no path leads.

    Raises:
        InputError: there is no such row, or the table would take more than 4 GiB.
    """
    listed = np.asarray(rows, np.int64).reshape(-1)
    for row in listed.tolist():
        require_row(skeletons, row)
    require_room(len(listed), len(skeletons.node_ids), skeletons.source)
    if not listed.size:
        return np.zeros((0, len(skeletons.node_ids)))
    distances: Floats = dijkstra(adjacency(skeletons, by=by), indices=listed)
    return distances


def shortest_path(skeletons: Skeletons, start: int, stop: int, *, by: By = "length") -> NodePath:
    """Return the shortest path from one node to another; on a tree, the only one.

    Args:
        skeletons: any.
        start: row of a node.
        stop: row of a node.
        by: what is least, the `length` or the number of `hops`. Among equally short paths it is one.

    Raises:
        InputError: there is no such row, or no path joins the two.
    """
    require_row(skeletons, start)
    require_row(skeletons, stop)
    graph = adjacency(skeletons, by=by)
    if by == "hops":
        _, previous = breadth_first_order(graph, start)
    else:
        _, previous = dijkstra(graph, indices=start, return_predecessors=True)
    if start != stop and previous[stop] == _NONE:
        raise InputError(
            f"{skeletons.source}: no path joins {called(skeletons, start)} and {called(skeletons, stop)}: they "
            "lie in different pieces; ask for nodes of one, or add the edge that is missing"
        )
    return walked(skeletons, previous, stop)


def walked(skeletons: Skeletons, previous: NDArray[np.int32], stop: int) -> NodePath:
    """Return the path that ends at a node, from scipy's predecessors."""
    rows = [stop]
    while (before := int(previous[rows[-1]])) >= 0:
        rows.append(before)
    return path_through(skeletons, np.array(rows[::-1], np.int64))


def path_through(skeletons: Skeletons, rows: Rows) -> NodePath:
    """Return the path through nodes that are linked in this order."""
    steps = np.diff(skeletons.positions_nm[rows], axis=0)
    return NodePath(rows, fsum(np.sqrt(steps[:, 0] ** 2 + steps[:, 1] ** 2 + steps[:, 2] ** 2).tolist()))


def called(skeletons: Skeletons, row: int) -> str:
    """Return how messages call a node."""
    return f"node {skeletons.node_ids[row]} of skeleton {skeletons.ids[skeletons.skeletons[row]]}"


def require_row(skeletons: Skeletons, row: int) -> None:
    """Raise `InputError` where there is no node in a row."""
    n = len(skeletons.node_ids)
    if not 0 <= row < n:
        raise InputError(f"{skeletons.source} has no node in row {row}: it has {n} nodes, counted from 0")


def require_room(rows: int, columns: int, source: str) -> None:
    """Raise `InputError` where a table of distances would take more than 4 GiB."""
    if 8 * rows * columns > _MOST_BYTES:
        raise InputError(
            f"{source}: {rows} x {columns} distances take {8 * rows * columns / 2**30:.1f} GiB, more than "
            f"{_MOST_BYTES >> 30}: measure from fewer nodes at once, or ask for the nearest ones"
        )
