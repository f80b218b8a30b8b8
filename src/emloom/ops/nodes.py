"""What each fragment is, apart from its edges: how many voxels, where its centre lies, how far it reaches.

Every statistic is an integer of *global* voxel positions, so tables of disjoint boxes add up exactly, in any
order, and the table does not depend on how the volume was cut::

    merge_nodes([node_table(f[k], origin_k) for k in cells]) == node_table(f)

    size    voxels                      sum_z / size    centre of mass along z, in voxel positions
    z0, z1  first section, last + 1     (z0, y0, x0) .. (z1, y1, x1) is the bounding box, half-open
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.ops.labels import require_labels_array

Nodes = dict[str, NDArray[Any]]

NODE_COLUMNS: dict[str, type[np.generic]] = {
    "id": np.uint64,
    "size": np.int64,
    **dict.fromkeys(("sum_z", "sum_y", "sum_x"), np.uint64),
    **dict.fromkeys(("z0", "y0", "x0", "z1", "y1", "x1"), np.int64),
}
"""Columns of a node table, in order, and their types."""

_ADDED = ("size", "sum_z", "sum_y", "sum_x")
_LOWEST = ("z0", "y0", "x0")
_HIGHEST = ("z1", "y1", "x1")


def node_table(fragments_ZYX: NDArray[Any], origin: Vec = (0, 0, 0)) -> Nodes:
    """Return one row per fragment in the array, sorted by id; O(voxels) time, O(fragments) memory.

    Args:
        fragments_ZYX: fragment ids, any unsigned integer below 2^63; 0 is background and has no row.
        origin: position of the array's first voxel in the whole volume, not negative.

    Returns:
        The columns of `NODE_COLUMNS`, each [fragments].

    Raises:
        InputError: invalid fragments, or an origin below 0.
    """
    fragments = require_labels_array(fragments_ZYX, "fragments")
    if min(origin) < 0:
        raise InputError(f"origin {origin} is negative: voxel positions count from the volume's first voxel, 0")
    ids, rows = _measure(fragments, np.asarray(origin, np.int64))
    order = np.argsort(ids)
    columns = [ids[order], *rows[order].T]
    return {
        name: np.ascontiguousarray(column).astype(dtype)
        for (name, dtype), column in zip(NODE_COLUMNS.items(), columns, strict=True)
    }


def merge_nodes(tables: Sequence[Mapping[str, NDArray[Any]]]) -> Nodes:
    """Add up node tables of disjoint boxes: sizes and sums add, bounding boxes grow around both."""
    joined = {
        name: np.concatenate([np.zeros(0, dtype), *(table[name] for table in tables)]).astype(dtype, copy=False)
        for name, dtype in NODE_COLUMNS.items()
    }
    order = np.argsort(joined["id"], kind="stable")
    ids = joined["id"][order]
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]][: len(ids)])
    if not len(starts):
        return joined
    out: Nodes = {"id": ids[starts]}
    for names, pool in ((_ADDED, np.add), (_LOWEST, np.minimum), (_HIGHEST, np.maximum)):
        out |= {name: pool.reduceat(joined[name][order], starts) for name in names}
    return out


# Row of a fragment: size, sums of z, y, x, first z, y, x, last z, y, x + 1. Sums wrap to uint64 without loss.
@njit(cache=True, nogil=True)
def _measure(fragments, origin):  # type: ignore[no-untyped-def]
    n_z, n_y, n_x = fragments.shape
    table = np.full(1024, -1, np.int64)
    ids, rows = np.zeros(512, np.uint64), np.zeros((512, 10), np.int64)
    count = 0
    for z in range(n_z):
        for y in range(n_y):
            while len(ids) < count + n_x:  # room for a line of new fragments
                ids, rows = _grown(ids, rows)
                table = _refilled(ids, count)
            start = (origin[0] + z, origin[1] + y, origin[2])
            count += _measure_line(fragments[z, y], start, count, (table, ids, rows))
    return ids[:count], rows[:count]


@njit(cache=True, nogil=True)
def _measure_line(line, start, count, tables):  # type: ignore[no-untyped-def]
    """Add the runs of a line; return the number of new fragments."""
    table, ids, rows = tables
    before, x = count, 0
    while x < len(line):
        first, fragment = x, line[x]
        while x < len(line) and line[x] == fragment:
            x += 1
        if fragment == 0:
            continue
        slot = _find(table, ids, fragment)
        if table[slot] < 0:
            table[slot], ids[count] = count, fragment
            rows[count, 4:7] = np.iinfo(np.int64).max
            count += 1
        _add_run(rows[table[slot]], start[0], start[1], start[2] + first, start[2] + x)
    return count - before


@njit(cache=True, nogil=True)
def _add_run(row, z, y, first, stop):  # type: ignore[no-untyped-def]
    length = stop - first
    row[0] += length
    row[1] += z * length
    row[2] += y * length
    row[3] += (first + stop - 1) * length // 2  # of an arithmetic series: the product is even
    row[4], row[5], row[6] = min(row[4], z), min(row[5], y), min(row[6], first)
    row[7], row[8], row[9] = max(row[7], z + 1), max(row[8], y + 1), max(row[9], stop)


@njit(cache=True, nogil=True)
def _find(table, ids, fragment):  # type: ignore[no-untyped-def]
    """Return the slot that holds the fragment's row, or the free one where it belongs (linear probing)."""
    mask = np.uint64(len(table) - 1)
    mixed = fragment * np.uint64(0x9E3779B97F4A7C15)
    slot = (mixed ^ (mixed >> np.uint64(32))) & mask
    while table[slot] >= 0 and ids[table[slot]] != fragment:
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True)
def _grown(ids, rows):  # type: ignore[no-untyped-def]
    more_ids, more_rows = np.zeros(2 * len(ids), np.uint64), np.zeros((2 * len(rows), 10), np.int64)
    more_ids[: len(ids)], more_rows[: len(rows)] = ids, rows
    return more_ids, more_rows


@njit(cache=True, nogil=True)
def _refilled(ids, count):  # type: ignore[no-untyped-def]
    table = np.full(2 * len(ids), -1, np.int64)
    for row in range(count):
        table[_find(table, ids, ids[row])] = row
    return table
