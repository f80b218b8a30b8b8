"""The page of a run: what was done, how good it is, where it is wrong, and how to do it again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Vec
from emloom.io.open import open_volume
from emloom.metrics.overlap import OverlapScores, SweepPoint
from emloom.tasks.data import HeldOut, Stack, held_out
from emloom.tasks.evaluate import truth_in
from emloom.tasks.job import NeuronsJob
from emloom.view.colours import grey, overlay
from emloom.view.curves import threshold_curve, training_curves
from emloom.view.figures import Figure, Tile, panel
from emloom.view.report import Cell, Command, Report, Score, Section, Table, Verdict

Ids = NDArray[np.uint64]

_COLUMNS = {
    "method": "method",
    "voi_split": "VOI split",
    "voi_merge": "VOI merge",
    "voi_sum": "VOI",
    "adapted_rand_error": "ARE",
    "adapted_rand_error_pairs": "ARE (pairs)",
    "border_ignored_voi_split": "inner split",
    "border_ignored_voi_merge": "inner merge",
    "border_ignored_voi_sum": "inner VOI",
    "n_segments": "segments",
}


@dataclass(frozen=True)
class _Box:
    """Everything to be drawn about one held-out box."""

    raw: NDArray[Any]
    affinity: NDArray[np.uint8]
    truth: Ids
    found: Ids
    spacing_nm: tuple[float, float, float]


def write_report(job: NeuronsJob, stacks: Sequence[Stack], folder: Path, provenance: Mapping[str, Any]) -> None:
    """Write `report.html` into the folder of a finished run."""
    result = json.loads((folder / "evaluate" / "scores.json").read_text(encoding="utf-8"))
    boxes = {item.name: _load_box(item, stacks, folder) for item in held_out(job.data, "test")}
    report = Report(
        title=job.name,
        subtitle=", ".join(stack.raw.info.source for stack in stacks),
        done="A network was trained to segment neurons, its threshold was chosen on the validation boxes, and it "
        "was judged on test boxes that it had not seen.",
        verdict=_verdict(result),
        scores=_headline(result),
        sections=[
            _pictures(boxes),
            _score_tables(result, provenance["seconds"]),
            _worst(result, boxes),
            _threshold(result),
            _training(folder),
            _next_steps(folder, result["threshold"]),
        ],
        provenance=provenance,
    )
    report.write(folder / "report.html")


def _load_box(item: HeldOut, stacks: Sequence[Stack], folder: Path) -> _Box:
    stack = stacks[item.stack]
    affinities = open_volume(folder / "predict" / f"{item.name}.zarr" / "affinities")
    found = open_volume(folder / "evaluate" / f"{item.name}.zarr" / "segmentation")
    near = [c for c, o in enumerate(affinities.info.neighborhood or ()) if sum(abs(v) for v in o) == 1]
    mean = affinities.read(affinities.info.box)[near].mean(axis=0)
    return _Box(
        stack.raw.read(item.box),
        np.rint(mean).astype(np.uint8),
        truth_in(stack.labels, stack.mask, item.box, 0, False).objects,
        found.read(found.info.box),
        stack.raw.info.grid.voxel_size_nm,
    )


def _headline(result: Mapping[str, Any]) -> list[Score]:
    test = [row for row in result["rows"] if row["part"] == "test"]
    ours = test[0]
    scores = [
        Score("VOI on test", ours["voi_sum"], "bits; split + merge, 0 is perfect"),
        Score("VOI split / merge", f"{ours['voi_split']:.3f} / {ours['voi_merge']:.3f}", "bits"),
        Score("adapted Rand error", ours["adapted_rand_error"], "CREMI definition, 0 is perfect"),
        Score("threshold", result["threshold"], "chosen on validation"),
    ]
    baseline = next((row for row in test if "raw" in row["method"]), None)
    if baseline is not None:
        gain = baseline["voi_sum"] - ours["voi_sum"]
        note = f"bits of VOI below the {baseline['method']} ({baseline['voi_sum']:.3f})"
        scores.insert(1, Score("better than no training", gain, note, "good" if gain > 0 else "bad"))
    return scores


def _verdict(result: Mapping[str, Any]) -> Verdict:
    test = [row for row in result["rows"] if row["part"] == "test"]
    voi = test[0]["voi_sum"]
    baseline = next((row for row in test if "raw" in row["method"]), None)
    if baseline is None:
        return Verdict(f"VOI on the test boxes is {voi:.3f} bits at threshold {result['threshold']:g}.")
    gain = baseline["voi_sum"] - voi
    if gain > 0:
        text = f"VOI on the test boxes is {voi:.3f} bits, {gain:.3f} less than {baseline['method']} leaves"
        return Verdict(f"{text}: the network has learned.", "good")
    return Verdict(
        f"VOI on the test boxes is {voi:.3f} bits, no less than {baseline['method']} leaves "
        f"({baseline['voi_sum']:.3f}): do not use this model; look at the curves of its training.",
        "bad",
    )


def _pictures(boxes: Mapping[str, _Box]) -> Section:
    figures = []
    for name, box in boxes.items():
        z, y = box.raw.shape[0] // 2, box.raw.shape[1] // 2
        tiles = [*_tiles(box, "xy", z), *_tiles(box, "xz", y)]
        alt = f"{name}: sections z = {z} and y = {y}; raw, predicted affinity, true objects, segmentation."
        figures.append(panel(tiles, columns=4, alt=alt, caption=f"{name}: z = {z} above, y = {y} below."))
    text = (
        "Middle sections of every test box. The affinity is the mean over the three nearest neighbours: bright "
        "inside a neurite, dark on its membrane. Every object has a colour of its own; colours of truth and "
        "segmentation are not related."
    )
    return Section("What it looks like", text, figures)


def _tiles(box: _Box, plane: str, at: int) -> Iterator[Tile]:
    dz, dy, dx = box.spacing_nm
    index, spacing = (np.s_[at], (dy, dx)) if plane == "xy" else (np.s_[:, at], (dz, dx))
    raw = box.raw[index]
    yield Tile(f"raw, {plane}", grey(raw), spacing)
    yield Tile("affinity", box.affinity[index], spacing)
    yield Tile("truth", overlay(raw, box.truth[index]), spacing)
    yield Tile("emloom", overlay(raw, box.found[index]), spacing)


def _score_tables(result: Mapping[str, Any], seconds: Mapping[str, float]) -> Section:
    tables = []
    for part in ("test", "validation"):
        rows: list[list[Cell]] = [[row[key] for key in _COLUMNS] for row in result["rows"] if row["part"] == part]
        tables.append(Table(list(_COLUMNS.values()), rows, f"{part} boxes, pooled", highlight=0))
    spent: list[list[Cell]] = [[stage, value] for stage, value in seconds.items()]
    tables.append(Table(["stage", "seconds"], spent, "time spent"))
    text = (
        "Lower is better everywhere. VOI is in bits: split = H(segmentation | truth), merge = H(truth | "
        "segmentation). ARE is the adapted Rand error as CREMI and SNEMI3D define it, and as scikit-image does "
        "(pairs of different voxels). Inner scores are border-ignored: they leave out voxels next to a true "
        "border.\n\n"
        "Thresholds were chosen on the validation boxes, for every method alike; true background (0) does not "
        "count. Truth and all segmentations are split into pieces connected inside their box."
    )
    return Section("Score tables", text, tables=tables)


def _worst(result: Mapping[str, Any], boxes: Mapping[str, _Box]) -> Section:
    figures = [_worst_figure(error, boxes[error["box"]]) for error in result["worst"]]
    text = (
        "The objects that cost most: true objects that fall apart (split), and segments that join several (merge)."
    )
    return Section("Largest errors", text, figures)


def _worst_figure(error: Mapping[str, Any], box: _Box) -> Figure:
    split = error["kind"] == "split"
    where = (box.truth if split else box.found) == error["id"]
    # Only the object at fault, in both volumes: what it should be, and what was made of it.
    truth, found = (np.where(where, ids, np.uint64(0)) for ids in (box.truth, box.found))
    inside = replace(box, truth=truth, found=found)
    z, y, _ = _richest(where, found if split else truth)
    tiles = [*_tiles(inside, "xy", z), *_tiles(inside, "xz", y)]
    noun = "true object in" if split else "segment over"
    caption = (
        f"{error['kind']} in {error['box']}: {noun} {error['pieces']} pieces, {error['bits']:.3f} bits, "
        f"{error['voxels']} voxels; the largest piece holds {error['largest_fraction']:.0%}."
    )
    return panel(tiles, columns=4, alt=f"{caption} Sections z = {z} and y = {y}.", caption=caption)


def _richest(where: NDArray[np.bool_], pieces: Ids) -> Vec:
    """Return the section of each axis that shows most of the object outside its largest piece."""
    ids, counts = np.unique(pieces[where], return_counts=True)
    minor = where & (pieces != ids[np.argmax(counts)])
    shown = minor if minor.any() else where
    z, y, x = (int(np.argmax(shown.sum(axis=axes))) for axes in ((1, 2), (0, 2), (0, 1)))
    return (z, y, x)


def _threshold(result: Mapping[str, Any]) -> Section:
    figures = []
    for part in ("validation", "test"):
        points = [
            SweepPoint(p["threshold"], OverlapScores(**{k: v for k, v in p.items() if k != "threshold"}))
            for p in result["sweeps"][part]
        ]
        caption = f"{part} boxes" + ("" if part == "validation" else " (to look at; nothing was chosen from them)")
        figures.append(threshold_curve(points, result["threshold"], caption=caption))
    return Section("Threshold", "Merging stops where the affinity between two regions falls below it.", figures)


def _training(folder: Path) -> Section:
    history = json.loads((folder / "train" / "history.json").read_text(encoding="utf-8"))
    validation = [(row["step"], row["validation"]) for row in history if "validation" in row]
    figure = training_curves(
        [row["step"] for row in history],
        [row["loss"] for row in history],
        validation,
        caption="Validation uses the averaged weights; the best are kept.",
    )
    return Section("Training", "", [figure])


def _next_steps(folder: Path, threshold: float) -> Section:
    text = "Expect no more than these scores on tissue like this, and less elsewhere."
    segment = f"emloom segment pred.zarr/affinities --threshold {threshold:g} --job {folder}/job.yaml -o seg.zarr"
    commands = [
        Command("Predict", f"emloom predict raw.zarr --model {folder}/train/model.safetensors -o pred.zarr"),
        Command("Segment", segment),
        Command("Look", "emloom view raw.zarr seg.zarr/segmentation"),
    ]
    return Section("Apply it to another stack", text, commands=commands)
