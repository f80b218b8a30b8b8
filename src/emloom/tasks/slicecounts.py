"""How uncertain every window of a volume is, counted block by block: a table of sums, not the volume.

Along each axis, planes at a regular step are looked at. Windows of a plane overlap by half, and the last ones end
with the volume. Their edges cut the plane into *cells*; a block sums up voxels and uncertainty of its part of
every cell, class by class, in whole numbers, so blocks of any shape add up to the same::

    starts  0     s/2     s        N-s             a window is the sum of the cells between its edges
    cells   |-----|-----|-----|-|---|-----|

    OUT/counts/z_y_x.parquet   axis, plane, row, column, class, voxels, uncertain
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Box, Vec
from emloom.io.tables import read_table, write_table
from emloom.ops.decide import UNDECIDED, decide
from emloom.ops.nextslices import Windows
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.classify import open_probabilities, read_shares

_KEYS = ("axis", "plane", "row", "column", "class", "voxels", "uncertain")
_LEAST = 0.5  # of a window that must be predicted

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Lattice:
    """The windows of a volume.

    Attributes:
        shape: voxels of the volume.
        size: voxels along a side of a window.
        step: voxels from plane to plane.
        axes: that windows may be across; those in whose planes a window fits.
    """

    shape: Vec
    size: int
    step: int
    axes: tuple[int, ...]

    def planes(self, axis: int) -> Ints:
        """Return the planes that are looked at, along an axis."""
        return np.arange((self.step - 1) // 2, self.shape[axis], self.step)

    def starts(self, axis: int) -> Ints:
        """Return where windows start along an axis in their plane."""
        last = self.shape[axis] - self.size
        return np.unique(np.append(np.arange(0, last + 1, max(1, self.size // 2)), last))

    def edges(self, axis: int) -> Ints:
        """Return where cells start along an axis, and where the last ends."""
        starts = self.starts(axis)
        return np.unique(np.concatenate([starts, starts + self.size]))

    def cells(self, axis: int) -> Vec:
        """Return planes, rows and columns of the cells across an axis."""
        rows, columns = in_plane(axis)
        return (len(self.planes(axis)), len(self.edges(rows)) - 1, len(self.edges(columns)) - 1)

    def n_bytes(self, classes: int) -> int:
        """Return the bytes of the tables of all cells, and of all windows."""
        return sum(6 * 8 * 2 * classes * prod(self.cells(axis)) for axis in self.axes)


@dataclass(frozen=True)
class CountSlices:
    """Counts the cells of one block; a small value that travels to workers.

    Attributes:
        probabilities: path of the volume.
        lattice: of the windows.
        folder: where the counts go.
    """

    probabilities: str
    lattice: Lattice
    folder: Path

    def __call__(self, block: Block) -> list[Output]:
        """Write one file."""
        volume = open_probabilities(self.probabilities)
        classes = volume.info.channels or 0
        labels, confidence = decide(read_shares(volume, block.write))
        rows = [self._count(axis, block.write, labels, confidence, classes) for axis in self.lattice.axes]
        path = slices_file(self.folder, block.index)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, dict(zip(_KEYS, np.concatenate(rows, axis=1), strict=True)))
        return [Output.file(self.folder, str(path.relative_to(self.folder)))]

    def _count(
        self, axis: int, box: Box, labels: NDArray[np.uint8], confidence: NDArray[np.uint8], classes: int
    ) -> Ints:
        planes = self.lattice.planes(axis)
        numbers = np.flatnonzero((planes >= box.start[axis]) & (planes < box.stop[axis]))
        if not len(numbers):
            return np.zeros((len(_KEYS), 0), np.int64)
        at = planes[numbers] - box.start[axis]
        seen = np.moveaxis(labels.take(at, axis), axis, 0)
        doubt = UNDECIDED - np.moveaxis(confidence.take(at, axis), axis, 0).astype(np.int64)
        firsts, cuts = zip(*(self._cuts(k, box) for k in in_plane(axis)), strict=True)
        found = []
        for label in range(classes):
            own = seen == label
            if not own.any():
                continue
            n, u = (_sums(values, cuts) for values in (own.astype(np.int64), np.where(own, doubt, 0)))
            plane, row, column = np.nonzero(n)
            same = np.ones(len(plane), np.int64)
            place = (numbers[plane], row + firsts[0], column + firsts[1])
            found.append(
                np.stack([axis * same, *place, label * same, n[plane, row, column], u[plane, row, column]])
            )
        return np.concatenate(found, axis=1) if found else np.zeros((len(_KEYS), 0), np.int64)

    def _cuts(self, axis: int, box: Box) -> tuple[int, Ints]:
        """Return the first cell of a block along an axis, and where its cells start in the block."""
        edges = self.lattice.edges(axis)
        first = int(np.searchsorted(edges, box.start[axis], "right")) - 1
        inner = edges[(edges > box.start[axis]) & (edges < box.stop[axis])] - box.start[axis]
        return first, np.concatenate([np.zeros(1, np.int64), inner])


def in_plane(axis: int) -> tuple[int, int]:
    """Return the axes of rows and columns of planes across an axis."""
    rows, columns = (k for k in range(3) if k != axis)
    return rows, columns


def slices_file(folder: Path, index: Vec) -> Path:
    """Return the file of a block's counts."""
    return folder / "counts" / f"{name_of(index)}.parquet"


def read_windows(paths: Iterable[Path], lattice: Lattice, classes: int) -> Windows:
    """Return the windows of which at least half is predicted, in order of axis, plane, row and column.

    Args:
        paths: one file per block.
        lattice: of the windows.
        classes: how many there are.
    """
    tables = {axis: np.zeros((*lattice.cells(axis), classes, 2), np.int64) for axis in lattice.axes}
    for path in paths:
        table = read_table(path)
        rows = np.stack([table[key] for key in _KEYS]).astype(np.int64)
        for axis, into in tables.items():
            _, plane, row, column, label, voxels, uncertain = rows[:, rows[0] == axis]
            np.add.at(into, (plane, row, column, label), np.stack([voxels, uncertain], axis=1))
    parts = [_windows(axis, lattice, into) for axis, into in tables.items()]
    start, shape, sums = (np.concatenate(each) for each in zip(*parts, strict=True))
    kept = sums[..., 0].sum(axis=1) >= _LEAST * lattice.size**2
    start, shape, sums = start[kept], shape[kept], sums[kept]
    return Windows(start, shape, sums[..., 0], sums[..., 1] / float(UNDECIDED))


def _windows(axis: int, lattice: Lattice, cells: Ints) -> tuple[Ints, Ints, Ints]:
    """Return start, shape [W, 3] and sums [W, K, 2] of the windows across an axis."""
    starts = []
    sums = cells
    for place, along in enumerate(in_plane(axis), start=1):
        edges, own = lattice.edges(along), lattice.starts(along)
        before = np.concatenate([np.zeros_like(sums.take([0], place)), sums.cumsum(axis=place)], axis=place)
        first, last = np.searchsorted(edges, own), np.searchsorted(edges, own + lattice.size)
        sums = before.take(last, place) - before.take(first, place)
        starts.append(own)
    planes = lattice.planes(axis)
    grid = np.stack(np.meshgrid(planes, *starts, indexing="ij"), axis=-1).reshape(-1, 3)
    start, shape = np.empty_like(grid), np.full_like(grid, lattice.size)
    for column, along in enumerate((axis, *in_plane(axis))):
        start[:, along] = grid[:, column]
    shape[:, axis] = 1
    return start, shape, sums.reshape(-1, *sums.shape[3:])


def _sums(values: Ints, cuts: tuple[Ints, ...]) -> Ints:
    for place, cut in enumerate(cuts, start=1):
        values = np.add.reduceat(values, cut, axis=place)
    return values
