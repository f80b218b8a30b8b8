"""Distances between the clefts of a truth and of a result, as exact sums over blocks.

With T the cleft voxels of the truth and P those of the result, a block adds the distances from its voxels of P
to the nearest voxel of T, and the other way round, between centres, in nm. All sums are integers (distances in
steps of 2^-20 nm), so tallies add up in any order and grouping::

    sum of tally_block over a tiling == cleft_tally of the whole

Counts beyond a limit, and clipped means, need a halo of that length and no more. A mean distance has no bound: a
block reads a halo, keeps every distance that is not larger than the way out of what it has read, and doubles the
halo for the rest. In the worst case, one far cleft, that ends with the whole volume. Nothing outside the common
bounding box of T and P matters: the nearest voxel of either lies in it.

Distances are float32: those within 1e-5 of a limit, relative to it, count as equal to it and so as not beyond it.
Squares of distances below 2^24 nm² between voxels of whole nm are exact (40 x 4 x 4 nm: up to 4 µm).

Exact Euclidean transform by `edt` (Silversmith 2018, doi:10.5281/zenodo.5660574), one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import isfinite, nan
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec, cells
from emloom.geometry.grid import Vec3, as_nm

Array = NDArray[Any]
Bools = NDArray[np.bool_]
F32 = NDArray[np.float32]
Reader = Callable[[Box], tuple[Bools, Bools]]
"""Gives (truth, result) of a box: True where a cleft is and counts."""

BLOCK_VOX: Vec = (64, 512, 512)
_STEPS = 1 << 20  # per nm
_TIE = 1e-5  # float32 distances this close, relative to each other, are equal


@dataclass(frozen=True)
class CleftOptions:
    """The lengths of the definitions, in nm.

    Attributes:
        limit_nm: CREMI's 200 nm, beyond which a voxel is false.
        tolerance_nm: CNNectome's 40 nm, for the scores "with tolerance".
        clip_nm: CNNectome's 200 nm, at which distances end in the clipped means.

    Raises:
        InputError: a length is negative or not finite.
    """

    limit_nm: float = 200.0
    tolerance_nm: float = 40.0
    clip_nm: float = 200.0

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if not (isfinite(value) and value >= 0):
                raise InputError(f"{part.name} {value} is not a length: give a finite number of nm, at least 0")


@dataclass(frozen=True)
class Side:
    """What one direction adds up to: from the voxels of one kind to the nearest of the other.

    Attributes:
        voxels: voxels asked.
        beyond: of them, those farther than the limit.
        beyond_tolerance: those farther than the tolerance.
        steps: sum of distances in 2^-20 nm.
        clipped_steps: sum of clipped distances in 2^-20 nm.
    """

    voxels: int = 0
    beyond: int = 0
    beyond_tolerance: int = 0
    steps: int = 0
    clipped_steps: int = 0

    def __add__(self, other: Side) -> Side:
        return Side(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    def mean_nm(self) -> float:
        """Return the mean distance; NaN where nothing was asked."""
        return self.steps / (self.voxels * _STEPS) if self.voxels else nan

    def clipped_mean_nm(self) -> float:
        """Return the mean of the clipped distances; NaN where nothing was asked."""
        return self.clipped_steps / (self.voxels * _STEPS) if self.voxels else nan


@dataclass(frozen=True)
class CleftTally:
    """Exact sums over voxels; tallies of disjoint blocks add up to that of their union.

    Attributes:
        found: from every cleft voxel of the result to the truth.
        truth: from every cleft voxel of the truth to the result.
        either: voxels that are a cleft in one or both.
    """

    found: Side = Side()
    truth: Side = Side()
    either: int = 0

    def __add__(self, other: CleftTally) -> CleftTally:
        return CleftTally(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


def cleft_tally(
    read: Reader,
    whole: Box,
    spacing_nm: Sequence[float],
    options: CleftOptions | None = None,
    block_vox: Vec = BLOCK_VOX,
) -> CleftTally:
    """Return the tally of a volume that is read box by box; see the module for what memory it takes.

    Args:
        read: gives (truth, result) of a box inside `whole`.
        whole: all there is.
        spacing_nm: voxel size (z, y, x) in nm.
        options: lengths other than the usual.
        block_vox: voxels to ask at a time.
    """
    _spacing(spacing_nm)
    boxes = [] if whole.is_empty else [block for _, block in cells(whole, block_vox)]
    counts = sum((_counted(*read(block)) for block in boxes), CleftTally())
    if not (counts.truth.voxels and counts.found.voxels):
        return _hopeless(counts)
    tallies = (tally_block(read, whole, block, spacing_nm, options) for block in boxes)
    return sum(tallies, CleftTally())


def tally_block(
    read: Reader, whole: Box, box: Box, spacing_nm: Sequence[float], options: CleftOptions | None = None
) -> CleftTally:
    """Return what the cleft voxels of one block add, for volumes that hold clefts of both kinds.

    Args:
        read: gives (truth, result) of a box inside `whole`.
        whole: all there is; distances end at its faces.
        box: the voxels to ask.
        spacing_nm: voxel size (z, y, x) in nm.
        options: lengths other than the usual.

    Raises:
        InputError: one kind has no voxel in `whole`, so that the other has no distance to it.
    """
    chosen, spacing = options or CleftOptions(), _spacing(spacing_nm)
    truth, found = read(box)
    counts = _counted(truth, found)
    to_truth = _distances(lambda b: read(b)[0], found, whole, box, spacing)
    to_found = _distances(lambda b: read(b)[1], truth, whole, box, spacing)
    return CleftTally(_side(to_truth, chosen), _side(to_found, chosen), counts.either)


def bounding_box(any_ZYX: Bools) -> Box:
    """Return the bounding box of what is true."""
    ranges = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        at = np.flatnonzero(any_ZYX.any(axis=others))
        ranges.append((int(at[0]), int(at[-1]) + 1) if at.size else (0, 0))
    return Box.of([a for a, _ in ranges], [b for _, b in ranges])


def _counted(truth: Bools, found: Bools) -> CleftTally:
    n_truth, n_found = int(np.count_nonzero(truth)), int(np.count_nonzero(found))
    return CleftTally(Side(n_found), Side(n_truth), int(np.count_nonzero(truth | found)))


def _hopeless(counts: CleftTally) -> CleftTally:
    """Return a tally in which everything is beyond any limit: there is nothing to be near to."""
    found, truth = (Side(side.voxels, side.voxels, side.voxels) for side in (counts.found, counts.truth))
    return CleftTally(found, truth, counts.either)


def _side(distances: F32, options: CleftOptions) -> Side:
    beyond, tolerated = (
        int(np.count_nonzero(distances > np.float32(length * (1 + _TIE))))
        for length in (options.limit_nm, options.tolerance_nm)
    )
    clipped = np.minimum(distances, np.float32(options.clip_nm))
    return Side(distances.size, beyond, tolerated, _steps(distances), _steps(clipped))


def _steps(distances: F32) -> int:
    """Return the sum in steps, exactly; whole nm apart from the rest, so that int64 is wide enough for both."""
    exact = distances.astype(np.float64)
    whole = np.floor(exact)
    rest = np.rint((exact - whole) * _STEPS)
    return int(whole.astype(np.int64).sum()) * _STEPS + int(rest.astype(np.int64).sum())


def _distances(read: Callable[[Box], Bools], asked: Bools, whole: Box, box: Box, spacing: Vec3) -> F32:
    """Return the distance to the nearest voxel that `read` calls true, of every asked voxel, in any order."""
    pending, done = asked.copy(), []
    reach = [max(1, round(200.0 / s)) for s in spacing]
    while pending.any():
        ask = bounding_box(pending).shift(box.start)
        window = ask.grow((reach[0], reach[1], reach[2])).intersect(whole)
        mine = pending[ask.slices(box.start)]
        near = _transform(read(window), spacing)[ask.slices(window.start)][mine]
        certain = near <= _way_out(ask, window, whole, spacing)[mine]
        done.append(near[certain])
        if window == whole and not np.isfinite(near).all():
            raise InputError(f"{whole} holds clefts of one kind only: there is no distance to the other")
        mine[mine] = ~certain
        reach = [2 * r for r in reach]
    return np.concatenate(done) if done else np.zeros(0, np.float32)


def _transform(target: Bools, spacing: Vec3) -> F32:
    """Return the distance to the nearest true voxel; infinite where there is none."""
    away = np.ascontiguousarray(~target).view(np.uint8)
    distance: F32 = edt.edt(away, anisotropy=spacing, black_border=False, parallel=1)
    return distance


def _way_out(ask: Box, window: Box, whole: Box, spacing: Vec3) -> F32:
    """Return how far the nearest voxel lies that is in the whole and was not read, in nm."""
    depths = []
    for axis, s in enumerate(spacing):
        at = np.arange(ask.start[axis], ask.stop[axis])
        below = (at - window.start[axis] + 1) * s if window.start[axis] > whole.start[axis] else np.inf
        above = (window.stop[axis] - at) * s if window.stop[axis] < whole.stop[axis] else np.inf
        depths.append(np.broadcast_to(np.minimum(below, above), at.shape).astype(np.float32))
    z, y, x = depths
    return np.minimum(np.minimum(z[:, None, None], y[:, None]), x)


def _spacing(spacing_nm: Sequence[float]) -> Vec3:
    spacing = as_nm(spacing_nm, "voxel size")
    if min(spacing) <= 0:
        raise InputError(f"voxel size {spacing} nm is not positive: give z, y, x in nm, each above 0")
    return spacing
