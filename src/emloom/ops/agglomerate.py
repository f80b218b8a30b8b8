"""Agglomeration: merge the best-scored pair of touching regions, pool their edges, repeat.

The score of an edge is a statistic of all affinities between the two regions, kept as an exact ratio of integers:

* ``mean``: total / n;
* ``max``: the largest;
* ``quantile``: the value of rank ``floor(Q n / 100) + 1`` from below, in the pooled histogram (the rule of waterz:
  Funke et al., TPAMI 2019, doi:10.1109/TPAMI.2018.2835450).

All three are *reducible*: score(A + B, C) <= max(score(A, C), score(B, C)), so scores never rise along the way.
Together with a total order (score downwards, then smaller id, then larger id; a merged region keeps the smaller
id) this makes the result a function of the graph alone, and one run gives every threshold's segmentation::

    merge tree   0.98  a+b          lut(0.9): a b | c d | e        lut(0.5): a b c d | e
                 0.95  c+d          every lut merges what any higher threshold merges
                 0.61  a+c          and a segment's id is its smallest fragment id

The kernel works level by level: it takes all edges of exactly the best score, then settles their order. That also
lets a graph be agglomerated in parts, with the same result: `agglomerate_part` makes the merges that hold whatever
the rest of the graph is, and returns what is left; `emloom.ops.octree` puts the parts together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops.merging import MAX, MEAN, QUANTILE, new_state, run
from emloom.ops.queues import compare
from emloom.ops.regions import RegionGraph, merge_graphs

Linkage = Literal["mean", "quantile", "max"]
_MODES: dict[str, int] = {"mean": MEAN, "max": MAX, "quantile": QUANTILE}


@dataclass(frozen=True, slots=True, eq=False)
class MergeTree:
    """All merges, best first; those of one score by `a` downwards, then by `b` upwards.

    That order is a function of the merges alone, so trees found in parts can be joined. Read from the top it makes
    sense: what merged into a region comes before the merge in which the region ends, for it ends in a smaller one.

    Attributes:
        score_num: int64 [M], score numerator.
        score_den: int64 [M], score denominator; the score, in [0, 1], is the exact ratio, in lowest terms.
        a: uint64 [M], id of the region that goes on (the smaller).
        b: uint64 [M], id of the region that ends here.
        floor: merges below this score were not computed.
    """

    score_num: NDArray[np.int64]
    score_den: NDArray[np.int64]
    a: NDArray[np.uint64]
    b: NDArray[np.uint64]
    floor: float = 0.0

    @property
    def scores(self) -> NDArray[np.float64]:
        """Scores in [0, 1], never rising."""
        return self.score_num / self.score_den

    def __len__(self) -> int:
        return len(self.a)

    def count(self, threshold: float) -> int:
        """Return how many merges score at least `threshold` (decided exactly, on the decimal as written)."""
        if not self.floor <= threshold <= 1:
            raise InputError(f"threshold {threshold} is outside [{self.floor}, 1], where this tree was computed")
        bar = _exact(threshold)
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if _reaches(int(self.score_num[middle]), int(self.score_den[middle]), bar):
                low = middle + 1
            else:
                high = middle
        return low

    def table(self, threshold: float, after: float | None = None) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the fragment ids (ascending) that change at `threshold`, and their segments.

        A segment's id is its smallest fragment id, so that fragment, and any without merges, keeps its id and is
        not listed. `ops.labels.apply_lut(fragments, *tree.table(t))` is the segmentation.

        Args:
            threshold: merge what scores at least this, in [floor, 1].
            after: a higher threshold: list what changes between the segmentation there and the one at `threshold`;
                ids are then segments of the former.
        """
        merges = slice(0 if after is None else self.count(after), self.count(threshold))
        # Every region ends at most once, so `b` has no duplicates.
        order = np.argsort(self.b[merges])
        ended = self.b[merges][order]
        return ended, _resolve(self.a[merges], order, _positions(ended, self.a[merges]))

    def lut(self, ids: NDArray[Any], threshold: float) -> NDArray[np.uint64]:
        """Return the segment of each fragment id at `threshold`: the smallest fragment id of the segment.

        Args:
            ids: fragment ids, any shape; ids the tree does not know are segments of their own.
            threshold: merge what scores at least this, in [floor, 1].
        """
        ended, segments = self.table(threshold)
        ids = np.asarray(ids, dtype=np.uint64)
        if not len(ended):
            return ids.copy()
        place = _positions(ended, ids)
        return np.where(place < 0, ids, segments[place])


def agglomerate(
    graph: RegionGraph, *, linkage: Linkage = "mean", quantile: int = 50, threshold: float = 0.0
) -> MergeTree:
    """Merge regions greedily, best score first, down to `threshold`.

    O((E + M) log E) with small-to-large pooling, M the edges moved; about 100 bytes per edge (quantile: also
    a copy of the histogram).

    Args:
        graph: region graph; edges without a contact (`contacts == 0`) are ignored.
        linkage: the score; see the module.
        quantile: percentage, 0 .. 99, of the quantile linkage.
        threshold: stop where the best score falls below this, in [0, 1].

    Raises:
        InputError: an argument is out of range, or the quantile linkage lacks a histogram.
    """
    _check(graph, linkage, quantile, threshold)
    if not graph.contacts.all():
        graph = graph.take(graph.contacts > 0)
    return _contract(graph, np.zeros(0, np.uint64), (linkage, quantile), threshold)[0]


def agglomerate_part(
    graph: RegionGraph,
    frozen_ids: NDArray[np.uint64],
    *,
    linkage: Linkage = "mean",
    quantile: int = 50,
    threshold: float = 0.0,
) -> tuple[MergeTree, RegionGraph]:
    """Make the merges of the whole graph that a part of it determines, and return what is left.

    The part must hold every edge, with all its voxel pairs, of the regions that are not frozen. The residual holds
    the edges between regions frozen in the end (`emloom.ops.freezing`). The others are dropped: a region that is
    not frozen has only edges below the threshold left, all of them are here, and no pooling raises a score, so it
    takes part in no further merge. Law, where the regions that p and q share are frozen in both::

        tree_p, left_p = agglomerate_part(p, shared)
        tree_q, left_q = agglomerate_part(q, shared)
        rest = agglomerate(merge_graphs([left_p, left_q]))
        join_trees([tree_p, tree_q, rest]) == agglomerate(merge_graphs([p, q]))

    Args:
        graph: edges of face contacts only (built without `long_range`).
        frozen_ids: fragment ids that must not merge, in any order; those the graph does not have are ignored.
        linkage: the score; see the module.
        quantile: percentage, 0 .. 99, of the quantile linkage.
        threshold: stop where the best score falls below this, in [0, 1]; the same for all parts.

    Returns:
        The merges, and the residual graph: pooled edges between regions, named by their smallest fragment id.

    Raises:
        InputError: an argument is out of range, the quantile linkage lacks a histogram, or an edge pools
            affinities across a gap (a part cannot know all of those).
    """
    _check(graph, linkage, quantile, threshold)
    far = np.flatnonzero(graph.contacts != graph.n)
    if len(far):
        edge = f"edge ({graph.u[far[0]]}, {graph.v[far[0]]})"
        raise InputError(
            f"{edge} pools {graph.n[far[0]]} affinities, {graph.contacts[far[0]]} of them of face neighbours:"
            " parts need region graphs built with long_range=False"
        )
    tree, frozen = _contract(graph, np.asarray(frozen_ids, np.uint64), (linkage, quantile), threshold)
    u, v = (tree.lut(end, threshold) for end in (graph.u, graph.v))
    left = np.flatnonzero((u != v) & np.isin(u, frozen) & np.isin(v, frozen))
    u, v = u[left], v[left]
    rest = replace(graph.take(left), u=np.minimum(u, v), v=np.maximum(u, v))
    return tree, merge_graphs([rest])


def join_trees(trees: Sequence[MergeTree]) -> MergeTree:
    """Return the tree of all merges of these trees, in the order of `MergeTree`, whoever found them.

    Raises:
        InputError: there is no tree, they were computed down to different thresholds, or a region ends in two.
    """
    floors = sorted({tree.floor for tree in trees})
    if len(floors) != 1:
        raise InputError(f"trees have the thresholds {floors}: join one tree or more of one threshold")
    num, den, a, b = (
        np.concatenate([getattr(tree, name) for tree in trees]) for name in ("score_num", "score_den", "a", "b")
    )
    ended, times = np.unique(b, return_counts=True)
    if np.any(times > 1):
        raise InputError(
            f"region {ended[times > 1][0]} ends in two merges: freeze the regions that parts share in each of them"
        )
    order = canonical_order(num, den, a, b)
    return MergeTree(num[order], den[order], a[order], b[order], floors[0])


def _check(graph: RegionGraph, linkage: str, quantile: int, threshold: float) -> None:
    if linkage not in _MODES:
        raise InputError(f"linkage {linkage!r} is unknown: use 'mean', 'quantile' or 'max'")
    if linkage == "quantile" and not graph.bins:
        raise InputError("the quantile linkage needs histograms: build the region graph with bins=256")
    if not 0 <= quantile <= 99:
        raise InputError(f"quantile {quantile} is outside 0 .. 99 percent")
    if not 0 <= threshold <= 1:
        raise InputError(f"agglomeration threshold {threshold} is outside [0, 1]")


def _contract(
    graph: RegionGraph, frozen_ids: NDArray[np.uint64], rule: tuple[Linkage, int], threshold: float
) -> tuple[MergeTree, NDArray[np.uint64]]:
    """Run the kernel; return the tree and the ids of the regions frozen in the end."""
    mode = _MODES[rule[0]]
    ids = np.unique(np.concatenate([graph.u, graph.v]))
    u = np.searchsorted(ids, graph.u).astype(np.int32)
    v = np.searchsorted(ids, graph.v).astype(np.int32)
    num = graph.peak if mode == MAX else graph.total
    den = np.ones_like(num) if mode == MAX else graph.n
    histogram = graph.histogram if mode == QUANTILE else None
    histogram = np.zeros((0, 1), np.int64) if histogram is None else histogram.copy()
    numbers = np.array([mode, rule[1]], np.int64)
    state = new_state((u, v), num, den, histogram, len(ids), numbers)
    del u, v, histogram  # the state holds them
    frozen = np.isin(ids, frozen_ids).astype(np.uint8)
    frozen = frozen if frozen.any() else frozen[:0]
    # The kernel counts in units of 1/255; a quantile in halves of that, for the middles of its bins.
    unit = 2 * 255 if mode == QUANTILE else 255
    # A little below the threshold here; the exact cut follows, in integers. What freezes in between does no harm:
    # it leaves edges below the threshold in the residual.
    merges, scores, names = run(state, numbers, threshold * unit - 1e-6, frozen)
    num, den = scores[:merges, 0], scores[:merges, 1] * unit
    a, b = (ids[names[:merges, end]] for end in (0, 1))
    order = canonical_order(num, den, a, b)
    order = order[: MergeTree(num[order], den[order], a[order], b[order]).count(threshold)]
    # In lowest terms: of several equal ratios, the kernel logs that of the edge it saw first.
    shared = np.gcd(num, den)
    tree = MergeTree((num // shared)[order], (den // shared)[order], a[order], b[order], float(threshold))
    return tree, np.sort(ids[state.name[np.flatnonzero(frozen)]])


def canonical_order(
    num: NDArray[np.int64], den: NDArray[np.int64], a: NDArray[np.uint64], b: NDArray[np.uint64]
) -> NDArray[np.intp]:
    """Return the order of merges: score downwards, exactly; then `a` downwards; then `b` upwards."""
    return ratio_order(num, den, (~a, b))


def ratio_order(num: NDArray[np.int64], den: NDArray[np.int64], ties: Sequence[NDArray[Any]]) -> NDArray[np.intp]:
    """Return the order of ratios, downwards, exactly; equal ones go by the first of `ties`, upwards, and so on."""
    order = np.lexsort((*reversed(ties), -(num / den)))
    for start, stop in _blurred_runs(num[order], den[order]):
        rows = order[start:stop].tolist()
        rows.sort(key=lambda row: Fraction(-int(num[row]), int(den[row])))
        order[start:stop] = rows
    return order


@njit(cache=True, nogil=True, error_model="numpy")
def _blurred_runs(num, den):  # type: ignore[no-untyped-def]
    """Return (start, stop) of the runs of scores that differ, but not as doubles."""
    runs = [(0, 0) for _ in range(0)]
    start, blurred = 0, False
    for i in range(1, len(num) + 1):
        if i < len(num) and num[i] / den[i] == num[start] / den[start]:
            blurred |= compare(num[i], den[i], num[start], den[start]) != 0
            continue
        if blurred:
            runs.append((start, i))
        start, blurred = i, False
    return runs


def _exact(threshold: float) -> Fraction:
    """Return the decimal a person wrote: 0.57 means 57/100, not the nearest binary fraction."""
    return Fraction(repr(float(threshold)))


def _reaches(num: int, den: int, bar: Fraction) -> bool:
    return num * bar.denominator >= bar.numerator * den


def _positions(keys: NDArray[np.uint64], ids: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Return where each id stands in the ascending keys, -1 where it does not."""
    if not len(keys):
        return np.full(ids.shape, -1, np.intp)
    place = np.minimum(np.searchsorted(keys, ids), len(keys) - 1)
    return np.where(keys[place] == ids, place, -1)


@njit(cache=True, nogil=True)
def _resolve(a, order, onward):  # type: ignore[no-untyped-def]
    """Follow each ended region to its last name; a region ends after everything that ended in it."""
    row = np.empty(len(order), np.int64)
    for place in range(len(order)):
        row[order[place]] = place
    segment = np.empty(len(order), a.dtype)
    for merge in range(len(order) - 1, -1, -1):
        segment[row[merge]] = a[merge] if onward[merge] < 0 else segment[onward[merge]]
    return segment
