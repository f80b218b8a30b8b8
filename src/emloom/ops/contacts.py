"""Where fragments touch: the voxel pairs of a contact, their sums per pair of fragments, and the middle one.

A contact is a pair of face neighbours p and p + offset in two fragments, neither 0. It belongs to whoever owns p::

    u u u | v v        p = last voxel of u, or first of v, as the offset points: one of the two, once
    u u u | v v        sums over cells of disjoint p are sums over the volume, and so is the nearest to a point

Everything is an integer, so tables of disjoint boxes add up exactly, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from emloom.geometry import Box, Vec

Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]
Sums = dict[str, NDArray[Any]]

CORNERS = ("z", "y", "x")
_BESIDE = ndimage.generate_binary_structure(3, 1)
_BESIDE[1, 1, 1] = False


@dataclass(frozen=True, eq=False)
class Contacts:
    """K pairs of touching voxels.

    Attributes:
        u: uint64 [K], the smaller fragment.
        v: uint64 [K], the larger.
        p: int64 [K, 3], voxel (z, y, x) that owns the pair.
        channel: int64 [K], which of the offsets leads from p to its neighbour.
        swapped: bool [K], p lies in v, not in u.
    """

    u: Ids
    v: Ids
    p: Counts
    channel: Counts
    swapped: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.u)


def near_channels(neighborhood: Sequence[Sequence[int]]) -> list[int]:
    """Return which offsets lead to face neighbours."""
    return [channel for channel, offset in enumerate(neighborhood) if sum(map(abs, offset)) == 1]


def contacts_of(
    fragments_ZYX: NDArray[Any],
    neighborhood: Sequence[Sequence[int]],
    owned: Box | None = None,
    origin: Vec = (0, 0, 0),
) -> Contacts:
    """Return the contacts that a box owns, in the order of channels, then of voxels.

    Args:
        fragments_ZYX: unsigned ids; 0 is background.
        neighborhood: offsets; those that lead further than to a face neighbour are skipped.
        owned: voxels p, in array coordinates; default: all. A pair that leaves the array is no contact.
        origin: position of the array's first voxel in the volume; `p` counts from the volume's.
    """
    fragments = np.ascontiguousarray(fragments_ZYX, np.uint64)
    box = Box.whole((fragments.shape[0], fragments.shape[1], fragments.shape[2])) if owned is None else owned
    bounds = np.array([box.start, box.stop], np.int64)
    parts = []
    for channel in near_channels(neighborhood):
        rows = _touching(fragments, np.array(neighborhood[channel], np.int64), bounds)
        parts.append(np.column_stack([rows, np.full(len(rows), channel)]))
    rows = np.concatenate(parts) if parts else np.zeros((0, 7), np.int64)
    at, to = rows[:, :3], rows[:, 3:6]
    here, there = (fragments[tuple(ends.T)] for ends in (at, to))
    swapped = here > there
    u, v = np.minimum(here, there), np.maximum(here, there)
    return Contacts(u, v, at + np.array(origin), rows[:, 6], swapped)


def contact_sums(contacts: Contacts, columns: Mapping[str, NDArray[Any]]) -> Sums:
    """Return one row per pair of fragments, sorted: u, v, n, sums of p, and sums of further columns.

    Args:
        contacts: K of them.
        columns: whole numbers to be added up, each [K].
    """
    order = np.lexsort((contacts.v, contacts.u))
    table: Sums = {"u": contacts.u[order], "v": contacts.v[order], "n": np.ones(len(order), np.int64)}
    table |= {f"sum_{axis}": contacts.p[order, k] for k, axis in enumerate(CORNERS)}
    table |= {name: np.asarray(column)[order].astype(np.int64) for name, column in columns.items()}
    return _added(table)


def ids_beside(fragments_ZYX: NDArray[Any], mask_ZYX: NDArray[np.bool_], owned: Box) -> Ids:
    """Return the fragments that have a voxel in a box of the array with a face neighbour in a mask, sorted."""
    near, at = ndimage.binary_dilation(mask_ZYX, _BESIDE), owned.slices()
    ids: Ids = np.unique(fragments_ZYX[at][near[at]]).astype(np.uint64)
    return np.asarray(ids[ids != 0], np.uint64)


def merge_sums(tables: Sequence[Sums]) -> Sums:
    """Add up tables of disjoint boxes; raises `ValueError` where there is none."""
    if not tables:
        raise ValueError("no table of contacts: give at least one")
    joined = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    order = np.lexsort((joined["v"], joined["u"]))
    return _added({name: column[order] for name, column in joined.items()})


def _added(table: Sums) -> Sums:
    """Add up the rows of one pair; rows are sorted by (u, v)."""
    u, v = table["u"], table["v"]
    first = np.ones(len(u), bool)
    first[1:] = (u[1:] != u[:-1]) | (v[1:] != v[:-1])
    starts = np.flatnonzero(first)
    if not starts.size:
        return table
    out: Sums = {"u": u[starts], "v": v[starts]}
    return out | {name: np.add.reduceat(table[name], starts) for name in table if name not in out}


def nearest_contacts(contacts: Contacts, u: Ids, v: Ids, targets: Counts) -> Sums:
    """Return, of each of some pairs of fragments, the contact nearest to a point.

    Args:
        contacts: where to look.
        u: uint64 [W], of the pairs, sorted by (u, v), each once.
        v: uint64 [W].
        targets: int64 [W, 3], points (z, y, x), voxels of the volume.

    Returns:
        one row for each pair that has a contact here: `row` of the pair, `distance` (squared, in voxels),
        `z`, `y`, `x` of p, `channel`, and `swapped`. Of equally near ones, the first in (z, y, x, channel).
    """
    row = _rows_of(u, v, contacts.u, contacts.v)
    mine = np.flatnonzero(row >= 0)
    row = row[mine]
    distance = ((contacts.p[mine] - targets[row]) ** 2).sum(axis=1)
    z, y, x = contacts.p[mine].T
    table = {"row": row, "distance": distance, "z": z, "y": y, "x": x, "channel": contacts.channel[mine]}
    return nearest_of([table | {"swapped": contacts.swapped[mine]}])


def nearest_of(tables: Sequence[Sums]) -> Sums:
    """Return the nearest contact of each pair, of tables of `nearest_contacts` of disjoint boxes."""
    joined = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    keys = ("channel", "x", "y", "z", "distance", "row")
    order = np.lexsort([joined[name] for name in keys])
    rows = joined["row"][order]
    best = order[np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]][: len(rows)])]
    return {name: column[best] for name, column in joined.items()}


def _rows_of(u: Ids, v: Ids, left: Ids, right: Ids) -> Counts:
    """Return the row of each (left, right) among the sorted pairs (u, v), -1 where it is none."""
    return np.asarray(_find_rows(u, v, left, right), np.int64)


@njit(cache=True, nogil=True)
def _find_rows(u, v, left, right):  # type: ignore[no-untyped-def]
    out = np.full(len(left), -1, np.int64)
    for k in range(len(left)):
        low, high = 0, len(u)
        while low < high:
            middle = (low + high) // 2
            if u[middle] < left[k] or (u[middle] == left[k] and v[middle] < right[k]):
                low = middle + 1
            else:
                high = middle
        if low < len(u) and u[low] == left[k] and v[low] == right[k]:
            out[k] = low
    return out


def rows_of_pairs(u: Ids, v: Ids, contacts: Contacts) -> Counts:
    """Return the row of each contact among sorted pairs of fragments (u, v), -1 where it is none of them."""
    return _rows_of(u, v, contacts.u, contacts.v)


@njit(cache=True, nogil=True)
def _touching(fragments, offset, bounds):  # type: ignore[no-untyped-def]
    """Return the voxels of every contact along one offset, int64 [K, 6]: p, then its neighbour."""
    low, high = np.zeros(3, np.int64), np.zeros(3, np.int64)
    for axis in range(3):
        low[axis] = max(bounds[0, axis], -offset[axis])
        high[axis] = min(bounds[1, axis], fragments.shape[axis] - offset[axis])
    count = 0
    for fill in range(2):
        found = np.zeros((count, 6), np.int64)
        count = 0
        for z in range(low[0], high[0]):
            for y in range(low[1], high[1]):
                for x in range(low[2], high[2]):
                    here = fragments[z, y, x]
                    there = fragments[z + offset[0], y + offset[1], x + offset[2]]
                    if here == there or here == 0 or there == 0:
                        continue
                    if fill:
                        found[count] = (z, y, x, z + offset[0], y + offset[1], x + offset[2])
                    count += 1
    return found
