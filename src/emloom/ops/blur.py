"""Gaussian sums along one axis of an array, float32, zero beyond its ends.

::

    out[i] = sum over k = -r .. r of  taps[|k|] values[i + k]

The sum of every element has one order whatever the array's extent, so a crop with `r` voxels around it gives the
bits of the whole.
"""

from __future__ import annotations

from functools import partial
from math import ceil, exp, prod

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.ops.threads import each, ranges

F32 = NDArray[np.float32]

_PANEL = 64  # floats of a row that are worked on together: with the rows along the axis, they stay in the cache
_CONTRACT = {"contract", "nsz"}


def gaussian_taps(sigma: float, reach: int | None = None, *, sigmas: float = 5.0) -> F32:
    """Return ``exp(-k^2 / 2 sigma^2)`` for k = 0 .. reach, float32.

    Args:
        sigma: standard deviation, in elements.
        reach: the last k; default: `sigmas` standard deviations, rounded up.
        sigmas: at 5, what is left out is 6e-7 of the whole.
    """
    last = ceil(sigmas * sigma) if reach is None else reach
    return np.array([exp(-0.5 * (k / sigma) ** 2) for k in range(last + 1)], np.float32)


def blur(values: F32, axis: int, taps: F32, threads: int = 1) -> None:
    """Replace an array by its sums along an axis; see the module.

    Args:
        values: float32, C-contiguous, any number of axes; changed in place.
        axis: which.
        taps: float32 [r + 1], the middle one first.
        threads: how many work; the bits do not depend on it.
    """
    n = values.shape[axis]
    if taps.size == 1 or n == 1 or not values.size:
        values *= taps[0]
        return
    lines = values.reshape(prod(values.shape[:axis]), n, -1)
    used = taps[:n]  # beyond its ends the array is zero
    panels = lines.shape[0] * -(-lines.shape[2] // _PANEL)
    work = partial(_blur_range, lines, used)
    each(work, ranges(panels, 4 * threads if threads > 1 else 1), threads)


def _blur_range(lines: F32, taps: F32, piece: tuple[int, int]) -> None:
    _blur_panels(lines, taps, _PANEL, *piece)


@njit(cache=True, nogil=True, fastmath=_CONTRACT)
def _blur_panels(lines: F32, taps: F32, width: int, first: int, last: int) -> None:
    n, length = lines.shape[1], lines.shape[2]
    reach = taps.size - 1
    per_line = (length + width - 1) // width
    # The panel with zeros before and after, so that the sums below run over one contiguous piece of memory.
    around = np.zeros((n + 2 * reach) * min(width, length), np.float32)
    sums = np.empty(n * min(width, length), np.float32)
    for panel in range(first, last):
        line, start = panel // per_line, panel % per_line * width
        b = min(width, length - start)
        around[: reach * b] = 0
        around[(reach + n) * b : (2 * reach + n) * b] = 0
        for i in range(n):
            for c in range(b):
                around[(reach + i) * b + c] = lines[line, i, start + c]
        _sum(around, sums, taps, n * b, b)
        for i in range(n):
            for c in range(b):
                lines[line, i, start + c] = sums[i * b + c]


@njit(cache=True, nogil=True, fastmath=_CONTRACT)
def _sum(around: F32, sums: F32, taps: F32, count: int, b: int) -> None:
    reach = taps.size - 1
    middle = around[reach * b :]
    for j in range(count):
        sums[j] = taps[0] * middle[j]
    k = 1
    while k + 3 <= reach:  # four at a time: a sum is loaded and stored a quarter as often
        t0, t1, t2, t3 = taps[k], taps[k + 1], taps[k + 2], taps[k + 3]
        l0, l1 = around[(reach - k) * b :], around[(reach - k - 1) * b :]
        l2, l3 = around[(reach - k - 2) * b :], around[(reach - k - 3) * b :]
        r0, r1 = around[(reach + k) * b :], around[(reach + k + 1) * b :]
        r2, r3 = around[(reach + k + 2) * b :], around[(reach + k + 3) * b :]
        for j in range(count):
            near = t0 * (l0[j] + r0[j]) + t1 * (l1[j] + r1[j])
            far = t2 * (l2[j] + r2[j]) + t3 * (l3[j] + r3[j])
            sums[j] += near + far
        k += 4
    while k <= reach:
        t0 = taps[k]
        l0, r0 = around[(reach - k) * b :], around[(reach + k) * b :]
        for j in range(count):
            sums[j] += t0 * (l0[j] + r0[j])
        k += 1
