"""Confidence intervals of scores, by resampling whole blocks or sections.

Convention: every block gives one additive table (a `Confusion`, a `ScoreHistogram`, ...). One resample draws as
many blocks as there are, with replacement, adds their tables and scores the sum; the interval lies between
percentiles of those scores::

    value          statistic(pool(blocks))
    low, high      percentiles of statistic(pool(drawn blocks))

Blocks, not voxels, because neighbouring voxels are alike: a thousand voxels of one mitochondrion are closer to one
observation than to a thousand. Resampling voxels takes them for independent and gives intervals many times too
narrow. What is drawn together must be what varies together: sections, where sections are independent (artifacts);
blocks larger than the structures; boxes or animals, where the question is how the next box or animal will do.

The cluster bootstrap (Davison and Hinkley 1997, section 3.8; Field and Welsh 2007,
doi:10.1111/j.1467-9868.2007.00593.x), percentile interval (Efron and Tibshirani 1993, chapter 13). With fewer than
about 20 blocks the interval is too narrow: it cannot know what it has not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Interval:
    """A score and its confidence interval.

    Attributes:
        value: the score of all blocks together.
        low: lower end.
        high: upper end.
        level: part of such intervals that should hold the true score.
        n_blocks: blocks given.
        n_resamples: resamples drawn.
        n_undefined: resamples whose score was NaN (say, without a positive voxel); they are left out.
        reason: why the ends are NaN, or what to beware of; else empty.
    """

    value: float
    low: float
    high: float
    level: float
    n_blocks: int
    n_resamples: int
    n_undefined: int
    reason: str


def bootstrap(
    blocks: Sequence[T],
    statistic: Callable[[T], float],
    pool: Callable[[Sequence[T]], T],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Return a score with its percentile interval over resampled blocks.

    For instance, the macro F1 over sections::

        bootstrap(tables, lambda t: confusion_scores(t).macro.f1, add, np.random.default_rng(0))

    Args:
        blocks: one table per block that was judged. A block in which nothing counts belongs here only if the next
            one may be such a block, too.
        statistic: the score of a table.
        pool: the table of several blocks, some given more than once: `counts.add`; `contingency.disjoint_union`.
        rng: the source of all randomness: the same seed gives the same interval.
        resamples: how many to draw.
        level: between 0 and 1.

    Raises:
        InputError: there is no block, fewer than 1 resample, or the level is not between 0 and 1.
    """
    require_resampling(len(blocks), resamples, level)
    value = float(statistic(pool(blocks)))
    if len(blocks) == 1:
        return interval(value, np.empty(0), 1, level)
    drawn = rng.integers(0, len(blocks), (resamples, len(blocks)))
    scores = [float(statistic(pool([blocks[i] for i in row]))) for row in drawn.tolist()]
    return interval(value, np.array(scores), len(blocks), level)


def require_resampling(n_blocks: int, resamples: int, level: float) -> None:
    """Raise `InputError` unless there are blocks, at least 1 resample, and a level between 0 and 1."""
    if not n_blocks:
        raise InputError("there is no block to resample: give one table per section or block")
    if resamples < 1 or not 0 < level < 1:
        raise InputError(f"{resamples} resamples at level {level}: give 1 or more, and a level such as 0.95")


def interval(value: float, scores: NDArray[np.float64], n_blocks: int, level: float) -> Interval:
    """Return a score with the percentile interval of its resamples, for scores that are resampled many at a time.

    Args:
        value: the score of all blocks together.
        scores: float64 [resamples], NaN where undefined; of one block none are needed.
        n_blocks: blocks given.
        level: between 0 and 1.
    """
    if n_blocks == 1:
        return Interval(value, nan, nan, level, 1, 0, 0, "one block says nothing about how blocks differ")
    defined = scores[~np.isnan(scores)]
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2]) if defined.size else (nan, nan)
    undefined = scores.size - defined.size
    return Interval(
        value=value,
        low=float(low),
        high=float(high),
        level=level,
        n_blocks=n_blocks,
        n_resamples=scores.size,
        n_undefined=undefined,
        reason=_reason(undefined, scores.size),
    )


def _reason(undefined: int, resamples: int) -> str:
    if undefined == resamples:
        return "the score is undefined in every resample"
    if undefined:
        return f"the score is undefined in {undefined} of {resamples} resamples, which are left out"
    return ""
