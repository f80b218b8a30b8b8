"""Cycles of skeletons: which have one, which nodes lie on one, and the trees that are left without them.

A link lies on a cycle where its two nodes stay joined without it; a node lies on a cycle where one of its links
does. A path that merely joins two cycles lies on none. The number of independent cycles of a skeleton is
links - nodes + pieces.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import minimum_spanning_tree

from emloom.geometry.skeletons import Floats, Rows, Skeletons
from emloom.ops.skeletonroots import NO_PARENT, rooted
from emloom.ops.skeletons import components

Mask = NDArray[np.bool_]


def pieces(skeletons: Skeletons) -> Rows:
    """Return int64 [K], into how many pieces each skeleton falls; 0 where it has no node."""
    _, one_of_each = np.unique(components(skeletons), return_index=True)
    return _counted(skeletons.skeletons[one_of_each], len(skeletons.ids))


def cycle_counts(skeletons: Skeletons) -> Rows:
    """Return int64 [K], the number of independent cycles of each skeleton; 0 for a tree, or several."""
    k = len(skeletons.ids)
    nodes, links = _counted(skeletons.skeletons, k), _counted(skeletons.link_skeletons, k)
    counts: Rows = links - nodes + pieces(skeletons)
    return counts


def spanning_links(skeletons: Skeletons) -> Mask:
    """Return bool [M], the links of the minimum spanning forest: of every cycle, the longest is left out.

    Among equally long links the one that comes first in `Skeletons.links` stays.
    """
    return spanning_edges(len(skeletons.node_ids), skeletons.links, skeletons.link_lengths_nm)


def spanning_edges(n: int, edges: Rows, weights: Floats) -> Mask:
    """Return bool [E], the edges of the minimum spanning forest of a graph of n nodes; the first among equals."""
    # Which edges stay depends on the order of the weights alone. Ranks, counted from 1, are that order, and are
    # never 0: scipy takes a weight of 0 for no edge.
    rank = np.empty(len(weights))
    rank[np.argsort(weights, kind="stable")] = np.arange(1, len(weights) + 1)
    graph = coo_array((rank, (edges[:, 0], edges[:, 1])), shape=(n, n))
    kept = minimum_spanning_tree(graph.tocsr()).data
    mask: Mask = np.isin(rank, kept)
    return mask


def without_cycles(skeletons: Skeletons) -> Skeletons:
    """Return all nodes, and of the links those of the minimum spanning forest.

    Repeated edges and edges from a node to itself are gone as well; what was joined stays joined.
    """
    return replace(skeletons, edges=skeletons.links[spanning_links(skeletons)])


def cycle_links(skeletons: Skeletons) -> Mask:
    """Return bool [M], the links that lie on a cycle: those that are no bridges."""
    tree = spanning_links(skeletons)
    on_cycle = ~tree
    if not on_cycle.any():
        return on_cycle
    _, roots = np.unique(components(skeletons), return_index=True)
    order, parent = rooted(len(skeletons.node_ids), skeletons.links[tree], roots)
    climbed = _climbed(order.tolist(), parent.tolist(), skeletons.links[~tree].tolist())
    # A link of the tree is known by its lower node.
    a, b = skeletons.links[tree].T
    lower = np.where(parent[a] == b, a, b)
    on_cycle[tree] = climbed[lower]
    return on_cycle


def cycle_nodes(skeletons: Skeletons) -> Rows:
    """Return the rows of the nodes that lie on a cycle, ascending."""
    return np.unique(skeletons.links[cycle_links(skeletons)])


def _climbed(order: list[int], parent: list[int], extra: list[list[int]]) -> Mask:
    """Return which nodes have the link to their parent on a cycle that one of the extra links closes."""
    depth = [0] * len(parent)
    for node in order:
        depth[node] = depth[parent[node]] + 1 if parent[node] != NO_PARENT else 0
    climbed = np.zeros(len(parent), bool)
    top = list(range(len(parent)))  # where to climb on from: what was climbed once is skipped

    def up(node: int) -> int:
        while top[node] != node:
            top[node] = node = top[top[node]]
        return node

    for a, b in extra:
        a, b = up(a), up(b)
        while a != b:
            if depth[a] < depth[b]:
                a, b = b, a
            climbed[a] = True
            top[a] = parent[a]
            a = up(a)
    return climbed


def _counted(rows: Rows, n: int) -> Rows:
    return np.bincount(rows, minlength=n).astype(np.int64)
