"""Sets of voxels that merge and exclude each other: what happens at each edge of a mutex watershed.

Small sets know their exclusions as bits of their voxels, one per long channel and direction, and are asked voxel
by voxel; only sets of `GROWN` voxels and more take a slot in the tables of `emloom.ops.exclusions`. An exclusion
is written there when both sets have grown, so the tables stay small::

    small ~ small, small ~ grown    bits of the two voxels            asked: walk round the ring of the small set
    grown ~ grown                   a pair of slots in the table      asked: one look
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.ops.exclusions import exclude, excluded, root_of, unite

GROWN = 16
"""Voxels from which on a set keeps a list of what it excludes; below, its voxels are asked one by one."""

MOST_LONG = 31
"""Long channels that fit into the bits of a voxel."""

RING, BITS = 0, 1  # columns of Sets.kept


class Sets(NamedTuple):
    """Sets of voxels, by linear index."""

    parent: NDArray[np.int32]  # next voxel towards the root; root: -size below GROWN, else -(GROWN + its slot)
    kept: NDArray[Any]  # [voxels, 2], while the set is small; RING: its next voxel; BITS: j: excludes + steps[j]
    steps: NDArray[np.int64]  # [2 R]: long channels forwards, then backwards
    slots: NDArray[np.int64]  # [1] grown sets so far, those merged since included


# Most edges change no table. Those are taken in tight loops on few arrays: handing on a tuple of arrays costs more
# than an edge, as numba counts references to each of them.
@njit(cache=True, nogil=True)
def attract(sets, exclusions, bucket, step):  # type: ignore[no-untyped-def]
    """Take attractive edges (p, p + step), p from `bucket`, in turn; return the state of `exclusions`."""
    at = _attract_plainly(sets, exclusions.table, bucket, step, 0)
    while at < len(bucket):
        p = np.int64(bucket[at])
        exclusions = _merge(sets, exclusions, root_of(sets.parent, p), root_of(sets.parent, p + step))
        at = _attract_plainly(sets, exclusions.table, bucket, step, at + 1)
    return exclusions


@njit(cache=True, nogil=True)
def _attract_plainly(sets, table, bucket, step, start):  # type: ignore[no-untyped-def]
    """Take edges up to the first whose merge changes a table, and return its number."""
    parent, kept, steps, _ = sets
    last_a, last_b = np.int64(-1), np.int64(-1)
    for at in range(start, len(bucket)):
        p = np.int64(bucket[at])
        a, b = root_of(parent, p), root_of(parent, p + step)
        if a == b or (a == last_a and b == last_b):
            continue
        large, small = (a, b) if parent[a] <= parent[b] else (b, a)
        if parent[small] <= -GROWN:
            barred = excluded(table, _slot(parent, a), _slot(parent, b))
        else:
            barred = _excludes(parent, kept, steps, small, large)
        if barred:
            last_a, last_b = a, b  # sets only gain exclusions
        elif not _merge_plainly(parent, kept, steps, table, large, small):
            return at
    return len(bucket)


@njit(cache=True, nogil=True)
def repel(sets, exclusions, bucket, long):  # type: ignore[no-untyped-def]
    """Take repulsive edges (p, p + steps[long]), p from `bucket`; return the state of `exclusions`."""
    step = sets.steps[long]
    at = _repel_plainly(sets, exclusions.table, bucket, long, 0)
    while at < len(bucket):
        p = np.int64(bucket[at])
        a, b = root_of(sets.parent, p), root_of(sets.parent, p + step)
        exclusions = exclude(exclusions, _slot(sets.parent, a), _slot(sets.parent, b))
        at = _repel_plainly(sets, exclusions.table, bucket, long, at + 1)
    return exclusions


@njit(cache=True, nogil=True)
def _repel_plainly(sets, table, bucket, long, start):  # type: ignore[no-untyped-def]
    """Take edges up to the first that excludes two grown sets anew, and return its number."""
    parent, kept, steps, _ = sets
    step, backwards = steps[long], len(steps) // 2 + long
    last_a, last_b = np.int64(-1), np.int64(-1)
    for at in range(start, len(bucket)):
        p = np.int64(bucket[at])
        a, b = root_of(parent, p), root_of(parent, p + step)
        if a == b or (a == last_a and b == last_b):
            continue
        if parent[a] > -GROWN or parent[b] > -GROWN:
            kept[p, BITS] |= 1 << long
            kept[p + step, BITS] |= 1 << backwards
        elif excluded(table, _slot(parent, a), _slot(parent, b)):
            last_a, last_b = a, b
        else:
            return at
    return len(bucket)


@njit(cache=True, nogil=True)
def _slot(parent, root):  # type: ignore[no-untyped-def]
    return np.int64(-GROWN) - parent[root]


@njit(cache=True, nogil=True)
def _excludes(parent, kept, steps, a, b):  # type: ignore[no-untyped-def]
    """Whether a voxel of the small set of `a` excludes one in the set of `b`."""
    member = a
    while True:
        left, j = np.int64(kept[member, BITS]), 0
        while left:
            if left & 1 and root_of(parent, member + steps[j]) == b:
                return True
            left >>= 1
            j += 1
        member = np.int64(kept[member, RING])
        if member == a:
            return False


@njit(cache=True, nogil=True)
def _merge_plainly(parent, kept, steps, table, a, b):  # type: ignore[no-untyped-def]
    """Merge set b into a, which is no smaller, unless that changes a table; return whether it was done."""
    if parent[a] > -GROWN:
        size = -(parent[a] + parent[b])
        if size >= GROWN:
            return False
        kept[a, RING], kept[b, RING] = kept[b, RING], kept[a, RING]
        parent[a] = -size
    elif parent[b] <= -GROWN or _news(parent, kept, steps, table, b, _slot(parent, a)) >= 0:
        return False
    parent[b] = a
    return True


@njit(cache=True, nogil=True)
def _merge(sets, exclusions, a, b):  # type: ignore[no-untyped-def]
    """Merge two sets that do not exclude each other, of which one is grown then."""
    parent, kept, steps, slots = sets
    if parent[a] > parent[b]:
        a, b = b, a  # b is the smaller set, if one is small
    if parent[b] <= -GROWN:
        exclusions, slot = unite(exclusions, _slot(parent, a), _slot(parent, b))
        parent[b], parent[a] = a, -GROWN - slot
        return exclusions
    parent[b] = a
    first = b
    if parent[a] > -GROWN:
        kept[a, RING], kept[b, RING] = kept[b, RING], kept[a, RING]
        parent[a] = -GROWN - slots[0]
        slots[0] += 1
    own = _slot(parent, a)
    other = _news(parent, kept, steps, exclusions.table, first, own)
    while other >= 0:
        exclusions = exclude(exclusions, own, other)
        other = _news(parent, kept, steps, exclusions.table, first, own)
    return exclusions


@njit(cache=True, nogil=True)
def _news(parent, kept, steps, table, first, own):  # type: ignore[no-untyped-def]
    """Return a slot that voxels of a small set exclude, and the slot that the set goes to does not; -1 without."""
    member = first
    while True:
        left, j = np.int64(kept[member, BITS]), 0
        while left:
            if left & 1:
                root = root_of(parent, member + steps[j])
                if parent[root] <= -GROWN:
                    other = _slot(parent, root)
                    if other != own and not excluded(table, own, other):
                        return other
            left >>= 1
            j += 1
        member = np.int64(kept[member, RING])
        if member == first:
            return np.int64(-1)


@njit(cache=True, nogil=True)
def labels_of(sets, mask):  # type: ignore[no-untyped-def]
    """Return int32 [voxels], sets numbered from 1 in scan order; 0 outside the mask."""
    labels, number = np.zeros(len(mask), np.int32), np.zeros(len(mask), np.int32)
    count = 0
    for p in range(len(mask)):
        if mask[p]:
            root = root_of(sets.parent, p)
            if number[root] == 0:
                count += 1
                number[root] = count
            labels[p] = number[root]
    return labels
