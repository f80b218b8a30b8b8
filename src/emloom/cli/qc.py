"""`emloom qc`: bad sections and bad regions of a stack, without any training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from emloom.tasks.qc import QcReport

_LISTED = 10


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("qc")(qc)


def qc(  # noqa: PLR0913 (one parameter per option)
    raw: Annotated[str, typer.Argument(metavar="RAW", help="The stack, e.g. raw.zarr or stack.h5/volumes/raw")],
    output: Output,
    voxel_size: VoxelSize = None,
    tile: Annotated[
        int | None, typer.Option("--tile", help="Voxels along the side of a tile of the map (64).")
    ] = None,
    mask: Annotated[
        str | None, typer.Option("--mask", help="Volume, non-zero where there is tissue; the rest is masked, too.")
    ] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(
            "--artifacts", metavar="MAP", help="Probabilities of a learned detector, to be put in as well."
        ),
    ] = None,
    settings: Settings = None,
    workers: Workers = 1,
    scheduler: Scheduler = None,
    block_minutes: BlockMinutes = 10.0,
    as_json: Json = False,
) -> None:
    """Find bad sections and regions of a stack: a table, a map, a mask for later stages, and report.html.

    The folder may be given to the --mask of predict, segment and evaluate, and as `avoid` to training.

    Examples: emloom qc raw.zarr -o qc/ | emloom qc sections/ --voxel-size 40,4,4 -o qc/ --workers 8
    """
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.qc import quality_control
    from emloom.tasks.qcreport import write_qc_report
    from emloom.tasks.qcspec import QcSpec

    given: dict[str, Any] = {
        "raw": raw,
        "output": output,
        "voxel_size_nm": three(voxel_size, "voxel size"),
        "tile_vox": tile,
        "mask": mask,
        "artifacts": None if artifacts is None else {"path": artifacts},
    }
    words = merged(read_settings(settings), {key: value for key, value in given.items() if value is not None})
    spec = QcSpec.from_dict(words, "qc")
    with executor_of(workers, scheduler, block_minutes * 60 or None) as executor, blocks_bar() as tell:
        found = quality_control(spec, executor, tell)
    page = write_qc_report(spec, found)
    answer_file(as_json, Path(output) / "qc.json", [*told(found), f"report: {page}"])


def told(found: QcReport) -> list[str]:
    """Return what was found, in lines for a person."""
    info = found.stack.info
    share = found.masked / info.box.size
    bad = f"{found.n_bad} of {info.shape[0]} sections stand out"
    lines = [f"{found.stack.raw}: {bad}, {share:.2%} of the voxels are masked"]
    places = int((found.table["bad_tiles"] * (found.table["defects"] == "")).sum())
    lines += [f"  {places} tiles of other sections are bad"] if places else []
    lines += [f"  note: {note}" for note in found.notes]
    for z, flags in found.worst()[:_LISTED]:
        why = "; ".join(f"{f.defect} ({f.statistic} {f.value:.3g}, limit {f.limit:.3g})" for f in flags)
        lines.append(f"  section {z:>5}  {why}")
    if found.n_bad > _LISTED:
        lines.append(f"  ... and {found.n_bad - _LISTED} more in sections.csv")
    return lines
