"""How well two connectomes agree, edge by edge.

A connectome is a table of edges: (pre neuron, post neuron, weight), the weight a number of synapses. An edge
exists where its weight is at least `minimum_weight`; below, it is taken as noise, in both tables alike. With E_t,
E_f the edges of truth and result, and w_t(e), w_f(e) their weights (0 where an edge does not exist)::

    TP = |E_t and E_f|    FP = |E_f| - TP    FN = |E_t| - TP
    precision = TP / |E_f|                             recall = TP / |E_t|         F1 = 2 TP / (|E_t| + |E_f|)
    synapse precision = sum min(w_t, w_f) / sum w_f    synapse recall = sum min(w_t, w_f) / sum w_t
    edge-weight F1    = 2 sum min(w_t, w_f) / (sum w_t + sum w_f)       the harmonic mean of these two

Agreement of weights is measured over the edges that exist in both: Pearson's r of the weights, Spearman's rho
(Pearson's r of ranks; ties share their mean rank), and the median of log2(w_f / w_t), which is 0 where nothing is
over- or undercounted and 1 where the result has twice the synapses. Pearson follows the few strongest edges;
Spearman does not. Comparisons of whole brains report the like (Schlegel et al., Nature 2024,
doi:10.1038/s41586-024-07686-5).

Neurons must have the same ids on both sides. A LUT does that (`matched`): `majority_match` gives each segment the
true neuron it overlaps most. Segments of one neuron are merged and their weights added; a segment that maps to
nothing stays a neuron of its own that no true edge can meet.

All counts and sums are exact integers; ratios are quotients of integers and depend on no order of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emloom.errors import InputError
from emloom.metrics.contingency import Contingency, as_ids

Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Connectome:
    """Edges between neurons, each once, sorted by (pre, post), weights above 0.

    Attributes:
        pre: uint64 [n], ids of pre neurons.
        post: uint64 [n], ids of post neurons.
        weights: int64 [n], synapses.
    """

    pre: Ids
    post: Ids
    weights: Counts

    def __len__(self) -> int:
        return len(self.weights)

    @classmethod
    def from_rows(cls, pre: ArrayLike, post: ArrayLike, weights: ArrayLike | None = None) -> Connectome:
        """Return the connectome of rows in any order; weights of equal pairs are added, zeros dropped.

        Args:
            pre: unsigned integers [n], neuron of the pre site.
            post: unsigned integers [n], neuron of the post site.
            weights: whole numbers [n], not negative; None: every row is one synapse.

        Raises:
            InputError: columns differ in length, or a value is negative or no whole number.
        """
        a, b = as_ids(pre, "pre neurons"), as_ids(post, "post neurons")
        w = np.ones(a.shape, np.uint64) if weights is None else as_ids(weights, "weights")
        if not (a.ndim == 1 and a.shape == b.shape == w.shape):
            raise InputError(
                f"columns have shapes {a.shape}, {b.shape}, {w.shape}: give one pre, post and weight each"
            )
        # A contingency table is just this: pairs of ids with exact counts, each pair once.
        table = Contingency.from_rows(a, b, w)
        return cls(table.truth_ids, table.segment_ids, table.counts)

    @property
    def synapses(self) -> int:
        """Sum of all weights."""
        return int(self.weights.sum())

    @property
    def neurons(self) -> int:
        """Number of neurons that have an edge."""
        return int(np.union1d(self.pre, self.post).size)

    def at_least(self, weight: int) -> Connectome:
        """Return the edges of at least a weight."""
        keep = self.weights >= weight
        return Connectome(self.pre[keep], self.post[keep], self.weights[keep])

    def without(self, neurons: ArrayLike) -> Connectome:
        """Return the connectome without some neurons: 0, say, which is background and no neuron."""
        away = as_ids(neurons, "neurons")
        keep = ~(np.isin(self.pre, away) | np.isin(self.post, away))
        return Connectome(self.pre[keep], self.post[keep], self.weights[keep])

    def without_autapses(self) -> Connectome:
        """Return the connectome without edges from a neuron to itself."""
        keep = self.pre != self.post
        return Connectome(self.pre[keep], self.post[keep], self.weights[keep])


@dataclass(frozen=True)
class ConnectionScores:
    """How well two connectomes agree; see the module for the formulae.

    Attributes:
        tp: edges in both.
        fp: edges of the result that the truth does not have.
        fn: edges of the truth that the result does not have.
        precision: tp / (tp + fp), 0 to 1; more is better; NaN where the result has no edge.
        recall: tp / (tp + fn), 0 to 1; more is better; NaN where the truth has no edge.
        f1: 2 tp / (2 tp + fp + fn), 0 to 1; more is better; NaN where neither has an edge.
        synapse_precision: part of the synapses of the result that the truth has too; more is better.
        synapse_recall: part of the synapses of the truth that the result has too; more is better.
        edge_weight_f1: F1 with weights, 0 to 1; more is better; NaN where neither has an edge.
        pearson: -1 to 1, of the weights of the edges in both; more is better.
        spearman: -1 to 1, of their ranks; more is better.
        median_log2_ratio: of result to truth over the edges in both; 0 is best.
        true_synapses: of all edges of the truth.
        found_synapses: of all edges of the result.
        common_synapses: sum of the smaller weight over the edges in both.
        true_neurons: neurons with an edge in the truth.
        found_neurons: neurons with an edge in the result.
        minimum_weight: synapses that make an edge.
        reason: why something is NaN, None where everything is defined.
    """

    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    f1: float
    synapse_precision: float
    synapse_recall: float
    edge_weight_f1: float
    pearson: float
    spearman: float
    median_log2_ratio: float
    true_synapses: int
    found_synapses: int
    common_synapses: int
    true_neurons: int
    found_neurons: int
    minimum_weight: int
    reason: str | None = None


def connection_scores(truth: Connectome, found: Connectome, minimum_weight: int = 1) -> ConnectionScores:
    """Compare two connectomes whose neurons have the same ids (see `matched`).

    Args:
        truth: true edges.
        found: edges to judge.
        minimum_weight: synapses that make an edge; thresholds of 5 or 10 are usual in whole brains.

    Raises:
        InputError: the minimum is below 1.
    """
    if minimum_weight < 1:
        raise InputError(f"minimum weight {minimum_weight} is below 1: an edge has at least one synapse")
    t, f = truth.at_least(minimum_weight), found.at_least(minimum_weight)
    w_t, w_f = _common(t, f)
    tp, common = len(w_t), int(np.minimum(w_t, w_f).sum())
    return ConnectionScores(
        tp=tp,
        fp=len(f) - tp,
        fn=len(t) - tp,
        precision=_ratio(tp, len(f)),
        recall=_ratio(tp, len(t)),
        f1=_ratio(2 * tp, len(t) + len(f)),
        synapse_precision=_ratio(common, f.synapses),
        synapse_recall=_ratio(common, t.synapses),
        edge_weight_f1=_ratio(2 * common, t.synapses + f.synapses),
        pearson=_pearson(w_t.tolist(), w_f.tolist()),
        spearman=_pearson(_double_ranks(w_t), _double_ranks(w_f)),
        median_log2_ratio=float(np.median(np.log2(w_f) - np.log2(w_t))) if tp else nan,
        true_synapses=t.synapses,
        found_synapses=f.synapses,
        common_synapses=common,
        true_neurons=t.neurons,
        found_neurons=f.neurons,
        minimum_weight=minimum_weight,
        reason=_reason(t, f, w_t, w_f),
    )


def matched(found: Connectome, segments: ArrayLike, neurons: ArrayLike) -> Connectome:
    """Return a connectome in the ids of the truth.

    Args:
        found: edges between segments.
        segments: unsigned integers [k], segments that have a match, each once.
        neurons: unsigned integers [k], the true neuron of each.

    Returns:
        Edges between true neurons, weights of merged edges added. A segment without a match becomes a neuron of
        its own; its new id, counted down from 2^64 - 1, is nobody else's.

    Raises:
        InputError: columns differ in length, a segment stands twice, or a neuron has an id of 2^63 or more.
    """
    keys, values = as_ids(segments, "segments"), as_ids(neurons, "neurons")
    unmatched = np.setdiff1d(np.union1d(found.pre, found.post), keys)
    if values.size and int(values.max()) >= 1 << 63:
        raise InputError(f"the neuron {values.max()} has an id of 2^63 or more: ids are below; relabel them first")
    free = np.uint64(np.iinfo(np.uint64).max) - np.arange(unmatched.size, dtype=np.uint64)
    table = Contingency.from_rows(found.pre, found.post, found.weights)
    keys, values = np.concatenate([keys, unmatched]), np.concatenate([values, free])
    half = table.relabelled(keys, values)
    back = Contingency.from_rows(half.segment_ids, half.truth_ids, half.counts).relabelled(keys, values)
    return Connectome.from_rows(back.segment_ids, back.truth_ids, back.counts)


def majority_match(table: Contingency, minimum_fraction: float = 0.5) -> tuple[Ids, Ids]:
    """Return (segments, their true neurons): each segment goes to the neuron with most of its counted voxels.

    Of neurons with equally many the one of the lowest id wins. Background (0) of either is matched with nothing.

    Args:
        table: overlap of truth and segmentation.
        minimum_fraction: of the segment's counted voxels that must lie in the neuron; a segment below stays
            without a match.

    Raises:
        InputError: the fraction is not within 0 and 1.
    """
    if not 0 <= minimum_fraction <= 1:
        raise InputError(f"minimum fraction {minimum_fraction} is no fraction: give a number from 0 to 1")
    sizes = dict(zip(*(column.tolist() for column in table.segment_sizes()), strict=True))
    order = np.lexsort((table.truth_ids, -table.counts, table.segment_ids))
    segments, first = np.unique(table.segment_ids[order], return_index=True)
    rows = order[first]
    neurons, counts = table.truth_ids[rows], table.counts[rows]
    enough = [n >= minimum_fraction * sizes[s] for s, n in zip(segments.tolist(), counts.tolist(), strict=True)]
    keep = np.array(enough, bool) & (segments != 0) & (neurons != 0)
    return segments[keep], neurons[keep]


def _common(truth: Connectome, found: Connectome) -> tuple[Counts, Counts]:
    """Return the weights in the truth and in the result of the edges in both."""
    pairs = np.dtype([("pre", np.uint64), ("post", np.uint64)])
    a, b = (np.rec.fromarrays([c.pre, c.post], dtype=pairs).view(np.ndarray) for c in (truth, found))
    _, i, j = np.intersect1d(a, b, assume_unique=True, return_indices=True)
    return truth.weights[i], found.weights[j]


def _double_ranks(weights: Counts) -> Sequence[int]:
    """Return twice the mean rank of every weight, a whole number."""
    _, at, times = np.unique(weights, return_inverse=True, return_counts=True)
    last = np.cumsum(times)
    ranks: list[int] = (2 * last - times + 1)[at].tolist()
    return ranks


def _pearson(x: Sequence[int], y: Sequence[int]) -> float:
    """Return Pearson's r, NaN where one of both does not vary; integers up to the last step."""
    n, sx, sy = len(x), sum(x), sum(y)
    xx = n * sum(a * a for a in x) - sx * sx
    yy = n * sum(b * b for b in y) - sy * sy
    xy = n * sum(a * b for a, b in zip(x, y, strict=True)) - sx * sy
    if not (xx and yy):
        return nan
    # Perfect agreement is exactly 1: no rounding of the two roots.
    return (1.0 if xy > 0 else -1.0) if xy * xy == xx * yy else xy / _root(xx * yy)


def _root(square: int) -> float:
    """Return the square root of a whole number that may be larger than any float."""
    return sqrt(square) if square < 1 << 1000 else float(isqrt(square))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else nan


def _reason(truth: Connectome, found: Connectome, w_t: Counts, w_f: Counts) -> str | None:
    reasons = [f"the {what} has no edge" for what, c in (("truth", truth), ("result", found)) if not len(c)]
    if len(w_t) < 2:
        reasons.append(f"{len(w_t)} edges are in both: a correlation needs two")
    else:
        reasons += [
            f"all common edges of the {what} weigh the same, so nothing correlates"
            for what, w in (("truth", w_t), ("result", w_f))
            if (w == w[0]).all()
        ]
    return "; ".join(reasons) or None
