"""A lattice of patches: boxes of one shape at regular steps, counted from one origin everywhere.

Convention: patch ``i`` (three integers, z, y, x) begins at voxel ``origin + i * stride`` and holds ``shape``
voxels. The origin belongs to the volume, not to a block of it: whoever predicts a part of the volume predicts
the same patches, so blocks leave no gap between their patches and no patch is judged twice::

    lattice.starts(lattice.inside(a)) and lattice.starts(lattice.inside(b))   agree where a and b overlap
    lattice.indices(lattice.starts(box)) == the indices of the box, z, y, x order, x fastest

A **map** of the lattice is an array with one voxel per patch. The centre of a voxel of it lies at the centre of
its patch (`map_grid`), so it lies over the image in every viewer::

    map voxel k   <->   patch first + k        Lattice.of_map(lattice.map_grid(grid, first), grid, shape)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.box import Box, Vec, as_vec
from emloom.geometry.grid import TOLERANCE_VOX, Grid, Vec3

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lattice:
    """Where patches lie; see the module.

    Args:
        shape: voxels (z, y, x) of a patch.
        stride: voxels (z, y, x) from one patch to the next.
        origin: first voxel (z, y, x) of patch (0, 0, 0), in voxels of the volume.

    Raises:
        InputError: an extent or a step is below 1, or a value is not a whole number.
    """

    shape: Vec
    stride: Vec
    origin: Vec = (0, 0, 0)

    def __post_init__(self) -> None:
        for name in ("shape", "stride", "origin"):
            object.__setattr__(self, name, as_vec(getattr(self, name)))
        if min(self.shape) < 1 or min(self.stride) < 1:
            raise InputError(
                f"a lattice of patches {self.shape} every {self.stride} voxels: give at least 1 (z, y, x)"
            )

    def inside(self, box: Box) -> Box:
        """Return the indices of all patches that lie wholly in a box of voxels; empty where none fits."""
        low, high = [], []
        for a, b, size, step, origin in zip(
            box.start, box.stop, self.shape, self.stride, self.origin, strict=True
        ):
            first = -((origin - a) // step)
            low.append(first)
            high.append(max(first, (b - size - origin) // step + 1))
        return Box.of(low, high)

    def starts(self, indices: Box) -> Rows:
        """Return the first voxels of the patches of a box of indices; int64 [N, 3] in z, y, x order, x fastest."""
        axes = [np.arange(a, b, dtype=np.int64) for a, b in zip(indices.start, indices.stop, strict=True)]
        every = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
        return self.starts_of(every)

    def starts_of(self, indices: Rows) -> Rows:
        """Return the first voxel of each patch, int64 [N, 3], of indices [N, 3]."""
        found: Rows = indices * np.array(self.stride) + np.array(self.origin)
        return found

    def indices(self, starts: Rows) -> Rows:
        """Return the index of each patch, int64 [N, 3], of first voxels [N, 3].

        Raises:
            InputError: a patch does not lie on the lattice.
        """
        steps, rest = np.divmod(np.asarray(starts, np.int64).reshape(-1, 3) - np.array(self.origin), self.stride)
        off = np.flatnonzero(rest.any(axis=1))
        if off.size:
            raise InputError(
                f"the patch that begins at {np.asarray(starts)[off[0]].tolist()} (z, y, x) is not on the lattice "
                f"of origin {self.origin} and stride {self.stride}: give the lattice that the patches were taken "
                "from"
            )
        return steps.astype(np.int64)

    def map_grid(self, grid: Grid, first: Vec = (0, 0, 0)) -> Grid:
        """Return the grid of a map with one voxel per patch, whose voxel (0, 0, 0) is patch `first`.

        Args:
            grid: voxel size and offset of the volume.
            first: index of the patch of the map's first voxel.
        """
        start = self.starts_of(np.array([first]))[0].tolist()
        corner = [s + (size - step) / 2 for s, size, step in zip(start, self.shape, self.stride, strict=True)]
        z, y, x = (size * step for size, step in zip(grid.voxel_size_nm, self.stride, strict=True))
        return Grid((z, y, x), grid.to_world(corner))

    @classmethod
    def of_map(cls, map_grid: Grid, grid: Grid, shape: Vec) -> Lattice:
        """Return the lattice of a map; its origin is the patch of the map's voxel (0, 0, 0).

        Args:
            map_grid: voxel size and offset of the map.
            grid: voxel size and offset of the volume that the patches are of.
            shape: voxels (z, y, x) of a patch.

        Raises:
            InputError: the map's voxels are no whole number of the volume's, or patches would begin between
                voxels.
        """
        stride = _whole([m / g for m, g in zip(map_grid.voxel_size_nm, grid.voxel_size_nm, strict=True)])
        corner = grid.to_voxel(map_grid.offset_nm)
        origin = (
            None
            if stride is None
            else _whole([c - (size - step) / 2 for c, size, step in zip(corner, shape, stride, strict=True)])
        )
        if stride is None or origin is None:
            raise InputError(
                f"a map of voxels {_spelled(map_grid.voxel_size_nm)} at {_spelled(map_grid.offset_nm)} nm is no "
                f"map of patches {tuple(shape)} of voxels {_spelled(grid.voxel_size_nm)} nm: its voxels are "
                "whole steps, and their centres those of patches; state the patch and the voxel size it was "
                "made with"
            )
        return cls(as_vec(shape), stride, origin)


def _whole(values: list[float]) -> Vec | None:
    """Return values as whole numbers, None where one is off by more than rounding."""
    z, y, x = (floor(v + 0.5) for v in values)
    close = all(abs(v - n) <= TOLERANCE_VOX * max(1.0, abs(n)) for v, n in zip(values, (z, y, x), strict=True))
    return (z, y, x) if close else None


def _spelled(values: Vec3) -> str:
    return ", ".join(f"{v:g}" for v in values)
