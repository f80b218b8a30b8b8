"""`emloom frequency`: what it says, what it writes, and its exit code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from emloom.geometry import Grid
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo
from tests.cli.test_cli import emloom


@pytest.fixture
def pair(tmp_path: Path) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (2, 32, 32)).astype(np.uint8)
    paths = []
    for name, values in (("x", x), ("y", x // 2)):
        info = VolumeInfo(values.shape, values.dtype, Grid((8.0, 8.0, 8.0)), kind="raw")
        create_volume(tmp_path / f"{name}.zarr", info).write(info.box, values)
        paths.append(str(tmp_path / f"{name}.zarr"))
    return paths[0], paths[1]


def test_levels_are_told_and_limits_decide(capsys, pair, tmp_path: Path) -> None:
    out, limits = str(tmp_path / "out"), tmp_path / "limits.yaml"
    code, said, error = emloom(capsys, "-q", "frequency", *pair, "--levels", "3", "--names", "half", "-o", out)
    assert (code, error) == (0, "")
    assert said.startswith("half: ratio and coherence by wavelength\n        16 nm    0.2")
    assert (tmp_path / "out" / "report.html").is_file()
    limits.write_text("wavelet: {levels: 2}\ngate: [{statistic: ratio, at_least: 0.9}]\n")
    words = ("frequency", *pair, "--settings", str(limits), "-o", out)
    assert emloom(capsys, *words)[0] == 0
    code, said, _ = emloom(capsys, *words, "--gate")
    assert code == 1
    assert said.count("limit broken: ratio 0.2") == 2
    code, said, _ = emloom(capsys, *words, "--json", "--wavelet", "db2")
    spec = json.loads((tmp_path / "out" / "provenance.json").read_text())["spec"]
    assert (code, spec["wavelet"]["levels"], spec["wavelet"]["name"]) == (0, 2, "db2")
    assert not json.loads(said)["passed"]


def test_what_does_not_fit_is_explained(capsys, pair, tmp_path: Path) -> None:
    for words, rule in ((("--gate",), "no limit to keep"), (("--levels", "9"), "at most 5")):
        code, _, error = emloom(capsys, "frequency", *pair, *words, "-o", str(tmp_path / "out"))
        assert code == 2
        assert rule in error
    assert not (tmp_path / "out").exists()
