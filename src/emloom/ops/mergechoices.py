"""Every contact of two fragments belongs to one choice that a segmentation made: to merge there, or not to.

Agglomeration joins regions, one merge after the other, and stops at a threshold. A contact of two fragments that
end in one segment belongs to the merge by which they came together; one of two fragments that end in two segments
belongs to the pair of these::

    tree    0.98  a+b            threshold 0.5:  choice 0  a | b        merged, score 0.98
            0.61  a+c                            choice 1  a b | c      merged, score 0.61, contacts a-c and b-c
    contact a-b b-c a-c c-d                      choice 2  a b c | d    apart, score 0.20, contact c-d

So the choices of a segmentation partition its contacts, and whoever looks at all of them has seen every merge and
every gap. All of a choice but its score are sums of integers, and the score is an exact ratio of two.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.ops.agglomerate import MergeTree
from emloom.ops.regions import RegionGraph

Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]
Statistic = Literal["mean", "quantile", "max"]
Rule = tuple[Statistic, int]

NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Choices:
    """What a segmentation decided, D choices: merges first, best first, then pairs of segments by their ids.

    Attributes:
        merged: bool [D], the two sides are one segment.
        a: uint64 [D], id of one side: of a merge, the region that went on; of a pair, the smaller segment.
        b: uint64 [D], of the other side.
        segment_a: uint64 [D], the segment that side a ends in.
        segment_b: uint64 [D], of side b; the same where merged.
        size_a: int64 [D], voxels of side a when the choice was made.
        size_b: int64 [D], of side b.
        contacts: int64 [D], affinities of face neighbours between the sides.
        against: int64 [D], those of them in contacts of fragments that, alone, would have been chosen otherwise.
        score_num: int64 [D], numerator of the score.
        score_den: int64 [D], denominator; the score is an exact ratio in [0, 1].
        of_edge: int64 [E], the choice that each edge of the graph belongs to; -1 where the edge is no contact, or
            one of its segments was dropped.
    """

    merged: NDArray[np.bool_]
    a: Ids
    b: Ids
    segment_a: Ids
    segment_b: Ids
    size_a: Counts
    size_b: Counts
    contacts: Counts
    against: Counts
    score_num: Counts
    score_den: Counts
    of_edge: Counts

    def __len__(self) -> int:
        return len(self.a)

    @property
    def scores(self) -> NDArray[np.float64]:
        """float64 [D]: affinity between the sides, 0 to 1."""
        return self.score_num / self.score_den

    def pooled(self, values: NDArray[Any]) -> Counts:
        """Return the sum over the edges of each choice of a whole number per edge, int64 [D]."""
        out = np.zeros(len(self), np.int64)
        rows = np.flatnonzero(self.of_edge >= 0)
        np.add.at(out, self.of_edge[rows], np.asarray(values)[rows].astype(np.int64))
        return out


def choices_of(
    graph: RegionGraph,
    tree: MergeTree,
    threshold: float,
    nodes: Mapping[str, NDArray[Any]],
    *,
    rule: Rule = ("mean", 50),
    dropped: Ids | None = None,
) -> Choices:
    """Return the choices that a merge tree makes at a threshold.

    Args:
        graph: the region graph; edges without a contact belong to no choice.
        tree: of the graph.
        threshold: where merging stops.
        nodes: `id` and `size` of every fragment, by id (`ops.nodes`).
        rule: what the score of a pair is, that of the linkage ("mean" for the mutex linkage); and the
            percentage of the statistic "quantile".
        dropped: segments that are background in the end.

    Raises:
        InputError: the tree does not know the threshold.
    """
    ids, sizes = nodes["id"], nodes["size"]
    count = tree.count(threshold)
    a, b = (np.searchsorted(ids, end[:count]) for end in (tree.a, tree.b))
    when, into = np.full(len(ids), NEVER), np.arange(len(ids))
    when[b], into[b] = np.arange(count), a
    size_a, size_b = _sizes(a, b, sizes.astype(np.int64))
    u, v = (np.searchsorted(ids, end) for end in (graph.u, graph.v))
    met = _meetings(u, v, when, into)
    segment = tree.lut(ids, threshold)
    gone = np.zeros(0, np.uint64) if dropped is None else dropped
    kept = ~np.isin(segment, gone)
    met[(graph.contacts == 0) | ~kept[u] | ~kept[v]] = -2
    pair, of_edge = _pairs(segment[u], segment[v], met, count)
    scores = _pair_scores(graph, of_edge - count, len(pair), rule)
    whole = np.zeros(len(ids), np.int64)
    np.add.at(whole, np.searchsorted(ids, segment), sizes.astype(np.int64))
    sides = np.searchsorted(ids, pair)
    merged = np.arange(count + len(pair)) < count
    found = Choices(
        merged,
        np.concatenate([tree.a[:count], pair[:, 0]]),
        np.concatenate([tree.b[:count], pair[:, 1]]),
        np.concatenate([segment[a], pair[:, 0]]),
        np.concatenate([segment[b], pair[:, 1]]),
        np.concatenate([size_a, whole[sides[:, 0]]]),
        np.concatenate([size_b, whole[sides[:, 1]]]),
        contacts=np.zeros(len(merged), np.int64),
        against=np.zeros(len(merged), np.int64),
        score_num=np.concatenate([tree.score_num[:count], scores[:, 0]]),
        score_den=np.concatenate([tree.score_den[:count], scores[:, 1]]),
        of_edge=of_edge,
    )
    own = _edge_scores(graph, rule)
    reaches = own[:, 0] >= np.float64(threshold) * own[:, 1]
    otherwise = graph.contacts * (reaches != merged[np.maximum(of_edge, 0)])
    np.add.at(found.contacts, of_edge[of_edge >= 0], graph.contacts[of_edge >= 0])
    np.add.at(found.against, of_edge[of_edge >= 0], otherwise[of_edge >= 0])
    return _without(found, found.contacts == 0)


def _without(found: Choices, gone: NDArray[np.bool_]) -> Choices:
    """Return the choices without some that have no contact left, as those of dropped segments."""
    if not gone.any():
        return found
    now = np.cumsum(~gone) - 1
    columns = {name: getattr(found, name)[~gone] for name in found.__dataclass_fields__ if name != "of_edge"}
    of_edge = np.where(found.of_edge >= 0, now[np.maximum(found.of_edge, 0)], -1)
    return Choices(**columns, of_edge=of_edge)


def _pairs(first: Ids, second: Ids, met: Counts, count: int) -> tuple[Ids, Counts]:
    """Return the pairs of segments that touch, uint64 [P, 2], and the choice of each edge."""
    of_edge = np.where(met >= 0, met, -1)
    rows = np.flatnonzero(met == -1)
    both = np.stack([np.minimum(first, second)[rows], np.maximum(first, second)[rows]], axis=1)
    pair, inverse = np.unique(both, axis=0, return_inverse=True)
    of_edge[rows] = count + inverse.reshape(-1)
    return pair.reshape(-1, 2), of_edge


def _pair_scores(graph: RegionGraph, pair: Counts, n_pairs: int, rule: Rule) -> Counts:
    """Return numerator and denominator of the score of every pair, pooled over its edges, int64 [P, 2]."""
    rows = np.flatnonzero(pair >= 0)
    rows = rows[np.argsort(pair[rows], kind="stable")]
    if not rows.size:
        return np.ones((n_pairs, 2), np.int64)
    starts = np.searchsorted(pair[rows], np.arange(n_pairs))

    def pooled(column: NDArray[Any], pool: np.ufunc = np.add) -> Counts:
        out: Counts = pool.reduceat(column[rows], starts, axis=0)
        return out

    histogram = pooled(graph.histogram) if graph.histogram is not None and rule[0] == "quantile" else None
    return _scored(pooled(graph.n), pooled(graph.total), pooled(graph.peak, np.maximum), histogram, rule)


def _edge_scores(graph: RegionGraph, rule: Rule) -> Counts:
    return _scored(graph.n, graph.total, graph.peak, graph.histogram, rule)


def _scored(n: Counts, total: Counts, peak: Counts, histogram: Counts | None, rule: Rule) -> Counts:
    """Return numerator and denominator of scores, as `ops.agglomerate` has them, int64 [K, 2]."""
    if rule[0] == "max":
        return np.stack([peak, np.full_like(peak, 255)], axis=1)
    if rule[0] == "quantile" and histogram is not None:
        rank = n // 100 * rule[1] + n % 100 * rule[1] // 100 + 1
        bins = histogram.shape[1]
        reached = np.cumsum(histogram, axis=1) >= rank[:, None]
        place = np.where(reached.any(axis=1), np.argmax(reached, axis=1), bins - 1)
        return np.stack([(2 * place + 1) * (256 // bins) - 1, np.full_like(place, 510)], axis=1)
    return np.stack([total, 255 * np.maximum(n, 1)], axis=1)


@njit(cache=True, nogil=True)
def _sizes(a, b, sizes):  # type: ignore[no-untyped-def]
    """Return the voxels of both sides of every merge, when it was made."""
    now = sizes.copy()
    size_a, size_b = np.zeros(len(a), np.int64), np.zeros(len(a), np.int64)
    for merge in range(len(a)):
        size_a[merge], size_b[merge] = now[a[merge]], now[b[merge]]
        now[a[merge]] += now[b[merge]]
    return size_a, size_b


@njit(cache=True, nogil=True)
def _meetings(u, v, when, into):  # type: ignore[no-untyped-def]
    """Return the merge by which two fragments come together, -1 where they never do.

    A region ends later than all that ended in it, so the one that ends first is followed first.
    """
    met = np.full(len(u), -1, np.int64)
    for edge in range(len(u)):
        left, right = u[edge], v[edge]
        last = np.int64(-1)
        while left != right:
            if when[left] > when[right]:
                left, right = right, left
            if when[left] == NEVER:
                last = np.int64(-1)
                break
            last = when[left]
            left = into[left]
        met[edge] = last
    return met
