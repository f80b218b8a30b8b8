"""Masks become classes: who comes first, who is left, and a band where two classes meet.

::

    masks, in order of priority    PSD  . . 1 . . .        a voxel belongs to the first mask that covers it,
                              membrane  . 1 1 1 . .        else to the rest
                                  rest
                               classes  3 2 1 2 3 3
         classes, band of 1, undefined  0 0 0 0 0 3        nobody draws a border to the voxel

A band of n undefines what lies within n voxels (Euclidean, from centre to centre) of a voxel of another class, on
either side. Undefined voxels are of no class: beside them no band arises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Vec

Codes = NDArray[np.uint8]
UNDEFINED = 0
MOST_CLASSES = 255


def first_of(masks_ZYX: Sequence[NDArray[np.bool_]], ids: Sequence[int], rest: int = UNDEFINED) -> Codes:
    """Return the id of the first mask that covers a voxel, `rest` where none does.

    Args:
        masks_ZYX: in order of priority, the highest first; all of one shape.
        ids: of each, 1 to 255.
        rest: id of voxels that no mask covers.

    Returns:
        uint8 [Z, Y, X].

    Raises:
        InputError: there is no mask, or not one id for each.
    """
    if not masks_ZYX or len(masks_ZYX) != len(ids):
        raise InputError(f"{len(masks_ZYX)} masks and {len(ids)} ids: give at least one mask, and an id for each")
    codes = np.full(masks_ZYX[0].shape, rest, np.uint8)
    for mask, number in reversed(list(zip(masks_ZYX, ids, strict=True))):
        codes[mask] = number
    return codes


def between_classes(codes_ZYX: NDArray[Any], reach_vox: int, *, in_plane: bool = True) -> NDArray[np.bool_]:
    """Return where another class is near.

    Args:
        codes_ZYX: ids of classes, any integers; 0 is undefined.
        reach_vox: how near is near, in voxels, not negative; 0 is nowhere.
        in_plane: look within the section only, else in all directions.

    Returns:
        bool [Z, Y, X]. Nothing lies beyond the array: a block needs `reach_vox` voxels of context.
    """
    near = np.zeros(codes_ZYX.shape, np.bool_)
    known = codes_ZYX != UNDEFINED
    for offset in _half_ball(reach_vox, in_plane):
        here, there = _shifted(offset)
        differs = (codes_ZYX[here] != codes_ZYX[there]) & known[here] & known[there]
        near[here] |= differs
        near[there] |= differs
    return near


def _half_ball(reach: int, in_plane: bool) -> Iterator[Vec]:
    """Yield one of each pair of opposite offsets (z, y, x) of at most a length."""
    depth = 0 if in_plane else reach
    for z, y, x in product(range(depth + 1), range(-reach, reach + 1), range(-reach, reach + 1)):
        if (z, y, x) > (0, 0, 0) and z * z + y * y + x * x <= reach * reach:
            yield (z, y, x)


def _shifted(offset: Vec) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return the voxels p for which p + offset lies in the array, too, and those p + offset."""
    here = tuple(slice(max(0, -d), -d if d > 0 else None) for d in offset)
    there = tuple(slice(max(0, d), d if d < 0 else None) for d in offset)
    return here, there
