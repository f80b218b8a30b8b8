"""The kernel of agglomeration: contract a graph of regions, best edge first.

Regions live in slots; a merge empties the slot with fewer edges into the other, so an edge moves at most log2(N)
times. A slot's *name* is the rank of its smallest fragment id, whatever slot survives. Every live edge waits in a
queue under a score that bounds its true one from above (pooling never raises a score): an edge pooled since it
was queued is *stale*, and is scored again when it comes up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError

MEAN, MAX, QUANTILE = 0, 1, 2


class State(NamedTuple):
    """Arrays of the kernel. Regions live in slots; a slot's name is the rank of its smallest fragment id."""

    u: NDArray[np.int32]  # [E] slots an edge joins
    v: NDArray[np.int32]
    num: NDArray[np.int64]  # [E] pooled statistic: total or peak
    den: NDArray[np.int64]  # [E] pooled count (max: 1)
    histogram: NDArray[np.int64]  # [E, bins] or [0, 1]
    score_num: NDArray[np.int64]  # [E] score when the edge was last queued, exact ...
    score_den: NDArray[np.int64]
    score: NDArray[np.float64]  # ... and as float
    stale: NDArray[np.bool_]  # [E] pooled since: `score` is only an upper bound
    alive: NDArray[np.bool_]
    name: NDArray[np.int32]  # [N]
    degree: NDArray[np.int32]  # [N]
    head: NDArray[np.int32]  # [N] first half-edge of a slot; half-edge 2e is the u end of e, 2e + 1 its v end
    after: NDArray[np.int32]  # [2E] doubly linked lists of half-edges
    before: NDArray[np.int32]
    keys: NDArray[np.int64]  # [T] hash of slot pairs -> edge
    values: NDArray[np.int32]
    heap: NDArray[np.int32]  # [E] queued edges, best score first
    level: NDArray[np.int32]  # [E] edges of the current best score, smallest names first
    rank: NDArray[np.int64]  # [E] (smaller name, larger name) of an edge in `level`
    place: NDArray[np.int32]  # [E] position in `level`, -1 outside
    size: NDArray[np.int64]  # sizes of heap and level


def new_state(
    u: NDArray[np.int32],
    v: NDArray[np.int32],
    num: NDArray[np.int64],
    den: NDArray[np.int64],
    histogram: NDArray[np.int64],
    regions: int,
) -> State:
    """Return the state before the first merge: edges (u, v) between region ranks, u < v; takes over the arrays."""
    edges = len(u)
    if edges >= 2**30:
        raise InputError(f"{edges} edges are too many for one graph: agglomerate in chunks")
    table = 1 << max(3, int(2 * edges).bit_length())
    return State(
        u=u,
        v=v,
        num=num,
        den=den,
        histogram=histogram,
        score_num=np.zeros(edges, np.int64),
        score_den=np.ones(edges, np.int64),
        score=np.zeros(edges),
        stale=np.zeros(edges, np.bool_),
        alive=np.ones(edges, np.bool_),
        name=np.arange(regions, dtype=np.int32),
        degree=np.zeros(regions, np.int32),
        head=np.full(regions, -1, np.int32),
        after=np.full(2 * edges, -1, np.int32),
        before=np.full(2 * edges, -1, np.int32),
        keys=np.full(table, -1, np.int64),
        values=np.zeros(table, np.int32),
        heap=np.zeros(edges, np.int32),
        level=np.zeros(edges, np.int32),
        rank=np.zeros(edges, np.int64),
        place=np.full(edges, -1, np.int32),
        size=np.zeros(2, np.int64),
    )


@njit(cache=True, nogil=True)
def run(s, rule, floor):  # type: ignore[no-untyped-def]
    """Merge until the best score is below floor; return the number of merges and their log."""
    most = max(len(s.name) - 1, 0)
    log_num, log_den = np.zeros(most, np.int64), np.ones(most, np.int64)
    log_a, log_b = np.zeros(most, np.int32), np.zeros(most, np.int32)
    merges = 0
    for e in range(len(s.u)):
        _link(s, 2 * e, s.u[e])
        _link(s, 2 * e + 1, s.v[e])
        _table_set(s, s.u[e], s.v[e], e)
        _rescore(s, rule, e)
        _heap_push(s, e)
    while True:
        best = _gather_level(s, rule, floor)
        if best < 0:
            return merges, log_num, log_den, log_a, log_b
        num, den = s.score_num[best], s.score_den[best]
        while s.size[1] > 0:
            e = _level_pop(s)
            if not s.alive[e]:
                continue
            if s.stale[e]:
                _rescore(s, rule, e)
                if _compare(s.score_num[e], s.score_den[e], num, den) != 0:
                    _heap_push(s, e)
                    continue
            a, b = s.name[s.u[e]], s.name[s.v[e]]
            log_num[merges], log_den[merges] = s.score_num[e], s.score_den[e]
            log_a[merges], log_b[merges] = min(a, b), max(a, b)
            merges += 1
            _contract(s, rule, e)


@njit(cache=True, nogil=True)
def _gather_level(s, rule, floor):  # type: ignore[no-untyped-def]
    """Move all edges of the best score from the heap to the level; return one of them, or -1."""
    best = -1
    while s.size[0] > 0:
        e = s.heap[0]
        if s.score[e] < floor and best < 0:
            return -1
        if best >= 0 and _compare_edges(s, e, best) != 0:
            return best
        _heap_pop(s)
        if not s.alive[e]:
            continue
        if s.stale[e]:
            _rescore(s, rule, e)
            _heap_push(s, e)
            continue
        _level_push(s, e)
        best = e
    return best


@njit(cache=True, nogil=True)
def _contract(s, rule, e):  # type: ignore[no-untyped-def]
    """Merge the two regions of an edge: move the edges of the one with fewer edges to the other."""
    small, large = s.u[e], s.v[e]
    _table_delete(s, small, large)
    _kill(s, e)
    if s.degree[small] > s.degree[large]:
        small, large = large, small
    large_renamed = s.name[small] < s.name[large]
    s.name[large] = min(s.name[small], s.name[large])
    half = s.head[small]
    while half >= 0:
        following = s.after[half]
        f = half >> 1
        other = s.v[f] if half & 1 == 0 else s.u[f]
        _table_delete(s, small, other)
        g = _table_find(s, large, other)
        if g >= 0 and _compare_edges(s, f, g) <= 0:
            _pool(s, rule, f, g)
            _unlink(s, half ^ 1, other)
            s.alive[f] = False
        else:
            if g >= 0:
                _pool(s, rule, g, f)
                _kill(s, g)
            if half & 1 == 0:
                s.u[f] = large
            else:
                s.v[f] = large
            _link(s, half, large)
            _table_set(s, large, other, f)
            _level_update(s, f)
        half = following
    if large_renamed and s.size[1] > 0:
        half = s.head[large]
        while half >= 0:
            _level_update(s, half >> 1)
            half = s.after[half]


@njit(cache=True, nogil=True)
def _pool(s, rule, source, target):  # type: ignore[no-untyped-def]
    if rule[0] == MAX:
        s.num[target] = max(s.num[target], s.num[source])
    else:
        s.num[target] += s.num[source]
        s.den[target] += s.den[source]
    if rule[0] == QUANTILE:
        for k in range(s.histogram.shape[1]):
            s.histogram[target, k] += s.histogram[source, k]
    s.stale[target] = True


@njit(cache=True, nogil=True)
def _rescore(s, rule, e):  # type: ignore[no-untyped-def]
    num, den = s.num[e], s.den[e]
    if rule[0] == QUANTILE:
        bins = s.histogram.shape[1]
        # The rank in two steps: Q * n would overflow for very large contacts.
        rank = den // 100 * rule[1] + den % 100 * rule[1] // 100 + 1
        k, below = 0, s.histogram[e, 0]
        while below < rank and k < bins - 1:
            k += 1
            below += s.histogram[e, k]
        # Twice the middle of the bin's values.
        num, den = (2 * k + 1) * (256 // bins) - 1, 1
    s.score_num[e], s.score_den[e] = num, den
    s.score[e] = num / den
    s.stale[e] = False


@njit(cache=True, nogil=True)
def _compare(a, b, c, d):  # type: ignore[no-untyped-def]
    """Return the sign of a / b - c / d, for a, c >= 0 and b, d > 0: continued fractions cannot overflow."""
    sign = 1
    while True:
        p, q = a // b, c // d
        if p != q:
            return sign if p > q else -sign
        a, c = a - p * b, c - q * d
        if a == 0 or c == 0:
            return 0 if a == c else (sign if a > 0 else -sign)
        a, b, c, d = b, a, d, c
        sign = -sign


@njit(cache=True, nogil=True)
def _compare_edges(s, e, f):  # type: ignore[no-untyped-def]
    if s.score[e] != s.score[f]:
        return 1 if s.score[e] > s.score[f] else -1
    if s.score_num[e] == s.score_num[f] and s.score_den[e] == s.score_den[f]:
        return 0
    return _compare(s.score_num[e], s.score_den[e], s.score_num[f], s.score_den[f])


@njit(cache=True, nogil=True)
def _link(s, half, slot):  # type: ignore[no-untyped-def]
    s.before[half] = -1
    s.after[half] = s.head[slot]
    if s.head[slot] >= 0:
        s.before[s.head[slot]] = half
    s.head[slot] = half
    s.degree[slot] += 1


@njit(cache=True, nogil=True)
def _unlink(s, half, slot):  # type: ignore[no-untyped-def]
    if s.before[half] >= 0:
        s.after[s.before[half]] = s.after[half]
    else:
        s.head[slot] = s.after[half]
    if s.after[half] >= 0:
        s.before[s.after[half]] = s.before[half]
    s.degree[slot] -= 1


@njit(cache=True, nogil=True)
def _kill(s, e):  # type: ignore[no-untyped-def]
    _unlink(s, 2 * e, s.u[e])
    _unlink(s, 2 * e + 1, s.v[e])
    s.alive[e] = False


@njit(cache=True, nogil=True)
def _table_key(a, b):  # type: ignore[no-untyped-def]
    return (np.int64(min(a, b)) << 32) | np.int64(max(a, b))


@njit(cache=True, nogil=True)
def _table_home(s, key):  # type: ignore[no-untyped-def]
    mixed = key * np.int64(-7046029254386353131)
    return (mixed ^ (mixed >> 32)) & (len(s.keys) - 1)


@njit(cache=True, nogil=True)
def _table_place(s, a, b):  # type: ignore[no-untyped-def]
    """Return where the pair is stored, or the empty place where it would go (linear probing)."""
    key = _table_key(a, b)
    place = _table_home(s, key)
    while s.keys[place] != key and s.keys[place] != -1:
        place = (place + 1) & (len(s.keys) - 1)
    return place


@njit(cache=True, nogil=True)
def _table_find(s, a, b):  # type: ignore[no-untyped-def]
    place = _table_place(s, a, b)
    return -1 if s.keys[place] == -1 else np.int64(s.values[place])


@njit(cache=True, nogil=True)
def _table_set(s, a, b, e):  # type: ignore[no-untyped-def]
    place = _table_place(s, a, b)
    s.keys[place] = _table_key(a, b)
    s.values[place] = e


@njit(cache=True, nogil=True)
def _table_delete(s, a, b):  # type: ignore[no-untyped-def]
    """Remove a pair and close the gap, so that the table never fills with the dead."""
    mask = len(s.keys) - 1
    gap = _table_place(s, a, b)
    s.keys[gap] = -1
    place = (gap + 1) & mask
    while s.keys[place] != -1:
        if (place - _table_home(s, s.keys[place])) & mask >= (place - gap) & mask:
            s.keys[gap], s.values[gap] = s.keys[place], s.values[place]
            s.keys[place] = -1
            gap = place
        place = (place + 1) & mask


@njit(cache=True, nogil=True)
def _heap_push(s, e):  # type: ignore[no-untyped-def]
    i = s.size[0]
    s.size[0] += 1
    while i > 0:
        parent = (i - 1) >> 1
        if _compare_edges(s, e, s.heap[parent]) <= 0:
            break
        s.heap[i] = s.heap[parent]
        i = parent
    s.heap[i] = e


@njit(cache=True, nogil=True)
def _heap_pop(s):  # type: ignore[no-untyped-def]
    s.size[0] -= 1
    size = s.size[0]
    e = s.heap[size]
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and _compare_edges(s, s.heap[child + 1], s.heap[child]) > 0:
            child += 1
        if _compare_edges(s, e, s.heap[child]) >= 0:
            break
        s.heap[i] = s.heap[child]
        i = child
    s.heap[i] = e


@njit(cache=True, nogil=True)
def _level_push(s, e):  # type: ignore[no-untyped-def]
    s.rank[e] = _table_key(s.name[s.u[e]], s.name[s.v[e]])
    s.place[e] = s.size[1]
    s.size[1] += 1
    _level_rise(s, e)


@njit(cache=True, nogil=True)
def _level_update(s, e):  # type: ignore[no-untyped-def]
    """Names only ever fall, so a renamed edge can only move forward."""
    if s.place[e] >= 0:
        s.rank[e] = _table_key(s.name[s.u[e]], s.name[s.v[e]])
        _level_rise(s, e)


@njit(cache=True, nogil=True)
def _level_rise(s, e):  # type: ignore[no-untyped-def]
    i = s.place[e]
    while i > 0:
        parent = (i - 1) >> 1
        if s.rank[e] >= s.rank[s.level[parent]]:
            break
        s.level[i] = s.level[parent]
        s.place[s.level[i]] = i
        i = parent
    s.level[i] = e
    s.place[e] = i


@njit(cache=True, nogil=True)
def _level_pop(s):  # type: ignore[no-untyped-def]
    top = s.level[0]
    s.place[top] = -1
    s.size[1] -= 1
    size = s.size[1]
    if size > 0:
        e = s.level[size]
        i = 0
        while 2 * i + 1 < size:
            child = 2 * i + 1
            if child + 1 < size and s.rank[s.level[child + 1]] < s.rank[s.level[child]]:
                child += 1
            if s.rank[e] <= s.rank[s.level[child]]:
                break
            s.level[i] = s.level[child]
            s.place[s.level[i]] = i
            i = child
        s.level[i] = e
        s.place[e] = i
    return top
