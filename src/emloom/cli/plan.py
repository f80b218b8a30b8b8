"""`emloom plan`: look at the data, and write the job file of the whole way."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from emloom.cli.options import Device, Json, VoxelSize, three


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("plan")(plan)


def plan(  # noqa: PLR0913 (one parameter per option)
    raw: Annotated[str, typer.Argument(metavar="RAW", help="The stack, e.g. raw.zarr or stack.h5/volumes/raw")],
    labels: Annotated[
        str | None,
        typer.Argument(metavar="[LABELS]", help="Neuron ids of it, or of a part of it.", show_default=False),
    ] = None,
    synapses: Annotated[
        str | None,
        typer.Option(
            "--synapses", metavar="TABLE", help="Annotated synapses: table, CREMI file, tracing, clefts."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="PATH", help="A model that exists: nothing is trained.")
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="The job file to be written.")] = "connectome.yaml",
    voxel_size: VoxelSize = None,
    budget: Annotated[
        float | None, typer.Option("--budget", metavar="MINUTES", help="For training; default 10, on a GPU 60.")
    ] = None,
    device: Device = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the job file.")] = False,
    as_json: Json = False,
) -> None:
    """Look at a stack and its labels, and write a job file for the whole way, with a reason beside every choice.

    A bounded sample is read, whatever the size; nothing is trained.

    Examples: emloom plan raw.zarr labels.zarr | emloom plan raw.zarr --model model.safetensors -o job.yaml
    """
    from emloom.tasks.plan import PlanSpec, plan_into
    from emloom.tasks.planmachine import Machine
    from emloom.tasks.plantold import chosen_rows

    spec = PlanSpec.from_dict(
        {
            "raw": raw,
            "labels": labels,
            "synapses": synapses,
            "model": model,
            "voxel_size_nm": three(voxel_size, "voxel size"),
            "budget_minutes": budget,
        },
        "plan",
    )
    made = plan_into(spec, output, overwrite, Machine.here(device))
    if as_json:
        typer.echo(json.dumps(made.to_dict(), indent=2))
        return
    typer.echo(made.told.to_text(list(chosen_rows(made.job))))
