"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from emloom.cli import complete
from emloom.errors import InputError

Triple = tuple[float, float, float]


def three(text: str | None, what: str) -> Triple | None:
    """Return three numbers from `40,4,4`; None stays None.

    Raises:
        InputError: the text is not three numbers.
    """
    if text is None:
        return None
    try:
        z, y, x = (float(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        raise InputError(f"{what} {text!r} is not three numbers: write z,y,x like 40,4,4") from None
    return (z, y, x)


def three_whole(text: str | None, what: str) -> tuple[int, int, int] | None:
    """Return three whole numbers from `64,64,64`; None stays None."""
    values = three(text, what)
    if values is None:
        return None
    if any(v != int(v) for v in values):
        raise InputError(f"{what} {text!r} must be whole numbers of voxels, z,y,x")
    return (int(values[0]), int(values[1]), int(values[2]))


def box_of(text: str | None) -> dict[str, Any] | None:
    """Return start and shape from `z0:z1,y0:y1,x0:x1` (half-open); None stays None."""
    if text is None:
        return None
    try:
        pairs = [tuple(int(v) for v in part.split(":")) for part in text.split(",")]
        (z0, z1), (y0, y1), (x0, x1) = pairs
    except ValueError:
        raise InputError(f"box {text!r} is not understood: write z0:z1,y0:y1,x0:x1, half-open") from None
    return {"start": (z0, y0, x0), "shape": (z1 - z0, y1 - y0, x1 - x0)}


def read_settings(settings: str | None) -> dict[str, Any]:
    """Return the settings in a YAML file, none without a file; raises `InputError` where it cannot be read."""
    import yaml

    if settings is None:
        return {}
    try:
        words = yaml.safe_load(Path(settings).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise InputError(f"{settings} cannot be read: {problem}") from None
    if not isinstance(words, dict):
        raise InputError(f"{settings} holds no settings: write `name: value` lines")
    return words


def merged(settings: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return settings, overruled by what the command line says; of a nested one, only where it says something."""
    nested = {
        key for key, value in given.items() if isinstance(value, dict) and isinstance(settings.get(key), dict)
    }
    return settings | given | {key: settings[key] | given[key] for key in nested}


VoxelSize = Annotated[
    str | None, typer.Option("--voxel-size", metavar="Z,Y,X", help="Voxel size in nm, where the file lacks it.")
]
Output = Annotated[str, typer.Option("--output", "-o", help="Where to write; must not exist yet.")]
Settings = Annotated[
    str | None, typer.Option("--settings", metavar="YAML", help="A file with everything else: see the docs.")
]
Json = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]
AnyVoxelSize = Annotated[
    bool,
    typer.Option("--any-voxel-size", help="Use a model although it was made for another voxel size."),
]
Device = Annotated[
    str, typer.Option("--device", help="auto, cpu or cuda.", autocompletion=complete.one_of("auto", "cpu", "cuda"))
]
Workers = Annotated[int, typer.Option("--workers", help="Processes on this machine.")]
BlockMinutes = Annotated[
    float,
    typer.Option("--block-minutes", help="End a worker that takes longer for one block; 0: as long as it likes."),
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", metavar="ADDRESS|FILE", help="A dask scheduler: tcp://host:8786, or its file."),
]
