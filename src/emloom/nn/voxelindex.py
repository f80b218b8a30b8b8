"""An index of the voxels of objects: a random voxel of any object, exactly, without a list of voxels.

A voxel list of a labelled volume is as large as the volume. Instead, one pass counts how many voxels each group
(an object, a class, or all foreground together) has in each cell of a lattice::

    rows, sorted by group, then cell           a draw from group 7
    group  cell  voxels  of the group so far
      5      0      12         12
      7      0     400        400              k uniform in [0, 460), here 412: the row of cell 3
      7      3      60        460              read cell 3, take its voxel number 412 - 400 of group 7
      9      2       1          1

Every voxel of the group has the same probability, whatever the cells, and a draw reads one cell. Memory is
bounded: where the table passes its limit, the cells are doubled along every axis and rows of one group in one new
cell become one row. So any volume can be indexed as long as its groups alone fit.

Only voxels that an allowed crop can contain are counted, so that no draw fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import fastremap
import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.tiling import cells
from emloom.io.volume import Volume
from emloom.nn.painted import is_blank
from emloom.nn.rules import is_one_of
from emloom.nn.starts import Starts, Voxels

_CELL = 32  # voxels per axis of the first lattice: 32^3 are read in a tenth of a millisecond
_LARGEST_CELL = 256
_READ = 128  # voxels per axis of one read of the pass
_ROWS = 1 << 22  # 130 MB


@dataclass(frozen=True)
class Groups:
    """How voxels are grouped.

    Attributes:
        labels: ``zyx`` integers.
        ids: the ids that are indexed; None: all, 0 only with `background`.
        mask: voxels where it is 0 are not indexed; None: all are.
        merged: all ids form one group, number 1, instead of one each.
        background: with `ids` None, whether id 0 counts.
    """

    labels: Volume
    ids: tuple[int, ...] | None = None
    mask: Volume | None = None
    merged: bool = False
    background: bool = False

    def read(self, box: Box) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return (group of each voxel of `box`, whether it is indexed), both ZYX."""
        ids = self.labels.read(box)
        if self.ids is not None:
            indexed = is_one_of(ids, self.ids)
        else:
            indexed = np.ones(ids.shape, bool) if self.background else ids != 0
        if self.mask is not None:
            indexed &= self.mask.read(box) != 0
        return np.ones(ids.shape, np.uint8) if self.merged else ids, indexed


@dataclass(frozen=True, eq=False)
class VoxelIndex:
    """Counts of voxels per group and cell.

    Attributes:
        groups: how voxels are grouped, and where they are read.
        starts: the allowed starts of crops.
        shape: of the crops.
        cell: lattice of absolute voxels (z, y, x).
        ids: int64 [g], the groups, ascending.
        first: int64 [g + 1], the rows of group i are ``first[i] : first[i + 1]``.
        cells: int64 [n, 3], lattice index of each row.
        ends: int64 [n], voxels of the group up to and with this row.
    """

    groups: Groups
    starts: Starts
    shape: Vec
    cell: Vec
    ids: Voxels
    first: Voxels
    cells: Voxels
    ends: Voxels

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.ids)

    @property
    def sizes(self) -> Voxels:
        """int64 [g], voxels of each group that a crop can contain."""
        return self.ends[self.first[1:] - 1]

    @property
    def nbytes(self) -> int:
        """Bytes of the table."""
        return self.ids.nbytes + self.first.nbytes + self.cells.nbytes + self.ends.nbytes

    def draw(self, rng: np.random.Generator, number: int | None = None) -> Vec:
        """Return a random voxel of group `number` (0 <= number < count; default: a random group, all alike).

        One read of one cell (two with a mask).

        Raises:
            InputError: the labels are no longer what they were when the index was built.
        """
        group = int(rng.integers(self.count)) if number is None else number
        low, high = self.first[group : group + 2].tolist()
        rank = int(rng.integers(self.ends[high - 1]))
        row = low + int(np.searchsorted(self.ends[low:high], rank, side="right"))
        before = int(self.ends[row - 1]) if row > low else 0
        start = self.cells[row] * self.cell
        box = Box.of(start.tolist(), (start + self.cell).tolist()).intersect(self.starts.hull(self.shape))
        ids, indexed = self.groups.read(box)
        found = np.flatnonzero((ids == int(self.ids[group])) & indexed & self.starts.covered(self.shape, box))
        if len(found) != int(self.ends[row]) - before:
            raise InputError(
                f"{self.groups.labels.info.source} changed in {box} since its voxels were counted: sources are "
                "read-only while a job runs; start the job again"
            )
        z, y, x = np.unravel_index(found[rank - before], box.shape)
        return (box.start[0] + int(z), box.start[1] + int(y), box.start[2] + int(x))


@dataclass(frozen=True, eq=False)
class SiteIndex:
    """Sites (points), each an object of one voxel.

    Attributes:
        voxels: int64 [g, 3], the voxel of each site that an allowed crop can contain.
    """

    voxels: Voxels

    @classmethod
    def of(cls, voxels: Voxels, starts: Starts, shape: Vec) -> SiteIndex:
        """Return the index of the voxels that some crop of `shape` contains."""
        return cls(np.array([v for v in voxels if starts.holding(v, shape).count], np.int64).reshape(-1, 3))

    @property
    def count(self) -> int:
        """Number of sites."""
        return len(self.voxels)

    def draw(self, rng: np.random.Generator, number: int | None = None) -> Vec:
        """Return the voxel of site `number` (default: a random one, all alike); reads nothing."""
        z, y, x = self.voxels[int(rng.integers(self.count)) if number is None else number].tolist()
        return (z, y, x)


def index_voxels(groups: Groups, starts: Starts, shape: Vec, rows: int = _ROWS) -> VoxelIndex:
    """Count the voxels of each group that an allowed crop can contain, in one pass.

    Args:
        groups: how voxels are grouped.
        starts: the allowed starts.
        shape: of the crops.
        rows: most rows of the table; while the labels are read it may hold twice as many.

    Raises:
        InputError: the labels are not integers or an id is 2^63 or more, or the table passes its limit even with
            large cells.
    """
    _require_integers(groups.labels)
    cell = (_CELL, _CELL, _CELL)
    table = np.zeros((0, 5), np.int64)
    pending: list[Voxels] = []
    size = 0
    for piece in _pieces(groups, starts, shape):
        piece[:, 1:4] //= np.array(cell) // _CELL
        pending.append(piece)
        size += len(piece)
        if size > rows:
            table, pending = _merged(np.concatenate([table, *pending])), []
            while len(table) > rows:
                cell, table = _doubled(cell, table, groups, rows)
            size = 0
    table = _merged(np.concatenate([table, *pending]))
    while len(table) > rows:
        cell, table = _doubled(cell, table, groups, rows)
    ids, first, per_group = np.unique(table[:, 0], return_index=True, return_counts=True)
    ends = np.cumsum(table[:, 4])
    ends -= np.repeat(ends[first] - table[first, 4], per_group)
    bounds = np.append(first, len(table)).astype(np.int64)
    return VoxelIndex(groups, starts, shape, cell, ids, bounds, table[:, 1:4].copy(), ends)


def _require_integers(labels: Volume) -> None:
    if labels.info.dtype.kind not in "ui" or labels.info.channels is not None:
        raise InputError(
            f"{labels.info.source} holds {labels.info.dtype} ({labels.info.axes}): crops can be drawn by label "
            "only from a zyx volume of integers"
        )


def _doubled(cell: Vec, table: Voxels, groups: Groups, rows: int) -> tuple[Vec, Voxels]:
    if cell[0] >= _LARGEST_CELL:
        raise InputError(
            f"{groups.labels.info.source} has more than {rows:,} pairs of an object and a cell of {cell} voxels: "
            "name the ids to draw from, or draw by voxel instead of by object"
        )
    table[:, 1:4] //= 2
    return (cell[0] * 2, cell[1] * 2, cell[2] * 2), _merged(table)


def _merged(table: Voxels) -> Voxels:
    """Return rows (group, cell zyx, voxels) sorted, rows of one group and cell added up."""
    order = np.lexsort((table[:, 3], table[:, 2], table[:, 1], table[:, 0]))
    table = table[order]
    new = np.ones(len(table), bool)
    new[1:] = (table[1:, :4] != table[:-1, :4]).any(axis=1)
    out: Voxels = table[new]
    if len(table):
        out[:, 4] = np.add.reduceat(table[:, 4], np.flatnonzero(new))
    return out


def _pieces(groups: Groups, starts: Starts, shape: Vec) -> Iterator[Voxels]:
    """Iterate over rows (group, cell zyx, voxels) of the first lattice, one read after the other."""
    for _, box in cells(starts.hull(shape), _READ):
        if is_blank(groups.labels if groups.mask is None else groups.mask, box):
            continue
        reachable = starts.covered(shape, box)
        if reachable.any():
            ids, indexed = groups.read(box)
            indexed &= reachable
            if indexed.any():
                yield _counted(ids, indexed, box, groups.labels.info.source)


def _counted(ids: NDArray[Any], indexed: NDArray[np.bool_], box: Box, source: str) -> Voxels:
    """Return rows (group, cell zyx, voxels) of one block."""
    first = np.array([a // _CELL for a in box.start])
    z, y, x = (np.arange(a, b) // _CELL - f for a, b, f in zip(box.start, box.stop, first, strict=True))
    extent = (int(z[-1]) + 1, int(y[-1]) + 1, int(x[-1]) + 1)
    cell = ((z[:, None] * extent[1] + y)[:, :, None] * extent[2] + x)[indexed]
    names, local = _compact(ids[indexed])
    if int(names.max()) >= 2**63:
        raise InputError(f"{source} holds the id {int(names.max())}: ids lie below 2^63; relabel them first")
    key = local * prod(extent) + cell
    # A tally is linear, but as long as the largest key; labels with nearly an id per voxel are sorted instead.
    tally = len(names) * prod(extent) <= 4 * len(key)
    keys, counts = _tallied(key) if tally else np.unique(key, return_counts=True)
    where = np.stack(np.unravel_index(keys % prod(extent), extent), axis=1) + first
    return np.column_stack([names[keys // prod(extent)].astype(np.int64), where, counts])


def _compact(ids: NDArray[Any]) -> tuple[NDArray[Any], Voxels]:
    """Return (distinct ids ascending, position of each id among them)."""
    if ids.dtype.kind == "u":
        names, local = fastremap.unique(ids, return_inverse=True)
    else:  # fastremap 1.21 writes out of bounds for signed ids
        names, local = np.unique(ids, return_inverse=True)
    return names, local.astype(np.int64)


def _tallied(key: Voxels) -> tuple[Voxels, Voxels]:
    counts = np.bincount(key)
    keys = np.flatnonzero(counts)
    return keys, counts[keys]
