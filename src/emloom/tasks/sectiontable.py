"""`sections.csv` of a folder of `emloom align` or `emloom repair`: one row per section of the result."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError

TABLE = "sections.csv"
F64 = NDArray[np.float64]


@dataclass(frozen=True)
class SectionTable:
    """Columns of words.

    Attributes:
        path: of the file, for messages.
        columns: words of every row, by name of the column.
        n: how many rows there are.
    """

    path: Path
    columns: dict[str, tuple[str, ...]]
    n: int

    def words(self, name: str) -> tuple[str, ...]:
        """Return a column; empty words where there is none."""
        return self.columns.get(name, ("",) * self.n)

    def numbers(self, name: str) -> F64:
        """Return a column, float64 [Z]; NaN where nothing stands, or no such column.

        Raises:
            InputError: something stands there that is no number.
        """
        out = np.full(self.n, np.nan)
        for row, word in enumerate(self.words(name)):
            try:
                out[row] = float(word) if word.strip() else np.nan
            except ValueError:
                raise InputError(
                    f"{self.path} has {word!r} in column {name} of row {row}, no number: run the job again"
                ) from None
        return out

    def flags(self, name: str) -> NDArray[np.bool_]:
        """Return whether a column holds a number other than 0, bool [Z]."""
        marked: NDArray[np.bool_] = np.nan_to_num(self.numbers(name)) != 0
        return marked

    def homes(self) -> list[int | None]:
        """Return per section of the result the section of the source that it shows."""
        return [int(v) if np.isfinite(v) else None for v in self.numbers("home")]


def read_sections(folder: Path, n: int) -> SectionTable:
    """Return the table of a folder.

    Args:
        folder: of the job.
        n: sections of its result.

    Raises:
        InputError: there is no table, or it has another number of rows.
    """
    path = folder / TABLE
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows = list(reader)
            names = reader.fieldnames or ()
    except OSError as problem:
        raise InputError(f"cannot read {path} ({problem.strerror}): run the job of this folder again") from None
    if len(rows) != n:
        raise InputError(
            f"{path} has {len(rows)} rows, and the result {n} sections: run the job of this folder again"
        )
    return SectionTable(path, {name: tuple(row[name] for row in rows) for name in names}, n)


def read_summary(path: Path) -> dict[str, Any]:
    """Return the summary of a finished job.

    Raises:
        InputError: there is none (the job has not ended), or it is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(
            f"cannot read {path} ({problem}): the job of this folder has not ended; run it again"
        ) from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is no summary of a job: run it again")
    return found
