"""`emloom align RAW`: lay the sections of a stack on each other."""

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
    three_whole,
)
from emloom.errors import InputError


def run(  # noqa: PLR0913 (one parameter per option)
    raw: Annotated[str, typer.Argument(metavar="RAW", help="The stack, e.g. raw.zarr or stack.h5/volumes/raw")],
    output: Output,
    model: Annotated[
        str | None, typer.Option("--model", help="How sections move: shift (default), affine or elastic.")
    ] = None,
    table: Annotated[
        str | None, typer.Option("--table", metavar="CSV", help="Translations known already: dx,dy per section.")
    ] = None,
    qc: Annotated[
        str | None,
        typer.Option("--qc", metavar="FOLDER", help="What emloom qc found: nothing is concluded from it."),
    ] = None,
    reference: Annotated[
        int | None,
        typer.Option("--reference", metavar="Z", help="The section that stays; default the middle one."),
    ] = None,
    drift: Annotated[
        int | None,
        typer.Option("--drift", metavar="SECTIONS", help="Movements over more than so many stay as in the raw."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep-canvas", help="As large as the raw; what leaves it is cut.")
    ] = False,
    outside: Annotated[
        str | None,
        typer.Option(
            "--outside", metavar="GREY|symmetric", help="Where sections do not reach; default symmetric."
        ),
    ] = None,
    voxel_size: VoxelSize = None,
    cell: Annotated[str | None, typer.Option("--cell", metavar="Z,Y,X", help="Voxels per block.")] = None,
    settings: Settings = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")] = False,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Align a stack: the moved raw, the map that leads there and back, a table of what is left, and report.html.

    Block by block; the same command goes on after a crash. `emloom align invert` brings results back.

    Examples: emloom align raw.zarr -o aligned | emloom align raw.zarr --qc qc --model affine -o aligned
    | emloom align raw.h5/volumes/raw --table translations.csv --outside symmetric -o aligned --workers 8
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.align import align
    from emloom.tasks.alignspec import AlignJob

    given: dict[str, Any] = {
        "raw": raw,
        "output": output,
        "voxel_size_nm": three(voxel_size, "voxel size"),
        "model": _model(model, table),
        "links": {k: v for k, v in {"reference": reference, "drift_sections": drift}.items() if v is not None},
        "qc": qc,
        "canvas": "keep" if keep else None,
        "outside": _outside(outside),
        "cell_shape_vox": three_whole(cell, "cell"),
    }
    words = merged(read_settings(settings), {key: value for key, value in given.items() if value is not None})
    job = AlignJob.from_dict(words, "align")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        page = align(job, executor, tell, overwrite)
    found = page.parent / "align.json"
    answer_file(as_json, found, lambda: "\n".join(told(json.loads(found.read_text(encoding="utf-8")), page)))


def told(found: dict[str, Any], page: Path) -> list[str]:
    """Return what was found, in lines for a person."""
    n = found["shape_after"][0]
    lines = [f"{found['raw']}: {n} sections laid on each other ({found['model']})"]
    if found["residual_px"] is not None:
        lines.append(f"  left between neighbours: median {found['residual_px']:.2f} px, as links have it")
    lines.append(f"  largest shift {found['largest_shift_px']:.1f} px, {found['n_bad']} bad sections")
    lines += [f"  note: {note}" for note in found["notes"]]
    return [*lines, f"report: {page}"]


def _model(kind: str | None, table: str | None) -> dict[str, Any] | None:
    if table is not None:
        if kind not in (None, "table"):
            raise InputError(
                f"--table {table} says where sections go, and --model {kind} would find out: pass one"
            )
        return {"kind": "table", "path": table}
    return None if kind is None else {"kind": kind}


def _outside(text: str | None) -> int | str | None:
    if text is None or text == "symmetric":
        return text
    if not text.isdecimal():
        raise InputError(f"--outside {text} is no grey value: give a whole number, or the word symmetric")
    return int(text)
