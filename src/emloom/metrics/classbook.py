"""The metrics of classes that can be asked for by name: what each says, and from which tables.

The counterpart of `emloom.metrics.book` for semantic results. A metric has a name (`f1`), one or more values
(`f1_macro` ..), each with the direction that is better, and needs tables of some kinds::

    confusion   always counted
    band        the confusion near true interfaces, and away from them
    boundary    boundary voxels per class, and the matched ones
    scores      positives and negatives per level of each class's probability; of the highest one, right and wrong
    enclosure   faces of classes that others must enclose, by rule

Names that are not in the book are errors: nothing that was asked for is left out without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan
from typing import Literal

from emloom.errors import InputError
from emloom.metrics.book import METRICS, Value, Values, named
from emloom.metrics.calibration import brier_of_classes, calibration
from emloom.metrics.classify import Confusion, ConfusionScores, confusion_scores
from emloom.metrics.counts import NOTHING_COUNTS, mean
from emloom.metrics.curves import mean_average_precision, roc_auc
from emloom.metrics.enclosure import EnclosureTable
from emloom.metrics.interfaces import BandConfusions, BoundaryTable, boundary_scores, mean_boundary_f1
from emloom.metrics.ranking import NO_NEGATIVE, NO_POSITIVE, Ranking
from emloom.ops.enclosure import Enclosure

Needs = Literal["confusion", "band", "boundary", "scores", "enclosure"]

ENCLOSURE = "enclosure"
"""The metric whose values depend on rules; `class_metrics_named` makes it of those."""


@dataclass(frozen=True)
class ClassEvidence:
    """The tables of the voxels that count; those that no metric asked for are not there.

    Attributes:
        confusion: of all voxels that count.
        band: the same near true interfaces and away from them.
        boundary: of every class.
        rankings: one per class that has a probability, against the rest.
        top: voxels by their highest probability, positive where its class is right; the ranking of a lone class.
        classes: those that macro and micro means are over; None: all.
        enclosure: faces of enclosed classes, one row per rule.
    """

    confusion: Confusion
    band: BandConfusions | None = None
    boundary: BoundaryTable | None = None
    rankings: Mapping[int, Ranking] = field(default_factory=dict)
    top: Ranking | None = None
    classes: tuple[int, ...] | None = None
    enclosure: EnclosureTable | None = None

    def scores(self, table: Confusion | None = None) -> ConfusionScores:
        """Return the scores of a confusion matrix, that of all voxels by default."""
        return confusion_scores(self.confusion if table is None else table, self.classes)

    def averaged(self) -> dict[int, Ranking]:
        """Return the rankings that means are over: of the classes asked for, and of one class alone that one."""
        if self.classes is None or len(self.rankings) == 1:
            return dict(self.rankings)
        return {label: ranking for label, ranking in self.rankings.items() if label in self.classes}


@dataclass(frozen=True)
class ClassMetric:
    """A metric of classes that can be asked for.

    Attributes:
        name: as it is asked for.
        needs: the kind of table it is read from.
        values: what it says.
        text: definition, in a sentence or two.
        of: from the tables to the values by key.
    """

    name: str
    needs: Needs
    values: tuple[Value, ...]
    text: str
    of: Callable[[ClassEvidence], Values]

    def reason(self, seen: ClassEvidence) -> str:
        """Return why a value is NaN; empty where all are defined."""
        if not any(isnan(value) for value in self.of(seen).values()):
            return ""
        if not seen.confusion.n_voxels:
            return NOTHING_COUNTS
        return _WHY[self.needs](seen)


def _overall(seen: ClassEvidence) -> Values:
    scores = seen.scores()
    return {"accuracy": scores.accuracy, "balanced_accuracy": scores.balanced_accuracy}


def _averages(*names: str, titles: str = "") -> Callable[[ClassEvidence], Values]:
    """Return macro and micro means of a rate, named after it (or as stated)."""

    def of(seen: ClassEvidence) -> Values:
        scores = seen.scores()
        return {
            f"{titles or name}_{how}": getattr(getattr(scores, how), name)
            for name in names
            for how in ("macro", "micro")
        }

    return of


def _band(seen: ClassEvidence) -> Values:
    assert seen.band is not None
    values: Values = {}
    for where, table in (("near", seen.band.near), ("far", seen.band.far)):
        scores = seen.scores(table)
        values |= {
            f"accuracy_{where}": scores.accuracy,
            f"f1_macro_{where}": scores.macro.f1,
            f"iou_macro_{where}": scores.macro.iou,
        }
    return values


def _boundary(seen: ClassEvidence) -> Values:
    assert seen.boundary is not None
    occurring = [score for score in boundary_scores(seen.boundary) if score.n_truth + score.n_predicted]
    return {
        "boundary_f1": mean_boundary_f1(seen.boundary),
        "surface_dice": mean(score.surface_dice for score in occurring),
    }


def _auc(seen: ClassEvidence) -> Values:
    known = [ranking for ranking in seen.averaged().values() if ranking.n_positive and ranking.n_negative]
    return {"roc_auc": mean(roc_auc(ranking) for ranking in known)}


def _calibration(seen: ClassEvidence) -> Values:
    assert seen.top is not None
    wide, massed = calibration(seen.top), calibration(seen.top, binning="equal_mass")
    return {
        "ece": wide.ece,
        "ece_equal_mass": massed.ece,
        "mce": wide.mce,
        "brier": brier_of_classes(list(seen.rankings.values())),
    }


def _why_band(seen: ClassEvidence) -> str:
    assert seen.band is not None
    near, far = seen.band.near.n_voxels, seen.band.far.n_voxels
    if near and far:
        return "none of the classes asked for occurs"
    return f"no voxel that counts is {'away from' if near else 'near'} a true interface"


def _why_scores(seen: ClassEvidence) -> str:
    averaged = seen.averaged().values()
    if not any(ranking.n_positive for ranking in averaged):
        return NO_POSITIVE
    return NO_NEGATIVE


_WHY: Mapping[Needs, Callable[[ClassEvidence], str]] = {
    "confusion": lambda seen: "; ".join(seen.scores().reasons),
    "band": _why_band,
    "boundary": lambda seen: "no class has a boundary, in truth or prediction",
    "scores": _why_scores,
    "enclosure": lambda seen: "an enclosed class has no surface in the prediction, or in the known truth",
}


def _both(key: str, title: str) -> tuple[Value, Value]:
    return (Value(f"{key}_macro", f"{title}, macro", "higher"), Value(f"{key}_micro", f"{title}, micro", "higher"))


CLASS_METRICS: Mapping[str, ClassMetric] = {
    metric.name: metric
    for metric in (
        ClassMetric(
            "confusion",
            "confusion",
            (Value("accuracy", "accuracy", "higher"), Value("balanced_accuracy", "balanced accuracy", "higher")),
            "Part of the voxels whose class is right (large classes decide it), and the mean recall of the "
            "classes that occur in the truth (chance: 1 / classes). 1 is perfect.",
            _overall,
        ),
        ClassMetric(
            "f1",
            "confusion",
            _both("f1", "F1"),
            "2 TP / (2 TP + FP + FN). Macro: the mean over classes that occur, every class weighs the same; "
            "micro: of the summed counts, every voxel does. 1 is perfect.",
            _averages("f1"),
        ),
        ClassMetric(
            "rates",
            "confusion",
            (*_both("precision", "precision"), *_both("recall", "recall")),
            "Precision TP / (TP + FP) and recall TP / (TP + FN), as means over classes and of the summed counts.",
            _averages("precision", "recall"),
        ),
        ClassMetric(
            "iou",
            "confusion",
            _both("iou", "IoU"),
            "Intersection over union (Jaccard), TP / (TP + FP + FN). 1 is perfect.",
            _averages("iou"),
        ),
        ClassMetric(
            "dice",
            "confusion",
            _both("dice", "Dice"),
            "The Dice coefficient, which is F1 by another name: the same numbers.",
            _averages("f1", titles="dice"),
        ),
        ClassMetric(
            "kappa",
            "confusion",
            (Value("kappa", "Cohen's kappa", "higher"),),
            "Agreement beyond chance, unweighted, over all classes: 1 is perfect, 0 what chance gives.",
            lambda seen: {"kappa": seen.scores().kappa},
        ),
        ClassMetric(
            "boundary",
            "boundary",
            (Value("boundary_f1", "boundary F1", "higher"), Value("surface_dice", "surface Dice", "higher")),
            "How much of the true and of the predicted boundary has the other within the stated distance: "
            "harmonic mean of both parts (BF), and the matched part of both together; means over all classes with "
            "a boundary. 1 is perfect; the distance makes the score.",
            _boundary,
        ),
        ClassMetric(
            "band",
            "band",
            tuple(
                Value(f"{key}_{where}", f"{title}, {words}", "higher")
                for where, words in (("near", "near interfaces"), ("far", "away from interfaces"))
                for key, title in (("accuracy", "accuracy"), ("f1_macro", "macro F1"), ("iou_macro", "macro IoU"))
            ),
            "Scores of the voxels with another true class within the stated distance, and of all others.",
            _band,
        ),
        ClassMetric(
            "ap",
            "scores",
            (Value("average_precision", "average precision", "higher"),),
            "Step-wise area under precision and recall, at the prevalence of this truth, which is what chance "
            "gives; of several classes the mean over those that occur. 1 is perfect.",
            lambda seen: {"average_precision": mean_average_precision(list(seen.averaged().values()))},
        ),
        ClassMetric(
            "roc",
            "scores",
            (Value("roc_auc", "ROC AUC", "higher"),),
            "Chance that a voxel of the class scores above another one, ties half; of several classes the mean, "
            "each against the rest. 1 is perfect, 0.5 is chance; it hides rare classes.",
            _auc,
        ),
        ClassMetric(
            "calibration",
            "scores",
            (
                Value("ece", "ECE, 15 bins of equal width", "lower"),
                Value("ece_equal_mass", "ECE, 15 bins of equal mass", "lower"),
                Value("mce", "MCE, 15 bins of equal width", "lower"),
                Value("brier", "Brier score", "lower"),
            ),
            "Mean and largest difference of probability and frequency (of one class; of several classes, of the "
            "highest probability and how often it is right), and the mean squared error of the probability, "
            "summed over classes where there are several. 0 is perfect.",
            _calibration,
        ),
    )
}
"""Every metric of classes by name."""


CLASS_METRIC_NAMES = (*CLASS_METRICS, ENCLOSURE)
"""Everything that can be asked for."""


def enclosure_metric(rules: Sequence[Enclosure]) -> ClassMetric:
    """Return the metric of some rules: one value per rule of the prediction, and one of the truth."""

    def of(seen: ClassEvidence) -> Values:
        assert seen.enclosure is not None
        return {
            key: seen.enclosure.rate(number, side, rule.spacing_nm)
            for number, rule in enumerate(rules)
            for side, key in enumerate(_enclosure_keys(rule))
        }

    values = [
        Value(key, f"surface of {rule.name} that touches what it must not{words}", "lower")
        for rule in rules
        for key, words in zip(_enclosure_keys(rule), ("", ", truth"), strict=True)
    ]
    return ClassMetric(
        ENCLOSURE,
        "enclosure",
        tuple(values),
        "Part of the surface (area of voxel faces) of a class that touches neither the class that encloses it nor "
        "an allowed one. Of the prediction where the mask allows, whether the truth is known or not; and of the "
        "known truth itself, to compare with. 0 is perfect.",
        of,
    )


def _enclosure_keys(rule: Enclosure) -> tuple[str, str]:
    key = f"enclosure_violation_{rule.name}"
    return key, f"{key}_truth"


def class_metrics_named(names: Sequence[str], rules: Sequence[Enclosure] = ()) -> list[ClassMetric]:
    """Return metrics by name, each once, in the order asked for.

    Args:
        names: what is asked for.
        rules: what `enclosure` is about.

    Raises:
        InputError: there is none, a name is unknown, or enclosure and its rules are not both given.
    """
    for name in names:
        if name in METRICS:
            raise InputError(
                f"{name} is a metric of segments, not of classes: use some of {', '.join(CLASS_METRIC_NAMES)}"
            )
    if (ENCLOSURE in names) != bool(rules):
        raise InputError(
            f"the metric {ENCLOSURE} and its rules (classes.enclosed: what encloses what) go together: give both, "
            "or neither"
        )
    return named({**CLASS_METRICS, ENCLOSURE: enclosure_metric(rules)}, names)
