"""`emloom evaluate --submit cremi`: write a submission to a challenge, and say what its validator finds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import typer

from emloom.cli.options import three, three_whole
from emloom.errors import InputError, did_you_mean

CHALLENGES = ("cremi",)
_PARTS = ("clefts", "neuron_ids", "annotations")


@dataclass(frozen=True)
class SubmitOptions:
    """What the options of the command say, as they are typed.

    Attributes:
        shape: voxels ``z,y,x`` of the challenge's labels; None: all of the prediction.
        offset: where they begin in the world of the prediction, ``z,y,x`` in nm; None: where it begins.
        voxel_size: of the challenge, ``z,y,x`` in nm; None: CREMI's 40,4,4.
        keep_offset: store positions from the world's origin, as CREMI's padded files do.
        overwrite: replace a file that is there.
        as_json: print the validator's report as JSON.
    """

    shape: str | None = None
    offset: str | None = None
    voxel_size: str | None = None
    keep_offset: bool = False
    overwrite: bool = False
    as_json: bool = False


def submit_to(challenge: str, paths: Sequence[str], output: str, options: SubmitOptions | None = None) -> None:
    """Write a submission, validate it and print what the validator says.

    Args:
        challenge: `cremi`.
        paths: predictions, each named: ``clefts=PATH``, ``neuron_ids=PATH``, ``annotations=PATH``.
        output: the file to write.
        options: what else was asked for.

    Raises:
        InputError: the challenge or a name is unknown, a name stands twice, or the submission would be wrong; then
            no file is left behind.
    """
    from emloom.cli.progress import blocks_bar
    from emloom.tasks.submission import SubmitSpec, submit

    _require(challenge)
    chosen = options or SubmitOptions()
    given = {
        "target": output,
        **_named(paths),
        "shape": three_whole(chosen.shape, "shape"),
        "offset_nm": three(chosen.offset, "offset"),
        "offsets": "kept" if chosen.keep_offset else "zero",
        "overwrite": chosen.overwrite,
    }
    size = three(chosen.voxel_size, "voxel size")
    spec = SubmitSpec.from_dict(given if size is None else {**given, "voxel_size_nm": size}, "submission")
    with blocks_bar() as tell:
        report = submit(spec, lambda *n: tell("write", *n))
    if chosen.as_json:
        typer.echo(json.dumps(report.validation.to_dict(), indent=2))
    else:
        typer.echo(report.to_text())


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
    typer.echo(json.dumps(report.to_dict(), indent=2) if chosen.as_json else report.to_text())
    if not report.ok:
        raise InputError(f"{path} would not be scored as it is: mend what is listed above")


def _require(challenge: str) -> None:
    if challenge not in CHALLENGES:
        hint = did_you_mean(challenge, CHALLENGES)
        raise InputError(f"there is no challenge {challenge!r}{hint}: use {', '.join(CHALLENGES)}")


def _named(paths: Sequence[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for text in paths:
        name, equals, path = text.partition("=")
        if not (equals and path) or name not in _PARTS:
            hint = did_you_mean(name, _PARTS) if equals else ""
            raise InputError(
                f"{text!r} does not say what it is{hint}: write {', '.join(f'{part}=PATH' for part in _PARTS)}"
            )
        if name in named:
            raise InputError(f"{name} is given twice, {named[name]} and {path}: a submission has one")
        named[name] = path
    return named
