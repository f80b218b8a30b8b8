"""Commands that give results to other programs: export-neurons, publish."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from emloom.cli.options import (
    BlockMinutes,
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
from emloom.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("export-neurons")(export_neurons)
    app.command("publish")(publish)


def export_neurons(  # noqa: PLR0913 (one parameter per option)
    segmentation: Annotated[str, typer.Argument(metavar="SEG", help="Labels, or what `emloom segment` wrote.")],
    output: Output,
    ids: Annotated[
        str | None, typer.Option("--ids", metavar="ID,ID", help="Which segments; default: all.")
    ] = None,
    min_size: Annotated[int, typer.Option("--min-size", metavar="VOXELS", help="Leave out smaller segments.")] = 0,
    meshes: Annotated[bool, typer.Option("--meshes", help="Surfaces, for neuroglancer.")] = False,
    ply: Annotated[bool, typer.Option("--ply", help="Surfaces as PLY.")] = False,
    obj: Annotated[bool, typer.Option("--obj", help="Surfaces as OBJ.")] = False,
    skeletons: Annotated[bool, typer.Option("--skeletons", help="Centre lines, for neuroglancer.")] = False,
    swc: Annotated[bool, typer.Option("--swc", help="Centre lines, an SWC file for each neuron.")] = False,
    nml: Annotated[bool, typer.Option("--nml", help="Centre lines of all neurons in one NML file.")] = False,
    synapses: Annotated[
        str | None, typer.Option("--synapses", metavar="SYN", help="Attached to the nodes nearest to their sites.")
    ] = None,
    factors: Annotated[
        str | None, typer.Option("--factors", metavar="Z,Y,X", help="Voxels taken together for coarser meshes.")
    ] = None,
    keep: Annotated[
        float | None, typer.Option("--keep", help="Fraction of the triangles that stays; 0.1.")
    ] = None,
    settings: Settings = None,
    voxel_size: VoxelSize = None,
    block: Annotated[str | None, typer.Option("--block", metavar="Z,Y,X", help="Voxels per block.")] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")] = False,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Write segments as meshes and skeletons; without a choice: --meshes --skeletons --swc.

    Examples: emloom export-neurons seg.zarr -o neurons/ | emloom export-neurons seg.zarr -o three/ --ids 5,9,12
    --ply --swc --synapses syn/ | emloom export-neurons labels.zarr -o big/ --min-size 10000 --factors 1,4,4
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.exportneurons import export_neurons as write
    from emloom.tasks.exportneuronsspec import ExportNeuronsJob

    surfaces = [name for name, asked in (("precomputed", meshes), ("ply", ply), ("obj", obj)) if asked]
    lines = [name for name, asked in (("precomputed", skeletons), ("swc", swc), ("nml", nml)) if asked]
    if not surfaces and not lines:
        surfaces, lines = ["precomputed"], ["precomputed", "swc"]
    given: dict[str, Any] = {
        "segmentation": segmentation,
        "output": output,
        "ids": _ids(ids),
        "min_size_vox": min_size,
        "synapses": synapses,
        "voxel_size_nm": three(voxel_size, "voxel size"),
        "meshes": _surfaces(surfaces, factors, keep),
        "skeletons": {"formats": lines} if lines else None,
    }
    if block is not None:
        given["block_vox"] = three_whole(block, "block")
    job = ExportNeuronsJob.from_dict(merged(read_settings(settings), given), "export-neurons")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        report = write(job, tell, executor, overwrite)
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())


def _surfaces(formats: list[str], factors: str | None, keep: float | None) -> dict[str, Any] | None:
    if not formats:
        if factors is not None or keep is not None:
            raise InputError("--factors and --keep are about meshes: ask for --meshes, --ply or --obj, too")
        return None
    spec: dict[str, Any] = {"formats": formats}
    if factors is not None:
        spec["factors"] = three_whole(factors, "factors")
    if keep is not None:
        spec["keep"] = keep
    return spec


def _ids(text: str | None) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError:
        raise InputError(f"ids {text!r} are not understood: write whole numbers, like 5,9,12") from None


def publish(  # noqa: PLR0913 (one parameter per option)
    output: Output,
    source: Annotated[
        str | None, typer.Argument(metavar="[RESULT]", help="Folder of a pipeline, or of any result.")
    ] = None,
    to: Annotated[str, typer.Option("--to", help="neuroglancer or webknossos.")] = "neuroglancer",
    raw: Annotated[str | None, typer.Option("--raw", help="The stack, where the folder does not hold it.")] = None,
    segmentation: Annotated[
        str | None, typer.Option("--segmentation", metavar="SEG", help="Labels, likewise.")
    ] = None,
    synapses: Annotated[str | None, typer.Option("--synapses", metavar="SYN", help="Synapses, likewise.")] = None,
    min_size: Annotated[
        int, typer.Option("--min-size", metavar="VOXELS", help="Smaller segments get no mesh and no skeleton.")
    ] = 0,
    no_meshes: Annotated[bool, typer.Option("--no-meshes", help="Leave out surfaces.")] = False,
    no_skeletons: Annotated[bool, typer.Option("--no-skeletons", help="Leave out centre lines.")] = False,
    address: Annotated[
        str | None, typer.Option("--address", metavar="URL", help="Where it will be: adds a state to open it.")
    ] = None,
    workers: Workers = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an unfinished result.")] = False,
    as_json: Json = False,
) -> None:
    """Put a whole result into one folder that neuroglancer, or webKnossos, opens as it is.

    Examples: emloom publish OUT/ -o public/ --address https://example.org/public | emloom publish -o public/
    --to webknossos --raw raw.zarr --segmentation seg.zarr
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.publish import PublishJob
    from emloom.tasks.publish import publish as run

    given: dict[str, Any] = {
        "output": output,
        "source": source,
        "to": to,
        "raw": raw,
        "segmentation": segmentation,
        "synapses": synapses,
        "min_size_vox": min_size,
        "address": address,
    }
    given |= {"meshes": None} if no_meshes else {}
    given |= {"skeletons": None} if no_skeletons else {}
    job = PublishJob.from_dict(given, "publish")
    with executor_of(workers, None, None) as executor, blocks_bar() as tell:
        report = run(job, tell, executor, overwrite)
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else report.to_text())
