"""How volumes that are written block by block are laid out, and what must lie on the grid of what."""

from __future__ import annotations

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.io.open import open_volume
from emloom.io.volume import Volume

_LARGEST_CHUNK = 64


def chunk_within(cell: Vec) -> Vec:
    """Return a chunk shape of which cells are whole multiples: the largest divisors up to 64.

    Two workers that write different cells then never share a chunk, and a killed one never leaves half of another's.
    """
    z, y, x = (max(d for d in range(1, min(n, _LARGEST_CHUNK) + 1) if n % d == 0) for n in cell)
    return (z, y, x)


def on_grid_of(volume: Volume, mask_path: str) -> Volume:
    """Open a mask; raises `InputError` unless it has the grid and the shape of the volume."""
    info = volume.info
    mask = open_volume(mask_path, kind="mask")
    if not mask.info.grid.matches(info.grid) or mask.info.shape != info.shape:
        raise InputError(
            f"{mask_path} ({mask.info.shape} voxels of {mask.info.grid.voxel_size_nm} nm at {mask.info.grid.offset_nm} "
            f"nm) is not on the grid of {info.source} ({info.shape} voxels of {info.grid.voxel_size_nm} nm at "
            f"{info.grid.offset_nm} nm): crop or resample the mask"
        )
    return mask
