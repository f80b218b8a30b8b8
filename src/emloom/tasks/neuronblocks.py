"""The blocks of `emloom export-neurons`: which segments lie where, and the triangles of their surfaces.

::

    survey     of every block: id, voxels, and the box around them           run/survey/Z.Y.X.parquet
    surfaces   of every block: the triangles of its cubes, by id             run/surfaces/Z.Y.X.parquet

A block of surfaces reads one (coarse) voxel beyond what it owns and, at the faces of the volume, one voxel of
nothing (`emloom.ops.meshes`), so the triangles of all blocks are the same, each once, whatever the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from emloom.errors import InputError
from emloom.geometry import Block, Box, Vec
from emloom.geometry.grid import Vec3
from emloom.io.open import open_volume
from emloom.io.tables import read_table, write_table
from emloom.io.volume import Volume, borrow
from emloom.ops.downsample import coarse_shape, downsample_majority
from emloom.ops.labels import relabel_dense
from emloom.ops.meshes import label_triangles
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output

Ids = NDArray[np.uint64]
_STARTS, _STOPS = ("z0", "y0", "x0"), ("z1", "y1", "x1")


@dataclass(frozen=True)
class Labels:
    """Labels that workers open.

    Attributes:
        path: of the volume.
        voxel_size_nm: where the volume does not state it.
    """

    path: str
    voxel_size_nm: Vec3 | None = None

    def open(self) -> Volume:
        """Return the volume."""
        return open_volume(self.path, kind="labels", voxel_size_nm=self.voxel_size_nm)


def survey_part(index: Vec) -> Path:
    """Return where the survey of a block is, below the output folder."""
    return Path("run") / "survey-parts" / f"{name_of(index)}.parquet"


def surface_part(index: Vec) -> Path:
    """Return where the triangles of a block are, below the output folder."""
    return Path("run") / "surface-parts" / f"{name_of(index)}.parquet"


@dataclass(frozen=True)
class Survey:
    """Lists the segments of one block.

    Attributes:
        labels: that are read.
        folder: where the tables go.
    """

    labels: Labels
    folder: Path

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write one table."""
        numbers, table = relabel_dense(borrow(self.labels.open(), block.write))
        names = table[1:]
        voxels = np.bincount(numbers.ravel().astype(np.int64), minlength=len(table))[1:]
        found = [where for where in find_objects(numbers.astype(np.int32), len(names)) if where is not None]
        low = np.array([[s.start for s in where] for where in found], np.int64).reshape(-1, 3)
        high = np.array([[s.stop for s in where] for where in found], np.int64).reshape(-1, 3)
        first = np.array(block.write.start)
        columns: dict[str, NDArray[Any]] = {"id": names, "voxels": voxels.astype(np.int64)}
        columns |= {name: (low + first)[:, axis] for axis, name in enumerate(_STARTS)}
        columns |= {name: (high + first)[:, axis] for axis, name in enumerate(_STOPS)}
        path = survey_part(block.index)
        write_table(self.folder / path, columns)
        return [Output.file(self.folder, str(path))]


@dataclass(frozen=True, eq=False)
class Census:
    """Every segment of a volume; n of them, ids ascending.

    Attributes:
        ids: uint64 [n].
        voxels: int64 [n].
        starts: int64 [n, 3], of the box around each, z, y, x.
        stops: int64 [n, 3].
        homes: n lists of block indices that hold it.
    """

    ids: Ids
    voxels: NDArray[np.int64]
    starts: NDArray[np.int64]
    stops: NDArray[np.int64]
    homes: Sequence[tuple[Vec, ...]]

    @classmethod
    def of(cls, folder: Path, blocks: Sequence[Block]) -> Census:
        """Return what the survey of all blocks found."""
        parts = [read_table(folder / survey_part(block.index)) for block in blocks]
        every = np.concatenate([part["id"] for part in parts])
        ids, rows = np.unique(every, return_inverse=True)
        voxels = np.zeros(len(ids), np.int64)
        np.add.at(voxels, rows, np.concatenate([part["voxels"] for part in parts]))
        starts = np.full((len(ids), 3), np.iinfo(np.int64).max)
        stops = np.zeros((len(ids), 3), np.int64)
        for axis in range(3):
            np.minimum.at(starts[:, axis], rows, np.concatenate([part[_STARTS[axis]] for part in parts]))
            np.maximum.at(stops[:, axis], rows, np.concatenate([part[_STOPS[axis]] for part in parts]))
        homes: list[list[Vec]] = [[] for _ in ids]
        of_row = np.repeat(np.arange(len(blocks)), [len(part["id"]) for part in parts])
        for row, number in zip(rows.tolist(), of_row.tolist(), strict=True):
            homes[row].append(blocks[number].index)
        return cls(ids, voxels, starts, stops, [tuple(each) for each in homes])

    def chosen(self, wanted: Sequence[int], min_size_vox: int, source: str) -> Census:
        """Return the segments asked for.

        Raises:
            InputError: one that is named does not exist, or nothing is left.
        """
        named = np.array(sorted(set(wanted)), np.uint64)
        strange = np.setdiff1d(named, self.ids)
        if strange.size:
            raise InputError(f"{source} has no segment {strange[0]}: it has {len(self.ids)}; check the ids")
        keep = (np.isin(self.ids, named) if len(named) else np.ones(len(self.ids), bool)) & (
            self.voxels >= min_size_vox
        )
        if not keep.any():
            largest = int(self.voxels.max()) if len(self.voxels) else 0
            raise InputError(
                f"{source}: of {len(self.ids)} segments none has {min_size_vox} voxels or more (the largest has "
                f"{largest}): lower --min-size"
            )
        rows = np.flatnonzero(keep)
        homes = [self.homes[row] for row in rows.tolist()]
        return Census(self.ids[rows], self.voxels[rows], self.starts[rows], self.stops[rows], homes)


@dataclass(frozen=True)
class Surfaces:
    """Makes the triangles of one block.

    Attributes:
        labels: that are read.
        folder: where the tables go.
        chosen: table with the column `id`, below the folder.
        factors: voxels (z, y, x) taken together.
    """

    labels: Labels
    folder: Path
    chosen: str
    factors: Vec

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write one table."""
        wanted = read_table(self.folder / self.chosen)["id"]
        array, start = coarse_samples(self.labels.open(), block.write, self.factors)
        ids, corners = label_triangles(array, start, wanted)
        path = surface_part(block.index)
        write_table(self.folder / path, {"id": ids, "a": corners[:, 0], "b": corners[:, 1], "c": corners[:, 2]})
        return [Output.file(self.folder, str(path))]


def coarse_samples(volume: Volume, box: Box, factors: Vec) -> tuple[NDArray[Any], Vec]:
    """Return (labels, their first voxel) for the cubes that a block of a volume owns, in coarse voxels.

    A block at a lower face of the volume owns the cubes before it, too; what is outside of the volume is 0.

    Args:
        volume: labels.
        box: of the block, begins on a multiple of the factors.
        factors: voxels (z, y, x) taken together by majority, counted from voxel 0 of the volume.
    """
    whole = coarse_shape(volume.info.shape, factors)
    first = tuple(a // f for a, f in zip(box.start, factors, strict=True))
    stop = coarse_shape(box.stop, factors)
    start = tuple(a - 1 if a == 0 else a for a in first)
    out = np.zeros([e + 1 - a for a, e in zip(start, stop, strict=True)], volume.info.dtype)
    seen = Box.of(first, [min(e + 1, n) for e, n in zip(stop, whole, strict=True)])
    fine = Box.of(
        [a * f for a, f in zip(seen.start, factors, strict=True)],
        [min(e * f, n) for e, f, n in zip(seen.stop, factors, volume.info.shape, strict=True)],
    )
    voxels = borrow(volume, fine)
    here = tuple(slice(a - b, e - b) for a, e, b in zip(seen.start, seen.stop, start, strict=True))
    out[here] = voxels if factors == (1, 1, 1) else downsample_majority(voxels, factors)
    return out, (start[0], start[1], start[2])
