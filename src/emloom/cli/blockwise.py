"""Commands that work block by block, here or on a cluster: predict, segment, status, retry."""

from __future__ import annotations

from typing import Annotated

import typer

from emloom.cli import complete
from emloom.cli.jsonout import answer
from emloom.cli.options import (
    AnyVoxelSize,
    BlockMinutes,
    Device,
    Json,
    Output,
    Scheduler,
    VoxelSize,
    Workers,
    box_of,
    three,
    three_whole,
)

Job = Annotated[
    str | None, typer.Option("--job", help="Take fragment and linkage settings from this job file or recipe.")
]
Result = Annotated[str, typer.Argument(metavar="OUT", help="What predict or segment writes, finished or not.")]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")]
Verify = Annotated[
    bool, typer.Option("--verify", help="Read everything again and compare it with what was written.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("predict")(predict)
    app.command("segment")(segment)
    app.command("status")(status)
    app.command("retry")(retry)


def predict(  # noqa: PLR0913 (one parameter per option)
    raw: Annotated[str, typer.Argument(help="Raw volume, e.g. stack.h5/volumes/raw or raw.zarr")],
    model: Annotated[str, typer.Option("--model", help="A model.safetensors written by training.")],
    output: Output,
    voxel_size: VoxelSize = None,
    box: Annotated[
        str | None, typer.Option("--box", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Only these voxels.")
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option("--mask", help="Only where this is not 0, or emloom qc (its folder) found nothing."),
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
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Replace = False,
    block_minutes: BlockMinutes = 10.0,
    any_voxel_size: AnyVoxelSize = False,
    as_json: Json = False,
) -> None:
    """Predict a volume of any size with a model, block by block; the same command goes on after a crash.

    Affinities of a model of neurons, grey values of one that reconstructs.

    Examples: emloom predict raw.zarr --model out/train/model.safetensors -o pred.zarr --box 0:64,0:512,0:512 |
    emloom predict raw.zarr --model model.safetensors -o pred.zarr --backend auto --precision auto
    """
    from emloom.cli.progress import blocks_bar
    from emloom.nn.engine import Engine
    from emloom.nn.hardware import Hardware
    from emloom.run.cluster import executor_of
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
            "mask": mask,
            "any_voxel_size": any_voxel_size,
        },
        "predict",
    )
    engine = Engine.of(Hardware(device).torch_device, backend, precision)
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        computed_by = predict_volume(spec, engine, lambda *n: tell("predict", *n), executor, overwrite)
    words = {"output": output, "computed_by": computed_by}
    answer(as_json, words, f"{output}: written, computed by {computed_by}")


def segment(  # noqa: PLR0913 (one parameter per option)
    affinities: Annotated[str, typer.Argument(help="Affinities, e.g. pred.zarr/affinities")],
    output: Output,
    threshold: Annotated[float, typer.Option("--threshold", help="Affinity at which merging stops.")],
    job: Job = None,
    fragments: Annotated[
        str | None,
        typer.Option(
            "--fragments",
            metavar="KIND",
            help="ascent, seeded or mutex; changes that of the job.",
            autocompletion=complete.one_of("ascent", "seeded", "mutex"),
        ),
    ] = None,
    linkage: Annotated[
        str | None,
        typer.Option(
            "--linkage",
            metavar="KIND",
            help="mean, quantile, max or mutex; changes that of the job.",
            autocompletion=complete.one_of("mean", "quantile", "max", "mutex"),
        ),
    ] = None,
    cell: Annotated[str | None, typer.Option("--cell", metavar="Z,Y,X", help="Voxels per cell.")] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask", help="Nothing is segmented where this is 0, or emloom qc (its folder) found something."
        ),
    ] = None,
    min_size: Annotated[
        int, typer.Option("--min-size", metavar="VOXELS", help="Smaller segments become background.")
    ] = 0,
    lut: Annotated[
        list[float] | None,
        typer.Option("--lut", metavar="T", help="Also write the look-up table at T; repeatable."),
    ] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Replace = False,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Segment affinities of any size, cell by cell; the same command goes on after a crash.

    Examples: emloom segment pred.zarr/affinities --threshold 0.62 -o seg.zarr --job out/job.yaml |
    emloom segment pred.zarr/affinities --threshold 0.62 -o seg.zarr --workers 8
    """
    from emloom.cli.jobs import load_neurons_job
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.memoryplan import memory_plan
    from emloom.tasks.segmenting import segment as execute
    from emloom.tasks.segmentspec import SegmentJob

    given = {
        "affinities": affinities,
        "output": output,
        "threshold": threshold,
        "mask": mask,
        "min_segment_vox": min_size,
        "luts": lut or [],
    }
    settings = {} if job is None else load_neurons_job(job, []).segmentation.to_dict()
    for part, kind in (("fragments", fragments), ("linkage", linkage)):
        if kind is not None and settings.get(part, {}).get("kind") != kind:
            settings[part] = {"kind": kind}
    if cell is not None:
        settings["cell_shape_vox"] = three_whole(cell, "cell")
    given["segmentation"] = settings
    spec = SegmentJob.from_dict(given, "segment")
    plan = memory_plan(spec)
    typer.echo(plan.to_text(workers if scheduler is None else None), err=True)
    if scheduler is None:
        plan.require(workers)
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        execute(spec, executor, tell, overwrite, graph_bytes=plan.graph_bytes)
    words = {"output": output, "segmentation": f"{output}/segmentation", "threshold": threshold}
    answer(as_json, words, f"{output}: segmentation written")


def status(
    result: Result,
    verify: Verify = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    as_json: Json = False,
) -> None:
    """Say how far a result came, which blocks failed and why; with --verify, whether it is still what was written.

    Of a pipeline's folder: how every stage stands, and which parameter or input would make it run again. Ends with
    status 1 where blocks failed or are damaged.

    Examples: emloom status seg.zarr | emloom status seg.zarr --verify --workers 4 | emloom status out/
    """
    from emloom.cli.pipelines import is_pipeline, show_status

    if is_pipeline(result):
        show_status(result, as_json)
        return
    from emloom.cli.progress import blocks_bar
    from emloom.run.blockjournal import name_of
    from emloom.run.cluster import executor_of
    from emloom.tasks.resume import result_status

    with executor_of(workers, scheduler) as executor, blocks_bar() as tell:
        found = result_status(result, verify, executor, tell)
    if as_json:
        answer(as_json, found, "")
        raise typer.Exit(int(not found.is_well))
    typer.echo(f"{found.folder}: {found.kind}, {'finished' if found.finished else 'not finished'}")
    for stage in found.stages:
        total = "?" if stage.total is None else stage.total
        failed = f", {stage.failed} failed" if stage.failed else ""
        typer.echo(f"  {stage.name:<14} {stage.done} of {total} blocks done{failed}")
        for failure in stage.failures:
            typer.echo(
                f"    {name_of(failure.index)}  {failure.error}  ({failure.attempts} tries, {failure.host})"
            )
    for damage in found.damages:
        typer.echo(f"  damaged: {damage}")
    if verify and not found.damages:
        typer.echo("  verified: everything is as it was written")
    if not found.is_well:
        raise typer.Exit(1)


def retry(
    result: Result,
    verify: Verify = False,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Make what is missing of a result: blocks that failed or were not reached; with --verify, damaged ones too.

    Examples: emloom retry seg.zarr | emloom retry seg.zarr --verify --workers 4
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.resume import retry as execute

    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        made = execute(result, verify, executor, tell)
    answer(as_json, {"output": made, "whole": True}, f"{made}: whole")
