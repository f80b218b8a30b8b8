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
from emloom.geometry import Box
from emloom.geometry.box import Vec, as_vec, sub
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


def near_channels(
    affinities_CZYX: Array, neighborhood: Sequence[Sequence[int]], per_section: bool = False
) -> NDArray[np.intp]:
    """Return which channels of predicted affinities are about face neighbours (per section: in the plane).

    Raises:
        InputError: not uint8 [C, Z, Y, X], not one offset per channel, or no such channel.
    """
    if affinities_CZYX.dtype != np.uint8 or affinities_CZYX.ndim != 4:
        kind = f"{affinities_CZYX.dtype} with {affinities_CZYX.ndim} axes"
        raise InputError(f"affinities are {kind}: give uint8 [C, Z, Y, X], 0 .. 255")
    offsets = np.asarray(neighborhood, dtype=np.int64).reshape(-1, 3)
    if len(offsets) != len(affinities_CZYX):
        raise InputError(
            f"{len(offsets)} offsets do not fit {len(affinities_CZYX)} affinity channels: one for each"
        )
    near = np.abs(offsets).sum(axis=1) == 1
    if per_section:
        near &= offsets[:, 0] == 0
    if not near.any():
        where = "in the section's plane" if per_section else "across a voxel face"
        raise InputError(f"neighborhood {neighborhood} has no offset {where}: fragments need one")
    return np.flatnonzero(near)


def affinities(
    labels_ZYX: Array,
    neighborhood: Sequence[Sequence[int]],
    *,
    mask_ZYX: Array | None = None,
    box: Box | None = None,
) -> tuple[Bits, Bits]:
    """Return which voxel pairs lie in the same object, and where that is known.

    Args:
        labels_ZYX: instance ids, any unsigned integer; 0 is background.
        neighborhood: ZYX offsets, one per channel, of any length and direction.
        mask_ZYX: 0 where labels are unknown; None: all known.
        box: voxels p to describe; partners may lie anywhere in the array. Default: all.

    Returns:
        affinities uint8 [C, Z, Y, X] of `box`: 1 where ``labels[p] == labels[p + offset] != 0``, else 0; and
        valid uint8 [C, Z, Y, X]: 1 where p and p + offset are inside the array and both known, else 0.

    Raises:
        InputError: invalid labels, mask or neighborhood, or `box` leaves the array.
    """
    ids = _narrowed(labels_ZYX)
    whole = Box.whole(ids.shape)
    mask = require_mask_array(mask_ZYX, ids.shape)
    offsets = require_neighborhood(neighborhood)
    box = whole if box is None else box
    if not whole.contains(box):
        raise InputError(f"{box} leaves the labels, which are {whole}: choose a box inside them")
    places = [
        box.intersect(whole.shift(sub((0, 0, 0), offset))).shift(sub((0, 0, 0), box.start)) for offset in offsets
    ]
    frame = np.array([[box.start, offset, p.start, p.stop] for offset, p in zip(offsets, places, strict=True)])
    same = np.empty((len(offsets), *box.shape), np.uint8)
    valid = np.empty_like(same)
    _compare(ids, frame, same)
    if mask.size:
        _compare(mask, frame, valid)  # both 1: equal and not 0
    else:
        valid[:] = 1
    for channel, place in enumerate(places):
        _clear_outside(same[channel], place)
        _clear_outside(valid[channel], place)
    return same, valid


def _clear_outside(channel: Bits, place: Box) -> None:
    for axis, (low, high) in enumerate(zip(place.start, place.stop, strict=True)):
        rows = np.moveaxis(channel, axis, 0)
        rows[:low], rows[high:] = 0, 0


def _narrowed(labels: Array) -> Array:
    """Return checked ids, in a narrow type where they fit: as many more are compared at once."""
    require_labels_array(labels[:0])
    ids = np.ascontiguousarray(labels, labels.dtype.newbyteorder("="))
    if ids.dtype.itemsize < 8:
        return ids
    narrow = np.empty(ids.shape, np.uint32)
    used = int(_narrow(ids.reshape(-1), narrow.reshape(-1)))
    return narrow if used < 2**32 else require_labels_array(ids)


@njit(cache=True, nogil=True)
def _narrow(ids: Ids, out: NDArray[np.uint32]) -> np.uint64:
    """Keep the lower half of every id; return all bits that any id uses."""
    used = np.uint64(0)
    for i in range(ids.size):
        used |= ids[i]
        out[i] = np.uint32(ids[i])
    return used


# All channels of a section in turn: the section and those that its partners lie in stay in cache.
@njit(cache=True, nogil=True)
def _compare(ids: Array, frame: NDArray[np.int64], same: Bits) -> None:
    """Set 1 where a pair has one id, which is not 0.

    `frame` holds per channel: first voxel of the box, offset, and from where to where, in the box, partners exist.
    """
    for z in range(same.shape[1]):
        for channel in range(same.shape[0]):
            start, offset, low, high = frame[channel]
            if not low[0] <= z < high[0]:
                continue
            first, stop = low[2] + start[2], high[2] + start[2]
            for y in range(low[1], high[1]):
                here = ids[z + start[0], y + start[1], first:stop]
                there = ids[
                    z + start[0] + offset[0], y + start[1] + offset[1], first + offset[2] : stop + offset[2]
                ]
                out = same[channel, z, y, low[2] : high[2]]
                for x in range(out.size):
                    out[x] = np.uint8(here[x] == there[x]) & np.uint8(here[x] != 0)
