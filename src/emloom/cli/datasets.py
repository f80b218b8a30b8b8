"""Commands about public data sets: data list, data fetch, data path."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from emloom.cli import complete
from emloom.cli.jsonout import answer
from emloom.cli.options import Json

if TYPE_CHECKING:
    from emloom.io.registry import DataSet

_MEGA, _GIGA = 10**6, 10**9

Name = Annotated[str, typer.Argument(help="A set of `emloom data list`.", autocompletion=complete.datasets)]


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
            rows.append(asdict(entry) | {"about_bytes": entry.about_bytes, "state": state, "folder": folder})
        answer(as_json, rows, "")
        return
    typer.echo(f"{'name':<18}{'where':<13}{'size':<12}{'voxel z,y,x nm':<16}what is labelled")
    for entry in REGISTRY.values():
        voxel = "not known" if entry.voxel_size_nm is None else ",".join(f"{v:g}" for v in entry.voxel_size_nm)
        typer.echo(f"{entry.name:<18}{locate(entry)[0]:<13}{_size(entry):<12}{voxel:<16}{entry.labels}")
    typer.echo(
        f"\ndownloads go to {cache_folder()} (EMLOOM_CACHE); a folder of that name in EMLOOM_DATA comes first"
    )


def fetch(
    name: Name,
    as_json: Json = False,
) -> None:
    """Download a public set, verified and resumable; say its terms first.

    Examples: emloom data fetch cremi_a | EMLOOM_CACHE=/scratch/em emloom data fetch snemi3d
    """
    from emloom.cli.progress import bar
    from emloom.io import datasets

    entry = datasets.dataset(name)
    terms = f"{entry.title}\nlicence: {entry.licence}\ncite: {entry.citation}\nmore: {entry.homepage}"
    typer.echo(f"{terms}\nnote: {entry.note}" if entry.note else terms, err=as_json)
    state, folder = datasets.locate(entry)
    if state != "EMLOOM_DATA":
        typer.echo(f"size: {_size(entry)}, to {folder}", err=as_json)
    with bar("MB") as advance:
        done = datasets.fetch(entry, lambda have, total: advance(have // _MEGA, max(have, total) // _MEGA))
    words = {"name": entry.name, "folder": done.folder, "state": done.state, "notes": done.notes}
    nothing = " (from EMLOOM_DATA, nothing downloaded)" if done.state != "cache" else ""
    answer(as_json, words, [*done.notes, f"{entry.name}: {done.folder}{nothing}"])


def path(
    name: Name,
    as_json: Json = False,
) -> None:
    """Print the folder of a set that is on this computer; fail with the command that fetches it.

    Examples: emloom data path cremi_a | emloom info "$(emloom data path cremi_a)/sample_A_20160501.hdf"
    """
    from emloom.io.datasets import dataset, path_of

    folder = path_of(dataset(name))
    answer(as_json, {"name": name, "folder": folder}, str(folder))


def _size(entry: DataSet) -> str:
    n = entry.about_bytes
    if n is None:
        return "not stated"
    return f"{n / _GIGA:.1f} GB" if n >= _GIGA else f"{n / _MEGA:.0f} MB"
