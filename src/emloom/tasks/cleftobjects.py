"""Clefts of two volumes of any size as objects, block by block: the same objects, bit for bit, as at once.

::

    truth, result, mask ─► objects/overlap/z_y_x.parquet   voxels of each (true piece, found piece) in a block
                        ─► objects/joins/z_y_x.parquet     places in faces of blocks, and which piece lies there
                        ─► names that meet in a place are one object: the overlap of whole objects

One pass. A block looks one voxel beyond its upper faces, so any two neighbours lie in some block together, across
corners, too. What it sees is cut into pieces, each named by its first voxel in the volume; a voxel that two blocks
see joins their names, and the smallest name stands for the object. No volume of objects is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emloom.geometry import Block, Box, Vec
from emloom.io.open import open_volume
from emloom.io.tables import read_table, write_csv, write_table
from emloom.metrics.cleftobjects import ObjectOptions, ObjectScores, object_matches, object_scores
from emloom.metrics.contingency import Contingency, add, contingency
from emloom.ops.labels import split_disconnected
from emloom.run.blockjournal import name_of
from emloom.run.executor import Executor
from emloom.run.journal import key_of
from emloom.run.provenance import fingerprint
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.spec import Spec
from emloom.tasks.cleftblocks import CELL, CleftPaths, OnBlock, OpenClefts, forget
from emloom.tasks.truthpieces import smallest_names

FORMAT = 1
_STAGE = "cleft-objects"
_COLUMNS = ("judged", "truth", "found", "truth_voxels", "found_voxels", "iou", "z_nm", "y_nm", "x_nm")
OBJECTS = "cleft_objects.csv"
"""Name of the list of objects in the folder of an evaluation."""

Ids = NDArray[np.uint64]
Kind = Literal["components", "ids"]
Connectivity = Literal[6, 18, 26]


class ObjectsSpec(Spec):
    """What is an object, and when two are the same."""

    truth: Kind = "components"
    """True objects: connected voxels, or one for each id."""
    found: Kind = "components"
    """Found objects: connected voxels, or one for each id."""
    connectivity: Connectivity = 26
    """Neighbours of a voxel that are connected to it: through faces (6), edges (18), corners (26)."""
    min_iou: float = Field(default=0.1, gt=0, le=1)
    """Objects match where they have at least this part of their union in common."""
    doubtful_vox: int = Field(default=0, ge=0)
    """True objects smaller than this are neither missed nor wrong to find."""

    @property
    def options(self) -> ObjectOptions:
        """How objects are matched."""
        return ObjectOptions(self.min_iou, self.doubtful_vox)


@dataclass(frozen=True)
class CountObjects:
    """Counts the overlap of pieces in one block.

    Attributes:
        paths: what is compared.
        folder: where the tables go.
        spec: what an object is.
    """

    paths: CleftPaths
    folder: Path
    spec: ObjectsSpec

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the overlap, and what lies in the faces."""
        opened = OpenClefts.of(self.paths)
        shape = opened.found.info.shape
        seen = Box.of(block.write.start, [min(e + 1, n) for e, n in zip(block.write.stop, shape, strict=True)])
        truth, found, known = opened.read(seen)
        ids = opened.ids(seen) if "ids" in (self.spec.truth, self.spec.found) else (None, None)
        sides = [
            _named(mask, given if kind == "ids" else None, seen, shape, self.spec.connectivity)
            for mask, given, kind in zip((truth, found), ids, (self.spec.truth, self.spec.found), strict=True)
        ]
        own = block.write.slices(seen.start)
        table = contingency(sides[0][own], sides[1][own], mask=known[own], ignore_truth=(), threads=1)
        columns = {"truth": table.truth_ids, "found": table.segment_ids, "voxels": table.counts}
        return [
            self._write("overlap", block, columns),
            self._write("joins", block, _shared(sides, block.write, seen, shape)),
        ]

    def _write(self, what: str, block: Block, columns: Mapping[str, NDArray[Any]]) -> Output:
        path = _file(self.folder, what, block)
        write_table(path, columns)
        return Output.file(self.folder, str(path.relative_to(self.folder)))


def score_objects(
    paths: CleftPaths, spec: ObjectsSpec, folder: Path, executor: Executor, on_block: OnBlock | None = None
) -> ObjectScores:
    """Score clefts as objects, and list them; what an interrupted run has counted is not counted again.

    Args:
        paths: what is compared.
        spec: what an object is, and when two match.
        folder: where blocks write, below ``objects/``, and `cleft_objects.csv`.
        executor: where blocks run.
        on_block: called with (blocks done, blocks in all).

    Raises:
        InputError: volumes hold no labels, or do not lie on one grid.
    """
    table = objects_overlap(paths, spec, folder, executor, on_block)
    write_objects(folder / OBJECTS, table, paths, spec)
    return object_scores(table, spec.options)


def write_objects(path: Path, table: Contingency, paths: CleftPaths, spec: ObjectsSpec) -> None:
    """Write every object as a row of a CSV file: what it is judged, its sizes, and where its first voxel lies.

    Args:
        path: of the file.
        table: of `objects_overlap`.
        paths: what was compared.
        spec: what an object is; of those that have an id, the id is told, and no place is known.
    """
    matches = object_matches(table, spec.options)
    a, b = (
        dict(zip(*(column.tolist() for column in sizes()), strict=True))
        for sizes in (table.truth_sizes, table.segment_sizes)
    )
    rows: list[tuple[str, int | None, int | None, float | None]] = [
        ("right" if sure else "doubtful", t, f, iou)
        for t, f, iou, sure in zip(
            *(c.tolist() for c in (matches.truth, matches.found, matches.iou, matches.sure)), strict=True
        )
    ]
    doubtful = set(matches.doubtful.tolist())
    rows += [("doubtful" if t in doubtful else "missed", t, None, None) for t in matches.missed.tolist()]
    rows += [("invented", None, f, None) for f in matches.invented.tolist()]
    info = open_volume(paths.found).info
    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for judged, t, f, iou in rows:
        kind, name = (spec.truth, t) if t is not None else (spec.found, f)
        place: tuple[Any, ...] = (None, None, None)
        if kind == "components" and name is not None:
            z, y, x = (int(v) for v in np.unravel_index(name - 1, info.shape))
            place = info.grid.centre((z, y, x))
        told = (t if spec.truth == "ids" else None, f if spec.found == "ids" else None)
        cells = (judged, *told, None if t is None else a[t], None if f is None else b[f], iou, *place)
        for column, cell in zip(_COLUMNS, cells, strict=True):
            columns[column].append(cell)
    write_csv(path, {name: np.array(column, object) for name, column in columns.items()})


def objects_overlap(
    paths: CleftPaths, spec: ObjectsSpec, folder: Path, executor: Executor, on_block: OnBlock | None = None
) -> Contingency:
    """Return the overlap of true and found objects, background 0 included; see `score_objects`.

    An object is named by 1 + the number of its first voxel in the result's box, or by its id.
    """
    paths.check()
    inputs = {name: fingerprint(path) for name, path in paths.paths.items()}
    what = (spec.truth, spec.found, spec.connectivity)
    key = key_of(FORMAT, asdict(paths), what, inputs, CELL)
    forget(folder, key, (_STAGE,), "objects")
    cells = paths.cells()
    run_stage(Stage(_STAGE, key, cells, CountObjects(paths, folder, spec)), folder, executor, progress=on_block)
    overlap = [read_table(_file(folder, "overlap", cell)) for cell in cells]
    table = add(Contingency(t["truth"], t["found"], t["voxels"]) for t in overlap)
    joins = [read_table(_file(folder, "joins", cell)) for cell in cells]
    side, place, name = (np.concatenate([t[column] for t in joins]) for column in ("side", "place", "name"))
    for number in (1, 0):
        table = table.relabelled(*_joined(place[side == number], name[side == number]))
        table = Contingency.from_rows(table.segment_ids, table.truth_ids, table.counts)
    return table


def _named(mask: NDArray[np.bool_], ids: Ids | None, seen: Box, shape: Vec, connectivity: Connectivity) -> Ids:
    """Return the pieces of a mask, each named by 1 + the number of its first voxel in the volume; or ids."""
    if ids is not None:
        return np.where(mask, ids, np.uint64(0))
    pieces = split_disconnected(mask.astype(np.uint8), connectivity)
    present, first = np.unique(pieces, return_index=True)
    corner = np.array(seen.start)[:, None]
    names = _places(np.stack(np.unravel_index(first, pieces.shape)) + corner, shape) + np.uint64(1)
    lut = np.zeros(int(present[-1]) + 1, np.uint64)
    lut[present[present != 0]] = names[present != 0]
    named: Ids = lut[pieces]
    return named


def _shared(sides: Sequence[Ids], write: Box, seen: Box, shape: Vec) -> dict[str, NDArray[Any]]:
    """Return what lies in voxels that other blocks see, too: side, place in the volume, and name."""
    common = np.zeros(seen.shape, bool)
    for axis in range(3):
        layers = np.moveaxis(common, axis, 0)
        layers[write.shape[axis] :] = True
        if write.start[axis] > 0:
            layers[0] = True
    rows = []
    for number, names in enumerate(sides):
        voxels = np.stack(np.nonzero(common & (names != 0)))
        places = _places(voxels + np.array(seen.start)[:, None], shape)
        rows.append((np.full(len(places), number, np.uint8), places, names[tuple(voxels)]))
    side, place, name = (np.concatenate(column) for column in zip(*rows, strict=True))
    return {"side": side, "place": place, "name": name}


def _places(voxels: NDArray[np.int64], shape: Vec) -> Ids:
    places: Ids = np.ravel_multi_index(tuple(voxels), shape).astype(np.uint64)
    return places


def _joined(places: Ids, names: Ids) -> tuple[Ids, Ids]:
    """Return which names stand for another, and for which: those that lie in the same place are one."""
    order = np.argsort(places, kind="stable")
    places, names = places[order], names[order]
    same = places[1:] == places[:-1]
    return smallest_names(names[:-1][same], names[1:][same])


def _file(folder: Path, what: str, block: Block) -> Path:
    path = folder / "objects" / what / f"{name_of(block.index)}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
