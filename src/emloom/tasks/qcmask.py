"""What later stages ask of quality control and of repair: where voxels can be used.

A mask, wherever one is asked for, may be a folder of `emloom qc`: then voxels can be used where nothing was found.
Its own mask says the opposite, as `marks.avoid` wants it: the code of a defect, 0 where there is none. The same
holds for a folder of `emloom repair`, whose `invented.zarr` says what was not measured (`repairspec.INVENTED`),
and for one of `emloom align`, whose `outside.zarr` is 1 where a section does not reach. ::

    --mask tissue.zarr     usable where it is not 0
    --mask qc/             usable where qc/mask.zarr is 0
    --mask fixed/          usable where fixed/invented.zarr is 0
    --mask aligned/        usable where aligned/outside.zarr is 0
    avoid: qc/             avoided where qc/mask.zarr is not 0
    avoid: fixed/          avoided where fixed/invented.zarr is not 0
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.grid import Vec3
from emloom.io.open import open_volume
from emloom.io.volume import Volume, VolumeInfo, check_box
from emloom.tasks.qcspec import CODES
from emloom.tasks.repairspec import BEYOND

SUMMARY = "qc.json"
"""Written last: a folder that has it is whole."""
MASK = "mask.zarr"
REPAIRED = "repair.json"
"""Written last by `emloom repair`."""
INVENTED_VOLUME = "invented.zarr"
ALIGNED = "align.json"
"""Written last by `emloom align`."""
OUTSIDE = "outside.zarr"


@dataclass(frozen=True)
class _Marks:
    """A kind of folder that says which voxels are not to be believed; `outside` those that no section reaches."""

    volume: str
    summary: str
    command: str
    outside: int


_QC = _Marks(MASK, SUMMARY, "emloom qc", CODES["outside"])
_REPAIR = _Marks(INVENTED_VOLUME, REPAIRED, "emloom repair", BEYOND)
_ALIGN = _Marks(OUTSIDE, ALIGNED, "emloom align", 1)


def is_qc(path: str) -> bool:
    """Whether a path is a folder that `emloom qc` wrote, or began to write."""
    return _has(path, _QC)


def is_repair(path: str) -> bool:
    """Whether a path is a folder that `emloom repair` wrote, or began to write."""
    return _has(path, _REPAIR)


def _has(path: str, marks: _Marks) -> bool:
    return "://" not in path and (Path(path) / marks.volume).is_dir()


def _marks_of(path: str) -> _Marks | None:
    return next((marks for marks in (_QC, _REPAIR, _ALIGN) if _has(path, marks)), None)


def source_of(path: str | None) -> str | None:
    """Return what decides about a mask: of a folder its mask, for its report may be written again."""
    marks = None if path is None else _marks_of(path)
    return path if path is None or marks is None else str(Path(path) / marks.volume)


def open_usable(path: str, voxel_size_nm: Vec3 | None = None) -> Volume:
    """Open a mask, not 0 where voxels can be used; a folder of `emloom qc`, `repair` or `align` is turned round.

    Raises:
        InputError: there is none, or what makes the folder is not finished.
    """
    if _marks_of(path) is None:
        return open_volume(path, voxel_size_nm=voxel_size_nm, kind="mask")
    bad = open_avoid(path)
    return Usable(bad, bad.info.box)


def open_avoid(path: str, voxel_size_nm: Vec3 | None = None) -> Volume:
    """Open a mask, not 0 where voxels are to be avoided: a volume, or that of a folder of qc, repair or align.

    Raises:
        InputError: there is none, or what makes the folder is not finished.
    """
    marks = _marks_of(path)
    if marks is None:
        return open_volume(path, voxel_size_nm=voxel_size_nm, kind="mask")
    if not (Path(path) / marks.summary).is_file():
        raise InputError(
            f"{path} is not finished: run the same `{marks.command}` again, it goes on where it stopped"
        )
    return open_volume(Path(path) / marks.volume)


def outside_code(path: str) -> int | None:
    """Return the value of such a mask where the sections do not reach; None where a mask does not tell.

    There is no tissue to be seen and none to be missed, as beyond a face of the stack.
    """
    marks = _marks_of(path)
    return None if marks is None else marks.outside


@dataclass(frozen=True)
class Usable:
    """Where a mask of what is bad is 0, as a read-only volume: uint8, 1 where voxels can be used.

    Attributes:
        bad: codes of defects or of what is invented, 0 where there is none.
        box: the part of it that is seen.
    """

    bad: Volume
    box: Box

    @property
    def info(self) -> VolumeInfo:
        """As of that part of the mask."""
        info = self.bad.info
        return info.with_(
            shape=self.box.shape, grid=info.grid.crop(self.box), dtype=np.dtype(np.uint8), kind="mask", chunks=None
        )

    def within(self, box: Box) -> Usable:
        """Return a part of it."""
        return Usable(self.bad, box.shift(self.box.start))

    def read(self, box: Box) -> NDArray[Any]:
        """Return 1 where voxels can be used."""
        check_box(self.info, box)
        good: NDArray[np.uint8] = (self.bad.read(box.shift(self.box.start)) == 0).astype(np.uint8)
        return good

    def write(self, box: Box, array: NDArray[Any]) -> None:
        """Raise `InputError`: it is a view."""
        raise InputError(f"{self.info.source} is seen through quality control: write to a mask of your own")
