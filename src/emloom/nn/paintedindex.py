"""An index of painted voxels: all of them in a list, group after group, so that a draw reads nothing.

Of a volume full of labels such a list would be as large as the volume (`emloom.nn.voxelindex`); painted pieces
hold few voxels, wherever they lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Vec
from emloom.nn.painted import KnownVolume, PaintedVolume
from emloom.nn.rules import is_one_of
from emloom.nn.starts import Starts, Voxels
from emloom.nn.voxelindex import Groups, VoxelIndex, index_voxels

_MOST = 1 << 24  # voxels of pieces: 200 MB


@dataclass(frozen=True, eq=False)
class PaintedIndex:
    """The painted voxels of each group that a crop can contain.

    Attributes:
        ids: int64 [g], the groups, ascending.
        first: int64 [g + 1], the voxels of group i are ``first[i] : first[i + 1]``.
        voxels: int32 [n, 3].
    """

    ids: Voxels
    first: Voxels
    voxels: NDArray[np.int32]

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.ids)

    @property
    def sizes(self) -> Voxels:
        """int64 [g], voxels of each group."""
        return np.diff(self.first)

    def draw(self, rng: np.random.Generator, number: int | None = None) -> Vec:
        """Return a random voxel of group `number` (default: a random group, all alike)."""
        group = int(rng.integers(self.count)) if number is None else number
        z, y, x = self.voxels[int(rng.integers(self.first[group], self.first[group + 1]))].tolist()
        return (z, y, x)


def index_groups(groups: Groups, starts: Starts, shape: Vec) -> VoxelIndex | PaintedIndex:
    """Return the index of groups: a list where they are painted and few, else counts of cells.

    Args:
        groups: how voxels are grouped.
        starts: the allowed starts.
        shape: of the crops.

    Raises:
        InputError: as `index_voxels`.
    """
    labels, mask = groups.labels, groups.mask
    if not isinstance(labels, PaintedVolume) or not isinstance(mask, KnownVolume) or mask.painted is not labels:
        return index_voxels(groups, starts, shape)
    if sum(piece.size for piece in labels.pieces) > _MOST:
        return index_voxels(groups, starts, shape)
    voxels, ids = labels.voxels()
    if groups.ids is not None:
        indexed = is_one_of(ids, groups.ids)
    else:
        indexed = np.ones(len(ids), bool) if groups.background else ids != 0
    indexed &= _reachable(voxels, starts, shape)
    voxels = voxels[indexed]
    number = np.ones(len(voxels), np.int64) if groups.merged else ids[indexed].astype(np.int64)
    order = np.argsort(number, kind="stable")
    found, first = np.unique(number[order], return_index=True)
    return PaintedIndex(found, np.append(first, len(order)), voxels[order].astype(np.int32))


def _reachable(voxels: Voxels, starts: Starts, shape: Vec) -> NDArray[np.bool_]:
    """Return which voxels some crop contains."""
    out = np.zeros(len(voxels), bool)
    for box in starts.boxes():
        out |= ((voxels >= box.start) & (voxels < np.array(box.stop) + shape - 1)).all(axis=1)
    return out
