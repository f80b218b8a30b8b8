"""Correctly rounded sums of many groups at once: `math.fsum`, vectorised.

Every float is an integer multiple of some power of two. Where all values share a unit ``u`` of moderate size,

    x = (high * 2^32 + low) * u            high, low integers, 0 <= low < 2^32

holds exactly, and the sums of the highs and of the lows stay below 2^53, where floats are exact integers. Adding
the two sums then rounds once, so the result is the float nearest to the true sum, whatever the order: the bits of
`math.fsum`. Values that spread too widely, or are too many, are summed by `math.fsum` itself.
"""

from __future__ import annotations

from math import ceil, frexp, log2

import numpy as np
from numpy.typing import NDArray

from emloom.geometry.skeletons import grouped_fsum

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_LOW = 32
_MANTISSA = 53


class ExactSums:
    """Sums of groups of fixed values.

    Args:
        values: float64 [N], finite, not negative.
    """

    def __init__(self, values: Floats) -> None:
        self.values = values
        self.unit_exponent = self._exponent()
        if self.unit_exponent is not None:
            whole = np.ldexp(values, -self.unit_exponent)
            self.high: Floats = np.floor(np.ldexp(whole, -_LOW))
            self.low: Floats = whole - np.ldexp(self.high, _LOW)

    def _exponent(self) -> int | None:
        """Return the exponent of the unit; None where the sums could leave the exact integers."""
        positive = self.values[self.values > 0]
        if not positive.size:
            return 0
        smallest, largest = (frexp(float(v))[1] for v in (positive.min(), positive.max()))
        growth = ceil(log2(len(self.values) + 1))
        fits = max(_LOW, largest - smallest + _MANTISSA - _LOW) + growth <= _MANTISSA
        return smallest - _MANTISSA if fits else None

    def of(self, groups: Rows, n_groups: int, chosen: NDArray[np.bool_] | None = None) -> Floats:
        """Return the sum of every group.

        Args:
            groups: int64 [N], group of each value, 0 to n_groups - 1.
            n_groups: number of groups.
            chosen: bool [N], which values to add; None: all.

        Returns:
            float64 [n_groups], 0 where a group is empty.
        """
        if self.unit_exponent is None:
            if chosen is None:
                return grouped_fsum(groups, self.values, n_groups)
            return grouped_fsum(groups[chosen], self.values[chosen], n_groups)
        high, low = (part if chosen is None else part * chosen for part in (self.high, self.low))
        sums = np.ldexp(np.bincount(groups, high, n_groups), _LOW) + np.bincount(groups, low, n_groups)
        total: Floats = np.ldexp(sums, self.unit_exponent)
        return total
