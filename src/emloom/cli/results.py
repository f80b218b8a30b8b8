"""Commands about results: evaluate, view."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from emloom.cli.options import Json, Output, Scheduler, Workers
from emloom.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("evaluate")(evaluate)
    app.command("view")(view)


def evaluate(  # noqa: PLR0913 (one parameter per option)
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SEGMENTATION TRUTH",
            help="Labels, or what `emloom segment` wrote (all its thresholds); true labels, of its box or more.",
        ),
    ],
    output: Output,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            metavar="A,B",
            help="voi, arand, rand, nvi, nid, inner, cremi, matching, pq, sbd, nerl, edges.",
        ),
    ] = "voi,arand,rand,inner",
    mask: Annotated[str | None, typer.Option("--mask", help="Volume, non-zero where voxels count.")] = None,
    raw: Annotated[str | None, typer.Option("--raw", help="Raw volume, to be drawn below the errors.")] = None,
    border: Annotated[int, typer.Option("--border", help="Voxels left out around true borders by `inner`.")] = 1,
    split_truth: Annotated[
        bool, typer.Option("--split-truth", help="Disconnected pieces of a true object are different objects.")
    ] = False,
    skeletons: Annotated[
        str | None,
        typer.Option("--skeletons", help="True tracings for nerl and edges: NML, SWC, or a folder of SWC."),
    ] = None,
    unit: Annotated[float | None, typer.Option("--unit", metavar="NM", help="nm per unit of SWC.")] = None,
    outside: Annotated[
        str, typer.Option("--outside", metavar="error|omit", help="What nodes outside of the segmentation are.")
    ] = "error",
    thresholds: Annotated[int, typer.Option("--thresholds", help="How many of a merge tree are scored.")] = 100,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    as_json: Json = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Put several results in one table: give their folders instead.")
    ] = False,
) -> None:
    """Score a segmentation against the truth, and show where it is wrong: scores.json, .csv and report.html.

    Examples: emloom evaluate seg.zarr truth.h5/volumes/labels/neuron_ids --raw raw.zarr -o scores/ |
    emloom evaluate seg.zarr/segmentation truth.zarr --metrics voi,cremi,matching -o scores/ |
    emloom evaluate --compare scores-a/ scores-b/ -o both/
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.comparing import compare as put_together
    from emloom.tasks.scorereport import write_score_report
    from emloom.tasks.scoring import EvaluateSpec
    from emloom.tasks.scoring import evaluate as score

    if compare:
        typer.echo(f"report: {put_together(paths, output)}")
        return
    if len(paths) != 2:
        raise InputError(f"{len(paths)} volumes are given: give the segmentation, then the truth (or --compare)")
    given = {
        "segmentation": paths[0],
        "truth": paths[1],
        "output": output,
        "metrics": [name.strip() for name in metrics.split(",") if name.strip()],
        "mask": mask,
        "raw": raw,
        "border": {"width_vox": border},
        "skeletons": None if skeletons is None else {"path": skeletons, "unit_nm": unit, "outside": outside},
        "split_truth": split_truth,
        "thresholds": thresholds,
    }
    spec = EvaluateSpec.from_dict(given, "evaluate")
    with executor_of(workers, scheduler) as executor, blocks_bar() as tell:
        found = score(spec, executor, lambda *n: tell("overlap", *n))
    page = write_score_report(spec, found)
    if as_json:
        typer.echo((Path(output) / "scores.json").read_text(encoding="utf-8"))
        return
    for name, value in found.row.items():
        typer.echo(f"{name:<26} {value:.4f}" if isinstance(value, float) else f"{name:<26} {value}")
    typer.echo(f"report: {page}")


def view(
    paths: Annotated[list[str], typer.Argument(help="Volumes to show together; name=path names a layer.")],
    port: Annotated[int, typer.Option("--port", help="Port on this machine; 0 takes a free one.")] = 0,
    at: Annotated[
        str | None, typer.Option("--at", metavar="Z,Y,X", help="Voxel of the first volume to look at.")
    ] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(
            "--segment", metavar="[LAYER=]ID,ID", help="Select ids in a layer of labels, or in all of them."
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", help="Secret part of the address, to keep it: that of a report, for its links."),
    ] = None,
) -> None:
    """Show volumes together in neuroglancer, served to this machine only.

    Examples: emloom view raw.zarr seg.zarr/segmentation | emloom view raw=a.h5/volumes/raw |
    emloom view raw.zarr truth=labels.zarr --at 12,340,88 --segment truth=5,9
    """
    from emloom.tasks.view import show
    from emloom.view.spot import Spot

    show(paths, port, typer.echo, spot=Spot.of(at, segment or ()), token=token)
