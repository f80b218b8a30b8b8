"""A segment in the middle of a volume, alone, which leans towards one of its neighbours."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emloom.geometry import Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.ops.affinities import neighborhood
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import AscentSpec, SegmentJob, SegmentSpec

SHAPE = (16, 20, 24)


def write_orphan(folder: Path) -> tuple[str, int]:
    """Write it; return the container, and the id of the orphan."""
    labels = np.ones(SHAPE, np.uint64)
    labels[:, 10:] = 2
    labels[5:11, 5:12, 8:16] = 3
    offsets = neighborhood(1)
    affinities = np.zeros((3, *SHAPE), np.uint8)
    for channel, offset in enumerate(offsets):
        there = np.roll(labels, [-v for v in offset], (0, 1, 2))
        pair = (labels * there).astype(np.int64)  # 3: orphan and 1; 6: orphan and 2; 2: the two
        affinities[channel] = np.where(labels == there, 230, np.select([pair == 6, pair == 3], [100, 30], 20))
    info = VolumeInfo(SHAPE, np.dtype(np.uint8), Grid((8.0, 8.0, 8.0)), 3, None, "affinities", offsets)
    create_volume(folder / "pred.zarr" / "affinities", info).write(info.box, affinities)
    spec = SegmentSpec(fragments=AscentSpec(smoothing_vox=(0, 0, 0), least_affinity=0.7), thresholds=(0.2, 0.5))
    output = str(folder / "seg.zarr")
    source = str(folder / "pred.zarr" / "affinities")
    segment(SegmentJob(affinities=source, output=output, threshold=0.5, segmentation=spec))
    found = open_volume(Path(output) / "segmentation")
    return output, int(found.read(found.info.box)[8, 8, 12])
