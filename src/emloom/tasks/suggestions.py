"""Suggested slices: what is said about them, and the files that they are labelled with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import isinf
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from emloom.geometry import Box
from emloom.io.files import write_bytes_atomic, write_text_atomic
from emloom.io.tables import write_csv
from emloom.io.volume import Volume
from emloom.ops.decide import UNDECIDED, decide
from emloom.ops.nextslices import Choice, Chosen, Windows
from emloom.tasks.classify import read_shares
from emloom.tasks.labelledplaces import Labelled
from emloom.tasks.lattice import common_box
from emloom.tasks.slicecounts import in_plane
from emloom.view.classcolours import class_ids, painted
from emloom.view.colours import RGB, grey, id_colours
from emloom.view.figures import Figure, Tile, length_label, panel
from emloom.view.report import Cell, Report, Section, Table

UNDEFINED = 0
"""Value of undecided pixels in the images to correct."""


@dataclass(frozen=True)
class Suggestion:
    """A slice to label.

    Attributes:
        rank: 1 is the best.
        box: its voxels in the prediction; one thick.
        axis: that it is across.
        chosen: by what.
        voxels: of every predicted class.
        uncertain: their summed uncertainty, in voxels.
    """

    rank: int
    box: Box
    axis: int
    chosen: Chosen
    voxels: tuple[int, ...]
    uncertain: tuple[float, ...]

    @classmethod
    def of(cls, rank: int, chosen: Chosen, windows: Windows) -> Suggestion:
        """Return the suggestion of a chosen window."""
        box = windows.box(chosen.number)
        voxels, uncertain = (each[chosen.number].tolist() for each in (windows.voxels, windows.uncertain))
        return cls(rank, box, box.shape.index(1), chosen, tuple(voxels), tuple(uncertain))

    @property
    def name(self) -> str:
        """Of its files."""
        return f"slice_{self.rank}"

    @property
    def uncertainty(self) -> float:
        """1 minus the mean confidence."""
        return sum(self.uncertain) / sum(self.voxels)

    def reason(self, names: Sequence[str], spread_nm: float) -> str:
        """Return, in words and numbers, why it was chosen."""
        best = int(np.argmax(self.chosen.gains))
        total = sum(self.chosen.gains)
        mean = 1 - self.uncertain[best] / max(1, self.voxels[best])
        labelled = self.chosen.labelled[best]
        text = (
            f"mainly for {names[best]} ({self.chosen.gains[best] / total if total else 0:.0%} of the gain): "
            f"mean confidence {mean:.2f} in {self.voxels[best]:,} voxels, "
            f"{f'{labelled:,} voxels labelled or chosen so far' if labelled else 'none labelled so far'}; "
            f"mean confidence of the slice {1 - self.uncertainty:.2f}"
        )
        if isinf(self.chosen.distance_nm):
            return f"{text}; nothing is labelled yet"
        near = ", which makes it worth less" if self.chosen.distance_nm < spread_nm else ""
        return f"{text}; on average {length_label(round(self.chosen.distance_nm))} from what is labelled{near}"


@dataclass(frozen=True)
class Scene:
    """What slices were chosen from.

    Attributes:
        shares: the probabilities.
        raw: what is painted on.
        raw_path: its path.
        names: of the classes.
        labelled: what was labelled before.
        how: slices were chosen.
    """

    shares: Volume
    raw: Volume
    raw_path: str
    names: tuple[str, ...]
    labelled: Labelled
    how: Choice

    def in_raw(self, box: Box) -> Box:
        """Return where a box of the prediction lies in the raw."""
        return box.shift(common_box(self.shares, self.raw).start)

    def section(self, suggestion: Suggestion) -> tuple[RGB, NDArray[np.uint8], NDArray[np.uint8]]:
        """Return raw as bytes, classes and confidence of a slice, all [rows, columns]."""
        labels, confidence = decide(read_shares(self.shares, suggestion.box))
        section = self.raw.read(self.in_raw(suggestion.box)).squeeze(suggestion.axis)
        shown = section if section.dtype == np.uint8 else grey(section)
        return shown, labels.squeeze(suggestion.axis), confidence.squeeze(suggestion.axis)


def write_suggestions(
    folder: Path, scene: Scene, suggestions: Sequence[Suggestion], provenance: Mapping[str, Any]
) -> None:
    """Write images, pieces, table and page into a folder."""
    figures = []
    for suggestion in suggestions:
        raw, labels, confidence = scene.section(suggestion)
        write_bytes_atomic(folder / f"{suggestion.name}_raw.png", _png(raw))
        write_bytes_atomic(folder / f"{suggestion.name}_labels.png", label_png(labels, scene.labelled.values))
        figures.append(_figure(suggestion, scene, (raw, labels, confidence)))
    write_text_atomic(folder / "labels.yaml", pieces_yaml(scene, suggestions))
    rows = [_row(each, scene) for each in suggestions]
    write_csv(folder / "slices.csv", {key: np.array([row[key] for row in rows], object) for key in rows[0]})
    Report(
        title="Slices to label next",
        subtitle=provenance["spec"]["probabilities"],
        done="Slices were sought that teach a model most if somebody labels them.",
        sections=[_chosen(scene, suggestions, rows, figures), _classes(scene, suggestions)],
        provenance=dict(provenance),
    ).write(folder / "report.html")


def pieces_yaml(scene: Scene, suggestions: Sequence[Suggestion]) -> str:
    """Return the slices as pieces of sparse labels, in voxels of the raw."""
    pieces = []
    for each in suggestions:
        start = scene.in_raw(each.box).start
        rows, columns = in_plane(each.axis)
        piece = {
            "kind": "plane",
            "name": each.name,
            "image": f"{each.name}_labels.png",
            "axis": "zyx"[each.axis],
            "at": start[each.axis],
            "start": [start[rows], start[columns]],
        }
        pieces.append(f"  - {yaml.safe_dump(piece, sort_keys=False, default_flow_style=True, width=1000).strip()}")
    values = list(zip(scene.names, scene.labelled.values, strict=True))
    seen = np.sum([each.voxels for each in suggestions], axis=0) > 0
    classes = {name: value for (name, value), here in zip(values, seen, strict=True) if here}
    others = ", ".join(f"{name}: {value}" for (name, value), here in zip(values, seen, strict=True) if not here)
    head = yaml.safe_dump({"classes": classes}, sort_keys=False, allow_unicode=True)
    lines = [
        f"# Slices of {scene.raw_path} to correct: a predicted class is no label until somebody looked at it.",
        f"# {UNDEFINED} is undefined. Voxels are those of the raw.",
        *([f"# Classes that were predicted in none of them: {others}"] if others else []),
    ]
    return "\n".join([*lines, f"{head}pieces:", *pieces, ""])


def label_png(labels_YX: NDArray[np.uint8], values: Sequence[int]) -> bytes:
    """Return classes as a palette image: its numbers are the values of the classes, 0 where undecided."""
    table = np.full(256, UNDEFINED, np.uint8)
    table[: len(values)] = values
    table[UNDECIDED] = UNDEFINED
    colours = np.zeros((256, 3), np.uint8)
    colours[list(values)] = id_colours(class_ids(len(values))[: len(values)])
    colours[values[0]] = (200, 200, 200)  # class 0 has no colour in pictures, and is painted as any other
    image = Image.fromarray(table[labels_YX], mode="P")
    image.putpalette(colours.tobytes())
    return _bytes(image)


def _png(image: RGB) -> bytes:
    return _bytes(Image.fromarray(image))


def _bytes(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _row(each: Suggestion, scene: Scene) -> dict[str, Any]:
    start = scene.in_raw(each.box).start
    rows, columns = in_plane(each.axis)
    return {
        "slice": each.rank,
        "axis": "zyx"[each.axis],
        "at": start[each.axis],
        "start_row": start[rows],
        "start_column": start[columns],
        "rows": each.box.shape[rows],
        "columns": each.box.shape[columns],
        "score": each.chosen.score,
        "gain": sum(each.chosen.gains),
        "mean_confidence": 1 - each.uncertainty,
        "distance_nm": None if isinf(each.chosen.distance_nm) else each.chosen.distance_nm,
        "reason": each.reason(scene.names, scene.how.spread_nm),
    }


def _figure(each: Suggestion, scene: Scene, images: tuple[RGB, NDArray[np.uint8], NDArray[np.uint8]]) -> Figure:
    raw, labels, confidence = images
    rows, columns = in_plane(each.axis)
    size = scene.shares.info.grid.voxel_size_nm
    spacing = (size[rows], size[columns])
    where = f"{('xy', 'xz', 'yz')[each.axis]}, {'zyx'[each.axis]} = {scene.in_raw(each.box).start[each.axis]}"
    tiles = [
        Tile(f"{each.rank}. raw, {where}", raw, spacing),
        Tile("predicted classes", painted(raw, labels, len(scene.names)), spacing),
        Tile("confidence", confidence, spacing),
    ]
    return panel(tiles, caption=f"Slice {each.rank}: {each.reason(scene.names, scene.how.spread_nm)}.")


def _chosen(
    scene: Scene, suggestions: Sequence[Suggestion], rows: Sequence[Mapping[str, Any]], figures: Sequence[Figure]
) -> Section:
    text = {
        "uncertainty": "Chosen for what labelling them may teach: uncertain voxels, of classes with few labels, "
        "away from what is labelled. This follows what the network doubts; where it is wrong and sure, it finds "
        "nothing, and slices at random or in regular steps were as good in one comparison (arXiv:2412.08081): "
        "compare with --strategy spread.",
        "spread": "Chosen far from what is labelled and from each other; the prediction played no part.",
        "random": "Drawn at random; the prediction played no part.",
    }[scene.how.strategy]
    text += (
        "\n\nTo paint: open slice_1_raw.png as the ground and slice_1_labels.png on top, correct the classes, set "
        "what you do not know to 0 (undefined), and add the piece in labels.yaml to yours. Save with the palette, "
        "without smoothing."
    )
    keys = ("slice", "axis", "at", "start_row", "start_column", "score", "mean_confidence", "distance_nm")
    cells: list[list[Cell]] = [[row[key] for key in keys] for row in rows]
    titles = ["slice", "across", "at", "first row", "first column", "score", "mean confidence", "distance, nm"]
    table = Table(titles, cells, "places in voxels of the raw; more in slices.csv")
    return Section("Slices", text, figures, [table])


def _classes(scene: Scene, suggestions: Sequence[Suggestion]) -> Section:
    rows: list[list[Cell]] = []
    for label, name in enumerate(scene.names):
        new = [each.voxels[label] for each in suggestions]
        rows.append([name, scene.labelled.voxels[label], sum(new), *new])
    columns = ["class", "labelled so far", "all slices", *(f"slice {each.rank}" for each in suggestions)]
    text = "Voxels of every class: labelled, and in the slices as they were predicted."
    return Section("Classes", text, tables=[Table(columns, rows)])
