"""`emloom evaluate --submit cremi`: what is typed becomes a submission, and the validator's words are printed."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from emloom.cli.submit import SubmitOptions, check_submission, submit_to
from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.cremi import CLEFTS, NEURON_IDS, TRANSPARENT
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo

GRID = Grid((40.0, 4.0, 4.0), (400.0, 40.0, 40.0))


@pytest.fixture
def clefts(tmp_path: Path) -> str:
    array = np.zeros((4, 20, 24), np.uint8)
    array[2, 8:12, 9:14] = 1
    info = VolumeInfo(array.shape, array.dtype, GRID, kind="labels")
    create_volume(tmp_path / "clefts.zarr", info).write(info.box, array)
    return str(tmp_path / "clefts.zarr")


def test_a_submission_is_cut_written_and_judged(
    tmp_path: Path, clefts: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "sample.h5")
    options = SubmitOptions(shape="2,8,9", offset="440,64,72")  # from voxel 1, 6, 8 of the prediction
    submit_to("cremi", [f"clefts={clefts}", f"neuron_ids={clefts}"], target, options)
    said = capsys.readouterr().out
    assert said.startswith(f"{target}: 2 x 8 x 9 voxels")
    assert "0 errors" in said
    with h5py.File(target) as h5:
        stored = h5[CLEFTS][()]
        assert stored.dtype == np.uint64
        assert (np.argwhere(stored != TRANSPARENT).min(axis=0) == (1, 2, 1)).all()
        assert (h5[NEURON_IDS][()] == np.where(stored == TRANSPARENT, 0, stored)).all()
    check_submission("cremi", target, SubmitOptions(shape="2,8,9", as_json=True))
    assert json.loads(capsys.readouterr().out)["ok"] is True
    with pytest.raises(InputError, match="would not be scored"):
        check_submission("cremi", target, SubmitOptions(shape="125,1250,1250"))
    assert "is (2, 8, 9), not (125, 1250, 1250)" in capsys.readouterr().out
    with pytest.raises(InputError, match="exists"):
        submit_to("cremi", [f"clefts={clefts}"], target)
    submit_to("cremi", [f"clefts={clefts}"], target, SubmitOptions(overwrite=True, keep_offset=True, as_json=True))
    assert json.loads(capsys.readouterr().out)["ok"] is True
    with h5py.File(target) as h5:
        assert tuple(h5[CLEFTS].attrs["offset"]) == GRID.offset_nm


@pytest.mark.parametrize(
    ("challenge", "paths", "words"),
    [
        ("crmi", ["clefts=a.zarr"], "no challenge 'crmi'; did you mean 'cremi'"),
        ("cremi", ["a.zarr"], "'a.zarr' does not say what it is: write clefts=PATH"),
        ("cremi", ["cleft=a.zarr"], "did you mean 'clefts'"),
        ("cremi", ["clefts="], "does not say what it is"),
        ("cremi", ["clefts=a.zarr", "clefts=b.zarr"], "clefts is given twice, a.zarr and b.zarr"),
        ("cremi", [], "needs one of clefts, neuron_ids and annotations"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path: Path, challenge: str, paths: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        submit_to(challenge, paths, str(tmp_path / "out.h5"))
    assert not (tmp_path / "out.h5").exists()
