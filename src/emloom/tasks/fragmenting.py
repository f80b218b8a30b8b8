"""Fragments of one cell of a volume of affinities, whatever their kind.

A whole volume in memory and a block in a cluster call the same functions with the same cells, so they get the same
ids: 1 + the linear index, in the whole volume, of a voxel of the fragment.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec, cells
from emloom.io.volume import Volume, VolumeInfo, borrow
from emloom.ops.fragments import Seeding, name_pieces, seeded_fragments
from emloom.tasks.segmentspec import SeededSpec

Ids = NDArray[np.uint64]


def seeded_cell(affinities: Volume, mask: Volume | None, write: Box, spec: SeededSpec) -> Ids:
    """Return the seeded fragments of a cell: flooded with a halo, cropped, and named by their pieces.

    Args:
        affinities: uint8 ``czyx`` with their neighborhood.
        mask: zero where nothing may be segmented.
        write: the cell, or what of it lies in the volume.
        spec: the parameters.
    """
    info = affinities.info
    read = write.grow(halo_of(spec)).intersect(info.box)
    fragments = seeded_fragments(
        borrow(affinities, read),
        neighborhood_of(info),
        info.grid.voxel_size_nm,
        Seeding(spec.threshold, spec.seed_distance_vox, spec.per_section),
        mask_ZYX=None if mask is None else borrow(mask, read),
        origin=read.start,
        total_shape=info.shape,
    )
    if read == write and not spec.min_size_vox:
        return fragments  # nothing was cut
    return name_pieces(fragments[write.slices(read.start)], write.start, info.shape, spec.min_size_vox)


def seeded_whole(affinities: Volume, mask: Volume | None, cell_shape: Vec, spec: SeededSpec) -> Ids:
    """Return the seeded fragments of a whole volume, cell by cell."""
    out = np.zeros(affinities.info.shape, np.uint64)
    for _, write in cells(affinities.info.box, cell_shape):
        out[write.slices()] = seeded_cell(affinities, mask, write, spec)
    return out


def halo_of(spec: SeededSpec) -> Vec:
    """Return how many voxels (z, y, x) of affinities a cell sees around itself."""
    return (0 if spec.per_section else spec.halo_vox, spec.halo_vox, spec.halo_vox)


def neighborhood_of(info: VolumeInfo) -> tuple[Vec, ...]:
    """Return the offsets of affinities; `emloom.tasks.segment` has checked that there are some."""
    assert info.neighborhood is not None, info.source
    return info.neighborhood


def read_mask(mask: Volume | None, box: Box) -> NDArray[Any] | None:
    """Return the mask in a box, None where everything may be segmented."""
    return None if mask is None else borrow(mask, box)
