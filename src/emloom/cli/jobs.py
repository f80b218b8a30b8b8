"""Commands that run jobs: schema, check, run, train, demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emloom.cli.options import Device, Json, Output, Scheduler
from emloom.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from emloom.tasks.anyjob import AnyJob
    from emloom.tasks.job import NeuronsJob

Job = Annotated[str, typer.Argument(help="job.yaml, or a recipe such as emloom.recipes.fib25:quick")]
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


def check(job: Job, settings: Settings = None) -> None:
    """Prove, before any training, that the data and the job fit together.

    Examples: emloom check job.yaml | emloom check emloom.recipes.fib25:quick
    """
    from emloom.tasks.anyjob import check_job

    findings = check_job(load_job(job, settings or []))
    for finding in findings:
        typer.echo(finding.to_text())
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
    from emloom.tasks.pipeline import StageFailedError

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
        try:
            report = carry_out(spec, folder, where, overwrite=overwrite)
        except StageFailedError as problem:
            typer.echo(f"error: {problem}", err=True)
            raise typer.Exit(problem.exit_status) from None
    typer.echo(json.dumps({"report": str(report)}) if as_json else f"report: {report}")


def train(
    job: Job,
    settings: Settings = None,
    *,
    output: Output,
    device: Device = "auto",
    workers: Loaders = 1,
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
    typer.echo(f"model: {Path(output) / 'train' / 'model.safetensors'}")


def demo(
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the demo.")] = "demo",
    workers: Loaders = 1,
    as_json: Json = False,
) -> None:
    """Grow a phantom with planted damage and take it the whole way to a connectome that is known, in minutes.

    Examples: emloom demo | emloom demo -o /tmp/demo
    """
    from emloom.recipes.phantom_connectome import connectome, write_data

    folder = Path(output)
    if folder.exists() and any(folder.iterdir()) and not (folder / "phantom").is_dir():
        raise InputError(f"{output} holds something that no demo made: choose another folder (-o)")
    typer.echo("growing a phantom, and damaging another", err=True)
    job = folder / "job.yaml"
    made = connectome(str(write_data(folder / "phantom")))
    if not job.exists():
        made.dump(job)
    run(str(job), None, output, "auto", workers, as_json=as_json)


def load_neurons_job(reference: str, settings: list[str]) -> NeuronsJob:
    """Return a job that segments neurons; see `load_job`.

    Raises:
        InputError: there is no such file or recipe, it is not valid, or of another kind.
    """
    from emloom.tasks.job import NeuronsJob

    job = load_job(reference, settings)
    if not isinstance(job, NeuronsJob):
        raise InputError(
            f"{reference} is a job of kind {job.kind!r}, and this command needs one of kind 'neurons'"
        )
    return job


def load_job(reference: str, settings: list[str]) -> AnyJob:
    """Return the job of a YAML file, or of a recipe ``package.module:function`` with settings ``name=value``.

    Raises:
        InputError: there is no such file or recipe, or it is not valid.
    """
    import yaml

    from emloom.tasks.anyjob import load_any_job

    if reference.endswith((".yaml", ".yml")) or Path(reference).exists():
        if settings:
            raise InputError(f"{' '.join(settings)}: settings belong to recipes; edit {reference} instead")
        return load_any_job(reference)
    if ":" not in reference:
        raise InputError(
            f"{reference} is neither an existing job file nor a recipe like emloom.recipes.fib25:quick"
        )
    arguments = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"{setting!r} is not of the form name=value, like seed=1")
        arguments[name] = yaml.safe_load(value)
    return _recipe(reference, arguments)


def _recipe(reference: str, arguments: dict[str, object]) -> AnyJob:
    import inspect
    from importlib import import_module

    from emloom.tasks.anyjob import AnyJob

    module_name, _, function_name = reference.partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as problem:
        raise InputError(f"recipe module {module_name} was not found ({problem}): check its name") from None
    functions = {n: f for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module_name}
    public = sorted(name for name in functions if not name.startswith("_"))
    if function_name not in public:
        hint = did_you_mean(function_name, public)
        raise InputError(f"{module_name} has no recipe {function_name!r}{hint} (valid: {', '.join(public)})")
    accepted = list(inspect.signature(functions[function_name]).parameters)
    for name in arguments:
        if name not in accepted:
            hint = did_you_mean(name, accepted)
            raise InputError(f"{reference} takes no {name!r}{hint} (valid: {', '.join(accepted)})")
    job = functions[function_name](**arguments)
    if not isinstance(job, AnyJob):
        raise InputError(f"{reference} returned {type(job).__name__}, not a job: choose another recipe")
    return job
