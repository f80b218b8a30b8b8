"""Tables of synapses: what is written is read, and what is wrong is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.synapses import LARGEST_ID, SynapseTable
from emloom.io.synapsetable import SYNAPSES, read_synapse_table, to_columns, write_synapse_table
from emloom.io.tables import write_table


def table(n: int, seed: int = 0) -> SynapseTable:
    rng = np.random.default_rng(seed)
    polyads = rng.integers(1, n + 1, n).astype(np.uint64)
    heads, pre_of = rng.normal(0, 1e4, (n + 1, 3)), rng.integers(0, LARGEST_ID, n + 1).astype(np.uint64)
    return SynapseTable(
        rng.choice(np.arange(1, LARGEST_ID, LARGEST_ID // (n + 2), dtype=np.uint64), n, replace=False),
        polyads,
        heads[polyads],
        rng.normal(0, 1e4, (n, 3)),
        pre_of[polyads],
        rng.integers(0, LARGEST_ID, n).astype(np.uint64),
        rng.integers(0, 10**6, n),
        rng.random(n).astype(np.float32),
    )


def assert_same(a: SynapseTable, b: SynapseTable) -> None:
    for name, column in to_columns(a).items():
        other = to_columns(b)[name]
        assert other.dtype == column.dtype
        np.testing.assert_array_equal(other, column)


@given(st.integers(0, 30), st.integers(0, 100), st.sampled_from([".parquet", ".csv"]))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, n: int, seed: int, ending: str) -> None:
    path = tmp_path_factory.mktemp("t") / f"syn{ending}"
    write_synapse_table(path, table(n, seed))
    assert_same(read_synapse_table(path), table(n, seed))


def test_a_folder_holds_its_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no synapses\.parquet"):
        read_synapse_table(tmp_path)
    write_synapse_table(tmp_path / SYNAPSES, table(4))
    assert_same(read_synapse_table(tmp_path), table(4))


def test_rows_keep_their_ids() -> None:
    whole = table(9)
    part = whole.rows(whole.scores > np.median(whole.scores))
    assert 0 < len(part) < 9
    assert set(part.ids.tolist()) < set(whole.ids.tolist())
    assert len(SynapseTable.empty()) == 0


def test_what_a_person_may_leave_out_is_made_up(tmp_path: Path) -> None:
    head = "id,pre_z_nm,pre_y_nm,pre_x_nm,post_z_nm,post_y_nm,post_x_nm,who\n"
    (tmp_path / "mine.csv").write_text(head + "5,1,2,3,4,5,6.5,Ada\n7,1,2,3,4,5,7,Bob\n")
    read = read_synapse_table(tmp_path / "mine.csv")
    assert read.polyads.tolist() == [5, 7]
    assert read.scores.tolist() == [1, 1]
    assert read.post_nm[:, 2].tolist() == [6.5, 7]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "twice": ({"ids": [1, 1]}, "the id 1 stands twice"),
    "zero": ({"ids": [0, 1]}, "0 in ids is no id"),
    "large": ({"polyads": np.array([1, 2**63], np.uint64)}, "is no id: ids go from 1"),
    "signed": ({"pre_segments": [-1, 1]}, "whole numbers from 0 on"),
    "float": ({"post_segments": [1.0, 2.0]}, "post_segments are float64"),
    "nan": ({"post_nm": [[0, 0, 0], [0, np.nan, 0]]}, "post_nm of synapse 2 is not finite"),
    "shape": ({"pre_nm": [[0, 0], [0, 0]]}, r"pre_nm have shape \(2, 2\)"),
    "size": ({"sizes_vox": [1, -4]}, "-4 voxels"),
    "score": ({"scores": [0.5, 1.5]}, r"1\.5 is not within 0 and 1"),
    "nan score": ({"scores": [0.5, np.nan]}, "nan is not within 0 and 1"),
    "polyad": ({"polyads": [3, 3]}, "rows of polyad 3 differ"),
}


@pytest.mark.fault(
    "tables",
    "columns of a synapse table have the wrong type or length, ids stand twice",
    "error: names the column and the rule",
)
@pytest.mark.parametrize("case", BAD)
def test_bad_tables_are_refused(case: str) -> None:
    good: dict[str, Any] = {
        "ids": [1, 2], "polyads": [1, 2], "pre_nm": [[0, 0, 0], [1, 1, 1]], "post_nm": [[0, 0, 9], [1, 1, 8]],
        "pre_segments": [1, 2], "post_segments": [2, 1], "sizes_vox": [5, 5], "scores": [1, 1],
    }  # fmt: skip
    changed, message = BAD[case]
    SynapseTable(**{name: np.array(value) for name, value in good.items()})
    with pytest.raises(InputError, match=message):
        SynapseTable(**{name: np.array(value) for name, value in (good | changed).items()})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("id,pre_z_nm\n1,2\n", "has no column 'pre_y_nm'"),
        ("id,score\n1\n", "row 2 has not as many cells"),
        ("id,score\nx,1\n", "column 'id' is no number"),
        ("id,score\n99999999999999999999999,1\n", "column 'id' is no number"),
        ("id,score\n1,many\n", "column 'score' is no number"),
    ],
)
def test_bad_text_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_synapse_table(tmp_path / "bad.csv")


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_synapse_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"give \.parquet or \.csv"):
        read_synapse_table(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"give \.parquet or \.csv"):
        write_synapse_table(tmp_path / "none.txt", table(1))
    write_table(tmp_path / "other.parquet", {"id": np.arange(3)})
    with pytest.raises(InputError, match="has no column"):
        read_synapse_table(tmp_path / "other.parquet")
