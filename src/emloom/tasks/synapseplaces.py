"""Pictures of synapses that are missed or invented: three sections through the pair, its sites marked.

The pre site is a ring, the post site a cross (`view.marked`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Grid, Vec
from emloom.geometry.grid import TOLERANCE_VOX
from emloom.io.open import open_volume
from emloom.io.volume import Volume
from emloom.metrics.partnerpairs import F64
from emloom.tasks.cleftblocks import CleftPaths
from emloom.tasks.lattice import start_in
from emloom.view.figures import Figure, panel
from emloom.view.marked import Marked, window_around

_WINDOW_NM = 800.0


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
    window = window_around(at, scene.ground.info, _WINDOW_NM, np.abs(pre_nm - post_nm))
    if not window.contains(Box(at, (1, 1, 1))):
        return None
    marks = (_voxel(scene.grid, pre_nm), _voxel(scene.grid, post_nm))
    layers = {title: partial(_cleft, volume, scene.ground) for title, volume in scene.clefts}
    ground = scene.ground.read if scene.raw else None
    marked = Marked(window, at, marks, scene.grid.voxel_size_nm, ground, layers)
    tiles = list(marked.tiles())
    z, y, x = at
    caption = f"{words} Sections through voxel {z}, {y}, {x}; blue ring: pre site, yellow cross: post site."
    columns = len(layers) + scene.raw if layers else len(tiles)  # a row for each plane, or the planes in one
    return panel(tiles, columns=columns, alt=caption, caption=caption)


def read_window(volume: Volume, ground: Volume, window: Box) -> NDArray[Any]:
    """Return the voxels of a window of `ground` from another volume on its lattice, 0 where that has none."""
    start = start_in(volume, ground)
    own = window.shift((-start[0], -start[1], -start[2]))
    part = own.intersect(volume.info.box)
    out = np.zeros(window.shape, volume.info.dtype)
    if not part.is_empty:
        out[part.slices(own.start)] = volume.read(part)
    return out


def _cleft(volume: Volume, ground: Volume, box: Box) -> NDArray[np.uint8]:
    """Return where there is a cleft, in one colour for all: which is which plays no part in the scores."""
    cleft: NDArray[np.uint8] = (read_window(volume, ground, box) != 0).astype(np.uint8)
    return cleft


def _voxel(grid: Grid, point_nm: F64) -> Vec:
    """Return the voxel of a position, as sites are looked up (`metrics.partnerpairs`)."""
    at = np.floor((point_nm - np.array(grid.offset_nm)) / np.array(grid.voxel_size_nm) + 0.5 + TOLERANCE_VOX)
    return (int(at[0]), int(at[1]), int(at[2]))
