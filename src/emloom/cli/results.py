"""Commands about results: view."""

from __future__ import annotations

from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("view")(view)


def view(
    paths: Annotated[list[str], typer.Argument(help="Volumes to show together; name=path names a layer.")],
    port: Annotated[int, typer.Option("--port", help="Port on this machine; 0 takes a free one.")] = 0,
    at: Annotated[
        str | None, typer.Option("--at", metavar="Z,Y,X", help="Voxel of the first volume to look at.")
    ] = None,
    segment: Annotated[
        list[str] | None,
        typer.Option(
            "--segment", metavar="[LAYER=]ID,ID", help="Select ids in a layer of labels, or in all of them."
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", help="Secret part of the address, to keep it: that of a report, for its links."),
    ] = None,
    synapses: Annotated[
        str | None,
        typer.Option(
            "--synapses", help="Table of synapses, or a folder of emloom synapses: lines from pre to post."
        ),
    ] = None,
) -> None:
    """Show volumes together in neuroglancer, served to this machine only.

    Examples: emloom view raw.zarr seg.zarr/segmentation | emloom view raw=a.h5/volumes/raw |
    emloom view raw.zarr truth=labels.zarr --at 12,340,88 --segment truth=5,9 |
    emloom view raw.zarr neurons=seg.zarr/segmentation --synapses syn/
    """
    from emloom.tasks.view import show
    from emloom.view.spot import Spot

    show(paths, port, typer.echo, spot=Spot.of(at, segment or ()), token=token, synapses=synapses)
