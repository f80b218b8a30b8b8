"""How many voxels each neuron has: counted block by block in the labels, then summed through look-up tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import fastremap
import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Vec, blocks
from emloom.io.open import open_volume
from emloom.io.tables import read_table, write_table
from emloom.io.volume import borrow
from emloom.ops.labels import apply_lut, require_ids
from emloom.run.blockjournal import name_of
from emloom.run.executor import Executor
from emloom.run.journal import key_of
from emloom.run.runner import run_stage
from emloom.run.stage import Output, Stage
from emloom.tasks.connectomesource import Lut

Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]
_FORMAT = 1
_PARTS = Path("run") / "voxels-counted"


@dataclass(frozen=True)
class CountVoxels:
    """Counts the voxels of every label in one block.

    Attributes:
        labels: path of the volume.
        folder: where the tables go.
    """

    labels: str
    folder: Path

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write one table."""
        array = borrow(open_volume(self.labels, kind="labels"), block.write)
        ids, voxels = fastremap.unique(array, return_counts=True)
        path = _part(block)
        columns = {"id": ids.astype(np.uint64)[ids != 0], "voxels": voxels.astype(np.int64)[ids != 0]}
        write_table(self.folder / path, columns)
        return [Output.file(self.folder, str(path))]


def count_voxels(
    labels: str,
    block_vox: Vec,
    fingerprint: str,
    folder: Path,
    executor: Executor,
    on_block: Callable[[int, int], None] | None = None,
) -> tuple[Ids, Counts]:
    """Return (ids, voxels) of the labels of a volume, ascending, without 0; blocks that are counted stay so.

    Args:
        labels: path of the volume.
        block_vox: voxels (z, y, x) that are counted at once.
        fingerprint: of the volume.
        folder: where a table for each block goes.
        executor: where blocks run.
        on_block: called with (blocks done, blocks in all).

    Raises:
        InputError: an id is 2^63 or more, or a block cannot be read.
    """
    cells = blocks(open_volume(labels, kind="labels").info.box, block_vox)
    key = key_of("connectome-voxels", _FORMAT, fingerprint, block_vox)
    run_stage(Stage("voxels", key, cells, CountVoxels(labels, folder)), folder, executor, progress=on_block)
    parts = [read_table(folder / _part(cell)) for cell in cells]
    ids = require_ids(np.concatenate([part["id"] for part in parts]), labels)
    return _summed(ids, np.concatenate([part["voxels"] for part in parts]))


def mapped_voxels(ids: Ids, voxels: Counts, luts: Sequence[Lut]) -> tuple[Ids, Counts]:
    """Return (ids, voxels) after look-up tables, in order; what becomes 0 is no neuron.

    Raises:
        InputError: as `ops.labels.apply_lut`.
    """
    for keys, values in luts:
        ids = apply_lut(ids, keys, values)
    return _summed(ids[ids != 0], voxels[ids != 0])


def _part(block: Block) -> Path:
    return _PARTS / f"{name_of(block.index)}.parquet"


def _summed(ids: Ids, voxels: Counts) -> tuple[Ids, Counts]:
    every, which = np.unique(ids, return_inverse=True)
    total = np.zeros(len(every), np.int64)
    np.add.at(total, which, voxels)
    return every, total
