"""Pictures of synapses that are missed or invented: three sections through the pair, its sites marked.

Sections are drawn with square pixels (voxels along the coarse axis are repeated), so that a mark is round in every
plane. The pre site is a ring, the post site a cross; a site that lies in another section than the one shown is
marked where it projects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Grid, Vec
from emloom.io.open import open_volume
from emloom.io.volume import Volume
from emloom.metrics.partnerpairs import F64
from emloom.tasks.cleftblocks import CleftPaths
from emloom.tasks.lattice import start_in
from emloom.view.colours import RGB, grey, overlay
from emloom.view.figures import Figure, Tile, panel

PRE_RGB, POST_RGB = (86, 180, 233), (240, 228, 66)  # Okabe and Ito 2008: sky blue, yellow
_WINDOW_NM = 800.0
_MARGIN = 1.6  # of the distance between the sites
_LARGEST_VOX = 1024
_PIXELS = 320  # along a side, about: small voxels need no magnifying, large ones do
_RING_PX, _STROKE_PX = 9.0, 1.6


@dataclass(frozen=True)
class Scene:
    """What pictures are made of.

    Attributes:
        ground: raw; without it the true clefts, drawn on plain grey.
        raw: whether `ground` is raw.
        clefts: (title, volume), each over the ground.
    """

    ground: Volume
    raw: bool
    clefts: tuple[tuple[str, Volume], ...]

    @property
    def grid(self) -> Grid:
        """The lattice of the pictures."""
        return self.ground.info.grid


def scene_of(raw: str | None, clefts: CleftPaths | None) -> Scene | None:
    """Return what pictures can be made of; None where there is neither raw nor clefts."""
    volumes = () if clefts is None else (("truth", clefts.truth), ("found", clefts.found))
    opened = tuple((title, open_volume(path)) for title, path in volumes)
    if raw is not None:
        return Scene(open_volume(raw, kind="raw"), True, opened)
    return Scene(opened[0][1], False, opened) if opened else None


def picture(scene: Scene, pre_nm: F64, post_nm: F64, words: str) -> Figure | None:
    """Return three sections through a pair; None where it lies outside of what can be drawn.

    Args:
        scene: what to draw.
        pre_nm: world position (z, y, x) of the pre site.
        post_nm: of the post site.
        words: what the picture shows.
    """
    at = _voxel(scene.grid, (pre_nm + post_nm) / 2)
    window = _window(scene, at, np.abs(pre_nm - post_nm))
    if not window.contains(Box(at, (1, 1, 1))):
        return None
    ground = scene.ground.read(window)
    grounds = ground if scene.raw else np.full(window.shape, 128, np.uint8)
    layers = {title: read_window(volume, scene.ground, window) for title, volume in scene.clefts}
    marks = tuple(np.array(_voxel(scene.grid, point)) - np.array(window.start) for point in (pre_nm, post_nm))
    index = (at[0] - window.start[0], at[1] - window.start[1], at[2] - window.start[2])
    tiles = list(_tiles(grounds, layers, (index, marks), scene))
    z, y, x = at
    caption = f"{words} Sections through voxel {z}, {y}, {x}; blue ring: pre site, yellow cross: post site."
    return panel(tiles, columns=len(layers) + scene.raw, alt=caption, caption=caption)


def read_window(volume: Volume, ground: Volume, window: Box) -> NDArray[Any]:
    """Return the voxels of a window of `ground` from another volume on its lattice, 0 where that has none."""
    start = start_in(volume, ground)
    own = window.shift((-start[0], -start[1], -start[2]))
    part = own.intersect(volume.info.box)
    out = np.zeros(window.shape, volume.info.dtype)
    if not part.is_empty:
        out[part.slices(own.start)] = volume.read(part)
    return out


def _voxel(grid: Grid, point_nm: F64) -> Vec:
    """Return the voxel of a position, as sites are looked up (`metrics.partnerpairs`)."""
    at = np.floor((point_nm - np.array(grid.offset_nm)) / np.array(grid.voxel_size_nm) + 0.5)
    return (int(at[0]), int(at[1]), int(at[2]))


def _window(scene: Scene, at: Vec, apart_nm: F64) -> Box:
    side = max(_WINDOW_NM, _MARGIN * float(apart_nm.max()))
    half = [min(_LARGEST_VOX // 2, max(1, round(side / 2 / size))) for size in scene.grid.voxel_size_nm]
    low, high = ([a + sign * h for a, h in zip(at, half, strict=True)] for sign in (-1, 1))
    return Box.of(low, [h + 1 for h in high]).intersect(scene.ground.info.box)


def _tiles(
    ground: NDArray[Any],
    layers: dict[str, NDArray[Any]],
    where: tuple[Vec, tuple[NDArray[Any], ...]],
    scene: Scene,
) -> Iterator[Tile]:
    at, marks = where
    size = scene.grid.voxel_size_nm
    for plane, axis in (("xy", 0), ("xz", 1), ("yz", 2)):
        index = tuple(at[k] if k == axis else slice(None) for k in range(3))
        rows, columns = (k for k in range(3) if k != axis)
        pixel = min(size[rows], size[columns])
        finest = max(1, _PIXELS // max(ground.shape[rows], ground.shape[columns]))
        times = (round(size[rows] / pixel) * finest, round(size[columns] / pixel) * finest)
        spacing = (size[rows] / times[0], size[columns] / times[1])
        points = [tuple((m[k] + 0.5) * n for k, n in zip((rows, columns), times, strict=True)) for m in marks]
        section = _enlarged(ground[index], times)
        if scene.raw:
            plain = np.repeat(grey(section)[..., None], 3, axis=2)
            yield Tile(f"raw, {plane}", _marked(plain, points), spacing)
        for title, ids in layers.items():
            clefts = _enlarged(ids[index], times)
            # One colour for all: which cleft is which plays no part in the scores.
            image = overlay(section, (clefts != 0).astype(np.uint8), stretch=scene.raw)
            yield Tile(f"{title}, {plane}", _marked(image, points), spacing)


def _enlarged(section: NDArray[Any], times: tuple[int, int]) -> NDArray[Any]:
    return np.repeat(np.repeat(section, times[0], axis=0), times[1], axis=1)


def _marked(image: RGB, points: list[tuple[float, ...]]) -> RGB:
    """Return an image [Y, X, 3] with a ring around the first point and a cross on the second, edged in black."""
    out = image.copy()
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    for kind, colour, (y, x) in zip(("ring", "cross"), (PRE_RGB, POST_RGB), points, strict=True):
        dy, dx = np.abs(rows + 0.5 - y), np.abs(columns + 0.5 - x)
        away = (
            np.abs(np.hypot(dy, dx) - _RING_PX)
            if kind == "ring"
            else np.where(np.maximum(dy, dx) <= _RING_PX, np.abs(dy - dx) / np.sqrt(2.0), np.inf)
        )
        out[away <= 2 * _STROKE_PX] = 0
        out[away <= _STROKE_PX] = colour
    return out
