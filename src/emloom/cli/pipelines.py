"""What the commands run and status say of a pipeline: tables of its stages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from emloom.errors import InputError


def show_dry_run(job: Any, folder: Path, cores: int, as_json: bool) -> None:
    """Print what `emloom run` would do; raises `InputError` for a job that is no pipeline."""
    from emloom.tasks.pipelinedry import dry_run
    from emloom.tasks.pipelinespec import PipelineJob

    if not isinstance(job, PipelineJob):
        raise InputError(f"{job.name} is of kind {job.kind!r}: --dry-run is for pipelines; use `emloom check`")
    _print(dry_run(job, folder, cores), as_json)


def is_pipeline(path: str) -> bool:
    """Whether a path is the folder of a pipeline."""
    import yaml

    file = Path(path) / "job.yaml"
    if not file.is_file():
        return False
    try:
        said = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(said, dict) and said.get("kind") == "pipeline"


def show_status(folder: str, as_json: bool) -> None:
    """Print how every stage of a pipeline stands; raises `InputError` where its inputs are gone."""
    from emloom.tasks.pipeline import FAILURE
    from emloom.tasks.pipelinedry import dry_run
    from emloom.tasks.pipelineguards import read_job

    place = Path(folder)
    _print(dry_run(read_job(place), place), as_json)
    failed = place / FAILURE
    if failed.is_file() and not as_json:
        first = failed.read_text(encoding="utf-8").splitlines()[0]
        typer.echo(f"the last run failed: {first} (all of it: {failed})")


def _print(found: Any, as_json: bool) -> None:
    from emloom.tasks.info import bytes_text
    from emloom.tasks.pipelinedry import duration, table_of

    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
        return
    rows = table_of(found)
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    for row in rows:
        both = enumerate(zip(row, widths, strict=True))
        cells = [text.ljust(width) if k < 3 else text.rjust(width) for k, (text, width) in both]
        typer.echo("  ".join(cells).rstrip())
    todo = sum(stage.will_run for stage in found.stages)
    if not todo:
        typer.echo(f"{found.folder}: everything is done")
        return
    typer.echo(
        f"{found.folder}: {todo} of {len(found.stages)} stages to do; an estimate, not a promise: about "
        f"{duration(found.seconds)}, {bytes_text(found.disk_bytes)} on disk ({bytes_text(found.free_bytes)} free)"
    )
    if not found.fits:
        typer.echo("the disk is too small: the run would be refused")
