"""Coarser levels of a volume: what every format that has them must be able to do.

`emloom.tasks.pyramid` computes the values of levels and knows no format; a format gives it an `Image`, which names
levels, makes them empty in a hidden folder, and tells its readers about them. ::

    image.create(folder, levels)      folder/1, folder/2: stored as the finest is, nobody lists them
    image.withdraw()                  the image says that it has its finest level alone; older levels are deleted
    (the task renames folder/1, folder/2 to image.folder/1, image.folder/2)
    image.announce(levels)            one atomic write: the image has these levels

Where a level lies. Formats that keep any offset (zarr, N5) cut windows from the first voxel of the finest level:
all levels share its corner. Formats that place volumes by whole voxels (precomputed, wkw) cannot say where such a
corner is at a coarser level, so there windows lie on the lattice of the world, as webKnossos has it, and a level
holds every coarse voxel that touches the volume. Its first and last windows then hold fewer fine voxels::

    fine voxels of the world     0 1|2 3|4 5|6 7|            factor 2
    volume [3, 7)                     3|4 5|6
    level  [1, 4)                   1 | 2 | 3 |              phase 1: its corner is one fine voxel lower

On the lattice of the world the result does not depend on where somebody cut the volume out.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from emloom.geometry import Box, Grid, Vec
from emloom.io.volume import Volume, VolumeInfo


@dataclass(frozen=True)
class Level:
    """One coarser level.

    Attributes:
        name: its path inside the image.
        box: its voxels, counted from where the finest level counts (`Image.start`).
        grid: its voxel size and the corner of its first voxel.
        factors: voxels (z, y, x) of the level before per voxel.
        total: voxels (z, y, x) of the finest level per voxel.
        phase: voxels (z, y, x) by which its corner lies before that of the level before; less than `factors`.
    """

    name: str
    box: Box
    grid: Grid
    factors: Vec
    total: Vec
    phase: Vec

    @property
    def shape(self) -> Vec:
        """Its extents (z, y, x)."""
        return self.box.shape

    def info(self, finest: VolumeInfo) -> VolumeInfo:
        """Return what its volume says about itself."""
        info = finest.with_(shape=self.shape, grid=self.grid)
        # The mean of affinities over (p, p + offset) is about no pair of coarse voxels: it states no kind.
        return info.with_(kind=None, neighborhood=None) if finest.neighborhood is not None else info

    def place_in(self, folder: Path) -> Path:
        """Return where `Image.create` makes this level, which then is renamed to its place in the image."""
        return folder / self.name.replace("/", "_")


class Image(Protocol):
    """A volume on a local disk that can have coarser levels; how, its format knows."""

    @property
    def folder(self) -> Path:
        """Where levels are, by their names."""

    @property
    def finest(self) -> Volume:
        """The finest level."""

    @property
    def array(self) -> Path:
        """Folder of the values of the finest level."""

    @property
    def levels(self) -> list[str]:
        """Paths of the levels below the folder, finest first."""

    @property
    def start(self) -> Vec:
        """First voxel of the finest level on the lattice whose windows become coarse voxels."""

    @property
    def chunks_on_world(self) -> bool:
        """Whether chunks lie on that lattice, too; else they begin at the first voxel of each level."""

    def name_of(self, number: int, total: Vec, grid: Grid) -> str:
        """Return the name of coarser level `number` (1, 2, ...); raises `InputError` where it cannot be."""

    def create(self, folder: Path, levels: Sequence[Level]) -> list[Volume]:
        """Make levels of zeros, each at its `place_in` a folder; what is there already is kept."""

    def withdraw(self) -> None:
        """Make the finest level the only one, and delete the others that lie inside the image."""

    def announce(self, levels: Sequence[Level], method: str | None) -> None:
        """Say in one step that the image has its finest level and these, all at their places."""


def delete_levels(image: Image) -> None:
    """Delete the folders of all levels but the finest, as far as they lie inside the image."""
    for name in image.levels[1:]:
        folder = (image.folder / name).resolve()
        if image.folder.resolve() in folder.parents and folder != image.array.resolve():
            shutil.rmtree(folder, ignore_errors=True)
