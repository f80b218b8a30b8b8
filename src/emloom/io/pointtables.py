"""Tables of points, of which only the positions are understood: CSV and Parquet with the columns z, y and x.

Every other column, the order of columns and that of rows are kept: text of CSV letter by letter, values of Parquet
with their types. A coordinate is written so that it is read back to the bit; a whole number that was written
without a decimal point stays so.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emloom.errors import InputError, did_you_mean
from emloom.io.files import explained, write_text_atomic
from emloom.io.tables import read_arrow, write_arrow

AXES = ("z", "y", "x")
F64 = NDArray[np.float64]
Flags = NDArray[np.bool_]


class PointTable(Protocol):
    """Rows with a position each."""

    @property
    def positions(self) -> F64:
        """Positions float64 [N, 3] as they stand there: z, y, x."""

    def with_positions(self, positions: F64, keep: Flags) -> PointTable:
        """Return the rows where `keep` is True, with other positions [N, 3] (before rows were left out)."""

    def texts(self) -> tuple[list[str], list[list[str]]]:
        """Return names of columns, and rows, as text."""

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the table in one step, in the format in which it was read."""


def read_point_table(path: str | Path) -> PointTable:
    """Read a table of points.

    Raises:
        InputError: the file is missing or damaged, no `.csv` or `.parquet`, lacks z, y or x, or a coordinate is no
            finite number.
    """
    ending = Path(path).suffix.lower()
    if ending == ".csv":
        return _read_csv(path)
    if ending == ".parquet":
        return _read_parquet(path)
    raise InputError(f"{path} is no table of points: give .csv or .parquet with the columns z, y, x")


# ---- CSV ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CsvPoints:
    """A CSV table as text; see the module.

    Attributes:
        header: names of columns.
        rows: one text per column.
        positions: float64 [N, 3].
    """

    header: list[str]
    rows: list[list[str]]
    positions: F64

    def with_positions(self, positions: F64, keep: Flags) -> CsvPoints:
        """Return some rows with other positions; NaN becomes an empty cell."""
        at = [self.header.index(axis) for axis in AXES]
        rows = []
        for number in np.flatnonzero(keep).tolist():
            row = list(self.rows[number])
            for column, value in zip(at, positions[number].tolist(), strict=True):
                row[column] = _spelled(value, row[column])
            rows.append(row)
        return CsvPoints(self.header, rows, positions[keep])

    def texts(self) -> tuple[list[str], list[list[str]]]:
        """Return names of columns, and rows."""
        return self.header, self.rows

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the table in one step."""
        write_rows(path, self.header, self.rows, overwrite=overwrite)


def write_rows(path: str | Path, header: list[str], rows: list[list[str]], *, overwrite: bool = False) -> None:
    """Write rows of text as CSV, in one step; raises `InputError` where something is there or the disk refuses."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text_atomic(path, text.getvalue(), overwrite=overwrite)


def _read_csv(path: str | Path) -> CsvPoints:
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist: it should be a CSV table of points")
    with explained(path, "read"):
        data = Path(path).read_bytes()
    try:
        # utf-8-sig: spreadsheets begin a file with a mark
        lines = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (csv.Error, UnicodeDecodeError) as problem:
        raise InputError(f"{path} is no CSV table: {problem}") from None
    if not lines:
        raise InputError(f"{path} is empty: it should begin with the names of its columns, z, y and x among them")
    header, rows = lines[0], [row for row in lines[1:] if row]
    _require_axes(path, header)
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise InputError(f"{path}: row {number + 1} has {len(row)} cells, and there are {len(header)} columns")
    at = [header.index(axis) for axis in AXES]
    positions = np.array([[_number(path, n, row[k]) for k in at] for n, row in enumerate(rows)], np.float64)
    return CsvPoints(header, rows, positions.reshape(-1, 3))


def _number(path: str | Path, row: int, text: str) -> float:
    try:
        value = float(text) if "_" not in text else np.nan  # 1_0 is ten to Python alone
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(
            f"{path}: row {row + 1} has the coordinate {text!r}: give a finite number, or leave it out"
        )
    return value


def _spelled(value: float, before: str) -> str:
    if np.isnan(value):
        return ""
    if value.is_integer() and abs(value) < 2**53 and before.strip().lstrip("+-").isdigit():
        return str(int(value))
    return repr(value)


# ---- Parquet --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ParquetPoints:
    """An Arrow table; see the module."""

    table: pa.Table

    @property
    def positions(self) -> F64:
        """Positions float64 [N, 3]."""
        columns = [np.asarray(self.table[axis].to_numpy(), np.float64) for axis in AXES]
        return np.stack(columns, axis=1)

    def with_positions(self, positions: F64, keep: Flags) -> ParquetPoints:
        """Return some rows with other positions, which are then float64."""
        table = self.table
        for axis, values in zip(AXES, positions.T, strict=True):
            name = table.schema.field(axis)
            column = pa.field(axis, pa.float64(), metadata=name.metadata)
            table = table.set_column(
                table.column_names.index(axis), column, pa.array(np.ascontiguousarray(values))
            )
        return ParquetPoints(table.filter(pa.array(keep)))

    def texts(self) -> tuple[list[str], list[list[str]]]:
        """Return names of columns, and rows, as text."""
        rows = zip(*(column.to_pylist() for column in self.table.columns), strict=True)
        return list(self.table.column_names), [[str(value) for value in row] for row in rows]

    def write(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the table in one step."""
        write_arrow(path, self.table, overwrite=overwrite)


def _read_parquet(path: str | Path) -> ParquetPoints:
    table = read_arrow(path)
    _require_axes(path, table.column_names)
    for axis in AXES:
        kind = table.schema.field(axis).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            raise InputError(f"{path}: the column {axis} holds {kind}: coordinates are numbers")
    points = ParquetPoints(table)
    wrong = np.flatnonzero(~np.isfinite(points.positions).all(axis=1))
    if wrong.size:
        raise InputError(f"{path}: row {wrong[0] + 1} has coordinates that are not finite: leave it out")
    return points


def _require_axes(path: str | Path, names: list[str]) -> None:
    for axis in AXES:
        if names.count(axis) != 1:
            near = did_you_mean(axis, names)
            raise InputError(
                f"{path} has {names.count(axis)} columns {axis!r}{near} (it has: {', '.join(names)}): a table of "
                "points has one of each of z, y, x"
            )
