"""The mutex watershed of a region graph: mean near affinities merge fragments, mean long ones forbid it.

Edges are pairs of fragments; the algorithm is that of Wolf et al., TPAMI 2020 (arXiv:1904.12654,
doi:10.1109/TPAMI.2020.2980827), on graphs. Two fragments attract with the mean affinity of their face contacts,
and repel with 255 - the mean of the long affinities between them. Both are ratios of integers, summed over voxel
pairs, so graphs of disjoint sets of pairs add up to that of the whole, and the order of edges is exact::

    attraction, repulsion = mutex_statistics(...) of each block, each kind added up by `merge_graphs`
    tree = mutex_tree(attraction, repulsion)
    tree.lut(ids, 0.5)                          the watershed, stopped at attractions below 0.5

Merges happen by falling attraction, so the first of them are what an earlier stop would have made: one tree
answers for every threshold, as in `emloom.ops.agglomerate`. Of equal weights, attraction comes first, then (u, v)
upwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.ops.agglomerate import MergeTree, canonical_order, ratio_order
from emloom.ops.exclusions import PARENT, exclude, excluded, new_exclusions, root_of, unite
from emloom.ops.regions import RegionGraph, region_graph


def mutex_statistics(
    fragments_ZYX: NDArray[Any],
    affinities_CZYX: NDArray[np.uint8],
    neighborhood: Sequence[Sequence[int]],
    *,
    owned: Box | None = None,
) -> tuple[RegionGraph, RegionGraph]:
    """Pool near and long affinities between fragments apart.

    Args:
        fragments_ZYX: fragment ids, any unsigned integer below 2^63; 0 is background and has no edges.
        affinities_CZYX: uint8 [C, Z, Y, X]; channel c at p is about the pair (p, p + neighborhood[c]).
        neighborhood: offset (z, y, x) of each channel; both face neighbours and longer ones are needed.
        owned: voxels p, in array coordinates, whose pairs are counted; the array must hold as many voxels around
            them as the longest offset reaches. Default: all.

    Returns:
        The graph of the face contacts, and that of the pairs further apart.

    Raises:
        InputError: an argument breaks these rules; see `emloom.ops.regions.region_graph`.
    """
    near = region_graph(fragments_ZYX, affinities_CZYX, neighborhood, owned=owned)
    far = region_graph(fragments_ZYX, affinities_CZYX, neighborhood, owned=owned, long_range="only")
    return near, far


def mutex_tree(attraction: RegionGraph, repulsion: RegionGraph, *, threshold: float = 0.0) -> MergeTree:
    """Merge fragments by the mutex watershed, best attraction first, down to `threshold`.

    O(E log E) time, about 100 bytes per edge.

    Args:
        attraction: face contacts; an edge weighs ``total / n``, and one of weight 0 does not merge.
        repulsion: pairs further apart; an edge weighs ``255 - total / n``.
        threshold: stop where the best attraction falls below this, in [0, 1].

    Returns:
        The merges, with the attraction that made each as its score.

    Raises:
        InputError: the threshold is out of range.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"mutex threshold {threshold} is outside [0, 1]")
    attraction = attraction.take(attraction.total > 0)
    against = 255 * repulsion.n - repulsion.total
    u, v = (np.concatenate([getattr(attraction, end), getattr(repulsion, end)]) for end in ("u", "v"))
    num, den = np.concatenate([attraction.total, against]), np.concatenate([attraction.n, repulsion.n])
    repels = np.arange(len(u)) >= len(attraction)
    order = ratio_order(num, den, (repels, u, v))
    ids = np.unique(np.concatenate([u, v]))
    ends = np.stack([np.searchsorted(ids, end)[order] for end in (u, v)], axis=1)
    rows, names = _run(ends.astype(np.int64), repels[order], len(ids))
    rows = order[rows]
    a, b = ids[names[:, 0]], ids[names[:, 1]]
    num, den = num[rows], 255 * den[rows]
    shared = np.gcd(num, den)
    num, den = num // shared, den // shared
    order = canonical_order(num, den, a, b)
    whole = MergeTree(num[order], den[order], a[order], b[order])
    kept = whole.count(threshold)
    return MergeTree(
        whole.score_num[:kept], whole.score_den[:kept], whole.a[:kept], whole.b[:kept], float(threshold)
    )


@njit(cache=True, nogil=True)
def _run(ends, repels, regions):  # type: ignore[no-untyped-def]
    """Take edges in order; return the edge of each merge, and the ranks (goes on, ends) of what it joins."""
    sets = new_exclusions(regions)
    parent = sets.nodes[:, PARENT]
    name = np.arange(regions)  # smallest rank in the set of a root
    rows, names = np.empty(regions, np.int64), np.empty((regions, 2), np.int64)
    merges = 0
    for e in range(len(ends)):
        a, b = root_of(parent, ends[e, 0]), root_of(parent, ends[e, 1])
        if a == b or excluded(sets.table, a, b):
            continue
        if repels[e]:
            sets = exclude(sets, a, b)
            continue
        low, high = min(name[a], name[b]), max(name[a], name[b])
        sets, top = unite(sets, a, b)
        name[top] = low
        rows[merges] = e
        names[merges, 0], names[merges, 1] = low, high
        merges += 1
    return rows[:merges], names[:merges]
