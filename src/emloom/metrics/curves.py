"""ROC and precision-recall: how well a score ranks the voxels of a class before the rest.

Convention: at threshold ``s`` a voxel is called positive where its score is at least ``s``. With ``TP(s)`` and
``FP(s)`` voxels called so rightly and wrongly, of ``P`` positives and ``N`` negatives::

    recall     R = TP / P                        false-positive rate  F = FP / N
    precision      TP / (TP + FP)                at a prevalence pi   pi R / (pi R + (1 - pi) F)

    average precision   sum_k (R_k - R_{k-1}) precision_k     over distinct scores, highest first; no interpolation
    ROC AUC             P(score of a positive > score of a negative) + 1/2 P(equal)

Average precision and AUC depend on the order of the scores only: any increasing transform of them changes no bit.
Chance gives an AUC of 1/2, and an average precision of the prevalence, ``P / (P + N)``: a precision belongs to the
prevalence of its sample. Where the sample was enriched with positives, as training sets are, ask for the precision
at the prevalence of the world. Why precision must not be interpolated linearly: Davis and Goadrich, ICML 2006,
doi:10.1145/1143844.1143874.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, inf, isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.metrics.classify import rates
from emloom.metrics.counts import NOTHING_COUNTS, mean
from emloom.metrics.ranking import F64, NO_NEGATIVE, NO_POSITIVE, Ranking

_EXACT = 1 << 62  # sums below this fit int64
_NM2_PER_MM2 = 1e12


@dataclass(frozen=True)
class RankedScores:
    """How well scores rank one class before the rest.

    Attributes:
        average_precision: 1 is best; chance gives the prevalence.
        roc_auc: 1 is best; chance gives 0.5.
        prevalence: part of the voxels that count that is positive.
        n_positive: voxels of the class.
        n_negative: the other voxels that count.
        reason: why a score is NaN; else empty.
    """

    average_precision: float
    roc_auc: float
    prevalence: float
    n_positive: int
    n_negative: int
    reason: str


@dataclass(frozen=True, eq=False)
class Curve:
    """A precision-recall or ROC curve: one point per distinct score, highest first.

    Attributes:
        thresholds: float64 [K].
        recall: float64 [K], the true-positive rate; never decreasing.
        precision: float64 [K], at the prevalence asked for.
        false_positive_rate: float64 [K], never decreasing.
        reason: why a column is NaN; else empty.

    There is no point for "nothing is called positive": recall and false-positive rate are 0 there, and a precision
    does not exist.
    """

    thresholds: F64
    recall: F64
    precision: F64
    false_positive_rate: F64
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the columns as lists of floats."""
        columns = ("thresholds", "recall", "precision", "false_positive_rate")
        return {**{name: getattr(self, name).tolist() for name in columns}, "reason": self.reason}


@dataclass(frozen=True)
class OperatingPoint:
    """What one threshold gives.

    Attributes:
        threshold: scores of at least this are called positive.
        recall: TP / P.
        precision: TP / (TP + FP) at the prevalence of the sample; 0 where nothing is called positive.
        f1: their harmonic mean.
        false_positive_rate: FP / N.
        n_true_positive: TP.
        n_false_positive: FP.
        reason: why a value is NaN; else empty.
    """

    threshold: float
    recall: float
    precision: float
    f1: float
    false_positive_rate: float
    n_true_positive: int
    n_false_positive: int
    reason: str


@dataclass(frozen=True)
class FalsePositiveDensity:
    """How many false positives a person meets.

    Attributes:
        per_mm2: false positives per square millimetre of section judged.
        per_section: false positives per section.
    """

    per_mm2: float
    per_section: float


def ranked_scores(ranking: Ranking, prevalence: float | None = None) -> RankedScores:
    """Return average precision and ROC AUC.

    Args:
        ranking: the voxels by score.
        prevalence: the one average precision is to hold for; None: that of the sample.

    Raises:
        InputError: the prevalence is not between 0 and 1.
    """
    positive, negative = ranking.n_positive, ranking.n_negative
    return RankedScores(
        average_precision=average_precision(ranking, prevalence),
        roc_auc=roc_auc(ranking),
        prevalence=positive / (positive + negative) if positive + negative else nan,
        n_positive=positive,
        n_negative=negative,
        reason=_reason(ranking),
    )


def curve(ranking: Ranking, prevalence: float | None = None) -> Curve:
    """Return recall, precision and false-positive rate at every distinct score.

    Args:
        ranking: the voxels by score.
        prevalence: the one precision is to hold for; None: that of the sample.

    Raises:
        InputError: the prevalence is not between 0 and 1.
    """
    tp, fp = np.cumsum(ranking.positives), np.cumsum(ranking.negatives)
    recall, false = _parts(tp, ranking.n_positive), _parts(fp, ranking.n_negative)
    if prevalence is None:
        with np.errstate(invalid="ignore"):  # rows without voxels at the top of a hand-made ranking
            precision = tp / (tp + fp)
    else:
        precision = _adjusted(recall, false, _checked_prevalence(prevalence))
    return Curve(ranking.scores, recall, precision, false, _reason(ranking))


def average_precision(ranking: Ranking, prevalence: float | None = None) -> float:
    """Return the step-wise area under the precision-recall curve; NaN where nothing is positive.

    The definition of scikit-learn's ``average_precision_score``; not the trapezoidal area, which is higher.

    Args:
        ranking: the voxels by score.
        prevalence: the one precision is to hold for; None: that of the sample.

    Raises:
        InputError: the prevalence is not between 0 and 1.
    """
    drawn = curve(ranking, prevalence)
    positive = ranking.n_positive
    if not positive:
        return nan
    steps = ranking.positives > 0
    return fsum((ranking.positives[steps] * drawn.precision[steps]).tolist()) / positive


def roc_auc(ranking: Ranking) -> float:
    """Return the area under the ROC curve; NaN where nothing is positive or nothing negative.

    It is the probability that a positive scores above a negative, ties counted half (Mann and Whitney 1947).
    Computed in integers and rounded once.
    """
    pairs = ranking.n_positive * ranking.n_negative
    if not pairs:
        return nan
    above = np.cumsum(ranking.positives) - ranking.positives
    twice = 2 * above + ranking.positives
    if 2 * pairs < _EXACT:
        won = int((twice * ranking.negatives).sum())
    else:  # 4e9 voxels have more pairs than int64 counts
        won = sum(w * n for w, n in zip(twice.tolist(), ranking.negatives.tolist(), strict=True))
    return won / (2 * pairs)


def mean_average_precision(rankings: Sequence[Ranking]) -> float:
    """Return the mean average precision of several classes, one ranking each.

    The macro average: every class that occurs in the truth weighs the same. NaN where none occurs.
    """
    return mean(average_precision(r) for r in rankings if r.n_positive)


def at_threshold(ranking: Ranking, threshold: float) -> OperatingPoint:
    """Return what calling positive every score of at least a threshold gives.

    Raises:
        InputError: the threshold is NaN.
    """
    if np.isnan(threshold):
        raise InputError("the threshold is NaN: give a number; scores of at least it are called positive")
    called = ranking.scores >= threshold
    tp, fp = int(ranking.positives[called].sum()), int(ranking.negatives[called].sum())
    of_class = rates(tp, tp + fp, ranking.n_positive)
    reason = _reason(ranking)
    if not reason and not tp + fp:
        reason = "nothing is called positive: precision counts as 0"
    return OperatingPoint(
        threshold=float(threshold),
        recall=of_class.recall if ranking.n_positive else nan,
        precision=of_class.precision,
        f1=of_class.f1,
        false_positive_rate=fp / ranking.n_negative if ranking.n_negative else nan,
        n_true_positive=tp,
        n_false_positive=fp,
        reason=reason,
    )


def at_recall(ranking: Ranking, recall: float) -> OperatingPoint:
    """Return the highest threshold whose recall is at least a target, and what it gives.

    Choose it on validation data and apply it, by `at_threshold`, to test data. NaN where nothing is positive.

    Raises:
        InputError: the target is not above 0 and at most 1.
    """
    if not 0 < recall <= 1:
        raise InputError(f"target recall {recall} is not above 0 and at most 1: 0.9 finds nine of ten")
    if not ranking.n_positive:
        return OperatingPoint(nan, nan, nan, nan, nan, 0, 0, _reason(ranking))
    reached = np.cumsum(ranking.positives) / ranking.n_positive >= recall
    return at_threshold(ranking, float(ranking.scores[np.argmax(reached)]))


def at_false_positive_rate(ranking: Ranking, rate: float) -> OperatingPoint:
    """Return the lowest threshold whose false-positive rate is at most a stated one, and what it gives.

    Where already the highest score has more false positives, the threshold is infinite: nothing is called
        positive.
    NaN where nothing is positive or nothing negative.

    Raises:
        InputError: the rate is not within 0 and 1.
    """
    if not 0 <= rate <= 1:
        raise InputError(f"false-positive rate {rate} is not within 0 and 1: 0.01 is one negative in a hundred")
    if not ranking.n_positive or not ranking.n_negative:
        return OperatingPoint(nan, nan, nan, nan, nan, 0, 0, _reason(ranking))
    within = int(np.count_nonzero(np.cumsum(ranking.negatives) / ranking.n_negative <= rate))
    return at_threshold(ranking, float(ranking.scores[within - 1]) if within else inf)


def at_best_f1(ranking: Ranking) -> OperatingPoint:
    """Return the threshold with the highest F1 (of equals the highest), and what it gives.

    It flatters the data it was chosen on: choose it on validation data and apply it, by `at_threshold`, to test
    data. NaN where nothing is positive.
    """
    if not ranking.n_positive:
        return OperatingPoint(nan, nan, nan, nan, nan, 0, 0, _reason(ranking))
    tp = np.cumsum(ranking.positives)
    called = tp + np.cumsum(ranking.negatives)
    best = np.argmax(2 * tp / (called + ranking.n_positive))
    return at_threshold(ranking, float(ranking.scores[best]))


def adjusted_precision(point: OperatingPoint, prevalence: float) -> float:
    """Return the precision the same threshold has where positives are as frequent as stated.

    Assumes that positives and negatives look as they do in the sample: only their proportion differs. 0 where
    nothing is called positive, NaN where recall or false-positive rate are.

    Raises:
        InputError: the prevalence is not between 0 and 1.
    """
    checked = _checked_prevalence(prevalence)
    if point.recall == 0 and point.false_positive_rate == 0:
        return 0.0
    return float(_adjusted(np.float64(point.recall), np.float64(point.false_positive_rate), checked))


def false_positive_density(n_false_positive: int, n_sections: int, area_mm2: float) -> FalsePositiveDensity:
    """Return false positives per mm^2 and per section.

    Args:
        n_false_positive: voxels, patches or objects; the densities are of the same kind.
        n_sections: sections judged, also those without any.
        area_mm2: area judged on all of them together, in mm^2: what is masked or ignored is not part of it; see
            `area_mm2`.

    Raises:
        InputError: a number is negative, or there is no section or area.
    """
    if n_false_positive < 0 or n_sections < 1 or not (isfinite(area_mm2) and area_mm2 > 0):
        raise InputError(
            f"{n_false_positive} false positives on {n_sections} sections of {area_mm2} mm^2 together: give 0 or "
            "more on at least one section of an area above 0"
        )
    return FalsePositiveDensity(n_false_positive / area_mm2, n_false_positive / n_sections)


def area_mm2(n_voxels: int, spacing_nm: Sequence[float]) -> float:
    """Return the area that voxels (or patches, with theirs as spacing) cover on their sections, in mm^2.

    Args:
        n_voxels: voxels counted, on all sections together.
        spacing_nm: voxel size (z, y, x) in nm.
    """
    _, y, x = spacing_nm
    return n_voxels * y * x / _NM2_PER_MM2


def _adjusted(recall: Any, false: Any, prevalence: float) -> Any:
    with np.errstate(invalid="ignore"):
        return prevalence * recall / (prevalence * recall + (1 - prevalence) * false)


def _checked_prevalence(prevalence: float) -> float:
    if not 0 < prevalence < 1:
        raise InputError(f"prevalence {prevalence} is not between 0 and 1: 0.001 is one positive in a thousand")
    return prevalence


def _parts(counts: NDArray[np.int64], total: int) -> F64:
    return counts / total if total else np.full(counts.shape, nan)


def _reason(ranking: Ranking) -> str:
    if not ranking.n_positive and not ranking.n_negative:
        return NOTHING_COUNTS
    if not ranking.n_positive:
        return NO_POSITIVE
    return "" if ranking.n_negative else NO_NEGATIVE
