"""Volumes far larger than the memory that is allowed: affinities of a phantom, made and segmented block by block.

The largest takes an hour and a half and 30 GB of disk; the other, with ``-m slow -k 512``, minutes.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from emloom.geometry import Box, Grid, cells
from emloom.io.graphstore import block_files, lut_file, read_lut, read_nodes
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.ops.affinities import nearest_neighborhood
from emloom.ops.labels import apply_lut
from emloom.tasks.segmentspec import AscentSpec, SegmentJob, SegmentSpec
from emloom.testing.phantom import Phantom, PhantomSpec

_GIB = 2**30


def phantom_affinities(side: int) -> NDArray[np.uint8]:
    """Two voxels of a phantom are joined as strongly as the darker of them is bright."""
    phantom = Phantom(PhantomSpec.isotropic((side, side, side)))
    raw = phantom.raw.read(phantom.raw.info.box)
    out = np.zeros((3, *raw.shape), np.uint8)
    for axis, pairs in enumerate(out):
        pairs[...] = np.minimum(raw, np.roll(raw, 1, axis))
    return out


def write_phantom_affinities(path: Path, side: int) -> str:
    """Store affinities of a phantom, repeated along every axis: so they are made quickly, however large."""
    tile = phantom_affinities(min(side, 256))
    grid = Grid((8.0, 8.0, 8.0))
    info = VolumeInfo((side,) * 3, np.dtype(np.uint8), grid, 3, (64, 64, 64), "affinities", nearest_neighborhood())
    volume = create_volume(path, info)
    for _, box in cells(info.box, tile.shape[1:]):
        volume.write(box, tile)
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize(("side", "cap_bytes"), [(512, 1.5 * _GIB), (2048, 4 * _GIB)])
def test_a_large_volume_is_segmented_under_a_cap(side: int, cap_bytes: float, tmp_path: Path) -> None:
    source = write_phantom_affinities(tmp_path / "pred.zarr", side)
    spec = SegmentSpec(fragments=AscentSpec(), thresholds=(0.5,), cell_shape_vox=(256, 256, 256))
    out = tmp_path / "seg.zarr"
    SegmentJob(affinities=source, output=str(out), threshold=0.5, segmentation=spec).dump(tmp_path / "job.yaml")
    script = Path(__file__).with_name("measured.py")
    words = [sys.executable, str(script), str(tmp_path / "job.yaml"), str(int(cap_bytes) // 4)]
    peak = int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    assert peak < cap_bytes
    segmentation, fragments = (open_volume(out / name) for name in ("segmentation", "fragments"))
    assert segmentation.info.shape == (side,) * 3
    files = block_files(out, "nodes").values()
    sizes = [int(read_nodes(path)[0]["size"].sum()) for path in files]
    assert (len(sizes), sum(sizes)) == ((side // 256) ** 3, side**3)
    lut = read_lut(lut_file(out, "mean", 0.5))
    for start in (0, side // 2 - 32, side - 64):
        box = Box((start, start, start), (64, 64, 64))
        ids = fragments.read(box)
        assert len(np.unique(ids)) > 100
        np.testing.assert_array_equal(segmentation.read(box), apply_lut(ids, *lut))
