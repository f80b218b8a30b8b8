"""The command about models that come with emloom."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from emloom.cli.options import Json


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("models")(models)


def models(
    name: Annotated[str | None, typer.Argument(help="Print the card of this model.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List the models that come with emloom, or print what is to be known of one.

    The name stands for the file wherever a model is asked for: emloom predict raw.zarr --model fib25-lean ...

    Examples: emloom models | emloom models fib25-lean | emloom models --json
    """
    from emloom.nn.shipped import WEIGHTS, card, shipped

    if name is not None:
        text = card(name)
        typer.echo(json.dumps({"name": name, "card": text}) if as_json else text.rstrip())
        return
    found = {each: str(folder / WEIGHTS) for each, folder in shipped().items()}
    if as_json:
        typer.echo(json.dumps([{"name": each, "model": path} for each, path in found.items()], indent=2))
        return
    for each, path in found.items():
        title = card(each).splitlines()[0].lstrip("# ")
        typer.echo(f"{each:<18}{title}\n{'':<18}{path}")
