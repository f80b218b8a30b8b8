"""The page of a job that learns synapses: what was found in the test boxes, and what every channel is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emloom.geometry import Box
from emloom.io.volume import Volume
from emloom.tasks.data import HeldOut, held_out
from emloom.tasks.reconstructionreport import training_section
from emloom.tasks.scorefiles import read_rows
from emloom.tasks.synapsescores import ALL, ScoredRun
from emloom.tasks.synapsevoxels import questions, true_voxels
from emloom.view.colours import distinct_ids, grey, overlay
from emloom.view.figures import Figure, Tile, panel
from emloom.view.report import Cell, Command, Report, Score, Section, Table, summed_up

_SHOWN_VOX = 384


class _Shown(Protocol):
    """What pictures need of an opened stack."""

    @property
    def raw(self) -> Volume:
        """Grey values."""


class ShownRun(ScoredRun, Protocol):
    """What the page needs of an execution."""

    @property
    def stacks(self) -> Sequence[_Shown]:
        """The opened stacks."""


def write_synapse_job_report(this: ShownRun, provenance: Mapping[str, Any]) -> None:
    """Write `report.html` into the folder of a finished run."""
    rows = read_rows(this.folder / "evaluate")
    scores = [row for row in rows if row["box"] == ALL]
    cards = [Score(f"average precision, {row['channel']}", row["average_precision"], "voxels") for row in scores]
    report = Report(
        title=this.job.name,
        done="A network was trained to find synapses, and judged, voxel by voxel, on boxes that it had not seen.",
        verdict=summed_up(cards, "1 is perfect"),
        scores=cards,
        sections=[_pictures(this), _scores(this.folder, rows), training_section(this.folder), _next(this.folder)],
        provenance=provenance,
    )
    report.write(this.folder / "report.html")


def _pictures(this: ShownRun) -> Section:
    text = (
        "Of every test box the section with most of what was to be found: raw, truth in colour, and what the "
        "network says, white is yes. Signed channels are grey where they say neither."
    )
    return Section("What it looks like", text, [_picture(this, item) for item in held_out(this.splits, "test")])


def _picture(this: ShownRun, item: HeldOut) -> Figure:
    truth, asked = this.truth(item), questions(this.job.objective)
    box = _shown(item.box)
    labels = truth.labels.read(box)
    section = int(np.argmax((labels != 0).sum(axis=(1, 2))))
    at = Box((box.start[0] + section, *box.start[1:]), (1, *box.shape[1:]))
    raw, spacing = this.stacks[item.stack].raw.read(at)[0], this.voxel_size_nm[1:]
    named = distinct_ids(len(asked))
    ids = np.zeros(labels.shape[1:], np.uint16)
    for number, question in enumerate(asked):
        if question.side != "any":
            ids[true_voxels(labels[section : section + 1], question.side)[0] != 0] = named[number]
    tiles = [Tile("raw", grey(raw), spacing), Tile("truth", overlay(raw, ids), spacing)]
    seen = []
    for question in asked:
        if (question.head, question.channel) in seen:
            continue
        seen.append((question.head, question.channel))
        stored = this.read(item, question.head, at)[question.channel][0]
        title = question.head if question.opposite or question.head == "proximity" else question.name
        tiles.append(Tile(title, np.repeat(stored[..., None], 3, axis=-1), spacing))
    words = f"{item.name}, z = {at.start[0]}"
    return panel(tiles, columns=len(tiles), alt=f"{words}: raw, truth, predicted channels.", caption=words)


def _shown(box: Box) -> Box:
    """Return the middle of a box, all of its sections."""
    y, x = (min(n, _SHOWN_VOX) for n in box.shape[1:])
    start = (box.start[0], box.start[1] + (box.shape[1] - y) // 2, box.start[2] + (box.shape[2] - x) // 2)
    return Box(start, (box.shape[0], y, x))


def _scores(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Section:
    columns = ["box", "channel", "average_precision", "threshold", "precision", "recall", "f1", "positive_voxels"]
    cells: list[list[Cell]] = [[row.get(name) for name in columns] for row in rows]
    text = (
        "Voxels, not synapses: whether a voxel lies in a ball or a cleft. The threshold of a channel is that of "
        "the best F1 on the validation boxes."
    )
    tables = [Table([name.replace("_", " ") for name in columns], cells, "every test box, and all together")]
    more = json.loads((folder / "evaluate" / "scores.json").read_text(encoding="utf-8"))
    for key, caption in (
        ("cremi", "clefts at the threshold, as CREMI defines their scores"),
        ("vector_errors", "how far off the vectors of true post balls point, in nm"),
    ):
        if more.get(key):
            names = list(next(iter(more[key].values())))
            rows_of: list[list[Cell]] = [[box, *(values[n] for n in names)] for box, values in more[key].items()]
            tables.append(Table(["box", *names], rows_of, caption))
    return Section("Scores", text, tables=tables)


def _next(folder: Path) -> Section:
    model = f"{folder}/train/model.safetensors"
    commands = [
        Command("Predict", f"emloom predict raw.zarr --model {model} -o pred.zarr"),
        Command("Find synapses", f"emloom synapses raw.zarr --model {model} --segmentation seg.zarr -o syn/"),
    ]
    return Section("Go on", commands=commands)
