"""Which score to ask of a found pair: precision, recall and F-beta over thresholds.

A found pair is kept where its score is at least the threshold. Every threshold is one matching of its own
(`metrics.partners`): a pair that is gone may free its true pair for another, so nothing is interpolated::

    F_beta = (1 + beta^2) P R / (beta^2 P + R)      0 where nothing matches, but 1 where there is nothing at all

beta says how much more recall weighs than precision: 2 where a missed synapse is worse, 1/2 where an invented one
is. The best threshold flatters the data it was chosen on: choose it on validation data, and apply it to test data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emloom.errors import InputError
from emloom.metrics.partnerpairs import F64, Ids, PartnerPairs
from emloom.metrics.partners import PartnerOptions, match_pairs

POINTS = 101
"""Thresholds of a sweep, at most."""


@dataclass(frozen=True)
class SweepPoint:
    """What one threshold gives.

    Attributes:
        threshold: pairs with at least this score are kept.
        n_found: pairs kept, without those the options leave out.
        tp: matched pairs.
        fp: kept pairs without a match.
        fn: true pairs without a match.
        precision: 0 to 1, more is better; 1 where nothing is kept.
        recall: 0 to 1, more is better; 1 where there is nothing to find.
        fbeta: 0 to 1, more is better.
    """

    threshold: float
    n_found: int
    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    fbeta: float


@dataclass(frozen=True)
class Sweep:
    """A sweep over thresholds.

    Attributes:
        points: lowest threshold first.
        beta: of the F-beta.
        best: number of the point with the largest F-beta; of equals the one with the highest threshold.
        n_scores: different scores there are; where it is more than the points, some were left out.
    """

    points: tuple[SweepPoint, ...]
    beta: float
    best: int
    n_scores: int

    @property
    def chosen(self) -> SweepPoint:
        """The best point."""
        return self.points[self.best]


@dataclass(frozen=True, eq=False)
class FoundPairs:
    """Found pairs with what a sweep needs to know.

    Attributes:
        pairs: positions.
        segments: uint64 [n, 2], true segments of the (pre, post) sites.
        scores: float [n].
        inside: bool [n], False for pairs that can match nothing.

    Raises:
        InputError: a column does not have one row per pair, or a score is not finite.
    """

    pairs: PartnerPairs
    segments: Ids
    scores: NDArray[np.floating]
    inside: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n = len(self.pairs)
        if (self.segments.shape, self.scores.shape, self.inside.shape) != ((n, 2), (n,), (n,)):
            raise InputError(
                f"segments {self.segments.shape}, scores {self.scores.shape} and inside {self.inside.shape} do "
                f"not fit {n} found pairs: give a row each"
            )
        if not np.isfinite(self.scores).all():
            raise InputError(f"{self.pairs.source}: a score is not finite: pairs without one cannot be swept")


def f_beta(precision: float, recall: float, beta: float = 1.0) -> float:
    """Return the F-beta of a precision and a recall.

    Raises:
        InputError: beta is not a finite number above 0.
    """
    if not (isfinite(beta) and beta > 0):
        raise InputError(f"beta {beta} is not above 0: 1 weighs precision and recall alike, 2 favours recall")
    below = beta * beta * precision + recall
    return (1 + beta * beta) * precision * recall / below if below else 0.0


def thresholds_of(scores: ArrayLike, most: int = POINTS) -> F64:
    """Return the scores at which something changes, ascending; evenly thinned where there are more than `most`.

    The lowest and the highest are always among them.

    Raises:
        InputError: fewer than 2 are asked for.
    """
    if most < 2:
        raise InputError(f"{most} thresholds are no sweep: ask for 2 or more")
    distinct = np.unique(np.asarray(scores, np.float64))
    if distinct.size <= most:
        return distinct
    return distinct[np.unique(np.round(np.linspace(0, distinct.size - 1, most)).astype(np.int64))]


def partner_sweep(
    truth: PartnerPairs,
    true_segments: Ids,
    found: FoundPairs,
    options: PartnerOptions | None = None,
    *,
    beta: float = 1.0,
    thresholds: Sequence[float] | None = None,
) -> Sweep:
    """Match at every threshold and count.

    Args:
        truth: true pairs.
        true_segments: uint64 [m, 2], of the true pairs.
        found: pairs to judge.
        options: other rules than CREMI's.
        beta: of the F-beta.
        thresholds: default: every score, thinned to `POINTS`; 0 where nothing was found.

    Raises:
        InputError: a length, beta or threshold is wrong.
    """
    chosen = thresholds_of(found.scores) if thresholds is None else np.unique(np.asarray(thresholds, np.float64))
    if not chosen.size:
        chosen = np.zeros(1)
    if np.isnan(chosen).any():
        raise InputError("a threshold is NaN: give numbers; pairs with at least that score are kept")
    points = []
    for threshold in chosen.tolist():
        keep = found.scores >= threshold
        scores = match_pairs(
            truth, found.pairs.rows(keep), true_segments, found.segments[keep], inside=found.inside[keep],
            options=options,
        )  # fmt: skip
        f = f_beta(scores.precision, scores.recall, beta)
        counts = (scores.tp + scores.fp, scores.tp, scores.fp, scores.fn)
        points.append(SweepPoint(threshold, *counts, scores.precision, scores.recall, f))
    best = max(range(len(points)), key=lambda k: (points[k].fbeta, points[k].threshold))
    return Sweep(tuple(points), beta, best, int(np.unique(found.scores).size))
