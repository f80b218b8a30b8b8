"""Synapses as stages: what travels to workers, and in which order it is done.

::

    find      cells/{parts,runs,rim,edges}/z_y_x.parquet      a cell
    join      cells/{components,numbers,cells,dropped}/..     all cells
    measure   cells/votes-*/z_y_x.parquet (and gaps)          a cell
    ask       cells/questions/..                              all sites, where the segmentation is asked
    answer    cells/answers/z_y_x.parquet                     a cell
    table     synapses.parquet, notes.json                    all sites
    paint     sites.zarr/{pre,post,cleft}                          voxels of a cell
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Block, Box
from emloom.io.files import write_text_atomic
from emloom.io.open import create_volume, open_volume
from emloom.io.synapsetable import SYNAPSES, write_synapse_table
from emloom.io.volume import Volume, VolumeInfo
from emloom.run.journal import key_of
from emloom.run.perworker import once
from emloom.run.stage import Output, Stage
from emloom.run.workspace import RECORD
from emloom.tasks.lattice import chunk_within, common_box, on_grid_of
from emloom.tasks.synapsecells import WHOLE, Cells, Folder, Known
from emloom.tasks.synapsedecode import Decoding
from emloom.tasks.synapsedecoders import CleftsDecoder, Decoder, SynapsesJob
from emloom.tasks.synapsescene import HEADS, Scene

FORMAT = 1
"""Part of every key: counted up when a kernel changes."""
NOTES = "notes.json"
SITES = "sites.zarr"
TABLES = "cells"


@dataclass(frozen=True)
class Place:
    """A decoding in the making; a small value that travels to workers.

    Attributes:
        job: what is made.
        decoder: the decoder, with nothing left open.
        prediction: container of the heads.
        folder: the output, as it grows.
        words: kept with the table.
    """

    job: SynapsesJob
    decoder: Decoder
    prediction: str
    folder: Path
    words: Mapping[str, str] = field(default_factory=dict)

    def scene(self) -> Scene:
        """Open the inputs; raises `InputError` as `Scene.of`."""
        return open_scene(self.job, self.decoder, self.prediction)

    def cells(self) -> Cells:
        """Return the steps, with a shelf in the folder."""
        return Cells(self.scene(), Folder(self.folder / TABLES), self.job.cell_shape_vox)

    def known(self, cells: Cells) -> Known:
        """Return what was joined; a process reads it once."""
        # The same job in the same folder may be of another segmentation, made at the same path since.
        begun = (self.folder / RECORD).stat().st_mtime_ns
        return once(("synapses", str(self.folder), self.job.content_hash(), begun), lambda: Known.of(cells.shelf))

    def written(self, cells: Cells) -> list[Output]:
        """Describe what lies on the shelf now."""
        assert isinstance(cells.shelf, Folder)
        return [Output.file(self.folder, f"{TABLES}/{place}") for place in cells.shelf.written]


def heads_in(prediction: str) -> list[str]:
    """Return the heads of a prediction that decoders know."""
    names = sorted({name for heads in HEADS.values() for name in heads})
    return [name for name in names if (Path(prediction) / name).exists()]


def open_scene(job: SynapsesJob, decoder: Decoder, prediction: str) -> Scene:
    """Open the inputs of a job; raises `InputError` as `Scene.of`, and where one is missing."""
    there = heads_in(prediction)
    wanted = HEADS[decoder.kind]
    heads = {name: open_volume(Path(prediction) / name) for name in wanted if name in there}
    missing = [name for name in wanted if name not in heads]
    if missing:
        raise InputError(
            f"{prediction} has no head {missing[0]!r}, which decoder {decoder.kind!r} reads (it has: "
            f"{', '.join(there) or 'none that a decoder reads'}): choose a decoder for what is there, or predict "
            "with another model"
        )
    first = next(iter(heads.values()))
    segmentation = open_volume(job.segmentation, kind="labels")
    sides = None
    if isinstance(decoder, CleftsDecoder) and decoder.sides is not None:
        sides = open_volume(decoder.sides)
    return Scene.of(decoder, heads, segmentation, sides, _mask(job, first))


def _mask(job: SynapsesJob, first: Volume) -> Volume | None:
    if job.mask is None:
        return None
    mask = open_volume(job.mask, kind="mask") if _is_larger(job.mask, first) else None
    return on_grid_of(first, job.mask) if mask is None else Part(mask, common_box(first, mask))


def _is_larger(path: str, first: Volume) -> bool:
    """Whether a plain mask covers more than the prediction, as that of a box of a stack does."""
    from emloom.tasks.qcmask import is_qc, is_repair

    return not (is_qc(path) or is_repair(path)) and open_volume(path, kind="mask").info.shape != first.info.shape


@dataclass(frozen=True)
class Part:
    """A box of a volume, to be read."""

    whole: Volume
    box: Box

    @property
    def info(self) -> Any:
        """As of the box."""
        info = self.whole.info
        return info.with_(shape=self.box.shape, grid=info.grid.crop(self.box))

    def read(self, box: Box) -> Any:
        """Return voxels of the box."""
        return self.whole.read(box.shift(self.box.start))

    def write(self, box: Box, array: Any) -> None:
        """Raise `InputError`: it is only read."""
        raise InputError(f"{self.info.source} is read only here")


@dataclass(frozen=True)
class Step:
    """One stage's work on one block."""

    place: Place
    name: str

    def __call__(self, block: Block) -> list[Output]:
        """Do it, and say what was written."""
        cells = self.place.cells()
        more = _STEPS[self.name](self.place, cells, block)
        return [*self.place.written(cells), *more]


def _find(_: Place, cells: Cells, block: Block) -> list[Output]:
    cells.find(block)
    return []


def _join(_: Place, cells: Cells, __: Block) -> list[Output]:
    cells.join()
    return []


def _measure(place: Place, cells: Cells, block: Block) -> list[Output]:
    cells.measure(block, place.known(cells))
    return []


def _ask(place: Place, cells: Cells, _: Block) -> list[Output]:
    questions = Decoding(cells, place.job.clean).candidates(place.known(cells))
    cells.shelf.put("questions", WHOLE, questions)
    return []


def _answer(place: Place, cells: Cells, block: Block) -> list[Output]:
    Decoding(cells, place.job.clean).check(block, cells.shelf.get("questions"))
    return []


def _table(place: Place, cells: Cells, _: Block) -> list[Output]:
    found = Decoding(cells, place.job.clean).table(place.known(cells))
    write_synapse_table(place.folder / SYNAPSES, found.table, place.words)
    write_text_atomic(place.folder / NOTES, json.dumps(found.notes, indent=2))
    for layer, (component, label) in found.labels.items():
        cells.shelf.put(f"labels-{layer}", WHOLE, {"component": component, "label": label})
        _make_sites(place, cells, layer)
    return [Output.file(place.folder, name) for name in (SYNAPSES, NOTES)]


def _make_sites(place: Place, cells: Cells, layer: str) -> None:
    path = place.folder / SITES / layer
    if not path.exists():
        info, chunks = cells.scene.info, chunk_within(place.job.cell_shape_vox)
        ids = VolumeInfo(info.shape, np.dtype(np.uint64), info.grid, kind="labels", chunks=chunks)
        create_volume(path, ids)


def _paint(place: Place, cells: Cells, block: Block) -> list[Output]:
    written = []
    for layer in cells.layers:
        path = place.folder / SITES / layer.name
        if not path.exists():
            continue
        table = cells.shelf.get(f"labels-{layer.name}")
        ids = cells.painted(block, place.known(cells), table["component"], table["label"])
        if ids.any():  # what is not written is 0
            open_volume(path, writable=True).write(block.write, ids)
            written.append(Output.voxels(f"{SITES}/{layer.name}", block.write, ids))
    return written


_STEPS: dict[str, Callable[[Place, Cells, Block], list[Output]]] = {
    "find": _find,
    "join": _join,
    "measure": _measure,
    "ask": _ask,
    "answer": _answer,
    "table": _table,
    "paint": _paint,
}


def stages_of(place: Place, marks: Mapping[str, str]) -> Iterator[Stage[Block]]:
    """Return the stages in order.

    Args:
        place: what is made.
        marks: fingerprints of what decides the result.
    """
    cells = place.cells()
    whole = Box.whole(cells.scene.shape)
    once_ = [Block((0, 0, 0), whole, whole)]
    science = place.job.model_dump(mode="json", include={"mask", "cell_shape_vox", "clean"})
    key = key_of("synapses", FORMAT, science, place.decoder.to_dict(), dict(marks))
    names = ["find", "join", "measure", "table", "paint"]
    if Decoding(cells, place.job.clean).asks:
        names[3:3] = ["ask", "answer"]
    for name in names:
        of_cells = name in ("find", "measure", "answer", "paint")
        yield Stage(name, key, cells.blocks() if of_cells else once_, Step(place, name), bounded=of_cells)
