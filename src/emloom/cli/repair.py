"""`emloom repair`: bad sections replaced, torn ones put together, and a record of what is invented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from emloom.cli.jsonout import answer_file
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
)
from emloom.errors import InputError

_LISTED = 10


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("repair")(repair)


def repair(  # noqa: PLR0913 (one parameter per option)
    raw: Annotated[
        str, typer.Argument(metavar="RAW", help="The stack, or the folder of emloom align: aligned/ goes first.")
    ],
    output: Output,
    qc: Annotated[
        str | None, typer.Option("--qc", metavar="FOLDER", help="Of emloom qc of that stack; default: it is made.")
    ] = None,
    bad: Annotated[
        str | None,
        typer.Option("--bad", metavar="Z,Z,..", help="Sections to be replaced, whatever they look like."),
    ] = None,
    good: Annotated[
        str | None, typer.Option("--good", metavar="Z,Z,..", help="Sections to be kept, whatever was found.")
    ] = None,
    cracked: Annotated[
        str | None, typer.Option("--cracked", metavar="Z,Z,..", help="Torn sections, to be put together.")
    ] = None,
    look: Annotated[
        bool | None,
        typer.Option("--look/--no-look", help="Look for bad sections and cracks, or only repair those named."),
    ] = None,
    fill: Annotated[
        str | None,
        typer.Option("--fill", metavar="flow|nearest|mask", help="What bad sections become; mask: only marked."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Labels on the grid of the stack, carried along, ids kept.")
    ] = None,
    voxel_size: VoxelSize = None,
    settings: Settings = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")] = False,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Replace bad sections along the flow between their neighbours, mend torn ones, record what is invented.

    The folder may be given to the --mask of predict, segment and evaluate, and as `avoid` to training; raw.zarr in
    it is the repaired stack, emloom align invert --by brings results back. The same command goes on after a crash.

    Examples: emloom repair raw.zarr --qc qc/ -o fixed/ | emloom repair aligned/ -o fixed/ --bad 3,17 --good 5 |
    emloom repair raw.zarr -o fixed/ --labels ids.zarr --fill nearest --workers 4
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.repair import repair as execute
    from emloom.tasks.repairspec import RepairJob

    sections: dict[str, Any] = {
        "bad": _numbers(bad, "--bad"),
        "good": _numbers(good, "--good"),
        "cracked": _numbers(cracked, "--cracked"),
        "look": look,
    }
    given: dict[str, Any] = {
        "raw": raw,
        "output": output,
        "qc": qc,
        "fill": fill,
        "labels": labels,
        "voxel_size_nm": three(voxel_size, "voxel size"),
        "sections": {name: value for name, value in sections.items() if value is not None} or None,
    }
    words = merged(read_settings(settings), {name: value for name, value in given.items() if value is not None})
    job = RepairJob.from_dict(words, "repair")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        folder = execute(job, executor, tell, overwrite)
    answer_file(as_json, folder / "repair.json", [*told(folder), f"report: {folder / 'report.html'}"])


def told(folder: Path) -> list[str]:
    """Return what was done, in lines for a person."""
    summary = json.loads((folder / "repair.json").read_text(encoding="utf-8"))
    states = ", ".join(f"{n} {name}" for name, n in summary["states"].items())
    lines = [f"{folder}: sections: {states}; {summary['invented_share']:.2%} of the voxels are not measured"]
    lines += [f"  {note}" for note in summary["notes"][:_LISTED]]
    if len(summary["notes"]) > _LISTED:
        lines.append(f"  ... and {len(summary['notes']) - _LISTED} more in sections.csv")
    return lines


def _numbers(text: str | None, option: str) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(
            f"{option} {text} is no list of sections: give whole numbers, e.g. {option} 3,17"
        ) from None
