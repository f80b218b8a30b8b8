"""How volumes that are written block by block are laid out, and what must lie on the grid of what."""

from __future__ import annotations

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.io.volume import Volume, VolumeInfo
from emloom.tasks.qcmask import Usable, open_usable

_LARGEST_CHUNK = 64


def chunk_within(cell: Vec) -> Vec:
    """Return a chunk shape of which cells are whole multiples: the largest divisors up to 64.

    Workers that write different cells then never share a chunk, and a killed one leaves no half of another's.
    """
    z, y, x = (max(d for d in range(1, min(n, _LARGEST_CHUNK) + 1) if n % d == 0) for n in cell)
    return (z, y, x)


def on_grid_of(volume: Volume, mask_path: str) -> Volume:
    """Open a mask, not 0 where voxels can be used.

    Raises:
        InputError: it has not the grid and the shape of the volume; that of `emloom qc` may cover more.
    """
    info = volume.info
    mask = open_usable(mask_path)
    if isinstance(mask, Usable):
        return mask.within(common_box(volume, mask))
    if not mask.info.grid.matches(info.grid) or mask.info.shape != info.shape:
        own, other = (
            f"{i.shape} voxels of {i.grid.voxel_size_nm} nm at {i.grid.offset_nm} nm" for i in (mask.info, info)
        )
        raise InputError(
            f"{mask_path} ({own}) is not on the grid of {info.source} ({other}): crop or resample the mask"
        )
    return mask


def common_box(part: Volume, whole: Volume) -> Box:
    """Return where `part` lies in `whole`, in voxels of `whole`.

    Raises:
        InputError: voxel sizes differ, `part` is off the voxel lattice of `whole`, or it leaves it.
    """
    a, b = part.info, whole.info
    box = Box(start_in(part, whole), a.shape)
    if not b.box.contains(box):
        raise InputError(f"{a.source} covers {box} of {b.source}, which is only {b.box}: crop it first")
    return box


def start_in(part: Volume, whole: Volume) -> Vec:
    """Return the voxel of `whole`, inside it or not, at which `part` begins.

    Raises:
        InputError: voxel sizes differ, or `part` is off the voxel lattice of `whole`.
    """
    return start_between(part.info, whole.info)


def start_between(part: VolumeInfo, whole: VolumeInfo) -> Vec:
    """Return what `start_in` does, of what two volumes say about themselves."""
    z, y, x = (round(v) for v in whole.grid.to_voxel(part.grid.offset_nm))
    if not whole.grid.crop(Box((z, y, x), part.shape)).matches(part.grid):
        raise InputError(
            f"{part.source} (voxel size {part.grid.voxel_size_nm} nm at {part.grid.offset_nm} nm) is not on the "
            f"voxel grid of {whole.source} ({whole.grid.voxel_size_nm} nm at {whole.grid.offset_nm} nm): resample "
            "one of them"
        )
    return (z, y, x)
