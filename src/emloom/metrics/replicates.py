"""The mean of a few replicates, such as trainings with different seeds, and how sure it is.

Student's t: ``mean ± t(n - 1) * s / sqrt(n)``, for values that are independent and about normal. Of three
replicates t is 4.3, so the interval is honest, and wide. It says how much replicates vary on the same data, not
what other data would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from statistics import fmean, stdev

from scipy import stats

from emloom.errors import InputError


@dataclass(frozen=True)
class Replicated:
    """A mean of replicates.

    Attributes:
        value: the mean; NaN where a replicate has no value.
        low: lower end of its interval; NaN where there is none.
        high: upper end.
        n: number of replicates.
        reason: why there is no mean or no interval; else empty.
    """

    value: float
    low: float
    high: float
    n: int
    reason: str = ""


def replicated(values: Sequence[float], confidence: float = 0.95) -> Replicated:
    """Return the mean of replicates and its interval.

    Raises:
        InputError: there is no value, or the confidence is not between 0 and 1.
    """
    if not values:
        raise InputError("there is nothing to average: give at least one value")
    if not 0 < confidence < 1:
        raise InputError(f"a confidence of {confidence} must lie between 0 and 1, both left out: give e.g. 0.95")
    n = len(values)
    if not all(isfinite(value) for value in values):
        return Replicated(nan, nan, nan, n, "a replicate has no finite value")
    mean = fmean(values)
    if n < 2:
        return Replicated(mean, nan, nan, n, "one replicate has no interval")
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * stdev(values) / sqrt(n)
    return Replicated(mean, mean - half, mean + half, n)
