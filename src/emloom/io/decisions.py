"""Tables of decisions of a proofreader: CSV or Parquet, see `emloom.geometry.decisions`.

A row names both sides by ids (`a`, `b`), or by points (`at_z_nm` .. `at_x_nm`, `to_z_nm` .. `to_x_nm`); where a
table has both, ids count where they are filled in. A row without a decision decides nothing: so the list of
`emloom confidence` with a column `decision` added is such a table.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emloom.errors import InputError
from emloom.geometry.decisions import Decision, Side, verb_of
from emloom.geometry.grid import as_nm
from emloom.io.files import explained
from emloom.io.tables import write_csv, write_table

DECISION = "decision"
_POINTS = {"a": [f"at_{axis}_nm" for axis in "zyx"], "b": [f"to_{axis}_nm" for axis in "zyx"]}


def read_decisions(path: str | Path) -> list[Decision]:
    """Read a table of decisions; rows without one are left out.

    Raises:
        InputError: there is no such table, it has no column of decisions or of sides, or a row holds an unknown
            word, or a side that is no id and no point.
    """
    rows = _rows(Path(path))
    found = []
    for number, row in enumerate(rows, 1):
        name = f"{path}, row {number}"
        if DECISION not in row:
            raise InputError(f"{path} has no column {DECISION!r} (it has: {', '.join(row)}): add one")
        verb = verb_of(str(row[DECISION] if row[DECISION] is not None else ""), name)
        if verb is not None:
            found.append(Decision(verb, _side(row, "a", name), _side(row, "b", name), name))
    return found


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise InputError(f"{path} is not a file: give a table of decisions, .csv or .parquet")
    if path.suffix.lower() == ".parquet":
        with explained(path, "read"):
            try:
                # Empty cells are allowed here: a side is an id or a point.
                columns = pq.read_table(path, partitioning=None).to_pydict()
            except pa.ArrowInvalid as problem:
                raise InputError(f"{path} is not a readable Parquet file ({problem}): copy it again") from problem
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if path.suffix.lower() != ".csv":
        raise InputError(f"{path} is no table of decisions: give .csv or .parquet")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [{k: v for k, v in row.items() if k is not None} for row in csv.DictReader(file)]
    except (UnicodeDecodeError, csv.Error) as problem:
        raise InputError(f"{path} is no CSV ({problem}): save it as CSV in UTF-8") from None


def _side(row: Mapping[str, Any], side: str, name: str) -> Side:
    given = row.get(side)
    if given is not None and str(given).strip():
        text = str(given).strip()
        if not text.isdecimal() or not 0 < int(text) < 2**63:
            raise InputError(f"{name}: {side} is {text!r}: give the id of a fragment or segment, a whole number")
        return int(text)
    values = [row.get(column) for column in _POINTS[side]]
    if any(value is None or not str(value).strip() for value in values):
        raise InputError(f"{name} has no side {side}: fill in {side}, or {', '.join(_POINTS[side])}")
    try:
        return as_nm([float(str(value)) for value in values], f"{name}: point {side}")
    except ValueError:
        raise InputError(f"{name}: {values} is no point: give z, y, x in nm") from None


def write_decisions(path: str | Path, decisions: Sequence[Decision], *, overwrite: bool = False) -> None:
    """Write a table of decisions, .csv or .parquet, in one step.

    Raises:
        InputError: the file exists, has another ending, or the disk refuses.
    """
    columns: dict[str, Any] = {DECISION: np.array([d.verb for d in decisions], np.str_)}
    for side, points in _POINTS.items():
        sides = [getattr(d, side) for d in decisions]
        columns[side] = np.array([s if isinstance(s, int) else None for s in sides], object)
        for axis, name in enumerate(points):
            columns[name] = np.array([None if isinstance(s, int) else s[axis] for s in sides], object)
    if Path(path).suffix.lower() == ".parquet":
        write_table(path, columns, overwrite=overwrite)
    elif Path(path).suffix.lower() == ".csv":
        write_csv(path, columns, overwrite=overwrite)
    else:
        raise InputError(f"{path} is no table of decisions: end it with .csv or .parquet")
