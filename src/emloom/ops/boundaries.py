"""Boundaries of objects as a mask: voxels that touch another object.

::

    labels    1 1 1 2 2 0 0        faces only, in one dimension
    thick     . . 1 1 1 1 .        every voxel with a face neighbour of another id
    inner     . . 1 1 1 . .        of those, the ones inside objects

Beyond the array, and where a mask is 0, labels are unknown: a voxel with such a neighbour may be a boundary
unseen, so it weighs 0 unless one of its known neighbours makes it one. A box needs one voxel of context.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops.labels import Bits, Ids, require_labels_array, require_mask_array

Array = NDArray[Any]

_DIFFERENT, _UNKNOWN = 1, 2


def boundaries(
    labels_ZYX: Array,
    mode: Literal["inner", "thick"] = "inner",
    *,
    in_plane: bool = False,
    mask_ZYX: Array | None = None,
) -> tuple[Bits, Bits]:
    """Return which voxels lie at a boundary between ids.

    Args:
        labels_ZYX: ids, any unsigned integer; 0 is background.
        mode: ``thick`` marks both sides of a boundary, ``inner`` leaves background unmarked.
        in_plane: look at the four neighbours within the section only.
        mask_ZYX: 0 where labels are unknown; None: all known.

    Returns:
        boundary uint8 [Z, Y, X]: 1 at boundaries, else 0; and weight uint8 [Z, Y, X]: 1 where that is certain.

    Raises:
        InputError: invalid labels or mask, or an unknown mode.
    """
    if mode not in ("inner", "thick"):
        raise InputError(f"mode {mode!r} is unknown: use 'inner' or 'thick'")
    ids = require_labels_array(labels_ZYX)
    mask = require_mask_array(mask_ZYX, ids.shape)
    seen = np.empty(ids.shape, np.uint8)
    _look_around(ids, mask, in_plane, seen)
    marked = (seen & _DIFFERENT) != 0
    certain = marked | (seen == 0)
    if mode == "inner":
        # Background is never marked, whatever lies next to it.
        marked &= ids != 0
        certain |= ids == 0
    if mask.size:
        certain &= mask != 0
        marked &= mask != 0
    return marked.view(np.uint8), certain.view(np.uint8)


# One pass: every row against its four neighbouring rows and itself, moved by one.
@njit(cache=True, nogil=True)
def _look_around(ids: Ids, mask: Bits, in_plane: bool, out: Bits) -> None:
    depth, height, width = ids.shape
    all_known = np.ones(0 if mask.size else width, np.uint8)
    for z in range(depth):
        for y in range(height):
            here, seen = ids[z, y], out[z, y]
            seen[:] = 0
            for k in range(2 if in_plane else 0, 4):
                pz, py = z + (k == 0) - (k == 1), y + (k == 2) - (k == 3)
                if 0 <= pz < depth and 0 <= py < height:
                    _compare(here, ids[pz, py], mask[pz, py] if mask.size else all_known, seen)
                else:
                    seen[:] |= np.uint8(_UNKNOWN)
            if width:
                known = mask[z, y] if mask.size else all_known
                _compare(here[1:], here[:-1], known[:-1], seen[1:])
                _compare(here[:-1], here[1:], known[1:], seen[:-1])
                seen[0] |= np.uint8(_UNKNOWN)
                seen[-1] |= np.uint8(_UNKNOWN)


@njit(cache=True, nogil=True)
def _compare(here: Ids, there: Ids, known: Bits, seen: Bits) -> None:
    for x in range(seen.size):
        different = np.uint8(here[x] != there[x]) * np.uint8(_DIFFERENT)
        seen[x] |= different if known[x] else np.uint8(_UNKNOWN)
