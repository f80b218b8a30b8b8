"""Cutting a box into blocks of work on one global lattice.

Cells lie on the lattice ``k * cell_shape`` of absolute voxels, whatever box is processed, so two jobs over
different boxes agree on where a cell begins. A block owns its *write* box (write boxes tile the total box: every
voxel once) and sees its *read* box, the write box grown by the halo::

        read  ┌───────────────┐
              │  write ┌────┐ │      write boxes never overlap; read boxes do
              │        └────┘ │
              └───────────────┘

`fit` says what happens to cells that stick out of the total box:

* ``shrink``: the write box is clipped to the total box (default);
* ``overhang``: the write box keeps its full shape and may leave the total box;
* ``valid``: such cells are dropped, so a rim of the total box is not covered.

Law: for ``shrink``, cutting the total box into parts anywhere and tiling the parts yields the same cells, clipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from emloom.errors import InputError
from emloom.geometry.box import Box, Vec, as_vec

Fit = Literal["shrink", "overhang", "valid"]


@dataclass(frozen=True, slots=True)
class Block:
    """One unit of work.

    Attributes:
        index: lattice position (z, y, x) of the cell; the same for any total box.
        write: the voxels this block alone writes.
        read: the write box grown by the halo; may leave the volume, where the task says how to pad.
    """

    index: Vec
    write: Box
    read: Box


def cells(total: Box, cell_shape: int | Sequence[int], fit: Fit = "shrink") -> Iterator[tuple[Vec, Box]]:
    """Iterate over (lattice index, box) of every cell that meets `total`, in z, y, x order; none if it is empty.

    Raises:
        InputError: a cell extent is below 1, or `fit` is unknown.
    """
    cell = as_vec(cell_shape)
    if min(cell) < 1:
        raise InputError(f"cell shape {cell} has an extent below 1 voxel")
    if fit not in ("shrink", "overhang", "valid"):
        raise InputError(f"fit {fit!r} is unknown: use 'shrink', 'overhang' or 'valid'")
    return _cells(total, cell, fit)


def _cells(total: Box, cell: Vec, fit: Fit) -> Iterator[tuple[Vec, Box]]:
    if total.is_empty:
        return
    ranges = [range(a // c, -(-b // c)) for a, b, c in zip(total.start, total.stop, cell, strict=True)]
    for z, y, x in product(*ranges):
        box = Box((z * cell[0], y * cell[1], x * cell[2]), cell)
        if fit == "shrink":
            box = box.intersect(total)
        elif fit == "valid" and not total.contains(box):
            continue
        yield (z, y, x), box


def blocks(
    total: Box, cell_shape: int | Sequence[int], halo: int | Sequence[int] = 0, fit: Fit = "shrink"
) -> list[Block]:
    """Return the blocks that cover `total`, in z, y, x order.

    Args:
        total: the voxels to process.
        cell_shape: voxels per block (z, y, x).
        halo: voxels read around each write box (z, y, x), not negative.
        fit: what to do with cells that stick out of `total`; see the module.

    Raises:
        InputError: a cell extent is below 1, the halo is negative, or `fit` is unknown.
    """
    margin = as_vec(halo)
    if min(margin) < 0:
        raise InputError(f"halo {margin} is negative: a block reads at least what it writes")
    return [Block(index, box, box.grow(margin)) for index, box in cells(total, cell_shape, fit)]
