"""`emloom confidence` and `emloom proofread`: from a segmentation to a list, and back with answers."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from emloom.io.open import open_volume
from tests.cli.test_cli import emloom
from tests.tasks.orphaned import write_orphan


def test_a_list_with_a_column_of_decisions_is_applied(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    segmentation, orphan = write_orphan(tmp_path)
    folder = str(tmp_path / "confidence")
    code, out, _ = emloom(capsys, "confidence", segmentation, "-o", folder, "--least", "100", "--tile-nm", "64")
    assert code == 0
    assert out.splitlines()[-1].startswith(f"{folder}/report.html: written")
    assert f"segment {orphan} (" in out
    with (tmp_path / "confidence" / "look_here.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["decision"] = "merge" if row["kind"] == "orphan" else ""
    with (tmp_path / "answers.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    corrected = str(tmp_path / "corrected")
    code, out, _ = emloom(
        capsys, "proofread", "apply", segmentation, str(tmp_path / "answers.csv"), "-o", corrected
    )
    assert (code, out) == (0, f"{corrected}: 1 merge\n")
    volume = open_volume(tmp_path / "corrected" / "segmentation.zarr")
    before = open_volume(Path(segmentation) / "segmentation").read(volume.info.box)
    after = volume.read(volume.info.box)
    assert len(np.unique(after)) == len(np.unique(before)) - 1
    assert after[8, 8, 12] == after[8, 15, 12]  # with the neighbour it leans towards


def test_answers_of_a_tracing_are_read_as_a_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    segmentation, _ = write_orphan(tmp_path)
    emloom(capsys, "confidence", segmentation, "-o", str(tmp_path / "c"), "--least", "100")
    text = (tmp_path / "c" / "look_here.nml").read_text(encoding="utf-8")
    edited, table = tmp_path / "edited.nml", tmp_path / "decisions.csv"
    edited.write_text(text.replace("merge, split or ok:", "merge, split or ok: merge", 1), encoding="utf-8")
    code, out, _ = emloom(capsys, "proofread", "read", str(edited), "-o", str(table))
    assert (code, out) == (0, f"{table}: 1 decisions\n")
    code, _, err = emloom(capsys, "proofread", "read", str(tmp_path / "c" / "look_here.nml"), "-o", str(table))
    assert code == 2
    assert "decides nothing" in err
