"""Patches over a section: what a detector says as colour, what is true as outlines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emloom.view.colours import RGB

Rows = NDArray[np.int64]

_HOT = np.array([255.0, 60.0, 20.0])
_OUTLINE = np.array([40, 190, 255], np.uint8)
_MOST_OPAQUE = 0.65


def heated(image: RGB, corners: Rows, probabilities: NDArray[np.float64], patch: tuple[int, int]) -> RGB:
    """Return a section coloured by what is said of its patches: the redder, the likelier an artifact.

    Args:
        image: uint8, grey [Y, X] or RGB [Y, X, 3].
        corners: int64 [N, 2], first voxel (y, x) of each patch.
        probabilities: float64 [N].
        patch: voxels (y, x) of a patch. Where patches overlap, a voxel has the mean of all over it.
    """
    total, count = np.zeros(image.shape[:2]), np.zeros(image.shape[:2])
    for (y, x), value in zip(corners.tolist(), probabilities.tolist(), strict=True):
        at = np.s_[max(0, y) : max(0, y + patch[0]), max(0, x) : max(0, x + patch[1])]
        total[at] += value
        count[at] += 1
    opacity = (_MOST_OPAQUE * total / np.maximum(count, 1))[..., None]
    out: RGB = np.rint(_rgb(image) * (1 - opacity) + _HOT * opacity).astype(np.uint8)
    return out


def outlined(image: RGB, corners: Rows, patch: tuple[int, int], width: int = 2) -> RGB:
    """Return a section with the outline of the union of patches.

    Args:
        image: uint8, grey [Y, X] or RGB [Y, X, 3].
        corners: int64 [N, 2], first voxel (y, x) of each patch.
        patch: voxels (y, x) of a patch.
        width: voxels of the line, inside the union.
    """
    inside: NDArray[np.bool_] = np.zeros(image.shape[:2], np.bool_)
    for y, x in corners.tolist():
        inside[max(0, y) : max(0, y + patch[0]), max(0, x) : max(0, x + patch[1])] = True
    padded: NDArray[np.bool_] = np.pad(inside, width)
    kept = inside.copy()
    rows, columns = inside.shape
    for dy in (0, 2 * width):
        kept &= padded[dy : dy + rows, width : width + columns]
    for dx in (0, 2 * width):
        kept &= padded[width : width + rows, dx : dx + columns]
    out = _rgb(image).copy()
    out[inside & ~kept] = _OUTLINE
    return out


def _rgb(image: RGB) -> RGB:
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
