"""The verbs about volumes on the command line: each does its work once, and refuses bad words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from emloom.geometry import Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from tests.cli.test_cli import emloom


@pytest.fixture
def raw(tmp_path: Path) -> str:
    info = VolumeInfo((10, 40, 50), np.dtype(np.uint8), Grid((40, 4, 4), (80, 0, 0)), kind="raw")
    values = np.random.default_rng(0).integers(0, 255, info.shape, dtype=np.uint8)
    create_volume(tmp_path / "raw.zarr", info).write(info.box, values)
    return f"{tmp_path}/raw.zarr"


def test_pyramid(capsys: pytest.CaptureFixture[str], raw: str) -> None:
    code, out, _ = emloom(capsys, "pyramid", raw)
    assert (code, "no coarser level is needed" in out) == (0, True)
    code, out, _ = emloom(capsys, "pyramid", raw, "--levels", "2")
    assert code == 0
    assert out.splitlines()[0] == f"{raw}/1: 10 x 20 x 25 voxels of 40, 8, 8 nm"
    code, _, err = emloom(capsys, "pyramid", raw, "--levels", "1")
    assert (code, "pass --replace" in err) == (2, True)
    assert emloom(capsys, "pyramid", raw, "--levels", "1", "--factors", "2,2,2", "--replace")[0] == 0
    assert open_volume(f"{raw}/1").info.shape == (5, 20, 25)


def test_crop(capsys: pytest.CaptureFixture[str], raw: str, tmp_path: Path) -> None:
    code, out, _ = emloom(capsys, "crop", raw, f"{tmp_path}/a.zarr", "--box", "1:4,0:20,5:50")
    assert (code, "3 x 20 x 45 uint8" in out) == (0, True)
    assert open_volume(tmp_path / "a.zarr").info.grid.offset_nm == (120, 0, 20)
    code, _, _ = emloom(capsys, "crop", raw, f"{tmp_path}/b.h5/x", "--box-nm", "120:240,0:80,20:200")
    assert code == 0
    a, b = open_volume(tmp_path / "a.zarr"), open_volume(tmp_path / "b.h5/x")
    assert a.info.grid == b.info.grid
    np.testing.assert_array_equal(a.read(a.info.box), b.read(b.info.box))
    for words, rule in [((), "needs one box"), (("--box-nm", "1:2"), "not understood"), (("--box", "x"), "z0:z1")]:
        code, _, err = emloom(capsys, "crop", raw, f"{tmp_path}/c.zarr", *words)
        assert (code, rule in err) == (2, True)
    assert not (tmp_path / "c.zarr").exists()


def test_stats(capsys: pytest.CaptureFixture[str], raw: str, tmp_path: Path) -> None:
    code, out, _ = emloom(capsys, "stats", raw, "--json", "-o", f"{tmp_path}/sections.csv")
    volume = open_volume(raw)
    report = json.loads(out)
    assert (code, report["mean"]) == (0, pytest.approx(volume.read(volume.info.box).mean()))
    assert len((tmp_path / "sections.csv").read_text().splitlines()) == 11
    code, out, _ = emloom(capsys, "stats", raw, "--kind", "raw")
    assert (code, "percentiles" in out, "histogram" in out) == (0, True, False)
    code, _, err = emloom(capsys, "stats", raw, "-o", "x.doc")
    assert (code, "name it .parquet or .csv" in err) == (2, True)


def test_export(capsys: pytest.CaptureFixture[str], raw: str, tmp_path: Path) -> None:
    code, out, _ = emloom(capsys, "export", raw, f"{tmp_path}/out", "--to", "hdf5", "--chunk", "4,4,4")
    assert (code, f"{tmp_path}/out.h5/volumes/raw: 10 x 40 x 50 uint8" in out) == (0, True)
    assert open_volume(tmp_path / "out.h5/volumes/raw").info.chunks == (4, 4, 4)
    code, _, err = emloom(capsys, "export", raw, f"{tmp_path}/out", "--to", "hdf6")
    assert (code, "did you mean 'hdf5'" in err) == (2, True)
