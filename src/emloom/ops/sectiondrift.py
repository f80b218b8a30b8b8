"""Slow changes of a stack's positions, which an aligner should leave as they are.

Processes run obliquely, and neighbours that are laid on each other straighten them: after hundreds of sections a
stack is bent (the "banana problem"). What changes over more than some number of sections is therefore left as it
is in the raw, where the microscope's stage kept it, and only what is faster is corrected. ::

    positions - slow(positions)

`slow` is a local line at every section, weighted by a Gaussian of the distance and by how well sections fit it
(Cleveland 1979, doi:10.1080/01621459.1979.10481038), so single displaced sections do not bend it and its ends lag
behind nothing. Parts of a stack that nothing joins have a line each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, median_filter

from emloom.errors import InputError

F64 = NDArray[np.float64]

_ROUNDS = 4
_REACH = 3.0  # sigmas
_CUT = 6.0  # median distances nearby from which on a section has no weight


def without_drift(shift_Z2: F64, sections: float, reference: int, cuts: Sequence[int] = ()) -> F64:
    """Return positions that keep slow changes as they are in the raw.

    Args:
        shift_Z2: positions [Z, 2], (y, x) pixels.
        sections: what changes over more of them than this is slow, about: half of a wave of that length is kept.
        reference: section that stays where it is.
        cuts: sections after which another part begins.

    Returns:
        float64 [Z, 2]; 0 for the reference.

    Raises:
        InputError: not at least 4 sections, or a reference that is none.
    """
    if not sections >= 4:
        raise InputError(f"drift over {sections} sections cannot be told from their shifts: give at least 4")
    if not 0 <= reference < len(shift_Z2):
        raise InputError(f"the reference {reference} is no section: choose one of 0 to {len(shift_Z2) - 1}")
    borders = [0, *(cut + 1 for cut in cuts), len(shift_Z2)]
    parts = [slow(part, sections) for part in np.split(np.asarray(shift_Z2, np.float64), borders[1:-1])]
    out: F64 = shift_Z2 - np.concatenate(parts)
    out -= out[reference].copy()
    return out


def slow(shift_Z2: F64, sections: float) -> F64:
    """Return the slow part of positions [Z, 2] of one part of a stack; see the module."""
    # A Gaussian of this deviation passes half of a wave of that length.
    sigma = sections * np.sqrt(2 * np.log(2)) / (2 * np.pi)
    reach = min(int(np.ceil(_REACH * sigma)), len(shift_Z2) - 1)
    at = np.arange(-reach, reach + 1, dtype=np.float64)
    near = np.exp(-np.square(at) / (2 * sigma**2))
    weight = np.ones(len(shift_Z2))
    line = _lines(shift_Z2, weight, near, at)
    for _ in range(_ROUNDS):
        distance = np.linalg.norm(shift_Z2 - line, axis=1)
        # A displaced section bends the line around it at first: near it, distances are large for all.
        limit = _CUT * np.maximum(median_filter(distance, int(sections) | 1, mode="nearest"), 1e-9)
        weight = np.square(np.maximum(0, 1 - np.square(distance / limit)))
        line = _lines(shift_Z2, np.maximum(weight, 1e-6), near, at)
    return line


def _lines(shift: F64, weight: F64, near: F64, at: F64) -> F64:
    """Return the value of a local line at every section, fitted to its neighbours by weighted least squares."""

    def total(values: F64, kernel: F64) -> F64:
        # convolve1d turns its kernel round.
        return np.asarray(convolve1d(values, kernel[::-1], axis=0, mode="constant"))

    zero, one, two = (total(weight, near * at**k)[:, None] for k in (0, 1, 2))
    heights, moments = total(weight[:, None] * shift, near), total(weight[:, None] * shift, near * at)
    size = zero * two - np.square(one)
    firm = size > 1e-9 * np.maximum(zero * two, 1e-300)
    line: F64 = np.where(
        firm, (two * heights - one * moments) / np.where(firm, size, 1), heights / np.maximum(zero, 1e-300)
    )
    return line


__all__ = ["slow", "without_drift"]
