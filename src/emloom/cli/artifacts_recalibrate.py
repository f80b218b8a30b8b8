"""`emloom artifacts recalibrate`: the statistics of batch norms from another data set."""

from __future__ import annotations

from typing import Annotated

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import Json, Output, VoxelSize, three


def register(group: typer.Typer) -> None:
    """Add the command of this file."""
    group.command("recalibrate")(recalibrate)


def recalibrate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint with batch norm.")],
    raw: Annotated[str, typer.Argument(metavar="RAW", help="Raw volume; nothing of it need be labelled.")],
    output: Output,
    samples: Annotated[int, typer.Option("--samples", help="Patches to look at.")] = 1024,
    voxel_size: VoxelSize = None,
    as_json: Json = False,
) -> None:
    """Measure the means and variances of a detector's batch norms again, on unlabelled data; weights stay.

    Example: emloom artifacts recalibrate out/train/model.safetensors other.zarr -o adapted.safetensors
    """
    from emloom.tasks.artifactnorms import recalibrate as measure

    norms = measure(model, raw, output, samples=samples, voxel_size_nm=three(voxel_size, "voxel size"))
    answer(as_json, {"output": output, "norms": norms}, f"{norms} norms measured again: {output}")
