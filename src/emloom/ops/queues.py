"""The two queues of agglomeration, and the exact comparison of scores that orders them.

Both hold edge numbers of a `emloom.ops.merging.State`: the *heap* orders edges by score, the *level* orders those
of one and the same score by the names of the regions they join.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# An edge is one row of 64 bytes, so that looking at it costs one cache line.
NUM, DEN = 0, 1  # pooled statistic: total and count (max: peak and 1)
SCORE_NUM, SCORE_DEN = 2, 3  # the exact score under which the edge was last queued
U, V = 4, 5  # the slots it joins
LIFE = 6  # DEAD, FRESH (the queued score is its score) or STALE (only an upper bound)
PLACE = 7  # position in the level, -1 outside
DEAD, FRESH, STALE = 0, 1, 2
QUEUED, IN_HEAP, IN_LEVEL, IN_TABLE = 0, 1, 2, 3  # entries of State.size


@njit(cache=True, nogil=True, error_model="numpy")
def pair(a, b):  # type: ignore[no-untyped-def]
    """Return one integer for the two slots (or names) of an edge, whatever their order."""
    return (np.int64(min(a, b)) << 32) | np.int64(max(a, b))


@njit(cache=True, nogil=True, error_model="numpy")
def compare(a, b, c, d):  # type: ignore[no-untyped-def]
    """Return the sign of a / b - c / d, for a, c >= 0 and b, d > 0.

    Doubles decide where they differ (division rounds monotonically), else continued fractions, which cannot
    overflow as cross multiplication would.
    """
    if a / b != c / d:
        return 1 if a / b > c / d else -1
    sign = 1
    while a != c or b != d:
        p, q = a // b, c // d
        if p != q:
            return sign if p > q else -sign
        a, c = a - p * b, c - q * d
        if a == 0 or c == 0:
            return 0 if a == c else (sign if a > 0 else -sign)
        a, b, c, d = b, a, d, c
        sign = -sign
    return 0


@njit(cache=True, nogil=True, error_model="numpy")
def compare_edges(s, e, f):  # type: ignore[no-untyped-def]
    """Return the sign of the difference of two queued scores."""
    return compare(s.edges[e, SCORE_NUM], s.edges[e, SCORE_DEN], s.edges[f, SCORE_NUM], s.edges[f, SCORE_DEN])


@njit(cache=True, nogil=True, error_model="numpy")
def _heap_wins(s, e, score, f, f_score):  # type: ignore[no-untyped-def]
    return score > f_score or (score == f_score and compare_edges(s, e, f) > 0)


@njit(cache=True, nogil=True, error_model="numpy")
def heap_push(s, e):  # type: ignore[no-untyped-def]
    """Put edge e into the heap of rescored edges, under its queued score."""
    score = s.edges[e, SCORE_NUM] / s.edges[e, SCORE_DEN]
    i = s.size[IN_HEAP]
    s.size[IN_HEAP] += 1
    while i > 0:
        parent = (i - 1) >> 1
        if not _heap_wins(s, e, score, s.heap[parent], s.heap_score[parent]):
            break
        s.heap[i], s.heap_score[i] = s.heap[parent], s.heap_score[parent]
        i = parent
    s.heap[i], s.heap_score[i] = e, score


@njit(cache=True, nogil=True, error_model="numpy")
def heap_pop(s):  # type: ignore[no-untyped-def]
    """Drop the best edge of the heap."""
    s.size[IN_HEAP] -= 1
    size = s.size[IN_HEAP]
    e, score = s.heap[size], s.heap_score[size]
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and _heap_wins(
            s, s.heap[child + 1], s.heap_score[child + 1], s.heap[child], s.heap_score[child]
        ):
            child += 1
        if not _heap_wins(s, s.heap[child], s.heap_score[child], e, score):
            break
        s.heap[i], s.heap_score[i] = s.heap[child], s.heap_score[child]
        i = child
    s.heap[i], s.heap_score[i] = e, score


@njit(cache=True, nogil=True, error_model="numpy")
def _level_rank(s, e):  # type: ignore[no-untyped-def]
    return pair(s.name[s.edges[e, U]], s.name[s.edges[e, V]])


@njit(cache=True, nogil=True, error_model="numpy")
def level_push(s, e):  # type: ignore[no-untyped-def]
    """Put edge e into the level: the edges of exactly the best score, ordered by the names they join."""
    last = s.size[IN_LEVEL]
    s.size[IN_LEVEL] += 1
    _level_rise(s, e, _level_rank(s, e), last)


@njit(cache=True, nogil=True, error_model="numpy")
def level_update(s, e):  # type: ignore[no-untyped-def]
    """Names only ever fall, so a renamed edge can only move forward."""
    if s.edges[e, PLACE] >= 0:
        _level_rise(s, e, _level_rank(s, e), s.edges[e, PLACE])


@njit(cache=True, nogil=True, error_model="numpy")
def _level_rise(s, e, rank, i):  # type: ignore[no-untyped-def]
    while i > 0:
        parent = (i - 1) >> 1
        if rank >= s.rank[parent]:
            break
        _level_place(s, s.level[parent], s.rank[parent], i)
        i = parent
    _level_place(s, e, rank, i)


@njit(cache=True, nogil=True, error_model="numpy")
def _level_place(s, e, rank, i):  # type: ignore[no-untyped-def]
    s.level[i], s.rank[i] = e, rank
    s.edges[e, PLACE] = i


@njit(cache=True, nogil=True, error_model="numpy")
def level_pop(s):  # type: ignore[no-untyped-def]
    """Take the first edge of the level."""
    top = np.int64(s.level[0])
    s.edges[top, PLACE] = -1
    s.size[IN_LEVEL] -= 1
    size = s.size[IN_LEVEL]
    if size == 0:
        return top
    e, rank = s.level[size], s.rank[size]
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and s.rank[child + 1] < s.rank[child]:
            child += 1
        if rank <= s.rank[child]:
            break
        _level_place(s, s.level[child], s.rank[child], i)
        i = child
    _level_place(s, e, rank, i)
    return top
