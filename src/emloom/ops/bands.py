"""Bands and seams of one section: cracks, folds, and borders of acquisition tiles.

A *band* is long and narrow: its area is at least four squares of its width, the width being twice the largest
distance to its outside. What leaves the image counts as going on there, so that a broad region does not look narrow
for being cut. A void region that hangs on the edge of the volume is a margin, no crack.

::

    void, narrow              crack     a tear that lies open, or that an aligner left black
    brighter than both neighbours       crack     the support film shines through
    darker than both neighbours         fold      several layers on top of each other; flat and black: crack

Biology that is dark and long (myelin, vessel walls) goes on in the next section, and so is no fold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Bool = NDArray[np.bool_]
F64 = NDArray[np.float64]

LEAST_ELONGATION = 4.0
_EIGHT = np.ones((3, 3), np.bool_)


@dataclass(frozen=True)
class Edges:
    """Which sides of a patch are sides of its volume."""

    top: bool = True
    bottom: bool = True
    left: bool = True
    right: bool = True


def bands(mask_YX: Bool, least_length: float, least_width: float = 0.0) -> Bool:
    """Return the parts of a mask that are bands.

    Args:
        mask_YX: any mask; components are 8-connected.
        least_length: pixels that a band is long, at least.
        least_width: pixels that it is wide, at least.
    """
    out = np.zeros_like(mask_YX)
    if not mask_YX.any():
        return out
    names, count = ndimage.label(mask_YX, _EIGHT)
    # Beyond the image it goes on.
    depth = ndimage.distance_transform_edt(np.pad(mask_YX, 1, constant_values=True))[1:-1, 1:-1]
    numbers = np.arange(1, count + 1)
    area = ndimage.sum_labels(mask_YX, names, numbers)
    width = np.maximum(2 * ndimage.maximum(depth, names, numbers) - 1, 1)
    long = (area >= LEAST_ELONGATION * width**2) & (area >= least_length * width) & (width >= least_width)
    out[...] = np.concatenate([[False], long])[names]
    return out


def cracks(void_YX: Bool, edges: Edges, least_length: float) -> Bool:
    """Return the void bands of a patch that are no margins of the volume."""
    found = bands(void_YX, least_length)
    if not found.any():
        return found
    names, count = ndimage.label(void_YX, _EIGHT)
    share = ndimage.mean(_margin(void_YX, edges), names, np.arange(1, count + 1))
    margins = np.concatenate([[False], share > 0.5])
    return found & ~margins[names]


def _margin(void_YX: Bool, edges: Edges) -> Bool:
    """Return the void that runs from an edge of the volume straight inwards."""
    out = np.zeros_like(void_YX)
    for side, axis, back in (
        (edges.top, 0, False),
        (edges.bottom, 0, True),
        (edges.left, 1, False),
        (edges.right, 1, True),
    ):
        if side:
            seen = np.flip(void_YX, axis) if back else void_YX
            run = np.logical_and.accumulate(seen, axis=axis)
            out |= np.flip(run, axis) if back else run
    return out


def lone_bands(
    section_YX: F64, before_YX: F64, after_YX: F64, least_length: float, least_width: float
) -> tuple[Bool, Bool]:
    """Return the bands of a section that neither neighbour has: (cracks, folds).

    Args:
        section_YX: the section, in cells; grey values of 0 in the middle and a spread of 1 (`standardised`).
        before_YX: the section before it, likewise.
        after_YX: the section after it, likewise.
        least_length: cells that a band is long, at least.
        least_width: cells that it is wide, at least.
    """
    size = max(3, round(least_width))
    smooth, before, after = (
        ndimage.uniform_filter(image, size, mode="nearest") for image in (section_YX, before_YX, after_YX)
    )
    dark = bands(np.minimum(before, after) - smooth > _DARKER, least_length, least_width)
    bright = bands(smooth - np.maximum(before, after) > _BRIGHTER, least_length, least_width)
    if not dark.any():
        return bright, dark
    names, count = ndimage.label(dark, _EIGHT)
    numbers = np.arange(1, count + 1)
    flat = (ndimage.standard_deviation(section_YX, names, numbers) < _FLAT) & (
        ndimage.maximum(smooth, names, numbers) < _BLACK
    )
    black = np.concatenate([[False], flat])[names] & dark
    return bright | black, dark & ~black


_DARKER = 1.6
_BRIGHTER = 1.6
_FLAT = 0.3
_BLACK = -2.5


def standardised(cells_YX: NDArray[np.int64], void_YX: Bool) -> F64:
    """Return cells with a median of 0 and a quartile-based standard deviation of 1; void cells are 0.

    All 0 where nothing, or nothing but one value, is left.
    """
    values = cells_YX.astype(np.float64)
    seen = values[~void_YX]
    out = np.zeros(values.shape)
    if seen.size:
        low, middle, high = np.percentile(seen, (25, 50, 75))
        if high > low:
            out = (values - middle) * (1.349 / (high - low))
            out[void_YX] = 0.0
    return out


@dataclass(frozen=True)
class Seam:
    """A straight step of grey value along a whole patch.

    Attributes:
        axis: 0: along a row; 1: along a column.
        at: first row (column) after the step.
        step: grey values, positive where it gets brighter.
        strength: the step in standard errors, over the parts of the line.
    """

    axis: int
    at: int
    step: float
    strength: float


def seams(section_YX: NDArray[np.float64], tile: int, spread: float) -> list[Seam]:
    """Return the strongest seam of a patch along rows, and along columns, where there are any.

    A line is cut into parts of a tile's length, each of which says how much the means of 4 voxels on either side
    differ. A seam steps the same way in all of them; a membrane is a line, no step, and a border of a cell ends.

    Args:
        section_YX: grey values; void filled with something in the middle.
        tile: voxels along a part.
        spread: grey values that tissue varies by; smaller steps than a quarter of it are no seams.
    """
    found = []
    for axis in (0, 1):
        seen = section_YX if axis == 1 else section_YX.T
        parts = seen.shape[0] // tile
        if parts < _LEAST_PARTS or seen.shape[1] < 4 * _SIDE:
            continue
        strips = seen[: parts * tile].reshape(parts, tile, -1).mean(axis=1)
        seam = _strongest(strips, spread, axis)
        found += [] if seam is None else [seam]
    return found


_SIDE = 4  # voxels on either side of a seam
_LEAST_PARTS = 4
_STANDARD_ERRORS = 8.0
_OF_OTHERS = 6.0
_LEAST_STEP = 0.25


def _strongest(strips: F64, spread: float, axis: int) -> Seam | None:
    steps = _steps_of(strips, _SIDE)
    mean = steps.mean(axis=0)
    error = steps.std(axis=0, ddof=1) / np.sqrt(len(steps))
    others = 1.4826 * np.median(np.abs(mean - np.median(mean)))
    strength = np.abs(mean) / np.maximum(error, 1e-9)
    near = np.abs(_steps_of(strips, 2).mean(axis=0)[_SIDE - 2 : len(mean) + _SIDE - 2])
    good = (
        (strength > _STANDARD_ERRORS)
        & (np.abs(mean) > _OF_OTHERS * others)
        & (np.abs(mean) > _LEAST_STEP * spread)
        & (near > 0.7 * np.abs(mean))
        & ((np.sign(steps) == np.sign(mean)).mean(axis=0) >= 0.9)
    )
    if not good.any():
        return None
    best = int(np.argmax(np.where(good, strength, 0)))
    return Seam(axis, best + _SIDE, float(mean[best]), float(strength[best]))


def _steps_of(strips: F64, side: int) -> F64:
    """Return mean of `side` values from x on minus that of `side` values before it, for x = side ... n - side."""
    sums = np.concatenate([np.zeros((len(strips), 1)), np.cumsum(strips, axis=1)], axis=1)
    middle, low, high = sums[:, side:-side], sums[:, : -2 * side], sums[:, 2 * side :]
    out: F64 = (high - 2 * middle + low) / side
    return out
