"""Which segment lies under every node of a tracing: looked up chunk by chunk, each chunk read once.

A node lies in the voxel ``floor((position - offset) / voxel size)``: the offset is the *corner* of voxel (0, 0,
0), and a position on a face belongs to the voxel above it (`emloom.geometry.grid`). What is held in memory is a
chunk and the nodes, whatever the size of the volume, and which chunks a volume has changes nothing::

    node_segments(volume, skeletons).segments == whole[voxels of the nodes]

Looked up once in the *fragments*, a LUT gives the segments of every threshold (`emloom.metrics.runlength`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.skeletons import Skeletons, voxels_containing
from emloom.io.checks import require_labels
from emloom.io.volume import Volume, VolumeInfo, borrow

Ids = NDArray[np.uint64]
Rows = NDArray[np.int64]

_CHUNK = (64, 64, 64)  # where a format has none
_LARGEST = 1 << 27  # voxels held at once: a shard may be larger


@dataclass(frozen=True, eq=False)
class NodeSegments:
    """The segment under every node.

    Attributes:
        segments: uint64 [N], 0 in background and outside the volume.
        outside: bool [N], nodes outside the volume; all False unless they were to be omitted.
    """

    segments: Ids
    outside: NDArray[np.bool_]

    @property
    def n_outside(self) -> int:
        """Nodes outside the volume."""
        return int(self.outside.sum())


def node_segments(
    volume: Volume, skeletons: Skeletons, *, outside: Literal["error", "omit"] = "error"
) -> NodeSegments:
    """Return the segment under every node.

    Args:
        volume: labels, any unsigned type.
        skeletons: nodes in nm, in the world of the volume's grid.
        outside: `error` refuses nodes outside the volume; `omit` gives them segment 0, so their edges count as
            omitted, and reports them. To leave them out of the path instead: `skeletons.restricted(~outside)`.

    Raises:
        InputError: the volume holds no labels, `outside` is unknown, or nodes lie outside and that is an error.
    """
    if outside not in ("error", "omit"):
        raise InputError(f"outside={outside!r} is unknown: use 'error' or 'omit'")
    info = require_labels(volume)
    voxels = voxels_containing(info.grid, skeletons.positions_nm)
    away: NDArray[np.bool_] = np.any((voxels < 0) | (voxels >= np.array(info.shape)), axis=1)
    if outside == "error" and away.any():
        raise InputError(_strangers(info, skeletons, voxels, np.flatnonzero(away)))
    segments = np.zeros(len(voxels), np.uint64)
    inside = np.flatnonzero(~away)
    for rows, box in by_chunk(info, voxels[inside]):
        z, y, x = (voxels[inside[rows]] - np.array(box.start)).T
        segments[inside[rows]] = borrow(volume, box)[z, y, x]
    return NodeSegments(segments, away)


def _cell(info: VolumeInfo) -> Vec:
    """Return the chunk, halved along its longest axis until it fits."""
    cell = list(info.chunks or _CHUNK)
    while prod(cell) > _LARGEST:
        longest = cell.index(max(cell))
        cell[longest] = -(-cell[longest] // 2)
    return (cell[0], cell[1], cell[2])


def by_chunk(info: VolumeInfo, voxels: Rows) -> Iterator[tuple[Rows, Box]]:
    """Yield the rows of the voxels in each chunk, and the box around them, in z, y, x order of chunks."""
    chunk = voxels // np.array(_cell(info))
    order = np.lexsort(chunk.T[::-1])
    changes = (np.diff(chunk[order], axis=0) != 0).any(axis=1)
    for rows in np.split(order, np.flatnonzero(changes) + 1):
        if rows.size:
            yield rows, Box.of(voxels[rows].min(axis=0).tolist(), (voxels[rows].max(axis=0) + 1).tolist())


def _strangers(info: VolumeInfo, skeletons: Skeletons, voxels: Rows, away: Rows) -> str:
    row = int(away[0])
    name = f"node {skeletons.node_ids[row]} of skeleton {skeletons.ids[skeletons.skeletons[row]]}"
    return (
        f"{skeletons.source}: {name} at {skeletons.positions_nm[row].tolist()} nm (z, y, x) is voxel "
        f"{voxels[row].tolist()} of {info.source}, which has {info.shape} voxels of {info.grid.voxel_size_nm} nm "
        f"from {info.grid.offset_nm} nm on; {len(away)} of {len(voxels)} nodes lie outside: check the unit and "
        "the offset, crop the tracing, or have such nodes counted as omitted"
    )
