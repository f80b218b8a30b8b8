"""`emloom qc`: what it says and writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_cli import emloom
from tests.tasks.test_qc import stored


def test_the_worst_sections_are_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(1, 255, (12, 192, 192), np.uint8)
    array[5] = 0
    raw, out = stored(tmp_path / "raw.zarr", array), tmp_path / "qc"
    code, said, _ = emloom(capsys, "qc", raw, "-o", str(out), "--tile", "32")
    assert code == 0
    lines = said.splitlines()
    assert lines[0].endswith("1 of 12 sections stand out, 8.33% of the voxels are masked")
    assert lines[1].startswith("  note: sections hardly resemble their neighbours")
    assert lines[2] == "  section     5  blank (void 1, limit 0.9)"
    assert lines[3] == f"report: {out / 'report.html'}"
    for name in ("report.html", "sections.csv", "sections.parquet", "qc.json", "provenance.json"):
        assert (out / name).is_file()
    code, said, _ = emloom(capsys, "qc", raw, "-o", str(out), "--tile", "32", "--json")
    told = json.loads(said)
    assert (code, told["n_bad_sections"], told["defects"], told["flags"][0]["z"]) == (0, 1, {"blank": 1}, 5)


def test_settings_and_what_does_not_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    raw = stored(tmp_path / "raw.zarr", np.full((3, 40, 40), 5, np.uint8))
    settings = tmp_path / "qc.yaml"
    settings.write_text("rules: {blank: 0.5}\nmasked: [crack]\n")
    code, said, _ = emloom(capsys, "qc", raw, "-o", str(tmp_path / "a"), "--settings", str(settings), "--json")
    assert (code, json.loads(said)["masked_voxels"]) == (0, 0)
    code, _, error = emloom(capsys, "qc", raw, "-o", str(tmp_path / "b"), "--tile", "40")
    assert code == 2
    assert "tile_vox" in error
    assert not (tmp_path / "b").exists()
