"""`emloom info`: everything a file says, and what it does not."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid, cells
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import ArrayVolume, VolumeInfo
from emloom.tasks import info as module
from emloom.tasks.info import bounded_cell, info
from emloom.tasks.pyramid import PyramidSpec, pyramid

GRID = Grid((40, 4, 4.5))


def write(path: Path, array: np.ndarray, **changes: object) -> None:
    z, y, x = array.shape[-3:]
    what = VolumeInfo((z, y, x), array.dtype, GRID, chunks=(8, 8, 8)).with_(**changes)
    create_volume(path, what).write(Box.whole((z, y, x)), array)


@settings(deadline=None, max_examples=40)
@given(st.tuples(*[st.integers(1, 50)] * 3), st.tuples(*[st.integers(1, 9)] * 3), st.integers(2000, 10**5))
def test_cells_are_whole_steps_within_the_budget(
    shape: tuple[int, int, int], step: tuple[int, int, int], budget: int
) -> None:
    volume = ArrayVolume(np.zeros(shape, np.uint16), GRID)
    cell = bounded_cell(volume, step, budget)
    assert all(c % s == 0 for c, s in zip(cell, step, strict=True))
    assert cell == step or np.prod(cell) * 2 <= budget
    assert sum(box.size for _, box in cells(volume.info.box, cell)) == volume.info.box.size


def test_range_and_ids_do_not_depend_on_the_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(0).integers(0, 2**40, (20, 17, 30), dtype=np.uint64)
    labels[::2] = 0
    write(tmp_path / "a.zarr", labels, kind="labels")
    expected = (int(labels.min()), int(labels.max()), len(np.unique(labels)) - 1)
    for budget in (1, 5000, 2**27):
        monkeypatch.setattr(module, "CELL_BYTES", budget)
        (report,) = info(tmp_path / "a.zarr")
        assert report.values is not None
        assert (report.values.low, report.values.high, report.values.n_ids) == expected


def test_one_report_per_array_says_all(tmp_path: Path) -> None:
    write(tmp_path / "a.zarr/raw", np.full((9, 9, 9), 7, np.uint8), kind="raw")
    write(tmp_path / "a.zarr/labels", np.arange(729, dtype=np.uint64).reshape(9, 9, 9), kind="labels")
    labels, raw = info(tmp_path / "a.zarr")
    assert raw.to_dict()["range"] == [7, 7]
    assert raw.to_dict()["voxel_size_nm"] == [40, 4, 4.5]
    assert raw.to_dict()["missing"] == []
    assert labels.to_dict()["n_ids"] == 728
    assert json.loads(json.dumps(labels.to_dict())) == labels.to_dict()
    text = labels.to_text()
    for piece in ("a.zarr/labels", "zarr3", "9 x 9 x 9 uint64", "40, 4, 4.5 nm", "labels", "0 to 728", "728"):
        assert piece in text
    assert info(tmp_path / "a.zarr/raw", values=False)[0].values is None


def test_what_is_missing_or_wrong_is_said_not_raised(tmp_path: Path) -> None:
    values = np.zeros((4, 5, 6), np.float32)
    values[1, 2, 3], values[1, 2, 4], values[0, 0, 0] = np.nan, np.inf, -3
    with h5py.File(tmp_path / "x.h5", "w") as h5:
        h5["raw"] = values
        h5["contradictory"] = values
        h5["contradictory"].attrs.update({"resolution": [40, 4, 4], "voxel_size": [4, 4, 40]})
        h5["five"] = np.zeros((1, 2, 3, 4, 5), np.uint8)
        h5["empty"] = np.zeros((0, 2, 2), np.uint8)
    reports = {Path(report.found.path).name: report for report in info(tmp_path / "x.h5")}
    assert "voxel size" in reports["raw"].found.missing
    assert "MISSING" in reports["raw"].to_text()
    values_of_raw = reports["raw"].values
    assert values_of_raw is not None
    assert (values_of_raw.low, values_of_raw.high, values_of_raw.n_not_finite) == (-3, 0, 2)
    assert "2 values are NaN or infinite" in reports["raw"].to_text()
    assert "correct one of them" in reports["contradictory"].to_text()
    assert reports["contradictory"].values == values_of_raw
    assert "has 5 dimensions" in reports["five"].to_text()
    assert "is empty" in reports["empty"].to_text()


def test_nothing_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        info(tmp_path / "x.zarr")


@pytest.mark.real_data
def test_fib25(real_data: Path) -> None:
    (report,) = info(real_data / "fib25/trvol2_250.h5/volumes/labels/neuron_ids")
    assert report.values is not None
    assert report.values.n_ids in (525, 526)
    assert report.found.kind == "labels"


def test_coarser_levels_are_listed_and_open(tmp_path: Path) -> None:
    """OME-NGFF, N5 and precomputed name their levels, finer ones first."""
    image = tmp_path / "raw.zarr"
    info_ = VolumeInfo((64, 64, 64), np.dtype(np.uint8), Grid((8, 8, 8)), kind="raw")
    create_volume(image, info_).write(info_.box, np.full(info_.shape, 7, np.uint8))
    pyramid(PyramidSpec(image=str(image), levels=2))
    for k in range(2):
        create_volume(tmp_path / f"raw.n5/s{k}", info_.with_(shape=(64 >> k,) * 3, grid=Grid((8 << k,) * 3)))
    create_volume(tmp_path / "raw.precomputed", info_)
    about = json.loads((tmp_path / "raw.precomputed/info").read_text())
    about["scales"].append(
        {**about["scales"][0], "key": "16_16_16", "resolution": [16, 16, 16], "size": [32, 32, 32]}
    )
    (tmp_path / "raw.precomputed/info").write_text(json.dumps(about))
    expected = {
        "raw.zarr": [("1", 16), ("2", 32)],
        "raw.n5": [("s1", 16)],
        "raw.precomputed": [("16_16_16", 16)],
    }
    for name, levels in expected.items():
        (report,) = info(tmp_path / name, values=False)
        assert report.to_dict()["levels"] == [f"{tmp_path / name}/{level}" for level, _ in levels]
        assert all(f"level      {tmp_path / name}/{level}" in report.to_text() for level, _ in levels)
        for path, (_, size) in zip(report.found.levels, levels, strict=True):
            assert open_volume(path).info.grid.voxel_size_nm == (size, size, size)
