"""The graph's files give back what was put in, say what they are, and refuse what they are not."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.graphstore import (
    EDGES,
    NODES,
    GraphInfo,
    block_file,
    block_files,
    info_of,
    lut_file,
    read_edges,
    read_lut,
    read_merges,
    read_nodes,
    write_edges,
    write_lut,
    write_merges,
    write_nodes,
)
from emloom.io.tables import write_table

INFO = GraphInfo(Grid((40.0, 4.1, 4.0), (0.5, -3.0, 1e6)), (64, 128, 128))
LARGEST = 2**63 - 1


def edges(rng, count, bins=0):
    """Random edges: ids near each other and near the largest."""
    pairs = rng.integers(1, 50, (3 * count + 3, 2)).astype(np.uint64)
    pairs[: count + 1] += np.uint64(LARGEST - 60)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    pairs = pairs[np.sort(rng.permutation(len(pairs))[:count])]
    columns = {"u": pairs[:, 0].copy(), "v": pairs[:, 1].copy()}
    columns |= {name: rng.integers(0, 2 ** rng.integers(1, 62), len(pairs)) for name in list(EDGES)[2:]}
    return columns | ({"histogram": rng.poisson(0.3, (len(pairs), bins)).astype(np.int64)} if bins else {})


def nodes(rng, count):
    columns = {name: rng.integers(0, 2**60, count).astype(kind) for name, kind in NODES.items()}
    return columns | {"id": np.sort(rng.choice(2**40, count, replace=False)).astype(np.uint64)}


def assert_same(found, given_):
    assert list(found) == list(given_)
    for name, column in given_.items():
        assert found[name].dtype == column.dtype
        np.testing.assert_array_equal(found[name], column)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 2, 40]), st.sampled_from([0, 16, 256]))
def test_round_trips(seed, count, bins):
    rng = np.random.default_rng(seed)
    info = GraphInfo(INFO.grid, INFO.cell_shape, bins)
    given_edges, given_nodes = edges(rng, count, bins), nodes(rng, count)
    with tempfile.TemporaryDirectory() as folder:
        a, b = block_file(folder, "edges", (0, 1, 2)), block_file(folder, "nodes", (0, 1, 2))
        write_edges(a, given_edges, info)
        write_nodes(b, given_nodes, info)
        (found_edges, said_a), (found_nodes, said_b) = read_edges(a), read_nodes(b)
        assert said_a == said_b == info == info_of(a) == info_of(b)
        first = a.read_bytes()
        write_edges(a, given_edges, info)
        assert a.read_bytes() == first
    assert_same(found_edges, given_edges)
    assert_same(found_nodes, given_nodes)


def test_merges_and_luts_round_trip(tmp_path: Path) -> None:
    ids = np.array([3, 5, LARGEST], np.uint64)
    merges = {"score_num": np.array([9, 8, 1]), "score_den": np.array([10, 10, LARGEST]), "a": ids - np.uint64(2)}
    merges["b"] = ids
    write_merges(tmp_path / "m.parquet", merges, 0.1)
    found, floor = read_merges(tmp_path / "m.parquet")
    assert_same(found, merges)
    assert floor == 0.1
    path = lut_file(tmp_path, "mean", 0.57)
    write_lut(path, ids, ids - np.uint64(1))
    for a, b in zip(read_lut(path), (ids, ids - np.uint64(1)), strict=True):
        np.testing.assert_array_equal(a, b)
    write_lut(path, ids[:0], ids[:0])
    assert [len(column) for column in read_lut(path)] == [0, 0]


def test_a_threshold_is_named_by_its_own_decimal() -> None:
    """`int(0.57 * 100)` is 56: two thresholds would share a file."""
    assert lut_file("seg.zarr", "mean", 0.57) == Path("seg.zarr/graph/luts/mean/0.57.parquet")
    thresholds = [k / 1000 for k in range(1001)]
    assert len({lut_file("s", "mean", t) for t in thresholds}) == 1001
    assert all(float(lut_file("s", "mean", t).name.removesuffix(".parquet")) == t for t in thresholds)
    assert lut_file("s", "mean", 1).name == "1.0.parquet"


def test_only_finished_block_files_are_listed(tmp_path: Path) -> None:
    indices = [(0, 0, 0), (0, 0, 10), (0, 0, 9), (-1, 2, 3)]
    for index in indices:
        write_edges(block_file(tmp_path, "edges", index), edges(np.random.default_rng(0), 3), INFO)
    for name in (".0_0_1.partial-0123abcd.parquet", "0_0.parquet", "0_0_1.parquet.tmp", "merges.parquet"):
        (tmp_path / "graph" / "edges" / name).write_bytes(b"")
    assert list(block_files(tmp_path, "edges")) == sorted(indices)
    assert block_files(tmp_path, "edges")[0, 0, 9].name == "0_0_9.parquet"
    assert block_files(tmp_path, "nodes") == {}


def test_columns_that_break_the_rules_are_named_and_leave_nothing(tmp_path: Path) -> None:
    good = edges(np.random.default_rng(0), 5)
    info = GraphInfo(INFO.grid, INFO.cell_shape, 4)
    rows = len(good["u"])
    bad = [
        ({**good, "u": good["u"][::-1].copy()}, INFO, "not sorted"),
        ({**good, "u": good["v"], "v": good["u"]}, INFO, "u < v"),
        ({**good, "n": good["n"].astype(np.int32)}, INFO, "n int64"),
        ({**good, "n": good["n"][:-1]}, INFO, "one length"),
        ({k: v for k, v in good.items() if k != "contacts"}, INFO, "no column 'contacts'"),
        (good, info, "0 histogram bins, but the graph says 4"),
        ({**good, "histogram": np.zeros((rows - 1, 4), np.int64)}, info, "histograms for"),
    ]
    for columns, said, words in bad:
        with pytest.raises(InputError, match=words):
            write_edges(tmp_path / "e.parquet", columns, said)
    twice = {name: np.repeat(column, 2) for name, column in nodes(np.random.default_rng(0), 2).items()}
    with pytest.raises(InputError, match="not ascending"):
        write_nodes(tmp_path / "n.parquet", twice, INFO)
    with pytest.raises(InputError, match="not ascending"):
        write_lut(tmp_path / "l.parquet", np.array([2, 1], np.uint64), np.array([1, 1], np.uint64))
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, {"u": np.zeros(2, np.uint64)})
    for read in (read_edges, read_nodes, info_of):
        with pytest.raises(InputError, match="no part of a region graph"):
            read(path)
    with pytest.raises(InputError, match="no merge tree"):
        read_merges(path)
    with pytest.raises(InputError, match="no column 'fragment'"):
        read_lut(path)
    write_nodes(path, nodes(np.random.default_rng(0), 2), INFO)
    with pytest.raises(InputError, match="no column 'u'"):
        read_edges(path)
    table = pq.read_table(path)
    metadata = {key: value.replace(b'"schema": 1', b'"schema": 2') for key, value in table.schema.metadata.items()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match=r"layout 2 .* reads 1"):
        read_nodes(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        read_edges(path)
