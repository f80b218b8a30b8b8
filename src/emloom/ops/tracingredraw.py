"""Tracings cut, resampled, simplified and moved: with comments, groups and attributes, not only their nodes.

`emloom.ops.skeletonredraw` says where each new node comes from, and what the file said about old nodes follows. A
node that is new has a radius where both nodes it lies between have one, the type (of SWC) of the first, and no
other attribute. Nodes somebody spoke of are never resampled or simplified away: those with a comment, a branch
point or elements of their own, and roots.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry.columns import as_texts, number_text
from emloom.geometry.skeletons import Rows, Skeletons
from emloom.geometry.tracings import NEW, Tracing, carried
from emloom.ops.skeletonclip import clipped
from emloom.ops.skeletonredraw import Redrawn
from emloom.ops.skeletonresample import resampled, simplified

Mask = NDArray[np.bool_]


def clipped_tracing(tracing: Tracing, start_nm: Sequence[float], stop_nm: Sequence[float]) -> Tracing:
    """Return what lies in a half-open box of (z, y, x) in nm, cut at its faces; raises as `clipped`.

    Trees without a node in the box are gone; groups and the bounding boxes of the file stay.
    """
    return redrawn_tracing(tracing, clipped(tracing.skeletons, start_nm, stop_nm))


def resampled_tracing(tracing: Tracing, spacing_nm: float) -> Tracing:
    """Return the tracing with nodes at most a spacing apart; raises as `resampled`."""
    return redrawn_tracing(tracing, resampled(tracing.skeletons, spacing_nm, keep=spoken_of(tracing)))


def simplified_tracing(tracing: Tracing, tolerance_nm: float) -> Tracing:
    """Return the tracing without nodes that a straight line does as well; raises as `simplified`."""
    return redrawn_tracing(tracing, simplified(tracing.skeletons, tolerance_nm, keep=spoken_of(tracing)))


def spoken_of(tracing: Tracing) -> Mask:
    """Return bool [N], the nodes that say more than where the path is, and the roots of rooted trees."""
    old = tracing.skeletons
    n = len(old.node_ids)
    spoken = np.zeros(n, bool)
    spoken[tracing.comments.rows] = spoken[tracing.branchpoints.rows] = True
    spoken[np.array(list(tracing.others.nodes), np.int64)] = True
    proper = np.unique(old.edges[old.edges[:, 0] != old.edges[:, 1]], axis=0)
    parents = np.bincount(proper[:, 1], minlength=n)
    # Where each node has one parent at most, an edge leads from the parent to the child, and roots have none.
    return spoken | (parents == 0) if (parents <= 1).all() else spoken


def redrawn_tracing(tracing: Tracing, made: Redrawn) -> Tracing:
    """Return redrawn skeletons with everything the tracing said about what is left of the old ones."""
    old, new = tracing.skeletons, made.skeletons
    nodes_from = np.where(made.is_old, made.between[:, 0], NEW)
    by_id = np.argsort(old.ids)
    trees_from = by_id[np.searchsorted(old.ids, new.ids, sorter=by_id)]
    moved = carried(
        tracing,
        new,
        nodes_from=nodes_from,
        trees_from=trees_from,
        edges_from=_edges_from(old, new, nodes_from),
    )
    fresh = np.flatnonzero(~made.is_old)
    columns = moved.nodes
    if "radius" in tracing.nodes:
        radii = made.carried(tracing.nodes.numbers("radius", f"{tracing.source}: node row"))
        texts = [None if np.isnan(radii[row]) else number_text(radii[row]) for row in fresh]
        columns = replace(columns, texts={**columns.texts, "radius": _filled(columns["radius"], fresh, texts)})
    if "type" in tracing.nodes:
        types = tracing.nodes["type"][made.between[fresh, 0]].tolist()
        columns = replace(columns, texts={**columns.texts, "type": _filled(columns["type"], fresh, types)})
    return replace(moved, nodes=columns)


def _filled(column: Any, rows: Rows, texts: list[str | None]) -> Any:
    filled = column.copy()
    filled[rows] = as_texts(texts)
    return filled


def _edges_from(old: Skeletons, new: Skeletons, nodes_from: Rows) -> Rows:
    """Return the old edge that each edge is, `NEW` where there was none between its nodes."""
    n = len(old.node_ids)
    keys = old.edges.min(axis=1) * n + old.edges.max(axis=1)
    values, first = np.unique(keys, return_index=True)
    ends = nodes_from[new.edges]
    wanted = np.where((ends == NEW).any(axis=1), NEW, ends.min(axis=1) * n + ends.max(axis=1))
    if not len(values):
        return np.full(len(wanted), NEW, np.int64)
    at = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    found: Rows = np.where(values[at] == wanted, first[at], NEW)
    return found
