"""Where training samples come from: boxes that never come near what is held out.

A training box must lie in its region and keep the gap of the split from every held-out box. Targets look beyond
their box: a gap as wide as that reach keeps held-out labels from ever being read (`emloom check` warns where it is
not). Sources are read-only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.io.volume import Volume, borrow
from emloom.nn.starts import free_starts


@dataclass(frozen=True)
class TrainingVolume:
    """A raw volume, with labels or without, and where training may look.

    Attributes:
        raw: ``zyx`` image.
        labels: ``zyx`` ids on the same grid, 0 is background; None: there are none.
        region: voxels that training may use.
        held_out: boxes (validation, test) already grown by the gap of the split.
        mask: ``zyx``, non-zero where labels are known; None if they are known everywhere.
        weight: how often this volume is drawn, relative to the others.
        background_vox: how far (z, y, x) from a labelled voxel a 0 still means background; further away it means
            that nobody painted there, which is unknown. None: 0 is background everywhere.
        hidden: boxes (validation, test) whose labels never count as known, wherever a deformed sample reaches.
        avoid: ``zyx``, non-zero where quality control found an artefact; None: nowhere.
        foreground: ``zyx`` integers that say where crops are wanted (clefts beside neuron ids, say); None: labels.
        sites_nm: float [n, 3], world positions (z, y, x) in nm of sites around which crops are wanted.

    Raises:
        InputError: the volumes are not on one grid.
    """

    raw: Volume
    labels: Volume | None
    region: Box
    held_out: tuple[Box, ...] = ()
    mask: Volume | None = None
    weight: float = 1.0
    background_vox: Vec | None = None
    hidden: tuple[Box, ...] = ()
    avoid: Volume | None = None
    foreground: Volume | None = None
    sites_nm: NDArray[np.float64] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for other in (self.labels, self.mask, self.avoid, self.foreground):
            if other is not None:
                check_same_grid(self.raw, other)

    def allows(self, box: Box) -> bool:
        """Whether a training sample may use `box`."""
        return self.region.contains(box) and not any(box.meets(held) for held in self.held_out)

    def site_voxels(self) -> NDArray[np.int64]:
        """Return int64 [n, 3], the voxel of every site; raises `InputError` where one has no place."""
        sites = np.asarray([] if self.sites_nm is None else self.sites_nm, float).reshape(-1, 3)
        if not np.isfinite(sites).all():
            raise InputError(f"{self.raw.info.source} has sites that are not finite: give z, y, x in nm")
        grid = self.raw.info.grid
        return np.array([grid.containing(site) for site in sites.tolist()], np.int64).reshape(-1, 3)


def check_same_grid(raw: Volume, other: Volume) -> None:
    """Raise `InputError` unless both volumes have the same shape, voxel size and offset."""
    a, b = raw.info, other.info
    if a.shape != b.shape:
        raise InputError(
            f"{b.source} has shape {b.shape} but {a.source} has {a.shape} (z, y, x): crop or convert one of them "
            "so that every voxel has both"
        )
    if not a.grid.matches(b.grid):
        raise InputError(
            f"{b.source} has voxel size {b.grid.voxel_size_nm} nm at {b.grid.offset_nm} nm but {a.source} has "
            f"{a.grid.voxel_size_nm} nm at {a.grid.offset_nm} nm: they must share one grid"
        )


def possible_starts(volume: TrainingVolume, shape: Vec) -> int:
    """Return how many training boxes of `shape` the volume has (exact, in no time)."""
    return free_starts(volume.region, volume.held_out, shape).count


def read_labels(
    volume: TrainingVolume, box: Box, held_out: bool = False, within: Box | None = None
) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Return (labels, known) of a box that may leave the volume; voxels outside are 0 and unknown.

    Labels have the type of the volume, and may be a read-only view of it. `known` is empty where everything is
    known. What lies in hidden boxes is known only if `held_out`; where `within` names a box, only what lies in it.
    Of a volume without labels nothing is.
    """
    if volume.labels is None:
        return np.zeros(box.shape, np.uint8), np.zeros(box.shape, np.uint8)
    inside = box.intersect(volume.labels.info.box)
    hidden = [held.intersect(box) for held in volume.hidden if not held_out and held.meets(box)]
    if inside == box and volume.mask is None and volume.background_vox is None and not (hidden or within):
        return borrow(volume.labels, box), np.zeros((0, 0, 0), np.uint8)
    labels = np.zeros(box.shape, volume.labels.info.dtype)
    known = np.zeros(box.shape, np.uint8)
    at = inside.slices(box.start)
    labels[at] = borrow(volume.labels, inside)
    known[at] = 1 if volume.mask is None else borrow(volume.mask, inside) != 0
    if volume.background_vox is not None:
        window = [2 * reach + 1 for reach in volume.background_vox]
        known &= ndimage.maximum_filter((labels != 0).view(np.uint8), size=window, mode="constant")
    for held in hidden:
        known[held.slices(box.start)] = 0
    if within is not None:
        only = np.zeros_like(known)
        only[within.intersect(box).slices(box.start)] = 1
        known &= only
    return labels, known
