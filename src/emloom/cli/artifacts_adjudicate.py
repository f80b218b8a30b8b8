"""Commands for those who have the last word about patches: artifacts disagree, adopt, outline."""

from __future__ import annotations

from typing import Annotated

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import Json, Output, VoxelSize, three
from emloom.errors import InputError


def register(group: typer.Typer) -> None:
    """Add the commands of this file to the group `artifacts`."""
    group.command("disagree")(disagree)
    group.command("adopt")(adopt)
    group.command("outline")(outline)


def disagree(  # noqa: PLR0913 (one parameter per option)
    first: Annotated[str, typer.Argument(metavar="A", help="Table of labels.")],
    output: Output,
    second: Annotated[
        str | None, typer.Argument(metavar="[B]", help="Table of labels, or a map of a model.", show_default=False)
    ] = None,
    between: Annotated[
        str | None, typer.Option("--between", metavar="NAME,NAME", help="Annotators to compare, of A and of B.")
    ] = None,
    raw: Annotated[
        str | None, typer.Option("--raw", help="The volume, for contact sheets; a map needs it.")
    ] = None,
    threshold: Annotated[
        float, typer.Option("--threshold", help="Probability from which a model says yes.")
    ] = 0.5,
    unsure: Annotated[bool, typer.Option("--unsure", help="Also ask where only one of the two is sure.")] = False,
    margin: Annotated[int, typer.Option("--margin", min=0, help="Voxels of tissue shown around a patch.")] = 35,
    voxel_size: VoxelSize = None,
    as_json: Json = False,
) -> None:
    """Ask for an opinion where two disagree: a tracing with a tree per question, a table and contact sheets.

    Write yes, no or unsure behind 'your opinion:' in webKnossos, and read it with `emloom artifacts adopt`.

    Examples: emloom artifacts disagree ada.csv bob.csv --raw raw.zarr -o asked |
    emloom artifacts disagree labels.csv map.zarr/artifact --raw raw.zarr -o asked
    """
    from emloom.tasks.disagreeing import DisagreeSpec
    from emloom.tasks.disagreeing import disagree as compare

    names = None if between is None else [name.strip() for name in between.split(",")]
    if names is not None and len(names) != 2:
        raise InputError(f"--between {between} names {len(names)} annotators: name two")
    given = {
        "first": first,
        "second": second,
        "output": output,
        "names": names,
        "raw": raw,
        "threshold": threshold,
        "unsure": unsure,
        "margin_vox": margin,
        "voxel_size_nm": three(voxel_size, "voxel size"),
    }
    found = compare(DisagreeSpec.from_dict(given, "disagree"))
    tracing = f"{output}/candidates.nml"
    lines = [
        f"{name}: {pair.first} and {pair.second} differ about {pair.n_disagreements} of {pair.n} patches"
        for name, pair in found.agreements.items()
    ]
    words = {"output": output, "tracing": tracing, "agreements": found.agreements}
    answer(as_json, words, [*lines, f"answer in {tracing}, then: emloom artifacts adopt {tracing} {first} ..."])


def adopt(
    tracing: Annotated[str, typer.Argument(metavar="NML", help="Tracing with answers in the names of its trees.")],
    labels: Annotated[list[str], typer.Argument(help="Tables of labels that the answers join.")],
    output: Output,
    annotator: Annotated[str, typer.Option("--annotator", help="Who answered.")],
    consensus: Annotated[
        bool, typer.Option("--consensus", help="One row per patch, with these answers as the last word.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Read answers from the names of a tracing's trees, and write them with the labels they join.

    Examples: emloom artifacts adopt asked/candidates.nml ada.csv bob.csv --annotator eve --consensus -o final.csv
    """
    from emloom.tasks.disagreeing import AdoptSpec
    from emloom.tasks.disagreeing import adopt as take

    given = {
        "tracing": tracing,
        "labels": labels,
        "output": output,
        "annotator": annotator,
        "consensus": consensus,
    }
    found = take(AdoptSpec.from_dict(given, "adopt"))
    answer(
        as_json,
        {"output": output, "answers": found.answers, "open": found.open},
        f"{output}: {found.answers} patches answered by {annotator}; {found.open} trees hold no answer",
    )


def outline(
    labels: Annotated[str, typer.Argument(help="Table of labels.")],
    output: Annotated[str, typer.Option("--output", "-o", help="NML to be made; .nml, .zip.")],
    annotator: Annotated[
        str | None, typer.Option("--annotator", help="Whose labels; default: what all who know agree about.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a loop around every labelled patch, named by its labels, to be looked at in webKnossos.

    Examples: emloom artifacts outline labels.csv -o labels.nml
    """
    from emloom.tasks.disagreeing import outline as draw

    n = draw(labels, output, annotator)
    answer(as_json, {"output": output, "patches": n}, f"{output}: {n} patches")
