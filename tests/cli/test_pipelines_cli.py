"""A pipeline at the command line: what would be done, what was, and why it would be done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo
from emloom.tasks.pipelinespec import PipelineJob
from tests.tasks.pipelines import neurons_job


def said(*words: str, status: int = 0) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == status, result.output
    return result.stdout


def answered(*words: str) -> Any:
    return json.loads(said(*words, "--json"))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    raw = np.random.default_rng(0).integers(60, 200, (12, 96, 96), np.uint8)
    info = VolumeInfo(raw.shape, raw.dtype, Grid((40.0, 8.0, 8.0)), kind="raw")
    create_volume(tmp_path / "raw.zarr", info).write(info.box, raw)
    path = tmp_path / "connectome.yaml"
    PipelineJob.from_dict({"name": "look", "raw": str(tmp_path / "raw.zarr")}).dump(path)
    return path


def test_what_would_be_done_is_told_and_nothing_is_written(job: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    words = answered("run", str(job), "-o", out, "--dry-run")
    assert [(s["stage"], s["will_run"]) for s in words["stages"]] == [
        ("check", True), ("qc", True), ("report", True)
    ]  # fmt: skip
    table = said("run", str(job), "-o", out, "--dry-run")
    assert all(name in table for name in ("check", "qc", "report", "estimate"))
    assert not (tmp_path / "out").exists()


def test_status_says_what_changed(job: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    words = answered("run", str(job), "-o", out)
    assert Path(words["report"]).is_file()
    assert "done" in said("status", out)
    assert not any(s["will_run"] for s in answered("status", out)["stages"])
    spec = PipelineJob.load(job).to_dict()
    spec["qc"]["masked"].remove("blank")
    PipelineJob.from_dict(spec | {"name": "look again"}).dump(job)
    stages = {s["stage"]: s for s in answered("run", str(job), "-o", out, "--dry-run")["stages"]}
    assert not stages["check"]["will_run"]
    assert "qc.masked" in stages["qc"]["why"]
    assert stages["report"]["will_run"]
    assert "changed: qc.masked" in said("run", str(job), "-o", out, "--dry-run").replace("\n", " ")


def test_a_dry_run_of_another_kind_of_job_is_refused(tmp_path: Path) -> None:
    neurons_job(tmp_path).dump(tmp_path / "neurons.yaml")
    result = CliRunner().invoke(app, ["run", str(tmp_path / "neurons.yaml"), "--dry-run"])
    assert isinstance(result.exception, InputError)
    assert "kind 'neurons': --dry-run is for pipelines" in str(result.exception)
