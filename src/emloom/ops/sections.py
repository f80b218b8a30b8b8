"""What one section of a stack says about itself, and about the next ones: sums that add up exactly.

A section is cut into square *tiles* on a lattice. Everything is counted per tile in whole numbers, from the voxels
of that tile alone, so the sums of parts are the sums of the whole, in any order and for any blocks. ::

    voxels   n, sum, sum of squares                       mean and contrast
    pairs    squared differences at lag 1, 2 and 8        sharpness, free of noise
    cells    bins of f x f voxels, summed                 likeness to other sections, with little noise
    void     windows of 4 x 4 voxels of one value         what was never recorded, or was cut away

*Sharpness.* White noise of variance s^2 adds 2 s^2 to the mean squared difference V(k) at every lag k (the nugget
of a variogram; Matheron 1963, doi:10.2113/gsecongeo.58.8.1246), so V(2) - V(1) is the fine structure without its
noise and V(8) - V(1) the coarse. Their quotient falls with blur; brightness, contrast and noise leave it
alone.

*Void.* Detectors are noisy: 16 voxels of the same value are not tissue, but a fill, a tear that an aligner left
black, or saturated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError

Ints = NDArray[np.int64]
F64 = NDArray[np.float64]

VOID_VOX = 4
"""Voxels along the side of a window that is void where they all have one value."""
LAGS = (1, 2, 8)
"""Distances, in voxels, of the pairs that sharpness is made of."""
VOXEL_SUMS = ("n", "sum", "squares", "extremes", "void", *(f"{w}_{k}" for k in LAGS for w in ("pairs", "steps")))
"""The last axis of `voxel_sums`."""


def tiles_along(extent: int, tile: int) -> int:
    """Return how many tiles cover an extent in voxels; the last may be partial."""
    return -(-extent // tile)


def void_windows(section_YX: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which windows of 4 x 4 voxels hold one value only, bool [ceil(Y / 4), ceil(X / 4)].

    Partial windows at the end count if they have at least two voxels each way.
    """
    out = np.zeros(
        (tiles_along(section_YX.shape[0], VOID_VOX), tiles_along(section_YX.shape[1], VOID_VOX)), np.bool_
    )
    _void(section_YX, out)
    return out


@njit(cache=True, nogil=True)
def _void(section, out):  # type: ignore[no-untyped-def]
    rows, columns = section.shape
    for i in range(out.shape[0]):
        y0, y1 = i * VOID_VOX, min((i + 1) * VOID_VOX, rows)
        for j in range(out.shape[1]):
            x0, x1 = j * VOID_VOX, min((j + 1) * VOID_VOX, columns)
            first = section[y0, x0]
            same = y1 - y0 > 1 and x1 - x0 > 1
            for y in range(y0, y1):
                if not same:
                    break
                for x in range(x0, x1):
                    if section[y, x] != first:
                        same = False
                        break
            out[i, j] = same


def voxel_sums(section_YX: NDArray[Any], void: NDArray[np.bool_], tile: int) -> Ints:
    """Return the sums over the voxels of every tile, int64 [tiles along y, along x, `VOXEL_SUMS`].

    Args:
        section_YX: integers of 8 or 16 bits.
        void: `void_windows` of it.
        tile: voxels along the side of a tile, a multiple of 4.

    Raises:
        InputError: other element types, or a tile that cuts windows.
    """
    if section_YX.dtype.kind not in "iu" or section_YX.dtype.itemsize > 2:
        raise InputError(f"sections of {section_YX.dtype} cannot be summed exactly: give integers of 8 or 16 bits")
    if tile < 2 * LAGS[-1] or tile % VOID_VOX:
        raise InputError(f"tiles of {tile} voxels: give a multiple of {VOID_VOX}, at least {2 * LAGS[-1]}")
    limits = np.iinfo(section_YX.dtype)
    shape = (tiles_along(section_YX.shape[0], tile), tiles_along(section_YX.shape[1], tile), len(VOXEL_SUMS))
    out = np.zeros(shape, np.int64)
    _voxel_sums(section_YX, void, tile, (int(limits.min), int(limits.max)), out)
    return out


@njit(cache=True, nogil=True)
def _voxel_sums(section, void, tile, limits, out):  # type: ignore[no-untyped-def]
    rows, columns = section.shape
    for i in range(out.shape[0]):
        y0, y1 = i * tile, min((i + 1) * tile, rows)
        for j in range(out.shape[1]):
            x0, x1 = j * tile, min((j + 1) * tile, columns)
            _moments(section, (y0, y1, x0, x1), limits, out[i, j])
            for y in range(y0 // VOID_VOX, (y1 + VOID_VOX - 1) // VOID_VOX):
                for x in range(x0 // VOID_VOX, (x1 + VOID_VOX - 1) // VOID_VOX):
                    if void[y, x]:
                        high, wide = min((y + 1) * VOID_VOX, y1), min((x + 1) * VOID_VOX, x1)
                        out[i, j, 4] += (high - y * VOID_VOX) * (wide - x * VOID_VOX)
            for k in range(3):
                _steps(section, (y0, y1, x0, x1), LAGS[k], out[i, j, 5 + 2 * k : 7 + 2 * k])


@njit(cache=True, nogil=True)
def _moments(section, box, limits, out):  # type: ignore[no-untyped-def]
    y0, y1, x0, x1 = box
    total, squares, extremes = np.int64(0), np.int64(0), np.int64(0)
    for y in range(y0, y1):
        for x in range(x0, x1):
            v = np.int64(section[y, x])
            total += v
            squares += v * v
            extremes += np.int64(v == limits[0]) + np.int64(v == limits[1])
    out[0], out[1], out[2], out[3] = (y1 - y0) * (x1 - x0), total, squares, extremes


@njit(cache=True, nogil=True)
def _steps(section, box, lag, out):  # type: ignore[no-untyped-def]
    y0, y1, x0, x1 = box
    total = np.int64(0)
    for y in range(y0, y1):
        for x in range(x0, x1 - lag):
            d = np.int64(section[y, x + lag]) - np.int64(section[y, x])
            total += d * d
    for y in range(y0, y1 - lag):
        for x in range(x0, x1):
            d = np.int64(section[y + lag, x]) - np.int64(section[y, x])
            total += d * d
    out[0] = (y1 - y0) * max(0, x1 - x0 - lag) + max(0, y1 - y0 - lag) * (x1 - x0)
    out[1] = total


def cells_of(section_YX: NDArray[Any], factor: int) -> Ints:
    """Return the sums of f x f voxels, int64 [Y // f, X // f]; what is left at the end is dropped."""
    out = np.zeros((section_YX.shape[0] // factor, section_YX.shape[1] // factor), np.int64)
    _cells(section_YX, factor, out)
    return out


@njit(cache=True, nogil=True)
def _cells(section, factor, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        for y in range(i * factor, (i + 1) * factor):
            for j in range(out.shape[1]):
                total = np.int64(0)
                for x in range(j * factor, (j + 1) * factor):
                    total += np.int64(section[y, x])
                out[i, j] += total


def covariances(a_cells: Ints, b_cells: Ints, side: int) -> Ints:
    """Return ``n sum(a b) - sum(a) sum(b)`` of the cells of every tile, int64 [tiles along y, along x].

    That is n^2 times their covariance, in whole numbers; of ``a`` with itself, n^2 times its variance.

    Args:
        a_cells: `cells_of` a section.
        b_cells: of another one, of the same shape.
        side: cells along the side of a tile.
    """
    out = np.zeros((tiles_along(a_cells.shape[0], side), tiles_along(a_cells.shape[1], side)), np.int64)
    _covariances(a_cells, b_cells, side, out)
    return out


@njit(cache=True, nogil=True)
def _covariances(a, b, side, out):  # type: ignore[no-untyped-def]
    for i in range(out.shape[0]):
        y0, y1 = i * side, min((i + 1) * side, a.shape[0])
        for j in range(out.shape[1]):
            x0, x1 = j * side, min((j + 1) * side, a.shape[1])
            n, sum_a, sum_b, both = np.int64((y1 - y0) * (x1 - x0)), np.int64(0), np.int64(0), np.int64(0)
            for y in range(y0, y1):
                for x in range(x0, x1):
                    sum_a += a[y, x]
                    sum_b += b[y, x]
                    both += a[y, x] * b[y, x]
            out[i, j] = n * both - sum_a * sum_b


def count_levels(section_YX: NDArray[Any], void: NDArray[np.bool_]) -> Ints:
    """Return how often each grey level occurs outside of void windows, int64 [256] or, of 16 bits, [4096].

    Of 8 bits a level is a value, of 16 bits it is 16 values; level 0 begins at the smallest value of the type.
    """
    limits, wide = np.iinfo(section_YX.dtype), section_YX.dtype.itemsize == 2
    counts = np.zeros(4096 if wide else 256, np.int64)
    _levels(section_YX, void, int(limits.min), 4 if wide else 0, counts)
    return counts


@njit(cache=True, nogil=True)
def _levels(section, void, low, shift, counts):  # type: ignore[no-untyped-def]
    for y in range(section.shape[0]):
        row = void[y // VOID_VOX]
        for x in range(section.shape[1]):
            if not row[x // VOID_VOX]:
                counts[(np.int64(section[y, x]) - low) >> shift] += 1


def level_values(dtype: np.dtype[Any]) -> Ints:
    """Return the smallest value of every level of `count_levels`."""
    limits = np.iinfo(dtype)
    return np.arange(int(limits.min), int(limits.max) + 1, 16 if dtype.itemsize == 2 else 1, dtype=np.int64)


def line_steps(section_YX: NDArray[Any]) -> tuple[int, int]:
    """Return the sums of squared steps between the sums of adjacent rows, and of adjacent columns.

    Lines that a scanning beam drew brighter or darker are steps between rows that no tissue has.
    Divided by the squared lengths and the number of lines they are variances that can be compared.
    """
    whole = np.zeros((*section_YX.shape[:1], 1), np.int64), np.zeros((1, section_YX.shape[1]), np.int64)
    n = max(section_YX.shape)
    _strips(
        section_YX, np.zeros((1, 1), np.bool_), (n, n), (*whole, np.zeros_like(whole[0]), np.zeros_like(whole[1]))
    )
    rows, columns = (np.diff(sums.reshape(-1)) for sums in whole)
    return int((rows * rows).sum()), int((columns * columns).sum())


def strip_means(section_YX: NDArray[Any], void: NDArray[np.bool_], tile: int) -> tuple[F64, F64]:
    """Return the means, beside void, of the parts of rows and of columns that are a tile long.

    Args:
        section_YX: integers of 8 or 16 bits.
        void: `void_windows` of it.
        tile: voxels of a part; what is left at the end is dropped.

    Returns:
        float64 [parts along x, Y] and [parts along y, X]; where all is void, the mean of the others.
    """
    n_y, n_x = section_YX.shape
    shapes = (n_y, max(1, n_x // tile)), (max(1, n_y // tile), n_x)
    sums = tuple(np.zeros(shape, np.int64) for shape in shapes * 2)
    _strips(section_YX, void, (tile, tile), sums)
    out = []
    for total, count in zip(sums[:2], sums[2:], strict=True):
        mean = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        out.append(np.where(count > 0, mean, total.sum() / max(1, count.sum())))
    return np.ascontiguousarray(out[0].T), out[1]


@njit(cache=True, nogil=True)
def _strips(section, void, tile, out):  # type: ignore[no-untyped-def]
    """Add up parts of rows and columns, and count their voxels; without `void`, all of them."""
    rows, columns, n_rows, n_columns = out
    everything = void.size == 1
    for y in range(section.shape[0]):
        i = y // tile[0]
        for x in range(section.shape[1]):
            if everything or not void[y // VOID_VOX, x // VOID_VOX]:
                v, j = np.int64(section[y, x]), x // tile[1]
                if j < rows.shape[1]:
                    rows[y, j] += v
                    n_rows[y, j] += 1
                if i < columns.shape[0]:
                    columns[i, x] += v
                    n_columns[i, x] += 1
