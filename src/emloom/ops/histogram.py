"""Exact histograms of small integers, and what follows from them.

With one bin per value nothing is lost: mean, variance and percentiles of the histogram are those of the voxels,
and histograms of parts add up to the histogram of the whole in any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError

Counts = NDArray[np.int64]


def values_of(dtype: np.dtype[Any]) -> Counts:
    """Return every value an 8- or 16-bit integer or boolean type can hold, increasing.

    Raises:
        InputError: a type of more values than can be counted one by one.
    """
    if dtype.kind == "b":
        return np.arange(2, dtype=np.int64)
    if dtype.kind not in "iu" or dtype.itemsize > 2:
        raise InputError(f"{dtype} has too many values to count each: use bins")
    limits = np.iinfo(dtype)
    return np.arange(limits.min, limits.max + 1, dtype=np.int64)


def count_values(array: NDArray[Any]) -> Counts:
    """Return how often each of `values_of(array.dtype)` occurs.

    Raises:
        InputError: see `values_of`.
    """
    values = values_of(array.dtype)
    counts = np.zeros(values.size, np.int64)
    plain = array.view(np.uint8) if array.dtype.kind == "b" else array
    _count(np.ascontiguousarray(plain).reshape(-1), int(values[0]), counts)
    return counts


@njit(cache=True, nogil=True)
def _count(values: NDArray[Any], low: int, counts: Counts) -> None:
    for i in range(values.size):
        counts[np.int64(values[i]) - low] += 1


def percentile(values: NDArray[Any], counts: Counts, percent: float) -> Any:
    """Return the smallest value that at least `percent` of all voxels do not exceed (nearest rank).

    Args:
        values: [n], increasing.
        counts: [n], how often each occurs.
        percent: from 0 to 100.

    Raises:
        InputError: nothing was counted, or the percentage is none.
    """
    total = int(counts.sum())
    if not (0 <= percent <= 100 and total):
        raise InputError(f"percentile {percent} of {total} values: give 0 to 100, and at least one value")
    rank = max(1, -(-total * round(percent * 1000) // 100_000))  # whole thousandths of a percent: exact
    return values[np.searchsorted(np.cumsum(counts), rank)]
