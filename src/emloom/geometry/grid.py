"""The grid of a volume: which point of the world a voxel stands for.

Convention: `offset_nm` is the world position of the *corner* of voxel (0, 0, 0); voxel ``v`` fills
``[offset + v * voxel_size, offset + (v + 1) * voxel_size)`` and its centre lies half a voxel further.

Algebra::

    grid.containing(grid.to_world(v)) == v         a corner belongs to the voxel above it (half-open)
    grid.containing(grid.centre(v)) == v
    grid.to_voxel(grid.to_world(v)) ~= v           up to the rounding of floats
    grid.crop(box).to_world(v) ~= grid.to_world(v + box.start)

Rounding: 0.3 / 0.1 is a hair below 3, so a face computed in nm may land on either side of itself. Positions and
lengths within `TOLERANCE_VOX` of a face therefore count as lying on it, the same tolerance under which two grids
match.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isclose, isfinite

from emloom.errors import InputError
from emloom.geometry.box import Box, Vec

Vec3 = tuple[float, float, float]

TOLERANCE_VOX = 1e-6
"""Distance, in voxels, below which a position lies *on* a face and two grids are the same."""


def as_nm(value: Sequence[float], what: str) -> Vec3:
    """Return three finite floats (z, y, x).

    Raises:
        InputError: not three values, or one is not finite.
    """
    try:
        out = [float(v) for v in value]
    except (TypeError, ValueError) as problem:
        raise InputError(f"{what} {value!r} is not three numbers: give z, y, x in nm") from problem
    if len(out) != 3:
        raise InputError(f"{what} {tuple(out)!r} has {len(out)} values: give three, z, y, x in nm")
    if not all(isfinite(v) for v in out):
        raise InputError(f"{what} {tuple(out)!r} is not finite: give z, y, x in nm")
    return (out[0], out[1], out[2])


@dataclass(frozen=True, slots=True)
class Grid:
    """Voxel size and offset: the map between voxels and nanometres.

    Args:
        voxel_size_nm: edge length of a voxel (z, y, x) in nm; floats, positive.
        offset_nm: world position (z, y, x) in nm of the corner of voxel (0, 0, 0).

    Raises:
        InputError: a value is missing, not finite, or a voxel size is not positive.
    """

    voxel_size_nm: Vec3
    offset_nm: Vec3 = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "voxel_size_nm", as_nm(self.voxel_size_nm, "voxel size"))
        object.__setattr__(self, "offset_nm", as_nm(self.offset_nm, "offset"))
        if min(self.voxel_size_nm) <= 0:
            raise InputError(
                f"voxel size {self.voxel_size_nm} nm is not positive: give z, y, x in nm, e.g. 40,4,4"
            )

    def to_world(self, voxel: Sequence[float]) -> Vec3:
        """Return the world position (nm) of a voxel coordinate; integers are voxel corners."""
        z, y, x = (o + v * s for o, v, s in zip(self.offset_nm, voxel, self.voxel_size_nm, strict=True))
        return (z, y, x)

    def to_voxel(self, world_nm: Sequence[float]) -> Vec3:
        """Return the continuous voxel coordinate of a world position (nm)."""
        z, y, x = ((w - o) / s for o, w, s in zip(self.offset_nm, world_nm, self.voxel_size_nm, strict=True))
        return (z, y, x)

    def centre(self, voxel: Vec) -> Vec3:
        """Return the world position (nm) of the centre of a voxel."""
        return self.to_world([v + 0.5 for v in voxel])

    def containing(self, world_nm: Sequence[float]) -> Vec:
        """Return the voxel that contains a world position (nm); a position on a face belongs to the voxel above.

        Raises:
            InputError: the position is not three finite numbers.
        """
        position = as_nm(world_nm, "position")
        z, y, x = (floor(v + TOLERANCE_VOX) for v in self.to_voxel(position))
        return (z, y, x)

    def crop(self, box: Box) -> Grid:
        """Return the grid of a volume cut out at `box`: its voxel (0, 0, 0) is this grid's voxel `box.start`."""
        return Grid(self.voxel_size_nm, self.to_world(box.start))

    def matches(self, other: Grid) -> bool:
        """Whether both grids have the same voxels, up to float rounding in stored metadata (`TOLERANCE_VOX`)."""
        sizes = zip(self.voxel_size_nm, other.voxel_size_nm, strict=True)
        offsets = zip(self.offset_nm, other.offset_nm, self.voxel_size_nm, strict=True)
        return all(isclose(a, b, rel_tol=TOLERANCE_VOX) for a, b in sizes) and all(
            abs(a - b) <= TOLERANCE_VOX * size for a, b, size in offsets
        )

    def voxels(self, length_nm: float) -> Vec:
        """Return how many whole voxels are needed to span a length along z, y, x (rounded up).

        Raises:
            InputError: the length is negative or not finite.
        """
        if not (isfinite(length_nm) and length_nm >= 0):
            raise InputError(f"length {length_nm} nm is not a length: give a finite number of nm, at least 0")
        z, y, x = (ceil(length_nm / s - TOLERANCE_VOX) for s in self.voxel_size_nm)
        return (z, y, x)
