"""Commands about proofreading: proofread apply, proofread read."""

from __future__ import annotations

from typing import Annotated

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import BlockMinutes, Json, Output, Scheduler, Workers

Replace = Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file, as a group of their own."""
    group = typer.Typer(
        name="proofread",
        help="Decisions of a person, merge or split, become a corrected segmentation.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.callback()(_root)
    group.command("apply")(apply)
    group.command("read")(read)
    app.add_typer(group)


def _root() -> None:
    pass


def apply(  # noqa: PLR0913 (one parameter per option)
    segmentation: Annotated[
        str, typer.Argument(metavar="SEG", help="What `emloom segment` or an earlier proofreading wrote.")
    ],
    decisions: Annotated[
        str, typer.Argument(help="Table (.csv, .parquet), or tracing with answers (.nml, .zip).")
    ],
    output: Output,
    render: Annotated[
        bool, typer.Option("--render/--no-render", help="Also write the voxels, or the look-up table alone.")
    ] = True,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Replace = False,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Merge and split segments as a table or an answered tracing says; the segmentation itself stays as it is.

    Examples: emloom proofread apply seg.zarr decisions.csv -o corrected/ | emloom proofread apply seg.zarr
    look_here.nml -o corrected/ --no-render | emloom proofread apply corrected/ more.csv -o corrected2/
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.proofreading import ProofreadJob, proofread, summary_of

    job = ProofreadJob(segmentation=segmentation, decisions=decisions, output=output, render=render)
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        made = proofread(job, executor, tell, overwrite)
    text = summary_of(made)
    answer(as_json, {"folder": made, "summary": text}, f"{made}: {text}")


def read(
    tracing: Annotated[
        str, typer.Argument(help="Tracing with answers (.nml, .zip), e.g. an edited look_here.nml.")
    ],
    output: Output,
    as_json: Json = False,
) -> None:
    """Read the answers of a tracing into a table of decisions.

    Examples: emloom proofread read look_here.nml -o decisions.csv
    """
    from emloom.io.decisions import write_decisions
    from emloom.tasks.proofreading import load_decisions

    found = load_decisions(tracing)
    write_decisions(output, found)
    answer(as_json, {"file": output, "decisions": len(found)}, f"{output}: {len(found)} decisions")
