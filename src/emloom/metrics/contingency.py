"""How truth and segmentation overlap: the table every overlap score is read from.

Convention: ``n_ij`` is the number of voxels where the truth is object ``i`` and the segmentation is segment
``j``; ``a_i = sum_j n_ij`` and ``b_j = sum_i n_ij`` are the sizes. The table is sparse, holds the raw 64-bit ids
and exact integers, needs no halo, and is additive over voxels::

    add([contingency(t[k], s[k]) for k in blocks]) == contingency(t, s)                   whole == blockwise
    contingency(t, f).relabelled(keys, values)     == contingency(t, relabel(f, lut))     no voxel pass

so one pass over the voxels of the *fragments* serves every agglomeration threshold.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from emloom.errors import InputError

Ids = NDArray[np.uint64]
_Slab = tuple[Ids, Ids, NDArray[np.bool_]]
Counts = NDArray[np.int64]

_SLAB_VOXELS = 1 << 21  # voxels a thread takes at a time; bounds the uint64 copy of narrower label types
_FIRST_ROWS = 1 << 16  # sparsely filled while pairs are few: lookups then hit at once
_RECENT_ROWS = 1 << 10


@dataclass(frozen=True, eq=False)
class Contingency:
    """Voxels per pair of (truth object, segment): a sparse, sorted table.

    Attributes:
        truth_ids: uint64 [N], truth object of each row.
        segment_ids: uint64 [N], segment of each row.
        counts: int64 [N], voxels of each row, at least 1.

    Rows are unique and sorted by (truth, segment); use `Contingency.from_rows` for rows in any order.

    Raises:
        InputError: the columns have different lengths or types, or the rows are not unique, sorted and positive.
    """

    truth_ids: Ids
    segment_ids: Ids
    counts: Counts

    def __post_init__(self) -> None:
        for name, dtype in (("truth_ids", np.uint64), ("segment_ids", np.uint64), ("counts", np.int64)):
            column = np.asarray(getattr(self, name))
            if column.ndim != 1 or column.dtype != dtype or column.size != np.size(self.counts):
                raise InputError(
                    f"{name} is {column.dtype} {column.shape}: a contingency table has three columns of "
                    f"equal length, here {np.size(self.counts)} rows of {np.dtype(dtype)}"
                )
            frozen = column.view()
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)
        if self.counts.size and int(self.counts.min()) < 1:
            raise InputError(f"a count is {int(self.counts.min())}: rows of a contingency table hold >= 1 voxel")
        t, s = self.truth_ids, self.segment_ids
        if not np.all((t[1:] > t[:-1]) | ((t[1:] == t[:-1]) & (s[1:] > s[:-1]))):
            raise InputError("rows are not unique and sorted by (truth, segment): use Contingency.from_rows")

    @classmethod
    def from_rows(cls, truth_ids: ArrayLike, segment_ids: ArrayLike, counts: ArrayLike) -> Contingency:
        """Return the table of rows in any order; counts of equal pairs are summed, rows of 0 voxels dropped.

        Args:
            truth_ids: unsigned integers [N] (or Python ints that fit).
            segment_ids: unsigned integers [N].
            counts: integers [N], not negative.

        Raises:
            InputError: ids or counts are negative or not whole numbers.
        """
        t, s = as_ids(truth_ids, "truth ids"), as_ids(segment_ids, "segment ids")
        n = np.asarray(as_ids(counts, "counts"), dtype=np.int64)
        if not t.shape == s.shape == n.shape:
            raise InputError(f"columns have shapes {t.shape}, {s.shape}, {n.shape}: give equal lengths")
        t, s, n = t[n > 0], s[n > 0], n[n > 0]
        order = np.lexsort((s, t))
        t, s, n = t[order], s[order], n[order]
        first = np.flatnonzero(np.r_[True, (t[1:] != t[:-1]) | (s[1:] != s[:-1])][: t.size])
        return cls(t[first], s[first], np.add.reduceat(n, first) if n.size else n)

    @property
    def n_voxels(self) -> int:
        """Voxels counted."""
        return int(self.counts.sum())

    def truth_sizes(self) -> tuple[Ids, Counts]:
        """Return the truth ids and their voxel counts ``a_i``, sorted by id."""
        return _sizes(self.truth_ids, self.counts)

    def segment_sizes(self) -> tuple[Ids, Counts]:
        """Return the segment ids and their voxel counts ``b_j``, sorted by id."""
        return _sizes(self.segment_ids, self.counts)

    def relabelled(self, keys: ArrayLike, values: ArrayLike) -> Contingency:
        """Return the table of the segmentation that a LUT would produce.

        Args:
            keys: fragment ids [M], unique, any order. A segment that is not a key keeps its id.
            values: segment id of each key [M].

        Raises:
            InputError: the columns differ in length, or a key occurs twice.
        """
        k, v = as_ids(keys, "LUT keys"), as_ids(values, "LUT values")
        if k.shape != v.shape:
            raise InputError(f"the LUT has {k.size} keys but {v.size} values: give one value per key")
        if k.size == 0:
            return self
        order = np.argsort(k)
        k, v = k[order], v[order]
        twice = np.flatnonzero(k[1:] == k[:-1])
        if twice.size:
            raise InputError(f"fragment {k[twice[0]]} occurs twice in the LUT: map each fragment once")
        row = np.minimum(np.searchsorted(k, self.segment_ids), k.size - 1)
        mapped = np.where(k[row] == self.segment_ids, v[row], self.segment_ids)
        return self._renamed(mapped)

    def _renamed(self, segment_ids: Ids) -> Contingency:
        """Return the table with other segment ids, row by row."""
        if not self.counts.size:
            return self
        rank = np.r_[0, np.cumsum(self.truth_ids[1:] != self.truth_ids[:-1])]
        span = int(segment_ids.max()) + 1
        if (int(rank[-1]) + 1) * span >= 2**63:
            return Contingency.from_rows(self.truth_ids, segment_ids, self.counts)
        # One key instead of two, and a sort that profits from rows that stay in order: most do.
        key = rank * span + segment_ids.astype(np.int64)
        order = np.argsort(key, kind="stable")
        key = key[order]
        first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]])
        kept = order[first]
        return Contingency(self.truth_ids[kept], segment_ids[kept], np.add.reduceat(self.counts[order], first))

    def without(self, *, truth: Iterable[int] = (), segments: Iterable[int] = ()) -> Contingency:
        """Return the table without the voxels of some truth objects or segments (say, segment 0: "undecided")."""
        drop = np.isin(self.truth_ids, _id_list(truth)) | np.isin(self.segment_ids, _id_list(segments))
        return Contingency(self.truth_ids[~drop], self.segment_ids[~drop], self.counts[~drop])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Contingency):
            return NotImplemented
        mine = (self.truth_ids, self.segment_ids, self.counts)
        theirs = (other.truth_ids, other.segment_ids, other.counts)
        return all(np.array_equal(a, b) for a, b in zip(mine, theirs, strict=True))

    __hash__ = None  # type: ignore[assignment]


def contingency(
    truth: NDArray[Any],
    segmentation: NDArray[Any],
    *,
    mask: NDArray[np.bool_] | None = None,
    ignore_truth: Iterable[int] = (0,),
    threads: int | None = None,
) -> Contingency:
    """Count the voxels of every (truth object, segment) pair, in one pass over runs of equal pairs.

    Integers add in any order, so the table does not depend on the number of threads.

    Args:
        truth: unsigned instance ids, any shape.
        segmentation: unsigned instance ids, the shape of `truth`. Segment 0 is an ordinary segment here; drop it
            with `Contingency.without(segments=[0])` where it means "undecided".
        mask: bool, the shape of `truth`; only True voxels count.
        ignore_truth: truth ids whose voxels do not count; by default 0, the background.
        threads: how many to count with; None is one per processor this process may use.

    Raises:
        InputError: shapes differ, ids are signed or floating, or the mask is not boolean.
    """
    for name, array in (("truth", truth), ("segmentation", segmentation)):
        if array.dtype.kind != "u":
            raise InputError(
                f"{name} has dtype {array.dtype}: ids are unsigned integers; convert with .astype(np.uint64) "
                "after checking that none is negative"
            )
    if truth.shape != segmentation.shape:
        raise InputError(f"truth is {truth.shape} but segmentation is {segmentation.shape}: crop to one box")
    if mask is not None and (mask.dtype != np.bool_ or mask.shape != truth.shape):
        raise InputError(f"mask is {mask.dtype} {mask.shape}: give bool of the shape of truth, {truth.shape}")
    ignored = _id_list(ignore_truth)
    workers = max(1, min(_processors() if threads is None else threads, -(-truth.size // _SLAB_VOXELS)))
    shares = [_slabs(truth, segmentation, mask, worker, workers) for worker in range(workers)]
    with ThreadPoolExecutor(workers) as pool:
        rows = np.concatenate(list(pool.map(partial(_count, ignored=ignored), shares)))
    return Contingency.from_rows(rows[:, 0], rows[:, 1], rows[:, 2])


def _count(slabs: Iterator[_Slab], ignored: Ids) -> Ids:
    """Return (truth, segment, voxels) rows, each pair once, of some slabs."""
    table, recent = np.zeros((_FIRST_ROWS, 3), np.uint64), np.zeros((_RECENT_ROWS, 3), np.uint64)
    for t, s, m in slabs:
        start = np.uint64(0)
        while start < t.size:
            # The table grows out here: replacing it inside the kernel would cost a quarter of its speed.
            start = _accumulate(t, s, m, ignored, recent, table, start)
            table = _doubled(table) if start < t.size else table
    _flush(recent, table)
    rows: Ids = table[table[:, 2] > 0]
    return rows


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add(tables: Iterable[Contingency]) -> Contingency:
    """Return the table of all voxels of the given tables; exact, so the order does not matter."""
    listed = list(tables)
    if not listed:
        return Contingency.from_rows([], [], [])
    return Contingency.from_rows(
        np.concatenate([t.truth_ids for t in listed]),
        np.concatenate([t.segment_ids for t in listed]),
        np.concatenate([t.counts for t in listed]),
    )


def disjoint_union(tables: Iterable[Contingency]) -> Contingency:
    """Return one table in which equal ids of different tables are different objects.

    For boxes that were segmented on their own. Ids are renumbered; scores, which depend on the multiset of counts
    only, are those of all voxels together.
    """
    rows: list[tuple[Ids, Ids, Counts]] = []
    first_truth = first_segment = np.uint64(0)
    for table in tables:
        truth, truth_at = np.unique(table.truth_ids, return_inverse=True)
        segments, segments_at = np.unique(table.segment_ids, return_inverse=True)
        rows.append(
            (truth_at.astype(np.uint64) + first_truth, segments_at.astype(np.uint64) + first_segment, table.counts)
        )
        first_truth += np.uint64(len(truth))
        first_segment += np.uint64(len(segments))
    if not rows:
        return Contingency.from_rows([], [], [])
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    return Contingency.from_rows(*columns)


def as_ids(values: ArrayLike, what: str) -> Ids:
    """Return a uint64 array of the same numbers; raises `InputError` for negative or fractional ones."""
    array = np.asarray(values)
    if array.size == 0:
        return np.zeros(array.shape, np.uint64)
    if array.dtype.kind not in "ui":
        raise InputError(f"{what} have dtype {array.dtype}: give integers")
    if array.dtype.kind == "i" and int(array.min()) < 0:
        raise InputError(f"{what} hold {int(array.min())}: ids and counts are never negative")
    return array.astype(np.uint64, copy=False)


def _id_list(ids: Iterable[int]) -> Ids:
    return as_ids(np.array(sorted(set(ids)), dtype=object).astype(np.uint64), "ids")


def _sizes(ids: Ids, counts: Counts) -> tuple[Ids, Counts]:
    order = np.argsort(ids, kind="stable")
    ids, counts = ids[order], counts[order]
    first = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]][: ids.size])
    return ids[first], np.add.reduceat(counts, first) if counts.size else counts


def _slabs(
    truth: NDArray[Any], segmentation: NDArray[Any], mask: NDArray[np.bool_] | None, worker: int, workers: int
) -> Iterator[_Slab]:
    """Yield one worker's share of the flat, contiguous uint64 pieces; no copy where the arrays are so already."""
    t, s = np.atleast_1d(truth), np.atleast_1d(segmentation)
    m = None if mask is None else np.atleast_1d(mask)
    per_row = max(1, t.size // max(1, len(t)))
    rows = max(1, _SLAB_VOXELS // per_row)
    for start in range(worker * rows, len(t), workers * rows):
        piece = slice(start, start + rows)
        yield (
            np.ascontiguousarray(t[piece], np.uint64).reshape(-1),
            np.ascontiguousarray(s[piece], np.uint64).reshape(-1),
            np.empty(0, np.bool_) if m is None else np.ascontiguousarray(m[piece]).reshape(-1),
        )


# The hash table is uint64 [rows, 3], columns truth, segment, voxels; a row of 0 voxels is free. The three stand
# side by side because a lookup then costs one cache line. Neighbouring scan lines cross the same few pairs, so
# counts first gather in a small table of recent pairs that stays in the L1 cache and spills on collision.
@njit(cache=True, nogil=True)
def _hash(t: np.uint64, s: np.uint64) -> np.uint64:
    h = (t * np.uint64(0x9E3779B97F4A7C15)) ^ (s * np.uint64(0xC2B2AE3D27D4EB4F))
    # Multiplying mixes upwards only, and ids are often multiples of a power of two: fold the high bits back.
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def _row(t: np.uint64, s: np.uint64, table: Ids) -> np.uint64:
    """Return the row of a pair in the open-addressing table, or the free row where it belongs."""
    last = np.uint64(table.shape[0] - 1)
    at = _hash(t, s) & last
    while table[at, 2] != 0 and (table[at, 0] != t or table[at, 1] != s):
        at = (at + np.uint64(1)) & last
    return at


@njit(cache=True, nogil=True)
def _add(pair: Ids, table: Ids) -> int:
    """Add one (truth, segment, voxels) row to the table; return 1 where the pair is new."""
    at = _row(pair[0], pair[1], table)
    new = 1 if table[at, 2] == 0 else 0
    table[at, 0], table[at, 1] = pair[0], pair[1]
    table[at, 2] += pair[2]
    return new


@njit(cache=True, nogil=True)
def _flush(recent: Ids, table: Ids) -> None:
    """Move what is left among the recent pairs; the table is at most half full, so all of them fit."""
    for pair in recent:
        if pair[2] != 0:
            _add(pair, table)
            pair[2] = 0


@njit(cache=True, nogil=True)
def _doubled(table: Ids) -> Ids:
    larger = np.zeros((2 * table.shape[0], 3), np.uint64)
    for row in table:
        if row[2] != 0:
            _add(row, larger)
    return larger


@njit(cache=True, nogil=True)
def _run_stop(truth: Ids, segments: Ids, start: np.uint64) -> np.uint64:
    """Return the first index after `start` where the pair changes."""
    one, four, size = np.uint64(1), np.uint64(4), np.uint64(truth.size)
    t, s, stop = truth[start], segments[start], start + one
    # Four voxels per branch: runs are long in labels.
    while stop + four <= size:
        change = np.uint64(0)
        for k in range(4):
            i = stop + np.uint64(k)
            change |= (truth[i] ^ t) | (segments[i] ^ s)
        if change != 0:
            break
        stop += four
    while stop < size and truth[stop] == t and segments[stop] == s:
        stop += one
    return stop


@njit(cache=True, nogil=True)
def _accumulate(
    truth: Ids,
    segments: Ids,
    mask: NDArray[np.bool_],
    ignored: Ids,
    recent: Ids,
    table: Ids,
    start: np.uint64,
) -> np.uint64:
    """Add the pairs of two flat arrays to the tables; return where it stopped because `table` is half full."""
    used = np.count_nonzero(table[:, 2])
    size, last_recent = np.uint64(truth.size), np.uint64(recent.shape[0] - 1)
    while start < size and 2 * used <= table.shape[0]:
        t, s = truth[start], segments[start]
        stop = _run_stop(truth, segments, start)
        n = stop - start
        if mask.size:
            n = np.uint64(np.count_nonzero(mask[start:stop]))
        for skip in ignored:
            if t == skip:
                n = np.uint64(0)
        start = stop
        at = _hash(t, s) & last_recent
        if recent[at, 0] == t and recent[at, 1] == s:
            recent[at, 2] += n
            continue
        if recent[at, 2] != 0:
            used += _add(recent[at], table)
        recent[at, 0], recent[at, 1], recent[at, 2] = t, s, n
    return start
