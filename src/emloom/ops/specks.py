"""Small pieces of labels: holes in a class, and stray pieces of it.

A piece is connected through faces along the axes that are given. Its extents are those of its bounding box. A
piece that touches a face of the array has an unknown size and is no speck; so with a margin of the largest extents
and one voxel around a box, what is found inside does not depend on what is beyond.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.geometry import Vec

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]


def fill_holes(foreign_ZYX: Mask, inside_ZYX: Mask, largest: Vec, axes: Sequence[int]) -> Mask:
    """Return where a small piece of foreign voxels touches nothing but the inside.

    Args:
        foreign_ZYX: voxels that may be filled.
        inside_ZYX: what must be all around.
        largest: extents of a piece, at most.
        axes: along which voxels touch.
    """
    pieces, small = _small_pieces(foreign_ZYX, largest, axes)
    for mine, its in _faces(foreign_ZYX.shape, axes):
        bad = foreign_ZYX[mine] & ~foreign_ZYX[its] & ~inside_ZYX[its]
        small[pieces[mine][bad]] = False
    holes: Mask = small[pieces]
    return holes


def recolour_strays(
    labels_ZYX: Labels, inside: int, wall: int, foreign_ZYX: Mask, size: tuple[Vec, Sequence[int]]
) -> None:
    """Give every small piece of the inside that touches foreign voxels and no wall another class, in place.

    It becomes the class that most of its faces touch, of equals the first.

    Args:
        labels_ZYX: classes.
        inside: label of the pieces.
        wall: label that makes a piece none.
        foreign_ZYX: labels of these voxels it may become.
        size: extents of a piece, at most, and the axes along which voxels touch.
    """
    largest, axes = size
    pieces, small = _small_pieces(labels_ZYX == inside, largest, axes)
    touched = []
    for mine, its in _faces(labels_ZYX.shape, axes):
        own, other = pieces[mine], labels_ZYX[its]
        small[own[other == wall]] = False
        at = (own > 0) & foreign_ZYX[its]
        touched.append(own[at].astype(np.int64) * 256 + other[at])
    small[0] = False
    contacts, counts = np.unique(np.concatenate(touched), return_counts=True)
    order = np.argsort(-counts, kind="stable")  # of equals the lower label, which unique puts first
    owners, first = np.unique(contacts[order] // 256, return_index=True)
    becomes = np.zeros(len(small), np.uint8)
    becomes[owners] = (contacts[order] % 256)[first]
    small &= np.isin(np.arange(len(small)), owners)
    where = small[pieces]
    labels_ZYX[where] = becomes[pieces[where]]


def _small_pieces(mask: Mask, largest: Vec, axes: Sequence[int]) -> tuple[NDArray[Any], Mask]:
    """Return numbered pieces, and by number whether a piece is small and touches no face of the array."""
    structure = np.zeros((3, 3, 3), np.bool_)
    structure[1, 1, 1] = True
    for axis in axes:
        structure[tuple(slice(None) if a == axis else 1 for a in range(3))] = True
    pieces, count = ndimage.label(mask, structure)
    small = np.zeros(count + 1, np.bool_)
    for number, found in enumerate(ndimage.find_objects(pieces), start=1):
        small[number] = all(part.stop - part.start <= n for part, n in zip(found, largest, strict=True))
    for axis in axes:
        for end in (0, -1):
            small[np.unique(np.take(pieces, end, axis=axis))] = False
    small[0] = False
    return pieces, small


def _faces(shape: Sequence[int], axes: Sequence[int]) -> list[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Return (voxels, their neighbours) in every direction along the axes."""
    found = []
    for axis in axes:
        low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(len(shape)))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(len(shape)))
        found += [(low, high), (high, low)]
    return found
