"""Skeletons with nodes at a spacing, and with no more nodes than they need.

Both work on stretches (`emloom.ops.skeletonpaths`), the paths between ends, branches and nodes the caller keeps.
Those stay where they are, so degrees, pieces and independent cycles stay what they are: of a ring three nodes at
least are left, and where two stretches join the same two nodes, one at least between them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.skeletons import Floats, Rows, Skeletons
from emloom.ops.skeletonpaths import Stretches, stretches
from emloom.ops.skeletonredraw import Between, Redrawn, between, leads_up, redrawn

Mask = NDArray[np.bool_]

_ROUNDING = 1e-9  # a stretch of ten spacings and a rounding error is ten spacings


def resampled(skeletons: Skeletons, spacing_nm: float, *, keep: Mask | None = None) -> Redrawn:
    """Return the skeletons with nodes evenly spaced along every stretch, at most a spacing apart.

    A stretch of length L has ``ceil(L / spacing)`` equal steps along the old path; between new nodes the path is
    straight, so it gets shorter where it was crooked.

    Args:
        skeletons: any.
        spacing_nm: the longest step along the old path, in nm.
        keep: bool [N], nodes to keep besides ends and branches: those with a comment, say.

    Raises:
        InputError: the spacing is not positive and finite, or `keep` is not one boolean per node.
    """
    if not (np.isfinite(spacing_nm) and spacing_nm > 0):
        raise InputError(f"a spacing of {spacing_nm} nm: give a positive length in nm")
    parts = stretches(skeletons, keep=keep)
    least, forward = _least_inner(parts) + 1, _forward(skeletons, parts)
    n = len(skeletons.node_ids)
    rows, part, edges = [np.zeros((0, 2), np.int64)], [np.zeros(0)], [np.zeros((0, 2), np.int64)]
    first = n
    for index in range(len(parts)):
        path = parts[index]
        around, fraction = _evenly(skeletons.positions_nm[path], spacing_nm, int(least[index]))
        rows.append(np.stack([path[around], path[around + 1]], axis=1))
        part.append(fraction)
        chain = np.concatenate([path[:1], first + np.arange(len(around)), path[-1:]])
        edges.append(np.stack([chain[:-1], chain[1:]] if forward[index] else [chain[1:], chain[:-1]], axis=1))
        first += len(around)
    new = between(skeletons, np.concatenate(rows), np.concatenate(part))
    stays = np.ones(n, bool)
    stays[_inner(parts)] = False
    return redrawn(skeletons, stays, new, np.concatenate(edges))


def simplified(skeletons: Skeletons, tolerance_nm: float, *, keep: Mask | None = None) -> Redrawn:
    """Return the skeletons without the nodes that a straight line does as well.

    A node is left out if it lies within the tolerance of the straight link that takes its place (Ramer 1972,
    doi:10.1016/S0146-664X(72)80017-0; Douglas & Peucker 1973, doi:10.3138/FM57-6770-U75U-7727). No node moves and
    none is new.

    Args:
        skeletons: any.
        tolerance_nm: how far the path may move, in nm; 0 leaves out only nodes on a straight line.
        keep: bool [N], nodes to keep besides ends and branches.

    Raises:
        InputError: the tolerance is negative or not finite, or `keep` is not one boolean per node.
    """
    if not (np.isfinite(tolerance_nm) and tolerance_nm >= 0):
        raise InputError(f"a tolerance of {tolerance_nm} nm: give a length in nm, at least 0")
    parts = stretches(skeletons, keep=keep)
    chosen = _needed(skeletons.positions_nm[parts.nodes], parts, tolerance_nm)
    last = np.zeros(len(chosen), bool)
    last[parts.first[1:] - 1] = True
    rows, ends = parts.nodes[chosen], np.flatnonzero(last[chosen])
    steps = np.setdiff1d(np.arange(len(rows)), ends)
    edges = np.stack([rows[steps], rows[steps + 1]], axis=1)
    which = np.repeat(np.arange(len(parts)), np.diff(ends, prepend=-1) - 1)
    edges = np.where(_forward(skeletons, parts)[which][:, None], edges, edges[:, ::-1])
    stays = np.ones(len(skeletons.node_ids), bool)
    stays[_inner(parts)] = False
    stays[rows] = True
    nothing = Between(np.zeros((0, 2), np.int64), np.zeros(0), np.zeros((0, 3)))
    return redrawn(skeletons, stays, nothing, edges)


def _inner(parts: Stretches) -> Rows:
    """Return the rows of nodes that are no joints."""
    at_end = np.zeros(len(parts.nodes), bool)
    at_end[parts.first[:-1]] = at_end[parts.first[1:] - 1] = True
    return parts.nodes[~at_end]


def _forward(skeletons: Skeletons, parts: Stretches) -> Mask:
    """Return which stretches run as the edges do; told by the first."""
    n = len(skeletons.node_ids)
    a, b = parts.nodes[parts.first[:-1]], parts.nodes[parts.first[:-1] + 1]
    links = skeletons.links[:, 0] * n + skeletons.links[:, 1]
    up = leads_up(skeletons)[np.searchsorted(links, np.minimum(a, b) * n + np.maximum(a, b))]
    forward: Mask = up == (a < b)
    return forward


def _least_inner(parts: Stretches) -> Rows:
    """Return how many inner nodes each stretch needs, lest a cycle is lost: 2 in a ring, 1 beside another."""
    joints = parts.joints
    _, which, count = np.unique(joints, axis=0, return_inverse=True, return_counts=True)
    direct = np.diff(parts.first) == 2
    beside = (count[which.ravel()] > 1) & ~direct
    least: Rows = np.where(joints[:, 0] == joints[:, 1], 2, beside.astype(np.int64))
    return least


def _evenly(positions: Floats, spacing: float, least: int) -> tuple[Rows, Floats]:
    """Return where on a path its new nodes lie: after which old one, and how far towards the next."""
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(positions, axis=0), axis=1))])
    steps = max(least, int(np.ceil(along[-1] / spacing - _ROUNDING)), 1)
    at = along[-1] * np.arange(1, steps) / steps
    after = np.clip(np.searchsorted(along, at, side="right") - 1, 0, len(along) - 2)
    length = along[after + 1] - along[after]
    return after.astype(np.int64), np.clip(
        np.divide(at - along[after], length, out=np.zeros(len(at)), where=length > 0), 0.0, 1.0
    )


def _needed(positions: Floats, parts: Stretches, tolerance: float) -> Mask:
    """Return which of the nodes of stretches stay: all spans are halved together, round after round."""
    needed = np.zeros(len(parts.nodes), bool)
    low, high, least = parts.first[:-1], parts.first[1:] - 1, _least_inner(parts)
    needed[low] = needed[high] = True
    while True:
        open_ = high - low >= 2
        low, high, least = low[open_], high[open_], least[open_]
        if not low.size:
            return needed
        farthest, away = _farthest_inside(positions, low, high)
        split = (away > tolerance) | (least > 0)
        low, high, middle, least = low[split], high[split], farthest[split], np.maximum(least[split] - 1, 0)
        needed[middle] = True
        more_before = middle - low >= high - middle
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])
        least = np.concatenate([np.where(more_before, least, 0), np.where(more_before, 0, least)])


def _farthest_inside(positions: Floats, low: Rows, high: Rows) -> tuple[Rows, Floats]:
    """Return, of each span, the inner node farthest from the straight link between its ends, and how far."""
    count = high - low - 1
    first = np.cumsum(count) - count
    span = np.repeat(np.arange(len(low)), count)
    at = np.arange(count.sum()) - first[span] + low[span] + 1
    start, step = positions[low][span], (positions[high] - positions[low])[span]
    to = positions[at] - start
    squared = (step * step).sum(axis=1)
    along = np.divide((to * step).sum(axis=1), squared, out=np.zeros(len(at)), where=squared > 0)
    away: Floats = np.linalg.norm(to - np.clip(along, 0.0, 1.0)[:, None] * step, axis=1)
    most = np.maximum.reduceat(away, first)
    hits = np.flatnonzero(away == most[span])
    _, earliest = np.unique(span[hits], return_index=True)
    return at[hits[earliest]], most
