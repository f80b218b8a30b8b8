"""Everything `emloom plan` opens and looks at, and how labels lie on the raw.

Labels that cover a part of the raw only have voxels of their own. A job needs labels on the grid of the raw,
so a plan
writes them out once, beside the job file, with a mask of where they are known. What is outside takes no space::

    raw     ┌────────────────────┐        connectome-labels.zarr/labels   on the grid of the raw, 0 outside
            │      ┌──────┐      │        connectome-labels.zarr/known    1 where labels are
            │      │labels│      │
            │      └──────┘      │
            └────────────────────┘
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fastremap
import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box, Vec, cells
from emloom.geometry.grid import Vec3
from emloom.io.checks import require_labels
from emloom.io.files import staged
from emloom.io.open import create_volume, open_volume
from emloom.io.places import Remote, place_of
from emloom.io.volume import Volume, VolumeInfo, cached
from emloom.tasks.lattice import start_between
from emloom.tasks.planlabels import LabelsLook, look_at_labels
from emloom.tasks.planlook import WHOLE_VOX, RawLook, look_at_raw, open_raw
from emloom.tasks.planquality import QualityLook, look_at_quality
from emloom.tasks.plansplit import Tally
from emloom.tasks.plansynapses import SynapseLook

_LEAST_VOX = 50
_CELL: Vec = (64, 512, 512)
_CHUNK: Vec = (64, 64, 64)


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels, and where they lie on a raw stack.

    Attributes:
        volume: the labels.
        look: what was seen of them.
        start: voxel of the raw at which they begin.
        part: voxels of the raw that they cover, as far as these are in it.
        whole: whether they are on the grid of the raw already.
    """

    volume: Volume
    look: LabelsLook
    start: Vec
    part: Box
    whole: bool

    @property
    def region(self) -> Box:
        """Voxels of the raw with labels."""
        return self.look.box.shift(self.start).intersect(self.part)

    def read(self, box: Box) -> np.ndarray[tuple[int, ...], np.dtype[np.unsignedinteger]]:
        """Return the labels of a box of the raw that they cover."""
        return self.volume.read(box.shift([-n for n in self.start]))

    def tally(self, synapses: SynapseLook | None) -> Callable[[Box], Tally]:
        """Return what says what a box of the raw holds."""

        def of(box: Box) -> Tally:
            ids, counts = fastremap.unique(self.read(box), return_counts=True)
            voxels = counts[ids != 0].astype(np.int64)
            labelled = int(voxels.sum())
            largest = int(voxels.max(initial=0)) / max(labelled, 1)
            sites = None if synapses is None else synapses.inside(box)
            return Tally(labelled / box.size, int((voxels >= _LEAST_VOX).sum()), largest, sites)

        return of


@dataclass(frozen=True, eq=False)
class Seen:
    """What was looked at.

    Attributes:
        path: of the raw, as a job file names it.
        raw: the stack.
        look: what was seen of it.
        quality: of its sections; None where they cannot be judged.
        beside: arrays of the same file that may be labels.
    """

    path: str
    raw: Volume
    look: RawLook
    quality: QualityLook | None
    beside: tuple[str, ...]


def absolute(path: str) -> str:
    """Return a path that means the same from any folder; addresses stay."""
    return path if isinstance(place_of(path), Remote) else str(Path(path).absolute())


def see(path: str, voxel_size_nm: Vec3 | None) -> Seen:
    """Open a raw stack and look at it.

    Raises:
        InputError: as `open_raw` and `look_at_raw`.
    """
    raw, beside = open_raw(path, voxel_size_nm)
    chosen = raw.info.source if beside else path
    if raw.info.box.size <= WHOLE_VOX:
        raw = cached(raw)
    return Seen(absolute(chosen), raw, look_at_raw(raw), look_at_quality(raw), beside)


def see_labels(path: str, seen: Seen, voxel_size_nm: Vec3 | None) -> Labels:
    """Open labels and look at them.

    Raises:
        InputError: they are no labels, off the voxel lattice of the raw, or beside it.
    """
    volume = open_volume(path, voxel_size_nm=voxel_size_nm, kind="labels")
    info, raw = require_labels(volume), seen.look.info
    start = start_between(info, raw)
    part = info.box.shift(start).intersect(raw.box)
    if part.is_empty:
        raise InputError(
            f"{path} covers voxels {info.box.shift(start)} of {raw.source}, which has {raw.box}: they do not "
            f"meet; "
            "check offsets, or name other labels"
        )
    if info.box.size <= WHOLE_VOX:
        volume = cached(volume)
    return Labels(volume, look_at_labels(volume), start, part, start == (0, 0, 0) and info.shape == raw.shape)


def spread_out(labels: Labels, raw: VolumeInfo, folder: Path, overwrite: bool) -> None:
    """Write labels that cover a part of the raw on its grid, and a mask of where they are known.

    Raises:
        InputError: the folder exists and is not to be overwritten, or the disk refuses.
    """
    with staged(folder, overwrite=overwrite) as place:
        dtype = labels.volume.info.dtype
        ids = VolumeInfo(raw.shape, dtype, raw.grid, chunks=_CHUNK, kind="labels")
        known = ids.with_(dtype=np.dtype(np.uint8), kind="mask")
        to, mask = (create_volume(place / name, info) for name, info in (("labels", ids), ("known", known)))
        for _, box in cells(labels.part, _CELL):
            to.write(box, labels.read(box))
            mask.write(box, np.ones(box.shape, np.uint8))


def within(box: Box, most: Vec) -> Box:
    """Return the middle of a box, no larger than `most`."""
    shape = [min(a, b) for a, b in zip(box.shape, most, strict=True)]
    start = [s + (n - e) // 2 for s, n, e in zip(box.start, box.shape, shape, strict=True)]
    return Box((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))
