"""A few of many points, such that every point is near one of them.

Greedy k-center, the farthest-first traversal: from some first point on, take the point that is farthest from all
taken so far. No choice of as many points covers all within less than half the radius that this one does
(Gonzalez 1985, doi:10.1016/0304-3975(85)90224-5)::

    radius(farthest_first(points, k)) <= 2 * min over all choices C of k points of radius(C)

Distances are exact in float64. Where they are measured after a random projection, as PatchCore does to save time
(Roth et al. 2022, arXiv:2106.08265), the bound holds of the projected points; those of the points themselves are
kept within a few per cent to tens of per cent (Johnson and Lindenstrauss 1984).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError

F64 = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Coreset:
    """Points that stand for all.

    Attributes:
        rows: int64 [K], their numbers, in the order they were taken.
        radius: largest distance of any point from the nearest of them.
    """

    rows: Rows
    radius: float


def farthest_first(points_ND: F64, count: int, first: int = 0) -> Coreset:
    """Return `count` points, fewer where these already are at distance 0 of all: repeats add nothing.

    Args:
        points_ND: float64 [N, D], at least one.
        count: K; all points where there are no more.
        first: number of the point to begin with. Of equally far ones the smaller number is taken.

    Raises:
        InputError: there is no point, a value is not finite, fewer than 1 is asked for, or there is no first.
    """
    if points_ND.ndim != 2 or not points_ND.size or not np.isfinite(points_ND).all():
        raise InputError(f"points {points_ND.shape} to choose from: give at least one, [N, D], finite")
    if count < 1 or not 0 <= first < len(points_ND):
        raise InputError(
            f"{count} of {len(points_ND)} points from number {first} on: ask for at least 1, from one of them on"
        )
    rows, radius = _farthest_first(np.ascontiguousarray(points_ND, np.float64), min(count, len(points_ND)), first)
    return Coreset(rows, float(radius))


def projected(points_ND: F64, size: int, rng: np.random.Generator) -> F64:
    """Return points in fewer dimensions, by a random Gaussian matrix that keeps squared distances on average.

    Args:
        points_ND: float64 [N, D].
        size: dimensions to keep; the points as they are where they have no more.
        rng: of the matrix.
    """
    length = points_ND.shape[1]
    if length <= size:
        return points_ND
    kept: F64 = points_ND @ (rng.standard_normal((length, size)) / np.sqrt(size))
    return kept


@njit(cache=True, nogil=True)
def _farthest_first(points: F64, count: int, first: int) -> tuple[Rows, float]:
    n, length = points.shape
    away = np.full(n, np.inf)
    rows = np.empty(count, np.int64)
    taken, centre = 0, first
    while True:
        rows[taken] = centre
        taken += 1
        farthest, radius = 0, -1.0
        for i in range(n):
            total = 0.0
            for d in range(length):
                apart = points[i, d] - points[centre, d]
                total += apart * apart
                if total >= away[i]:
                    break
            if total < away[i]:
                away[i] = total
            if away[i] > radius:
                farthest, radius = i, away[i]
        if taken == count or radius == 0.0:
            return rows[:taken].copy(), np.sqrt(radius)
        centre = farthest
