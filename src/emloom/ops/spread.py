"""Choosing few of many places so that they are not all the same one.

A hundred best places of a map are one blob seen a hundred times. Two steps make them a hundred different ones::

    apart      greedy non-maximum suppression: best first, a place is dropped if a kept one is near
    dealt      one of each group in turn (sections, blocks), the best of a group first, until there are enough

Nearness is per axis: places are near where they are nearer than a distance along z *and* y *and* x. Ties go to
the place that comes first in z, y, x order, so a choice depends on the places, not on their order.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

Rows = NDArray[np.int64]


def best_first(places_N3: Rows, priority_N: ArrayLike) -> Rows:
    """Return the rows of places, int64 [N], highest priority first; of equals, in z, y, x order.

    Args:
        places_N3: int64 [N, 3], (z, y, x).
        priority_N: [N], higher is better; not NaN.
    """
    places = np.asarray(places_N3, np.int64).reshape(-1, 3)
    order: Rows = np.lexsort((places[:, 2], places[:, 1], places[:, 0], -np.asarray(priority_N, np.float64)))
    return order


def apart(places_N3: Rows, priority_N: ArrayLike, distance: ArrayLike) -> Rows:
    """Return the rows of places that no better kept place is near to, best first.

    Args:
        places_N3: int64 [N, 3], (z, y, x).
        priority_N: [N], higher is better; not NaN.
        distance: three numbers (z, y, x), at least 1; (1, 1, 1) drops only repeated places.

    Raises:
        ValueError: a distance is below 1.
    """
    reach = np.asarray(distance, np.int64)
    if reach.shape != (3,) or reach.min() < 1:
        raise ValueError(f"distance {distance!r} must be three whole numbers, at least 1")
    places = np.asarray(places_N3, np.int64).reshape(-1, 3)
    order = best_first(places, priority_N)
    # In cells as large as the reach, whatever is near lies in the 27 cells around.
    cells = places // reach
    low = cells.min(axis=0) if len(cells) else np.zeros(3, np.int64)
    extent = (cells.max(axis=0) - low + 3) if len(cells) else np.ones(3, np.int64)
    keys = _key(cells - low + 1, extent)
    distinct, number = np.unique(keys, return_inverse=True)
    steps = _key(np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), -1).reshape(-1, 3), extent)
    kept = _keep(places, order, number.reshape(-1), distinct, steps, reach)
    rows: Rows = order[kept]
    return rows


def near_any(places_N3: Rows, others_M3: Rows, distance: ArrayLike) -> NDArray[np.bool_]:
    """Return which places lie nearer than `distance` to any of others, bool [N].

    Args:
        places_N3: int64 [N, 3].
        others_M3: int64 [M, 3].
        distance: three numbers (z, y, x), at least 1; (1, 1, 1) finds only the same places.
    """
    from scipy.spatial import cKDTree

    places, others = (np.asarray(each, np.int64).reshape(-1, 3) for each in (places_N3, others_M3))
    if not len(others) or not len(places):
        return np.zeros(len(places), np.bool_)
    # Whole numbers nearer than d are at most d - 1 away: half a step less than d is never ambiguous.
    scale = np.asarray(distance, np.float64) - 0.5
    nearest, _ = cKDTree(others / scale).query(places / scale, p=np.inf, distance_upper_bound=1.0)
    found: NDArray[np.bool_] = np.isfinite(nearest)
    return found


def dealt(groups_N: ArrayLike, count: int, most_per_group: int | None = None) -> Rows:
    """Return which of places that stand best first to take: one of each group in turn, int64, still best first.

    Groups take part in the order of their best places, so the very best is always taken first.

    Args:
        groups_N: [N] or [N, K], group of each place; rows that are equal are one group.
        count: how many to take at most.
        most_per_group: how many of a group at most; None: no limit.
    """
    groups = np.asarray(groups_N)
    _, number = np.unique(groups, axis=0, return_inverse=True)
    number = number.reshape(-1)
    turn = _turns(number)
    order = np.argsort(turn, kind="stable")  # first all the best of groups, then all the second best ...
    if most_per_group is not None:
        order = order[turn[order] < most_per_group]
    rows: Rows = np.sort(order[:count])
    return rows


def _turns(number_N: Rows) -> Rows:
    """Return how many of the same group stand before each, int64 [N]."""
    order = np.argsort(number_N, kind="stable")
    sorted_ = number_N[order]
    first = np.searchsorted(sorted_, sorted_, side="left")
    turns = np.zeros(len(number_N), np.int64)
    turns[order] = np.arange(len(number_N)) - first
    return turns


def _key(cells: Rows, extent: Rows) -> Rows:
    key: Rows = (cells[:, 0] * extent[1] + cells[:, 1]) * extent[2] + cells[:, 2]
    return key


@njit(cache=True)
def _keep(  # type: ignore[no-untyped-def]  # pragma: no cover - compiled
    places, order, number, distinct, steps, reach
):
    """Return bool [N] along `order`: which are kept. Kept places of a cell form a chain through `following`."""
    n = len(order)
    kept = np.zeros(n, np.bool_)
    head = np.full(len(distinct), -1, np.int64)
    following = np.full(n, -1, np.int64)
    for k in range(n):
        row = order[k]
        cell = number[row]
        near = False
        for step in steps:
            wanted = distinct[cell] + step
            other = np.searchsorted(distinct, wanted)
            if other == len(distinct) or distinct[other] != wanted:
                continue
            at = head[other]
            while at >= 0 and not near:
                near = True
                for axis in range(3):
                    if abs(places[at, axis] - places[row, axis]) >= reach[axis]:
                        near = False
                at = following[at]
            if near:
                break
        if not near:
            kept[k] = True
            following[row] = head[cell]
            head[cell] = row
    return kept
