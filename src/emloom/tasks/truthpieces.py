"""The truth with every connected piece of an object as an object of its own, at any size.

::

    truth-parts    truth        -> OUT/truth-parts/parts.zarr     pieces within a block, named by their first voxel
    truth-joins    truth, parts -> OUT/truth-joins/z_y_x.parquet  names that meet across a block's lower faces
    truth-pieces   parts, joins -> OUT/truth-pieces/pieces.zarr   pieces of the whole, by the smallest name

Pieces are connected through voxel faces. CREMI's special ids stay what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emloom.geometry import Block, Box, blocks
from emloom.io.checks import require_labels
from emloom.io.open import create_volume, open_volume
from emloom.io.tables import read_table, write_table
from emloom.io.volume import VolumeInfo
from emloom.ops.labels import apply_lut, split_disconnected
from emloom.run.blockjournal import name_of
from emloom.run.journal import key_of
from emloom.run.perworker import once
from emloom.run.stage import Output
from emloom.tasks.lattice import chunk_within
from emloom.tasks.overlaptable import CELL, SPECIAL
from emloom.tasks.scorestages import Stages

FORMAT = 1

Ids = NDArray[np.uint64]


def truth_in_pieces(truth: str, stages: Stages, fingerprint: str) -> str:
    """Write the truth in pieces, and return the path of the volume.

    Args:
        truth: path of the true ids.
        stages: of the evaluation.
        fingerprint: of the truth.

    Raises:
        InputError: the volume holds no labels, or the disk refuses.
    """
    info = require_labels(open_volume(truth, kind="labels"))
    cells, key = blocks(info.box, CELL), key_of(FORMAT, truth, fingerprint)
    out = VolumeInfo(info.shape, np.dtype(np.uint64), info.grid, kind="labels", chunks=chunk_within(CELL))
    pieces = Pieces(truth, stages.folder, key)
    for volume in (pieces.parts, pieces.whole):
        stages.clear(volume.parent.name, key)
        if not volume.exists():
            create_volume(volume, out)
    for name, work in (("truth-parts", pieces.find), ("truth-joins", pieces.join), ("truth-pieces", pieces.name)):
        stages.run(name, key, cells, work)
    return str(pieces.whole)


@dataclass(frozen=True)
class Pieces:
    """The steps of a block.

    Attributes:
        truth: path of the true ids.
        folder: of the evaluation.
        key: of its stages.
    """

    truth: str
    folder: Path
    key: str

    @property
    def parts(self) -> Path:
        """The volume of pieces within blocks."""
        return self.folder / "truth-parts" / "parts.zarr"

    @property
    def whole(self) -> Path:
        """The volume of pieces of the whole."""
        return self.folder / "truth-pieces" / "pieces.zarr"

    def find(self, block: Block) -> Sequence[Output]:
        """Write the pieces within a block; the name is 1 + the linear index, in the volume, of the first voxel."""
        volume = open_volume(self.truth, kind="labels")
        ids = volume.read(block.write).astype(np.uint64, copy=False)
        special = np.isin(ids, np.array(SPECIAL, np.uint64))
        pieces = split_disconnected(np.where(special, np.uint64(0), ids))
        # Pieces are numbered in order of their first voxels: each is where the largest number so far rises.
        first = np.flatnonzero(np.diff(np.maximum.accumulate(pieces.ravel()), prepend=np.uint64(0)))
        corner = np.array(block.write.start)[:, None]
        places = np.ravel_multi_index(np.stack(np.unravel_index(first, pieces.shape)) + corner, volume.info.shape)
        names = np.concatenate([[0], places + 1]).astype(np.uint64)[pieces]
        return [self._write(self.parts, block.write, np.where(special, ids, names))]

    def join(self, block: Block) -> Sequence[Output]:
        """Write the names of pieces that meet across the lower faces of a block and are of one object."""
        truth, parts = open_volume(self.truth, kind="labels"), open_volume(self.parts, kind="labels")
        pairs = [np.zeros((0, 2), np.uint64)]
        for axis in range(3):
            if block.write.start[axis] > 0:
                start, shape = list(block.write.start), list(block.write.shape)
                start[axis], shape[axis] = start[axis] - 1, 2
                box = Box((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))
                pairs.append(_touching(truth.read(box), parts.read(box), axis))
        table = np.unique(np.concatenate(pairs), axis=0)
        path = self._joins(block)
        write_table(path, {"a": table[:, 0], "b": table[:, 1]})
        return [Output.file(self.folder, str(path.relative_to(self.folder)))]

    def name(self, block: Block) -> Sequence[Output]:
        """Write the pieces of the whole."""
        names = open_volume(self.parts, kind="labels").read(block.write)
        special = np.isin(names, np.array(SPECIAL, np.uint64))
        lut = once(("pieces", str(self.folder), self.key), self._lut)
        pieces = apply_lut(np.where(special, np.uint64(0), names), *lut)
        return [self._write(self.whole, block.write, np.where(special, names, pieces))]

    def _lut(self) -> tuple[Ids, Ids]:
        info = open_volume(self.truth, kind="labels").info
        tables = [read_table(self._joins(block)) for block in blocks(info.box, CELL)]
        return smallest_names(*(np.concatenate([table[end] for table in tables]) for end in ("a", "b")))

    def _joins(self, block: Block) -> Path:
        return self.folder / "truth-joins" / f"{name_of(block.index)}.parquet"

    def _write(self, path: Path, box: Box, ids: Ids) -> Output:
        open_volume(path, kind="labels", writable=True).write(box, ids)
        return Output.voxels(str(path.relative_to(self.folder)), box, ids)


def smallest_names(a: Ids, b: Ids) -> tuple[Ids, Ids]:
    """Return the names that are joined to a smaller one, ascending, and the smallest that each is joined to.

    Args:
        a: uint64 [N], names.
        b: uint64 [N], names of the same things as `a`.
    """
    names, ends = np.unique(np.concatenate([a, b]), return_inverse=True)
    rows, columns = ends[: len(a)], ends[len(a) :]
    links = coo_array((np.ones(len(a), np.int8), (rows, columns)), shape=(len(names), len(names)))
    count, member = connected_components(links, directed=False)
    # Names ascend, so the first of a component is its smallest.
    smallest = names[np.unique(member, return_index=True)[1]] if count else names
    values = smallest[member]
    return names[values != names], values[values != names]


def _touching(truth: NDArray[Any], parts: Ids, axis: int) -> Ids:
    """Return the pairs of parts, uint64 [N, 2], of one object in two layers across an axis."""
    (below, above), (a, b) = (np.moveaxis(array, axis, 0) for array in (truth, parts))
    same = (below == above) & (below != 0) & ~np.isin(below, np.array(SPECIAL, np.uint64))
    return np.unique(np.stack([a[same], b[same]], axis=1), axis=0)
