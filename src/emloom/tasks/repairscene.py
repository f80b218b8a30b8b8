"""The opened inputs of a repair: the stack, what quality control says about it, labels; section by section."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.stackmap import Frame
from emloom.io.open import open_volume
from emloom.io.stackmaps import NAME as MAP_NAME
from emloom.io.tables import read_table
from emloom.io.volume import Volume, VolumeInfo
from emloom.ops.sections import VOID_VOX, void_windows
from emloom.tasks.lattice import common_box
from emloom.tasks.qcmap import SECTIONS
from emloom.tasks.qcmask import ALIGNED, OUTSIDE, is_qc, is_repair, open_avoid
from emloom.tasks.qcspec import CODES
from emloom.tasks.repairspec import RepairJob

ALIGNED_RAW = "raw.zarr"


def aligned_folder(raw: str) -> Path | None:
    """Return the folder of `emloom align` that a job names as its raw, None where it names a volume.

    Raises:
        InputError: it is not finished, or was repaired already.
    """
    folder = Path(raw)
    if "://" in raw or not (folder / ALIGNED_RAW).is_dir():
        return None
    if is_repair(raw):
        raise InputError(
            f"{raw} was repaired already, and what it invented would be taken for measured: repair what it was "
            "made of again, with all sections named"
        )
    whole = [folder / "map" / MAP_NAME, folder / ALIGNED, folder / OUTSIDE]
    if not all(part.exists() for part in whole):
        raise InputError(f"{raw} is not finished: run the same `emloom align` again, it goes on where it stopped")
    return folder


def raw_of(raw: str) -> str:
    """Return the volume that a job repairs."""
    folder = aligned_folder(raw)
    return raw if folder is None else str(folder / ALIGNED_RAW)


_VOID = (CODES["blank"], CODES["crack"])


@dataclass(frozen=True)
class RepairScene:
    """The inputs of a job.

    Attributes:
        job: what is repaired.
        qc: folder of `emloom qc` of the raw, None: nothing is known.
    """

    job: RepairJob
    qc: str | None

    def __reduce__(self) -> tuple[Any, ...]:
        # What is open stays here: workers open it themselves.
        return RepairScene, (self.job, self.qc)

    @cached_property
    def raw(self) -> Volume:
        """Open the stack; raises `InputError` for channels, an empty stack, or values that are no grey values."""
        path = raw_of(self.job.raw)
        volume = open_volume(path, voxel_size_nm=self.job.voxel_size_nm, kind="raw")
        info = volume.info
        if info.channels is not None:
            raise InputError(f"{path} has {info.channels} channels: repair one stack of grey values at a time")
        if info.box.is_empty:
            raise InputError(f"{path} holds no voxel (shape {info.shape})")
        if info.dtype.kind not in "iuf" or (info.dtype.kind in "iu" and info.dtype.itemsize > 2):
            raise InputError(f"{path} holds {info.dtype}: grey values are integers of 8 or 16 bits, or floats")
        return volume

    @property
    def info(self) -> VolumeInfo:
        """What the stack says about itself."""
        return self.raw.info

    @property
    def frame(self) -> Frame:
        """Shape and grid of the stack."""
        return Frame(self.info.shape, self.info.grid)

    @cached_property
    def labels(self) -> Volume | None:
        """Open the labels; raises `InputError` where they are no ids, or not on the grid of the raw."""
        if self.job.labels is None:
            return None
        volume = open_volume(self.job.labels, kind="labels")
        own, other = volume.info, self.info
        if own.channels is not None or own.dtype.kind not in "iu":
            raise InputError(f"{self.job.labels} is {own.axes} of {own.dtype}: labels are zyx ids, whole numbers")
        if own.shape != other.shape or not own.grid.matches(other.grid):
            one, two = (
                f"{i.shape} voxels of {i.grid.voxel_size_nm} nm at {i.grid.offset_nm} nm" for i in (own, other)
            )
            raise InputError(
                f"{self.job.labels} ({one}) is not on the grid of {other.source} ({two}): crop or resample it, or "
                "move it as the raw was moved (emloom align apply)"
            )
        return volume

    @cached_property
    def _bad(self) -> tuple[Volume, Box] | None:
        if self.qc is None:
            return None
        if not is_qc(self.qc):
            raise InputError(f"{self.qc} is no folder of `emloom qc`: make one of {self.info.source}")
        bad = open_avoid(self.qc)
        return bad, common_box(self.raw, bad)

    def defects(self) -> dict[int, list[str]]:
        """Return what quality control found in sections, by their number here; {} where nobody looked."""
        if self._bad is None:
            return {}
        table = read_table(Path(str(self.qc)) / SECTIONS)
        first = self._bad[1].start[0]
        pairs = zip(table["z"].tolist(), table["defects"].tolist(), strict=True)
        found = {int(z) - first: str(words).split() for z, words in pairs}
        return {z: words for z, words in found.items() if words and 0 <= z < self.info.shape[0]}

    def section_box(self, z: int) -> Box:
        """Return the box of a section."""
        return Box((z, 0, 0), (1, *self.info.shape[1:]))

    def grey(self, z: int) -> NDArray[Any]:
        """Return a section [Y, X]."""
        section: NDArray[Any] = self.raw.read(self.section_box(z))[0]
        return section

    @cached_property
    def _outside(self) -> Volume | None:
        return None if aligned_folder(self.job.raw) is None else open_avoid(self.job.raw)

    def reached(self, box: Box) -> NDArray[np.bool_]:
        """Return where sections of an aligned stack reach; everywhere in one that was not moved."""
        if self._outside is None:
            return np.ones(box.shape, np.bool_)
        reached: NDArray[np.bool_] = self._outside.read(box) == 0
        return reached

    def codes(self, box: Box) -> NDArray[np.uint8] | None:
        """Return the codes of defects in a box, 0 where there is none; None where nobody looked.

        Quality control judges tiles; of those that are void for the most part, only what is void is bad.
        """
        if self._bad is None:
            return None
        bad, where = self._bad
        codes: NDArray[np.uint8] = bad.read(box.shift(where.start)).astype(np.uint8)
        for k, section in enumerate(codes):
            partly = np.isin(section, _VOID)
            if partly.any():
                place = Box((box.start[0] + k, *box.start[1:]), (1, *box.shape[1:]))
                section[partly & ~self._void(place)] = 0
        return codes

    def _void(self, box: Box) -> NDArray[np.bool_]:
        """Return which pixels of a box of one section lie in windows of one value, whichever box is asked for."""
        wide = Box.of(
            (box.start[0], *(v // VOID_VOX * VOID_VOX for v in box.start[1:])),
            (box.stop[0], *(-(-v // VOID_VOX) * VOID_VOX for v in box.stop[1:])),
        ).intersect(self.info.box)
        windows = void_windows(self.raw.read(wide)[0])
        pixels = np.repeat(np.repeat(windows, VOID_VOX, 0), VOID_VOX, 1)
        return pixels[box.slices(wide.start)[1:]]

    def usable(self, z: int) -> NDArray[np.bool_] | None:
        """Return where a section shows tissue, bool [Y, X]; None: everywhere."""
        box = self.section_box(z)
        codes = None if z in self.job.sections.good else self.codes(box)
        usable = self.reached(box)[0]
        if codes is not None:
            usable &= codes[0] == 0
        return None if usable.all() else usable

    def ids(self, z: int) -> NDArray[Any] | None:
        """Return the labels of a section [Y, X]; None where there are none."""
        return None if self.labels is None else self.labels.read(self.section_box(z))[0]
