"""The Haar transform of two arrays at once, kept as sums: one pass, no array of coefficients.

A level joins pairs of neighbours along some axes. With the unnormalised butterfly ``(a + b, a - b)`` every
coefficient of integers is an integer; after ``k`` pairings (a cell of ``2^k`` voxels) the orthonormal one is::

    c = u / 2^(k/2)        c_x c_y = u_x u_y / 2^k        |c| = |u| / 2^(k/2)

so sums of squares and products are integers over an exact power of two. They fit 64 bits where `fits_int64` says
so, by Parseval: ``sum u^2 = 2^k sum c^2 <= 2^k N M^2`` for ``N`` voxels of at most ``M``; by Cauchy and Schwarz no
cross sum is larger, nor is any part of one, and ``sum |u| <= sum u^2``. Floats go through the same kernel in
float64: each tile is summed in one fixed order, so its sums are the same bits wherever the tile is met, and
    dividing by ``2^k`` rounds nothing.

Orientations are numbered by the axes along which a coefficient is a difference: 4 for z, 2 for y, 1 for x, added
up; 0 is the mean, of which the next level is made.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.geometry import Vec

Array = NDArray[Any]
Pair = tuple[Array, Array]

N_ORIENTATIONS = 8
SUMS = ("energy_x", "energy_y", "cross", "abs_x", "abs_y")
"""What is summed over the coefficients, in this order: u_x^2, u_y^2, u_x u_y, |u_x|, |u_y|."""


def fits_int64(dtype: np.dtype[Any], tile_ZYX: Vec, halvings: int) -> bool:
    """Return whether all sums of a tile of this type are integers below 2^63, whatever the voxels.

    8-bit data: tiles of 256 x 256 with 8 levels or of 128^3 with 7 always do. Signed 16-bit data: 256 x 256 with 8
    levels; unsigned: with 7.

    Args:
        dtype: of the voxels.
        tile_ZYX: voxels per tile.
        halvings: how often the deepest level has halved the tile, over all axes.
    """
    if dtype.kind not in "iu":
        return False
    limits = np.iinfo(dtype)
    largest = max(-int(limits.min), int(limits.max))
    return prod(tile_ZYX) * largest**2 << halvings <= 1 << 62


@njit(cache=True, nogil=True)
def haar_sums(x_ZYX: Array, y_ZYX: Array, tile_ZYX: Array, factors_LZYX: Array, sums: Array) -> None:
    """Add the sums of every tile.

    Args:
        x_ZYX: C-contiguous, a whole number of tiles.
        y_ZYX: of the same shape.
        tile_ZYX: int64 [3].
        factors_LZYX: int64 [L, 3], 2 where level l (finest first) joins along an axis, else 1.
        sums: int64 or float64 [tiles z, y, x, L, N_ORIENTATIONS, len(SUMS)], zero. Orientation 0 of the last level
            gets the final means.
    """
    first = tile_ZYX // factors_LZYX[0]
    second = first // factors_LZYX[min(1, len(factors_LZYX) - 1)]
    # Levels write to these in turns: written in place, a level would not be known to leave its input alone.
    odd = _room(first, sums), _room(first, sums)
    even = _room(second, sums), _room(second, sums)
    size = np.empty(3, np.int64)
    origin = np.zeros(3, np.int64)
    corner = np.empty(3, np.int64)
    for tz in range(sums.shape[0]):
        for ty in range(sums.shape[1]):
            for tx in range(sums.shape[2]):
                of_tile = sums[tz, ty, tx]
                corner[0], corner[1], corner[2] = tz * tile_ZYX[0], ty * tile_ZYX[1], tx * tile_ZYX[2]
                size[:] = tile_ZYX
                _level((x_ZYX, y_ZYX), corner, size, factors_LZYX[0], odd, of_tile[0])
                for level in range(1, len(factors_LZYX)):
                    if level % 2:
                        _level(odd, origin, size, factors_LZYX[level], even, of_tile[level])
                    else:
                        _level(even, origin, size, factors_LZYX[level], odd, of_tile[level])
                if len(factors_LZYX) % 2:
                    _means(odd, size, of_tile[-1, 0])
                else:
                    _means(even, size, of_tile[-1, 0])


@njit(cache=True, nogil=True)
def _room(shape: Array, like: Array) -> Array:
    return np.empty((shape[0], shape[1], shape[2]), like.dtype)


@njit(cache=True, nogil=True)
def _level(pair: Pair, corner: Array, size: Array, factor: Array, means: Pair, sums: Array) -> None:
    """Join the first `size` voxels from `corner` on, and shrink `size` to the number of means."""
    (x, y), (mean_x, mean_y) = pair, means
    if factor[0] == 1 and factor[1] == 2 and factor[2] == 2:
        start, stop = corner[2], corner[2] + size[2]
        for cz in range(size[0]):
            z = corner[0] + cz
            for cy in range(size[1] // 2):
                upper, lower = corner[1] + 2 * cy, corner[1] + 2 * cy + 1
                _two_rows(
                    x[z, upper, start:stop],
                    x[z, lower, start:stop],
                    y[z, upper, start:stop],
                    y[z, lower, start:stop],
                    mean_x[cz, cy],
                    mean_y[cz, cy],
                    sums,
                )
        size //= factor
        return
    size //= factor
    zero = sums[0, 0] - sums[0, 0]
    for cz in range(size[0]):
        for cy in range(size[1]):
            for cx in range(size[2]):
                z, row, column = corner[0] + factor[0] * cz, corner[1] + factor[1] * cy, corner[2] + factor[2] * cx
                of_x = _butterfly(_cell(x, z, row, column, factor, zero))
                of_y = _butterfly(_cell(y, z, row, column, factor, zero))
                mean_x[cz, cy, cx], mean_y[cz, cy, cx] = of_x[0], of_y[0]
                for orientation in range(1, 8):
                    _count(of_x[orientation], of_y[orientation], sums[orientation])


@njit(cache=True, nogil=True)
def _two_rows(x0: Array, x1: Array, y0: Array, y1: Array, mean_x: Array, mean_y: Array, sums: Array) -> None:
    """Join two rows along y and x: the case that takes all the time, as a loop that compilers vectorise."""
    zero = sums[0, 0] - sums[0, 0]  # of the type of the sums
    xx1, yy1, xy1, ax1, ay1 = zero, zero, zero, zero, zero
    xx2, yy2, xy2, ax2, ay2 = zero, zero, zero, zero, zero
    xx3, yy3, xy3, ax3, ay3 = zero, zero, zero, zero, zero
    for c in range(x0.size // 2):
        xa, xb, xc, xd = x0[2 * c] + zero, x0[2 * c + 1] + zero, x1[2 * c] + zero, x1[2 * c + 1] + zero
        ya, yb, yc, yd = y0[2 * c] + zero, y0[2 * c + 1] + zero, y1[2 * c] + zero, y1[2 * c + 1] + zero
        mean_x[c], mean_y[c] = (xa + xb) + (xc + xd), (ya + yb) + (yc + yd)
        u, v = (xa - xb) + (xc - xd), (ya - yb) + (yc - yd)
        xx1, yy1, xy1, ax1, ay1 = xx1 + u * u, yy1 + v * v, xy1 + u * v, ax1 + abs(u), ay1 + abs(v)
        u, v = (xa + xb) - (xc + xd), (ya + yb) - (yc + yd)
        xx2, yy2, xy2, ax2, ay2 = xx2 + u * u, yy2 + v * v, xy2 + u * v, ax2 + abs(u), ay2 + abs(v)
        u, v = (xa - xb) - (xc - xd), (ya - yb) - (yc - yd)
        xx3, yy3, xy3, ax3, ay3 = xx3 + u * u, yy3 + v * v, xy3 + u * v, ax3 + abs(u), ay3 + abs(v)
    _add(sums[1], xx1, yy1, xy1, ax1, ay1)
    _add(sums[2], xx2, yy2, xy2, ax2, ay2)
    _add(sums[3], xx3, yy3, xy3, ax3, ay3)


@njit(cache=True, nogil=True)
def _add(sums: Array, xx: Any, yy: Any, xy: Any, ax: Any, ay: Any) -> None:
    sums[0] += xx
    sums[1] += yy
    sums[2] += xy
    sums[3] += ax
    sums[4] += ay


@njit(cache=True, nogil=True)
def _count(u: Any, v: Any, sums: Array) -> None:
    _add(sums, u * u, v * v, u * v, abs(u), abs(v))


@njit(cache=True, nogil=True)
def _cell(array: Array, z: int, y: int, x: int, factor: Array, zero: Any) -> Any:
    """Return the eight voxels of a cell, z slowest; along an axis that is not joined the second ones are zero.

    A butterfly with zero leaves the first value as it is, and repeats it as a difference along that axis, an
    orientation nobody asks for.
    """
    two_z, two_y, two_x = factor[0] == 2, factor[1] == 2, factor[2] == 2
    return (
        array[z, y, x] + zero,
        array[z, y, x + 1] + zero if two_x else zero,
        array[z, y + 1, x] + zero if two_y else zero,
        array[z, y + 1, x + 1] + zero if two_y and two_x else zero,
        array[z + 1, y, x] + zero if two_z else zero,
        array[z + 1, y, x + 1] + zero if two_z and two_x else zero,
        array[z + 1, y + 1, x] + zero if two_z and two_y else zero,
        array[z + 1, y + 1, x + 1] + zero if two_z and two_y and two_x else zero,
    )


@njit(cache=True, nogil=True)
def _butterfly(v: Any) -> Any:
    """Return the coefficients of a cell, by number of orientation."""
    a0, a1, a2, a3 = v[0] + v[1], v[2] + v[3], v[4] + v[5], v[6] + v[7]
    d0, d1, d2, d3 = v[0] - v[1], v[2] - v[3], v[4] - v[5], v[6] - v[7]
    aa0, aa1, da0, da1 = a0 + a1, a2 + a3, a0 - a1, a2 - a3
    ad0, ad1, dd0, dd1 = d0 + d1, d2 + d3, d0 - d1, d2 - d3
    return (aa0 + aa1, ad0 + ad1, da0 + da1, dd0 + dd1, aa0 - aa1, ad0 - ad1, da0 - da1, dd0 - dd1)


@njit(cache=True, nogil=True)
def _means(pair: Pair, size: Array, sums: Array) -> None:
    x, y = pair
    for cz in range(size[0]):
        for cy in range(size[1]):
            for cx in range(size[2]):
                _count(x[cz, cy, cx], y[cz, cy, cx], sums)


@njit(cache=True, nogil=True)
def count_diagonal(x_ZYX: Array, counts: Array) -> None:
    """Count ``|u|`` of the finest differences along both y and x: ``a - b - c + d`` of 2 x 2 voxels.

    Args:
        x_ZYX: integers of up to 16 bits; a last odd row or column is left out.
        counts: int64, at least as long as ``2 (max - min) + 1``; added to.
    """
    for z in range(x_ZYX.shape[0]):
        for cy in range(x_ZYX.shape[1] // 2):
            for cx in range(x_ZYX.shape[2] // 2):
                a, b = np.int64(x_ZYX[z, 2 * cy, 2 * cx]), np.int64(x_ZYX[z, 2 * cy, 2 * cx + 1])
                c, d = np.int64(x_ZYX[z, 2 * cy + 1, 2 * cx]), np.int64(x_ZYX[z, 2 * cy + 1, 2 * cx + 1])
                counts[abs(a - b - c + d)] += 1
