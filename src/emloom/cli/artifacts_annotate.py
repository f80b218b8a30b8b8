"""Commands about labels of patches: artifacts annotate, select, disagree, adopt, mine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from emloom.cli.options import VoxelSize, three, three_whole
from emloom.errors import InputError

Raw = Annotated[str, typer.Argument(help="The volume that the patches are of.")]
Patch = Annotated[
    str | None, typer.Option("--patch", metavar="Z,Y,X", help="Voxels of a patch; default 1,140,140.")
]
Margin = Annotated[int, typer.Option("--margin", min=0, help="Voxels of tissue shown around a patch.")]
Classes = Annotated[
    str | None, typer.Option("--classes", metavar="A,B", help="What is asked, what is looked for first.")
]


def register(group: typer.Typer) -> None:
    """Add the commands of this file to the group `artifacts`."""
    group.command("annotate")(annotate)


def annotate(  # noqa: PLR0913 (one parameter per option)
    raw: Raw,
    labels: Annotated[str, typer.Argument(help="Table of answers, .csv or .json: is made, or goes on.")],
    annotator: Annotated[str, typer.Option("--annotator", help="Your name: it stands with every answer.")],
    candidates: Annotated[
        str | None, typer.Option("--candidates", metavar="TABLE", help="Look at the patches of a table.")
    ] = None,
    random: Annotated[
        int | None, typer.Option("--random", metavar="N", min=1, help="Look at N patches from everywhere.")
    ] = None,
    lattice: Annotated[
        str | None, typer.Option("--lattice", metavar="Z,Y,X", help="Look at patches every so many voxels.")
    ] = None,
    patch: Patch = None,
    classes: Classes = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random sample.")] = 0,
    margin: Margin = 35,
    voxel_size: VoxelSize = None,
    host: Annotated[str, typer.Option("--host", help="Address of this machine to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.")] = 0,
    let_others_in: Annotated[
        bool, typer.Option("--let-others-in", help="Allow a --host that other machines reach; not encrypted.")
    ] = False,
) -> None:
    """Say what patches hold, on a local page, with the keys y, n and u; every answer is kept at once.

    Starting again goes on behind the last answer.

    Examples: emloom artifacts annotate raw.zarr labels.csv --annotator ada --random 200 --classes debris,myelin |
    emloom artifacts annotate raw.zarr labels.csv --annotator ada --candidates picked/candidates.csv
    """
    from emloom.tasks.annotating import AnnotateSpec, open_raw, session_of, sights_of
    from emloom.tasks.labelsession import locked
    from emloom.view.labelpage import serve

    given = {
        "raw": raw,
        "labels": labels,
        "annotator": annotator,
        "patches": _patches(candidates, random, lattice, three_whole(patch, "patch"), seed),
        "classes": _names(classes),
        "margin_vox": margin,
        "voxel_size_nm": three(voxel_size, "voxel size"),
    }
    spec = AnnotateSpec.from_dict(given, "annotate")
    volume = open_raw(spec.raw, spec.voxel_size_nm)
    with locked(spec.labels):
        session = session_of(spec, volume)
        sights = sights_of(session, volume, spec.margin_vox)
        with serve(session, sights, host=host, port=port, let_others_in=let_others_in) as page:
            typer.echo(f"{session.done()} of {len(session)} patches are answered; answers go to {labels}")
            typer.echo(f"{page.url}\nopen this address in a browser; Ctrl-C stops")
            _wait()
        typer.echo(f"\n{session.done()} of {len(session)} patches are answered")


def _wait() -> None:
    import time

    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass


def _patches(
    candidates: str | None, random: int | None, lattice: str | None, patch: Any, seed: int
) -> dict[str, Any] | None:
    given = [
        name
        for name, value in (("--candidates", candidates), ("--random", random), ("--lattice", lattice))
        if value
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} each say what to look at: give one; the queue keeps the others")
    shape = {} if patch is None else {"patch_vox": patch}
    if candidates is not None:
        if patch is not None:
            raise InputError(f"{candidates} says how large its patches are: leave out --patch")
        return {"kind": "table", "path": candidates}
    if random is not None:
        return {"kind": "random", "count": random, "seed": seed, **shape}
    if lattice is not None:
        return {"kind": "lattice", "stride_vox": three_whole(lattice, "lattice"), **shape}
    return None


def _names(text: str | None) -> list[str]:
    return [] if text is None else [name.strip() for name in text.split(",")]
