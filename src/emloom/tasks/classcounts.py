"""What is counted of classified blocks: whole numbers, so that blocks add up to the volume.

::

    OUT.zarr/counts/z_y_x.parquet    kind, a, b, c, n, total

    kind 0   a label, b confidence          n voxels that have both
    kind 1   a rule, b before/after, c axis n faces of the surface, total violating ones
    kind 2   a likeliest, b label           n voxels that a rule gave another class
    kind 3   a, b, c first voxel of a tile  n its decided voxels, total their summed confidence; the least
    confident
    kind 4   a, b, c first voxel of a square n voxels that a rule changed there; the squares with most
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec
from emloom.io.tables import read_table, write_table
from emloom.ops.decide import UNDECIDED
from emloom.ops.enclosure import Enclosure, enclosure_faces
from emloom.run.blockjournal import name_of

TILE_VOX = (16, 64, 64)
"""Voxels (z, y, x) of a place whose mean confidence is looked at."""
SQUARE_VOX = (1, 64, 64)
"""Voxels (z, y, x) of a place where what rules changed is shown."""
PLACES = 8
"""Least confident places, and squares with most changes, that a block remembers, and that are listed of all."""

_KEYS = ("kind", "a", "b", "c", "n", "total")
_CONFIDENCE, _FACES, _CHANGED, _PLACE, _REPAIRED = range(5)

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class BlockLabels:
    """What was decided of a block.

    Attributes:
        likeliest: uint8 [Z, Y, X], the class of the highest probability.
        labels: the same after rules, and undecided where that was asked for.
        confidence: uint8, see `emloom.ops.decide`.
    """

    likeliest: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    confidence: NDArray[np.uint8]


@dataclass(frozen=True)
class Place:
    """A tile with little confidence.

    Attributes:
        box: its voxels.
        confidence: mean over its decided voxels, 0 to 1.
    """

    box: Box
    confidence: float


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """What was counted of all blocks.

    Attributes:
        confidence: int64 [256, 256], voxels by label and confidence.
        faces: int64 [rules, 2, 2, 3]: before and after the repair, surface and violating, along z, y, x.
        changed: int64 [256, 256], voxels by likeliest class and the label that a rule gave.
        places: the least confident ones, least first.
        repaired: squares in which rules changed most, with how many voxels, most first.
    """

    confidence: Rows
    faces: Rows
    changed: Rows
    places: tuple[Place, ...]
    repaired: tuple[tuple[Box, int], ...]


def counts_file(folder: Path, index: Vec) -> Path:
    """Return the file of a block's counts."""
    return folder / "counts" / f"{name_of(index)}.parquet"


def count_block(path: Path, found: BlockLabels, own: Box, start: Vec, rules: Sequence[Enclosure]) -> None:
    """Count the voxels of a block and write them.

    Args:
        path: file to write.
        found: the block with what was read around it.
        own: the block in that.
        start: its first voxel in the volume.
        rules: whose faces are counted.
    """
    inner = own.slices()
    labels, confidence, likeliest = found.labels[inner], found.confidence[inner], found.likeliest[inner]
    rows = [_pairs(_CONFIDENCE, labels, confidence)]
    for number, rule in enumerate(rules):
        for after, array in enumerate((found.likeliest, found.labels)):
            surface, violating = enclosure_faces(array, rule, own)
            rows += [_row(_FACES, (number, after, axis), surface[axis], violating[axis]) for axis in range(3)]
    at = (labels != likeliest) & (labels != UNDECIDED)
    rows += [_pairs(_CHANGED, likeliest[at], labels[at]), _places(labels, confidence, start), _repaired(at, start)]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, dict(zip(_KEYS, np.concatenate(rows, axis=1), strict=True)))


def read_counts(paths: Iterable[Path], rules: int = 0) -> ClassCounts:
    """Return the sum of the counts of all blocks.

    Args:
        paths: one file per block.
        rules: how many rules were counted.
    """
    confidence, changed = np.zeros((256, 256), np.int64), np.zeros((256, 256), np.int64)
    faces = np.zeros((rules, 2, 2, 3), np.int64)
    places, squares = np.zeros((6, 0), np.int64), np.zeros((6, 0), np.int64)
    for path in paths:
        table = read_table(path)
        rows = np.stack([table[key] for key in _KEYS])
        kind = rows[0]
        for which, into in ((_CONFIDENCE, confidence), (_CHANGED, changed)):
            _, a, b, _, n, _ = rows[:, kind == which]
            np.add.at(into, (a, b), n)
        _, rule, after, axis, surface, violating = rows[:, kind == _FACES]
        np.add.at(faces, (rule, after, 0, axis), surface)
        np.add.at(faces, (rule, after, 1, axis), violating)
        places = _least(np.concatenate([places, rows[:, kind == _PLACE]], axis=1))
        squares = _most(np.concatenate([squares, rows[:, kind == _REPAIRED]], axis=1))
    least = [
        Place(Box((int(z), int(y), int(x)), TILE_VOX), float(total) / (255 * int(n)))
        for _, z, y, x, n, total in places.T
    ]
    most = [(Box((int(z), int(y), int(x)), SQUARE_VOX), int(n)) for _, z, y, x, n, _ in squares.T]
    return ClassCounts(confidence, faces, changed, tuple(least), tuple(most))


def _row(kind: int, key: Sequence[int], n: int, total: int) -> Rows:
    return np.array([[kind], *([k] for k in key), [n], [total]], np.int64)


def _pairs(kind: int, first: NDArray[np.uint8], second: NDArray[np.uint8]) -> Rows:
    pairs = np.bincount(first.ravel().astype(np.int64) * 256 + second.ravel(), minlength=1)
    at = np.flatnonzero(pairs)
    zeros = np.zeros(len(at), np.int64)
    return np.stack([zeros + kind, at // 256, at % 256, zeros, pairs[at], zeros])


def _places(labels: NDArray[np.uint8], confidence: NDArray[np.uint8], start: Vec) -> Rows:
    """Return the least confident tiles of a block that are at least half decided."""
    decided = labels != UNDECIDED
    n = _tile_sums(decided.astype(np.int64), start, TILE_VOX)
    total = _tile_sums(np.where(decided, confidence, 0).astype(np.int64), start, TILE_VOX)
    half = prod(min(t, s) for t, s in zip(TILE_VOX, labels.shape, strict=True))
    return _least(_tiles(_PLACE, 2 * n >= half, (n, total), start, TILE_VOX))


def _repaired(changed: NDArray[np.bool_], start: Vec) -> Rows:
    """Return the squares of a block with most changes."""
    n = _tile_sums(changed.astype(np.int64), start, SQUARE_VOX)
    return _most(_tiles(_REPAIRED, n > 0, (n, np.zeros_like(n)), start, SQUARE_VOX))


def _tiles(kind: int, which: NDArray[np.bool_], sums: tuple[Rows, Rows], start: Vec, tile: Vec) -> Rows:
    at = np.nonzero(which)
    firsts = [(s // t + i) * t for i, s, t in zip(at, start, tile, strict=True)]
    return np.stack([np.full(len(at[0]), kind), *firsts, sums[0][at], sums[1][at]])


def _tile_sums(values: Rows, start: Vec, tile: Vec) -> Rows:
    """Return sums over the tiles of the lattice of a volume that a block meets."""
    for axis, (s, t) in enumerate(zip(start, tile, strict=True)):
        edges = np.arange(-(s % t), values.shape[axis], t).clip(0)
        values = np.add.reduceat(values, edges, axis=axis)
    return values


def _least(rows: Rows) -> Rows:
    order = np.lexsort((rows[3], rows[2], rows[1], rows[5] / np.maximum(rows[4], 1)))
    return rows[:, order[:PLACES]]


def _most(rows: Rows) -> Rows:
    order = np.lexsort((rows[3], rows[2], rows[1], -rows[4]))
    return rows[:, order[:PLACES]]
