"""Affinities of instance labels: which pairs of voxels lie in the same object.

Convention: a neighborhood is an ordered list of ZYX voxel offsets; channel ``c`` at voxel ``p`` is about the pair
``(p, p + neighborhood[c])``. With the offset -1 along an axis, the pair of ``p`` and its lower neighbour stands
at ``p``; the first plane has no partner and is not valid.

::

    labels     1 1 2 2 0            offset (0, 0, -1)
    affinity   . 1 0 1 0            1: same object; background never belongs together
    valid      0 1 1 1 1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.box import Vec, as_vec
from emloom.ops.labels import Bits, Ids, require_labels_array, require_mask_array

Array = NDArray[Any]


def nearest_neighborhood() -> tuple[Vec, ...]:
    """Return the offsets to the lower face neighbours: ``(-1, 0, 0), (0, -1, 0), (0, 0, -1)``."""
    return neighborhood(1)


def neighborhood(*distances: int | Sequence[int]) -> tuple[Vec, ...]:
    """Return the offsets to lower voxels along each axis, at each distance.

    Args:
        distances: voxels, for all axes or per axis (z, y, x), where 0 leaves an axis out:
            ``neighborhood(1, (0, 9, 9))`` gives the nearest neighbours and two long in-plane offsets.

    Raises:
        InputError: a distance is negative, or nothing is left.
    """
    offsets: list[Vec] = []
    for distance in distances:
        z, y, x = as_vec(distance)
        if min(z, y, x) < 0:
            raise InputError(f"distance {distance} is negative: offsets point to lower voxels, give 1 or more")
        offsets += [o for o in ((-z, 0, 0), (0, -y, 0), (0, 0, -x)) if o != (0, 0, 0)]
    return require_neighborhood(offsets)


def require_neighborhood(offsets: Sequence[Sequence[int]]) -> tuple[Vec, ...]:
    """Return offsets as exact integer triples.

    Raises:
        InputError: no offset, not three whole numbers, all zero, or one given twice.
    """
    vectors = tuple(as_vec(o) for o in offsets)
    if not vectors:
        raise InputError("the neighborhood is empty: give at least one ZYX offset, e.g. (-1, 0, 0)")
    if (0, 0, 0) in vectors:
        raise InputError("the neighborhood holds (0, 0, 0): a voxel has no affinity to itself")
    if len(set(vectors)) != len(vectors):
        raise InputError(f"the neighborhood {vectors} holds an offset twice: give each once")
    return vectors


def affinities(
    labels_ZYX: Array, neighborhood: Sequence[Sequence[int]], *, mask_ZYX: Array | None = None
) -> tuple[Bits, Bits]:
    """Return which voxel pairs lie in the same object, and where that is known.

    Args:
        labels_ZYX: instance ids, any unsigned integer; 0 is background.
        neighborhood: ZYX offsets, one per channel, of any length and direction.
        mask_ZYX: 0 where labels are unknown; None: all known.

    Returns:
        affinities uint8 [C, Z, Y, X]: 1 where ``labels[p] == labels[p + offset] != 0``, else 0; and
        valid uint8 [C, Z, Y, X]: 1 where p and p + offset are inside the array and both known, else 0.

    Raises:
        InputError: invalid labels, mask or neighborhood.
    """
    ids = require_labels_array(labels_ZYX)
    mask = require_mask_array(mask_ZYX, ids.shape)
    offsets = require_neighborhood(neighborhood)
    same = np.zeros((len(offsets), *ids.shape), np.uint8)
    valid = np.zeros_like(same)
    for channel, offset in enumerate(offsets):
        here, there = _overlap(ids.shape, offset)
        if mask.size == 0:
            valid[channel][here] = 1
        else:
            np.logical_and(mask[here], mask[there], out=valid[channel][here].view(np.bool_))
        _compare(ids[here], ids[there], same[channel][here])
    return same, valid


Slices = tuple[slice, slice, slice]


def _overlap(shape: tuple[int, ...], offset: Vec) -> tuple[Slices, Slices]:
    """Return where p lies, and where p + offset lies, for all pairs inside the array."""
    low = [min(n, max(0, -o)) for n, o in zip(shape, offset, strict=True)]
    high = [max(a, min(n, n - o)) for a, n, o in zip(low, shape, offset, strict=True)]
    z, y, x = (slice(a, b) for a, b in zip(low, high, strict=True))
    tz, ty, tx = (slice(a + o, b + o) if b > a else slice(0, 0) for a, b, o in zip(low, high, offset, strict=True))
    return (z, y, x), (tz, ty, tx)


@njit(cache=True, nogil=True)
def _compare(here: Ids, there: Ids, out: Bits) -> None:
    for z in range(here.shape[0]):
        for y in range(here.shape[1]):
            a, b, row = here[z, y], there[z, y], out[z, y]
            for x in range(a.size):
                row[x] = np.uint8(a[x] == b[x]) & np.uint8(a[x] != 0)
