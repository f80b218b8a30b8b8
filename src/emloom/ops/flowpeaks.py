"""Peaks of correlation surfaces, and which displacements are unlike those around them."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

_GRANTED = 0.5  # pixels by which neighbours may differ, besides what they do
_ROUND = 2  # nodes: neighbours are those of a square of five by five


@njit(cache=True, nogil=True)
def peaks(surfaces: F32, apart: int) -> F64:
    """Return the highest peak of every surface.

    Args:
        surfaces: [N, 2 S + 1, 2 S + 1], NaN where there is nothing.
        apart: distance from which another peak is another one, pixels.

    Returns:
        float64 [N, 5]: its distance from the middle along y and x, to a part of a pixel, infinite where it lies at
        the edge; its height; that of the next peak, 0 if there is none above; its curvature over its height, along
        the direction in which it is least. All NaN where a surface is.
    """
    count, rows, columns = surfaces.shape
    out = np.full((count, 5), np.nan)
    for n in range(count):
        s = surfaces[n]
        best, v, u = _highest(s, 0, 0, 0)
        if v < 0:
            continue
        following, _, _ = _highest(s, v, u, apart)
        out[n, 0], out[n, 1], out[n, 2], out[n, 3], out[n, 4] = np.inf, np.inf, best, max(following, 0.0), 0.0
        if v < 1 or u < 1 or v > rows - 2 or u > columns - 2:
            continue
        dy, dx, bend = _vertex(s[v - 1 : v + 2, u - 1 : u + 2].astype(np.float64))
        if np.isnan(bend):
            continue
        out[n, 0], out[n, 1] = v + dy - rows // 2, u + dx - columns // 2
        out[n, 4] = bend / max(best, 1e-9)
    return out


@njit(cache=True, nogil=True)
def _highest(s: F32, v: int, u: int, apart: int) -> tuple[float, int, int]:
    """Return the highest value as far from a place as said, and where it is; -1: nowhere."""
    best, row, column = -np.inf, -1, -1
    for y in range(s.shape[0]):
        for x in range(s.shape[1]):
            if s[y, x] > best and (y - v) ** 2 + (x - u) ** 2 >= apart**2:
                best, row, column = s[y, x], y, x
    return best, row, column


@njit(cache=True, nogil=True)
def _vertex(s: F64) -> tuple[float, float, float]:
    """Return where the paraboloid through 3 x 3 values, by least squares, is highest, and how bent it is."""
    gy = (s[2, 0] + s[2, 1] + s[2, 2] - s[0, 0] - s[0, 1] - s[0, 2]) / 6
    gx = (s[0, 2] + s[1, 2] + s[2, 2] - s[0, 0] - s[1, 0] - s[2, 0]) / 6
    row0, row1, row2 = s[0].sum(), s[1].sum(), s[2].sum()
    col0, col1, col2 = s[:, 0].sum(), s[:, 1].sum(), s[:, 2].sum()
    yy = (row0 - 2 * row1 + row2) / 3
    xx = (col0 - 2 * col1 + col2) / 3
    yx = (s[2, 2] + s[0, 0] - s[2, 0] - s[0, 2]) / 4
    det = yy * xx - yx * yx
    if not (det > 0 and yy + xx < 0):
        return 0.0, 0.0, np.nan
    dy, dx = (yx * gx - xx * gy) / det, (yx * gy - yy * gx) / det
    least = -(yy + xx) / 2 - np.sqrt(((yy - xx) / 2) ** 2 + yx * yx)
    return min(max(dy, -1.0), 1.0), min(max(dx, -1.0), 1.0), least


@njit(cache=True, nogil=True)
def median_faults(moves: F64, valid: NDArray[np.bool_], deviation: float, rough: float) -> NDArray[np.bool_]:
    """Return which nodes differ from what their neighbours say, or have none that agree.

    Two neighbours on opposite sides say their mean, which is right in any field linear around them; the median of
    all pairs is what they say together (of single neighbours, where a node at the rim has less than three pairs).
    The normalised median test of Westerweel & Scarano 2005: a node's distance from that median, over the median
    distance of the pairs from it and a little more.

    Args:
        moves: [J, I, 2].
        valid: [J, I].
        deviation: largest quotient.
        rough: largest distance, and largest median distance of pairs, pixels.
    """
    rows, columns, _ = moves.shape
    out = np.zeros((rows, columns), np.bool_)
    few = min(3, rows * columns - 1)
    for j in range(rows):
        for i in range(columns):
            if not valid[j, i]:
                continue
            said = _said(moves, valid, j, i, True)
            if len(said) < 3:
                said = _said(moves, valid, j, i, False)
            if len(said) < few:
                out[j, i] = True
            elif len(said):
                y, x = np.median(said[:, 0]), np.median(said[:, 1])
                spread = np.median(np.hypot(said[:, 0] - y, said[:, 1] - x))
                off = np.hypot(moves[j, i, 0] - y, moves[j, i, 1] - x)
                out[j, i] = off > min(deviation * (spread + _GRANTED), rough) or spread > rough
    return out


@njit(cache=True, nogil=True)
def _said(moves: F64, valid: NDArray[np.bool_], j: int, i: int, pairs: bool) -> F64:
    """Return what pairs of neighbours of a node say, or what neighbours do, [N, 2]."""
    rows, columns = valid.shape
    out = np.empty(((2 * _ROUND + 1) ** 2, 2))
    n = 0
    for dj in range(-_ROUND, _ROUND + 1):
        for di in range(-_ROUND, _ROUND + 1):
            v, u, far_v, far_u = j + dj, i + di, j - dj, i - di
            if (dj == 0 and di == 0) or not (0 <= v < rows and 0 <= u < columns and valid[v, u]):
                continue
            if not pairs:
                out[n] = moves[v, u]
                n += 1
            elif (dj, di) > (0, 0) and 0 <= far_v < rows and 0 <= far_u < columns and valid[far_v, far_u]:
                out[n] = (moves[v, u] + moves[far_v, far_u]) / 2
                n += 1
    return out[:n]
