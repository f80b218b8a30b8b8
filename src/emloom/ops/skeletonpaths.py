"""Long paths of skeletons: the longest one, and the stretches between ends and branches.

The **longest path** of a tree is the longest of the shortest paths between any two of its nodes. That is also what
is returned where there are cycles (a weighted diameter; the longest path that visits no node twice is another
thing, and not to be had in reasonable time), and of a skeleton in pieces, the longest of its pieces.

A **stretch** is a path whose inner nodes have two neighbours each, between two *joints*: nodes with other than two
neighbours, and those the caller wants kept. A ring without a joint begins and ends at its first node. Every link
lies on exactly one stretch::

    o--.--.--o--.--o      3 stretches, joints o
             |
             .--o
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components, dijkstra

from emloom.errors import InputError
from emloom.geometry.skeletons import Floats, Rows, Skeletons
from emloom.ops.skeletongraph import Mask, NodePath, adjacency, degrees, walked
from emloom.ops.skeletons import components

_EQUAL = 1 + 1e-12  # two lengths that differ by less are one: sums of floats


@dataclass(frozen=True, eq=False)
class Stretches:
    """Paths between joints, as flat arrays.

    Attributes:
        nodes: int64 [L], rows of nodes, stretch after stretch, both joints included.
        first: int64 [S + 1], where each stretch begins in `nodes`; the last is L.
    """

    nodes: Rows
    first: Rows

    def __len__(self) -> int:
        """Return the number of stretches."""
        return len(self.first) - 1

    def __getitem__(self, index: int) -> Rows:
        """Return the nodes of one stretch, in order."""
        rows: Rows = self.nodes[self.first[index] : self.first[index + 1]]
        return rows

    @property
    def joints(self) -> Rows:
        """int64 [S, 2], the first and last node of each."""
        return np.stack([self.nodes[self.first[:-1]], self.nodes[self.first[1:] - 1]], axis=1)


def longest_paths(skeletons: Skeletons) -> list[NodePath]:
    """Return the longest path of each skeleton, in the order of `ids`; see the module.

    Without any link it is one node, and without any node it is empty. On trees: two sweeps to the farthest node.
    With cycles: bounds on how far the farthest node is, until they meet (Takes & Kosters 2011,
    doi:10.1145/2063576.2063748).
    """
    n = len(skeletons.node_ids)
    if not n:
        return [NodePath(np.zeros(0, np.int64), 0.0) for _ in skeletons.ids]
    graph = adjacency(skeletons)
    number = components(skeletons)
    _, first = np.unique(number, return_index=True)
    starts = _farthest(dijkstra(graph, indices=first, min_only=True), number)
    for piece in _cyclic(skeletons, number):
        rows = np.flatnonzero(number == piece)
        starts[piece] = rows[_diameter_end(graph[rows][:, rows], int(np.searchsorted(rows, starts[piece])))]
    distances, previous, _ = dijkstra(graph, indices=starts, min_only=True, return_predecessors=True)
    stops = _farthest(distances, number)
    paths = [NodePath(np.zeros(0, np.int64), 0.0)] * len(skeletons.ids)
    # From the shortest to the longest, the lower row last: what stands at the end is the longest of each.
    for piece in np.lexsort((-stops, distances[stops])):
        paths[skeletons.skeletons[stops[piece]]] = walked(skeletons, previous, int(stops[piece]))
    return paths


def stretches(skeletons: Skeletons, *, keep: Mask | None = None) -> Stretches:
    """Return the paths between joints; see the module.

    Args:
        skeletons: any.
        keep: bool [N], nodes that are joints whatever they are linked to.

    Returns:
        each link on one stretch, each stretch once, from its lower joint on; sorted by their joints.

    Raises:
        InputError: `keep` is not one boolean per node.
    """
    n = len(skeletons.node_ids)
    joint = degrees(skeletons) != 2
    if keep is not None:
        if keep.dtype != np.bool_ or keep.shape != (n,):
            raise InputError(f"keep is {keep.dtype} {keep.shape}: give one boolean for each of {n} nodes")
        joint |= keep
    joint[_first_of_rings(skeletons, joint)] = True
    a, b = skeletons.links.T
    direct = skeletons.links[joint[a] & joint[b]]
    chain, rank = _along_chains(skeletons, joint)
    # The links from a joint into a chain: those of one chain, at its first and last node, are its two ends.
    mixed = skeletons.links[joint[a] != joint[b]]
    at_joint = np.where(joint[mixed[:, 0]], mixed[:, 0], mixed[:, 1])
    inner = mixed.sum(axis=1) - at_joint
    order = np.lexsort((at_joint, rank[inner], chain[inner]))
    heads, tails = at_joint[order][0::2], at_joint[order][1::2]
    inside = np.flatnonzero(~joint)
    inside = inside[np.lexsort((rank[inside], chain[inside]))]
    parts = np.split(inside, np.flatnonzero(np.diff(chain[inside])) + 1) if inside.size else []
    whole = [np.concatenate([[h], part, [t]]) for h, part, t in zip(heads, parts, tails, strict=True)]
    oriented = [path[::-1] if path[0] > path[-1] else path for path in [*direct, *whole]]
    oriented.sort(key=lambda path: (int(path[0]), int(path[-1]), int(path[1])))
    first = np.cumsum([0, *map(len, oriented)]).astype(np.int64)
    return Stretches(np.concatenate([np.zeros(0, np.int64), *oriented]), first)


def _farthest(distances: Floats, number: Rows) -> Rows:
    """Return, for each piece, its node that is farthest; the lowest row among equals."""
    rows = np.arange(len(number))
    order = np.lexsort((-rows, distances, number))
    last = np.flatnonzero(np.diff(number[order], append=-1) != 0)
    farthest: Rows = order[last]
    return farthest


def _cyclic(skeletons: Skeletons, number: Rows) -> Rows:
    """Return the pieces that are no trees."""
    nodes = np.bincount(number)
    links = np.bincount(number[skeletons.links[:, 0]], minlength=len(nodes))
    return np.flatnonzero(links >= nodes)


def _diameter_end(graph: Any, start: int) -> int:
    """Return a node of a connected graph at an end of its longest shortest path."""
    n = graph.shape[0]
    low, high = np.zeros(n), np.full(n, np.inf)  # bounds on the distance to the farthest node
    node, best, end = start, -1.0, start
    widest = True
    while True:
        away = dijkstra(graph, indices=node)
        far = float(away.max())
        if far > best:
            best, end = far, node
        np.maximum(low, np.maximum(away, far - away), out=low)
        np.minimum(high, far + away, out=high)
        low[node] = high[node] = far
        left = high > best * _EQUAL
        if not left.any():
            return end
        # In turn from the fringe, which raises what is known to be reached, and from the middle, which lowers
        # what may be.
        node = int(np.where(left, high, -1.0).argmax() if widest else np.where(left, low, np.inf).argmin())
        widest = not widest


def _first_of_rings(skeletons: Skeletons, joint: Mask) -> Rows:
    """Return the first node of each piece that has no joint."""
    number = components(skeletons)
    with_joint = np.zeros(len(number) + 1, bool)
    with_joint[number[joint]] = True
    pieces, first = np.unique(number, return_index=True)
    return first[~with_joint[pieces]]


def _along_chains(skeletons: Skeletons, joint: Mask) -> tuple[Rows, Rows]:
    """Return, for nodes that are no joints, the chain each is in and its place along it."""
    n = len(joint)
    links = skeletons.links[~joint[skeletons.links].any(axis=1)]
    ends = (links[:, 0], links[:, 1])
    graph: Any = coo_array((np.ones(len(links)), ends), shape=(n, n)).tocsr()
    chain = connected_components(graph, directed=False)[1].astype(np.int64)
    terminal = np.flatnonzero(~joint & (np.bincount(links.ravel(), minlength=n) < 2))
    _, first = np.unique(chain[terminal], return_index=True)
    starts = terminal[first]
    # One more node, linked to the start of every chain: breadth first from there, each chain is met in order.
    ends = (np.concatenate([links[:, 0], np.full(len(starts), n)]), np.concatenate([links[:, 1], starts]))
    rooted: Any = coo_array((np.ones(len(ends[0])), ends), shape=(n + 1, n + 1)).tocsr()
    order = breadth_first_order(rooted, n, directed=False, return_predecessors=False)
    rank: NDArray[np.int64] = np.zeros(n + 1, np.int64)
    rank[order] = np.arange(len(order))
    return chain, rank[:-1]
