"""Commands about public data sets: data list, data fetch, data path."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from emloom.cli.options import Json

if TYPE_CHECKING:
    from emloom.io.registry import DataSet

_MEGA, _GIGA = 10**6, 10**9

Name = Annotated[str, typer.Argument(help="A set of `emloom data list`.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this file, as a group of their own."""
    group = typer.Typer(
        name="data",
        help="Public EM sets: what there is, on which terms, and where it lies on this computer.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("list")(list_)
    group.command("fetch")(fetch)
    group.command("path")(path)
    app.add_typer(group)


def list_(as_json: Json = False) -> None:
    """List the public sets emloom knows, with size, voxel size, labels, and whether they are here.

    Examples: emloom data list | emloom data list --json
    """
    from emloom.io.datasets import cache_folder, locate
    from emloom.io.registry import REGISTRY

    if as_json:
        rows = []
        for entry in REGISTRY.values():
            state, folder = locate(entry)
            rows.append(asdict(entry) | {"about_bytes": entry.about_bytes, "state": state, "folder": str(folder)})
        typer.echo(json.dumps(rows, indent=2))
        return
    typer.echo(f"{'name':<18}{'where':<13}{'size':<12}{'voxel z,y,x nm':<16}what is labelled")
    for entry in REGISTRY.values():
        voxel = "not known" if entry.voxel_size_nm is None else ",".join(f"{v:g}" for v in entry.voxel_size_nm)
        typer.echo(f"{entry.name:<18}{locate(entry)[0]:<13}{_size(entry):<12}{voxel:<16}{entry.labels}")
    typer.echo(
        f"\ndownloads go to {cache_folder()} (EMLOOM_CACHE); a folder of that name in EMLOOM_DATA comes first"
    )


def fetch(name: Name) -> None:
    """Download a public set, verified and resumable; say its terms first.

    Examples: emloom data fetch cremi_a | EMLOOM_CACHE=/scratch/em emloom data fetch snemi3d
    """
    from emloom.cli.progress import bar
    from emloom.io import datasets

    entry = datasets.dataset(name)
    typer.echo(f"{entry.title}\nlicence: {entry.licence}\ncite: {entry.citation}\nmore: {entry.homepage}")
    if entry.note:
        typer.echo(f"note: {entry.note}")
    state, folder = datasets.locate(entry)
    if state != "EMLOOM_DATA":
        typer.echo(f"size: {_size(entry)}, to {folder}")
    with bar("MB") as advance:
        done = datasets.fetch(entry, lambda have, total: advance(have // _MEGA, max(have, total) // _MEGA))
    for note in done.notes:
        typer.echo(note)
    typer.echo(
        f"{entry.name}: {done.folder}"
        + (" (from EMLOOM_DATA, nothing downloaded)" if done.state != "cache" else "")
    )


def path(name: Name) -> None:
    """Print the folder of a set that is on this computer; fail with the command that fetches it.

    Examples: emloom data path cremi_a | emloom info "$(emloom data path cremi_a)/sample_A_20160501.hdf"
    """
    from emloom.io.datasets import dataset, path_of

    typer.echo(path_of(dataset(name)))


def _size(entry: DataSet) -> str:
    n = entry.about_bytes
    if n is None:
        return "not stated"
    return f"{n / _GIGA:.1f} GB" if n >= _GIGA else f"{n / _MEGA:.0f} MB"
