"""DuckDB as a reader of Parquet tables: nothing but the tables of one result can be read, and nothing written.

Files beyond the folder, the network and settings are out of reach of any SQL that a person gives, for good.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emloom.errors import InputError

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ReadOnly:
    """A DuckDB connection that reads the tables of one folder; close it.

    Attributes:
        duck: the connection.
        spill: folder for what exceeds memory; DuckDB makes it when it first spills.
    """

    duck: duckdb.DuckDBPyConnection
    spill: str

    def close(self) -> None:
        """Let go of memory and of what was spilled."""
        self.duck.close()
        shutil.rmtree(self.spill, ignore_errors=True)

    def define(self, statements: str, what: str) -> None:
        """Make views; raises `InputError` where the tables of `what` cannot be read."""
        try:
            self.duck.execute(statements)
        except duckdb.Error as problem:
            raise InputError(f"the tables of {what} cannot be read ({problem}): write them again") from problem

    def ask(
        self, text: str, values: Mapping[str, int] | None = None, what: str = "the graph cannot be read"
    ) -> pa.Table:
        """Return the answer to a statement; raises `InputError`, with `what` first, where there is none."""
        try:
            return self.duck.sql(text, params=dict(values or {}) or None).to_arrow_table()
        except duckdb.OutOfMemoryException as problem:
            raise InputError(f"{what}, memory is short ({problem}): allow more, or ask for less") from problem
        except duckdb.Error as problem:
            raise InputError(f"{what}: {problem}") from problem

    def require_select(self, text: str) -> None:
        """Raise `InputError` where a text is not one SELECT."""
        try:
            statements = self.duck.extract_statements(text)
        except duckdb.Error as problem:
            raise InputError(f"the SQL is not understood: {problem}") from problem
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            given = ", ".join(statement.type.name for statement in statements) or "nothing"
            raise InputError(f"the SQL is {given}: give one SELECT; the graph is only ever read")


def opened(folder: Path, memory_gb: float | None = None, threads: int | None = None) -> ReadOnly:
    """Open a connection to which files beyond a folder are closed, for good.

    Args:
        folder: whose tables may be read.
        memory_gb: what DuckDB may use, in units of 10^9 bytes, before it spills to disk (default: DuckDB's own,
            80 % of the machine).
        threads: how many DuckDB computes with (default: one per processor).

    Raises:
        InputError: the memory is not positive, or threads are below 1.
    """
    if memory_gb is not None and memory_gb <= 0:
        raise InputError(f"DuckDB cannot work within {memory_gb} GB: give it 1 GB or more")
    if threads is not None and threads < 1:
        raise InputError(f"DuckDB cannot compute with {threads} threads: give it at least 1")
    spill = str(Path(tempfile.gettempdir()) / f"emloom-graph-{uuid.uuid4().hex}")
    made = ReadOnly(duckdb.connect(":memory:"), spill)
    try:
        if memory_gb is not None:
            made.duck.execute(f"SET memory_limit = '{round(memory_gb * 1e9)}B'")
        if threads is not None:
            made.duck.execute(f"SET threads = {threads}")
        made.duck.execute(f"SET temp_directory = {sql_text(spill)}")
        made.duck.execute(f"SET allowed_directories = {sql_list([folder])}")
        made.duck.execute("SET enable_external_access = false")
        made.duck.execute("SET lock_configuration = true")
    except BaseException:
        made.close()
        raise
    return made


def sql_list(paths: Sequence[Path]) -> str:
    """Return paths as a list in SQL."""
    return "[" + ", ".join(sql_text(str(path.resolve())) for path in paths) + "]"


def sql_text(text: str) -> str:
    """Return a text in SQL, quoted."""
    return "'" + text.replace("'", "''") + "'"


def columns_of(table: pa.Table) -> Columns:
    """Return the columns of an answer: whole numbers stay whole, empty cells are None.

    Raises:
        InputError: two columns have one name.
    """
    names = table.column_names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two columns are called {twice!r}: name them apart with AS")
    return {name: _array(table.column(name)) for name in names}


def _array(column: pa.ChunkedArray) -> NDArray[Any]:
    whole = pa.types.is_decimal(column.type) and column.type.scale == 0
    if not whole and not column.null_count and pa.types.is_primitive(column.type):
        values: NDArray[Any] = column.to_numpy()
        return values
    rows = [int(v) if whole and v is not None else v for v in column.to_pylist()]
    if whole and not column.null_count and all(-(2**63) <= v < 2**63 for v in rows):
        return np.array(rows, np.int64)
    out = np.empty(len(rows), object)
    out[:] = rows
    return out
