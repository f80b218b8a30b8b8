"""`emloom suggest-slices`: which slices to label next."""

from __future__ import annotations

from typing import Annotated

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import BlockMinutes, Json, Output, Scheduler, Workers


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("suggest-slices")(suggest_slices)


def suggest_slices(  # noqa: PLR0913 (one parameter per option)
    probabilities: Annotated[
        str, typer.Argument(metavar="PROBABILITIES", help="Of classes, e.g. pred.zarr/classes")
    ],
    output: Output,
    labels: Annotated[
        str | None, typer.Option("--labels", help="What is labelled already: labels.yaml, or a volume of labels.")
    ] = None,
    raw: Annotated[str | None, typer.Option("--raw", help="Raw volume; default: what was predicted from.")] = None,
    names: Annotated[
        str | None, typer.Option("--names", metavar="A,B,..", help="Names of the classes, class 0 first.")
    ] = None,
    size: Annotated[int, typer.Option("--size", help="Voxels along a side of a slice.")] = 256,
    count: Annotated[int, typer.Option("--count", help="How many slices.")] = 5,
    axis: Annotated[str, typer.Option("--axis", help="any, z, y or x: slices are across it.")] = "any",
    strategy: Annotated[str, typer.Option("--strategy", help="uncertainty, spread or random.")] = "uncertainty",
    seed: Annotated[int, typer.Option("--seed", help="Of random.")] = 0,
    step: Annotated[
        int | None, typer.Option("--step", help="Voxels from a plane that is looked at to the next.")
    ] = None,
    spread: Annotated[
        float | None, typer.Option("--spread-nm", help="Slices nearer to labelled ones are worth less.")
    ] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")] = False,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Say which slices to label next and why, and write the images to paint.

    Examples: emloom suggest-slices pred.zarr/classes --labels labels.yaml -o next |
    emloom suggest-slices pred.zarr/classes -o next --size 512 --count 3 --axis z --strategy spread
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.suggestslices import SuggestJob, reasons
    from emloom.tasks.suggestslices import suggest_slices as execute

    given = {
        "probabilities": probabilities,
        "output": output,
        "labels": labels,
        "raw": raw,
        "names": [] if names is None else [name.strip() for name in names.split(",")],
        "axis": axis,
        "window": {"size_vox": size, "count": count, "step_vox": step, "spread_nm": spread},
        "strategy": strategy,
        "seed": seed,
    }
    spec = SuggestJob.from_dict(given, "suggest-slices")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        folder = execute(spec, lambda *n: tell("suggest", *n), executor, overwrite)
    page, why = folder / "report.html", list(reasons(folder))
    words = {"output": folder, "slices": why, "report": page}
    answer(as_json, words, [*why, f"{output}: images and pieces written; look at {page}"])
