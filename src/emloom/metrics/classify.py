"""Scores of predicted classes against true ones, read from their confusion matrix.

Convention: ``n_ij`` is the number of voxels of true class ``i`` that were called ``j``. With ``n_ii`` correct,
``a_i = sum_j n_ij`` true and ``b_i = sum_j n_ji`` predicted voxels of class ``i``, and ``N`` voxels in all::

    precision  n_ii / b_i              F1 = Dice      2 n_ii / (a_i + b_i)
    recall     n_ii / a_i              IoU = Jaccard  n_ii / (a_i + b_i - n_ii)

    accuracy   sum_i n_ii / N          balanced accuracy  mean of recall over the classes of the truth
    kappa      (N sum_i n_ii - sum_i a_i b_i) / (N^2 - sum_i a_i b_i)

All are better when higher; kappa (Cohen 1960, doi:10.1177/001316446002000104) lies within -1 and 1, the others
within 0 and 1.

**Classes that are absent.** A class that occurs neither in truth nor in prediction has no score: NaN, with a
reason, and no part in a macro mean. (Calling it 0 or 1, as a `zero_division` does, moves the mean by classes that
are not there.) A class that occurs in only one of the two was missed or made up: what would be 0/0 for it counts
as 0, so that never predicting a rare class is not rewarded.

Sums are integers and means correctly rounded: permuting the classes permutes their scores, and changes no bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.metrics.counts import (
    NOTHING_COUNTS,
    Array,
    Counts,
    CountTable,
    Ignore,
    Mask,
    mean,
    require_labels,
    slabs,
)


@dataclass(frozen=True, eq=False)
class Confusion(CountTable):
    """Voxels per pair of true and predicted class.

    Attributes:
        counts: int64 [C, C], rows are true classes, columns predicted ones.

    Raises:
        InputError: the counts are not int64, negative or not square.
    """

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[0] != shape[1] or shape[0] < 1:
            raise InputError(
                f"a confusion matrix is [classes, classes], not {shape}: rows truth, columns prediction"
            )

    @property
    def n_classes(self) -> int:
        """Classes, whether they occur or not."""
        return len(self.counts)

    @property
    def n_voxels(self) -> int:
        """Voxels counted."""
        return int(self.counts.sum())


@dataclass(frozen=True)
class Rates:
    """Precision, recall, F1 and IoU; see the module for the formulae."""

    precision: float
    recall: float
    f1: float
    iou: float

    @property
    def dice(self) -> float:
        """The Dice coefficient, which is F1 by another name."""
        return self.f1


@dataclass(frozen=True)
class ClassScores(Rates):
    """The scores of one class.

    Attributes:
        label: the class.
        n_truth: its true voxels, often called support.
        n_predicted: voxels that were given this class.
        n_correct: voxels of both.
        reason: why a score is NaN, or 0 by convention; else empty.
    """

    label: int
    n_truth: int
    n_predicted: int
    n_correct: int
    reason: str


@dataclass(frozen=True)
class ConfusionScores:
    """The scores of a confusion matrix; see the module for the formulae.

    Attributes:
        accuracy: over all classes, also where `macro` and `micro` are over some.
        balanced_accuracy: mean recall of the classes that occur in the truth; likewise over all.
        kappa: Cohen's, unweighted; likewise over all. 0 is what chance gives.
        macro: means over the classes that occur: every class weighs the same.
        micro: of the summed counts: every voxel weighs the same. Over all classes its precision, recall and F1 are
            the accuracy.
        classes: the scores of each class asked for, in their order.
        n_voxels: voxels counted.
        reasons: why scores are NaN, or classes left out of the means.
    """

    accuracy: float
    balanced_accuracy: float
    kappa: float
    macro: Rates
    micro: Rates
    classes: tuple[ClassScores, ...]
    n_voxels: int
    reasons: tuple[str, ...]


def confusion(
    truth: Array, predicted: Array, n_classes: int, *, ignore: Ignore = 255, mask: Mask | None = None
) -> Confusion:
    """Count the voxels of every (true class, predicted class) pair.

    Args:
        truth: classes 0 to ``n_classes - 1`` or ignored values; any integer type or bool, any shape.
        predicted: classes, the shape of `truth`.
        n_classes: how many classes there are, whether they occur here or not.
        ignore: value or values of the truth whose voxels do not count; () for none.
        mask: bool, the shape of `truth`; only True voxels count.

    Raises:
        InputError: shapes differ, labels are not integers, or a voxel that counts holds no class.
    """
    require_labels(predicted, "prediction")
    if n_classes < 1:
        raise InputError(f"{n_classes} classes: give 1 or more")
    counts = np.zeros((n_classes, n_classes), np.int64)
    for t, p, known in slabs(truth, predicted, ignore, mask):
        stray = _count(*_same_type(t, p), known, counts)
        if stray >= 0:
            _refuse(int(t[stray]), int(p[stray]), n_classes)
    return Confusion(counts)


def confusion_scores(table: Confusion, classes: Iterable[int] | None = None) -> ConfusionScores:
    """Return every score of a confusion matrix; of an empty one all are NaN, with the reason.

    Args:
        table: the confusion matrix.
        classes: those to score and to average over, say all but background; None: all.

    Raises:
        InputError: a class is not in the table, occurs twice, or none is given.
    """
    chosen = _chosen(classes, table.n_classes)
    correct: list[int] = np.diagonal(table.counts).tolist()
    truth: list[int] = table.counts.sum(axis=1).tolist()
    predicted: list[int] = table.counts.sum(axis=0).tolist()
    scores = tuple(_class_scores(label, correct[label], predicted[label], truth[label]) for label in chosen)
    present = [score for score in scores if score.n_truth + score.n_predicted]
    total, agreed = table.n_voxels, sum(correct)
    by_chance = sum(a * b for a, b in zip(truth, predicted, strict=True))
    return ConfusionScores(
        accuracy=agreed / total if total else nan,
        balanced_accuracy=mean(n / a for n, a in zip(correct, truth, strict=True) if a),
        # Python integers: N^2 leaves int64 at 3e9 voxels.
        kappa=(total * agreed - by_chance) / (total**2 - by_chance) if total**2 > by_chance else nan,
        macro=Rates(*(mean(getattr(s, name) for s in present) for name in ("precision", "recall", "f1", "iou"))),
        micro=rates(*(sum(counts[label] for label in chosen) for counts in (correct, predicted, truth))),
        classes=scores,
        n_voxels=total,
        reasons=_reasons(scores, total, total**2 > by_chance),
    )


def rates(correct: int, predicted: int, truth: int) -> Rates:
    """Return the scores of one class from its voxel counts; see the module for what 0/0 is."""
    if predicted + truth == 0:
        return Rates(nan, nan, nan, nan)
    return Rates(
        precision=correct / predicted if predicted else 0.0,
        recall=correct / truth if truth else 0.0,
        f1=2 * correct / (predicted + truth),
        iou=correct / (predicted + truth - correct),
    )


def _class_scores(label: int, correct: int, predicted: int, truth: int) -> ClassScores:
    if truth + predicted == 0:
        reason = "occurs neither in truth nor in prediction: left out of the macro mean"
    elif predicted == 0:
        reason = "is never predicted: its precision counts as 0"
    elif truth == 0:
        reason = "does not occur in the truth: its recall counts as 0"
    else:
        reason = ""
    of_class = rates(correct, predicted, truth)
    return ClassScores(
        precision=of_class.precision,
        recall=of_class.recall,
        f1=of_class.f1,
        iou=of_class.iou,
        label=label,
        n_truth=truth,
        n_predicted=predicted,
        n_correct=correct,
        reason=reason and f"class {label} {reason}",
    )


def _reasons(scores: Sequence[ClassScores], total: int, has_kappa: bool) -> tuple[str, ...]:
    if total == 0:
        return (NOTHING_COUNTS,)
    reasons = [score.reason for score in scores if score.reason]
    if not has_kappa:
        reasons.append("kappa is undefined: truth and prediction are one and the same class everywhere")
    return tuple(reasons)


def _chosen(classes: Iterable[int] | None, n_classes: int) -> list[int]:
    chosen = list(range(n_classes)) if classes is None else [int(label) for label in classes]
    strange = [label for label in chosen if not 0 <= label < n_classes]
    if strange or not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"classes {chosen} to score: give each once, from 0 to {n_classes - 1}")
    return chosen


def _same_type(truth: Array, predicted: Array) -> tuple[Array, Array]:
    """Return both as uint8 or both as int64, so that the kernel is compiled for two types only."""
    if truth.dtype.kind == "b":
        truth = truth.view(np.uint8)
    if predicted.dtype.kind == "b":
        predicted = predicted.view(np.uint8)
    if truth.dtype == predicted.dtype == np.uint8:
        return truth, predicted
    # uint64 beyond int64 turns negative, which is no class either.
    return truth.astype(np.int64, copy=False), predicted.astype(np.int64, copy=False)


def _refuse(truth: int, predicted: int, n_classes: int) -> None:
    if 0 <= truth < n_classes:
        raise InputError(
            f"the prediction holds class {predicted} at a voxel that counts: with {n_classes} classes give 0 to "
            f"{n_classes - 1}, or mask voxels without a prediction"
        )
    raise InputError(
        f"the truth holds {truth}: with {n_classes} classes give 0 to {n_classes - 1}, or name it in `ignore`"
    )


@njit(cache=True, nogil=True)
def _count(truth: NDArray[Any], predicted: NDArray[Any], known: Mask, counts: Counts) -> int:
    """Count into the table; return the place of the first voxel that holds no class, or -1."""
    n_classes = len(counts)
    for i in range(truth.size):
        if known[i]:
            t, p = np.int64(truth[i]), np.int64(predicted[i])
            if t < 0 or t >= n_classes or p < 0 or p >= n_classes:
                return i
            counts[t, p] += 1
    return -1
