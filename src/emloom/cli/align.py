"""Commands of alignments: align apply and align invert, which move things through their maps; and align itself.

``emloom align RAW -o aligned/`` has no word for what it does: a first word that is no command of the group means
``run``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from emloom.cli import complete
from emloom.cli.alignrun import run
from emloom.cli.jsonout import answer
from emloom.cli.options import BlockMinutes, Json, Scheduler, VoxelSize, Workers, three, three_whole
from emloom.errors import InputError, did_you_mean

_RUN = "run"
_THINGS = ("volume", "labels", "points")
_POINTS = (".csv", ".parquet", ".nml", ".zip", ".nmx", ".swc")
_VOLUMES = (".zarr", ".n5", ".precomputed", ".wkw", ".tif", ".tiff", ".png", ".npy")

Thing = Annotated[str, typer.Argument(metavar="VOLUME|POINTS", help="A volume, or a file of points.")]
By = Annotated[str, typer.Option("--by", metavar="FOLDER", help="What emloom align or emloom repair wrote.")]
To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="volume|labels|points",
        help="What it is: values, ids of voxels, or places.",
        autocompletion=complete.one_of(*_THINGS),
    ),
]
Target = Annotated[str, typer.Option("--output", "-o", help="A .zarr; for points a file of the same format.")]
Like = Annotated[
    str | None, typer.Option("--like", metavar="VOLUME", help="Only its box; default: all of where the map leads.")
]
Outside = Annotated[
    str | None,
    typer.Option("--outside", metavar="VALUE|symmetric", help="Value of what shows nothing; default 0."),
]
Cell = Annotated[str | None, typer.Option("--cell", metavar="Z,Y,X", help="Voxels per block.")]
KindOf = Annotated[
    str | None,
    typer.Option(
        "--kind", help="What the values mean, where the volume does not say.", autocompletion=complete.kinds
    ),
]
Unit = Annotated[
    str | None, typer.Option("--unit", metavar="NM", help="nm per unit of points: 1000 for µm; or three, z,y,x.")
]
Lost = Annotated[
    str | None,
    typer.Option(
        "--lost", metavar="drop|keep", help="Points that have no place: out of the table, or empty in it."
    ),
]
Replace = Annotated[bool, typer.Option("--overwrite", help="Replace the result of another job.")]


class _RunByDefault(TyperGroup):
    """A group of commands in which no command means `run`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the word in that was left out, before options of `run` are taken for those of the group."""
        known = not args or args[0] in ctx.help_option_names
        return super().parse_args(ctx, args if known else self._with_command(args))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that words mean."""
        return super().resolve_command(ctx, self._with_command(args))

    def _with_command(self, args: list[str]) -> list[str]:
        return [_RUN, *args] if _RUN in self.commands and args[0] not in self.commands else args


_APPLY = """Bring something that lies in the original stack to where the stack was aligned.

Block by block; the same command goes on after a crash. Whole shifts are copies; else values are interpolated, and
labels are those of the nearest voxel. Points that have no place there are listed in NAME.lost.csv.

Examples: emloom align apply raw.zarr --by aligned -o moved.zarr |
emloom align apply traced.nml --by fixed --to points -o moved.nml |
emloom align apply raw.zarr --by aligned --outside symmetric -o padded.zarr
"""
_INVERT = """Bring something that was made on the aligned stack back to the original: predictions, labels, points.

What was invented in a gap is not brought back: it comes from nowhere. Affinities cannot be: segment first.

Examples: emloom align invert seg.zarr --by fixed --to labels -o back.zarr |
emloom align invert pred.zarr/classes --by fixed -o back.zarr --workers 4 |
emloom align invert partners.csv --by fixed --to points -o back.csv --lost keep
"""


def register(app: typer.Typer) -> None:
    """Add the commands of this file, as a group of their own."""
    group = typer.Typer(
        name="align",
        cls=_RunByDefault,
        help="Align a stack; move volumes, labels and points to where it was aligned, and back.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command(_RUN)(run)
    group.command("apply")(_mover("apply", _APPLY))
    group.command("invert")(_mover("invert", _INVERT))
    app.add_typer(group)


def _mover(direction: str, words: str) -> Callable[..., None]:
    """Return the command of one direction: both have the same options."""

    def command(  # noqa: PLR0913 (one parameter per option)
        source: Thing,
        by: By,
        output: Target,
        to: To = "volume",
        like: Like = None,
        outside: Outside = None,
        cell: Cell = None,
        kind: KindOf = None,
        voxel_size: VoxelSize = None,
        unit: Unit = None,
        lost: Lost = None,
        workers: Workers = 1,
        scheduler: Scheduler = None,
        overwrite: Replace = False,
        block_minutes: BlockMinutes = 10.0,
        as_json: Json = False,
    ) -> None:
        given: dict[str, Any] = {"source": source, "by": by, "output": output, "direction": direction}
        given["voxel_size_nm"] = three(voxel_size, "voxel size")
        of_volumes = {"like": like, "outside": outside, "cell": cell, "kind": kind, "scheduler": scheduler}
        of_points = {"unit": unit, "lost": lost}
        _require_thing(source, to, of_volumes if to == "points" else of_points)
        if to == "points":
            _move_points(given | _set({"unit_nm": _unit(unit), "lost": lost}), overwrite, as_json)
            return
        more: dict[str, Any] = {"what": to, "like": like, "kind": kind, "outside": _outside(outside)}
        more["cell_shape_vox"] = three_whole(cell, "cell")
        made = _move_volume(given | _set(more), (workers, scheduler, block_minutes * 60 or None), overwrite)
        answer(as_json, {"output": made}, f"{made}: written")

    command.__doc__ = words
    return command


def _move_volume(given: dict[str, Any], where: tuple[int, str | None, float | None], overwrite: bool) -> Any:
    from emloom.cli.progress import blocks_bar
    from emloom.run.cluster import executor_of
    from emloom.tasks.movestack import MoveJob, move_volume

    job = MoveJob.from_dict(given, "align")
    with executor_of(*where) as executor, blocks_bar() as tell:
        return move_volume(job, lambda *n: tell("move", *n), executor, overwrite)


def _move_points(given: dict[str, Any], overwrite: bool, as_json: bool) -> None:
    from emloom.tasks.movepoints import MovePointsJob, move_points

    moved = move_points(MovePointsJob.from_dict(given, "align"), overwrite=overwrite)
    answer(as_json, moved, moved.to_text)


def _require_thing(source: str, to: str, foreign: dict[str, str | None]) -> None:
    """Raise `InputError` where `--to` contradicts the name of what is moved, or options are for other things."""
    if to not in _THINGS:
        raise InputError(f"--to {to} is unknown{did_you_mean(to, _THINGS)}: use volume, labels or points")
    if to != "points" and source.lower().endswith(_POINTS):
        raise InputError(f"{source} holds points, and --to says {to}: pass --to points")
    if to == "points" and source.rstrip("/").lower().endswith(_VOLUMES):
        raise InputError(f"{source} is a volume, and --to says points: pass --to volume, or --to labels for ids")
    for name, value in foreign.items():
        if value is not None:
            raise InputError(f"--{name} {value} means nothing with --to {to}: leave it out")


def _set(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _unit(text: str | None) -> Any:
    if text is None or "," in text:
        return three(text, "unit")
    return (three(f"{text},{text},{text}", "unit") or (1.0,))[0]


def _outside(text: str | None) -> Any:
    """Return a whole number as it is, of any size; another number; or the word."""
    if text is None or text == "symmetric":
        return text
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            continue
    raise InputError(f"--outside {text} is no value: give a number, or the word symmetric")
