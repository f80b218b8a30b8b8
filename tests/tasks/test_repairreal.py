"""Real stacks with planted defects: found, filled better than by a copy, and ids carried along."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from emloom.geometry import Box
from emloom.io.open import create_volume, open_volume
from emloom.tasks.repair import repair
from emloom.tasks.repairspec import BETWEEN, RepairJob
from tests.tasks.test_repair import rows, voxels

STACKS = {
    "isbi2012_cardona/train_z00-19.h5": (4, 11, 12),
    "snemi3d/crop512_z00-29.h5": (5, 15, 16),
}


def band(section: NDArray[np.generic]) -> NDArray[np.float64]:
    image = section.astype(np.float64)
    return (gaussian_filter(image, 1.5) - gaussian_filter(image, 16))[8:-8, 8:-8]


def likeness(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    return float(np.corrcoef(band(a).ravel(), band(b).ravel())[0, 1])


@pytest.mark.parametrize("path", STACKS)
def test_planted_defects_are_found_and_filled(path: str, real_data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("emloom.tasks.repair.write_repair_report", lambda folder: folder)
    raw, labels = (open_volume(f"{real_data}/{path}/volumes/{v}") for v in ("raw", "labels/neuron_ids"))
    box = Box((0, 64, 64), (20, 384, 384))
    whole, ids = raw.read(box), labels.read(box)
    one, *run = STACKS[path]
    damaged = whole.copy()
    damaged[one] = 0
    damaged[run[0]] = 255  # and what follows is unlike its neighbours, of which one is blank: that is named
    noise = np.random.default_rng(0).normal(0, 40, whole.shape[1:])
    damaged[run[1]] = np.clip(128 + gaussian_filter(noise, 2) * 5, 0, 255).astype(np.uint8)
    place = raw.info.grid.crop(box)
    for name, array, kind in (("raw", damaged, "raw"), ("ids", ids, "labels")):
        info = raw.info.with_(shape=box.shape, dtype=array.dtype, grid=place, kind=kind, chunks=None)
        create_volume(tmp_path / f"{name}.zarr", info).write(info.box, array)
    words = {"raw": f"{tmp_path}/raw.zarr", "labels": f"{tmp_path}/ids.zarr", "output": f"{tmp_path}/o"}
    out = repair(RepairJob(**words, sections={"bad": run[1:]}))
    made = {int(row["z"]): row["state"] for row in rows(out) if row["state"] != "measured"}
    assert made == dict.fromkeys((one, *run), "between")
    grey, codes, found = (voxels(out / n) for n in ("raw.zarr", "invented.zarr", "labels.zarr"))
    kept = [z for z in range(20) if z not in made]
    np.testing.assert_array_equal(grey[kept], whole[kept])
    moved = copied = gained = 0.0
    for z, near in ((one, one - 1), (run[0], run[0] - 1), (run[1], run[1] + 1)):
        assert (codes[z] == BETWEEN).mean() > 0.99
        gained += likeness(grey[z], whole[z]) - likeness(whole[near], whole[z])
        moved += (found[z] == ids[z]).mean()
        copied += (ids[near] == ids[z]).mean()
    assert gained > 0.1
    assert moved > copied
