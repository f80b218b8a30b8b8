"""Affinities read straight off the image: the baseline that a trained network has to beat.

Membranes are dark, so two voxels are joined as strongly as the darker of them is bright::

    s(p) = clip((smooth(raw)(p) - low) / (high - low), 0, 1)        low, high: percentiles of the smoothed crop
    affinity(p, p + o) = min(s(p), s(p + o))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.geometry import Vec
from emloom.ops.affinities import nearest_neighborhood

_PERCENTILES = (2.0, 98.0)


def intensity_affinities(
    raw_ZYX: NDArray[Any], sigma_vox: Sequence[float] = (1.0, 1.0, 1.0)
) -> tuple[NDArray[np.uint8], tuple[Vec, ...]]:
    """Return uint8 affinities [3, Z, Y, X] of an image with dark membranes, and their offsets.

    Args:
        raw_ZYX: image, any real dtype.
        sigma_vox: standard deviation of the Gaussian smoothing (z, y, x) in voxels; 0 leaves an axis alone.

    Returns:
        Affinities to the neighbours at -1 along z, y and x; 0 where the neighbour lies outside.
    """
    smooth = ndimage.gaussian_filter(raw_ZYX.astype(np.float32), sigma_vox, mode="nearest")
    low, high = np.percentile(smooth, _PERCENTILES)
    unit = np.clip((smooth - low) / max(float(high - low), 1e-6), 0.0, 1.0)
    bright = np.rint(unit * 255.0).astype(np.uint8)
    out = np.zeros((3, *raw_ZYX.shape), np.uint8)
    for axis in range(3):
        here = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        there = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        out[axis][here] = np.minimum(bright[here], bright[there])
    return out, nearest_neighborhood()
