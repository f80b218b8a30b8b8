"""Maps become artifacts the same way in one slab and in many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.ops.logits import encode_logits
from emloom.ops.prior import CleanSpec, FilterSpec, find_artifacts
from emloom.tasks import artifactclean
from emloom.tasks.artifactclean import CleanJob, clean_map

SHAPE = (23, 12, 14)


@pytest.fixture
def path(tmp_path: Path) -> str:
    logits = np.random.default_rng(2).normal(-3, 2, SHAPE).astype(np.float32)
    logits[4, 3:7, 2:9] = 6  # of one section
    logits[8:20, 8:11, 8:11] = 6  # goes on: biology
    logits[0, 0, 0] = np.nan
    info = VolumeInfo(SHAPE, np.dtype(np.uint8), Grid((40.0, 128.0, 128.0), (0, 12.0, 0)), kind="logits")
    create_volume(tmp_path / "map.zarr" / "artifact", info).write(info.box, encode_logits(logits))
    return str(tmp_path / "map.zarr" / "artifact")


@pytest.mark.parametrize("slab", [1, 5, 64])
def test_slabs_give_what_the_whole_gives(
    path: str, slab: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifactclean, "_SLAB", slab)
    cleaning = CleanSpec(low=0.0, high=4.0, persistent=3)
    found = open_volume(clean_map(CleanJob(map=path, output=str(tmp_path / "out.zarr"), cleaning=cleaning)))
    codes = open_volume(path)
    filtered, expected = find_artifacts(codes.read(codes.info.box), FilterSpec(), cleaning)
    assert np.array_equal(found.read(found.info.box), expected.astype(np.uint8))
    stored = open_volume(tmp_path / "out.zarr" / "filtered")
    assert np.array_equal(stored.read(stored.info.box), filtered)
    assert (found.info.kind, stored.info.kind) == ("mask", "logits")
    assert found.info.grid == codes.info.grid
    assert expected[4, 4:6, 4:8].all()
    assert not expected[11:17, 9, 9].any()


def test_the_command_goes_on_and_refuses_what_is_no_map(path: str, tmp_path: Path) -> None:
    args = ["artifacts", "clean", path, "-o", str(tmp_path / "out.zarr"), "--high", "4", "--persistent", "0"]
    assert CliRunner().invoke(app, args).exit_code == 0
    found = open_volume(tmp_path / "out.zarr" / "artifacts")
    assert found.read(found.info.box)[11:17, 9, 9].any()  # 0: what goes on is kept
    how = tmp_path / "how.yaml"  # options that are not given overrule nothing
    how.write_text("cleaning: {high: 4, persistent: null}")
    told = ["artifacts", "clean", path, "-o", str(tmp_path / "told.zarr"), "--settings", str(how)]
    assert CliRunner().invoke(app, told).exit_code == 0
    same = open_volume(tmp_path / "told.zarr" / "artifacts")
    assert np.array_equal(same.read(same.info.box), found.read(found.info.box))
    with pytest.raises(InputError, match="not a map of logits"):
        clean_map(CleanJob(map=str(tmp_path / "out.zarr" / "artifacts"), output=str(tmp_path / "again.zarr")))
