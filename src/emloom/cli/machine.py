"""Commands about this machine: doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import Json


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command("doctor")(doctor)


def doctor(
    folder: Annotated[
        str, typer.Argument(help="Where data are or shall be written; tried out for a second.")
    ] = ".",
    as_json: Json = False,
) -> None:
    """Say what this machine and a folder's disk can do, what is slow or broken, and the line that fixes it.

    Exit status 1 if something is an error. Examples: emloom doctor | emloom doctor /scratch/em --json
    """
    from emloom.tasks.doctor import doctor as examine

    report = examine(folder)
    answer(as_json, report, report.to_text)
    if not report.ok:
        raise typer.Exit(1)
