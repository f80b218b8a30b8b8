"""`emloom synapses`: from raw, or a prediction, and a segmentation to a table of synapses."""

from __future__ import annotations

from typing import Annotated, Any

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
    Settings,
    VoxelSize,
    Workers,
    merged,
    read_settings,
    three,
    three_whole,
)


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("synapses")(synapses)


def synapses(  # noqa: PLR0913 (one parameter per option)
    output: Output,
    segmentation: Annotated[
        str, typer.Option("--segmentation", metavar="SEG", help="Segments, e.g. seg.zarr/segmentation")
    ],
    raw: Annotated[str | None, typer.Argument(metavar="[RAW]", help="Raw volume, for a model.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="A model.safetensors that finds synapses.")] = None,
    prediction: Annotated[
        str | None,
        typer.Option("--prediction", metavar="PRED", help="What emloom predict wrote, instead of a model."),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            "--decoder",
            metavar="KIND",
            help="sites, vectors, proximity, polarity or clefts.",
            autocompletion=complete.one_of("sites", "vectors", "proximity", "polarity", "clefts"),
        ),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask", help="No site where this is 0, or where emloom qc or repair (its folder) found one."
        ),
    ] = None,
    min_score: Annotated[
        float | None, typer.Option("--min-score", help="Leave out less sure ones, 0 to 1.")
    ] = None,
    duplicates: Annotated[
        float | None,
        typer.Option("--duplicates-nm", metavar="NM", help="Of the same two segments so near, keep the best."),
    ] = None,
    cell: Annotated[str | None, typer.Option("--cell", metavar="Z,Y,X", help="Voxels per cell.")] = None,
    settings: Settings = None,
    voxel_size: VoxelSize = None,
    tta: Annotated[int | None, typer.Option("--tta", metavar="4|8|16", help="See emloom predict.")] = None,
    device: Device = "auto",
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")] = False,
    block_minutes: BlockMinutes = 10.0,
    any_voxel_size: AnyVoxelSize = False,
    as_json: Json = False,
) -> None:
    """Find synapses and their partners, cell by cell; the same command goes on after a crash.

    Examples: emloom synapses raw.zarr --model model.safetensors --segmentation seg.zarr/segmentation -o syn/ |
    emloom synapses --prediction pred.zarr --segmentation seg.zarr/segmentation -o syn/ --settings synapses.yaml
    """
    from emloom.cli.progress import blocks_bar
    from emloom.nn.engine import Engine
    from emloom.nn.hardware import Hardware
    from emloom.run.cluster import executor_of
    from emloom.tasks.synapsedecoders import SynapsesJob
    from emloom.tasks.synapses import find_synapses, read_result, resolved, told

    given: dict[str, Any] = {
        "raw": raw,
        "model": model,
        "prediction": prediction,
        "segmentation": segmentation,
        "output": output,
        "mask": mask,
        "cell_shape_vox": three_whole(cell, "cell"),
        "decoder": None if decoder is None else {"kind": decoder},
        "clean": _said({"min_score": min_score, "duplicates_nm": duplicates}),
        "predicting": _said(
            {
                "voxel_size_nm": three(voxel_size, "voxel size"),
                "orientations": tta,
                "any_voxel_size": any_voxel_size or None,
            }
        ),
    }
    words = merged(read_settings(settings), _said(given))
    spec = SynapsesJob.from_dict(words, "synapses")
    engine = Engine.of(Hardware(device).torch_device, "torch", "32")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        made = find_synapses(spec, executor, tell, overwrite, engine)
    table, notes = read_result(made)
    chosen, page = resolved(spec), made / "report.html"
    lines = [*told(len(table), chosen), *(f"  {count:>8}  {name}" for name, count in notes.items())]
    words = {"output": made, "synapses": len(table), "decoder": chosen.kind, "counts": notes, "report": page}
    answer(as_json, words, [*lines, f"report: {page}"])


def _said(values: dict[str, Any]) -> dict[str, Any]:
    """Return what was said."""
    return {key: value for key, value in values.items() if value is not None and value != {}}
