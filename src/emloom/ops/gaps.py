"""How near things come to each other: components as runs, and segments in an array.

Distances are between centres of voxels, so face neighbours are one voxel apart.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.geometry.grid import Vec3
from emloom.ops.labels import Ids
from emloom.ops.runs import I32, I64

F64 = NDArray[np.float64]


def run_gaps(
    rows_a: I32, components_a: I64, rows_b: I32, components_b: I64, spacing_nm: Vec3, reach_nm: float
) -> tuple[I64, F64]:
    """Return every pair of components that come as near as `reach_nm`, and their least distance.

    Args:
        rows_a: int32 [R, 4], runs of one kind of components, in any order.
        components_a: int64 [R].
        rows_b: runs of the other kind.
        components_b: int64 [S].
        spacing_nm: voxel size (z, y, x).
        reach_nm: largest distance.

    Returns:
        pairs int64 [P, 2], sorted, and squared distances in nm, float64 [P].
    """
    if not len(rows_a) or not len(rows_b):
        return np.zeros((0, 2), np.int64), np.zeros(0, np.float64)
    order = np.lexsort((rows_b[:, 2], rows_b[:, 1], rows_b[:, 0]))
    rows_b, components_b = rows_b[order], components_b[order]
    # Rows of b by number, so that those around a row of a are found at once.
    height = int(max(rows_a[:, 1].max(), rows_b[:, 1].max())) + 1
    keys = rows_b[:, 0].astype(np.int64) * height + rows_b[:, 1]
    longest = int((rows_b[:, 3] - rows_b[:, 2]).max())
    spacing = np.array(spacing_nm, np.float64)
    found, near = _run_gaps(rows_a, components_a, rows_b, components_b, keys, height, longest, spacing, reach_nm)
    return least_gaps(found, near)


def least_gaps(pairs: I64, squares: F64) -> tuple[I64, F64]:
    """Return every pair once, sorted, with the least of its squared distances."""
    order = np.lexsort((squares, pairs[:, 1], pairs[:, 0]))
    pairs, squares = pairs[order], squares[order]
    new = np.ones(len(pairs), np.bool_)
    new[1:] = (pairs[1:] != pairs[:-1]).any(axis=1)
    return pairs[new], squares[new]


def touch(segments_ZYX: Ids, a: int, b: int, spacing_nm: Vec3, reach_nm: float) -> bool:
    """Whether two segments come as near as `reach_nm` in an array; at 0, whether they share a face."""
    offsets = _steps(spacing_nm, reach_nm)
    return bool(_touch(np.ascontiguousarray(segments_ZYX), np.uint64(a), np.uint64(b), offsets))


def nearest_other(segments_ZYX: Ids, at: I64, but: int, spacing_nm: Vec3, reach_nm: float) -> I64:
    """Return the voxel nearest to `at` whose segment is neither 0 nor `but`; -1, -1, -1 where there is none.

    Args:
        segments_ZYX: ids.
        at: int64 [3], a voxel, which need not lie in the array.
        but: the segment that is not wanted; 0: any will do.
        spacing_nm: voxel size (z, y, x).
        reach_nm: distance up to which is looked; of voxels as near, the first in raster order is taken.
    """
    steps = _steps(spacing_nm, reach_nm, faces=False)
    squares = ((steps * np.array(spacing_nm)) ** 2).sum(axis=1)
    order = np.lexsort((steps[:, 2], steps[:, 1], steps[:, 0], squares))
    return _nearest(np.ascontiguousarray(segments_ZYX), np.asarray(at, np.int64), np.uint64(but), steps[order])


def _steps(spacing_nm: Vec3, reach_nm: float, faces: bool = True) -> I64:
    """Return the steps to voxels within reach, the own one included; with `faces`, at least face neighbours."""
    most = [int(reach_nm * (1 + 1e-9) // s) + faces for s in spacing_nm]
    grid = np.stack(np.meshgrid(*[np.arange(-m, m + 1) for m in most], indexing="ij"), axis=-1).reshape(-1, 3)
    near = ((grid * np.array(spacing_nm)) ** 2).sum(axis=1) <= (reach_nm * (1 + 1e-9)) ** 2
    if faces:
        near |= np.abs(grid).sum(axis=1) <= 1
    steps: I64 = grid[near].astype(np.int64)
    return steps


@njit(cache=True, nogil=True)
def _run_gaps(  # noqa: PLR0913 (a kernel takes arrays, not objects)
    rows_a: I32,
    components_a: I64,
    rows_b: I32,
    components_b: I64,
    keys: I64,
    height: int,
    longest: int,
    spacing: F64,
    reach: float,
) -> tuple[I64, F64]:
    pairs, near, n = np.empty((256, 2), np.int64), np.empty(256, np.float64), 0
    limit = (reach * (1 + 1e-9)) ** 2
    far = np.empty(3, np.int64)
    for k in range(3):
        far[k] = int(reach * (1 + 1e-9) / spacing[k])
    for i in range(len(rows_a)):
        z, y = np.int64(rows_a[i, 0]), np.int64(rows_a[i, 1])
        low, high = max(-far[1], -y), min(far[1], height - 1 - y)
        for dz in range(max(-far[0], -z), far[0] + 1):
            for dy in range(low, high + 1):
                square = (dz * spacing[0]) ** 2 + (dy * spacing[1]) ** 2
                key = (z + dz) * height + y + dy
                j = np.searchsorted(keys, key)
                # Runs of a row do not overlap: those far to the left end before.
                while j < len(keys) and keys[j] == key and rows_b[j, 2] <= rows_a[i, 3] - 1 + far[2]:
                    if rows_b[j, 2] + longest + far[2] >= rows_a[i, 2]:
                        total = square + _between(rows_a[i], rows_b[j], spacing[2])
                        if total <= limit:
                            pairs, near, n = _noted(pairs, near, n, components_a[i], components_b[j], total)
                    j += 1
    return pairs[:n].copy(), near[:n].copy()


@njit(cache=True, nogil=True)
def _between(a: I32, b: I32, spacing: float) -> float:
    """Return the squared distance of two runs along x."""
    dx = max(0, max(b[2] - (a[3] - 1), a[2] - (b[3] - 1)))
    square: float = (dx * spacing) ** 2
    return square


@njit(cache=True, nogil=True)
def _noted(pairs: I64, near: F64, n: int, a: int, b: int, square: float) -> tuple[I64, F64, int]:
    # Neighbouring runs find the same pair again and again: only the nearest is kept.
    if n and pairs[n - 1, 0] == a and pairs[n - 1, 1] == b:
        near[n - 1] = min(near[n - 1], square)
        return pairs, near, n
    if n == len(pairs):
        pairs, near = np.concatenate((pairs, pairs)), np.concatenate((near, near))
    pairs[n, 0], pairs[n, 1], near[n] = a, b, square
    return pairs, near, n + 1


@njit(cache=True, nogil=True)
def _touch(segments: Ids, a: np.uint64, b: np.uint64, offsets: I64) -> bool:
    depth, height, width = segments.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                if segments[z, y, x] != a:
                    continue
                for k in range(len(offsets)):
                    pz, py, px = z + offsets[k, 0], y + offsets[k, 1], x + offsets[k, 2]
                    inside = 0 <= pz < depth and 0 <= py < height and 0 <= px < width
                    if inside and segments[pz, py, px] == b:
                        return True
    return False


@njit(cache=True, nogil=True)
def _nearest(segments: Ids, at: I64, but: np.uint64, steps: I64) -> I64:
    for k in range(len(steps)):
        z, y, x = at[0] + steps[k, 0], at[1] + steps[k, 1], at[2] + steps[k, 2]
        inside = 0 <= z < segments.shape[0] and 0 <= y < segments.shape[1] and 0 <= x < segments.shape[2]
        if inside and segments[z, y, x] != 0 and segments[z, y, x] != but:
            return np.array([z, y, x], np.int64)
    return np.full(3, -1, np.int64)
