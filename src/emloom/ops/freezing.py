"""Frozen regions: how a graph that is part of a larger one makes only merges that the whole makes.

A region is *frozen* where it may have edges that this graph does not hold. It does not merge, and neither does a
region whose best edge leads to a frozen one: that edge is better than any other it will ever have, and where it
leads only a larger part can tell. Every other region has all its edges here. Lu, Zlateski & Seung
(arXiv:2106.10795), made exact for equal scores by the closure::

    level of score s      2 ── 3 ── 4 ── [5]      7 ── 8
    5 is frozen           4 waits for it, hence 3, hence 2; 7 and 8 merge

Without it 2 and 3 would merge. But elsewhere a region 1 may touch 5 at score s: by the order of names it takes in
5, 4 and 3 first, and if 1 and 2 touch at a low score, what pools there with the edge of 2 and 3 is below s.

The closure is taken once, when a level begins, and that is enough. Merges of the level only pool edges; a pooled
edge scores at most what its better half did; and no edge above s is left. So an edge that comes to score s has a
half that was in the level already, and joins regions of one component of the level. A component with no frozen
region therefore merges in the order of names that it would follow amid the whole; one with a frozen region waits.
"""

from __future__ import annotations

from numba import njit

from emloom.ops.queues import IN_LEVEL, U, V


@njit(cache=True, nogil=True, error_model="numpy")
def waits(s, e, frozen):  # type: ignore[no-untyped-def]
    """Whether an edge of the level joins frozen regions (both are or neither); it stays, out of the queues."""
    return len(frozen) > 0 and frozen[s.edges[e, U]] != 0


@njit(cache=True, nogil=True, error_model="numpy")
def freeze_level(s, frozen, leader):  # type: ignore[no-untyped-def]
    """Freeze every region that edges of the level join to a frozen one, over however many others.

    `leader`, int32 [N], holds each slot's own number, between calls too; meanwhile a slot of its component.
    """
    count = s.size[IN_LEVEL]
    for i in range(count):
        a, b = _leader(leader, s.edges[s.level[i], U]), _leader(leader, s.edges[s.level[i], V])
        leader[b] = a
        frozen[a] |= frozen[b]
    for i in range(count):
        for end in (U, V):
            slot = s.edges[s.level[i], end]
            frozen[slot] = frozen[_leader(leader, slot)]
    for i in range(count):
        for end in (U, V):
            slot = s.edges[s.level[i], end]
            leader[slot] = slot


@njit(cache=True, nogil=True, error_model="numpy")
def _leader(leader, slot):  # type: ignore[no-untyped-def]
    while leader[slot] != slot:
        leader[slot] = leader[leader[slot]]
        slot = leader[slot]
    return slot
