"""The nearest of many points, exactly: the same bits whatever else is asked in the same call.

Distances of all pairs come from one product of matrices, ``|q|^2 + |b|^2 - 2 q . b``, whose rounding depends on
how the machine cuts it up. So it only says which points *may* be among the nearest, within a bound on that
rounding; their distances are then summed term by term, in float64 and in the order of the features::

    nearest(queries, points, k)[i] == nearest(queries[i : i + 1], points, k)[0]        bit for bit
    nearest(points, points, 1) is at distance 0, exactly

Of equally near points, the one with the smaller number comes first.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError

F64 = NDArray[np.float64]
Rows = NDArray[np.int64]

_BLOCK = 1 << 22  # pairs whose distances are held at once


def nearest(queries_QD: F64, points_ND: F64, k: int, *, block: int = _BLOCK) -> tuple[F64, Rows]:
    """Return the k nearest points of every query, nearest first.

    Args:
        queries_QD: float64 [Q, D].
        points_ND: float64 [N, D].
        k: 1 to N.
        block: pairs that are held in memory at once; changes no bit.

    Returns:
        Euclidean distances, float64 [Q, k], and the numbers of the points, int64 [Q, k].

    Raises:
        InputError: lengths of the features differ, values are not finite, or there are fewer than k points.
    """
    _check(queries_QD, points_ND, k)
    queries, points = (np.ascontiguousarray(each, np.float64) for each in (queries_QD, points_ND))
    norms = np.einsum("nd,nd->n", points, points)
    distances = np.empty((len(queries), k))
    rows = np.empty((len(queries), k), np.int64)
    step = max(1, block // len(points))
    for start in range(0, len(queries), step):
        part = np.s_[start : start + step]
        distances[part], rows[part] = _nearest(queries[part], points, norms, k)
    return distances, rows


def _check(queries: F64, points: F64, k: int) -> None:
    if queries.ndim != 2 or points.ndim != 2 or queries.shape[1] != points.shape[1]:
        raise InputError(
            f"queries {queries.shape} and points {points.shape} have no distances: give [Q, D] and [N, D]"
        )
    if not 1 <= k <= len(points):
        raise InputError(f"the {k} nearest of {len(points)} points: ask for 1 to {len(points)}")
    if not np.isfinite(queries).all() or not np.isfinite(points).all():
        raise InputError("features hold NaN or infinity: leave those samples out")


def _nearest(queries: F64, points: F64, norms: F64, k: int) -> tuple[F64, Rows]:
    own = np.einsum("qd,qd->q", queries, queries)
    about = own[:, None] + norms - 2.0 * (queries @ points.T)
    # A sum of D products is off by at most D eps of the sum of their sizes; both norms bound the latter.
    rounding = 4.0 * (points.shape[1] + 4) * np.finfo(np.float64).eps * (own + norms.max())
    limit = np.partition(about, k - 1, axis=1)[:, k - 1] + 2.0 * rounding
    asked, found = np.nonzero(about <= limit[:, None])
    squares = _squares(queries, points, asked, found)
    order = np.lexsort((found, squares, asked))
    first = np.searchsorted(asked, np.arange(len(queries)))
    chosen = order[first[:, None] + np.arange(k)]
    return np.sqrt(squares[chosen]), found[chosen]


@njit(cache=True, nogil=True)
def _squares(queries: F64, points: F64, asked: Rows, found: Rows) -> F64:
    """Return the squared distance of pairs of rows."""
    out = np.empty(asked.size)
    for pair in range(asked.size):
        total = 0.0
        for d in range(queries.shape[1]):
            apart = queries[asked[pair], d] - points[found[pair], d]
            total += apart * apart
        out[pair] = total
    return out
