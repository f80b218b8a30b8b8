"""Which values of a series along z stand out: running medians, and the spread that is usual around them.

A stack drifts: tissue, stain and focus change slowly. So a value is compared with the median of those around it,
and the difference with what such differences usually are, their median absolute deviation over the whole series
(times 1.4826, so that it estimates the standard deviation of a normal distribution; Hampel 1974,
doi:10.1080/01621459.1974.10482962). Up to half of the values around may be wrong without any harm.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]

MAD = 1.4826


def running_median(values: F64, reach: int) -> F64:
    """Return the median of up to `reach` values on either side, without the value itself; NaN counts for nothing.

    At the ends the window is shifted, not cut: as many values are asked as elsewhere. NaN where none is known.
    """
    n = len(values)
    out = np.full(n, np.nan)
    for z in range(n):
        low = min(max(0, z - reach), max(0, n - 1 - 2 * reach))
        around = np.concatenate([values[low:z], values[z + 1 : low + 2 * reach + 1]])
        known = around[np.isfinite(around)]
        if known.size:
            out[z] = np.median(known)
    return out


def usual_spread(differences: F64) -> float:
    """Return the robust standard deviation of differences from what was expected; 0 where none is known."""
    known = np.abs(differences[np.isfinite(differences)])
    return float(MAD * np.median(known)) if known.size else 0.0
