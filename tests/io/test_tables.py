"""Tables keep every value and every type, or refuse."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emloom.errors import InputError
from emloom.io.tables import read_table, write_table

DTYPES = ["uint8", "int32", "uint64", "int64", "float32", "float64", "bool"]


@settings(deadline=None, max_examples=25)
@given(data=st.data(), n=st.integers(0, 20))
def test_round_trip(data: st.DataObject, n: int) -> None:
    columns = {f"c_{dtype}": data.draw(arrays(dtype, n)) for dtype in DTYPES}
    metadata = data.draw(st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        write_table(f"{folder}/t.parquet", columns, metadata)
        table = read_table(f"{folder}/t.parquet")
    assert list(table.columns) == list(columns)
    assert table.metadata == metadata
    assert len(table) == n
    for name, column in columns.items():
        assert table[name].dtype == column.dtype
        np.testing.assert_array_equal(table[name], column)


def test_huge_ids_strings_and_strides_survive(tmp_path: Path) -> None:
    ids = np.array([0, 2**63, 2**64 - 1, 5], np.uint64)
    write_table(
        tmp_path / "t.parquet", {"id": ids[::-1], "name": np.array(["a", "", "ü", "d"]), "n": ids.astype(">u8")}
    )
    table = read_table(tmp_path / "t.parquet")
    assert table["id"].tolist() == ids[::-1].tolist()
    assert table["n"].tolist() == ids.tolist()
    assert table["name"].tolist() == ["a", "", "ü", "d"]
    assert table["id"].dtype == np.uint64


def test_bad_columns_leave_nothing(tmp_path: Path) -> None:
    for columns in ({"a": np.zeros(2), "b": np.zeros(3)}, {"a": np.zeros((2, 2))}):
        with pytest.raises(InputError, match="one-dimensional and of one length"):
            write_table(tmp_path / "t.parquet", columns)
    assert os.listdir(tmp_path) == []


def test_existing_tables_are_replaced_or_refused(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", {"a": np.zeros(2)})
    write_table(tmp_path / "t.parquet", {"a": np.ones(3)})
    with pytest.raises(InputError, match="already exists"):
        write_table(tmp_path / "t.parquet", {"a": np.zeros(2)}, overwrite=False)
    assert read_table(tmp_path / "t.parquet")["a"].tolist() == [1, 1, 1]


@pytest.mark.fault(
    "tables",
    "a Parquet file is missing, empty or cut short",
    "error: does not exist / is not a readable Parquet file: copy it again",
)
def test_damaged_tables_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(InputError, match="does not exist"):
        read_table(path)
    write_table(path, {"a": np.arange(1000)})
    data = path.read_bytes()
    for keep in (0, 10, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:keep])
        with pytest.raises(InputError, match="not a readable Parquet file"):
            read_table(path)


@pytest.mark.fault(
    "tables",
    "a table has empty cells, or a column is asked for by a wrong name",
    "error: column 'a' has 1 empty cells: fill them / no column 'fragmnt'; did you mean 'fragment'",
)
def test_empty_cells_and_wrong_names_are_errors(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, None]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="column 'a' has 1 empty cells"):
        read_table(tmp_path / "t.parquet")
    write_table(tmp_path / "u.parquet", {"fragment": np.zeros(2)})
    with pytest.raises(InputError, match="no column 'fragmnt'; did you mean 'fragment'"):
        read_table(tmp_path / "u.parquet")["fragmnt"]
