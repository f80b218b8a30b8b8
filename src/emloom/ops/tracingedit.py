"""Cutting and joining trees: one tree per piece, one per branch, one tree of several.

Every function returns a new tracing. What is said about a node stays with it: attributes, comments, branch points.
A tree that becomes several keeps its id and name in the piece with its first node; the others get new ids, are
called ``name (2)``, ``name (3)``, ..., and are in the same group.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from emloom.errors import InputError
from emloom.geometry.elements import Element
from emloom.geometry.skeletons import Rows, Skeletons
from emloom.geometry.tracings import Tracing, carried
from emloom.ops.skeletons import components
from emloom.ops.tracingids import checked_rows, free_ids, free_node_ids, tree_rows
from emloom.ops.tracingnodes import with_more_edges
from emloom.ops.tracingparts import keep_nodes, taken

Node = Literal["copied", "alone", "deleted"]


def split_components(tracing: Tracing, trees: Iterable[int] | None = None) -> Tracing:
    """Return the tracing with every piece of some trees as a tree of its own.

    Args:
        tracing: whose other trees stay as they are.
        trees: ids of the trees to split, None for all.

    Raises:
        InputError: a tree does not exist.
    """
    skeletons = tracing.skeletons
    split = np.zeros(len(skeletons.ids), bool)
    split[slice(None) if trees is None else tree_rows(tracing, trees)] = True
    return _one_tree_per_piece(tracing, split)


def _one_tree_per_piece(tracing: Tracing, split: Rows) -> Tracing:
    """Split the trees where `split` [K] is True; the first piece of each keeps id and name."""
    skeletons = tracing.skeletons
    # Pieces in the order of their first nodes, those of one tree as one number where it is not split.
    label = np.where(split[skeletons.skeletons], components(skeletons), -1)
    _, first, piece = np.unique(
        np.stack([skeletons.skeletons, label]), axis=1, return_index=True, return_inverse=True
    )
    order = np.lexsort((first, skeletons.skeletons[first]))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    piece, whose = place[piece.reshape(-1)], skeletons.skeletons[first[order]]
    empty = np.setdiff1d(np.arange(len(skeletons.ids)), whose)
    trees_from = np.concatenate([whose, empty])
    back = np.argsort(trees_from, kind="stable")  # trees without nodes where they stood
    now = np.empty_like(back)
    now[back] = np.arange(len(back))
    return _divided(tracing, now[piece], trees_from[back])


def _divided(tracing: Tracing, whose: Rows, trees_from: Rows) -> Tracing:
    """Return the tracing with its nodes in new trees, each from an old one, pieces of one tree side by side."""
    skeletons = tracing.skeletons
    k = len(trees_from)
    start = np.searchsorted(trees_from, trees_from)
    number = np.arange(k) - start  # of the piece in its tree, from 0
    ids = skeletons.ids[trees_from].copy()
    ids[number > 0] = free_ids(skeletons.ids, int((number > 0).sum()))
    names = [
        skeletons.names[tree] if n == 0 else f"{skeletons.names[tree]} ({n + 1})".strip()
        for tree, n in zip(trees_from.tolist(), number.tolist(), strict=True)
    ]
    order = np.argsort(whose, kind="stable")
    now = np.empty_like(order)
    now[order] = np.arange(len(order))
    of_edge = whose[skeletons.edges[:, 0]]
    edges = np.argsort(of_edge, kind="stable")
    new = Skeletons(
        ids,
        whose[order].astype(np.int64),
        skeletons.node_ids[order],
        skeletons.positions_nm[order],
        now[skeletons.edges[edges]].astype(np.int64).reshape(-1, 2),
        tuple(names),
        skeletons.source,
    )
    return carried(tracing, new, nodes_from=order, trees_from=trees_from, edges_from=edges)


def split_at_nodes(tracing: Tracing, nodes: ArrayLike, *, node: Node = "copied") -> Tracing:
    """Return the tracing with trees cut at some nodes, each branch there a tree of its own.

    Args:
        tracing: what is cut.
        nodes: rows of nodes.
        node: what becomes of each of them: "copied", every branch keeps one, so that no path gets shorter; the
            first keeps its id, comments and branch points; "alone", it is a tree of its own; "deleted".

    Returns:
        the tracing; trees with such a node are split into all their pieces.

    Raises:
        InputError: a row does not exist, or `node` is none of these.
    """
    cut = np.unique(checked_rows(tracing, nodes))
    skeletons = tracing.skeletons
    split = np.zeros(len(skeletons.ids), bool)
    split[skeletons.skeletons[cut]] = True
    if node == "deleted":
        before = skeletons.ids[split]
        keep = np.ones(len(skeletons.node_ids), bool)
        keep[cut] = False
        made = keep_nodes(tracing, keep)
        return split_components(made, np.intersect1d(before, made.skeletons.ids))
    if node == "alone":
        at = np.isin(skeletons.edges, cut).any(axis=1)
        return _one_tree_per_piece(_with_edges(tracing, np.flatnonzero(~at)), split)
    if node != "copied":
        raise InputError(
            f"what shall become of the nodes that are cut at: {node!r}? give 'copied', 'alone' or 'deleted'"
        )
    return _one_tree_per_piece(_copied(tracing, cut), split)


def _with_edges(tracing: Tracing, kept: Rows) -> Tracing:
    """Return the tracing with some of its edges, by row."""
    skeletons = replace(tracing.skeletons, edges=tracing.skeletons.edges[kept])
    return replace(tracing, skeletons=skeletons, edges=tracing.edges.take(kept))


def _copied(tracing: Tracing, cut: Rows) -> Tracing:
    """Return the tracing with every node of `cut` once for each branch that leaves it."""
    skeletons = tracing.skeletons
    n = len(skeletons.node_ids)
    is_cut = np.zeros(n, bool)
    is_cut[cut] = True
    a, b = skeletons.edges.T
    between = is_cut[a] & is_cut[b]
    inner = ~is_cut[a] & ~is_cut[b]
    branch = connected_components(_graph(skeletons.edges[inner], n), directed=False)[1].astype(np.int64)
    # The branch an edge is in: that of its end that is not cut, or, between two cut nodes, one of its own.
    low, high = np.minimum(a, b), np.maximum(a, b)
    of_edge = np.where(between, n + low * n + high, branch[np.where(is_cut[a], b, a)])
    edges = skeletons.edges.copy()
    origin: list[Rows] = [np.arange(n)]
    # Edge 0's ends, edge 1's ends, ...; an edge from a node to itself is no branch, and stays where it is.
    ends = np.flatnonzero((is_cut[edges] & (a != b)[:, None]).reshape(-1))
    if ends.size:
        keys = np.stack([edges.reshape(-1)[ends], of_edge[ends // 2]])
        pairs, which = np.unique(keys, axis=1, return_inverse=True)
        # np.unique sorts: the first pair of each node keeps the node, the others get copies behind all nodes.
        first = np.r_[True, pairs[0, 1:] != pairs[0, :-1]]
        row = np.where(first, pairs[0], n - 1 + np.cumsum(~first))
        edges.reshape(-1)[ends] = row[which.reshape(-1)]
        origin.append(pairs[0, ~first])
    nodes_from = np.concatenate(origin).astype(np.int64)
    node_ids = np.concatenate([skeletons.node_ids, free_node_ids(tracing, len(nodes_from) - n)])
    new = Skeletons(
        skeletons.ids,
        skeletons.skeletons[nodes_from],
        node_ids,
        skeletons.positions_nm[nodes_from],
        edges,
        skeletons.names,
        skeletons.source,
    )
    k = len(skeletons.ids)
    return carried(tracing, new, nodes_from=nodes_from, trees_from=np.arange(k), edges_from=np.arange(len(edges)))


def _graph(edges: Rows, n: int) -> coo_matrix:
    return coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(n, n))


# ---- one tree of several --------------------------------------------------------------------------------------


def merge_trees(
    tracing: Tracing, trees: Sequence[int], *, join: Literal["nearest", "none"] = "nearest"
) -> Tracing:
    """Return the tracing with several trees as one, which has id, name, group and colour of the first.

    Args:
        tracing: whose other trees stay as they are.
        trees: ids of at least one tree, each once.
        join: "nearest" adds, for each further tree, an edge between its node and the node of those before it that
            are nearest to each other; "none" leaves pieces.

    Returns:
        the tracing; elements inside the trees, such as metadata, are those of all. Nodes of one id get new ones,
        all but the first.

    Raises:
        InputError: a tree does not exist or is named twice, or `join` is neither.
    """
    if join not in ("nearest", "none"):
        raise InputError(f"trees cannot be joined by {join!r}: give 'nearest' or 'none'")
    rows = tree_rows(tracing, trees)
    if not len(rows) or len(np.unique(rows)) < len(rows):
        raise InputError(f"the trees to merge are {list(trees)[:20]}: give at least one, and each once")
    old = tracing.skeletons
    inside = np.flatnonzero(np.isin(old.skeletons, rows))
    joints = _joints(old, rows) if join == "nearest" else np.zeros((0, 2), np.int64)
    whose, node_ids = old.skeletons.copy(), old.node_ids.copy()
    whose[inside] = rows[0]
    repeated = np.setdiff1d(inside, inside[np.unique(node_ids[inside], return_index=True)[1]])
    node_ids[repeated] = free_node_ids(tracing, len(repeated))
    one = replace(old, skeletons=whose, node_ids=node_ids)
    metadata = dict(tracing.others.trees)
    combined = _combined(element for row in rows.tolist() for element in metadata.get(row, ()))
    if combined:
        metadata[int(rows[0])] = combined
    made = with_more_edges(replace(tracing, skeletons=one, others=replace(tracing.others, trees=metadata)), joints)
    left = np.setdiff1d(np.arange(len(old.ids)), rows[1:])
    return taken(made, np.argsort(whose, kind="stable"), left)


def _joints(skeletons: Skeletons, rows: Rows) -> Rows:
    """Return the edges [M, 2] between each tree and those before it; trees without nodes need none."""
    found: list[tuple[int, int]] = []
    before = np.zeros(0, np.int64)
    for row in rows.tolist():
        own = np.flatnonzero(skeletons.skeletons == row)
        if len(own) and len(before):
            away, nearest = cKDTree(skeletons.positions_nm[before]).query(skeletons.positions_nm[own])
            end = int(np.argmin(away))
            found.append((int(before[nearest[end]]), int(own[end])))
        before = np.concatenate([before, own])
    return np.array(found, np.int64).reshape(-1, 2)


def _combined(elements: Iterable[Element]) -> tuple[Element, ...]:
    """Return elements, those of one name and the same attributes as one with the children of all."""
    found: dict[tuple[object, ...], Element] = {}
    for element in elements:
        key = (element.tag, element.attributes, element.text)
        if key in found:
            element = replace(element, children=(*found[key].children, *element.children))
        found[key] = element
    return tuple(found.values())
