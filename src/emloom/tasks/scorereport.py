"""The page of `emloom evaluate`: the scores and what they mean, and pictures of the errors that cost most."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emloom.geometry import Box
from emloom.io.open import open_volume
from emloom.io.volume import Volume
from emloom.metrics.book import Value
from emloom.tasks.errorplaces import PIECES, Place, openings_of, places_of, read_pair, read_raw
from emloom.tasks.openings import Openings
from emloom.tasks.scorespec import EvaluateSpec, Subject
from emloom.tasks.scoring import Evaluation, Voxels
from emloom.tasks.skeletonreport import skeleton_sections
from emloom.view.colours import grey, overlay
from emloom.view.curves import threshold_curve
from emloom.view.figures import Figure, Opening, Tile
from emloom.view.marked import section_of
from emloom.view.mosaic import mosaic
from emloom.view.report import Cell, Report, Score, Section, Table, summed_up

_WINDOW = 256  # voxels of the finest axis that a picture shows along its sides


@dataclass(frozen=True)
class _Overlap:
    voi_split: float
    voi_merge: float


@dataclass(frozen=True)
class _Point:
    threshold: float
    scores: _Overlap


def write_score_report(spec: EvaluateSpec, found: Evaluation) -> Path:
    """Write `report.html` into the folder of an evaluation; return its path."""
    folder = Path(spec.output).absolute()
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    sections = [_scores(found)]
    if found.sweep and "voi_split" in found.sweep[0]:
        sections.append(_threshold(found))
    if found.voxels is not None:
        sections.append(_errors(spec, found.subject, found.voxels, folder))
    if found.traced is not None:
        sections += skeleton_sections(spec, found, found.traced)
    traced = None if spec.skeletons is None else spec.skeletons.path
    truths = [path for path in (spec.truth, traced) if path is not None]
    cards = [_card(value, found.row[value.key]) for metric in found.metrics[:3] for value in metric.values[-1:]]
    report = Report(
        title=f"{Path(spec.segmentation).name} against {' and '.join(Path(path).name for path in truths)}",
        subtitle=" · ".join([spec.segmentation, *truths]),
        done="A segmentation was compared with what is true, and the errors that cost most were drawn.",
        verdict=summed_up(cards),
        scores=cards,
        sections=sections,
        provenance=provenance,
    )
    report.write(folder / "report.html")
    return folder / "report.html"


def _card(value: Value, number: float) -> Score:
    return Score(value.title, number, f"{value.unit + '; ' if value.unit else ''}{value.better} is better")


def _scores(found: Evaluation) -> Section:
    rows: list[list[Cell]] = [
        [value.title, found.row[value.key], value.unit or "–", value.better, metric.name]
        for metric in found.metrics
        for value in metric.values
    ]
    text = "\n\n".join(f"{metric.name}: {metric.text}" for metric in found.metrics)
    text += "".join(f"\n\n{name} is not defined here: {why}." for name, why in found.undefined.items())
    tables = [Table(["score", "value", "unit", "better", "metric"], rows, "every score that was asked for")]
    if found.voxels is not None:
        columns = ["voxels", "true objects", "segments"]
        counted: list[Cell] = list(found.voxels.row().values())
        tables.append(Table(columns, [counted], "what was counted: true background does not count"))
    return Section("Every score", text, tables=tables)


def _threshold(found: Evaluation) -> Section:
    points = [_Point(p["threshold"], _Overlap(p["voi_split"], p["voi_merge"])) for p in found.sweep]
    best = min(found.sweep, key=lambda p: p["voi_sum"])
    text = (
        f"The segmentation was cut at {found.subject.threshold:g}. VOI on this truth is lowest at "
        f"{best['threshold']:g}, {best['voi_sum']:.3f} bits; a threshold chosen here must be tested elsewhere."
    )
    return Section(
        "Threshold", text, [threshold_curve(points, found.subject.threshold, caption="All in sweep.csv.")]
    )


def _errors(spec: EvaluateSpec, subject: Subject, voxels: Voxels, folder: Path) -> Section:
    places = places_of(voxels, subject, folder)
    if not places:
        return Section("Largest errors", "There is none: no true object is split, and no segment merges two.")
    text = (
        "The true objects that fall apart (split), and the segments that join several objects (merge), which add "
        "most to VOI. Only the object at fault is coloured: what it should be, and what was made of it. Positions "
        "are voxels (z, y, x) of the segmentation.\n\n"
        "The command below a picture opens its place in neuroglancer, on this machine only, with the object and "
        f"its largest pieces (up to {PIECES}) selected. While one of them runs, the links of all pictures "
        "work: they move that viewer and leave its layout and contrast as they are."
    )
    openings, draw = openings_of(spec, subject), _Drawing(spec, subject, voxels)
    rows: list[list[Cell]] = [
        [p.kind, str(p.error.id), p.error.bits, p.error.voxels, p.error.pieces, _range(p.box)] for p in places
    ]
    columns = ["error", "id", "bits", "voxels", "pieces", "box of the smaller pieces"]
    return Section(
        "Largest errors",
        text,
        [replace(draw(place), opening=_opening(openings, place)) for place in places],
        [Table(columns, rows, "the same in numbers")],
    )


def _range(box: Box) -> str:
    return ", ".join(f"{a}:{b}" for a, b in zip(box.start, box.stop, strict=True))


def _opening(openings: Openings, place: Place) -> Opening:
    whole, parts = ("truth", "segmentation") if place.kind == "split" else ("segmentation", "truth")
    pieces = tuple(piece for piece in place.pieces if piece != 0)
    return openings.opening(place.at, ((whole, (place.error.id,)), *([(parts, pieces)] if pieces else [])))


@dataclass(frozen=True)
class _Drawing:
    spec: EvaluateSpec
    subject: Subject
    voxels: Voxels

    def __call__(self, place: Place) -> Figure:
        info = open_volume(self.subject.labels, kind="labels").info
        spacing = info.grid.voxel_size_nm
        half = [max(1, round(_WINDOW / 2 * min(spacing) / size)) for size in spacing]
        window = Box.of(
            [a - h for a, h in zip(place.at, half, strict=True)],
            [a + h for a, h in zip(place.at, half, strict=True)],
        ).intersect(info.box)
        raw = None if self.spec.raw is None else open_volume(self.spec.raw, kind="raw")
        tiles = [tile for axis in range(3) for tile in self._tiles(raw, place, window, axis)]
        noun = "true object" if place.kind == "split" else "segment"
        z, y, x = place.at
        caption = (
            f"{place.kind}: {noun} {place.error.id}, {place.error.voxels} voxels in {place.error.pieces} pieces, "
            f"{place.error.bits:.3f} bits; the largest piece holds {place.error.largest_fraction:.0%}. "
            f"Sections through z = {z}, y = {y}, x = {x}."
        )
        return mosaic(tiles, columns=2 + (raw is not None), alt=caption, caption=caption)

    def _tiles(self, raw: Volume | None, place: Place, window: Box, axis: int) -> Iterator[Tile]:
        """Read the section of a window across an axis, and draw it: a section costs no cube."""
        box = section_of(window, axis, place.at)
        index = (slice(None),) * axis + (0,)
        truth, segments = (ids[index] for ids in read_pair(self.voxels, self.subject, box))
        where = (truth if place.kind == "split" else segments) == np.uint64(place.error.id)
        plane = ("xy", "xz", "yz")[axis]
        spacing = open_volume(self.subject.labels, kind="labels").info.grid.voxel_size_nm
        rows, columns = (spacing[k] for k in range(3) if k != axis)
        if raw is None:
            ground = np.full(where.shape, 128, np.uint8)
        else:
            ground = grey(read_raw(self.subject, raw, box)[index])
            yield Tile(f"raw, {plane}", ground, (rows, columns))
        for name, ids in (("truth", truth), ("segmentation", segments)):
            shown = np.where(where, ids, np.uint64(0))
            yield Tile(f"{name}, {plane}", overlay(ground, shown, stretch=False), (rows, columns))
