"""The page of an evaluation of patches: how often it cries wolf, what it finds, and where it is wrong."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np

from emloom.geometry import Box
from emloom.geometry.box import as_vec
from emloom.geometry.patches import NO, YES
from emloom.io.open import open_volume
from emloom.metrics.curves import average_precision, curve, roc_auc
from emloom.tasks.patchevaluation import PatchEvaluation
from emloom.tasks.patchscoring import raw_start
from emloom.tasks.patchspec import PatchSpec
from emloom.view.classfigures import RankCurve, ranking_plot, reliability_plot
from emloom.view.colours import grey
from emloom.view.figures import Figure, Tile, panel
from emloom.view.report import Cell, Report, Score, Section, Table, Verdict

WORST = 15
_PICTURED = 12
_FEW_SECTIONS = 20

_OF_POINTS = {
    "rule": "threshold",
    "threshold": "value",
    "recall": "recall",
    "precision": "precision",
    "precision_at_prevalence": "adjusted",
    "false_positive_rate": "FPR",
    "n_false_positive": "FP",
    "false_positives_per_section": "FP a section",
    "false_positives_per_mm2": "FP a mm²",
}
_OF_GROUPS = {
    "group": "patches",
    "n": "known",
    "n_positive": "positive",
    "called": "part called positive",
    "average_precision": "AP",
    "recall": "recall",
    "precision": "precision",
    "false_positive_rate": "FPR",
}
_OF_AGREEMENT = {
    "first": "first",
    "second": "second",
    "n": "patches",
    "n_disagreements": "disagree",
    "agreement": "agree",
    "kappa": "kappa",
    "low": "low",
    "high": "high",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
}


def write_patch_report(spec: PatchSpec, found: PatchEvaluation) -> Path:
    """Write `report.html` into the folder of an evaluation; return its path."""
    folder = Path(spec.output).absolute()
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    report = Report(
        title=f"{found.name}: {Path(spec.found).name} against {Path(spec.truth).name}",
        subtitle=f"{spec.found} · {spec.truth}",
        done=f"Scored patches were compared with labelled ones: which of them are {found.name}.",
        verdict=_verdict(found),
        scores=_cards(found),
        sections=[
            _thresholds(spec, found),
            _worst(spec, found),
            _units(found),
            _groups(found),
            *([_calibration(spec, found)] if found.calibrated else []),
            _ceiling(found),
        ],
        provenance=provenance,
    )
    report.write(folder / "report.html")
    return folder / "report.html"


def _cards(found: PatchEvaluation) -> list[Score]:
    point, chance = found.applied, f"chance: {found.ranked.prevalence:.3f}"
    return [
        Score("average precision", found.ranked.average_precision, f"{_ends(found, 'average_precision')}{chance}"),
        Score("precision", point["precision"], f"{_ends(found, 'precision')}at the threshold applied"),
        Score("recall", point["recall"], f"{_ends(found, 'recall')}at the threshold applied"),
        Score("false positives per section", point["false_positives_per_section"], "patches; 0 is best"),
    ]


def _verdict(found: PatchEvaluation) -> Verdict:
    value, chance = found.ranked.average_precision, found.ranked.prevalence
    text = f"Average precision is {value:.3f}, where chance gives {chance:.3f}"
    interval = found.intervals.get("average_precision")
    if interval is None or isnan(interval.low):
        return Verdict(f"{text}; there are too few sections to say how sure that is.")
    if interval.low > chance:
        return Verdict(f"{text}; even the low end of its interval, {interval.low:.3f}, is better than chance.")
    return Verdict(f"{text}: the two cannot be told apart on these patches.", "warning")


def _ends(found: PatchEvaluation, name: str) -> str:
    interval = found.intervals.get(name)
    return "" if interval is None or isnan(interval.low) else f"{interval.low:.3f} to {interval.high:.3f}; "


def _thresholds(spec: PatchSpec, found: PatchEvaluation) -> Section:
    counted, point = found.patches.ranking(), found.applied
    drawn = curve(counted)
    text = (
        f"{found.ranked.n_positive} of {found.ranked.n_positive + found.ranked.n_negative} patches that count are "
        f"{found.name}. A patch is called so from a score of {point['threshold']:.4g} on ({point['rule']}): the "
        "ring."
    )
    text += "".join(f"\n\n{note}" for note in found.notes)
    rows: list[list[Cell]] = [
        [name.replace("_", " "), each.value, each.low, each.high] for name, each in found.intervals.items()
    ]
    n_sections = np.unique(found.patches.sections[found.patches.known]).size
    how = (
        f"{spec.bootstrap.level:.0%} intervals from {n_sections} sections, drawn {spec.bootstrap.resamples} times"
    )
    if n_sections < _FEW_SECTIONS:
        how += "; too narrow with so few"
    caption = "FPR: part of the negatives that is called positive; FP: patches called so wrongly"
    if spec.prevalence is not None:
        caption += f"; adjusted: precision where {spec.prevalence:g} of all patches are positive"
    return Section(
        "What it finds, and what it costs",
        text,
        [
            ranking_plot(
                [
                    RankCurve(
                        found.name,
                        drawn.recall,
                        drawn.precision,
                        average_precision(counted),
                        (point["recall"], point["precision"]),
                    )
                ],
                [
                    RankCurve(
                        found.name,
                        drawn.false_positive_rate,
                        drawn.recall,
                        roc_auc(counted),
                        (point["false_positive_rate"], point["recall"]),
                    )
                ],
                prevalence=found.ranked.prevalence,
                caption="Precision holds for the prevalence of this truth. All points are in curves.csv.",
            )
        ],
        [
            _table(found.points, _OF_POINTS, caption),
            *([Table(["score", "value", "low", "high"], rows, how)] if rows else []),
        ],
    )


def _worst(spec: PatchSpec, found: PatchEvaluation) -> Section:
    patches = found.patches
    wrong = _hardest(found, NO)
    missed = _hardest(found, YES)
    figures = []
    if spec.raw is not None:
        for name, rows in (("false positives, worst first", wrong), ("positives, least found first", missed)):
            figures += [_pictures(spec.raw, found, rows[:_PICTURED], name)] if rows.size else []
    middle = np.array(patches.shape) // 2

    def listed(rows: np.ndarray[Any, Any]) -> list[list[Cell]]:
        return [[*(patches.starts[row] + middle).tolist(), float(patches.scores[row])] for row in rows[:WORST]]

    head = ["z", "y", "x", "score"]
    return Section(
        "Where it is wrong",
        "Centre voxels of the worst mistakes: look at them first, some are mistakes of the truth. All patches "
        "are in patches.csv, false positives first.",
        figures,
        [
            Table(head, listed(wrong), f"false positives, {min(WORST, wrong.size)} worst of {wrong.size}"),
            Table(head, listed(missed), f"missed, {min(WORST, missed.size)} worst of {missed.size}"),
        ],
    )


def _hardest(found: PatchEvaluation, word: int) -> np.ndarray[Any, Any]:
    """Return the rows of false positives by falling score, or of misses by rising score."""
    patches = found.patches
    called = patches.scores >= found.applied["threshold"]
    wrong = np.flatnonzero((patches.truth == word) & (called == (word == NO)))
    ahead = patches.scores[wrong] * (-1 if word == NO else 1)
    return wrong[np.lexsort([*patches.starts[wrong].T[::-1], ahead])]


def _pictures(path: str, found: PatchEvaluation, rows: np.ndarray[Any, Any], name: str) -> Figure:
    patches, volume = found.patches, open_volume(path, kind="raw")
    spacing, origin = volume.info.grid.voxel_size_nm[1:], raw_start(path, patches)
    tiles = []
    for row in rows.tolist():
        inside = Box(as_vec(patches.starts[row]), patches.shape).shift(origin).intersect(volume.info.box)
        if not inside.is_empty:
            image = volume.read(inside)[inside.shape[0] // 2]
            where = ", ".join(map(str, (patches.starts[row] + np.array(patches.shape) // 2).tolist()))
            tiles.append(Tile(f"{patches.scores[row]:.3f} at {where}", grey(image), spacing))
    return panel(tiles, columns=4, alt=f"{name}: {len(tiles)} patches with their scores.", caption=name)


def _units(found: PatchEvaluation) -> Section:
    rows: list[list[Cell]] = []
    if found.objects is not None:
        o = found.objects
        rows.append(["objects", o.n_truth, o.n_hit, o.n_found, o.n_right, o.precision, o.recall, o.f1])
    s = found.sections
    hit = round(s["recall"] * s["n_truth"]) if s["n_truth"] else 0
    rows.append(
        ["sections", s["n_truth"], hit, hit + s["n_false_positive"], hit, s["precision"], s["recall"], s["f1"]]
    )
    text = (
        "Patches that touch in one section are one object, in truth and prediction alike; an object is found "
        "where it shares a patch with one of the other side. A section is positive where a patch of it is. One "
        "object that covers a section finds all in it: read this beside the patches."
    )
    head = ["counted in", "true", "of them found", "found", "of them true", "precision", "recall", "F1"]
    return Section("Objects and sections", text, tables=[Table(head, rows, "at the threshold applied")])


def _groups(found: PatchEvaluation) -> Section:
    text = (
        "Where mistakes come from: a kind of tissue that is called positive much more often than others, at no "
        "better recall, is what the detector takes for artifacts."
    )
    if len(found.groups) == 1:
        text = 'The truth says nothing about tissue: a column "tissue", or further classes, would stand here.'
    return Section("By tissue", text, tables=[_table(found.groups, _OF_GROUPS, "at the threshold applied")])


def _calibration(spec: PatchSpec, found: PatchEvaluation) -> Section:
    rows: list[list[Cell]] = []
    for each in found.calibrated:
        line: list[Cell] = [None, None] if each.line is None else [each.line.slope, each.line.intercept]
        result = each.result
        errors: list[Cell] = [None] * 3 if result is None else [result.ece, result.mce, result.brier]
        rows.append([each.name, *line, *errors])
    text = (
        "A point below the dotted line is overconfident. ECE and MCE are over 15 bins of equal width; 0 is best. "
        "A line for another prevalence is to be applied elsewhere, and cannot be judged here."
    )
    if spec.validation is None:
        text += " No validation data were given, so nothing was fitted."
    head = ["probabilities", "slope", "intercept", "ECE", "MCE", "Brier"]
    judged = [(each.name, each.result) for each in found.calibrated if each.result is not None]
    figures = [
        reliability_plot(
            result.bins, f"probability of {found.name}, {name}", f"part that is {found.name}", unit="patches"
        )
        for name, result in dict([judged[0], judged[-1]]).items()
    ]
    return Section("Calibration", text, figures, [Table(head, rows, "a line through the logits")])


def _ceiling(found: PatchEvaluation) -> Section:
    if not found.agreement:
        return Section(
            "How far people agree",
            "One annotator judged. Let a second one judge the same patches: above their agreement a detector "
            "cannot be told from a person.",
        )
    best = max(found.agreement, key=lambda each: each.f1 if not isnan(each.f1) else -1)
    text = (
        f"The second annotator as a detector of what the first one says reaches an F1 of {best.f1:.3f} at most: a "
        f"detector, at {found.applied['f1']:.3f} here, cannot honestly be tested above that."
    )
    rows = [each.to_dict() for each in found.agreement]
    return Section("How far people agree", text, tables=[_table(rows, _OF_AGREEMENT, "pairs of annotators")])


def _table(rows: list[dict[str, Any]], titles: dict[str, str], caption: str) -> Table:
    keys = [key for key in titles if key in rows[0]]
    return Table([titles[key] for key in keys], [[row[key] for key in keys] for row in rows], caption)
