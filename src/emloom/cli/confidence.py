"""Commands about trust: confidence, and proofreading."""

from __future__ import annotations

from typing import Annotated

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import BlockMinutes, Json, Output, Scheduler, Workers

Replace = Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("confidence")(confidence)


def confidence(  # noqa: PLR0913 (one parameter per option)
    segmentation: Annotated[
        str, typer.Argument(metavar="SEG", help="What `emloom segment` wrote, e.g. seg.zarr.")
    ],
    output: Output,
    prediction: Annotated[
        str | None, typer.Option("--prediction", help="Affinities that were segmented; default: where SEG says.")
    ] = None,
    second: Annotated[
        str | None,
        typer.Option("--second", help="Other affinities of the same voxels, e.g. predicted with --tta 8."),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option("--mask", help="Bad data: a folder of qc, repair or align, or not 0 there; repeatable."),
    ] = None,
    raw: Annotated[str | None, typer.Option("--raw", help="Raw volume, for pictures.")] = None,
    tile_nm: Annotated[float, typer.Option("--tile-nm", help="Side of the tiles of confidence.zarr.")] = 128.0,
    least: Annotated[int, typer.Option("--least", metavar="VOXELS", help="Smaller sides are not listed.")] = 500,
    places: Annotated[int, typer.Option("--places", metavar="N", help="Most places of the list.")] = 200,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Replace = False,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Say how far to trust a segmentation without any truth, and list where to look first.

    Examples: emloom confidence seg.zarr --raw raw.zarr -o confidence/ | emloom confidence seg.zarr --prediction
    pred.zarr/affinities --second tta.zarr/affinities --mask qc/ --mask fixed/ -o confidence/ --workers 4
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.confidence import confidence as execute
    from emloom.tasks.confidencespec import ConfidenceJob
    from emloom.tasks.lookhere import read_places

    given = {
        "segmentation": segmentation,
        "output": output,
        "prediction": prediction,
        "second": second,
        "masks": mask or [],
        "raw": raw,
        "tile_nm": tile_nm,
        "least_vox": least,
        "places": places,
    }
    job = ConfidenceJob.from_dict(given, "confidence")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        made = execute(job, executor, tell, overwrite)
    found = read_places(made)
    first = ["{:>4}  {:<8}  {},{},{}  {}".format(p.rank, p.kind, *p.at, p.reason) for p in found[:10]]
    said = [*first, f"{made}/report.html: written, with look_here.csv and confidence.zarr"]
    answer(as_json, {"folder": made, "report": made / "report.html", "look_here": found}, said)
