"""A volume seen through a stack map: any box of the target, reading of the source only what it needs.

::

    target box           sections of the source
    z'=7  ┌────┐              z=8    ┌─ ─ ─┐
    z'=6  │    │    ◄──       z=7   ┌─ ─ ─┐      read together, where the box around all
    z'=5  └────┘              z=6  ┌─ ─ ─┐       is little more than they need

A voxel of the target depends on the map and on the source alone, never on the box that was asked for. The volume
may cover a part of the map's source, on its voxels; elsewhere, and where the target shows nothing, is `fill`. What
of the volume lies outside the map's source is not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.stackmap import Frame, StackMap
from emloom.io.volume import Volume, VolumeInfo, check_box
from emloom.ops.warp import Method, Window, moved_section, pixels_needed
from emloom.tasks.lattice import start_between

Array = NDArray[Any]
_LARGEST_WASTE = 1.5  # voxels read together per voxel needed


@dataclass(frozen=True)
class _Section:
    """One section to be made: its number, and the voxels of the volume that it needs, all of its home.

    Not its map: the fields of many sections together may be larger than the voxels.
    """

    z: int
    needs: Box


@dataclass(frozen=True)
class MoveScene:
    """A volume and where its voxels go.

    Attributes:
        volume: what is moved.
        stackmap: from the frame in which the volume lies to the one in which it is wanted.
        start: voxel of the map's source at which the volume begins.
        method: linear for grey values and probabilities, nearest for ids.
        fill: of what shows nothing.
        symmetric: the volume goes on beyond its faces in y and x, mirrored, instead.
    """

    volume: Volume
    stackmap: StackMap
    start: Vec
    method: Method
    fill: float = 0
    symmetric: bool = False

    @classmethod
    def of(
        cls, volume: Volume, stackmap: StackMap, method: Method, *, fill: float = 0, symmetric: bool = False
    ) -> MoveScene:
        """Return the scene of a volume.

        Raises:
            InputError: the volume has other voxels than the map, or shares none with the map's source.
        """
        info, frame = volume.info, frame_info(stackmap.source)
        start = start_between(info, frame)
        if not Box(start, info.shape).meets(frame.box):
            raise InputError(
                f"{info.source} covers {Box(start, info.shape)} of {frame.source}, which is only {frame.box}: "
                "it has nothing to be moved; check its offset, and whether it is to be applied or inverted"
            )
        return cls(volume, stackmap, start, method, fill, symmetric)

    @property
    def usable(self) -> Box:
        """The voxels of the map's source that the volume has."""
        return Box(self.start, self.volume.info.shape).intersect(self.stackmap.source.box)

    def read(self, box: Box) -> Array:
        """Return the voxels ``[C,]ZYX`` of a box of the map's target."""
        info = self.volume.info
        out = np.full(info.shape_of(box), self.fill, info.dtype)
        window = Window((box.start[1], box.start[2]), (box.shape[1], box.shape[2]))
        for group in self._groups(self._sections(box, window)):
            hull = group[0].needs
            for section in group[1:]:
                hull = hull.hull(section.needs)
            values = self.volume.read(hull.shift(tuple(-v for v in self.start)))
            for section in group:
                z, y, x = section.needs.slices(hull.start)
                out[..., section.z - box.start[0], :, :] = moved_section(
                    values[..., z.start, y, x],
                    (section.needs.start[1], section.needs.start[2]),
                    self.stackmap.map(section.z),
                    window,
                    self.method,
                    fill=self.fill,
                    mirror=self._mirror,
                )
        return out

    @property
    def _mirror(self) -> Window | None:
        (_, y, x), (_, height, width) = self.usable
        return Window((y, x), (height, width)) if self.symmetric else None

    def _sections(self, box: Box, window: Window) -> Iterator[_Section]:
        """Iterate over the sections of a box that show something of the volume there."""
        usable = self.usable
        frame = self.stackmap.target.shape[0]
        for z in range(max(box.start[0], 0), min(box.stop[0], frame)):
            home = self.stackmap.home(z)
            if home is None or not usable.start[0] <= home < usable.stop[0]:
                continue
            found = pixels_needed(self.stackmap.map(z), window, self._mirror)
            if found is None:
                continue
            needs = Box.of((home, *found.start), (home + 1, *found.stop)).intersect(usable)
            if not needs.is_empty:
                yield _Section(z, needs)

    def _groups(self, sections: Iterator[_Section]) -> Iterator[list[_Section]]:
        """Gather sections whose reads are worth being one."""
        group: list[_Section] = []
        hull, needed = Box((0, 0, 0), (0, 0, 0)), 0
        for section in sections:
            wider, more = hull.hull(section.needs), needed + section.needs.size
            if group and wider.size > _LARGEST_WASTE * more:
                yield group
                group, wider, more = [], section.needs, section.needs.size
            group.append(section)
            hull, needed = wider, more
        if group:
            yield group


@dataclass(frozen=True)
class Footprint:
    """Where a stack map shows its source, as a read-only volume: uint8, 1 where a section reaches, else 0.

    Attributes:
        stackmap: whose target it lies in.
        source: path shown in messages.
    """

    stackmap: StackMap
    source: str = "the footprint of a map"

    @property
    def info(self) -> VolumeInfo:
        """As of a mask that fills the target of the map."""
        return frame_info(self.stackmap.target, self.source).with_(kind="mask")

    def read(self, box: Box) -> Array:
        """Return 1 where a section reaches."""
        check_box(self.info, box)
        everywhere = _Ones(frame_info(self.stackmap.source, self.source))
        return MoveScene.of(everywhere, self.stackmap, "nearest").read(box)

    def write(self, box: Box, array: Array) -> None:
        """Raise `InputError`: it is computed."""
        raise InputError(f"{self.source} follows from a map and cannot be written: write to a mask of your own")


@dataclass(frozen=True)
class _Ones:
    """A volume that is 1 everywhere."""

    info: VolumeInfo

    def read(self, box: Box) -> Array:
        return np.ones(box.shape, np.uint8)

    def write(self, box: Box, array: Array) -> None:
        raise InputError(f"{self.info.source} is computed and cannot be written")


def frame_info(frame: Frame, source: str = "the frame of the map") -> VolumeInfo:
    """Return what a volume that fills a frame would say about itself."""
    return VolumeInfo(frame.shape, np.dtype(np.uint8), frame.grid, source=source)
