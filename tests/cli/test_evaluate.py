"""`emloom evaluate` takes a result and its truth to the right scores, and says what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from emloom.geometry import Grid
from emloom.io.open import create_volume
from emloom.io.volume import Kind, VolumeInfo
from tests.cli.test_cli import emloom

GRID = Grid((40.0, 4.0, 4.0))


def write(path: Path, ids, kind: Kind = "labels") -> str:
    info = VolumeInfo(ids.shape, ids.dtype, GRID, kind=kind)
    create_volume(path, info).write(info.box, ids)
    return str(path)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    truth = np.zeros((4, 16, 16), np.uint8)
    truth[:, 4:12, 2:14] = 1
    truth[:, 12:, :] = 2
    found = truth.copy()
    found[:, 4:6] = 2
    return write(tmp_path / "found.zarr", found), write(tmp_path / "truth.zarr", truth)


def scores(folder: Path) -> dict:
    return json.loads((folder / "scores.json").read_text())["rows"][0]


def test_metrics_of_classes_score_classes(capsys, pair, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    raw = write(tmp_path / "raw.zarr", np.zeros((4, 16, 16), np.uint8), "raw")
    code, text, _ = emloom(
        capsys, "evaluate", *pair, "--metrics", "f1,iou,boundary", "--names", "none, cell,wall", "--near", "8",
        "--raw", raw, "-o", str(out),
    )  # fmt: skip
    assert code == 0
    assert "report: " in text
    assert 0 < scores(out)["f1_macro"] < 1
    page = (out / "report.html").read_text()
    assert "cell called wall" in page
    assert f"raw={raw} truth={pair[1]} prediction={pair[0]}" in page


def test_ignored_values_and_other_settings_reach_the_scores(capsys, pair, tmp_path: Path) -> None:
    settings = tmp_path / "more.yaml"
    settings.write_text("classes: {n: 3}\nbootstrap: {resamples: 7, by: section}\n")
    out = tmp_path / "scores"
    words = ("--metrics", "confusion", "--ignore", "2", "--settings", str(settings), "-o", str(out))
    assert emloom(capsys, "evaluate", *pair, *words)[0] == 0
    spec = json.loads((out / "provenance.json").read_text())["spec"]
    assert (spec["bootstrap"]["resamples"], spec["bootstrap"]["by"]) == (7, "section")
    assert (spec["classes"]["n"], spec["classes"]["ignore"]) == (3, [2])  # one from each


def test_metrics_of_clefts_score_synapses(capsys, pair, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    code, _, error = emloom(capsys, "-q", "evaluate", *pair, "--metrics", "clefts", "-o", str(out))
    assert (code, error) == (0, "")
    assert scores(out)["cleft_fp"] == 0  # all within 200 nm


def test_a_submission_is_written(capsys, pair, tmp_path: Path) -> None:
    target = tmp_path / "submission.hdf"
    code, text, error = emloom(
        capsys, "-q", "evaluate", "--submit", "cremi", f"clefts={pair[0]}", "-o", str(target)
    )
    assert (code, error) == (0, ""), text
    with h5py.File(target) as file:
        assert (file["volumes/labels/clefts"][0, 0, 0], file["volumes/labels/clefts"].dtype) == (
            2**64 - 1,
            np.uint64,
        )


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("--metrics", "voi,f1"), "do not go together (voi of segmentations; f1 of classes)"),
        (("--metrics", "clfets"), "no metric 'clfets'; did you mean 'clefts'"),
        (("--metrics", ","), "no metric is asked for"),
        (("--settings", "{tmp}/none.yaml"), "cannot be read"),
        (("--metrics", "boundary"), "near"),
        (("--metrics", "nerl"), "--skeletons"),
        (("--submit", "isbi"), "no challenge 'isbi'"),
    ],
)
def test_what_does_not_fit_is_explained(capsys, pair, tmp_path: Path, words, rule: str) -> None:
    given = [word.format(tmp=tmp_path) for word in words]
    code, _, error = emloom(capsys, "evaluate", *pair, *given, "-o", str(tmp_path / "out"))
    assert code == 2
    assert rule in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_tracings_take_the_place_of_the_truth(capsys, pair, tmp_path: Path) -> None:
    swc = tmp_path / "one.swc"
    swc.write_text("1 0 0 0 0 1 -1\n2 0 20 0 0 1 1\n")
    settings = tmp_path / "rule.yaml"
    settings.write_text("skeletons: {rule: {zeroed: skeleton}}\n")
    out = tmp_path / "scores"
    words = ("evaluate", pair[0], str(swc), "--unit", "1", "--settings", str(settings), "-o", str(out))
    code, text, error = emloom(capsys, *words)
    assert (code, error) == (0, ""), text
    assert "nerl" in scores(out)
    spec = json.loads((out / "provenance.json").read_text())["spec"]
    assert spec["truth"] is None
    assert (spec["skeletons"]["unit_nm"], spec["skeletons"]["rule"]["zeroed"]) == (1, "skeleton")
    code, _, error = emloom(capsys, *words, "--skeletons", str(swc))
    assert code == 2
    assert "are both tracings" in error
    code, _, error = emloom(capsys, "evaluate", *pair, "--no-merge", pair[1], "-o", str(out))
    assert code == 2
    assert "skeletons.path" in error


def test_one_volume_is_not_enough(capsys, pair, tmp_path: Path) -> None:
    code, _, error = emloom(capsys, "evaluate", pair[0], "-o", str(tmp_path / "out"))
    assert code == 2
    assert "1 volumes are given: give what was found, then the truth" in error
