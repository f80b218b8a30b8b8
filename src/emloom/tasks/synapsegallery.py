"""Detections side by side: the section through each, its sites marked and its two neurons outlined.

The pre site is a ring and its neuron outlined in the same blue, the post site a cross and its neuron yellow. A
site that lies in another section than the one shown is marked where it projects; outlines are of this section.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.synapses import SynapseTable
from emloom.io.open import open_volume
from emloom.io.volume import Volume
from emloom.tasks.lattice import start_in
from emloom.tasks.synapseplaces import read_window
from emloom.view.colours import grey
from emloom.view.figures import Figure, Tile
from emloom.view.marked import CROSS_RGB, RING_RGB, section_of, window_around, with_marks
from emloom.view.mosaic import mosaic

COLUMNS = 4
_WINDOW_NM = 900.0
_PIXELS = 300  # along a side, about


@dataclass(frozen=True)
class Backdrop:
    """What detections are drawn on.

    Attributes:
        raw: raw volume; None: plain grey, outlines alone.
        segments: the neurons, on the lattice of the raw; None where there are none.
    """

    raw: Volume | None
    segments: Volume | None

    @property
    def ground(self) -> Volume:
        """The volume whose voxels are the pixels."""
        ground = self.raw or self.segments
        assert ground is not None
        return ground


def backdrop_of(raw: str | None, segmentation: str | None) -> tuple[Backdrop | None, list[str]]:
    """Return what can be drawn, and what is worth a remark; None where there is neither raw nor segmentation.

    Raises:
        InputError: a path does not open.
    """
    if raw is None and segmentation is None:
        return None, ["There are no pictures, as neither raw nor segmentation is known."]
    ground = None if raw is None else open_volume(raw, kind="raw")
    segments = None if segmentation is None else open_volume(segmentation, kind="labels")
    if ground is not None and segments is not None:
        try:
            start_in(segments, ground)
        except InputError as problem:
            return Backdrop(ground, None), [f"Neurons are not outlined: {problem}."]
    return Backdrop(ground, segments), []


def gallery(
    backdrop: Backdrop, table: SynapseTable, rows: Sequence[int], titles: Sequence[str], caption: str
) -> Figure | None:
    """Return a picture of each of some detections, in their order; None where none lies in the volume.

    Args:
        backdrop: what they are drawn on.
        table: the detections.
        rows: which of them.
        titles: a heading for each of these.
        caption: what the picture shows.
    """
    tiles = [
        tile
        for row, title in zip(rows, titles, strict=True)
        if (tile := detection_tile(backdrop, table, row, title)) is not None
    ]
    if not tiles:
        return None
    words = f"{caption} Blue ring: pre site; yellow cross: post site; outlines of their neurons alike."
    return mosaic(tiles, columns=COLUMNS, alt=words, caption=words, exact=(RING_RGB, CROSS_RGB))


def detection_tile(backdrop: Backdrop, table: SynapseTable, row: int, title: str) -> Tile | None:
    """Return the section through the middle of a detection; None where that lies outside of the volume."""
    ground = backdrop.ground
    grid = ground.info.grid
    pre, post = table.pre_nm[row], table.post_nm[row]
    at = grid.containing(((pre + post) / 2).tolist())
    if not ground.info.box.contains(Box(at, (1, 1, 1))):
        return None
    window = window_around(at, ground.info, _WINDOW_NM, np.abs(pre - post))
    box = section_of(window, 0, at)
    size = grid.voxel_size_nm
    finest = max(1, _PIXELS // max(box.shape[1:]))
    pixel = min(size[1:])
    times = (round(size[1] / pixel) * finest, round(size[2] / pixel) * finest)
    section = np.full(box.shape[1:], 128, np.uint8) if backdrop.raw is None else grey(backdrop.raw.read(box)[0])
    image = np.repeat(_enlarged(section, times)[..., None], 3, axis=2)
    if backdrop.segments is not None:
        ids = _enlarged(read_window(backdrop.segments, ground, box)[0], times)
        for segment, colour in ((table.post_segments[row], CROSS_RGB), (table.pre_segments[row], RING_RGB)):
            if segment:
                image[_outline(ids == segment)] = colour
    points = []
    for site in (pre, post):
        _, y, x = grid.to_voxel(site.tolist())
        points.append(((y - box.start[1]) * times[0], (x - box.start[2]) * times[1]))
    return Tile(title, with_marks(image, points), (size[1] / times[0], size[2] / times[1]))


def _enlarged(section: NDArray[Any], times: tuple[int, int]) -> NDArray[Any]:
    return np.repeat(np.repeat(section, times[0], axis=0), times[1], axis=1)


def _outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the pixels of a region that have a neighbour, in the picture, outside of it."""
    padded = np.pad(inside, 1, mode="edge")
    kept = padded[1:-1, 1:-1] & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: NDArray[np.bool_] = inside & ~kept
    return edge


def spread(order: NDArray[np.int64], each: int) -> dict[str, list[int]]:
    """Return rows from the top, the middle and the end of an order, or all of them where these would meet."""
    n = len(order)
    if n <= 3 * each:
        return {"all": order.tolist()}
    middle = (n - each) // 2
    return {
        "best": order[:each].tolist(),
        "median": order[middle : middle + each].tolist(),
        "worst": order[n - each :].tolist(),
    }
