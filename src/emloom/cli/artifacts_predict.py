"""`emloom artifacts predict`, `clean`, `parity`: map a volume, find its artifacts, prove what is said of them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import (
    AnyVoxelSize,
    BlockMinutes,
    Device,
    Json,
    Output,
    Scheduler,
    Settings,
    VoxelSize,
    Workers,
    merged,
    read_settings,
    three,
)

Model = Annotated[str, typer.Option("--model", help="A model.safetensors of a job of kind artifacts.")]
Step = Annotated[
    int, typer.Option("--step", help="Voxels from patch to patch; multiples of 16 are many times faster.")
]


def register(group: typer.Typer) -> None:
    """Add the commands of this file."""
    group.command("predict")(predict)
    group.command("clean")(clean)
    group.command("parity")(parity)


def predict(  # noqa: PLR0913 (one parameter per option)
    raw: Annotated[str, typer.Argument(metavar="RAW", help="Raw volume, e.g. stack.h5/volumes/raw or raw.zarr.")],
    model: Model,
    output: Output,
    step: Step = 32,
    voxel_size: VoxelSize = None,
    device: Device = "auto",
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")] = False,
    block_minutes: BlockMinutes = 10.0,
    any_voxel_size: AnyVoxelSize = False,
    as_json: Json = False,
) -> None:
    """Map the artifacts of a volume: logits of every class, one voxel per patch; goes on after a crash.

    Examples: emloom artifacts predict raw.zarr --model out/train/model.safetensors -o map.zarr |
    emloom artifacts predict raw.zarr --model model.safetensors -o map.zarr --step 16 --workers 4
    """
    from emloom.cli.progress import blocks_bar
    from emloom.nn.hardware import Hardware
    from emloom.run.cluster import executor_of
    from emloom.tasks.artifactmap import MapJob, predict_map

    job = MapJob.from_dict(
        {
            "raw": raw,
            "model": model,
            "output": output,
            "step_vox": step,
            "voxel_size_nm": three(voxel_size, "voxel size"),
            "any_voxel_size": any_voxel_size,
        },
        "artifacts predict",
    )
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        path = predict_map(
            job, Hardware(device).torch_device, lambda *n: tell("map", *n), executor, discard=overwrite
        )
    answer(as_json, {"output": output, "map": path}, f"map: {path}")


def parity(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint of a job of kind artifacts.")],
    raw: Annotated[str, typer.Argument(metavar="RAW", help="Raw volume of the model's voxel size.")],
    samples: Annotated[int, typer.Option("--samples", help="Patches to ask about.")] = 32,
    step: Step = 32,
    voxel_size: VoxelSize = None,
    as_json: Json = False,
) -> None:
    """Prove that training and prediction say the same of a patch, in any batch, order and block; else exit with 1.

    Example: emloom artifacts parity out/train/model.safetensors raw.zarr --samples 64
    """
    from emloom.tasks.artifactparity import parity_of

    found = parity_of(model, raw, samples=samples, step=step, voxel_size_nm=three(voxel_size, "voxel size"))
    lines = [f"{found.patches} patches; largest difference of a probability to the training loader:"]
    lines += [f"  {way:<28} {difference:.2g}" for way, difference in found.differences.items()]
    lines.append("training and prediction agree" if found.holds else "training and prediction DIFFER")
    words = {"patches": found.patches, "holds": found.holds, "differences": found.differences}
    answer(as_json, words, lines)
    if not found.holds:
        raise typer.Exit(1)


def clean(  # noqa: PLR0913 (one parameter per option)
    path: Annotated[str, typer.Argument(metavar="MAP", help="A map of logits, e.g. map.zarr/artifact.")],
    output: Output,
    low: Annotated[
        float | None, typer.Option("--low", help="Filtered logit from which on a position belongs (0).")
    ] = None,
    high: Annotated[
        float | None, typer.Option("--high", help="Filtered logit that some position must reach (1).")
    ] = None,
    min_size: Annotated[int | None, typer.Option("--min-size", help="Least positions of an artifact (1).")] = None,
    persistent: Annotated[
        int | None,
        typer.Option("--persistent", help="What goes on through so many sections is biology (4); 0: keep it."),
    ] = None,
    settings: Settings = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")] = False,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Find artifacts in a map: the single-section prior, hysteresis, least size, persistence; writes a mask.

    Examples: emloom artifacts clean map.zarr/artifact -o found.zarr --low 0 --high 2 |
    emloom qc raw.zarr --artifacts found.zarr/artifacts -o qc/
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.artifactclean import CleanJob, clean_map

    said = {"low": low, "high": high, "min_size": min_size}
    cleaning: dict[str, Any] = {name: value for name, value in said.items() if value is not None}
    if persistent is not None:
        cleaning["persistent"] = persistent or None
    given = {"map": path, "output": output, "cleaning": cleaning}
    job = CleanJob.from_dict(merged(read_settings(settings), given), "artifacts clean")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        found = clean_map(job, lambda *n: tell("clean", *n), executor, discard=overwrite)
    answer(as_json, {"output": output, "artifacts": found}, f"artifacts: {found}")
