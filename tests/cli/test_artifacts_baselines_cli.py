"""`emloom artifacts baselines`: the command says what the files say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emloom.io.patchtables import write_patches
from tests.cli.test_cli import emloom
from tests.tasks.micrographs import write
from tests.tasks.test_artifactbaselines import tissue


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[str, str]:
    values, labels = tissue()
    write_patches(tmp_path / "labels.csv", labels)
    return write(tmp_path / "raw.zarr", values), str(tmp_path / "labels.csv")


def test_baselines_are_compared_and_shown(capsys, tmp_path: Path, inputs: tuple[str, str]) -> None:
    settings = tmp_path / "these.yaml"
    settings.write_text(
        "bootstrap: {resamples: 20}\nbaselines:\n- {features: {kind: pixels}, scorer: {kind: neighbours, k: 3}}\n"
    )
    split = ("--block", "5,48,48", "--gap", "1,0,0")
    out = tmp_path / "out"
    code, text, _ = emloom(
        capsys, "artifacts", "baselines", *inputs, *split, "--settings", str(settings), "-o", str(out)
    )
    assert code == 0
    rows = json.loads((out / "scores.json").read_text())["rows"]
    assert [row["baseline"] for row in rows] == ["neighbours of pixels"]
    assert f"{rows[0]['average_precision']:.3f}" in text
    assert f"report: {out / 'report.html'}" in text
    assert (out / "report.html").is_file()
    assert (out / "detectors" / "neighbours-of-pixels.safetensors").is_file()
    # Without settings: all that grey values can do; the same split by its seed.
    code, text, _ = emloom(
        capsys, "artifacts", "baselines", *inputs, *split, "--seed", "4", "--json", "-o", str(tmp_path / "json")
    )
    assert code == 0
    assert [row["baseline"] for row in json.loads(text)["rows"]] == [
        "linear probe of pixels",
        "neighbours of pixels",
    ]
    provenance = json.loads((tmp_path / "json" / "provenance.json").read_text())
    assert provenance["spec"]["split"]["seed"] == 4


def test_bad_input_is_explained(capsys, tmp_path: Path, inputs: tuple[str, str]) -> None:
    code, _, problem = emloom(
        capsys, "artifacts", "baselines", *inputs, "--recall", "80", "-o", str(tmp_path / "out")
    )
    assert code == 2
    assert "recall" in problem
    assert not (tmp_path / "out").exists()
