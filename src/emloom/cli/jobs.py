"""Commands that run jobs: schema, check, run, train, predict, segment, demo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from emloom.cli.options import Device, Output, VoxelSize, box_of, three, three_whole
from emloom.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from emloom.tasks.job import NeuronsJob

Job = Annotated[str, typer.Argument(help="job.yaml, or a recipe such as emloom.recipes.fib25:quick")]
Settings = Annotated[
    list[str] | None, typer.Argument(help="Arguments of the recipe as name=value, e.g. seed=1", show_default=False)
]
Workers = Annotated[int, typer.Option("--workers", help="Processes that load training samples; 0 for none.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Run stages whose parameters or inputs changed again.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("schema")(schema)
    app.command("check")(check)
    app.command("run")(run)
    app.command("train")(train)
    app.command("predict")(predict)
    app.command("segment")(segment)
    app.command("demo")(demo)


def schema(
    example: Annotated[
        str | None, typer.Option("--recipe", help="Print the job file of a recipe instead of the schema.")
    ] = None,
) -> None:
    """Print the JSON schema of job files, for editors; or a recipe's job file to start from.

    Examples: emloom schema > job.schema.json | emloom schema --recipe emloom.recipes.fib25:quick > job.yaml
    """
    from emloom.tasks.job import NeuronsJob

    if example is not None:
        typer.echo(load_job(example, []).to_yaml(), nl=False)
    else:
        typer.echo(json.dumps(NeuronsJob.model_json_schema(), indent=2))


def check(job: Job, settings: Settings = None) -> None:
    """Prove, before any training, that the data and the job fit together.

    Examples: emloom check job.yaml | emloom check emloom.recipes.fib25:quick
    """
    from emloom.tasks.check import check as examine

    findings = examine(load_job(job, settings or []))
    for finding in findings:
        typer.echo(finding.to_text())
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def run(
    job: Job,
    settings: Settings = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="Folder; default runs/<job name>.")] = None,
    device: Device = "auto",
    workers: Workers = 1,
    overwrite: Overwrite = False,
) -> None:
    """Train, predict, segment and evaluate; what is already done is skipped.

    Examples: emloom run job.yaml -o out/ | emloom run emloom.recipes.fib25:quick seed=1 -o fib25-1/
    """
    from emloom.cli.progress import TerminalListener
    from emloom.nn.hardware import Hardware
    from emloom.tasks.pipeline import run as execute

    spec = load_job(job, settings or [])
    folder = Path(output or f"runs/{spec.name}")
    with TerminalListener() as listener:
        report = execute(spec, folder, Hardware(device, 1, workers), listener, overwrite)
    typer.echo(f"report: {report}")


def train(
    job: Job,
    settings: Settings = None,
    *,
    output: Output,
    device: Device = "auto",
    workers: Workers = 1,
) -> None:
    """Train only; the same command goes on where it was interrupted.

    Examples: emloom train job.yaml -o out/ | emloom train emloom.recipes.snemi3d:quick -o snemi3d/
    """
    from emloom.cli.progress import TerminalListener
    from emloom.nn.hardware import Hardware
    from emloom.tasks.pipeline import run as execute

    with TerminalListener() as listener:
        execute(load_job(job, settings or []), Path(output), Hardware(device, 1, workers), listener, until="train")
    typer.echo(f"model: {Path(output) / 'train' / 'model.safetensors'}")


def predict(  # noqa: PLR0913 (one parameter per option)
    raw: Annotated[str, typer.Argument(help="Raw volume, e.g. stack.h5/volumes/raw or raw.zarr")],
    model: Annotated[str, typer.Option("--model", help="A model.safetensors written by training.")],
    output: Output,
    voxel_size: VoxelSize = None,
    box: Annotated[
        str | None, typer.Option("--box", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Only these voxels.")
    ] = None,
    tile: Annotated[str | None, typer.Option("--tile", metavar="Z,Y,X", help="Voxels per tile.")] = None,
    tta: Annotated[
        int,
        typer.Option(
            "--tta", metavar="4|8|16", help="Average: mirrors in the section, all mirrors, those and transposed."
        ),
    ] = 1,
    device: Device = "auto",
    backend: Annotated[
        str, typer.Option("--backend", help="torch, openvino, or auto: the fastest here.")
    ] = "torch",
    precision: Annotated[
        str, typer.Option("--precision", help="32, bf16, or auto: bf16 where faster and close enough.")
    ] = "32",
) -> None:
    """Predict affinities for a volume of any size.

    Examples: emloom predict raw.zarr --model out/train/model.safetensors -o pred.zarr --box 0:64,0:512,0:512 |
    emloom predict raw.zarr --model model.safetensors -o pred.zarr --backend auto --precision auto
    """
    from emloom.cli.progress import bar
    from emloom.nn.engine import Engine
    from emloom.nn.hardware import Hardware
    from emloom.tasks.predict import PredictJob, predict_volume

    spec = PredictJob.from_dict(
        {
            "raw": raw,
            "model": model,
            "output": output,
            "box": box_of(box),
            "voxel_size_nm": three(voxel_size, "voxel size"),
            "tile_shape_vox": three_whole(tile, "tile"),
            "orientations": tta,
        },
        "predict",
    )
    engine = Engine.of(Hardware(device).torch_device, backend, precision)
    with bar("predict") as advance:
        computed_by = predict_volume(spec, engine, advance)
    typer.echo(f"{output}: affinities written, computed by {computed_by}")


def segment(
    affinities: Annotated[str, typer.Argument(help="Affinities, e.g. pred.zarr/affinities")],
    output: Output,
    threshold: Annotated[float, typer.Option("--threshold", help="Affinity at which merging stops.")],
    job: Annotated[
        str | None, typer.Option("--job", help="Take fragment and linkage settings from this job file.")
    ] = None,
) -> None:
    """Segment a volume of affinities.

    Examples: emloom segment pred.zarr/affinities --threshold 0.62 -o seg.zarr --job out/job.yaml
    """
    from emloom.tasks.segment import SegmentJob
    from emloom.tasks.segment import segment as execute

    given = {"affinities": affinities, "output": output, "threshold": threshold}
    if job is not None:
        given["segmentation"] = load_job(job, []).segmentation.to_dict()
    execute(SegmentJob.from_dict(given, "segment"))
    typer.echo(f"{output}: segmentation written")


def demo(
    output: Annotated[str, typer.Option("--output", "-o", help="Folder of the demo.")] = "demo",
    workers: Workers = 1,
) -> None:
    """Grow a phantom, train on it, segment it, and write a report: the whole main job in minutes.

    Examples: emloom demo | emloom demo -o /tmp/demo
    """
    from emloom.io.files import staged
    from emloom.recipes.phantom import PHANTOM
    from emloom.testing.phantom import write_phantom

    tissue = Path(output) / "phantom"
    if not tissue.exists():
        typer.echo(f"growing a phantom of {'x'.join(str(n) for n in PHANTOM.shape)} voxels", err=True)
        with staged(tissue) as folder:
            write_phantom(PHANTOM, folder)
    run("emloom.recipes.phantom:demo", [f"data={tissue}"], output, "auto", workers)


def load_job(reference: str, settings: list[str]) -> NeuronsJob:
    """Return the job of a YAML file, or of a recipe ``package.module:function`` with settings ``name=value``.

    Raises:
        InputError: there is no such file or recipe, or it is not valid.
    """
    import yaml

    from emloom.tasks.job import NeuronsJob

    if reference.endswith((".yaml", ".yml")) or Path(reference).exists():
        if settings:
            raise InputError(f"{' '.join(settings)}: settings belong to recipes; edit {reference} instead")
        return NeuronsJob.load(reference)
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


def _recipe(reference: str, arguments: dict[str, object]) -> NeuronsJob:
    import inspect
    from importlib import import_module

    from emloom.tasks.job import NeuronsJob

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
    if not isinstance(job, NeuronsJob):
        raise InputError(f"{reference} returned {type(job).__name__}, not a job: choose another recipe")
    return job
