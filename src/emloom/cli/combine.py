"""`emloom combine-masks`: masks of one class each become one volume of classes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from emloom.cli.jsonout import answer
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


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("combine-masks")(combine_masks)


def combine_masks(  # noqa: PLR0913 (one parameter per option)
    output: Output,
    masks: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=MASK...", help="Classes and where they are, the one that wins first."),
    ] = None,
    rest: Annotated[
        str | None, typer.Option("--rest", metavar="NAME", help="Class of what no mask covers; else undefined.")
    ] = None,
    above: Annotated[
        int | None, typer.Option("--above", help="Values above it are inside; 127 for smoothed masks.")
    ] = None,
    band: Annotated[
        int | None, typer.Option("--band", help="Voxels beside another class that are undefined (1); 0: none.")
    ] = None,
    in_3d: Annotated[bool, typer.Option("--3d", help="Look for other classes across sections, too.")] = False,
    known: Annotated[
        str | None, typer.Option("--known", metavar="MASK", help="0 where nobody looked: undefined.")
    ] = None,
    settings: Settings = None,
    voxel_size: VoxelSize = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")] = False,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Combine masks of single classes into one volume of classes, undefined where two classes meet.

    Examples: emloom combine-masks psd=l.h5/psd "mito membrane=l.h5/boundary" mito=l.h5/mito --rest cytoplasm -o
    classes.zarr | emloom combine-masks --settings masks.yaml -o classes.zarr
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.combinemasks import combine_masks as combine
    from emloom.tasks.combinespec import CombineJob

    given: dict[str, Any] = {"output": output, "band": {}}
    said = {"rest": rest and {"name": rest}, "known": known, "voxel_size_nm": three(voxel_size, "voxel size")}
    given |= {name: value for name, value in said.items() if value is not None}
    if masks:
        given["classes"] = [_mask(word, above) for word in masks]
    elif above is not None:
        raise InputError("--above is about masks named on the command line: in the settings say `above: 127`")
    if band is not None:
        given["band"]["reach_vox"] = band
    if in_3d:
        given["band"]["in_plane"] = False
    job = CombineJob.from_dict(merged(read_settings(settings), given), "combine-masks")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        found = combine(job, lambda *n: tell("combine", *n), executor, discard=overwrite)
    answer(as_json, {"output": output, **found.to_dict()}, found.to_text)


def _mask(word: str, above: int | None) -> dict[str, Any]:
    name, equals, path = word.partition("=")
    if not (name and equals and path):
        raise InputError(f"{word!r} names no class and mask: write name=path, like mitochondrion=labels.h5/mito")
    return {"name": name, "mask": path} if above is None else {"name": name, "mask": path, "above": above}
