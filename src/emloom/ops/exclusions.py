"""Sets of nodes that merge, and pairs of sets that must not: union-find with mutual exclusions.

The bookkeeping of the mutex watershed (Wolf et al., TPAMI 2020, doi:10.1109/TPAMI.2020.2980827). Nodes are
numbered from 0; a set is named by its root. Excluded pairs of roots stand in a hash table, to be looked up, and in
a list per set, to be carried over when sets merge: the shorter list moves, so an exclusion moves at most log2(N)
times. A list names nodes that may have merged since; who reads it asks for their root::

    exclude(1, 4)   exclude(2, 4)   unite(1, 2):   set {1, 2}: [4]      set {4}: [1, 2]      both are the same pair
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

PARENT, HEAD, TAIL, LENGTH = range(4)  # columns of Exclusions.nodes
PARTNER, ONWARD = 0, 1  # columns of Exclusions.entries
KEYS, ENTRIES = 0, 1  # places in Exclusions.used
_LEAST = 1024


class Exclusions(NamedTuple):
    """Arrays of the sets; entries and table are replaced when they are full."""

    nodes: NDArray[np.int32]  # [N, 4]: next node towards the root, -1 at a root; first and last entry; entries
    entries: NDArray[np.int32]  # [M, 2]: node of an excluded set; next entry in the list, -1 at its end
    table: NDArray[
        np.int64
    ]  # [T] excluded pairs of roots, 0 where free; pairs of former roots stay until swept out
    used: NDArray[np.int64]  # [2] keys in the table, entries of lists


@njit(cache=True, nogil=True)
def new_exclusions(nodes):  # type: ignore[no-untyped-def]
    """Return so many sets of one node each, none excluded."""
    start = np.full((nodes, 4), -1, np.int32)
    start[:, LENGTH] = 0
    return Exclusions(
        start, np.empty((_LEAST, 2), np.int32), np.zeros(2 * _LEAST, np.int64), np.zeros(2, np.int64)
    )


@njit(cache=True, nogil=True)
def root_of(parent, node):  # type: ignore[no-untyped-def]
    """Return the root of a node's set, and halve the path to it; negative parents mark roots."""
    up = parent[node]
    while up >= 0:
        above = parent[up]
        if above < 0:
            return np.int64(up)
        parent[node] = above
        node = np.int64(above)
        up = parent[node]
    return np.int64(node)


@njit(cache=True, nogil=True)
def excluded(table, a, b):  # type: ignore[no-untyped-def]
    """Whether the sets of two different roots must not merge, by `Exclusions.table`."""
    return table[_place(table, _key(a, b))] != 0


@njit(cache=True, nogil=True)
def exclude(e, a, b):  # type: ignore[no-untyped-def]
    """Keep the sets of two different roots apart; return the state, perhaps with larger arrays."""
    if 2 * (e.used[KEYS] + 1) > len(e.table):
        e = _swept(e)
    if e.used[ENTRIES] + 2 > len(e.entries):
        e = _lengthened(e)
    if _note(e, a, b):
        first = e.used[ENTRIES]
        e.used[ENTRIES] += 2
        e.entries[first, PARTNER], e.entries[first + 1, PARTNER] = b, a
        _append(e, a, first)
        _append(e, b, first + 1)
    return e


@njit(cache=True, nogil=True)
def unite(e, a, b):  # type: ignore[no-untyped-def]
    """Merge the sets of two different roots that are not excluded; return the state and the root that goes on."""
    if e.nodes[a, LENGTH] < e.nodes[b, LENGTH]:
        a, b = b, a
    e.nodes[b, PARENT] = a
    entry = np.int64(e.nodes[b, HEAD])
    while entry >= 0:
        onward = np.int64(e.entries[entry, ONWARD])
        if 2 * (e.used[KEYS] + 1) > len(e.table):
            e = _swept(e)
        # The partner's own entry still names b, whose root is a now.
        if _note(e, a, root_of(e.nodes[:, PARENT], np.int64(e.entries[entry, PARTNER]))):
            _append(e, a, entry)
        entry = onward
    return e, a


@njit(cache=True, nogil=True)
def _key(a, b):  # type: ignore[no-untyped-def]
    return (np.int64(min(a, b)) << 32) | np.int64(max(a, b))  # never 0: the larger is at least 1


@njit(cache=True, nogil=True)
def _place(table, key):  # type: ignore[no-untyped-def]
    """Return where a key stands, or the free place where it belongs (linear probing)."""
    mask = len(table) - 1
    mixed = key * np.int64(-7046029254386353131)
    place = (mixed ^ (mixed >> np.int64(32))) & mask
    while table[place] != 0 and table[place] != key:
        place = (place + 1) & mask
    return place


@njit(cache=True, nogil=True)
def _note(e, a, b):  # type: ignore[no-untyped-def]
    """Put a pair into the table, which has room; return whether it is new."""
    key = _key(a, b)
    place = _place(e.table, key)
    if e.table[place] != 0:
        return False
    e.table[place] = key
    e.used[KEYS] += 1
    return True


@njit(cache=True, nogil=True)
def _append(e, a, entry):  # type: ignore[no-untyped-def]
    e.entries[entry, ONWARD] = -1
    if e.nodes[a, HEAD] < 0:
        e.nodes[a, HEAD] = entry
    else:
        e.entries[e.nodes[a, TAIL], ONWARD] = entry
    e.nodes[a, TAIL] = entry
    e.nodes[a, LENGTH] += 1


@njit(cache=True, nogil=True)
def _lives(e, key):  # type: ignore[no-untyped-def]
    return key != 0 and e.nodes[key >> 32, PARENT] < 0 and e.nodes[key & 0xFFFFFFFF, PARENT] < 0


@njit(cache=True, nogil=True)
def _swept(e):  # type: ignore[no-untyped-def]
    """Drop pairs of former roots, and double the table if more than a quarter of it stays."""
    live = 0
    for key in e.table:
        live += _lives(e, key)
    size = len(e.table)
    while 4 * (live + 1) > size:
        size *= 2
    table = np.zeros(size, np.int64)
    for key in e.table:
        if _lives(e, key):
            table[_place(table, key)] = key
    e.used[KEYS] = live
    return Exclusions(e.nodes, e.entries, table, e.used)


@njit(cache=True, nogil=True)
def _lengthened(e):  # type: ignore[no-untyped-def]
    entries = np.empty((2 * len(e.entries), 2), np.int32)
    entries[: len(e.entries)] = e.entries
    return Exclusions(e.nodes, entries, e.table, e.used)
