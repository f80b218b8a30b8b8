"""Measuring a stack for quality control, block by block.

::

    measure    raw -> measure/tiles.zarr              one voxel per tile of a section: `CHANNELS`
                      measure/z_y_x.parquet           per section: sums over the block
                      measure/z_y_x.levels.parquet    per section: how often each grey level occurs
                      measure/z_y_x.patches.parquet   per section: how it lies on the next two

A block is one patch (`emloom.tasks.qcpatch`) of 16 sections.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Vec
from emloom.io.open import create_volume, open_volume
from emloom.io.tables import Column, write_table
from emloom.ops import sections
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.qcpatch import CHANNELS, GreySection, Patch, Stack

STAGE = "measure"
_PATCH = {
    "z": np.int64,
    "lag": np.int64,
    "cells": np.int64,
    **dict.fromkeys(("y", "x", "after", "before"), np.float64),
}


@dataclass(frozen=True)
class Measure:
    """Measures one block.

    Attributes:
        stack: what.
        folder: of the result.
    """

    stack: Stack
    folder: Path

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the tiles and the tables of a block."""
        stack, box = self.stack, block.write
        seen = box.grow((1, 0, 0), (2, 0, 0)).intersect(stack.info.box)
        raw = stack.volume.read(seen)
        around = {
            seen.start[0] + k: GreySection(section, stack.factor, stack.line) for k, section in enumerate(raw)
        }
        rows, levels, patches, tiles = [], [], [], []
        for z in range(box.start[0], box.stop[0]):
            patch = Patch(stack, around, z, box)
            voxels = sections.voxel_sums(patch.here.grey, patch.here.void, stack.tile_vox)
            tiles.append(patch.tiles(voxels))
            rows.append({"z": z, **patch.sums(voxels)})
            levels.append(sections.count_levels(patch.here.grey, patch.here.void))
            patches += patch.shifts()
        array = np.ascontiguousarray(np.stack(tiles, axis=1).astype(np.float32))
        where = stack.lattice(box)
        open_volume(tiles_path(self.folder), writable=True).write(where, array)
        tables = {
            "": _columns(rows),
            "levels": _sparse(box.start[0], levels),
            "patches": _columns(patches, _PATCH),
        }
        outputs = [Output.voxels(f"{STAGE}/tiles.zarr", where, array)]
        for part, table in tables.items():
            path = table_path(self.folder, block.index, part)
            write_table(path, table)
            outputs.append(Output.file(self.folder, str(path.relative_to(self.folder))))
        return outputs


def _columns(rows: list[dict[str, Any]], types: dict[str, Any] | None = None) -> dict[str, Column]:
    names = types or dict.fromkeys(rows[0], np.int64)
    return {name: np.array([row[name] for row in rows], dtype) for name, dtype in names.items()}


def _sparse(first: int, levels: list[NDArray[np.int64]]) -> dict[str, Column]:
    found = [np.flatnonzero(counts) for counts in levels]
    return {
        "z": np.repeat(np.arange(len(found)) + first, [len(f) for f in found]),
        "level": np.concatenate(found),
        "count": np.concatenate([counts[f] for counts, f in zip(levels, found, strict=True)]),
    }


def tiles_path(folder: Path) -> Path:
    """Return the volume of the tiles."""
    return folder / STAGE / "tiles.zarr"


def table_path(folder: Path, index: Vec, part: str = "") -> Path:
    """Return a table of a block."""
    return folder / STAGE / f"{name_of(index)}{'.' + part if part else ''}.parquet"


def make_tiles(stack: Stack, folder: Path) -> None:
    """Make the volume of the tiles, empty, where it is not there yet."""
    if not tiles_path(folder).exists():
        create_volume(tiles_path(folder), stack.tile_info(np.float32, len(CHANNELS)))
