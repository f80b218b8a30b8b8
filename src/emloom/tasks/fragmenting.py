"""Fragments of one cell of a volume of affinities, whatever their kind.

A whole volume in memory and a block on a cluster call the same functions with the same cells, so they get the same
ids: 1 + the linear index, in the whole volume, of a voxel of the fragment.

Seeded and mutex fragments are made in each cell with a halo, cropped, and named by their pieces; so a face between
cells is a face between fragments, which agglomeration merges. Ascending paths go on from cell to cell: see
`emloom.ops.exits`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec, cells
from emloom.io.volume import Volume, VolumeInfo, borrow
from emloom.ops.ascent import Ascent, Paths, ascend, ascent_fragments
from emloom.ops.fragments import Seeding, name_pieces, seeded_fragments
from emloom.ops.mutex import Mutex, mutex_fragments
from emloom.tasks.segmentspec import AscentSpec, FragmentSpec, MutexSpec, SeededSpec, SegmentSpec

Ids = NDArray[np.uint64]


def fragments_whole(affinities: Volume, mask: Volume | None, spec: SegmentSpec) -> Ids:
    """Return the fragments of a whole volume, uint64 ZYX, 0 is background."""
    info, kind = affinities.info, spec.fragments
    if isinstance(kind, AscentSpec):
        mask_ZYX = _mask_in(mask, info.box)
        return ascent_fragments(borrow(affinities, info.box), offsets_of(info), ascent_of(kind), mask_ZYX=mask_ZYX)
    out = np.zeros(info.shape, np.uint64)
    for _, write in cells(info.box, spec.cell):
        out[write.slices()] = cut_cell(affinities, mask, write, kind)
    return out


def cut_cell(affinities: Volume, mask: Volume | None, write: Box, spec: SeededSpec | MutexSpec) -> Ids:
    """Return the seeded or mutex fragments of a cell, which end at its faces.

    Args:
        affinities: uint8 ``czyx`` with their neighborhood.
        mask: zero where nothing may be segmented.
        write: the cell, or what of it lies in the volume.
        spec: the parameters.
    """
    info = affinities.info
    if _is_empty(mask, write):
        return np.zeros(write.shape, np.uint64)
    read = write.grow(halo_of(spec)).intersect(info.box)
    values, mask_ZYX = borrow(affinities, read), _mask_in(mask, read)
    place: dict[str, Any] = {"mask_ZYX": mask_ZYX, "origin": read.start, "total_shape": info.shape}
    if isinstance(spec, MutexSpec):
        fragments = mutex_fragments(values, offsets_of(info), mutex_of(spec), **place)
    else:
        seeding = Seeding(spec.threshold, spec.seed_distance_vox, spec.per_section)
        fragments = seeded_fragments(values, offsets_of(info), info.grid.voxel_size_nm, seeding, **place)
    if read == write and not spec.min_size_vox:
        return fragments  # nothing was cut
    return name_pieces(fragments[write.slices(read.start)], write.start, info.shape, spec.min_size_vox)


def ascent_cell(affinities: Volume, mask: Volume | None, write: Box, spec: AscentSpec) -> Paths:
    """Return where the voxels of a cell point; following them gives its fragments."""
    info, params = affinities.info, ascent_of(spec)
    if _is_empty(mask, write):
        return Paths.nowhere(write, info.shape)
    read = write.grow(params.halo).intersect(info.box)
    return ascend(
        borrow(affinities, read),
        offsets_of(info),
        params,
        write=write,
        origin=read.start,
        total_shape=info.shape,
        mask_ZYX=_mask_in(mask, read),
    )


def halo_of(spec: FragmentSpec) -> Vec:
    """Return how many voxels (z, y, x) of affinities a cell sees around itself."""
    if isinstance(spec, AscentSpec):
        return ascent_of(spec).halo
    return (0 if spec.per_section else spec.halo_vox, spec.halo_vox, spec.halo_vox)


def ascent_of(spec: AscentSpec) -> Ascent:
    """Return the parameters of the kernel."""
    return Ascent(spec.smoothing_vox, spec.least_affinity, spec.background, spec.per_section)


def mutex_of(spec: MutexSpec) -> Mutex:
    """Return the parameters of the kernel; small fragments are dropped later, when they were cropped."""
    return Mutex(round(255 * spec.bias), spec.repulsive_stride_vox, spec.per_section)


def offsets_of(info: VolumeInfo) -> tuple[Vec, ...]:
    """Return the neighborhood of affinities; that there is one was checked when they were opened."""
    assert info.neighborhood is not None, info.source
    return info.neighborhood


def _mask_in(mask: Volume | None, box: Box) -> NDArray[Any] | None:
    return None if mask is None else borrow(mask, box) != 0


def _is_empty(mask: Volume | None, box: Box) -> bool:
    return mask is not None and not borrow(mask, box).any()
