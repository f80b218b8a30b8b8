"""The page of a semantic job: what the classes look like, and how many voxels have the right one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.tasks.classreport import class_table
from emloom.tasks.classscoring import ClassEvaluation
from emloom.view.colours import distinct_ids, grey, overlay
from emloom.view.figures import Figure, Tile, panel
from emloom.view.report import Cell, Command, Link, Report, Score, Section, Table, Verdict, page_below

_HALF = 0.5


@dataclass(frozen=True)
class TestedBox:
    """The middle section of a test box.

    Attributes:
        name: of its results.
        section: number of the section, from the box's first.
        raw: grey values [Y, X].
        truth: true classes, larger than any class where unknown.
        called: the likeliest classes.
        spacing_nm: voxel size (y, x).
    """

    __test__ = False  # no test, for pytest

    name: str
    section: int
    raw: NDArray[Any]
    truth: NDArray[np.uint8]
    called: NDArray[np.uint8]
    spacing_nm: tuple[float, float]


def write_semantic_report(
    name: str,
    found: ClassEvaluation,
    boxes: Sequence[TestedBox],
    folder: Path,
    origin: tuple[Mapping[str, Any], Sequence[Section]],
) -> None:
    """Write `report.html` into the folder of a finished run.

    Args:
        name: of the job.
        found: of all test boxes together.
        boxes: of each a section.
        folder: of the run.
        origin: the provenance, and sections that say how the model came about.
    """
    provenance, learned = origin
    report = Report(
        title=name,
        done=f"A model of {len(found.names)} classes was trained, and judged on test boxes that it had not seen.",
        verdict=_verdict(found),
        scores=[Score(f"IoU of {row['name']}", row["iou"], "1 is perfect") for row in found.classes[:4]],
        sections=[
            _pictures(found.names, boxes),
            _scores(found),
            *learned,
            _next_steps(folder, boxes),
        ],
        provenance=provenance,
    )
    report.write(folder / "report.html")


def _verdict(found: ClassEvaluation) -> Verdict:
    known = [(float(row["iou"]), str(row["name"])) for row in found.classes if row["iou"] is not None]
    known = [pair for pair in known if isfinite(pair[0])]
    if not known:
        return Verdict("The test boxes hold none of the classes: nothing can be said about the model.", "warning")
    (low, worst), (high, best) = min(known), max(known)
    text = f"IoU goes from {low:.3f} ({worst}) to {high:.3f} ({best})"
    if low < _HALF:
        return Verdict(
            f"{text}: where it is below a half, more is wrong than right; look before you use it.", "warning"
        )
    return Verdict(f"{text}.")


def _pictures(names: Sequence[str], boxes: Sequence[TestedBox]) -> Section:
    text = (
        f"Middle sections of every test box. {names[0]} has no colour, nor has what is unknown; every other "
        "class has the same one in truth and prediction."
    )
    return Section("What it looks like", text, [_picture(box, len(names)) for box in boxes])


def _picture(box: TestedBox, count: int) -> Figure:
    tiles = [Tile("raw", grey(box.raw), box.spacing_nm)]
    ids = np.concatenate([np.zeros(1, np.uint16), distinct_ids(count - 1)])
    for title, classes in (("truth", box.truth), ("emloom", box.called)):
        known = ids[np.where(classes < count, classes, np.uint8(0))]
        tiles.append(Tile(title, overlay(box.raw, known), box.spacing_nm))
    words = f"{box.name}, z = {box.section}"
    return panel(tiles, alt=f"{words}: raw, true classes, likeliest classes.", caption=words)


def _scores(found: ClassEvaluation) -> Section:
    rows: list[list[Cell]] = []
    for metric in found.metrics:
        for value in metric.values:
            interval = found.intervals.get(value.key)
            ends: tuple[Cell, Cell] = (None, None) if interval is None else (interval.low, interval.high)
            rows.append([value.title, found.row[value.key], *ends, value.better])
    text = (
        "All test boxes together, with intervals from blocks of tissue drawn with replacement. Every box has a "
        "page of its own."
    )
    tables = [
        class_table(found.classes),
        Table(["score", "value", "low", "high", "better"], rows, "every score that was asked for"),
    ]
    return Section("Scores", text, tables=tables)


def _next_steps(folder: Path, boxes: Sequence[TestedBox]) -> Section:
    links = [Link(f"Where classes are mistaken in {box.name}", page_below("evaluate", box.name)) for box in boxes]
    line = f"emloom predict raw.zarr --model {folder}/train/model.safetensors -o pred.zarr"
    return Section("Go on", links=links, commands=[Command("Predict", line)])
