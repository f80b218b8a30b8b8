"""`--json`: one JSON value on stdout, whatever else is said."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emloom.cli.jsonout import answer, plain
from tests.cli.test_cli import emloom
from tests.cli.test_cli import stack as stack
from tests.tasks.weaving import few_values, write_affinities


@dataclass
class Place:
    path: Path
    at: tuple[int, int]


class Report:
    def to_dict(self) -> dict[str, Any]:
        return {"place": Place(Path("a/b"), (1, 2)), "share": np.float32(0.5)}


def test_values_become_what_json_has() -> None:
    value = {"report": Report(), "ids": np.array([1, 2**64 - 1], np.uint64), 3: math.nan, "all": {Path("x")}}
    assert plain(value) == {
        "report": {"place": {"path": "a/b", "at": [1, 2]}, "share": 0.5},
        "ids": [1, 2**64 - 1],
        "3": None,
        "all": ["x"],
    }
    assert plain([math.inf, True, None, "t", np.int64(3)]) == [None, True, None, "t", 3]
    assert plain({"dtype": np.dtype(np.uint8)}) == {"dtype": "uint8"}
    with pytest.raises(TypeError, match="bytes"):
        plain(b"1")


def test_one_or_the_other_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    answer(True, {"a": 1}, lambda: pytest.fail("nobody reads it"))
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    answer(False, {"a": 1}, ["one", "two"])
    assert capsys.readouterr().out == "one\ntwo\n"


def test_stdout_is_json_and_nothing_else(
    capsys: pytest.CaptureFixture[str], stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    affinities = write_affinities(tmp_path / "pred.zarr", few_values((40, 50, 40), 1))
    monkeypatch.chdir(tmp_path)
    segment = ["segment", affinities, "--threshold", "0.6", "-o", "seg.zarr", "--cell", "32,32,32"]
    answers = {}
    for words in (
        ["info", str(stack)],
        ["import", f"{stack}/raw", "raw.zarr", "--kind", "raw"],
        ["pyramid", "raw.zarr", "--levels", "1"],
        ["crop", "raw.zarr", "part.zarr", "--box", "0:8,0:8,0:8"],
        ["export", "part.zarr", "part.h5/raw"],
        segment,
        ["status", "seg.zarr", "--verify"],
        ["retry", "seg.zarr"],
        ["graph", "query", "seg.zarr", "--largest", "3", "--csv", "largest.csv"],
        ["data", "list"],
    ):
        code, said, error = emloom(capsys, *words, "--json")
        assert code == 0, error
        answers[words[0]] = json.loads(said)
    assert answers["import"] == {"output": "raw.zarr", "verified": True}
    assert [level["name"] for level in answers["pyramid"]["levels"]] == ["1"]
    assert answers["segment"]["segmentation"] == "seg.zarr/segmentation"
    assert [stage["done"] for stage in answers["status"]["stages"]]
    assert answers["status"]["finished"]
    assert len(answers["graph"]) == 3
    assert (tmp_path / "largest.csv").exists()


def test_errors_go_to_stderr_with_json_too(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, said, error = emloom(capsys, "info", str(tmp_path / "nothing.zarr"), "--json")
    assert (code, said) == (2, "")
    assert error.startswith("error: ")
