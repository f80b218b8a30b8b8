"""Runs: the foreground of a volume as intervals along x, and which of them are connected.

Evidence of synapses is 0 nearly everywhere, so everything that follows a threshold works on runs: rows without a
voxel of the foreground are skipped at the speed of memory, and memory is that of the foreground. ::

    evidence row   0 0 9 9 9 0 9 0        threshold 5        runs [2, 5) and [6, 7)

With segments, a run ends where the segment changes, and runs of different segments are never connected: a
component then lies in one neuron.

Connectivity is 6 (faces), 18 (edges) or 26 (corners); within a section that is 4, 8 and 8.

Law: ``component_runs`` of a box numbers the components as `scipy.ndimage.label` would, in raster order of their
first voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops.labels import Bits, Ids

I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Connectivity = Literal[6, 18, 26]

# Rows that come before a row in raster order, (dz, dy), and by how much runs in them may miss each other along x.
_BEFORE: dict[int, tuple[tuple[int, int, int], ...]] = {
    6: ((0, -1, 0), (-1, 0, 0)),
    18: ((0, -1, 1), (-1, -1, 0), (-1, 0, 1), (-1, 1, 0)),
    26: ((0, -1, 1), (-1, -1, 1), (-1, 0, 1), (-1, 1, 1)),
}


@dataclass(frozen=True, eq=False)
class Runs:
    """Intervals along x in raster order, of an array [Z, Y, X].

    Attributes:
        rows: int32 [R, 4]: z, y, first x, one past the last x.
        segments: uint64 [R], the segment each lies in; 0 where nobody asked.
    """

    rows: I32
    segments: Ids

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.rows)


@dataclass(frozen=True, eq=False)
class Linked:
    """Components of runs.

    Attributes:
        labels: int32 [R], the component of each run, from 0 on in order of first voxel.
        n: how many components there are.
        edges: int32 [E, 2], components of neighbouring sections that touch; only where components are those of
            single sections.
    """

    labels: I32
    n: int
    edges: I32


def before(connectivity: int) -> tuple[tuple[int, int, int], ...]:
    """Return the neighbouring rows (dz, dy) before a row, with how far along x a neighbour may lie.

    Raises:
        InputError: another connectivity than 6, 18 and 26.
    """
    if connectivity not in _BEFORE:
        raise InputError(f"connectivity {connectivity} is unknown: use 6 (faces), 18 (edges) or 26 (corners)")
    return _BEFORE[connectivity]


def find_runs(
    evidence_ZYX: Bits, threshold: int, segments_ZYX: Ids | None = None, *, keep_background: bool = False
) -> Runs:
    """Return the runs of voxels whose evidence is at least a threshold.

    Args:
        evidence_ZYX: uint8.
        threshold: 1 to 255.
        segments_ZYX: ids [Z, Y, X]; a run lies in one of them. None: not looked at.
        keep_background: count voxels in segment 0, as if that were a segment; else they are left out.

    Raises:
        InputError: shapes disagree, the evidence is no uint8, or the threshold is not within 1 and 255.
    """
    if evidence_ZYX.dtype != np.uint8 or evidence_ZYX.ndim != 3:
        raise InputError(f"evidence is {evidence_ZYX.dtype} {evidence_ZYX.shape}: give uint8 [Z, Y, X]")
    if not 1 <= threshold <= 255:
        raise InputError(f"threshold {threshold} is not within 1 and 255: at 0 every voxel would count")
    if segments_ZYX is not None and segments_ZYX.shape != evidence_ZYX.shape:
        raise InputError(f"segments have shape {segments_ZYX.shape}, evidence {evidence_ZYX.shape}: same voxels")
    depth, height, width = evidence_ZYX.shape
    flat = np.ascontiguousarray(evidence_ZYX).reshape(depth * height, width)
    split = segments_ZYX is not None
    ids = np.zeros((0, 0, 0), np.uint64)
    if segments_ZYX is not None:
        ids = segments_ZYX.astype(np.uint64, copy=False)  # only looked at where there is evidence: not copied
    hot = _hot_rows(flat, np.uint8(threshold))
    nothing = np.zeros((0, 4), np.int32), np.zeros(0, np.uint64)
    options = (np.uint8(threshold), ids, split, keep_background, height, hot)
    n = _scan(flat, *options, *nothing)
    rows, owners = np.empty((n, 4), np.int32), np.zeros(n, np.uint64)
    _scan(flat, *options, rows, owners)
    return Runs(rows, owners)


def link_runs(runs: Runs, connectivity: int = 6, *, per_section: bool = False) -> Linked:
    """Return the components of runs.

    Args:
        runs: in raster order; runs of different segments are not connected.
        connectivity: 6, 18 or 26.
        per_section: components of single sections, and which of them touch in the next.

    Raises:
        InputError: another connectivity.
    """
    neighbours = np.array(before(connectivity), np.int64)
    if not len(runs):
        return Linked(np.zeros(0, np.int32), 0, np.zeros((0, 2), np.int32))
    low = runs.rows.min(axis=0)
    # Rows as indices of a small box, so that a row is found by its number.
    shape = runs.rows.max(axis=0) - low + 1
    at = runs.rows[:, :2] - low[:2]
    first = _first_of_row(at, int(shape[0]), int(shape[1]))
    pairs = np.empty((12 * len(runs) + 1 if per_section else 0, 2), np.int32)
    labels, n, n_pairs = _link(
        runs.rows, runs.segments, at, first, int(shape[0]), int(shape[1]), neighbours, per_section, pairs
    )
    edges = np.unique(labels[pairs[:n_pairs]], axis=0) if n_pairs else np.zeros((0, 2), np.int32)
    return Linked(labels, n, edges)


@njit(cache=True, nogil=True)
def _hot_rows(flat: Bits, threshold: np.uint8) -> NDArray[np.bool_]:
    n, width = flat.shape
    hot = np.zeros(n, np.bool_)
    for i in range(n):
        row = flat[i]
        top = np.uint8(0)
        for x in range(width):
            top = max(top, row[x])
        hot[i] = top >= threshold
    return hot


@njit(cache=True, nogil=True)
def _scan(  # noqa: PLR0913 (a kernel takes arrays, not objects)
    flat: Bits,
    threshold: np.uint8,
    ids: Ids,
    split: bool,
    keep_background: bool,
    height: int,
    hot: NDArray[np.bool_],
    rows: I32,
    owners: Ids,
) -> int:
    """Count the runs, and write them where there is room for them."""
    n_rows, width = flat.shape
    write, n = len(rows) > 0, 0
    for i in range(n_rows):
        if not hot[i]:
            continue
        z, y, x = i // height, i % height, 0
        while x < width:
            if flat[i, x] < threshold:
                x += 1
                continue
            start, owner = x, ids[z, y, x] if split else np.uint64(0)
            x += 1
            while x < width and flat[i, x] >= threshold and (not split or ids[z, y, x] == owner):
                x += 1
            if split and owner == 0 and not keep_background:
                continue
            if write:
                rows[n, 0], rows[n, 1], rows[n, 2], rows[n, 3] = z, y, start, x
                owners[n] = owner
            n += 1
    return n


@njit(cache=True, nogil=True)
def _first_of_row(at: I32, depth: int, height: int) -> I64:
    """Return the number of the first run of every row; runs of row r are [first[r], first[r + 1])."""
    first = np.zeros(depth * height + 1, np.int64)
    for i in range(len(at)):
        first[at[i, 0] * height + at[i, 1] + 1] += 1
    return np.cumsum(first)


@njit(cache=True, nogil=True)
def _root(parent: I32, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _link(  # noqa: PLR0913 (a kernel takes arrays, not objects)
    rows: I32,
    owners: Ids,
    at: I32,
    first: I64,
    depth: int,
    height: int,
    neighbours: I64,
    per_section: bool,
    pairs: I32,
) -> tuple[I32, int, int]:
    n, n_pairs = len(rows), 0
    parent = np.arange(n).astype(np.int32)
    for k in range(len(neighbours)):
        dz, dy, reach = neighbours[k]
        a, j = 0, 0
        while a < n:
            z, y = at[a, 0], at[a, 1]
            end = first[z * height + y + 1]
            oz, oy = z + dz, y + dy
            if oz < 0 or oy < 0 or oy >= height:
                a = end
                continue
            j, stop = first[oz * height + oy], first[oz * height + oy + 1]
            while a < end:
                while j < stop and rows[j, 3] + reach <= rows[a, 2]:
                    j += 1
                b = j
                while b < stop and rows[b, 2] < rows[a, 3] + reach:
                    if owners[a] == owners[b]:
                        if per_section and dz != 0:
                            pairs[n_pairs, 0], pairs[n_pairs, 1] = b, a
                            n_pairs += 1
                        else:
                            ra, rb = _root(parent, a), _root(parent, b)
                            # The smaller number stays the root: components are named by their first run.
                            parent[max(ra, rb)] = min(ra, rb)
                    b += 1
                a += 1
    labels, count = _numbered(parent)
    return labels, count, n_pairs


@njit(cache=True, nogil=True)
def _numbered(parent: I32) -> tuple[I32, int]:
    labels, count = np.empty(len(parent), np.int32), 0
    for i in range(len(parent)):
        root = _root(parent, i)
        if root == i:
            labels[i] = count
            count += 1
        else:
            labels[i] = labels[root]
    return labels, count
