"""Three sections through a place with two points marked on them: a ring and a cross.

Only the sections are read, never the box around them: points may lie far apart.

Sections are drawn with square pixels (voxels along the coarse axis are repeated), so that a mark is round in every
plane. A point that lies in another section than the one shown is marked where it projects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec
from emloom.io.volume import VolumeInfo
from emloom.view.colours import RGB, grey, overlay
from emloom.view.figures import Tile

RING_RGB, CROSS_RGB = (86, 180, 233), (240, 228, 66)  # Okabe and Ito 2008: sky blue, yellow
_PIXELS = 320  # along a side, about: small voxels need no magnifying, large ones do
_RING_PX, _STROKE_PX = 9.0, 1.6

Reading = Callable[[Box], NDArray[Any]]

_MARGIN = 1.6  # of the distance between the points
_LARGEST_VOX = 1024


@dataclass(frozen=True)
class Marked:
    """What is drawn.

    Attributes:
        window: the voxels that are shown, as far as the sections go.
        at: voxel (z, y, x) that the sections pass through, in the window.
        marks: voxels (z, y, x) of the ring and the cross, anywhere.
        voxel_size_nm: (z, y, x).
        raw: reads raw [Z, Y, X] of a box; it is stretched, and shown by itself, too. None: the ground is grey.
        layers: by title, what reads unsigned ids [Z, Y, X] of a box, drawn over the ground.
    """

    window: Box
    at: Vec
    marks: tuple[Vec, ...]
    voxel_size_nm: tuple[float, float, float]
    raw: Reading | None
    layers: Mapping[str, Reading]

    def tiles(self) -> Iterator[Tile]:
        """Yield the images, plane by plane: raw, then every layer."""
        for plane, axis in (("xy", 0), ("xz", 1), ("yz", 2)):
            rows, columns = (k for k in range(3) if k != axis)
            times = self._times(rows, columns)
            box = section_of(self.window, axis, self.at)
            spacing = (self.voxel_size_nm[rows] / times[0], self.voxel_size_nm[columns] / times[1])
            points = [
                (
                    (mark[rows] - box.start[rows] + 0.5) * times[0],
                    (mark[columns] - box.start[columns] + 0.5) * times[1],
                )
                for mark in self.marks
            ]
            ground = np.full(box.shape, 128, np.uint8) if self.raw is None else self.raw(box)
            section = _enlarged(np.squeeze(ground, axis), times)
            if self.raw is not None:
                plain = np.repeat(grey(section)[..., None], 3, axis=2)
                yield Tile(f"raw, {plane}", with_marks(plain, points), spacing)
            for title, read in self.layers.items():
                ids = _enlarged(np.squeeze(read(box), axis), times)
                image = overlay(section, ids, stretch=self.raw is not None)
                yield Tile(f"{title}, {plane}", with_marks(image, points), spacing)

    def _times(self, rows: int, columns: int) -> tuple[int, int]:
        """Return how often a voxel is repeated along rows and columns."""
        size, shape = self.voxel_size_nm, self.window.shape
        pixel = min(size[rows], size[columns])
        finest = max(1, _PIXELS // max(shape[rows], shape[columns]))
        return (round(size[rows] / pixel) * finest, round(size[columns] / pixel) * finest)


def window_around(at: Vec, info: VolumeInfo, least_nm: float, apart_nm: NDArray[np.float64]) -> Box:
    """Return the box of a volume that a picture shows.

    Args:
        at: voxel in its middle.
        info: of the volume; the box is cut where it ends.
        least_nm: the shortest side of the box.
        apart_nm: float64 [3], how far apart the points are along each axis.
    """
    side = max(least_nm, _MARGIN * float(apart_nm.max()))
    half = [min(_LARGEST_VOX // 2, max(1, round(side / 2 / size))) for size in info.grid.voxel_size_nm]
    low, high = ([a + sign * h for a, h in zip(at, half, strict=True)] for sign in (-1, 1))
    return Box.of(low, [h + 1 for h in high]).intersect(info.box)


def section_of(window: Box, axis: int, at: Vec) -> Box:
    """Return the section of a window across an axis, through a voxel."""
    start, shape = list(window.start), list(window.shape)
    start[axis], shape[axis] = at[axis], 1
    return Box((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))


def _enlarged(section: NDArray[Any], times: tuple[int, int]) -> NDArray[Any]:
    return np.repeat(np.repeat(section, times[0], axis=0), times[1], axis=1)


def with_marks(image: RGB, points: Sequence[tuple[float, float]]) -> RGB:
    """Return an image [Y, X, 3] with a ring around the first point and a cross on the second, edged in black."""
    out = image.copy()
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    for kind, colour, (y, x) in zip(("ring", "cross"), (RING_RGB, CROSS_RGB), points, strict=True):
        dy, dx = np.abs(rows + 0.5 - y), np.abs(columns + 0.5 - x)
        away = (
            np.abs(np.hypot(dy, dx) - _RING_PX)
            if kind == "ring"
            else np.where(np.maximum(dy, dx) <= _RING_PX, np.abs(dy - dx) / np.sqrt(2.0), np.inf)
        )
        out[away <= 2 * _STROKE_PX] = 0
        out[away <= _STROKE_PX] = colour
    return out
