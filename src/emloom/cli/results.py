"""Commands about results: evaluate, view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from emloom.cli.options import Json, Output


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("evaluate")(evaluate)
    app.command("view")(view)


def evaluate(
    segmentation: str,
    truth: str,
    output: Output,
    mask: Annotated[str | None, typer.Option("--mask", help="Volume, non-zero where voxels count.")] = None,
    border: Annotated[int, typer.Option("--border", help="Voxels left out around true borders.")] = 1,
    split_truth: Annotated[
        bool, typer.Option("--split-truth", help="Disconnected pieces of a true object are different objects.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Score a segmentation against the truth: VOI split and merge, both adapted Rand errors.

    Examples: emloom evaluate seg.zarr/segmentation truth.h5/volumes/labels/neuron_ids -o scores/
    """
    from emloom.tasks.evaluate import EvaluateSpec
    from emloom.tasks.evaluate import evaluate as score

    given = {
        "segmentation": segmentation,
        "truth": truth,
        "mask": mask,
        "border_vox": border,
        "split_truth": split_truth,
    }
    row = score(EvaluateSpec.from_dict(given, "evaluate"), Path(output))
    if as_json:
        typer.echo(json.dumps(row, indent=2))
        return
    for name, value in row.items():
        typer.echo(f"{name:<26} {value:.4f}" if isinstance(value, float) else f"{name:<26} {value}")


def view(
    paths: Annotated[list[str], typer.Argument(help="Volumes to show together; name=path names a layer.")],
    port: Annotated[int, typer.Option("--port", help="Port on this machine; 0 takes a free one.")] = 0,
) -> None:
    """Show volumes together in neuroglancer, served to this machine only.

    Examples: emloom view raw.zarr seg.zarr/segmentation | emloom view raw=a.h5/volumes/raw
    """
    from emloom.tasks.view import show

    show(paths, port, typer.echo)
