"""The page of a comparison of baselines: which does best, what it finds, and where clean tissue surprises it."""

from __future__ import annotations

import json
from math import isnan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.geometry.patches import NO, UNKNOWN, YES
from emloom.io.open import open_volume
from emloom.io.volume import Volume, read_padded
from emloom.metrics.curves import average_precision, curve, roc_auc
from emloom.metrics.ranking import ranking
from emloom.nn.anomaly import MemoryBankSpec
from emloom.ops.patchsplits import SPLITS
from emloom.tasks.artifactbaselines import TEST, BaselineResult, BaselinesFound, file_name
from emloom.tasks.artifactbaselinesspec import ArtifactBaselinesJob
from emloom.view.classfigures import RankCurve, ranking_plot
from emloom.view.colours import RGB
from emloom.view.figures import Figure, Tile, panel
from emloom.view.report import Cell, Report, Score, Section, Table, Verdict

_DRAWN = 5  # curves of one plot
_SHOWN = 8  # patches of one kind
_HOT = np.array([217, 72, 15], np.float64)
_MOST_HEAT = 0.65

Rows = NDArray[np.int64]


def write_baselines_report(job: ArtifactBaselinesJob, found: BaselinesFound) -> Path:
    """Write `report.html` into the folder of a comparison; return its path."""
    folder = Path(job.output).absolute()
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    raw = open_volume(job.raw, voxel_size_nm=job.voxel_size_nm, kind="raw")
    report = Report(
        title=f"{found.parts.name}: what frozen features do",
        subtitle=f"{job.raw} · {job.model or 'no model'}",
        done="Detectors that need no training of a network were fitted to labelled patches, and compared.",
        verdict=_verdict(found),
        scores=_cards(found),
        sections=[_comparison(job, found), _examples(found, raw), *_surprises(found, raw), _next(job, found)],
        provenance=provenance,
    )
    report.write(folder / "report.html")
    return folder / "report.html"


def _cards(found: BaselinesFound) -> list[Score]:
    best = found.results[found.best]
    interval = best.intervals["average_precision"]
    ends = "" if isnan(interval.low) else f"{interval.low:.3f} to {interval.high:.3f}; "
    yes, no = found.parts.counts(TEST)
    return [
        Score("average precision", interval.value, f"{ends}chance: {yes / (yes + no):.3f}"),
        Score("precision", best.applied.precision, "at the threshold of the validation"),
        Score("recall", best.applied.recall, "likewise"),
        Score("compared", len(found.results), f"best on the validation part: {best.name}, shown here on the test"),
    ]


def _verdict(found: BaselinesFound) -> Verdict:
    best = found.results[found.best]
    interval, (yes, no) = best.intervals["average_precision"], found.parts.counts(TEST)
    chance = yes / (yes + no)
    text = (
        f"{best.name} does best on the validation part; its average precision on the test is {interval.value:.3f}"
    )
    if isnan(interval.low) or interval.low > chance:
        return Verdict(f"{text}, chance is {chance:.3f}.")
    return Verdict(f"{text}, which cannot be told from chance ({chance:.3f}): label more patches.", "warning")


def _comparison(job: ArtifactBaselinesJob, found: BaselinesFound) -> Section:
    text = (
        "Every baseline was fitted on the training part, its threshold chosen on the validation part so that "
        f"{job.recall:g} of what it holds are found, and judged on the test part. Rings are these thresholds. The "
        "best is named by the validation part, not by the test: between intervals that overlap widely, the test "
        "decides nothing."
    )
    text += "".join(f"\n\n{note}" for note in found.notes)
    rows: list[list[Cell]] = [_row(each) for each in found.results]
    head = ["baseline", "AP", "low", "high", "ROC AUC", "precision", "recall", "FPR", f"P at R {job.recall:g}"]
    caption = (
        f"On the test part; AP with {job.bootstrap.level:.0%} intervals from sections. Precision, recall and FPR "
        "at the threshold chosen on the validation part; the last column is the precision with the threshold "
        "that would have been right for the test."
    )
    parts: list[list[Cell]] = [[word, *found.parts.counts(k)] for k, word in enumerate(SPLITS)]
    order = np.argsort([-each.validation for each in found.results], kind="stable")[:_DRAWN]
    yes, no = found.parts.counts(TEST)
    return Section(
        "Which does best",
        text,
        [_curves([found.results[k] for k in order.tolist()], found, yes / (yes + no))],
        [
            Table(head, rows, caption, highlight=found.best),
            Table(["part", found.parts.name, "without"], parts, "labelled patches of each part"),
        ],
    )


def _row(each: BaselineResult) -> list[Cell]:
    interval, applied = each.intervals["average_precision"], each.applied
    return [
        each.name,
        interval.value,
        interval.low,
        interval.high,
        each.intervals["roc_auc"].value,
        applied.precision,
        applied.recall,
        applied.false_positive_rate,
        each.at_recall.precision,
    ]


def _curves(results: list[BaselineResult], found: BaselinesFound, prevalence: float) -> Figure:
    points, rates = [], []
    rows = found.parts.rows(TEST)
    for each in results:
        ranked = ranking(each.scores[rows], found.parts.said[rows], ignore=UNKNOWN)
        drawn, at = curve(ranked), each.applied
        ring = (at.recall, at.precision)
        points.append(RankCurve(each.name, drawn.recall, drawn.precision, average_precision(ranked), ring))
        ring = (at.false_positive_rate, at.recall)
        rates.append(RankCurve(each.name, drawn.false_positive_rate, drawn.recall, roc_auc(ranked), ring))
    caption = f"The {len(results)} best on the validation part, on the test part."
    return ranking_plot(points, rates, prevalence=prevalence, caption=caption)


def _examples(found: BaselinesFound, raw: Volume) -> Section:
    best = found.results[found.best]
    rows = found.parts.rows(TEST)
    said, scores = found.parts.said[rows], best.scores[rows]
    order = np.argsort(-scores, kind="stable")
    kinds = {
        "clean, and most suspicious": rows[order[said[order] == NO]],
        f"{found.parts.name}, and least suspicious": rows[order[::-1][said[order[::-1]] == YES]],
        f"{found.parts.name}, and most suspicious": rows[order[said[order] == YES]],
    }
    text = (
        f"Patches of the test part with their scores by {best.name}; it calls from {best.applied.threshold:.4g} "
        "on. Grey values are the model's, not stretched. Look at the first rows: some of these mistakes are those "
        "of the labels."
    )
    figures = []
    for name, chosen in kinds.items():
        tiles = [
            Tile(f"{best.scores[row]:.3g}", _grey(found, raw, row), raw.info.grid.voxel_size_nm[1:])
            for row in chosen[:_SHOWN].tolist()
        ]
        figures.append(panel(tiles, columns=4, alt=f"{name}: {len(tiles)} patches.", caption=name))
    return Section("What it finds and misses", text, figures)


def _surprises(found: BaselinesFound, raw: Volume) -> list[Section]:
    """Return where the first memory bank finds what it does not know, if there is one."""
    banks = [each for each in found.results if isinstance(each.detector.spec.baseline.scorer, MemoryBankSpec)]
    if not banks:
        return []
    bank, rows = banks[0], found.parts.rows(TEST)
    chosen = rows[np.argsort(-bank.scores[rows], kind="stable")][:_SHOWN]
    maps = bank.detector.anomaly_maps(raw, found.parts.labels.starts[chosen])
    clean = rows[found.parts.said[rows] == NO][: 8 * _SHOWN]
    usual = float(np.median(bank.detector.anomaly_maps(raw, found.parts.labels.starts[clean])))
    tiles = []
    for row, distances in zip(chosen.tolist(), maps, strict=True):
        truth = found.parts.name if found.parts.said[row] == YES else "clean"
        heat = np.clip((distances - usual) / max(float(maps.max()) - usual, 1e-12), 0, 1)
        tiles.append(Tile(truth, _heated(_grey(found, raw, row), heat), raw.info.grid.voxel_size_nm[1:]))
    text = (
        "Cells of the patches that are farthest from the bank of clean tissue. Without colour: no farther than "
        f"the median of clean cells, {usual:.3g}; most colour: {float(maps.max()):.3g}."
    )
    words = f"{len(tiles)} patches, their cells coloured by the distance from the memory bank."
    return [Section("Where the bank is surprised", text, [panel(tiles, columns=4, alt=words, caption=words)])]


def _grey(found: BaselinesFound, raw: Volume, row: int) -> RGB:
    z, y, x = found.parts.labels.starts[row].tolist()
    shape = found.parts.labels.shape
    middle = read_padded(raw, Box((z + shape[0] // 2, y, x), (1, *shape[1:])))[0]
    grey: RGB = np.clip(np.rint((found.preprocessing(middle) + 1) * 127.5), 0, 255).astype(np.uint8)
    return grey


def _heated(grey_YX: RGB, heat: NDArray[np.float64]) -> RGB:
    """Return grey with cells of colour on it, [Y, X, 3]; cells as `torch`'s adaptive pooling cuts them."""
    at = [np.arange(n) * cells // n for n, cells in zip(grey_YX.shape, heat.shape, strict=True)]
    part = (_MOST_HEAT * heat[np.ix_(*at)])[..., None]
    mixed: RGB = np.rint(grey_YX[..., None] * (1 - part) + _HOT * part).astype(np.uint8)
    return mixed


def _next(job: ArtifactBaselinesJob, found: BaselinesFound) -> Section:
    rows: list[list[Cell]] = [
        [each.name, f"detectors/{file_name(each.name)}", each.applied.threshold, each.seconds]
        for each in found.results
    ]
    text = (
        "Every detector is a small file beside this page, read by emloom.nn.patchdetector.load_detector(path, "
        "model), which refuses any model but the one whose features it was fitted on.\n\n"
        "If grey values alone do as well as the features of a model, the artifacts are easy or the model has "
        "nothing to say about them. If the line does far better than the bank, labels are worth their price: a "
        "classifier that is trained end to end (emloom run, objective artifacts) is the next thing to try."
    )
    return Section("Use it", text, tables=[Table(["baseline", "file", "threshold", "seconds to fit"], rows)])
