"""The stack that is aligned, section by section, with what of it can be used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.grid import Vec3
from emloom.geometry.stackmap import Frame
from emloom.io.open import open_volume
from emloom.io.volume import Volume
from emloom.tasks.lattice import common_box
from emloom.tasks.qcmask import open_avoid

_AT_ONCE = 1 << 28  # bytes of sections that are read together: a chunk holds several sections


@dataclass(frozen=True)
class Source:
    """A raw stack and the mask of what is bad in it.

    Attributes:
        raw: path.
        voxel_size_nm: where the file does not state it.
        avoid: folder of `emloom qc`, or a mask that is not 0 where voxels are bad; None: all are good.
    """

    raw: str
    voxel_size_nm: Vec3 | None = None
    avoid: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # What is open stays here: workers open it themselves.
        return Source, (self.raw, self.voxel_size_nm, self.avoid)

    @cached_property
    def volume(self) -> Volume:
        """Open the raw.

        Raises:
            InputError: it has channels, one section, or pixels that are not square.
        """
        volume = open_volume(self.raw, voxel_size_nm=self.voxel_size_nm, kind="raw")
        info = volume.info
        if info.channels is not None:
            raise InputError(
                f"{self.raw} has {info.channels} channels: align one, then apply its map to the others"
            )
        if info.shape[0] < 2:
            raise InputError(
                f"{self.raw} has {info.shape[0]} section (shape {info.shape}): there is nothing to align it with; "
                "sections are those along z"
            )
        _, y, x = info.grid.voxel_size_nm
        if abs(y - x) > 1e-6 * y:
            raise InputError(
                f"{self.raw} has pixels of {y} x {x} nm (y, x): a section is turned and bent in square pixels; "
                "resample it, or state the right --voxel-size"
            )
        return volume

    @property
    def frame(self) -> Frame:
        """Shape and grid of the raw."""
        return Frame(self.volume.info.shape, self.volume.info.grid)

    @cached_property
    def mask(self) -> tuple[Volume, Box] | None:
        """What is bad, and the part of it that the raw covers; None where nothing is known."""
        if self.avoid is None:
            return None
        bad = open_avoid(self.avoid)
        return bad, common_box(self.volume, bad)

    def sections(self, start: int, stop: int) -> Iterator[tuple[int, NDArray[Any], NDArray[np.bool_] | None]]:
        """Iterate over z, the section [Y, X], and where it can be used, bool [Y, X]; None: everywhere."""
        _, rows, columns = self.volume.info.shape
        depth = max(1, _AT_ONCE // (rows * columns * self.volume.info.dtype.itemsize))
        for first in range(start, stop, depth):
            box = Box((first, 0, 0), (min(depth, stop - first), rows, columns))
            raw = self.volume.read(box)
            good = None
            if self.mask is not None:
                bad, where = self.mask
                good = bad.read(box.shift(where.start)) == 0
            for k, section in enumerate(raw):
                yield first + k, section, None if good is None else good[k]
