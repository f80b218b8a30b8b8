"""What `emloom confidence` looks at, as a value."""

from __future__ import annotations

from math import ceil
from typing import Annotated

from pydantic import Field

from emloom.geometry import Grid, Vec
from emloom.spec import Spec

CELL_VOX = 256
"""Voxels along an axis of a cell, about: whole tiles."""


class ConfidenceJob(Spec):
    """Say how far to trust a segmentation, and where to look first (`emloom confidence`)."""

    segmentation: str
    """Container that `emloom segment` wrote, cut at a threshold."""
    output: str
    """Folder to be made."""
    prediction: str | None = None
    """Affinities that were segmented; None: where the segmentation says they are."""
    second: str | None = None
    """Other affinities of the same voxels, such as those of more orientations; None: none."""
    masks: tuple[str, ...] = ()
    """Where data are bad: folders of `emloom qc`, `repair` or `align`, or volumes that are not 0 there."""
    raw: str | None = None
    """For pictures."""
    tile_nm: Annotated[float, Field(gt=0)] = 128.0
    """Length of a side of the tiles of which confidence is told."""
    least_vox: int = Field(default=500, ge=1)
    """Choices whose smaller side has fewer voxels are not listed, and smaller segments are no orphans."""
    places: int = Field(default=200, ge=1)
    """Most places of the list."""

    def tile(self, grid: Grid) -> Vec:
        """Return the voxels of a tile (z, y, x)."""
        z, y, x = (max(1, round(self.tile_nm / size)) for size in grid.voxel_size_nm)
        return z, y, x

    def cell(self, grid: Grid) -> Vec:
        """Return the voxels of a cell (z, y, x): whole tiles."""
        z, y, x = (side * ceil(CELL_VOX / side) for side in self.tile(grid))
        return z, y, x
