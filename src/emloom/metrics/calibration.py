"""Calibration: whether a probability of 0.8 is right eight times in ten.

Convention: a `Ranking` whose scores are probabilities holds all there is to know, in two readings::

    binary       score: probability of one class     positive: voxel of that class      p against frequency
    top label    score: highest probability          positive: that class is right      confidence against accuracy

With bins ``b`` of ``n_b`` voxels, mean score ``conf_b`` and part positive ``acc_b``, of ``n`` voxels in all::

    ECE    sum_b n_b / n |acc_b - conf_b|      expected calibration error
    MCE    max_b |acc_b - conf_b|              of the bins that hold voxels
    Brier  1/n sum (score - positive)^2        needs no bins; also rewards ranking

0 is best for all, and all lie within 0 and 1. (Guo et al., ICML 2017, arXiv:1706.04599; Naeini et al., AAAI 2015;
Brier 1950.) The two readings give different numbers, and so do other bins: say which.

Bins are of equal width, ``[k/B, (k+1)/B)`` with 1 in the last; or of equal mass, about ``n / B`` voxels each:
voxels of one score stay together, in the bin in which the middle one of them falls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, nan
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError, did_you_mean
from emloom.metrics.counts import NOTHING_COUNTS, Array, Counts, Ignore, Mask, known_voxels
from emloom.metrics.ranking import Ranking

Binning = Literal["equal_width", "equal_mass"]

_ABOVE_ONE = 1e-6  # a float32 softmax may exceed 1 by its rounding


@dataclass(frozen=True)
class ReliabilityBin:
    """One row of a reliability table.

    Attributes:
        low: lowest score in the bin; for equal width, its lower edge.
        high: highest score in the bin; for equal width, its upper edge.
        n: voxels in it, at least 1.
        confidence: their mean score.
        accuracy: part of them that is positive.
    """

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are from frequencies; see the module for the formulae.

    Attributes:
        ece: expected calibration error, 0 is best.
        mce: largest error of any bin, 0 is best; one bin of few voxels decides it.
        brier: mean squared error of the probability, 0 is best.
        binning: which bins.
        n_bins: bins asked for; those without voxels are in no table.
        bins: the reliability table, lowest scores first.
        n_voxels: voxels counted.
        reason: why the scores are NaN; else empty.
    """

    ece: float
    mce: float
    brier: float
    binning: Binning
    n_bins: int
    bins: tuple[ReliabilityBin, ...]
    n_voxels: int
    reason: str


def calibration(ranking: Ranking, n_bins: int = 15, binning: Binning = "equal_width") -> Calibration:
    """Return the reliability table and the errors read from it.

    Args:
        ranking: voxels by probability, from `ranking`, or from a `ScoreHistogram`, which is additive over blocks.
        n_bins: how many bins.
        binning: of equal width or of equal mass.

    Raises:
        InputError: scores are not probabilities, there is no bin, or the binning is unknown.
    """
    if n_bins < 1:
        raise InputError(f"{n_bins} bins: give 1 or more, 15 is usual")
    if binning not in get_args(Binning):
        raise InputError(
            f"binning {binning!r} is unknown{did_you_mean(binning, get_args(Binning))}: "
            f"use one of {', '.join(get_args(Binning))}"
        )
    score, hits = _probabilities(ranking), ranking.positives[::-1]
    n = hits + ranking.negatives[::-1]
    total = int(n.sum())
    if not total:
        return Calibration(nan, nan, nan, binning, n_bins, (), 0, NOTHING_COUNTS)
    index = _equal_width(score, n_bins) if binning == "equal_width" else _equal_mass(n, n_bins)
    bins = []
    for b in np.unique(index[n > 0]).tolist():
        rows = np.flatnonzero((index == b) & (n > 0))
        edges = (b / n_bins, (b + 1) / n_bins) if binning == "equal_width" else (score[rows[0]], score[rows[-1]])
        size = int(n[rows].sum())
        confidence = fsum((n[rows] * score[rows]).tolist()) / size
        bins.append(
            ReliabilityBin(float(edges[0]), float(edges[1]), size, confidence, int(hits[rows].sum()) / size)
        )
    gaps = [abs(row.accuracy - row.confidence) for row in bins]
    return Calibration(
        ece=fsum(row.n * gap for row, gap in zip(bins, gaps, strict=True)) / total,
        mce=max(gaps),
        brier=brier(ranking),
        binning=binning,
        n_bins=n_bins,
        bins=tuple(bins),
        n_voxels=total,
        reason="",
    )


def brier(ranking: Ranking) -> float:
    """Return the mean squared difference of probability and outcome (0 or 1); NaN where no voxel counts.

    Raises:
        InputError: scores are not probabilities.
    """
    score, hits, misses = _probabilities(ranking), ranking.positives[::-1], ranking.negatives[::-1]
    total = int((hits + misses).sum())
    return fsum((hits * (1 - score) ** 2 + misses * score**2).tolist()) / total if total else nan


def brier_of_classes(rankings: Sequence[Ranking]) -> float:
    """Return the mean of ``sum_c (p_c - y_c)^2``, Brier's own score of several classes, within 0 and 2.

    Args:
        rankings: one per class, that class against the rest, all of the same voxels. Two classes give twice the
            binary score.

    Raises:
        InputError: scores are not probabilities, no class is given, or they count different voxels.
    """
    sizes = {r.n_positive + r.n_negative for r in rankings}
    if len(sizes) != 1:
        raise InputError(f"rankings of {sorted(sizes)} voxels: give one per class, all of the same voxels")
    return fsum(brier(r) for r in rankings)


def top_label(
    scores_C: Array, truth: Array, *, ignore: Ignore = 255, mask: Mask | None = None
) -> tuple[Array, NDArray[np.uint8]]:
    """Return the highest probability of every voxel, and whether its class is right.

    What comes out goes into `ranking` or `score_histogram` as it is::

        score_histogram(*top_label(probabilities, truth)).ranking()

    Args:
        scores_C: probabilities [C, ...], classes first; uint8 (0 to 255) or floating. Of equals the first wins.
        truth: classes [...], or ignored values.
        ignore: value or values of the truth whose voxels do not count; () for none.
        mask: bool [...]; only True voxels count.

    Returns:
        confidence [...], of the type of `scores_C`; and uint8 [...]: 1 right, 0 wrong, 255 where nothing counts.

    Raises:
        InputError: shapes differ, or the truth is not integer.
    """
    if scores_C.ndim < 1 or scores_C.shape[1:] != truth.shape or not len(scores_C):
        raise InputError(
            f"scores are {scores_C.shape} but truth is {truth.shape}: give [classes, *shape of truth]"
        )
    known = known_voxels(truth, ignore, mask)
    best = scores_C.argmax(axis=0)
    confidence = np.take_along_axis(scores_C, best[None], axis=0)[0]
    correct = np.where(known, best == truth, np.uint8(255)).astype(np.uint8)
    return confidence, correct


def _probabilities(ranking: Ranking) -> NDArray[np.float64]:
    """Return the scores, lowest first."""
    score = ranking.scores[::-1]
    if score.size and not (score[0] >= 0 and score[-1] <= 1 + _ABOVE_ONE):
        raise InputError(
            f"scores reach from {score[0]:g} to {score[-1]:g}: calibration is about probabilities within 0 and 1; "
            "apply a sigmoid or softmax to logits first"
        )
    return score


def _equal_width(score: NDArray[np.float64], n_bins: int) -> NDArray[np.int64]:
    # Edges as correctly rounded quotients: 0.29 then lies in the bin that begins at 29 / 100.
    edges = np.arange(1, n_bins) / n_bins
    return np.searchsorted(edges, score, side="right").astype(np.int64)


def _equal_mass(n: Counts, n_bins: int) -> NDArray[np.int64]:
    before = np.cumsum(n) - n
    middle = 2 * before + np.maximum(n, 1) - 1  # twice the rank of the middle voxel of each score
    return middle * n_bins // (2 * int(n.sum()))
