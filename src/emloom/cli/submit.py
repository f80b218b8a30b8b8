"""`emloom submit`: write a submission to a challenge, and say what its validator finds.

`emloom evaluate --submit cremi` does the same, without the options of where the labels lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from emloom.cli.jsonout import answer
from emloom.cli.options import Json, three, three_whole
from emloom.errors import InputError, did_you_mean

CHALLENGES = ("cremi",)
_PARTS = ("clefts", "neuron_ids", "annotations")
_ALSO = {"partners": "annotations"}  # what cremi.org calls them, and what the file does


@dataclass(frozen=True)
class SubmitOptions:
    """What the options of the command say, as they are typed.

    Attributes:
        shape: voxels ``z,y,x`` of the challenge's labels; None: all of the prediction.
        offset: where they begin in the world of the prediction, ``z,y,x`` in nm; None: where it begins.
        voxel_size: of the challenge, ``z,y,x`` in nm; None: CREMI's 40,4,4.
        keep_offset: store positions from the world's origin, as CREMI's padded files do.
        overwrite: replace a file that is there.
        cleft_threshold: from which probability on a voxel is cleft; None: clefts are labels or a mask.
        as_json: print the validator's report as JSON.
    """

    shape: str | None = None
    offset: str | None = None
    voxel_size: str | None = None
    keep_offset: bool = False
    overwrite: bool = False
    as_json: bool = False
    cleft_threshold: float | None = None


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command("submit")(submit)


def submit(  # noqa: PLR0913 (one parameter per option)
    challenge: Annotated[str, typer.Argument(metavar="CHALLENGE", help="cremi.")],
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=PATH",
            help="clefts=, neuron_ids=: labels or a mask. partners=: folder of `emloom synapses` or `emloom "
            "connectome`, table, or CREMI file. With --check, the submission itself.",
        ),
    ],
    output: Annotated[str | None, typer.Option("--output", "-o", help="HDF5 file to be written.")] = None,
    shape: Annotated[
        str | None, typer.Option("--shape", metavar="Z,Y,X", help="Voxels of the labels: CREMI 125,1250,1250.")
    ] = None,
    offset: Annotated[
        str | None,
        typer.Option("--offset", metavar="Z,Y,X", help="Where the labels begin in the prediction's world, nm."),
    ] = None,
    voxel_size: Annotated[
        str | None, typer.Option("--voxel-size", metavar="Z,Y,X", help="Of the challenge, nm (40,4,4).")
    ] = None,
    keep_offset: Annotated[
        bool, typer.Option("--keep-offset", help="State the offset, as CREMI's padded files do.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Only say what is wrong with a submission, by whomever written.")
    ] = False,
    cleft_threshold: Annotated[
        float | None,
        typer.Option("--cleft-threshold", help="Where clefts= holds probabilities: a cleft from here on, 0 to 1."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Write a submission to a challenge, cut to the labels, and check it; or check one.

    Examples: emloom submit cremi clefts=clefts.zarr partners=graph/ -o sample_A+.h5 --shape 125,1250,1250 --offset
    1480,3644,3644 | emloom submit cremi sample_A+.h5 --check --shape 125,1250,1250
    """
    options = SubmitOptions(shape, offset, voxel_size, keep_offset, overwrite, as_json, cleft_threshold)
    if check:
        if len(paths) != 1 or output is not None:
            raise InputError("--check looks at one submission and writes nothing: give just its path")
        check_submission(challenge, paths[0], options)
    elif output is None:
        raise InputError("nothing says where the submission goes: give -o FILE.h5, or --check to look at one")
    else:
        submit_to(challenge, paths, output, options)


def submit_to(challenge: str, paths: Sequence[str], output: str, options: SubmitOptions | None = None) -> None:
    """Write a submission, validate it and print what the validator says.

    Args:
        challenge: `cremi`.
        paths: predictions, each named: ``clefts=PATH``, ``neuron_ids=PATH``, ``partners=PATH``
            (or ``annotations=PATH``).
        output: the file to write.
        options: what else was asked for.

    Raises:
        InputError: the challenge or a name is unknown, a name stands twice, or the submission would be wrong; then
            no file is left behind.
    """
    from emloom.cli.progress import blocks_bar
    from emloom.tasks.submission import SubmitSpec
    from emloom.tasks.submission import submit as write

    _require(challenge)
    chosen = options or SubmitOptions()
    given = {
        "target": output,
        **_named(paths),
        "shape": three_whole(chosen.shape, "shape"),
        "offset_nm": three(chosen.offset, "offset"),
        "offsets": "kept" if chosen.keep_offset else "zero",
        "overwrite": chosen.overwrite,
        "cleft_threshold": chosen.cleft_threshold,
    }
    size = three(chosen.voxel_size, "voxel size")
    spec = SubmitSpec.from_dict(given if size is None else {**given, "voxel_size_nm": size}, "submission")
    with blocks_bar() as tell:
        report = write(spec, lambda *n: tell("write", *n))
    answer(chosen.as_json, report.validation, report.to_text)


def check_submission(challenge: str, path: str, options: SubmitOptions | None = None) -> None:
    """Print what the validator says about a submission, by whomever it was written.

    Raises:
        InputError: the challenge is unknown, the file is no HDF5, or it holds an error.
    """
    from emloom.tasks.submission import validate_submission

    _require(challenge)
    chosen = options or SubmitOptions()
    report = validate_submission(
        path,
        three_whole(chosen.shape, "shape"),
        three(chosen.voxel_size, "voxel size") or (40.0, 4.0, 4.0),
        three(chosen.offset, "offset"),
    )
    answer(chosen.as_json, report, report.to_text)
    if not report.ok:
        raise InputError(f"{path} would not be scored as it is: mend what is listed above")


def _require(challenge: str) -> None:
    if challenge not in CHALLENGES:
        hint = did_you_mean(challenge, CHALLENGES)
        raise InputError(f"there is no challenge {challenge!r}{hint}: use {', '.join(CHALLENGES)}")


def _named(paths: Sequence[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for text in paths:
        said, equals, path = text.partition("=")
        name = _ALSO.get(said, said)
        if not (equals and path) or name not in _PARTS:
            hint = did_you_mean(name, (*_PARTS, *_ALSO)) if equals else ""
            raise InputError(
                f"{text!r} does not say what it is{hint}: write {', '.join(f'{part}=PATH' for part in _PARTS)}"
            )
        if name in named:
            raise InputError(f"{name} is given twice, {named[name]} and {path}: a submission has one")
        named[name] = path
    return named
