"""`emloom phantom`: what a person types, and what lies in the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from emloom.io.open import open_volume
from emloom.io.synapsetable import read_synapse_table
from tests.cli.test_cli import emloom

Capture = pytest.CaptureFixture[str]


def test_synapses_are_grown_where_asked_for(capsys: Capture, tmp_path: Path) -> None:
    plain, synaptic = str(tmp_path / "plain"), str(tmp_path / "synaptic")
    size = ("--shape", "64,80,90", "--seed", "2")
    code, out, _ = emloom(capsys, "phantom", plain, *size)
    assert (code, out) == (0, f"{plain}: raw.zarr and labels.zarr written\n")
    code, out, _ = emloom(capsys, "phantom", synaptic, *size, "--synapses", "25")
    table = read_synapse_table(synaptic)
    assert (code, len(table) > 0, f"{len(table)} synapses)" in out) == (0, True, True)
    assert open_volume(f"{synaptic}/clefts.zarr").info.shape == (64, 80, 90)


def test_too_many_are_refused(capsys: Capture, tmp_path: Path) -> None:
    code, _, err = emloom(capsys, "phantom", str(tmp_path / "p"), "--synapses", "1000")
    assert code != 0
    assert "synapses" in err
    assert not (tmp_path / "p").exists()
