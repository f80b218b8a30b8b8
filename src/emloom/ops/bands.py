"""Bands and seams of one section: cracks, folds, and borders of acquisition tiles.

A *band* is long and narrow: its area is at least four squares of its width, the width being twice the largest
distance to its outside. What leaves the image counts as going on there, so that a broad region does not look
narrow for being cut. A void region that hangs on the edge of the volume is a margin, no crack.

::

    void, narrow              crack     a tear that lies open, or that an aligner left black
    brighter than both neighbours       crack     the support film shines through
    darker than both neighbours         fold      several layers on top of each other; flat and black: crack

Biology that is dark and long (myelin, vessel walls) goes on in the next section, and so is no fold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from emloom.ops.outliers import MAD

Bool = NDArray[np.bool_]
F64 = NDArray[np.float64]
Spectrum = NDArray[np.complex128]

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
    """Return the void bands of a patch that are no margins of the volume.

    A margin lies along an edge of the volume over half of its length or more; a crack only runs into it.

    Args:
        void_YX: where there is nothing.
        edges: which sides of the patch are sides of the volume.
        least_length: pixels that a crack is long, at least.
    """
    found = bands(void_YX, least_length)
    if not found.any():
        return found
    names, count = ndimage.label(found, _EIGHT)
    numbers = np.arange(1, count + 1)
    depth = ndimage.distance_transform_edt(np.pad(found, 1, constant_values=True))[1:-1, 1:-1]
    width = np.maximum(2 * ndimage.maximum(depth, names, numbers) - 1, 1)
    length = ndimage.sum_labels(found, names, numbers) / width
    margins = ndimage.sum_labels(_rim(found.shape, edges), names, numbers) > 0.5 * length
    kept: Bool = found & ~np.concatenate([[False], margins])[names]
    return kept


def _rim(shape: tuple[int, ...], edges: Edges) -> Bool:
    """Return the pixels at the edges of the volume."""
    out = np.zeros(shape, np.bool_)
    out[0] |= edges.top
    out[-1] |= edges.bottom
    out[:, 0] |= edges.left
    out[:, -1] |= edges.right
    return out


def strangers(band_YX: Bool, level: float, neighbours: Sequence[F64]) -> Bool:
    """Return the parts of a mask where no neighbour shows the same: tissue that is merely black is in both.

    Args:
        band_YX: void bands, in cells.
        level: grey value of the void, `standardised`.
        neighbours: sections before and after, `standardised`; empty where there are none.
    """
    if not neighbours or abs(level) < _ALIKE or not band_YX.any():
        return band_YX
    names, count = ndimage.label(band_YX, _EIGHT)
    means = [ndimage.mean(image, names, np.arange(1, count + 1)) for image in neighbours]
    same = np.all([np.sign(level) * mean > _ALIKE for mean in means], axis=0)
    kept: Bool = band_YX & ~np.concatenate([[False], same])[names]
    return kept


def halved(image_YX: F64) -> F64:
    """Return the means of 2 x 2 pixels; a last odd row or column is dropped."""
    y, x = (n // 2 for n in image_YX.shape)
    out: F64 = image_YX[: 2 * y, : 2 * x].reshape(y, 2, x, 2).mean(axis=(1, 3))
    return out


def band_spectrum(image_YX: F64, length: int) -> Spectrum:
    """Return the Fourier transform of an image with room for lines of a length beyond its edges."""
    out: Spectrum = fft.rfft2(image_YX, s=tuple(n + length for n in image_YX.shape))
    return out


def lone_bands(section_YX: F64, spectra: tuple[Spectrum, Spectrum, Spectrum], length: int) -> tuple[Bool, Bool]:
    """Return the bands of a section that neither neighbour has: (cracks, folds).

    Where a fold crosses a membrane nothing gets darker, so differences are averaged along short lines, in 12
    directions, as matched filters for vessels do (Chaudhuri et al. 1989, doi:10.1109/42.34715): tissue that
    differs from section to section does so at random, and averages out.

    Args:
        section_YX: the section; grey values of 0 in the middle and a spread of 1 (`standardised`).
        spectra: `band_spectrum` of it, of the section before, and of the one after.
        length: pixels of the lines; bands are four fifths of it long, at least.
    """
    dark = np.full(section_YX.shape, -np.inf)
    bright = dark.copy()
    padded = tuple(n + length for n in section_YX.shape)
    here, before, after = spectra
    y, x = section_YX.shape
    for line in _lines(padded[0], padded[1], length):
        darker = [fft.irfft2((other - here) * line, s=padded)[:y, :x] for other in (before, after)]
        np.maximum(dark, np.minimum(*darker), out=dark)
        np.maximum(bright, -np.maximum(*darker), out=bright)
    folds, gaps = (_half_height(seen, 0.8 * length) for seen in (dark, bright))
    if not folds.any():
        return gaps, folds
    names, count = ndimage.label(folds, _EIGHT)
    numbers = np.arange(1, count + 1)
    inner = ndimage.standard_deviation(section_YX, names, numbers)
    black = (inner < _FLAT) & (ndimage.mean(section_YX, names, numbers) < _BLACK)
    open_ = folds & np.concatenate([[False], black])[names]
    return gaps | open_, folds & ~open_


def _half_height(seen_YX: F64, least_length: float) -> Bool:
    """Return the bands where something is seen, each as wide as where it is seen half as well as at best.

    Best must stand out: sections that do not fit their neighbours differ from them everywhere.
    """
    noise = MAD * float(np.median(np.abs(seen_YX - np.median(seen_YX))))
    least = max(_SEEN, _NOISES * noise)
    region = seen_YX > 0.6 * least
    names, count = ndimage.label(region, _EIGHT)
    if count == 0:
        return region
    best = np.concatenate([[np.inf], np.atleast_1d(ndimage.maximum(seen_YX, names, np.arange(1, count + 1)))])
    best[best < least] = np.inf
    return bands(region & (seen_YX > 0.5 * best[names]), least_length, 2.0)


@lru_cache(maxsize=8)
def _lines(rows: int, columns: int, length: int) -> tuple[Spectrum, ...]:
    """Return the Fourier transforms of lines through the first pixel, 3 pixels wide, with a sum of 1."""
    y, x = np.meshgrid(np.fft.fftfreq(rows) * rows, np.fft.fftfreq(columns) * columns, indexing="ij")
    out = []
    for angle in np.arange(_DIRECTIONS) * np.pi / _DIRECTIONS:
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        line = np.clip(length / 2 + 0.5 - np.abs(along), 0, 1) * np.clip(_WIDE / 2 + 0.5 - np.abs(across), 0, 1)
        out.append(fft.rfft2(line / line.sum()))
    return tuple(out)


_ALIKE = 1.0  # standard deviations of tissue, as all of these
_SEEN = 1.0  # clean tissue of five real stacks stays below 0.92
_NOISES = 7.5  # sections that are shifted, or from elsewhere, stay below 7.3 of what they differ by
_FLAT = 0.3
_BLACK = -2.5
_DIRECTIONS, _WIDE = 12, 3


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
        strength: the step in usual steps of other lines.
    """

    axis: int
    at: int
    step: float
    strength: float


def seams(strips: tuple[F64, F64], spread: float) -> list[Seam]:
    """Return the strongest seam of a patch along rows, and along columns, where there are any.

    A line is cut into parts of a tile's length. A seam steps the same way in all of them, further than other lines
    do; a membrane is a line, no step, and a border of a cell ends.

    Args:
        strips: `sections.strip_means` of the patch.
        spread: grey values that tissue varies by; steps of less than 0.15 of it are no seams.
    """
    found = []
    for axis, parts in enumerate(strips):
        if len(parts) >= _LEAST_PARTS and parts.shape[1] >= 4 * _SIDE:
            seam = _strongest(parts, spread, axis)
            found += [] if seam is None else [seam]
    return found


_SIDE = 4  # voxels on either side of a seam
_LEAST_PARTS = 3
_OF_OTHERS = 10.0  # lines of six stacks stay below 5, of phantoms 9.4; a planted step of half a spread is at 13
_LEAST_STEP = 0.15


def _strongest(strips: F64, spread: float, axis: int) -> Seam | None:
    """Return the line at which voxels on either side differ most, if it is a seam.

    Next to each other voxels are alike, and their differences, many along a line, say most (`near`); that the step
    does not come back after a few voxels tells a seam from a single bad line (`wide`).
    """
    wide = _steps_of(strips, _SIDE)
    best: Seam | None = None
    for gap in (1, 2):
        # Between voxels x - 1 and x + gap - 1: a seam may have been smoothed over one voxel.
        near = (strips[:, gap:] - strips[:, :-gap])[:, _SIDE - 1 : _SIDE - 1 + wide.shape[1] - gap + 1]
        steps = wide[:, : near.shape[1]]
        # The median of the parts: the edge of something in a few of them is no seam.
        mean, usual = _middle(near), _middle(steps)
        others = MAD * float(np.median(np.abs(mean - np.median(mean))))
        strength = np.abs(mean) / max(others, 1e-9)
        good = (
            (strength > _OF_OTHERS)
            & (np.abs(mean) > _LEAST_STEP * spread)
            & ((np.sign(near) == np.sign(mean)).mean(axis=0) >= 0.9)
            & (usual * np.sign(mean) > 0.5 * np.abs(mean))
        )
        if good.any():
            x = int(np.argmax(np.where(good, strength, 0)))
            seam = Seam(axis, x + _SIDE, float(mean[x]), float(strength[x]))
            best = seam if best is None or seam.strength > best.strength else best
    return best


def _middle(parts: F64) -> F64:
    """Return the median along the first axis, the lower of two; several times as fast as numpy's for few parts."""
    out: F64 = np.sort(parts, axis=0)[(len(parts) - 1) // 2]
    return out


def _steps_of(strips: F64, side: int) -> F64:
    """Return mean of `side` values from x on minus that of `side` values before it, for x = side ... n - side."""
    sums = np.concatenate([np.zeros((len(strips), 1)), np.cumsum(strips, axis=1)], axis=1)
    middle, low, high = sums[:, side:-side], sums[:, : -2 * side], sums[:, 2 * side :]
    out: F64 = (high - 2 * middle + low) / side
    return out
