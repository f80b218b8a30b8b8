"""Where recipes find public data: the folder in ``EMLOOM_DATA``, one given by name, or the cache of downloads."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from emloom.errors import InputError
from emloom.io.datasets import cache_folder
from emloom.io.registry import REGISTRY

DEFAULT = "../shared/data"


def data_file(name: str, folder: str | None = None) -> Path:
    """Return the path of a data file.

    Args:
        name: path below the data folder; its first part is the name of the set.
        folder: the data folder; default the environment variable ``EMLOOM_DATA``, else ``../shared/data``, then
            the cache of `emloom data fetch`.

    Raises:
        InputError: there is no such file.
    """
    own = Path(folder or os.environ.get("EMLOOM_DATA", DEFAULT)) / name
    places = [own] if folder else [own, cache_folder() / name]
    for path in places:
        if path.exists():
            return path.resolve()
    raise InputError(
        f"{own} was not found: set EMLOOM_DATA to the folder of the data sets, or pass data=FOLDER{_origin(name)}"
    )


def _origin(name: str) -> str:
    """Say where the data of a file come from, where a public set of that name is known."""
    entry = REGISTRY.get(PurePosixPath(name).parts[0])
    if entry is None:
        return ""
    if any(file.name == PurePosixPath(name).name for file in entry.files):
        return f"; or run `emloom data fetch {entry.name}`"
    return f" (the public set it was cut from: `emloom data fetch {entry.name}`)"
