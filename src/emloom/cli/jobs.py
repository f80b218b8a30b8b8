"""Commands that run jobs: schema, check, run, train, demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emloom.cli import complete
from emloom.cli.jsonout import answer
from emloom.cli.options import Device, Json, Output, Scheduler
from emloom.tasks.jobsource import load_job
from emloom.tasks.jobsource import load_neurons_job as load_neurons_job

if TYPE_CHECKING:
    from emloom.tasks.pipelinespec import PipelineJob

Job = Annotated[
    str,
    typer.Argument(
        help="job.yaml, or a recipe such as emloom.recipes.fib25:quick", autocompletion=complete.recipes
    ),
]
Settings = Annotated[
    list[str] | None, typer.Argument(help="Arguments of the recipe as name=value, e.g. seed=1", show_default=False)
]
Loaders = Annotated[int, typer.Option("--workers", help="Processes that load training samples; 0 for none.")]
BlockWorkers = Annotated[
    int, typer.Option("--block-workers", help="Processes that work block by block; runs of a study at a time.")
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Of a pipeline: only say what would be done, why, and what it would cost."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Run stages whose parameters or inputs changed again.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("schema")(schema)
    app.command("check")(check)
    app.command("run")(run)
    app.command("train")(train)
    app.command("demo")(demo)


def schema(
    example: Annotated[
        str | None, typer.Option("--recipe", help="Print the job file of a recipe instead of the schema.")
    ] = None,
) -> None:
    """Print the JSON schema of job files, for editors; or a recipe's job file to start from.

    Examples: emloom schema > job.schema.json | emloom schema --recipe emloom.recipes.fib25:quick > job.yaml
    """
    from emloom.tasks.anyjob import job_schema

    if example is not None:
        typer.echo(load_job(example, []).to_yaml(), nl=False)
    else:
        typer.echo(json.dumps(job_schema(), indent=2))


def check(
    job: Job,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Prove, before any training, that the data and the job fit together.

    Examples: emloom check job.yaml | emloom check emloom.recipes.fib25:quick
    """
    from emloom.tasks.anyjob import check_job

    findings = check_job(load_job(job, settings or []))
    answer(as_json, findings, [finding.to_text() for finding in findings])
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def run(  # noqa: PLR0913 (one parameter per option)
    job: Job,
    settings: Settings = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder; default runs/<job name>.")] = None,
    device: Device = "auto",
    workers: Loaders = 1,
    overwrite: Overwrite = False,
    *,
    block_workers: BlockWorkers = 1,
    scheduler: Scheduler = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Train, predict, segment and evaluate, or whatever the job's kind is; what is already done is skipped.

    Examples: emloom run job.yaml -o out/ | emloom run connectome.yaml -o out/ --dry-run
    """
    from emloom.cli.progress import TerminalListener
    from emloom.nn.hardware import Hardware
    from emloom.run.cluster import executor_of
    from emloom.tasks.anyjob import Where, carry_out

    spec = load_job(job, settings or [])
    folder = Path(output or f"runs/{spec.name}")
    if dry_run:
        from emloom.cli.pipelines import show_dry_run

        show_dry_run(spec, folder, block_workers, as_json)
        return
    blocks = (
        1 if spec.kind == "reconstruction_study" else block_workers
    )  # a study spreads its runs, not their blocks
    with executor_of(blocks, scheduler) as executor, TerminalListener() as listener:
        where = Where(Hardware(device, 1, workers), executor, block_workers, listener)
        report = carry_out(spec, folder, where, overwrite=overwrite)
    answer(as_json, {"folder": folder, "report": report}, f"report: {report}")


def train(
    job: Job,
    settings: Settings = None,
    *,
    output: Output,
    device: Device = "auto",
    workers: Loaders = 1,
    as_json: Json = False,
) -> None:
    """Train only; the same command goes on where it was interrupted.

    Examples: emloom train job.yaml -o out/ | emloom train emloom.recipes.snemi3d:quick -o snemi3d/
    """
    from emloom.cli.progress import TerminalListener
    from emloom.nn.hardware import Hardware
    from emloom.tasks.anyjob import Where, carry_out

    with TerminalListener() as listener:
        where = Where(Hardware(device, 1, workers), listener=listener)
        carry_out(load_job(job, settings or []), Path(output), where, only_train=True)
    model = Path(output) / "train" / "model.safetensors"
    answer(as_json, {"folder": output, "model": model}, f"model: {model}")


def demo(
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Folder; default demo, or demo-real.")
    ] = None,
    workers: Loaders = 1,
    real: Annotated[
        bool, typer.Option("--real", help="Neurons of real tissue instead, by a model that comes with emloom.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Grow a phantom with planted damage and take it the whole way to a connectome that is known, in minutes.

    With --real: neurons of FIB-25 (CC BY; downloaded unless EMLOOM_DATA has it) by a small network that
    learned on a part of it, scored where it never learned.

    Examples: emloom demo | emloom demo -o /tmp/demo | emloom demo --real
    """
    from emloom.errors import InputError

    folder = Path(output or ("demo-real" if real else "demo"))
    inputs = folder / ("tissue" if real else "phantom")
    job = folder / "job.yaml"
    if folder.exists() and any(folder.iterdir()) and not inputs.is_dir() and not job.exists():
        raise InputError(f"{folder} holds something that no demo made: choose another folder (-o)")
    made = _real(folder) if real else _grown(inputs)
    if not job.exists():
        folder.mkdir(parents=True, exist_ok=True)
        made.dump(job)
    run(str(job), None, str(folder), "auto", workers, as_json=as_json)


def _grown(tissue: Path) -> PipelineJob:
    from emloom.recipes.phantom_connectome import connectome, write_data

    typer.echo("growing a phantom, and damaging another", err=True)
    return connectome(str(write_data(tissue)))


def _real(folder: Path) -> PipelineJob:
    from emloom.cli.progress import bar
    from emloom.recipes.real_demo import job

    with bar("fetching FIB-25") as progress:
        return job(str(folder), progress=progress)
