"""The page of a classification: how much there is of every class, how clear it was, and what the rules changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec
from emloom.io.open import open_volume
from emloom.io.tables import write_csv
from emloom.io.volume import Volume
from emloom.ops.decide import UNDECIDED, decide
from emloom.ops.enclosure import Enclosure, violation_rate
from emloom.tasks.classcounts import ClassCounts, Place
from emloom.tasks.lattice import common_box
from emloom.view.classcolours import class_colours, painted
from emloom.view.colours import RGB, grey
from emloom.view.figures import Figure, Tile, panel
from emloom.view.marked import section_of
from emloom.view.report import Cell, Report, Score, Section, Table, Verdict

_SHOWN_VOX = 512  # along a side of a picture, at most
_FLATTEST = 4  # width over height of a picture, at most
_AROUND_VOX = 128  # around a least confident place
_PLANES = (("xy", 0), ("xz", 1), ("yz", 2))


@dataclass(frozen=True)
class Shown:
    """What pictures are made of.

    Attributes:
        labels: the classes.
        confidence: how clear they were.
        raw: the ground, None where there is none.
        names: of the classes.
        shares: the probabilities.
    """

    labels: Volume
    confidence: Volume
    raw: Volume | None
    names: Sequence[str]
    shares: Volume

    def figure(self, at: Vec, half: int, planes: Sequence[tuple[str, int]], caption: str) -> Figure:
        """Return sections through a voxel: raw where it is known, classes, confidence."""
        info = self.labels.info
        tiles = []
        for plane, axis in planes:
            rows, columns = (k for k in range(3) if k != axis)
            box = section_of(self._window(at, half, rows), axis, at)
            spacing = (info.grid.voxel_size_nm[rows], info.grid.voxel_size_nm[columns])
            where = f"{plane}, {'zyx'[axis]} = {at[axis]}"
            ground = self._ground(box, axis)
            if self.raw is not None:
                tiles.append(Tile(f"raw, {where}", ground, spacing))
            labels = self.labels.read(box).squeeze(axis)
            tiles.append(Tile(f"classes, {where}", painted(ground, labels, len(self.names)), spacing))
            tiles.append(Tile(f"confidence, {where}", self.confidence.read(box).squeeze(axis), spacing))
        alt = (
            f"Sections through voxel {at}: {'raw, ' if self.raw is not None else ''}classes in colour, confidence."
        )
        return panel(tiles, columns=len(tiles) // len(planes), alt=alt, caption=caption)

    def _window(self, at: Vec, half: int, rows: int) -> Box:
        """Return the voxels around one that are shown: fewer where the volume is thin along the rows."""
        info = self.labels.info
        high = info.shape[rows] * info.grid.voxel_size_nm[rows]
        reach = [max(1, min(half, int(_FLATTEST * high / (2 * s)))) for s in info.grid.voxel_size_nm]
        start, stop = (
            [a - r for a, r in zip(at, reach, strict=True)],
            [a + r for a, r in zip(at, reach, strict=True)],
        )
        return Box.of(start, stop).intersect(info.box)

    def repair(self, square: Box, changed: int) -> Figure:
        """Return a section around a square that rules changed: likeliest classes, and what became of them."""
        info = self.labels.info
        box = square.grow((0, _AROUND_VOX // 2, _AROUND_VOX // 2)).intersect(info.box)
        spacing = info.grid.voxel_size_nm[1:]
        ground = self._ground(box, 0)
        likeliest, _ = decide(self.shares.read(box))
        labels = self.labels.read(box)
        chosen = (labels != likeliest) & (labels != UNDECIDED)
        tiles = [
            Tile(title, painted(ground, each[0], len(self.names)), spacing)
            for title, each in (("likeliest", likeliest), ("with the rules", labels))
        ]
        where = f"z = {box.start[0]}, y from {box.start[1]}, x from {box.start[2]}"
        tiles.append(Tile("changed", np.where(chosen, 255, ground // 3)[0], spacing))
        return panel(tiles, caption=f"{changed} voxels changed: {where}")

    def _ground(self, box: Box, axis: int) -> RGB:
        if self.raw is None:
            return np.full([n for k, n in enumerate(box.shape) if k != axis], 32, np.uint8)
        return grey(self.raw.read(box.shift(common_box(self.labels, self.raw).start)).squeeze(axis))


def write_classify_report(
    raw: str | None,
    folder: Path,
    names: Sequence[str],
    rules: Sequence[Enclosure],
    counts: ClassCounts,
    provenance: Mapping[str, Any],
) -> None:
    """Write `report.html`, `classes.csv` and, with rules, `rules.csv` into the container of a result."""
    shown = Shown(
        open_volume(folder / "labels"),
        open_volume(folder / "confidence"),
        None if raw is None else open_volume(raw, kind="raw"),
        names,
        open_volume(provenance["spec"]["probabilities"]),
    )
    info = shown.labels.info
    classes = class_rows(counts.confidence, names, float(np.prod(info.grid.voxel_size_nm)))
    write_csv(folder / "classes.csv", _columns(classes))
    sections = [_pictures(shown), _volumes(classes, names)]
    if rules:
        kept = rule_rows(counts, rules)
        write_csv(folder / "rules.csv", _columns(kept))
        sections.append(_rules(shown, kept, counts))
    sections.append(_places(shown, counts.places))
    decided = counts.confidence[:UNDECIDED]
    total = int(counts.confidence.sum())
    cards = [
        Score("mean confidence", _mean_confidence(decided), "1: no other class had any share"),
        Score("undecided", int(counts.confidence[UNDECIDED].sum()) / total if total else 0.0, "of all voxels"),
    ]
    cards += [Score(row["class"], row["share"], "of decided voxels") for row in classes[: len(names)][:4]]
    Report(
        title="Classes",
        subtitle=provenance["spec"]["probabilities"],
        done="Every voxel was given the class that its probabilities say.",
        verdict=_verdict(counts),
        scores=cards,
        sections=sections,
        provenance=dict(provenance),
    ).write(folder / "report.html")


def _verdict(counts: ClassCounts) -> Verdict:
    total, open_ = int(counts.confidence.sum()), int(counts.confidence[UNDECIDED].sum())
    sure = _mean_confidence(counts.confidence[:UNDECIDED])
    if 2 * open_ > total or not total:
        return Verdict("Most voxels are undecided: look at the probabilities first.", "warning")
    return Verdict(
        f"{(total - open_) / total:.1%} of all voxels are decided, with a mean confidence of {sure:.2f}."
    )


def class_rows(confidence: NDArray[np.int64], names: Sequence[str], voxel_nm3: float) -> list[dict[str, Any]]:
    """Return one row per class, and one of undecided voxels: how much there is, and how clear.

    Args:
        confidence: int64 [256, 256], voxels by label and confidence.
        names: of the classes.
        voxel_nm3: volume of a voxel.
    """
    decided = int(confidence[:UNDECIDED].sum())
    rows = []
    for label, name in [*enumerate(names), (UNDECIDED, "undecided")]:
        of_class = confidence[label]
        n = int(of_class.sum())
        rows.append(
            {
                "class": name,
                "label": label,
                "voxels": n,
                "um3": n * voxel_nm3 / 1e9,
                "share": None if label == UNDECIDED or not decided else n / decided,
                "mean_confidence": _mean_confidence(of_class[None]) if n else None,
                "below_0.5": float(of_class[:128].sum() / n) if n else None,
            }
        )
    return rows


def rule_rows(counts: ClassCounts, rules: Sequence[Enclosure]) -> list[dict[str, Any]]:
    """Return one row per rule: its violation rate before and after, and the faces that violate it."""
    rows = []
    for rule, (before, after) in zip(rules, counts.faces, strict=True):
        rows.append(
            {
                "inside": rule.names[0],
                "wall": rule.names[1],
                "allowed": ", ".join(rule.names[2:]),
                "violation_before": violation_rate(before, rule.spacing_nm),
                "violation_after": violation_rate(after, rule.spacing_nm),
                "surface_faces_before": int(before[0].sum()),
                "violating_faces_before": int(before[1].sum()),
                "violating_faces_after": int(after[1].sum()),
            }
        )
    return rows


def _mean_confidence(confidence: NDArray[np.int64]) -> float:
    n = int(confidence.sum())
    return float((confidence.sum(axis=0) * np.arange(256)).sum() / (255 * n)) if n else float("nan")


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    return {key: np.array([row[key] for row in rows], object) for key in rows[0]}


def _pictures(shown: Shown) -> Section:
    z, y, x = shown.labels.info.shape
    at = (z // 2, y // 2, x // 2)
    text = (
        "Sections through the middle. Every class has one colour, undecided voxels none. Confidence is white "
        "where only one class had a share, black where two had the same."
    )
    planes = [one for one in _PLANES if all(n > 1 for k, n in enumerate(shown.labels.info.shape) if k != one[1])]
    figures = [class_colours(shown.names)]
    figures += [shown.figure(at, _SHOWN_VOX // 2, [plane], "") for plane in planes]
    return Section("What it looks like", text, figures)


def _volumes(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Section:
    cells: list[list[Cell]] = [
        [row[key] for key in ("class", "label", "voxels", "um3", "share", "mean_confidence", "below_0.5")]
        for row in rows
    ]
    text = (
        "Confidence is the margin: the share of the class that won minus that of the runner-up. It says how clear "
        "the network's answer was, not how often such answers are right: that is as good as the network is "
        "calibrated (the metric `calibration`, against a truth)."
    )
    columns = ["class", "label", "voxels", "µm³", "share of decided", "mean confidence", "part below 0.5"]
    return Section("How much of every class", text, tables=[Table(columns, cells, "also in classes.csv")])


def _rules(shown: Shown, rows: Sequence[Mapping[str, Any]], counts: ClassCounts) -> Section:
    names = shown.names
    text = "\n\n".join(_sentence(row) for row in rows)
    rates = ("violation_before", "violation_after", "violating_faces_before", "violating_faces_after")
    keys = ("inside", "wall", "allowed", *rates)
    cells: list[list[Cell]] = [[row[key] for key in keys] for row in rows]
    columns = ["inside", "wall", "may also touch", "rate before", "rate after", "faces before", "faces after"]
    tables = [Table(columns, cells, "violating area over surface area, and violating faces; also in rules.csv")]
    changes: list[list[Cell]] = [
        [names[a] if a < len(names) else "undecided", names[b], int(counts.changed[a, b])]
        for a, b in np.argwhere(counts.changed)
    ]
    tables.append(Table(["was", "became", "voxels"], changes, "what the rules changed"))
    figures = [shown.repair(square, n) for square, n in counts.repaired[:2]]
    return Section("Enclosure", text, figures, tables)


def _sentence(row: Mapping[str, Any]) -> str:
    start = f"{row['inside']} is enclosed by {row['wall']}: "
    if not row["surface_faces_before"]:
        return f"{start}there is no surface of {row['inside']} to look at."
    text = f"{start}{_percent(row['violation_before'])} of its surface touched another class"
    if row["violating_faces_after"]:
        return (
            f"{text}, and {_percent(row['violation_after'])} still does. Rules conflict: a later one undid a part "
            "of this one. Change their order, or let this class touch the other's wall (`allowed`)."
        )
    return f"{text}, and nothing does now."


def _percent(part: float) -> str:
    return f"{100 * part:.2g} %"


def _places(shown: Shown, places: Sequence[Place]) -> Section:
    figures = []
    rows: list[list[Cell]] = []
    for number, place in enumerate(places, start=1):
        box = place.box.intersect(shown.labels.info.box)
        z, y, x = (s + n // 2 for s, n in zip(box.start, box.shape, strict=True))
        rows.append([number, z, y, x, place.confidence])
        if number <= 3:
            caption = f"place {number}: mean confidence {place.confidence:.2f}"
            figures.append(shown.figure((z, y, x), _AROUND_VOX, _PLANES[:1], caption))
    text = (
        "Boxes of 16 x 64 x 64 voxels whose mean confidence is lowest: look here first. `emloom suggest-slices` "
        "says which slices to label next."
    )
    table = Table(["place", "z", "y", "x", "mean confidence"], rows, "middle voxels of the least confident boxes")
    return Section("Least confident", text, figures, [table])
