"""Labels of patches as a volume: what the patch around a voxel holds, so far as anybody said.

A label is about a patch, and holds for patches a little beside it, too: those whose centres lie within
`jitter_vox` of its own, if no other labelled patch is nearer. Around the centre of every labelled patch its code
is painted, never stored, so that whoever reads a voxel reads what is known of the patch centred there::

    code = sum over classes c of digit_c * 3^c          digit: 0 unknown, 1 no, 2 yes

Of equally near patches the one that comes first in the table counts. Nearness is the largest distance along an
axis.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.patches import PatchLabels
from emloom.io.volume import VolumeInfo

MOST_CLASSES = 10
"""3^10 codes go into 16 bits."""

Codes = NDArray[np.uint16]


def codes_of_labels(labels_NC: NDArray[np.int8]) -> Codes:
    """Return the code of every row of labels (1 yes, 0 no, -1 unknown), uint16 [N]."""
    digits = labels_NC.astype(np.int64) + 1
    codes: Codes = (digits * 3 ** np.arange(labels_NC.shape[1])).sum(axis=1).astype(np.uint16)
    return codes


def labels_of_codes(code: int | np.integer[Any], classes: int) -> NDArray[np.int8]:
    """Return the labels of one code, int8 [C]."""
    labels: NDArray[np.int8] = (int(code) // 3 ** np.arange(classes) % 3 - 1).astype(np.int8)
    return labels


@dataclass(frozen=True, eq=False)
class PatchVolume:
    """Codes of patches by centre voxel, a `Volume` that is computed when read; see the module.

    Attributes:
        patches: one row per patch.
        raw: of the volume that they are patches of.
        jitter_vox: how far (z, y, x) from a centre its label holds.

    Raises:
        InputError: the patches are not on the raw's grid, lie outside it, or two rows are the same patch.
    """

    patches: PatchLabels
    raw: VolumeInfo
    jitter_vox: Vec = (0, 0, 0)
    info: VolumeInfo = field(init=False)
    _order: NDArray[np.int64] = field(init=False)
    _codes: Codes = field(init=False)

    def __post_init__(self) -> None:
        patches = self.patches
        if len(patches.classes) > MOST_CLASSES:
            raise InputError(
                f"{patches.source} has {len(patches.classes)} classes: {MOST_CLASSES} can be learned at once"
            )
        if not patches.grid.matches(self.raw.grid):
            raise InputError(
                f"{patches.source} is about {patches.grid}, {self.raw.source} has {self.raw.grid}: give the "
                "labels "
                "of this volume"
            )
        outside = np.flatnonzero(
            ((patches.starts < 0) | (patches.starts + np.array(patches.shape) > np.array(self.raw.shape))).any(
                axis=1
            )
        )
        if outside.size:
            raise InputError(
                f"{patches.source}: the patch at {patches.starts[outside[0]].tolist()} (z, y, x) of "
                f"{patches.shape} "
                f"voxels leaves {self.raw.source}, {self.raw.box}: remove it, or give the volume it is of"
            )
        if len(np.unique(patches.starts, axis=0)) < len(patches):
            raise InputError(
                f"{patches.source} has several rows for one patch, by {', '.join(patches.annotators)}: take their "
                "consensus first"
            )
        info = self.raw.with_(dtype=np.dtype(np.uint16), kind="labels", source=patches.source)
        object.__setattr__(self, "info", info)
        object.__setattr__(self, "_order", np.argsort(patches.centres[:, 0], kind="stable"))
        object.__setattr__(self, "_codes", codes_of_labels(patches.labels))

    def read(self, box: Box) -> Codes:
        """Return the codes of a box, uint16 ZYX; 0 where nothing is known."""
        if not self.info.box.contains(box):
            raise InputError(f"{box} leaves {self.info.source}, {self.info.box}: read inside it")
        out = np.zeros(box.shape, np.uint16)
        nearest = np.full(box.shape, np.iinfo(np.int32).max, np.int32)
        for row in self._near(box):
            self._paint(row, box, out, nearest)
        return out

    def write(self, box: Box, array: NDArray[Any]) -> None:
        """Refuse: labels are written as tables."""
        raise InputError(f"{self.info.source} is a table of patches: write it as one")

    def _near(self, box: Box) -> NDArray[np.int64]:
        """Return the rows whose labels may reach a box, in the order of the table."""
        centres, reach = self.patches.centres, np.array(self.jitter_vox)
        z = centres[self._order, 0]
        low, high = np.searchsorted(z, [box.start[0] - reach[0], box.stop[0] + reach[0]])
        rows = self._order[low:high]
        reaches = (centres[rows] + reach >= box.start) & (centres[rows] - reach < box.stop)
        near: NDArray[np.int64] = np.sort(rows[reaches.all(axis=1)])
        return near

    def _paint(self, row: int, box: Box, out: Codes, nearest: NDArray[np.int32]) -> None:
        centre = self.patches.centres[row]
        reach = np.array(self.jitter_vox)
        core = Box.of((centre - reach).tolist(), (centre + reach + 1).tolist()).intersect(box)
        if core.is_empty:
            return
        at = core.slices(box.start)
        axes = [
            np.abs(np.arange(a, b) - c) for a, b, c in zip(core.start, core.stop, centre.tolist(), strict=True)
        ]
        away = np.maximum(np.maximum(axes[0][:, None, None], axes[1][:, None]), axes[2])
        closer = away < nearest[at]
        nearest[at][closer] = away[closer]
        out[at][closer] = self._codes[row]
