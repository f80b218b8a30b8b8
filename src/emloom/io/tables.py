"""Tables on disk: Parquet files of equally long columns, written whole or not at all; CSV for other programs.

Law: ``read_table(path).columns == columns`` with the same element types, uint64 included.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emloom.errors import InputError, did_you_mean
from emloom.io.files import explained, staged, way_out, write_text_atomic

Column = NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Columns of one length, and free text about them.

    Attributes:
        columns: name -> one-dimensional array.
        metadata: words about the table (units, provenance).
        source: path shown in messages.
    """

    columns: Mapping[str, Column]
    metadata: Mapping[str, str] = field(default_factory=dict)
    source: str = "table"

    def __getitem__(self, name: str) -> Column:
        """Return a column; raises `InputError` naming the nearest one where it does not exist."""
        if name not in self.columns:
            near = did_you_mean(name, self.columns)
            raise InputError(f"{self.source} has no column {name!r}{near} (it has: {', '.join(self.columns)})")
        return self.columns[name]

    def __len__(self) -> int:
        """Return the number of rows."""
        return max((len(column) for column in self.columns.values()), default=0)


def write_table(
    path: str | Path,
    columns: Mapping[str, Column],
    metadata: Mapping[str, str] | None = None,
    *,
    overwrite: bool = True,
) -> None:
    """Write columns as a Parquet file (zstd), in one step.

    Args:
        path: the file, by custom ``.parquet``.
        columns: name -> one-dimensional array of numbers, booleans or strings; all of one length.
        metadata: words to keep with the table.
        overwrite: replace an existing file.

    Raises:
        InputError: columns differ in length or are not one-dimensional, or the disk refuses.
    """
    _require_columns(path, columns)
    arrays = [pa.array(_native(column)) for column in columns.values()]
    table = pa.Table.from_arrays(arrays, names=list(columns))
    write_arrow(path, table.replace_schema_metadata(dict(metadata or {})), overwrite=overwrite)


def write_arrow(
    path: str | Path,
    table: pa.Table,
    *,
    encodings: Mapping[str, str] | None = None,
    overwrite: bool = True,
) -> None:
    """Write an Arrow table as a Parquet file (zstd), in one step; raises `InputError` where the disk refuses.

    Args:
        path: the file.
        table: any Arrow table.
        encodings: Parquet encoding of every column (``DELTA_BINARY_PACKED``: of sorted or small integers, only
            the bits that differ); None leaves them to Arrow.
        overwrite: replace an existing file.
    """
    chosen: dict[str, Any] = {} if encodings is None else {"use_dictionary": False, "column_encoding": encodings}
    with staged(path, overwrite=overwrite) as temporary:
        pq.write_table(table, temporary, compression="zstd", **chosen)


def write_csv(path: str | Path, columns: Mapping[str, Column], *, overwrite: bool = True) -> None:
    """Write columns as comma-separated text with a header line, in one step; numbers in full precision.

    Text that holds a comma, a quote or a line break is quoted; None is an empty cell.

    Raises:
        InputError: columns differ in length or are not one-dimensional, or the disk refuses.
    """
    _require_columns(path, columns)
    rows = zip(*(np.asarray(column).tolist() for column in columns.values()), strict=True)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([list(columns), *rows])
    write_text_atomic(path, text.getvalue(), overwrite=overwrite)


def _require_columns(path: str | Path, columns: Mapping[str, Column]) -> None:
    lengths = {name: np.asarray(column).shape for name, column in columns.items()}
    if any(len(shape) != 1 for shape in lengths.values()) or len(set(lengths.values())) > 1:
        raise InputError(f"{path}: the columns of a table are one-dimensional and of one length, got {lengths}")


def read_table(path: str | Path) -> Table:
    """Read a Parquet file.

    Raises:
        InputError: the file is missing, empty or damaged, or a column has empty cells.
    """
    table = read_arrow(path)
    return Table({name: table[name].to_numpy() for name in table.column_names}, _words(table), str(path))


def words_of(path: str | Path) -> dict[str, str]:
    """Return the words kept with a Parquet file, without its rows; raises `InputError` as `read_table`."""
    return _words(read_arrow(path, columns=[]))


def _words(table: pa.Table) -> dict[str, str]:
    return {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}


def read_arrow(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read (some columns of) a Parquet file as an Arrow table; raises `InputError` as `read_table`."""
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist: it should be a Parquet file")
    with explained(path, "read"):
        try:
            # `partitioning`: a folder called a=b above the file is a name, not a column.
            table = pq.read_table(path, columns=columns, partitioning=None)
        except (pa.ArrowException, OSError) as problem:
            if isinstance(problem, OSError) and way_out(problem) is not None:
                raise
            raise InputError(f"{path} is not a readable Parquet file ({problem}): copy it again") from problem
    for name in table.column_names:
        if table[name].null_count:
            raise InputError(f"{path}: column {name!r} has {table[name].null_count} empty cells: fill them")
    return table


def count_rows(path: str | Path) -> int:
    """Return the number of rows of a Parquet file without reading them; raises `InputError` as `read_table`."""
    return int(read_arrow(path, columns=[]).num_rows)


def _native(column: Column) -> Column:
    values = np.ascontiguousarray(column)
    return values.astype(values.dtype.newbyteorder("="), copy=False)
