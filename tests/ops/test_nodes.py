"""Node tables: what scipy and numpy say, whatever way the volume is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box, cells
from emloom.ops.nodes import NODE_COLUMNS, merge_nodes, node_table


def noise(seed, shape, ids=9, zoom=1):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, ids, [-(-n // zoom) for n in shape])
    names = np.r_[0, rng.choice(2**62, ids - 1, replace=False) + 1].astype(np.uint64)
    blown = small.repeat(zoom, 0).repeat(zoom, 1).repeat(zoom, 2)[tuple(slice(n) for n in shape)]
    return np.ascontiguousarray(names[blown])


def assert_same(a, b):
    assert list(a) == list(b) == list(NODE_COLUMNS)
    for name, dtype in NODE_COLUMNS.items():
        assert a[name].dtype == b[name].dtype == dtype
        np.testing.assert_array_equal(a[name], b[name])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 9)] * 3), st.integers(1, 4))
def test_statistics_are_those_of_scipy_and_numpy(seed, shape, zoom):
    fragments = noise(seed, shape, zoom=zoom)
    origin = (5, 0, 2**31)
    table = node_table(fragments, origin)
    ids, dense = np.unique(fragments, return_inverse=True)
    boxes = ndimage.find_objects(dense.reshape(shape) + 1)
    rows = [(int(name), box) for name, box in zip(ids, boxes, strict=True) if name]
    assert table["id"].tolist() == [name for name, _ in rows]
    for row, (name, box) in enumerate(rows):
        where = np.argwhere(fragments == name) + np.array(origin)
        assert table["size"][row] == len(where)
        assert [int(table[f"sum_{axis}"][row]) for axis in "zyx"] == where.sum(0).tolist()
        low = [start + part.start for start, part in zip(origin, box, strict=True)]
        high = [start + part.stop for start, part in zip(origin, box, strict=True)]
        assert [int(table[f"{axis}0"][row]) for axis in "zyx"] == low
        assert [int(table[f"{axis}1"][row]) for axis in "zyx"] == high


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 9)] * 3))
def test_tables_of_any_cells_add_up_to_the_whole(seed, cell):
    fragments = noise(seed, (6, 7, 8), zoom=2)
    parts = [node_table(fragments[box.slices()], box.start) for _, box in cells(Box.whole((6, 7, 8)), cell)]
    whole = node_table(fragments)
    assert_same(merge_nodes(parts), whole)
    assert_same(merge_nodes([merge_nodes(parts[1:]), parts[0]]), whole)


def test_many_fragments_survive_the_growth_of_the_table():
    ids = np.random.default_rng(0).permutation(20**3).astype(np.uint64) + np.uint64(1)
    table = node_table(ids.reshape(20, 20, 20))
    assert table["id"].tolist() == list(range(1, 20**3 + 1))
    assert np.all(table["size"] == 1)
    where = np.argsort(ids)
    np.testing.assert_array_equal(table["z0"] * 400 + table["y0"] * 20 + table["x0"], where)
    np.testing.assert_array_equal(table["sum_x"].astype(np.int64), table["x1"] - 1)


def test_background_has_no_row():
    empty = merge_nodes([])
    assert_same(node_table(np.zeros((2, 3, 4), np.uint8)), empty)
    assert_same(node_table(np.zeros((0, 3, 4), np.uint64)), empty)
    assert_same(merge_nodes([empty, empty]), empty)
    assert [len(column) for column in empty.values()] == [0] * len(NODE_COLUMNS)


def test_bad_input_is_named():
    with pytest.raises(InputError, match="unsigned"):
        node_table(np.zeros((2, 2, 2), np.int64))
    with pytest.raises(InputError, match="2 dimensions"):
        node_table(np.zeros((2, 2), np.uint64))
    with pytest.raises(InputError, match="negative"):
        node_table(np.zeros((2, 2, 2), np.uint64), (0, -1, 0))
    with pytest.raises(InputError, match=r"2\*\*63"):
        node_table(np.full((2, 2, 2), 2**63, np.uint64))
