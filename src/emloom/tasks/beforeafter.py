"""Parts of a stack and of what came of it, at one place of the world, small enough to be drawn.

A stack may have any size: from the side, a few rows of some hundred sections are read, as boxes of a few sections
at a time; of a section, what can be drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.io.volume import Volume
from emloom.ops.downsample import downsample_mean
from emloom.view.alignfigures import Plane, stretched
from emloom.view.figures import Figure
from emloom.view.flicker import flicker

SIDE_PX = 384
"""Pixels of a picture along a side, about."""
_AT_ONCE_VOX = 1 << 24  # that are read together
_FRAMES, _FRAME_PX, _FRAME_NM = 8, 300, 2400.0  # of a moving picture
_SMOOTH_NM = 12.0  # across a view from the side, noise is averaged so far


@dataclass(frozen=True)
class Window:
    """A part of all sections of a volume.

    Attributes:
        start: first pixel (y, x); may lie outside.
        shape: pixels along y and x.
    """

    start: tuple[int, int]
    shape: tuple[int, int]


@dataclass(frozen=True)
class Pair:
    """A stack before and after.

    Attributes:
        before: the source.
        after: the result, with voxels of the same size.
        homes: per section of the result the section of the source that it shows.
    """

    before: Volume
    after: Volume
    homes: tuple[int | None, ...]

    @property
    def spacing_nm(self) -> tuple[float, float, float]:
        """Voxel size (z, y, x)."""
        return self.after.info.grid.voxel_size_nm

    def middle(self) -> tuple[int, int]:
        """Return the pixel (y, x) of the result in the middle of what both volumes cover."""
        place = self._away()
        low = [max(0, -d) for d in place]
        stop = [
            min(n, m - d)
            for n, m, d in zip(self.after.info.shape[1:], self.before.info.shape[1:], place, strict=True)
        ]
        y, x = (
            (a + b) // 2 if b > a else n // 2 for a, b, n in zip(low, stop, self.after.info.shape[1:], strict=True)
        )
        return y, x

    def _away(self) -> tuple[int, int]:
        """Return the pixel (y, x) of the source at which the result's pixel (0, 0) lies in the world."""
        corner = self.before.info.grid.to_voxel(self.after.info.grid.offset_nm)
        return round(corner[1]), round(corner[2])

    def read(
        self, sections: Sequence[int], window: Window, factors: tuple[int, int] = (1, 1)
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return sections of the result before and after, at one place of the world, downsampled by their mean.

        Args:
            sections: of the result.
            window: pixels of the result.
            factors: pixels (y, x) that are averaged.

        Returns:
            [n, Y, X] each, of the dtypes of both volumes; 0 where there is nothing.
        """
        there = Window(tuple(a + d for a, d in zip(window.start, self._away(), strict=True)), window.shape)  # type: ignore[arg-type]
        homes = [self.homes[z] for z in sections]
        return read_window(self.before, homes, there, factors), read_window(self.after, sections, window, factors)


def read_window(
    volume: Volume, sections: Sequence[int | None], window: Window, factors: tuple[int, int] = (1, 1)
) -> NDArray[Any]:
    """Return a window of some sections, downsampled by their mean, [n, Y, X]; 0 where there is nothing."""
    shape = tuple(-(-n // f) for n, f in zip(window.shape, factors, strict=True))
    out = np.zeros((len(sections), *shape), volume.info.dtype)
    size = prod(window.shape)
    for rows, first in _runs(sections, max(1, _AT_ONCE_VOX // size)):
        box = Box((first, *window.start), (len(rows), *window.shape))
        inside = box.intersect(volume.info.box)
        if inside.is_empty:
            continue
        part = np.zeros(box.shape, volume.info.dtype)
        part[inside.slices(box.start)] = volume.read(inside)
        out[rows.start : rows.stop] = downsample_mean(part, (1, *factors))
    return out


def read_nearest(volume: Volume, z: int, window: Window, factor: int) -> NDArray[Any]:
    """Return every n-th pixel of a window of one section, [Y, X]; for codes and labels; 0 outside."""
    box = Box((z, *window.start), (1, *window.shape))
    inside = box.intersect(volume.info.box)
    part = np.zeros(box.shape, volume.info.dtype)
    if not inside.is_empty:
        part[inside.slices(box.start)] = volume.read(inside)
    return part[0, ::factor, ::factor]


def motion(pair: Pair, around: int, *, caption: str) -> tuple[Figure, range]:
    """Return some sections one after the other, before and after, as a moving picture, and which ones.

    Args:
        pair: both stacks.
        around: a section that is among them, in the middle if it can be.
        caption: printed below.
    """
    n, (_, dy, dx) = pair.after.info.shape[0], pair.spacing_nm
    frames = min(_FRAMES, n)
    start = int(np.clip(around - frames // 2, 0, n - frames))
    sections = range(start, start + frames)
    factor = max(1, round(_FRAME_NM / (_FRAME_PX * min(dy, dx))))
    shape = [min(_FRAME_PX * factor, size) for size in pair.after.info.shape[1:]]
    y, x = (c - size // 2 for c, size in zip(pair.middle(), shape, strict=True))
    images = pair.read(sections, Window((y, x), (shape[0], shape[1])), (factor, factor))
    before, after = stretched(images)
    alt = f"Sections {start} to {start + frames - 1} one after the other, before and after."
    figure = flicker([("before", before), ("after", after)], list(sections), alt=alt, caption=caption)
    return figure, sections


def _runs(sections: Sequence[int | None], longest: int) -> Iterator[tuple[range, int]]:
    """Iterate over places in a list at which sections follow each other, and the first of them."""
    start = 0
    while start < len(sections):
        first, stop = sections[start], start + 1
        if first is None:
            start += 1
            continue
        while stop < len(sections) and stop - start < longest and sections[stop] == first + stop - start:
            stop += 1
        yield range(start, stop), first
        start = stop


def seen(pair: Pair, around: int | None = None) -> range:
    """Return which sections `from_the_side` shows."""
    dz, dy, dx = pair.spacing_nm
    depth = pair.after.info.shape[0]
    fit = max(1, round(SIDE_PX * min(dy, dx) / dz))  # sections as high as a picture at full resolution
    n = min(depth, fit if around is not None else SIDE_PX)
    middle = depth // 2 if around is None else around
    start = int(np.clip(middle - n // 2, 0, depth - n))
    return range(start, start + n)


def from_the_side(pair: Pair, bad: NDArray[np.bool_], around: int | None = None) -> list[Plane]:
    """Return the stack seen along y and along x, through the middle, before and after.

    Args:
        pair: both stacks.
        bad: bool [Z], sections that are marked.
        around: a section: what is around it is shown in full resolution. By default as many sections as can be
            drawn, up to some hundred, around the middle of the stack.

    Returns:
        Planes xz and yz; of a large stack at lower resolution along x and y.
    """
    dz, dy, dx = pair.spacing_nm
    sections = seen(pair, around)
    n = len(sections)
    y, x = pair.middle()
    planes = []
    for title, axis, at, size, across in (("xz", 1, y, dx, dy), ("yz", 0, x, dy, dx)):
        factor = _factor(dz, size, n)
        thick = max(factor, round(_SMOOTH_NM / across), 1)
        wide = min(SIDE_PX * factor, pair.after.info.shape[1 + axis])
        centre = (y, x)[axis]
        low = centre - wide // 2
        if axis == 1:
            window, factors = Window((at - thick // 2, low), (thick, wide)), (thick, factor)
        else:
            window, factors = Window((low, at - thick // 2), (wide, thick)), (factor, thick)
        before, after = (image.reshape(n, -1) for image in pair.read(sections, window, factors))
        words = f"{title}, {'yx'[1 - axis]} = {at}"  # of a narrow picture more would be cut off
        planes.append(Plane(words, before, after, (dz, size * factor), bad[sections.start : sections.stop]))
    return planes


def is_reduced(pair: Pair) -> bool:
    """Whether `from_the_side` shows the whole stack at lower resolution, or only a part of its sections."""
    dz, dy, dx = pair.spacing_nm
    depth = pair.after.info.shape[0]
    return depth > SIDE_PX or max(_factor(dz, size, depth) for size in (dy, dx)) > 1


def _factor(section_nm: float, pixel_nm: float, n: int) -> int:
    """Return by how much to reduce the width so that n sections are not higher than a picture.

    Of the factors that do, up to twice as much as needed, the one for which a section is most nearly a whole
    number of pixels: the picture has true proportions.
    """
    least = max(1, -(-min(n, SIDE_PX) * section_nm // (SIDE_PX * pixel_nm)))
    if least == 1:
        return 1
    choices = np.arange(least, 2 * least)
    rows = section_nm / (pixel_nm * choices)
    off = np.abs(np.log(np.maximum(np.rint(rows), 1) / rows))
    return int(choices[int(np.argmin(np.round(off, 6)))])
