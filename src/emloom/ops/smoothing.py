"""Gaussian smoothing of predictions in whole numbers: the same values whichever box they are computed in.

Weights are multiples of 2^-12 that sum to 1; along every axis a value is a sum of whole numbers, rounded to 1/128
of a grey value. No order of additions can change it. Axes of a deviation of 0 are left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.ops.labels import Bits

_UNIT = 1 << 12
_FINE = 7  # bits below a grey value that are kept between axes
_ENDS = 3.0  # deviations at which the Gaussian is cut off

I32 = NDArray[np.int32]


def reach(sigma_vox: Sequence[float]) -> tuple[int, int, int]:
    """Return how many voxels (z, y, x) around a voxel its smoothed value depends on."""
    z, y, x = (ceil(_ENDS * sigma) for sigma in sigma_vox)
    return (z, y, x)


def smooth(values_ZYX: Bits, sigma_vox: Sequence[float]) -> Bits:
    """Return smoothed values of the inner part of an array: without `reach(sigma_vox)` voxels at every face.

    Args:
        values_ZYX: uint8, as much larger than what is wanted; mirror it where the volume ends.
        sigma_vox: standard deviation (z, y, x) in voxels.
    """
    if not any(sigma_vox):
        return values_ZYX
    fine = values_ZYX.astype(np.int32) << _FINE
    for axis, sigma in enumerate(sigma_vox):
        if sigma > 0:
            moved = np.ascontiguousarray(np.moveaxis(fine, axis, 0))
            shape = moved.shape
            inner = _smooth_first(moved.reshape(shape[0], -1), _weights(sigma))
            fine = np.moveaxis(inner.reshape(-1, *shape[1:]), 0, axis)
    out: Bits = ((fine + (1 << (_FINE - 1))) >> _FINE).astype(np.uint8)
    return np.ascontiguousarray(out)


def _weights(sigma: float) -> I32:
    r = ceil(_ENDS * sigma)
    exact = np.exp(-0.5 * (np.arange(-r, r + 1) / sigma) ** 2)
    whole: I32 = np.rint(exact * (_UNIT / exact.sum())).astype(np.int32)
    whole[r] += _UNIT - whole.sum()
    return whole


@njit(cache=True, nogil=True)
def _smooth_first(values: I32, weights: I32) -> I32:
    n, width = len(values) - len(weights) + 1, values.shape[1]
    out = np.empty((n, width), np.int32)
    total = np.empty(width, np.int32)
    for i in range(n):
        total[:] = _UNIT // 2
        for k in range(len(weights)):
            weight, row = weights[k], values[i + k]
            for x in range(width):
                total[x] += weight * row[x]
        for x in range(width):
            out[i, x] = total[x] // _UNIT
    return out
