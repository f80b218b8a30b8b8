"""`emloom plan`: what it says and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emloom.tasks.pipelinespec import PipelineJob
from tests.cli.test_cli import emloom
from tests.tasks.planned import tissue, write


def test_a_plan_is_told_and_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    raw, _ = tissue((12, 64, 64), (40.0, 8.0, 8.0))
    stack, job = write(tmp_path / "stack.h5", None, raw=raw), tmp_path / "job.yaml"
    words = ("plan", f"{stack}/raw", "-o", str(job), "--device", "cpu")
    code, _, error = emloom(capsys, *words)
    assert (code, job.exists()) == (2, False)
    assert "--voxel-size" in error
    code, said, _ = emloom(capsys, *words, "--voxel-size", "40,8,8")
    assert code == 0
    assert said.splitlines()[-1] == f"next: emloom run {job}"
    assert PipelineJob.load(job).voxel_size_nm == (40.0, 8.0, 8.0)
    code, _, error = emloom(capsys, *words, "--voxel-size", "40,8,8")
    assert (code, "already exists" in error) == (2, True)
    code, said, _ = emloom(capsys, *words, "--voxel-size", "40,8,8", "--overwrite", "--json")
    told = json.loads(said)
    assert code == 0
    assert told["job"] == PipelineJob.load(job).to_dict()
    assert told["reasons"]["raw"].startswith("12 sections of 64 x 64 voxels")
