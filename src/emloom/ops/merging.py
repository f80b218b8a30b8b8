"""The kernel of agglomeration: contract a graph of regions, best edge first.

Regions live in slots; a merge empties the slot with fewer edges into the other, so an edge moves at most log2(N)
times. A slot's *name* is the rank of its smallest fragment id, whatever slot survives. Every live edge waits in a
queue under a score that bounds its true one from above (pooling never raises a score): an edge pooled since it
was queued is *stale*, and is scored again when it comes up.

The queue is the edges as given, sorted once, and a heap of those scored again::

    sorted edges  ──▶ ┐
                      ├─▶ all edges of exactly the best score ─▶ level, ordered by names ─▶ merge
    heap (rescored) ─▶ ┘         ▲                                                            │
         ▲                       └── ends where the next best differs                         │
         └────────────────────────────── pooled edges, when they come up stale ◀──────────────┘

Regions that must not merge yet, and those that wait for them: see `emloom.ops.freezing`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops.freezing import freeze_level, waits
from emloom.ops.queues import (
    DEAD,
    DEN,
    FRESH,
    IN_HEAP,
    IN_LEVEL,
    IN_TABLE,
    LIFE,
    NUM,
    PLACE,
    QUEUED,
    SCORE_DEN,
    SCORE_NUM,
    STALE,
    U,
    V,
    compare,
    compare_edges,
    heap_pop,
    heap_push,
    level_pop,
    level_push,
    level_update,
    pair,
)

MEAN, MAX, QUANTILE = 0, 1, 2

AFTER, BEFORE = 0, 1  # columns of State.links
_EMPTY = -1  # in State.table
_EDGE_MASK, _HASH_MASK = 0x3FFFFFFF, 0x7FFFFFFF_C0000000  # of an entry of State.table, which is never negative


class State(NamedTuple):
    """Arrays of the kernel; half-edge 2e is the u end of edge e, 2e + 1 its v end."""

    edges: NDArray[np.int64]  # [E, 8]
    histogram: NDArray[np.int64]  # [E, bins], [0, 1] without
    name: NDArray[np.int32]  # [N]
    degree: NDArray[np.int32]  # [N]
    head: NDArray[np.int32]  # [N] first half-edge of a slot
    links: NDArray[np.int32]  # [2E, 2] doubly linked lists of half-edges
    table: NDArray[np.int64]  # [T] hash table from pairs of slots to edges; edges gone stay until swept out
    sorted: NDArray[np.int32]  # [E] edges by their first score, best first
    heap: NDArray[np.int32]  # [E] edges scored again, best first
    heap_score: NDArray[np.float64]  # [E] their scores, rounded: decides unless equal
    level: NDArray[np.int32]  # [E] edges of the best score, smallest names first
    rank: NDArray[np.int64]  # [E] (smaller name, larger name) of each edge of the level
    size: NDArray[np.int64]  # sorted edges taken; edges in heap, in level; keys in table


def new_state(
    ends: tuple[NDArray[np.int32], NDArray[np.int32]],
    num: NDArray[np.int64],
    den: NDArray[np.int64],
    histogram: NDArray[np.int64],
    regions: int,
    rule: NDArray[np.int64],
) -> State:
    """Return the state before the first merge.

    Args:
        ends: int32 [E] twice, the ranks of the regions that each edge joins.
        num: int64 [E], pooled total; peak for the linkage `max`.
        den: int64 [E], pooled count; 1 for the linkage `max`.
        histogram: int64 [E, bins], taken over and overwritten; [0, 1] where the linkage needs none.
        regions: N.
        rule: int64 [2], linkage and percentage.
    """
    count = len(num)
    if count >= 2**30:
        raise InputError(f"{count} edges are too many for one graph: agglomerate in chunks")
    edges = np.zeros((count, 8), np.int64)
    edges[:, U], edges[:, V] = ends
    edges[:, NUM], edges[:, DEN] = num, den
    edges[:, PLACE] = -1
    table = 1 << max(3, int(2 * count).bit_length())
    state = State(
        edges=edges,
        histogram=histogram,
        name=np.arange(regions, dtype=np.int32),
        degree=np.zeros(regions, np.int32),
        head=np.full(regions, -1, np.int32),
        links=np.full((2 * count, 2), -1, np.int32),
        table=np.full(table, _EMPTY, np.int64),
        sorted=np.zeros(count, np.int32),
        heap=np.zeros(count, np.int32),
        heap_score=np.zeros(count, np.float64),
        level=np.zeros(count, np.int32),
        rank=np.zeros(count, np.int64),
        size=np.zeros(4, np.int64),
    )
    _connect(state, rule)
    scores = edges[:, SCORE_NUM] / edges[:, SCORE_DEN]
    np.negative(scores, out=scores)
    state.sorted[:] = np.argsort(scores)
    _settle_rounding(state)
    return state


@njit(cache=True, nogil=True, error_model="numpy")
def run(s, rule, floor, frozen):  # type: ignore[no-untyped-def]
    """Merge until the best score is below `floor`; return the number of merges and their log (num, den, a, b).

    `frozen`, uint8 [N], or [0] where nothing is, says which slots hold a region that must not merge; in the end,
    also which hold one that waits for those. (In the state, it would slow every call by a tenth.)
    """
    most = max(len(s.name) - 1, 0)
    scores, names = np.zeros((most, 2), np.int64), np.zeros((most, 2), np.int64)
    leader = np.arange(len(frozen), dtype=np.int32)
    merges = 0
    while True:
        best = _gather_level(s, rule, floor)
        if best < 0:
            return merges, scores, names
        num, den = s.edges[best, SCORE_NUM], s.edges[best, SCORE_DEN]
        if len(frozen):
            freeze_level(s, frozen, leader)
        while s.size[IN_LEVEL] > 0:
            e = level_pop(s)
            if waits(s, e, frozen) or not _still_at(s, rule, e, num, den):
                continue
            a, b = s.name[s.edges[e, U]], s.name[s.edges[e, V]]
            scores[merges, 0], scores[merges, 1] = num, den
            names[merges, 0], names[merges, 1] = min(a, b), max(a, b)
            merges += 1
            _contract(s, rule, e)


@njit(cache=True, nogil=True, error_model="numpy")
def _connect(s, rule):  # type: ignore[no-untyped-def]
    for e in range(len(s.edges)):
        u, v = s.edges[e, U], s.edges[e, V]
        _link(s, 2 * e, u)
        _link(s, 2 * e + 1, v)
        _table_put(s, _table_place(s, u, v), e)
        _rescore(s, rule, e)


@njit(cache=True, nogil=True, error_model="numpy")
def _settle_rounding(s):  # type: ignore[no-untyped-def]
    """Order different ratios that round to the same float (contacts beyond some 4 million affinities)."""
    for i in range(1, len(s.sorted)):
        e = np.int64(s.sorted[i])
        j = i
        while j > 0 and compare_edges(s, e, s.sorted[j - 1]) > 0:
            s.sorted[j] = s.sorted[j - 1]
            j -= 1
        s.sorted[j] = e


@njit(cache=True, nogil=True, error_model="numpy")
def _still_at(s, rule, e, num, den):  # type: ignore[no-untyped-def]
    """Whether an edge of the level lives and still has its score; one pooled to a lower score is queued again."""
    if s.edges[e, LIFE] == STALE:
        _rescore(s, rule, e)
        if compare(s.edges[e, SCORE_NUM], s.edges[e, SCORE_DEN], num, den) != 0:
            heap_push(s, e)
            return False
    return s.edges[e, LIFE] == FRESH


@njit(cache=True, nogil=True, error_model="numpy")
def _gather_level(s, rule, floor):  # type: ignore[no-untyped-def]
    """Move all edges of the best score from the queue to the level; return one of them, -1 if below `floor`."""
    best = np.int64(-1)
    while True:
        e, from_heap = _queue_top(s)
        if e < 0 or (best >= 0 and compare_edges(s, e, best) != 0):
            return best
        if s.edges[e, SCORE_NUM] / s.edges[e, SCORE_DEN] < floor:
            return best
        if from_heap:
            heap_pop(s)
        else:
            s.size[QUEUED] += 1
        if s.edges[e, LIFE] == STALE:
            _rescore(s, rule, e)
            heap_push(s, e)
        elif s.edges[e, LIFE] == FRESH:
            level_push(s, e)
            best = e


@njit(cache=True, nogil=True, error_model="numpy")
def _queue_top(s):  # type: ignore[no-untyped-def]
    """Return the edge with the highest queued score and whether it waits in the heap; -1 where none waits."""
    while s.size[QUEUED] < len(s.sorted) and s.edges[s.sorted[s.size[QUEUED]], LIFE] == DEAD:
        s.size[QUEUED] += 1
    first = np.int64(s.sorted[s.size[QUEUED]]) if s.size[QUEUED] < len(s.sorted) else np.int64(-1)
    if s.size[IN_HEAP] == 0:
        return first, False
    if first < 0 or compare_edges(s, s.heap[0], first) > 0:
        return np.int64(s.heap[0]), True
    return first, False


@njit(cache=True, nogil=True, error_model="numpy")
def _contract(s, rule, e):  # type: ignore[no-untyped-def]
    """Merge the two regions of an edge: move the edges of the one with fewer edges to the other."""
    small, large = s.edges[e, U], s.edges[e, V]
    _kill(s, e)
    if s.degree[small] > s.degree[large]:
        small, large = large, small
    large_renamed = s.name[small] < s.name[large]
    s.name[large] = min(s.name[small], s.name[large])
    half = s.head[small]
    while half >= 0:
        following = s.links[half, AFTER]
        _move(s, rule, half, large)
        half = following
    if large_renamed and s.size[IN_LEVEL] > 0:
        half = s.head[large]
        while half >= 0:
            level_update(s, half >> 1)
            half = s.links[half, AFTER]


@njit(cache=True, nogil=True, error_model="numpy")
def _move(s, rule, half, large):  # type: ignore[no-untyped-def]
    """Attach a half-edge to another slot; where that slot has such an edge already, pool the two.

    The one queued under the higher score goes on, so that its place in the queue stays an upper bound.
    """
    f = half >> 1
    end, far = (U, V) if half & 1 == 0 else (V, U)
    other = s.edges[f, far]
    place = _table_place(s, large, other)
    if s.table[place] != _EMPTY:
        g = s.table[place] & _EDGE_MASK
        if compare_edges(s, f, g) <= 0:
            _pool(s, rule, f, g)
            _unlink(s, half ^ 1, other)
            s.edges[f, LIFE] = DEAD
            return
        _pool(s, rule, g, f)
        _kill(s, g)
    s.edges[f, end] = large
    _link(s, half, large)
    _table_put(s, place, f)
    level_update(s, f)


@njit(cache=True, nogil=True, error_model="numpy")
def _pool(s, rule, source, target):  # type: ignore[no-untyped-def]
    if rule[0] == MAX:
        s.edges[target, NUM] = max(s.edges[target, NUM], s.edges[source, NUM])
    else:
        s.edges[target, NUM] += s.edges[source, NUM]
        s.edges[target, DEN] += s.edges[source, DEN]
    if rule[0] == QUANTILE:
        for k in range(s.histogram.shape[1]):
            s.histogram[target, k] += s.histogram[source, k]
    s.edges[target, LIFE] = STALE


@njit(cache=True, nogil=True, error_model="numpy")
def _rescore(s, rule, e):  # type: ignore[no-untyped-def]
    num, den = s.edges[e, NUM], s.edges[e, DEN]
    if rule[0] == QUANTILE:
        bins = s.histogram.shape[1]
        # The rank in two steps: waterz's `Q * n / 100` overflows for very large contacts.
        rank = den // 100 * rule[1] + den % 100 * rule[1] // 100 + 1
        k, below = 0, s.histogram[e, 0]
        while below < rank and k < bins - 1:
            k += 1
            below += s.histogram[e, k]
        # Twice the middle of the bin's values.
        num, den = np.int64((2 * k + 1) * (256 // bins) - 1), np.int64(1)
    s.edges[e, SCORE_NUM], s.edges[e, SCORE_DEN] = num, den
    s.edges[e, LIFE] = FRESH


@njit(cache=True, nogil=True, error_model="numpy")
def _link(s, half, slot):  # type: ignore[no-untyped-def]
    head = s.head[slot]
    s.links[half, BEFORE] = -1
    s.links[half, AFTER] = head
    if head >= 0:
        s.links[head, BEFORE] = half
    s.head[slot] = half
    s.degree[slot] += 1


@njit(cache=True, nogil=True, error_model="numpy")
def _unlink(s, half, slot):  # type: ignore[no-untyped-def]
    after, before = s.links[half, AFTER], s.links[half, BEFORE]
    if before >= 0:
        s.links[before, AFTER] = after
    else:
        s.head[slot] = after
    if after >= 0:
        s.links[after, BEFORE] = before
    s.degree[slot] -= 1


@njit(cache=True, nogil=True, error_model="numpy")
def _kill(s, e):  # type: ignore[no-untyped-def]
    _unlink(s, 2 * e, s.edges[e, U])
    _unlink(s, 2 * e + 1, s.edges[e, V])
    s.edges[e, LIFE] = DEAD


@njit(cache=True, nogil=True, error_model="numpy")
def _hash(a, b):  # type: ignore[no-untyped-def]
    mixed = pair(a, b) * np.int64(-7046029254386353131)
    return mixed ^ (mixed >> 32)


@njit(cache=True, nogil=True, error_model="numpy")
def _table_place(s, a, b):  # type: ignore[no-untyped-def]
    """Return where the live edge of two slots is stored, or the empty place where it would go (linear probing).

    An entry is the edge and some bits of its hash: whether it is the one looked for, the edge itself must say.
    """
    hashed = _hash(a, b)
    place = hashed & (len(s.table) - 1)
    while s.table[place] != _EMPTY:
        e = s.table[place] & _EDGE_MASK
        if (s.table[place] ^ hashed) & _HASH_MASK == 0 and s.edges[e, LIFE] != DEAD:
            u, v = s.edges[e, U], s.edges[e, V]
            if (u == a and v == b) or (u == b and v == a):
                return place
        place = (place + 1) & (len(s.table) - 1)
    return place


@njit(cache=True, nogil=True, error_model="numpy")
def _table_put(s, place, e):  # type: ignore[no-untyped-def]
    """Store an edge at the place found for its slots; when crowded, sweep out the edges that are gone."""
    if s.table[place] == _EMPTY:
        s.size[IN_TABLE] += 1
    s.table[place] = (_hash(s.edges[e, U], s.edges[e, V]) & _HASH_MASK) | e
    if 3 * s.size[IN_TABLE] > 2 * len(s.table):
        s.table[:] = _EMPTY
        s.size[IN_TABLE] = 0
        for f in range(len(s.edges)):
            if s.edges[f, LIFE] != DEAD:
                u, v = s.edges[f, U], s.edges[f, V]
                s.table[_table_place(s, u, v)] = (_hash(u, v) & _HASH_MASK) | f
                s.size[IN_TABLE] += 1
