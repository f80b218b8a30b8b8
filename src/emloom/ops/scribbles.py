"""Which voxels a line drawn by hand paints."""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Grid
from emloom.geometry.skeletons import voxels_containing

_STEP = 0.5  # of the smallest voxel extent: how far apart positions on a line are looked at
_LONGEST_VOX = 32  # a longer segment is looked at in parts, so that the boxes around them stay small


def voxels_along(
    positions_nm: NDArray[np.float64], segments: NDArray[np.int64], grid: Grid, box: Box, radius_nm: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the voxels that lines paint, and which point of the table each belongs to.

    A voxel is painted where its centre is at most `radius_nm` from a segment, and where a segment passes through
    it (looked at every half voxel). A voxel painted by several segments stands there as often.

    Args:
        positions_nm: float64 [n, 3], points (z, y, x) in nm.
        segments: int64 [m, 2], two points of every segment; a line of one point goes from it to itself.
        grid: of the voxels.
        box: voxels outside are left out.
        radius_nm: at least 0.

    Returns:
        int64 [k, 3] voxels, and int64 [k], the first point of the segment.
    """
    voxels, owners = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    smallest = min(grid.voxel_size_nm)
    for first, last in segments.tolist():
        a, b = positions_nm[first], positions_nm[last]
        n_parts = max(1, ceil(float(np.linalg.norm(b - a)) / (_LONGEST_VOX * smallest)))
        ends = a + (b - a) * np.linspace(0, 1, n_parts + 1)[:, None]
        for low, high in pairwise(ends):
            found = np.concatenate([_passed(low, high, grid), _around(low, high, grid, radius_nm)])
            inside = ((found >= box.start) & (found < box.stop)).all(axis=1)
            voxels.append(np.unique(found[inside], axis=0))
            owners.append(np.full(len(voxels[-1]), first, np.int64))
    return np.concatenate(voxels), np.concatenate(owners)


def _passed(a: NDArray[np.float64], b: NDArray[np.float64], grid: Grid) -> NDArray[np.int64]:
    steps = max(1, ceil(float(np.linalg.norm(b - a)) / (_STEP * min(grid.voxel_size_nm))))
    return voxels_containing(grid, a + (b - a) * np.linspace(0, 1, steps + 1)[:, None])


def _around(a: NDArray[np.float64], b: NDArray[np.float64], grid: Grid, radius_nm: float) -> NDArray[np.int64]:
    """Return the voxels whose centres lie within a radius of one segment, int64 [k, 3]."""
    if radius_nm == 0:
        return np.zeros((0, 3), np.int64)
    low = np.floor(grid.to_voxel((np.minimum(a, b) - radius_nm).tolist())).astype(np.int64)
    high = np.ceil(grid.to_voxel((np.maximum(a, b) + radius_nm).tolist())).astype(np.int64)
    voxels = np.stack(np.meshgrid(*map(np.arange, low, high + 1), indexing="ij"), axis=-1).reshape(-1, 3)
    centres = (voxels + 0.5) * np.array(grid.voxel_size_nm) + np.array(grid.offset_nm)
    along, away = b - a, centres - a
    length = float(along @ along)
    share = np.clip(away @ along / length, 0, 1) if length > 0 else np.zeros(len(away))
    distance = np.linalg.norm(away - share[:, None] * along, axis=1)
    near: NDArray[np.int64] = voxels[distance <= radius_nm]
    return near
