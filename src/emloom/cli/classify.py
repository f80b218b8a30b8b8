"""`emloom classify`: from probabilities of classes to labels."""

from __future__ import annotations

from typing import Annotated

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import BlockMinutes, Json, Output, Scheduler, Workers, read_settings, three_whole


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("classify")(classify)


def classify(  # noqa: PLR0913 (one parameter per option)
    probabilities: Annotated[
        str, typer.Argument(metavar="PROBABILITIES", help="Of classes, e.g. pred.zarr/classes")
    ],
    output: Output,
    rules: Annotated[
        str | None, typer.Option("--rules", metavar="YAML", help="What encloses what; repaired where violated.")
    ] = None,
    names: Annotated[
        str | None, typer.Option("--names", metavar="A,B,..", help="Names of the classes, class 0 first.")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option("--min-confidence", help="Below this, 0 to 1, a voxel is undecided (255).")
    ] = 0.0,
    raw: Annotated[str | None, typer.Option("--raw", help="Raw volume, for the pictures of the report.")] = None,
    block: Annotated[str | None, typer.Option("--block", metavar="Z,Y,X", help="Voxels per block.")] = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")] = False,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Give every voxel its likeliest class, and say how clear that was; the same command goes on after a crash.

    Examples: emloom classify pred.zarr/classes -o classes.zarr --raw raw.zarr |
    emloom classify pred.zarr/classes -o classes.zarr --rules rules.yaml --workers 8
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.classify import ClassifyJob, RulesSpec
    from emloom.tasks.classify import classify as execute

    given = {
        "probabilities": probabilities,
        "output": output,
        "names": [] if names is None else [name.strip() for name in names.split(",")],
        "rules": [] if rules is None else RulesSpec.from_dict(read_settings(rules), rules).rules,
        "min_confidence": min_confidence,
        "raw": raw,
    }
    if block is not None:
        given["block_vox"] = three_whole(block, "block")
    spec = ClassifyJob.from_dict(given, "classify")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        report = execute(spec, lambda *n: tell("classify", *n), executor, overwrite)
    words = {"output": output, "report": report}
    answer(as_json, words, f"{output}: labels and confidence written; look at {report}")
