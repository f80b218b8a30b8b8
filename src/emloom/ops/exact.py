"""Exact sums of wide integers, in Python's integers, which know no limit.

A float64 holds whole numbers up to 2^53; wide values and sums of squares lie beyond. Here a value is a 64-bit
unsigned ``u`` (a signed one plus 2^63), cut into halves of 32 bits, whose products fit in 64 bits and are summed
in halves again::

    u = h * 2^32 + l        sum u^2 = 2^64 sum h^2 + 2^33 sum h l + sum l^2
    v = u - 2^63            sum v = sum u - n 2^63        sum v^2 = sum u^2 - 2^64 sum u + n 2^126
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError

_HALF = np.uint64(32)
_MASK = np.uint64(2**32 - 1)
_SIGN = np.uint64(2**63)


def exact_sums(values: NDArray[Any]) -> tuple[int, int]:
    """Return (sum, sum of squares) of integers of up to 64 bits, exactly.

    Args:
        values: any shape, at most 2^31 values.

    Raises:
        InputError: not integers.
    """
    u, n = _unsigned(values), values.size
    high, low = u >> _HALF, u & _MASK
    total = (_sum(high) << 32) + _sum(low)
    squares = (_sum(high * high) << 64) + (_sum(high * low) << 33) + _sum(low * low)
    if values.dtype.kind == "u":
        return total, squares
    return total - (n << 63), squares - (total << 64) + (n << 126)


def count_bins(values: NDArray[Any], low: int, width: int, n_bins: int) -> NDArray[np.int64]:
    """Return how many integers lie in each bin ``[low + k * width, low + (k + 1) * width)``.

    Args:
        values: integers of up to 64 bits, none below `low` or beyond the last bin.
        low: start of the first bin.
        width: of every bin, at least 1.
        n_bins: how many.

    Raises:
        InputError: not integers.
    """
    start = low if values.dtype.kind == "u" else low + 2**63
    index = (_unsigned(values) - np.uint64(start)) // np.uint64(width)
    return np.bincount(index.reshape(-1).astype(np.int64), minlength=n_bins)


def _unsigned(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Return values as 64 bits in the same order, signed ones shifted by 2^63."""
    if values.dtype.kind == "u":
        return values.astype(np.uint64)
    if values.dtype.kind != "i":
        raise InputError(f"{values.dtype} values are no integers: their sums are rounded, and not exact")
    return values.astype(np.int64).view(np.uint64) ^ _SIGN


def _sum(values: NDArray[np.uint64]) -> int:
    return (int((values >> _HALF).sum()) << 32) + int((values & _MASK).sum())
