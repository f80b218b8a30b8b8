"""Where to look for an error: the part of a volume in which an object falls apart, or a segment joins several.

The tables of the blocks tell in which block most of the smaller pieces lie; that block alone is read. So twenty
errors cost twenty blocks, whatever the size of the volume.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Box, Vec
from emloom.io.open import open_volume
from emloom.io.volume import Volume
from emloom.metrics.contingency import Contingency
from emloom.metrics.overlap import ObjectError
from emloom.ops.labels import apply_lut
from emloom.tasks.lattice import common_box
from emloom.tasks.openings import Openings
from emloom.tasks.overlaptable import read_overlap
from emloom.tasks.scorespec import EvaluateSpec, Subject
from emloom.tasks.scoring import Voxels

Ids = NDArray[np.uint64]
Kind = Literal["split", "merge"]

PIECES = 20
"""How many pieces of an object are named: more would be too many to tell apart."""


@dataclass(frozen=True)
class Place:
    """An error, and where it shows.

    Attributes:
        kind: "split": a true object in pieces; "merge": a segment over several objects.
        error: what it costs.
        main: the largest piece: a segment (split) or a true object (merge).
        box: bounding box of the other pieces in the block that holds most of them, in voxels of the segmentation.
        at: the voxel through which sections show most of them.
        pieces: ids of the largest pieces, `PIECES` at most, largest first.
    """

    kind: Kind
    error: ObjectError
    main: int
    box: Box
    at: Vec
    pieces: tuple[int, ...]


def places_of(voxels: Voxels, subject: Subject, folder: Path) -> list[Place]:
    """Return where the worst errors of an evaluation are, splits first, worst first.

    Args:
        voxels: the comparison with the truth.
        subject: what was scored.
        folder: its output folder, with the tables of the blocks.
    """
    wanted: list[tuple[Kind, ObjectError]] = [("split", e) for e in voxels.worst["split"]]
    wanted += [("merge", e) for e in voxels.worst["merge"]]
    if not wanted:
        return []
    ranked = [_ranked(voxels.known, kind, error.id) for kind, error in wanted]
    mains = [pieces[0] for pieces in ranked]
    most, best = [0] * len(wanted), [voxels.cells[0]] * len(wanted)
    for cell in voxels.cells:
        table = subject.of(read_overlap(folder, "known", [cell]))
        for row, ((kind, error), main) in enumerate(zip(wanted, mains, strict=True)):
            minor = _minor(table, kind, error.id, main)
            if minor > most[row]:
                most[row], best[row] = minor, cell
    return [
        _place(read_pair(voxels, subject, cell.write), cell, kind, error, pieces)
        for cell, (kind, error), pieces in zip(best, wanted, ranked, strict=True)
    ]


def _ranked(table: Contingency, kind: Kind, wanted: int) -> tuple[int, ...]:
    """Return the largest pieces of an object, largest first; of equals, the smaller id first."""
    pieces, counts = _pieces(table, kind, wanted)
    return tuple(pieces[np.lexsort((pieces, -counts))[:PIECES]].tolist())


def _pieces(table: Contingency, kind: Kind, wanted: int) -> tuple[Ids, NDArray[np.int64]]:
    whole, part = (table.truth_ids, table.segment_ids)[:: 1 if kind == "split" else -1]
    rows = whole == np.uint64(wanted)
    return part[rows], table.counts[rows]


def _minor(table: Contingency, kind: Kind, wanted: int, main: int) -> int:
    pieces, counts = _pieces(table, kind, wanted)
    return int(counts[pieces != np.uint64(main)].sum())


def _place(pair: tuple[Ids, Ids], cell: Block, kind: Kind, error: ObjectError, pieces: tuple[int, ...]) -> Place:
    truth, segments = pair
    whole, part = (truth, segments) if kind == "split" else (segments, truth)
    minor = (whole == np.uint64(error.id)) & (part != np.uint64(pieces[0]))
    if kind == "merge":
        minor &= truth != 0
    start, at = cell.write.start, []
    spans = []
    for axis in range(3):
        profile = minor.sum(axis=tuple(k for k in range(3) if k != axis))
        filled = np.flatnonzero(profile)
        spans.append((start[axis] + int(filled[0]), start[axis] + int(filled[-1]) + 1))
        at.append(start[axis] + int(np.argmax(profile)))
    box = Box.of([a for a, _ in spans], [b for _, b in spans])
    return Place(kind, error, pieces[0], box, (at[0], at[1], at[2]), pieces)


def read_pair(voxels: Voxels, subject: Subject, box: Box) -> tuple[Ids, Ids]:
    """Return the true ids and the segments of a box of the segmentation, uint64 ZYX."""
    truth, labels = (open_volume(path, kind="labels") for path in (voxels.compared.truth, subject.labels))
    true_ids = truth.read(box.shift(common_box(labels, truth).start)).astype(np.uint64, copy=False)
    return true_ids, read_segments(subject, box)


def read_segments(subject: Subject, box: Box) -> Ids:
    """Return the segments of a box of the segmentation, uint64 ZYX."""
    segments = open_volume(subject.labels, kind="labels").read(box).astype(np.uint64, copy=False)
    return segments if subject.lut is None else apply_lut(segments, *subject.lut)


def read_raw(subject: Subject, raw: Volume, box: Box) -> NDArray[np.generic]:
    """Return the raw voxels of a box of the segmentation."""
    labels = open_volume(subject.labels, kind="labels")
    return raw.read(box.shift(common_box(labels, raw).start))


def openings_of(spec: EvaluateSpec, subject: Subject) -> Openings:
    """Return what shows places of a segmentation in a viewer, with raw and truth where they are known."""
    # Of fragments and a look-up table there is a volume of segments: where the container was cut.
    segments = subject.labels if subject.lut is None else str(Path(subject.labels).parent / "segmentation")
    paths = {"raw": spec.raw, "truth": spec.truth, "segmentation": segments}
    return Openings.of(paths, open_volume(subject.labels, kind="labels"), "labels")
