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
) -> None:
    """Show volumes together in neuroglancer, served to this machine only.

    Examples: emloom view raw.zarr seg.zarr/segmentation | emloom view raw=a.h5/volumes/raw
    """
    from emloom.tasks.view import show

    show(paths, port, typer.echo)
