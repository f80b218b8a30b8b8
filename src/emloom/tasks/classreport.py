"""The page of an evaluation of classes: every score with its interval, and where classes are mistaken."""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import isnan
from pathlib import Path
from typing import Any

from emloom.metrics.bootstrap import Interval
from emloom.metrics.calibration import calibration
from emloom.metrics.curves import average_precision, curve, roc_auc
from emloom.tasks.classpictures import error_section
from emloom.tasks.classscoring import FEW_UNITS, ClassEvaluation
from emloom.tasks.classspec import ClassSpec
from emloom.view.classfigures import (
    RankCurve,
    confusion_plot,
    ranking_plot,
    reliability_plot,
)
from emloom.view.report import Cell, Report, Score, Section, Table, summed_up

_PER_CLASS = {
    "name": "class",
    "n_truth": "true voxels",
    "n_predicted": "predicted",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1 (Dice)",
    "iou": "IoU",
    "average_precision": "AP",
    "roc_auc": "ROC AUC",
}
_OF_BOUNDARIES = {
    "name": "class",
    "boundary_precision": "precision",
    "boundary_recall": "recall",
    "boundary_f1": "boundary F1",
    "surface_dice": "surface Dice",
}
_OF_POINTS = {
    "name": "class",
    "rule": "threshold",
    "threshold": "value",
    "recall": "recall",
    "precision": "precision",
    "f1": "F1",
    "false_positive_rate": "FPR",
    "n_false_positive": "false positives",
    "precision_at_prevalence": "adjusted",
}


def write_class_report(spec: ClassSpec, found: ClassEvaluation) -> Path:
    """Write `report.html` into the folder of an evaluation; return its path."""
    folder = Path(spec.output).absolute()
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    sections = [_scores(spec, found), error_section(spec, found), _confusions(spec, found)]
    if found.evidence.boundary is not None:
        sections.append(_boundaries(spec, found))
    if found.evidence.rankings:
        sections += [_ranked(spec, found), _calibrated(found)]
    report = Report(
        title=f"{Path(spec.predicted).name} against {Path(spec.truth).name}",
        subtitle=f"{spec.predicted} · {spec.truth}",
        done="Predicted classes were compared, voxel by voxel, with what is true.",
        verdict=summed_up(_cards(found)),
        scores=_cards(found),
        sections=sections,
        provenance=provenance,
    )
    report.write(folder / "report.html")
    return folder / "report.html"


def _cards(found: ClassEvaluation) -> list[Score]:
    cards = []
    for metric in found.metrics[:4]:
        value = metric.values[0]
        interval = found.intervals.get(value.key)
        note = f"{value.better} is better"
        if interval is not None and not isnan(interval.low):
            note = f"{interval.low:.3f} to {interval.high:.3f}; {note}"
        cards.append(Score(value.title, found.row[value.key], note))
    return cards


def _ends(interval: Interval | None) -> tuple[Cell, Cell]:
    return (None, None) if interval is None else (interval.low, interval.high)


def _scores(spec: ClassSpec, found: ClassEvaluation) -> Section:
    rows: list[list[Cell]] = [
        [value.title, found.row[value.key], *_ends(found.intervals.get(value.key)), value.better, metric.name]
        for metric in found.metrics
        for value in metric.values
    ]
    text = "\n\n".join(f"{metric.name}: {metric.text}" for metric in found.metrics)
    text += "".join(f"\n\n{name} is not defined here: {why}." for name, why in found.undefined.items())
    if spec.near is not None:
        where = " within sections" if spec.near.in_plane else ""
        text += f"\n\nNear means up to {spec.near.distance_nm:g} nm{where}, between centres of voxels."
    counted: list[list[Cell]] = [[found.row["n_voxels"], found.row["part_counted"], found.units]]
    return Section(
        "Every score",
        f"{text}\n\n{_about_intervals(spec, found)}",
        tables=[
            Table(["score", "value", "low", "high", "better", "metric"], rows, "every score that was asked for"),
            Table(
                ["voxels that count", "part of the prediction", f"{spec.bootstrap.by}s that count"],
                counted,
                "what was counted: ignored and masked voxels are not",
            ),
        ],
    )


def _about_intervals(spec: ClassSpec, found: ClassEvaluation) -> str:
    how = spec.bootstrap
    if not found.intervals:
        return "No intervals were asked for."
    text = (
        f"Low and high: {how.level:.0%} percentile intervals, from {how.resamples} resamples of {found.units} "
        f"{how.by}s, seed {how.seed}."
    )
    if found.units < FEW_UNITS:
        text += f" With fewer than about {FEW_UNITS} {how.by}s an interval is too narrow."
    reasons = {
        f"{key}: {interval.reason}" if interval.n_undefined else interval.reason
        for key, interval in found.intervals.items()
        if interval.reason
    }
    return " ".join([text, *(f"{reason[0].upper()}{reason[1:]}." for reason in sorted(reasons))])


def class_table(classes: Iterable[dict[str, Any]]) -> Table:
    """Return the counts and scores of every class; see `ClassEvaluation.classes`."""
    return _table(classes, _PER_CLASS, "every class")


def _table(rows: Iterable[dict[str, Any]], titles: dict[str, str], caption: str) -> Table:
    """Return the columns that rows have, under their titles."""
    listed = list(rows)
    keys = [key for key in titles if key in listed[0]]
    return Table([titles[key] for key in keys], [[row[key] for key in keys] for row in listed], caption)


def _confusions(spec: ClassSpec, found: ClassEvaluation) -> Section:
    text = "\n\n".join(
        row["reason"][0].upper() + row["reason"][1:] + "." for row in found.classes if row["reason"]
    )
    if spec.classes.averaged is not None:
        names = ", ".join(found.names[label] for label in spec.classes.averaged)
        text = f"Macro and micro means are over {names}.\n\n{text}"
    caption = "Percent of the voxels of each true class (rows) that were given each class (columns)."
    counts = found.evidence.confusion.counts
    matrix: list[list[Cell]] = [[name, *row] for name, row in zip(found.names, counts.tolist(), strict=True)]
    return Section(
        "Classes",
        text,
        [confusion_plot(counts, found.names, caption=caption)],
        [
            class_table(found.classes),
            Table(["truth", *(f"called {name}" for name in found.names)], matrix, "the same in voxels"),
        ],
    )


def _boundaries(spec: ClassSpec, found: ClassEvaluation) -> Section:
    assert spec.near is not None
    text = f"Boundaries are matched where they are within {spec.near.distance_nm:g} nm of each other."
    return Section("Boundaries", text, tables=[_table(found.classes, _OF_BOUNDARIES, "every class")])


def _ranked(spec: ClassSpec, found: ClassEvaluation) -> Section:
    rankings = {label: each for label, each in found.evidence.rankings.items() if each.n_positive}
    applied = {row["class"]: row for row in found.points if row["rule"] == "applied"}
    points: list[RankCurve] = []
    rates: list[RankCurve] = []
    for label, ranking in rankings.items():
        name, drawn, at = found.names[label], curve(ranking), applied.get(label)
        mark = None if at is None else (at["recall"], at["precision"])
        points.append(RankCurve(name, drawn.recall, drawn.precision, average_precision(ranking), mark))
        if ranking.n_negative:
            mark = None if at is None else (at["false_positive_rate"], at["recall"])
            rates.append(RankCurve(name, drawn.false_positive_rate, drawn.recall, roc_auc(ranking), mark))
    prevalence = None
    if len(found.evidence.rankings) == 1:
        lone = next(iter(found.evidence.rankings.values()))
        prevalence = lone.n_positive / (lone.n_positive + lone.n_negative)
        text = f"A voxel was called {found.names[1]} from a probability of {spec.reading.threshold:g}: the ring."
    else:
        text = "Every voxel was given the class of its highest probability. Curves are of each class and the rest."
    text += " A threshold that was chosen on this truth must be tested on another."
    words = "Precision holds for the prevalence of this truth. All points are in curves.csv."
    figures = [ranking_plot(points, rates, prevalence=prevalence, caption=words)] if points else []
    caption = "thresholds, and what calling every score of at least that positive gives (FPR: false-positive rate)"
    if spec.reading.prevalence is not None:
        caption += f"; adjusted: precision where the class is {spec.reading.prevalence:g} of all voxels"
    return Section("Thresholds", text, figures, [_table(found.points, _OF_POINTS, caption)])


def _calibrated(found: ClassEvaluation) -> Section:
    assert found.evidence.top is not None
    result = calibration(found.evidence.top)
    if len(found.evidence.rankings) == 1:
        words = (f"probability of {found.names[1]}", f"part that is {found.names[1]}")
    else:
        words = ("highest probability", "part that is right")
    rows: list[list[Cell]] = [
        [row.low, row.high, row.n, row.confidence, row.accuracy, row.accuracy - row.confidence]
        for row in result.bins
    ]
    text = (
        f"Expected calibration error {result.ece:.4f}, largest {result.mce:.4f}, in {result.n_bins} bins of equal "
        "width. A point below the dotted line is overconfident. Most voxels are easy: look at how many bins hold."
    )
    table = Table(["from", "to", "voxels", "mean probability", "frequency", "gap"], rows, "bins that hold voxels")
    return Section("Calibration", text, [reliability_plot(result.bins, *words)], [table])
