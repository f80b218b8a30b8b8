"""The demo on real tissue: what is published becomes volumes, and the job scores where nothing learned."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.io.open import open_volume
from emloom.recipes import fib25, real_demo


def published(folder: Path, rows: int = 2) -> tuple[Path, Path]:
    grey, truth = folder / "grey.h5", folder / "truth.h5"
    rng = np.random.default_rng(0)
    with h5py.File(grey, "w") as file:
        file["raw"] = rng.integers(0, 255, (6, 7, 8), np.uint8)
    with h5py.File(truth, "w") as file:
        file["stack"] = np.arange(6 * 7 * 8, dtype=np.uint32).reshape(6, 7, 8) % 5
        # Not sorted, as bodies come.
        file["transforms"] = np.array([[4, 40], [0, 0], [2, 20], [1, 20], [3, 30]], np.uint64)[:, :rows]
    return grey, truth


def test_published_files_become_volumes_with_bodies(tmp_path: Path) -> None:
    grey, truth = published(tmp_path)
    real_demo.convert(grey, truth, tmp_path / "tissue")
    raw, labels = (open_volume(tmp_path / f"tissue/{name}.zarr") for name in ("raw", "labels"))
    assert raw.info.grid == labels.info.grid
    assert raw.info.grid.voxel_size_nm == (10.0, 10.0, 10.0)
    with h5py.File(grey) as one, h5py.File(truth) as other:
        np.testing.assert_array_equal(raw.read(raw.info.box), one["raw"][()])
        body = np.array([0, 20, 20, 30, 40])
        np.testing.assert_array_equal(labels.read(labels.info.box), body[other["stack"][()]])


def test_other_files_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    grey, truth = published(tmp_path, rows=1)
    with pytest.raises(InputError, match="a table of two columns"):
        real_demo.convert(grey, truth, tmp_path / "tissue")
    with pytest.raises(InputError, match="not the published files"):
        real_demo.convert(truth, grey, tmp_path / "tissue")
    assert not (tmp_path / "tissue").exists()


@pytest.mark.real_data
def test_what_is_scored_was_never_learned(real_data: Path, tmp_path: Path) -> None:
    job = real_demo.job(str(tmp_path), str(real_data))
    assert job.truth is not None
    split = fib25.stack(str(real_data))
    assert job.truth.boxes == split.test
    assert (job.raw, job.truth.labels) == (split.raw, split.labels)
    assert not any(a.box.intersect(b.box).size for a in split.test for b in split.validation)
