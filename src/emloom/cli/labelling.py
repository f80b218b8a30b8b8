"""Commands for whoever paints labels: label-slices."""

from __future__ import annotations

from typing import Annotated

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import Json, Output, VoxelSize, box_of, three


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("label-slices")(label_slices)


def label_slices(  # noqa: PLR0913 (one parameter per option)
    raw: str,
    plane: Annotated[list[str], typer.Option("--plane", metavar="AXIS=AT[,AT]", help="z=200, or y=510,520.")],
    classes: Annotated[
        str, typer.Option("--classes", metavar="A,B,C", help="Their names, painted as 1, 2, 3 ...")
    ],
    output: Output,
    box: Annotated[
        str | None, typer.Option("--box", metavar="Z0:Z1,Y0:Y1,X0:X1", help="Cut planes to these voxels.")
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", help="Name of planes that are held out together.")
    ] = None,
    voxel_size: VoxelSize = None,
    as_json: Json = False,
) -> None:
    """Write planes of a volume as images to paint, and the labels.yaml that places them.

    Examples: emloom label-slices raw.zarr --plane z=200 --plane y=510 --plane x=595 --box 150:750,200:800,510:1110
    --classes cytoplasm,membrane,mitochondrion -o slices/
    """
    from emloom.tasks.labelslices import LabelSlicesSpec, next_steps, wanted_planes
    from emloom.tasks.labelslices import label_slices as write

    given = {
        "raw": raw,
        "output": output,
        "planes": wanted_planes(plane),
        "classes": tuple(name.strip() for name in classes.split(",")),
        "box": box_of(box),
        "group": group,
        "voxel_size_nm": three(voxel_size, "voxel size"),
    }
    spec = LabelSlicesSpec.from_dict(given, "label-slices")
    made = write(spec)
    answer(as_json, {"output": output, "labels": made}, lambda: next_steps(spec, made))
