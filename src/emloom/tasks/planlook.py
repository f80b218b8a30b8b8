"""What `emloom plan` sees of a raw stack: a bounded sample, whatever the size.

::

    up to 27 boxes on a 3 x 3 x 3 lattice, 2 Mvoxel each     grey values, tone from section to section
    a stack of at most 32 Mvoxel                             all of it

Integers are counted value by value, so percentiles are exact for the sample and the same on any machine. Values at
an end of the type that fill more than a hundredth of the sample are what microscopes and aligners leave where
nothing was recorded; they do not count as grey.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.grid import Vec3
from emloom.io.metadata import Found
from emloom.io.open import inspect, open_volume
from emloom.io.volume import Volume, VolumeInfo
from emloom.ops.histogram import count_values, percentile, values_of

FLAT = 1.5
"""A stack is flat where its sections are thicker than this many pixels."""
WHOLE_VOX = 32 * 2**20
"""Volumes of at most so many voxels are read whole."""
_BOX_VOX = {True: (16, 384, 384), False: (128, 128, 128)}
_ENDS = 0.01
_LOW, _HIGH = 1.0, 99.0
_FLOATS = 4_000_000


@dataclass(frozen=True)
class RawLook:
    """What is known of a raw stack.

    Attributes:
        info: what the volume says about itself.
        read_vox: voxels that were looked at.
        low: grey value that 1 % of the sample is below.
        high: grey value that 1 % is above.
        void: share of the sample at the ends of the type, where nothing was recorded.
        jitter: brightness of a section beside the next one: standard deviation, in units of half of low to high.
    """

    info: VolumeInfo
    read_vox: int
    low: float
    high: float
    void: float
    jitter: float

    @property
    def size_nm(self) -> Vec3:
        """Voxel size (z, y, x)."""
        return self.info.grid.voxel_size_nm

    @property
    def flat(self) -> bool:
        """Whether sections are much thicker than pixels."""
        return is_flat(self.size_nm)

    @property
    def share(self) -> float:
        """Share of the stack that was looked at."""
        return self.read_vox / self.info.box.size


def is_flat(size_nm: Vec3) -> bool:
    """Return whether voxels are much longer along z than in the plane."""
    return size_nm[0] > FLAT * max(size_nm[1:])


def open_raw(path: str, voxel_size_nm: Vec3 | None) -> tuple[Volume, tuple[str, ...]]:
    """Open a raw stack; of a container, the one array in it that says that it is raw.

    Returns:
        The volume, and the paths of other arrays beside it that may be labels.

    Raises:
        InputError: as `open_volume`, it has channels, or holds no voxel.
    """
    hits = inspect(path)
    raws = [hit for hit in hits if hit.kind == "raw"]
    chosen = raws[0].path if len(hits) > 1 and len(raws) == 1 else path
    volume = open_volume(chosen, voxel_size_nm=voxel_size_nm, kind="raw")
    info = volume.info
    if info.channels is not None:
        raise InputError(f"{chosen} has {info.channels} channels: a raw stack has one; export the one you mean")
    if info.box.is_empty:
        raise InputError(f"{chosen} holds no voxel (shape {info.shape})")
    return volume, tuple(hit.path for hit in hits if chosen != path and _may_be_labels(hit))


def _may_be_labels(hit: Found) -> bool:
    return hit.kind in (None, "labels") and hit.dtype.kind == "u" and hit.axes == "zyx"


def spread(whole: Box, shape: Vec, number: int) -> list[Box]:
    """Return boxes on a lattice over `whole`, `number` along an axis at most: the first and last at its ends.

    Where they would overlap there are fewer; in order of z, y, x.
    """
    extent = [min(n, s) for n, s in zip(whole.shape, shape, strict=True)]
    starts = []
    for first, length, side in zip(whole.start, whole.shape, extent, strict=True):
        fit = max(1, min(number, length // side))
        starts.append([first + (length - side) * k // max(1, fit - 1) for k in range(fit)])
    return [Box((z, y, x), (extent[0], extent[1], extent[2])) for z, y, x in product(*starts)]


def sample_boxes(whole: Box, flat: bool, number: int = 3) -> list[Box]:
    """Return what is looked at of a volume."""
    return [whole] if whole.size <= WHOLE_VOX else spread(whole, _BOX_VOX[flat], number)


def look_at_raw(volume: Volume) -> RawLook:
    """Look at a sample of a raw stack.

    Raises:
        InputError: the sample holds a single value, or a float that is not finite.
    """
    info = volume.info
    flat = is_flat(info.grid.voxel_size_nm)
    boxes = sample_boxes(info.box, flat)
    parts = (volume.read(box) for box in boxes)
    tally = _Counted(info) if info.dtype.kind in "iu" and info.dtype.itemsize <= 2 else _Sampled(info, len(boxes))
    for part in parts:
        tally.add(part)
    low, high, void = tally.ends()
    if not low < high:
        raise InputError(
            f"{info.source}: all {sum(box.size for box in boxes):,} voxels of the sample are {low:g}: there "
            f"is nothing "
            "to be seen; is this the right volume, and are its files all there?"
        )
    jitter = float(np.std(tally.steps) / np.sqrt(2) / ((high - low) / 2)) if tally.steps else 0.0
    return RawLook(info, sum(box.size for box in boxes), low, high, void, jitter)


class _Counted:
    """Grey values of 8 or 16 bits, counted."""

    def __init__(self, info: VolumeInfo) -> None:
        self.values = values_of(info.dtype)
        self.counts = np.zeros(self.values.size, np.int64)
        self.steps: list[float] = []

    def add(self, array: NDArray[Any]) -> None:
        self.counts += count_values(array)
        self.steps += _steps(array)

    def ends(self) -> tuple[float, float, float]:
        counts, total, void = self.counts.copy(), int(self.counts.sum()), 0
        for end in (0, len(counts) - 1):
            if counts[end] > _ENDS * total:
                void += int(counts[end])
                counts[end] = 0
        if not counts.any():
            return float(self.values[np.argmax(self.counts)]), float(self.values[np.argmax(self.counts)]), 1.0
        low, high = (float(percentile(self.values, counts, p)) for p in (_LOW, _HIGH))
        return low, high, void / total


class _Sampled:
    """Other grey values: every n-th of them is kept."""

    def __init__(self, info: VolumeInfo, boxes: int) -> None:
        self.source = info.source
        self.most = _FLOATS // boxes
        self.kept: list[NDArray[np.float64]] = []
        self.steps: list[float] = []

    def add(self, array: NDArray[Any]) -> None:
        if not np.isfinite(array).all():
            raise InputError(
                f"{self.source} holds NaN or infinite values: replace them, or import the stack again"
            )
        self.kept.append(array.ravel()[:: max(1, prod(array.shape) // self.most)].astype(np.float64))
        self.steps += _steps(array)

    def ends(self) -> tuple[float, float, float]:
        low, high = np.percentile(np.concatenate(self.kept), (_LOW, _HIGH)).tolist()
        return float(low), float(high), 0.0


def _steps(array: NDArray[Any]) -> list[float]:
    """Return by how much the mean of each section differs from that of the next, where both hold something."""
    means = array.mean(axis=(1, 2), dtype=np.float64)
    return _unlike(means, np.array([section.min() != section.max() for section in array]))


def _unlike(means: NDArray[np.float64], seen: NDArray[np.bool_]) -> list[float]:
    return [float(v) for v in np.diff(means)[seen[1:] & seen[:-1]]]
