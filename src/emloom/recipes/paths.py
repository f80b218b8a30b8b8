"""Where recipes find public data: the folder in ``EMLOOM_DATA``, or one given by name."""

from __future__ import annotations

import os
from pathlib import Path

from emloom.errors import InputError

DEFAULT = "../shared/data"


def data_file(name: str, folder: str | None = None) -> Path:
    """Return the path of a data file.

    Args:
        name: path below the data folder.
        folder: the data folder; default the environment variable ``EMLOOM_DATA``, else ``../shared/data``.

    Raises:
        InputError: there is no such file.
    """
    path = Path(folder or os.environ.get("EMLOOM_DATA", DEFAULT)) / name
    if not path.exists():
        raise InputError(
            f"{path} was not found: set EMLOOM_DATA to the folder of the data sets, or pass data=FOLDER"
        )
    return path.resolve()
