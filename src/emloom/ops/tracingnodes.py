"""Fewer nodes: some deleted, with or without gaps; duplicates made one; those no edge reaches.

Every function returns a new tracing. What is said about a node that stays, stays: attributes, comments, branch
points.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from emloom.geometry.columns import Columns, stacked
from emloom.geometry.skeletons import Rows, Skeletons
from emloom.geometry.tracings import Marks, Tracing
from emloom.ops.skeletonbuild import spanning_tree
from emloom.ops.tracingids import checked_rows
from emloom.ops.tracingparts import keep_nodes


def _graph(edges: Rows, n: int) -> coo_matrix:
    return coo_matrix((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(n, n))


def delete_nodes(tracing: Tracing, nodes: ArrayLike, *, close_gaps: bool = False) -> Tracing:
    """Return the tracing without some nodes.

    Args:
        tracing: trees that lose all their nodes are dropped.
        nodes: rows of nodes.
        close_gaps: join what was joined through them: the neighbours of each connected group of deleted nodes are
            linked by the shortest edges that connect them all (their minimum spanning tree), so that no tree falls
            apart and none gets a cycle.

    Raises:
        InputError: a row does not exist.
    """
    gone = np.unique(checked_rows(tracing, nodes))
    keep = np.ones(len(tracing.skeletons.node_ids), bool)
    keep[gone] = False
    if close_gaps:
        tracing = with_more_edges(tracing, _bridges(tracing.skeletons, keep))
    return keep_nodes(tracing, keep)


def _bridges(skeletons: Skeletons, keep: Rows) -> Rows:
    """Return the edges [M, 2] that join the neighbours of each connected group of nodes that go."""
    links = skeletons.links
    stays = keep[links]
    n = len(skeletons.node_ids)
    hole = connected_components(_graph(links[~stays.any(axis=1)], n), directed=False)[1].astype(np.int64)
    rim = links[stays[:, 0] != stays[:, 1]]
    outside = np.where(keep[rim[:, 0]], rim[:, 0], rim[:, 1])
    inside = np.where(keep[rim[:, 0]], rim[:, 1], rim[:, 0])
    pairs = np.unique(np.stack([hole[inside], outside]), axis=1)
    stops = np.flatnonzero(np.diff(pairs[0])) + 1
    made = [
        around[spanning_tree(skeletons.positions_nm[around])]
        for around in np.split(pairs[1], stops)
        if len(around) > 1
    ]
    return np.concatenate([np.zeros((0, 2), np.int64), *made]).astype(np.int64)


def with_more_edges(tracing: Tracing, edges: Rows) -> Tracing:
    """Return the tracing with edges [M, 2], rows of nodes, behind those their trees have; they have no attributes.

    Raises:
        InputError: an edge joins two trees, or names a row that is not there.
    """
    old = tracing.skeletons
    added = np.asarray(edges, np.int64).reshape(-1, 2)
    skeletons = replace(old, edges=np.concatenate([old.edges, added]))
    columns = stacked([tracing.edges, Columns(len(added))])
    order = np.argsort(old.skeletons[skeletons.edges[:, 0]], kind="stable")
    return replace(tracing, skeletons=replace(old, edges=skeletons.edges[order]), edges=columns.take(order))


def delete_duplicate_nodes(tracing: Tracing) -> Tracing:
    """Return the tracing with nodes of one tree at one position made one: the first, with what was said of all.

    Edges lead to the one that stays; those between nodes that became one, and those that became equal, are gone.
    No path gets longer or shorter, and nothing falls apart.
    """
    skeletons = tracing.skeletons
    keys = np.column_stack([skeletons.skeletons, skeletons.positions_nm + 0.0])  # -0.0 is 0.0
    _, first, same = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    stays = first[same.reshape(-1)].astype(np.int64)
    edges = stays[skeletons.edges]
    different = edges[:, 0] != edges[:, 1]
    # Self loops and repeated edges that were there before are not ours to mend: those no node of which moved stay.
    moved = (edges != skeletons.edges).any(axis=1)
    order = np.argsort(moved, kind="stable")
    _, one_of = np.unique(np.sort(edges, axis=1)[order], axis=0, return_index=True)
    kept = np.flatnonzero(~moved | (different & np.isin(np.arange(len(edges)), order[one_of])))
    made = replace(
        tracing,
        skeletons=replace(skeletons, edges=edges[kept].reshape(-1, 2)),
        edges=tracing.edges.take(kept),
        comments=Marks(stays[tracing.comments.rows], tracing.comments.columns),
        branchpoints=_once(Marks(stays[tracing.branchpoints.rows], tracing.branchpoints.columns)),
    )
    return keep_nodes(made, stays == np.arange(len(stays)))


def _once(marks: Marks) -> Marks:
    """Return the first mark of every node."""
    return marks.take(np.sort(np.unique(marks.rows, return_index=True)[1]))


def delete_unconnected_nodes(tracing: Tracing) -> Tracing:
    """Return the tracing without nodes that no edge reaches, in trees that have edges.

    A tree of one node is a place that somebody marked, and stays; so does any tree without an edge.
    """
    skeletons = tracing.skeletons
    lonely = np.bincount(skeletons.links.reshape(-1), minlength=len(skeletons.node_ids)) == 0
    linked = np.bincount(skeletons.link_skeletons, minlength=len(skeletons.ids)) > 0
    return keep_nodes(tracing, ~(lonely & linked[skeletons.skeletons]))
