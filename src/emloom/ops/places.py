"""Ids that name a place: 1 + the linear index, in the whole volume, of one voxel; 0 is background.

Whoever works on a part of a volume names what it finds by such an id: no two parts can name different things
alike, and nobody has to count or to renumber. With ``total_shape = (Z, Y, X)``::

    id = 1 + (z * Y + y) * X + x          voxels_of([id]) == [(z, y, x)]
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.box import as_vec

Ids = NDArray[np.uint64]


def require_place(shape: Sequence[int], origin: Vec = (0, 0, 0), total_shape: Vec | None = None) -> Vec:
    """Return the shape of the whole volume (default: the array's) that an array lies in.

    Args:
        shape: of the array (z, y, x).
        origin: voxel (z, y, x) of the whole volume at which the array starts.
        total_shape: shape of the whole volume; None: the array is all of it.

    Raises:
        InputError: the array leaves the whole volume, or that has too many voxels to name.
    """
    total = as_vec(shape if total_shape is None else total_shape)
    end = tuple(o + n for o, n in zip(origin, shape, strict=True))
    if min(origin) < 0 or any(e > t for e, t in zip(end, total, strict=True)):
        raise InputError(f"array {tuple(shape)} at {tuple(origin)} leaves the whole volume {total}")
    if prod(total) >= 2**63:
        raise InputError(f"a volume of {total} voxels has more than 2^63 - 1 places to name")
    return total


def voxels_of(ids: Ids, total_shape: Vec) -> NDArray[np.int64]:
    """Return the voxels (z, y, x) that ids name, int64 [N, 3].

    Args:
        ids: uint64 [N], 1 .. number of voxels of the whole volume.
        total_shape: shape of the whole volume.

    Raises:
        InputError: an id names no voxel of the whole volume.
    """
    size = prod(total_shape)
    wrong = (ids == 0) | (ids > np.uint64(size))
    if wrong.any():
        raise InputError(f"id {int(ids[wrong][0])} names no voxel of a volume {total_shape}: ids are 1 .. {size}")
    places = np.unravel_index((ids - np.uint64(1)).astype(np.int64), total_shape)
    return np.stack(places, axis=1).astype(np.int64, copy=False)


def named_inside(ids: Ids, box: Box, total_shape: Vec) -> NDArray[np.bool_]:
    """Return which ids name a voxel of the box, bool [N]; arguments and errors as of `voxels_of`."""
    voxels = voxels_of(ids, total_shape)
    return np.asarray(((voxels >= box.start) & (voxels < box.stop)).all(axis=1))
