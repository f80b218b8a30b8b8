"""Tables and SWC files as spreadsheets and other tools leave them: read for what they say, or refused by line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from emloom.errors import InputError
from emloom.io.pointtables import read_point_table
from emloom.io.swc import read_swc_tracings
from emloom.io.tables import read_arrow


def positions(folder: Path, data: bytes) -> list[list[float]]:
    (folder / "a.csv").write_bytes(data)
    return read_point_table(folder / "a.csv").positions.tolist()


@pytest.mark.fault(
    "tables",
    "a CSV begins with a byte order mark, or ends its lines as Windows and old Macs do",
    "read as it is meant",
)
@pytest.mark.parametrize(
    "data",
    [b"\xef\xbb\xbfz,y,x\n1,2,3\n", b"z,y,x\r\n1,2,3\r\n", b"z,y,x\r1,2,3", b'"z","y","x"\n"1","2","3"\n\n'],
)
def test_csv_of_spreadsheets(tmp_path: Path, data: bytes) -> None:
    assert positions(tmp_path, data) == [[1, 2, 3]]


@pytest.mark.fault(
    "tables",
    "a CSV has semicolons, decimal commas, UTF-16, a missing, repeated or capital column, NaN, or an open quote",
    "error: names the row or column, and what a table of points has",
)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"z;y;x\n1;2;3\n", r"has 0 columns 'z'.*one of each of z, y, x"),
        (b"z,y,x\n1,0;2,0;3,0\n", "row 1 has 4 cells, and there are 3 columns"),
        (b'z,y,x\n"1,5",2,3\n', "row 1 has the coordinate '1,5': give a finite number"),
        (b"z,y,x\n1_0,2,3\n", "row 1 has the coordinate '1_0'"),
        (b"z,y,x\nnan,2,3\n", "row 1 has the coordinate 'nan'"),
        (b"z,y,x\n1e999,2,3\n", "row 1 has the coordinate '1e999'"),
        ("z,y,x\n1,2,3\n".encode("utf-16"), "is no CSV table"),
        (b"z,y\n1,2\n", "has 0 columns 'x'"),
        (b"z,z,y,x\n1,2,3,4\n", "has 2 columns 'z'"),
        (b"Z,Y,X\n1,2,3\n", "has 0 columns 'z'"),
        (b'z,y,x\n"1,2,3\n', "is no CSV table"),
        (b"z,y,x\n" + b"1" * 200_000 + b",2,3\n", "is no CSV table"),
        (b"", "is empty"),
    ],
)
def test_csv_that_says_something_else(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        positions(tmp_path, data)


@pytest.mark.fault("tables", "a table of points has no rows", "it is a table of no points")
def test_no_rows_are_no_points(tmp_path: Path) -> None:
    assert positions(tmp_path, b"z,y,x\n") == []
    pq.write_table(pa.table({axis: pa.array([], pa.float64()) for axis in "zyx"}), tmp_path / "a.parquet")
    assert read_point_table(tmp_path / "a.parquet").positions.shape == (0, 3)


@pytest.mark.fault(
    "tables",
    "a column of a Parquet table holds text, or empty cells",
    "error: names the column: coordinates are numbers",
)
@pytest.mark.parametrize(("cells", "message"), [(["a"], "coordinates are numbers"), ([None], "empty cells")])
def test_columns_of_another_type(tmp_path: Path, cells: list[object], message: str) -> None:
    pq.write_table(pa.table({"z": cells, "y": [1.0], "x": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        read_point_table(tmp_path / "a.parquet")


@pytest.mark.fault(
    "tables",
    "any byte of a Parquet file is flipped",
    "error: is not a readable Parquet file: copy it again; or a table, where the byte does not matter",
)
def test_any_flipped_byte_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"z": np.arange(9.0), "id": np.arange(9, dtype=np.uint64)}), path)
    good, refused = path.read_bytes(), 0
    for at in range(0, len(good), 3):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0xFF]) + good[at + 1 :])
        try:
            read_arrow(path)
        except InputError:
            refused += 1
    assert refused > 50


def swc(folder: Path, data: bytes) -> list[int]:
    (folder / "a.swc").write_bytes(data)
    return read_swc_tracings(folder / "a.swc", unit_nm=1)[0].skeletons.node_ids.tolist()


@pytest.mark.fault(
    "tracings",
    "parents of an SWC go in a circle, or a node is its own parent",
    "it is read as it stands: `emloom skeleton info` counts the cycles, and writing SWC refuses them",
)
def test_circles_are_read_as_they_stand(tmp_path: Path) -> None:
    assert swc(tmp_path, b"1 0 0 0 0 1 2\n2 0 1 0 0 1 1\n") == [1, 2]
    assert swc(tmp_path, b"1 0 0 0 0 1 1\n") == [1]


@pytest.mark.fault("tracings", "an SWC holds no node, or CR LF at the ends of lines", "read as it is meant")
@pytest.mark.fault("tracings", "a node of an SWC has the id 2^64 - 1", "read to the bit")
def test_swc_at_the_edge(tmp_path: Path) -> None:
    assert swc(tmp_path, b"") == []
    assert swc(tmp_path, b"# nothing\n\n") == []
    assert swc(tmp_path, b"1 0 0 0 0 1 -1\r\n2 0 0 0 0 1 1\r\n") == [1, 2]
    assert swc(tmp_path, f"{2**64 - 1} 0 0 0 0 1 -1\n".encode()) == [2**64 - 1]


@pytest.mark.fault(
    "tracings",
    "numbers of an SWC are NaN, have decimal commas, 5000 digits or zero bytes, or the id is 2^64",
    "error: a.swc, line 1 reads ...: give 7 numbers",
)
@pytest.mark.parametrize(
    "data",
    [
        b"1 0 nan 0 0 1 -1\n",
        b"1 0 1,5 0 0 1 -1\n",
        b"9" * 5000 + b" 0 0 0 0 1 -1\n",
        b"1 0 0 0 0 1 -1\0\n",
        b"\xff\xfe1 0 0 0 0 1 -1\n",
        b"1_0 0 0 0 0 1 -1\n",
        b"18446744073709551616 0 0 0 0 1 -1\n",
        b"1 0 0 0 0 1 -2\n",
    ],
)
def test_swc_numbers_that_are_none(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match=r"a\.swc|node 1 of skeleton 1"):
        swc(tmp_path, data)
