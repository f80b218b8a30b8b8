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

The kernel works level by level: it takes all edges of exactly the best score, then settles their order. That is
also what an exact chunked agglomeration needs (Lu, Zlateski & Seung, arXiv:2106.10795).
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops.merging import MAX, MEAN, QUANTILE, new_state, run
from emloom.ops.regions import RegionGraph

Linkage = Literal["mean", "quantile", "max"]
_MODES: dict[str, int] = {"mean": MEAN, "max": MAX, "quantile": QUANTILE}


@dataclass(frozen=True, slots=True, eq=False)
class MergeTree:
    """All merges, best first.

    Attributes:
        score_num: int64 [M], score numerator.
        score_den: int64 [M], score denominator; the score, in [0, 1], is the exact ratio.
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

    def table(self, threshold: float) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        """Return the fragment ids (ascending) that change at `threshold`, and their segments.

        A segment's id is its smallest fragment id, so that fragment, and any without merges, keeps its id and is
        not listed. `ops.labels.apply_lut(fragments, *tree.table(t))` is the segmentation.
        """
        merges = self.count(threshold)
        # Every region ends at most once, so `b` has no duplicates.
        order = np.argsort(self.b[:merges])
        ended = self.b[:merges][order]
        return ended, _resolve(self.a[:merges], order, _positions(ended, self.a[:merges]))

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

    O((E + M) log E) with small-to-large pooling, M the edges moved; about 150 bytes per edge (quantile: also
    a copy of the histogram).

    Args:
        graph: region graph; edges without a contact (`contacts == 0`) are ignored.
        linkage: the score; see the module.
        quantile: percentage, 0 .. 99, of the quantile linkage.
        threshold: stop where the best score falls below this, in [0, 1].

    Raises:
        InputError: an argument is out of range, or the quantile linkage lacks a histogram.
    """
    if linkage not in _MODES:
        raise InputError(f"linkage {linkage!r} is unknown: use 'mean', 'quantile' or 'max'")
    if linkage == "quantile" and not graph.bins:
        raise InputError("the quantile linkage needs histograms: build the region graph with bins=256")
    if not 0 <= quantile <= 99:
        raise InputError(f"quantile {quantile} is outside 0 .. 99 percent")
    if not 0 <= threshold <= 1:
        raise InputError(f"agglomeration threshold {threshold} is outside [0, 1]")
    if not graph.contacts.all():
        graph = graph.take(graph.contacts > 0)
    mode = _MODES[linkage]
    ids = np.unique(np.concatenate([graph.u, graph.v]))
    u = np.searchsorted(ids, graph.u).astype(np.int32)
    v = np.searchsorted(ids, graph.v).astype(np.int32)
    num = graph.peak if mode == MAX else graph.total
    den = np.ones_like(num) if mode == MAX else graph.n
    histogram = graph.histogram if mode == QUANTILE else None
    histogram = np.zeros((0, 1), np.int64) if histogram is None else histogram.copy()
    rule = np.array([mode, quantile], np.int64)
    state = new_state((u, v), num, den, histogram, len(ids), rule)
    # The kernel counts in units of 1/255; a quantile in halves of that, for the middles of its bins.
    unit = 2 * 255 if mode == QUANTILE else 255
    # A little below the threshold here; the exact cut follows, in integers.
    merges, scores, names = run(state, rule, threshold * unit - 1e-6)
    a, b = (ids[names[:merges, end]] for end in (0, 1))
    tree = MergeTree(scores[:merges, 0], scores[:merges, 1] * unit, a, b)
    keep = tree.count(threshold)
    return MergeTree(tree.score_num[:keep], tree.score_den[:keep], tree.a[:keep], tree.b[:keep], float(threshold))


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
