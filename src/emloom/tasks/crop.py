"""`emloom crop in out --box z0:z1,y0:y1,x0:x1`: copy a box of a volume, verified, to where it was in the world.

The offset of the copy is the corner of the box: ``offset_out = offset_in + z0,y0,x0 * voxel_size``, so a point of
the world is at the same place in both. A box in nm is grown to whole voxels::

    voxels      |     |     |     |     |
    asked            [~~~~~~~~~]
    cropped     [~~~~~~~~~~~~~~~~~]
"""

from __future__ import annotations

from math import ceil, floor
from typing import Self

from pydantic import model_validator

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.geometry.grid import TOLERANCE_VOX, Vec3
from emloom.io.open import open_volume
from emloom.io.volume import Kind
from emloom.spec import Spec
from emloom.tasks.convert import ConvertReport, ConvertSpec, Progress, convert


class CropSpec(Spec):
    """Copy a box of a volume; either voxels or nm."""

    source: str
    """What to read."""
    target: str
    """Where to write; must not exist."""
    start: Vec | None = None
    """First voxel (z, y, x) of the box."""
    stop: Vec | None = None
    """First voxel (z, y, x) after the box."""
    start_nm: Vec3 | None = None
    """World position (z, y, x) in nm where the box begins."""
    stop_nm: Vec3 | None = None
    """World position (z, y, x) in nm where the box ends."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm; needed where the source does not state it, and must agree where it does."""
    kind: Kind | None = None
    """What the values mean, where the source does not say."""
    chunk_vox: Vec = (64, 64, 64)
    """Voxels (z, y, x) per chunk of the target."""

    @model_validator(mode="after")
    def _one_box(self) -> Self:
        voxels, lengths = (self.start, self.stop), (self.start_nm, self.stop_nm)
        if (None in voxels) == (None in lengths) or any((a is None) != (b is None) for a, b in (voxels, lengths)):
            raise ValueError("a crop needs one box: start and stop in voxels, or start_nm and stop_nm")
        return self


def crop(spec: CropSpec, progress: Progress | None = None) -> ConvertReport:
    """Copy a box of a volume into any format that can be written, and verify the copy.

    Raises:
        InputError: the box is empty or leaves the volume, or whatever `convert` refuses. Nothing is left behind.
    """
    source = open_volume(spec.source, voxel_size_nm=spec.voxel_size_nm, kind=spec.kind)
    copy = ConvertSpec(
        source=spec.source,
        target=spec.target,
        voxel_size_nm=spec.voxel_size_nm,
        kind=spec.kind,
        chunk_vox=spec.chunk_vox,
    )
    return convert(copy, progress, _box(spec, source.info.grid))


def _box(spec: CropSpec, grid: Grid) -> Box:
    if spec.start is not None and spec.stop is not None:
        start, stop = spec.start, spec.stop
    else:
        start, stop = voxels_around(grid, spec.start_nm or (0, 0, 0), spec.stop_nm or (0, 0, 0))
    if any(a >= b for a, b in zip(start, stop, strict=True)):
        raise InputError(f"the box from {start} to {stop} is empty: each range ends after it begins, z, y, x")
    return Box.of(start, stop)


def voxels_around(grid: Grid, start_nm: Vec3, stop_nm: Vec3) -> tuple[Vec, Vec]:
    """Return (first voxel, first voxel after) of the smallest box of whole voxels around an interval in nm."""
    low = [floor(v + TOLERANCE_VOX) for v in grid.to_voxel(start_nm)]
    high = [ceil(v - TOLERANCE_VOX) for v in grid.to_voxel(stop_nm)]
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])
