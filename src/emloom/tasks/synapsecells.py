"""From predictions to sites, cell by cell: the same sites whatever the cells, the workers or the order.

::

    find      a cell: evidence, segments -> parts, runs, rim, edges        (`emloom.ops.cellparts`)
    join      all cells: parts, rims     -> components, their numbers      (`emloom.ops.joining`)
    measure   a cell: runs around it     -> votes, gaps                    (`emloom.ops.votes`, `gaps`)

Everything a step leaves for the next goes to a shelf: a folder of Parquet files, or a dictionary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from emloom.geometry import Block, Box, Vec, blocks
from emloom.io.tables import read_table, write_table
from emloom.ops.cellparts import PART_COLUMNS, CellParts, Columns, cell_parts
from emloom.ops.gaps import F64, least_gaps, run_gaps
from emloom.ops.joining import join
from emloom.ops.labels import Ids
from emloom.ops.runs import I32, I64
from emloom.ops.votes import Under, centroids, merge_votes, spread_runs, votes
from emloom.run.blockjournal import name_of
from emloom.tasks.synapsedecoders import ProximityDecoder
from emloom.tasks.synapsescene import Layer, Scene, layers_of, score_of

WHOLE: Vec = (0, 0, 0)
"""Index under which tables about the whole volume lie."""


class Shelf(Protocol):
    """Keeps tables by name and cell."""

    def put(self, name: str, index: Vec, columns: Columns) -> None:
        """Keep a table."""

    def get(self, name: str, index: Vec = WHOLE) -> Columns:
        """Return a table that was put."""


@dataclass
class Memory:
    """Tables in memory."""

    tables: dict[tuple[str, Vec], Columns] = field(default_factory=dict)

    def put(self, name: str, index: Vec, columns: Columns) -> None:
        """Keep a table."""
        self.tables[name, index] = columns

    def get(self, name: str, index: Vec = WHOLE) -> Columns:
        """Return a table that was put."""
        return self.tables[name, index]


@dataclass
class Folder:
    """Tables as Parquet files; a file is read once where `keep` says so.

    Attributes:
        path: where they lie, ``<name>/z_y_x.parquet``.
        written: files written, relative to `path`.
    """

    path: Path
    written: list[str] = field(default_factory=list)

    def put(self, name: str, index: Vec, columns: Columns) -> None:
        """Keep a table."""
        place = f"{name}/{name_of(index)}.parquet"
        (self.path / name).mkdir(parents=True, exist_ok=True)
        write_table(self.path / place, columns)
        self.written.append(place)

    def get(self, name: str, index: Vec = WHOLE) -> Columns:
        """Return a table that was put."""
        return dict(read_table(self.path / name / f"{name_of(index)}.parquet").columns)


@dataclass(frozen=True, eq=False)
class Known:
    """What `join` found.

    Attributes:
        components: see `emloom.ops.joining.Joined`.
        numbers: int64, the component of every part, cell after cell; -1: dropped.
        starts: where the parts of a cell begin in that.
    """

    components: Columns
    numbers: I64
    starts: dict[Vec, int]

    @classmethod
    def of(cls, shelf: Shelf) -> Known:
        """Read it."""
        cells = shelf.get("cells")
        indices = zip(*(cells[axis].tolist() for axis in "zyx"), strict=True)
        starts = dict(zip(indices, cells["start"].tolist(), strict=True))
        return cls(shelf.get("components"), shelf.get("numbers")["component"], starts)

    def counts(self, n_layers: int) -> list[int]:
        """Return how many components every layer has."""
        return [int(n) for n in np.bincount(self.components["layer"], minlength=n_layers)]


@dataclass(frozen=True)
class Cells:
    """The steps.

    Attributes:
        scene: what is decoded.
        shelf: where tables are kept.
        cell: voxels per cell.
    """

    scene: Scene
    shelf: Shelf
    cell: Vec

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Of the decoder."""
        return layers_of(self.scene.decoder)

    def blocks(self) -> list[Block]:
        """Return all cells."""
        return blocks(Box.whole(self.scene.shape), self.cell)

    def find(self, block: Block) -> None:
        """Cut the evidence of a cell into parts."""
        box, scene = block.write, self.scene
        evidence = scene.evidence(box)
        rules = [layer.spec.layer for layer in self.layers]
        hot = any(each.max(initial=0) >= rule.threshold for each, rule in zip(evidence, rules, strict=True))
        asked = hot and any(rule.split for rule in rules)
        # Where there is no evidence, segments need not be read.
        segments = scene.segments(box) if asked else np.zeros(box.shape, np.uint64)
        found = cell_parts(list(zip(evidence, rules, strict=True)), segments, box, scene.shape)
        scene.require_ids(found.parts["segment"])
        self.shelf.put("parts", block.index, found.parts)
        runs = {name: found.rows[:, k] for k, name in enumerate(("z", "y", "start", "stop"))}
        self.shelf.put("runs", block.index, runs | {"part": found.run_parts})
        self.shelf.put("rim", block.index, {"place": found.rim_places, "part": found.rim_parts})
        self.shelf.put("edges", block.index, {"a": found.edges[:, 0], "b": found.edges[:, 1]})

    def join(self) -> int:
        """Join the parts of all cells; returns how many components were dropped."""
        cells = self.blocks()
        parts = [self._parts(cell.index) for cell in cells]
        rules = [(layer.spec.layer, layer.spec.sizes) for layer in self.layers]
        joined = join(parts, rules, self.scene.shape)
        starts = np.cumsum([0, *(part.n for part in parts)])[:-1]
        indices = np.array([cell.index for cell in cells], np.int64).reshape(-1, 3)
        self.shelf.put("components", WHOLE, joined.components)
        self.shelf.put("numbers", WHOLE, {"component": np.concatenate([np.zeros(0, np.int64), *joined.of_part])})
        self.shelf.put("cells", WHOLE, {axis: indices[:, k] for k, axis in enumerate("zyx")} | {"start": starts})
        self.shelf.put("dropped", WHOLE, {"n": np.array([joined.dropped], np.int64)})
        return joined.dropped

    def _parts(self, index: Vec) -> CellParts:
        parts, rim, edges = (self.shelf.get(name, index) for name in ("parts", "rim", "edges"))
        pairs = np.stack([edges["a"], edges["b"]], axis=1)
        nothing = np.zeros((0, 4), np.int32), np.zeros(0, np.int32)
        return CellParts(
            {name: parts[name] for name, _ in PART_COLUMNS}, *nothing, rim["place"], rim["part"], pairs
        )

    def measure(self, block: Block, known: Known) -> None:
        """Take the votes of a cell, and the gaps between components of two layers in it."""
        rows, components = self._runs_around(block.write, known)
        of_layer = known.components["layer"][components]
        tables = self._votes(block.write, known, rows, components, of_layer)
        for layer, table in zip(self.layers, tables, strict=True):
            if layer.votes:
                self.shelf.put(f"votes-{layer.name}", block.index, table)
        if isinstance(self.scene.decoder, ProximityDecoder):
            self._gaps(block, rows, components, of_layer)

    def _votes(self, box: Box, known: Known, rows: I32, components: I64, of_layer: I64) -> list[Columns]:
        scene, spacing = self.scene, self.scene.grid.voxel_size_nm
        location = score_of(scene.decoder).location
        middle = centroids(known.components)
        tables = []
        spread = [
            spread_runs(rows[of_layer == k], components[of_layer == k], box, spacing, layer.reach_nm)
            for k, layer in enumerate(self.layers)
        ]
        empty = not any(len(runs) for runs, _ in spread)
        shape = (0, 0, 0) if empty else box.shape
        evidence = [np.zeros(shape, np.uint8)] * len(spread) if empty else scene.evidence(box)
        segments = np.zeros(shape, np.uint64) if empty else scene.segments(box)
        n_channels = len(scene.channels(Box(box.start, (0, 0, 0))))
        channels = np.zeros((n_channels, *shape), np.uint8) if empty else scene.channels(box)
        usable = None if empty else scene.usable(box)
        for (runs, of_run), grey in zip(spread, evidence, strict=True):
            under = Under(box, scene.shape, segments, grey, channels, usable)
            tables.append(votes(runs, of_run, middle, under, spacing, location))
            scene.require_ids(tables[-1]["segment"])
        unions = [k for k, layer in enumerate(self.layers) if layer.name == "union"]
        for k in unions:
            for table in tables:
                table["union"] = _component_at(*spread[k], table["place"], scene.shape)
        return tables

    def _gaps(self, block: Block, rows: I32, components: I64, of_layer: I64) -> None:
        decoder, spacing = self.scene.decoder, self.scene.grid.voxel_size_nm
        assert isinstance(decoder, ProximityDecoder)
        inside, own = spread_runs(rows[of_layer == 1], components[of_layer == 1], block.write, spacing, 0)
        pre, post = of_layer == 0, (inside, own)
        pairs, squares = run_gaps(*post, rows[pre], components[pre], spacing, decoder.max_gap_nm)
        self.shelf.put("gaps", block.index, {"pre": pairs[:, 1], "post": pairs[:, 0], "square": squares})

    def _runs_around(self, box: Box, known: Known) -> tuple[I32, I64]:
        """Return the runs of components that may matter in a box, and their components."""
        reach = max(layer.reach_nm for layer in self.layers)
        if isinstance(self.scene.decoder, ProximityDecoder):
            reach = max(reach, self.scene.decoder.max_gap_nm)
        grown = box.grow(self.scene.grid.voxels(reach) if reach else 0).intersect(Box.whole(self.scene.shape))
        rows, components = [np.zeros((0, 4), np.int32)], [np.zeros(0, np.int64)]
        for cell in blocks(grown, self.cell):
            runs = self.shelf.get("runs", cell.index)
            number = known.numbers[known.starts[cell.index] + runs["part"]]
            table = np.stack([runs[name] for name in ("z", "y", "start", "stop")], axis=1)
            # In x, runs go on to the end: what is clipped is clipped by whoever asks.
            good = (number >= 0) & (table[:, 0] >= grown.start[0]) & (table[:, 0] < grown.stop[0])
            good &= (table[:, 1] >= grown.start[1]) & (table[:, 1] < grown.stop[1])
            rows.append(table[good].astype(np.int32))
            components.append(number[good])
        return np.concatenate(rows), np.concatenate(components)

    def painted(self, block: Block, known: Known, components: I64, labels: Ids) -> Ids:
        """Return labels in the voxels of components, uint64 [Z, Y, X] of a cell; 0 elsewhere."""
        of = np.zeros(len(known.components["n"]) + 1, np.uint64)  # the last one: of parts that were dropped
        of[components] = labels
        runs = self.shelf.get("runs", block.index)
        found = of[known.numbers[known.starts[block.index] + runs["part"]]]
        out = np.zeros(block.write.shape, np.uint64)
        low = block.write.start
        columns = (runs["z"] - low[0], runs["y"] - low[1], runs["start"] - low[2], runs["stop"] - low[2], found)
        for z, y, start, stop, label in zip(*columns, strict=True):
            if label:
                out[z, y, start:stop] = label
        return out

    def all_votes(self, layer: str) -> Columns:
        """Return the votes of all cells for a layer."""
        tables = [self.shelf.get(f"votes-{layer}", cell.index) for cell in self.blocks()]
        return merge_votes(tables, score_of(self.scene.decoder).location)

    def all_gaps(self) -> tuple[I64, F64]:
        """Return pairs (pre, post) of components that come near each other, and their squared distances."""
        tables = [self.shelf.get("gaps", cell.index) for cell in self.blocks()]
        pairs = np.concatenate([np.stack([t["pre"], t["post"]], axis=1) for t in tables])
        return least_gaps(pairs, np.concatenate([t["square"] for t in tables]))


def _component_at(rows: I32, components: I64, places: I64, shape: Vec) -> I64:
    """Return the component that holds each place; -1 where none does."""
    if not len(rows):
        return np.full(len(places), -1, np.int64)
    starts = (rows[:, 0].astype(np.int64) * shape[1] + rows[:, 1]) * shape[2] + rows[:, 2]
    order = np.argsort(starts)
    at = np.searchsorted(starts[order], places, side="right") - 1
    run = order[np.maximum(at, 0)]
    inside = (at >= 0) & (places < starts[run] + rows[run, 3] - rows[run, 2])
    return np.where(inside, components[run], -1)


def index_of(voxel: Sequence[int], cell: Vec) -> Vec:
    """Return the index of the cell that holds a voxel."""
    z, y, x = (int(v) // c for v, c in zip(voxel, cell, strict=True))
    return (z, y, x)
