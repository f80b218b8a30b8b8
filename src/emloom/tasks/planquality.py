"""What `emloom plan` sees of the sections of a stack: the measures of `emloom qc`, on a sample.

Up to three runs of 16 sections, 512 x 512 voxels each, from the first, the middle and the last part of the stack
(of a stack of at most 48 sections, one run of all) go through `emloom.tasks.qc`. Sections that are moved, or jump,
ask for alignment; sections behind which nothing is to be seen, and cracks, ask for repair.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emloom.geometry import Box
from emloom.io.open import create_volume
from emloom.io.volume import Volume
from emloom.tasks.qc import quality_control
from emloom.tasks.qcspec import Defect, QcSpec
from emloom.tasks.repairspec import BAD

MOVED: tuple[Defect, ...] = ("shifted", "jump")
TORN: tuple[Defect, ...] = (*BAD, "crack")
ASIDE_NM = 48.0
"""A tenth of the sections further aside than this: the stack is to be aligned. Three cells of the measurement."""
_RUN, _ONE_RUN, _SIDE = 16, 48, 512


@dataclass(frozen=True)
class QualityLook:
    """What is known of the sections.

    Attributes:
        sections: how many were looked at.
        flags: (section, defect), of the sample.
        aside_nm: how far sections lie beside the one before, without the drift: exceeded by a tenth of them. None:
            not measured, because sections hardly resemble each other or there are too few.
        notes: what could not be judged, and why.
    """

    sections: int
    flags: tuple[tuple[int, str], ...]
    aside_nm: float | None
    notes: tuple[str, ...]

    def named(self, defects: tuple[Defect, ...]) -> list[tuple[int, str]]:
        """Return the flags of some defects."""
        return [flag for flag in self.flags if flag[1] in defects]

    @property
    def moved(self) -> bool:
        """Whether the stack should be aligned."""
        return bool(self.named(MOVED)) or (self.aside_nm or 0.0) > ASIDE_NM

    @property
    def torn(self) -> bool:
        """Whether the stack should be repaired."""
        return bool(self.named(TORN))


def look_at_quality(volume: Volume) -> QualityLook | None:
    """Look at a sample of the sections of a raw stack; None for grey values that `emloom qc` does not count."""
    info = volume.info
    if info.dtype.kind not in "iu" or info.dtype.itemsize > 2:
        return None
    flags: list[tuple[int, str]] = []
    aside: list[float] = []
    notes: list[str] = []
    boxes = _runs(info.box)
    for box in boxes:
        with tempfile.TemporaryDirectory(prefix="emloom-plan-") as folder:
            sample = info.with_(shape=box.shape, grid=info.grid.crop(box), chunks=None, kind="raw")
            create_volume(Path(folder) / "raw.zarr", sample).write(Box.whole(box.shape), volume.read(box))
            report = quality_control(QcSpec(raw=f"{folder}/raw.zarr", output=f"{folder}/qc"))
        flags += [(flag.z + box.start[0], flag.defect) for flag in report.flags]
        notes += [note for note in report.notes if note not in notes]
        steps = np.stack([report.table["shift_y"], report.table["shift_x"]])
        steps = steps[:, np.isfinite(steps).all(axis=0)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            aside += np.hypot(*(steps - np.median(steps, axis=1, keepdims=True))).tolist() if steps.size else []
    far = float(np.percentile(aside, 90)) if aside and not notes else None
    return QualityLook(sum(box.shape[0] for box in boxes), tuple(sorted(flags)), far, tuple(notes))


def _runs(whole: Box) -> list[Box]:
    """Return the boxes of the sample."""
    depth = whole.shape[0]
    y, x = (min(_SIDE, n) for n in whole.shape[1:])
    at_y, at_x = (whole.shape[1] - y) // 2, (whole.shape[2] - x) // 2
    if depth <= _ONE_RUN:
        return [Box((0, at_y, at_x), (depth, y, x))]
    return [Box(((depth - _RUN) * k // 2, at_y, at_x), (_RUN, y, x)) for k in range(3)]
