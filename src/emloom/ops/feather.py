"""Paste what was invented into a gap, with a border that fades.

::

    weight of the fill   1 in the gap,   1 - d / (feather + 1) at distance d from it,   0 beyond the feather
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.errors import InputError

Bool = NDArray[np.bool_]
F32 = NDArray[np.float32]


def feather_weights(gap_YX: Bool, feather_px: float) -> F32:
    """Return the share of the fill in every pixel, float32 [Y, X]: 1 in the gap, 0 beyond the feather.

    Args:
        gap_YX: what is filled in, bool.
        feather_px: pixels of its surroundings over which the fill fades; 0 pastes.

    Raises:
        InputError: the gap is no mask, or the feather is negative.
    """
    if gap_YX.ndim != 2 or gap_YX.dtype != np.bool_:
        raise InputError(f"a gap of {gap_YX.dtype} {gap_YX.shape} is no mask of a section: give bool [Y, X]")
    if not feather_px >= 0:
        raise InputError(f"a feather of {feather_px} px: give a width of 0 or more")
    if not gap_YX.any():
        return np.zeros(gap_YX.shape, np.float32)
    away = ndimage.distance_transform_edt(~gap_YX)
    weights: F32 = np.clip(1 - away / (feather_px + 1), 0, 1).astype(np.float32)
    return weights


def feathered(section_YX: NDArray[Any], fill_YX: NDArray[Any], gap_YX: Bool, feather_px: float) -> NDArray[Any]:
    """Return a section with its gap filled in; pixels beyond the feather keep their values to the bit.

    Args:
        section_YX: grey values.
        fill_YX: grey values of the fill, of the same shape; looked at in the gap and its feather only.
        gap_YX: what is filled in, bool.
        feather_px: see `feather_weights`.

    Returns:
        A new array of the section's type; whole numbers are rounded, and clipped to its limits.

    Raises:
        InputError: shapes differ, or the fill is not finite where it is needed; and those of `feather_weights`.
    """
    if not section_YX.shape == fill_YX.shape == gap_YX.shape:
        raise InputError(
            f"section {section_YX.shape}, fill {fill_YX.shape} and gap {gap_YX.shape} differ: give the same shape"
        )
    weights = feather_weights(gap_YX, feather_px)
    at = weights > 0
    share, new = weights[at].astype(np.float64), fill_YX[at].astype(np.float64)
    if not np.isfinite(new).all():
        raise InputError("the fill is not finite in the gap or its feather: give grey values there")
    out = section_YX.copy()
    # Where the fill is all, what was there is not even looked at: it may be no number.
    old = np.where(share < 1, section_YX[at].astype(np.float64), 0)
    out[at] = cast((1 - share) * old + share * new, section_YX.dtype)
    return out


def cast(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return values in a type; whole numbers are rounded, and clipped to its limits."""
    if dtype.kind not in "iu":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(values), limits.min, limits.max).astype(dtype)
