"""Objects found, missed and invented: scores of a one-to-one matching of true objects and segments by overlap.

With the intersection ``n_ij`` of truth object ``i`` (size ``a_i``) and segment ``j`` (size ``b_j``), id 0 being
background on both sides::

    IoU_ij = n_ij / (a_i + b_j - n_ij)

At a threshold ``t`` a pair may match where ``IoU_ij >= t`` (and > 0). Above 0.5 no object has two such partners,
so the matching is unique; at 0.5 and below the one with most pairs is taken, of those the one with the largest sum
of IoU (`scipy.sparse.csgraph`, on the sparse table; no dense matrix). With TP matched pairs, FP segments and FN
truth objects left over::

    precision = TP / (TP + FP)      recall = TP / (TP + FN)      f1 = 2 TP / (2 TP + FP + FN)
    accuracy  = TP / (TP + FP + FN)                     "AP" of StarDist, Cellpose and the 2018 Data Science Bowl
    quality   = sum of the matched IoU / TP             SQ;  f1 is RQ, and PQ = SQ * RQ (Kirillov et al. 2019,
                                                        arXiv:1801.00868; there with t = 0.5 and IoU > t)

Comparisons of IoU with a threshold ``p / q`` are exact: ``n * q >= p * (a + b - n)`` in integers, the threshold
being the decimal it was given as. Only objects that the table counts take part: a table that ignores unlabelled
truth (0) sees segments cropped to where truth is known; one made with ``ignore_truth=()`` sees them whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import fsum, nan

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

from emloom.errors import InputError
from emloom.metrics.contingency import Contingency, Counts, Ids

COCO_THRESHOLDS = tuple(round(0.5 + 0.05 * k, 2) for k in range(10))
"""0.5, 0.55 .. 0.95: the IoU thresholds that COCO averages over."""


@dataclass(frozen=True)
class MatchingScores:
    """How well objects were found at one IoU threshold; see the module for the formulae.

    Attributes:
        iou: the threshold.
        true_positives: matched pairs.
        false_positives: segments without a partner.
        false_negatives: truth objects without a partner.
        precision: 1 is best; NaN where there is no segment.
        recall: 1 is best; NaN where there is no truth object.
        f1: 1 is best, the recognition quality of PQ; NaN where there is nothing at all, as all below.
        accuracy: 1 is best; what StarDist and Cellpose call average precision.
        segmentation_quality: mean IoU of matched pairs; NaN without a match.
        panoptic_quality: 1 is best; 0 without a match.
    """

    iou: float
    true_positives: int
    false_positives: int
    false_negatives: int
    precision: float
    recall: float
    f1: float
    accuracy: float
    segmentation_quality: float
    panoptic_quality: float


@dataclass(frozen=True)
class Pairs:
    """Overlapping truth objects and segments, without background.

    Attributes:
        truth: uint64 [P], ids of truth objects.
        segment: uint64 [P], ids of segments.
        overlap: int64 [P], voxels they share.
        union: int64 [P], voxels of either.
        n_truth: truth objects in all, with those that overlap nothing.
        n_segments: segments in all.
    """

    truth: Ids
    segment: Ids
    overlap: Counts
    union: Counts
    n_truth: int
    n_segments: int

    @property
    def iou(self) -> NDArray[np.float64]:
        """IoU of each pair, float64 [P]."""
        return self.overlap / self.union


def pairs_of(table: Contingency) -> Pairs:
    """Return the pairs of a contingency table, with 0 as background on both sides."""
    (truth, a), (segments, b) = table.truth_sizes(), table.segment_sizes()
    real = (table.truth_ids != 0) & (table.segment_ids != 0)
    t, s, n = table.truth_ids[real], table.segment_ids[real], table.counts[real]
    union = a[np.searchsorted(truth, t)] + b[np.searchsorted(segments, s)] - n
    return Pairs(t, s, n, union, int(np.count_nonzero(truth)), int(np.count_nonzero(segments)))


def matched(pairs: Pairs, iou: float) -> NDArray[np.intp]:
    """Return which pairs match at a threshold, as ascending row numbers.

    Raises:
        InputError: the threshold is not in (0, 1].
    """
    if not 0 < iou <= 1:
        raise InputError(f"IoU threshold {iou} is not in (0, 1]: 0.5 asks for half of the union")
    exact = Fraction(repr(float(iou)))
    # Python integers: counts of 4e9-voxel objects times a denominator leave int64.
    wide = pairs.overlap.astype(object) * exact.denominator >= pairs.union.astype(object) * exact.numerator
    rows = np.flatnonzero(wide.astype(bool))
    if 2 * exact > 1 or not rows.size:
        return rows
    return rows[_best_matching(pairs, rows)]


def _best_matching(pairs: Pairs, rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the largest matching with the largest sum of IoU among some pairs."""
    truth, t = np.unique(pairs.truth[rows], return_inverse=True)
    segments, s = np.unique(pairs.segment[rows], return_inverse=True)
    n, m = len(truth), len(segments)
    # Every object may also stay alone, at a cost no set of pairs can make good: a full matching always exists.
    # [pairs     | alone]     rows: truth, then one dummy per segment; columns: segments, then one per truth object
    # [alone     | free ]
    alone = 2.0 * (min(n, m) + 1)
    gain = pairs.iou[rows]
    row = np.concatenate([t, np.arange(n), n + np.arange(m), n + s])
    column = np.concatenate([s, m + np.arange(n), np.arange(m), m + t])
    cost = np.concatenate([2.0 - gain, np.full(n, alone), np.full(m, alone), np.full(len(rows), 1.0)])
    graph = coo_array((cost, (row, column)), shape=(n + m, n + m)).tocsr()
    left, right = min_weight_full_bipartite_matching(graph)
    chosen = {(int(i), int(j)) for i, j in zip(left, right, strict=True) if i < n and j < m}
    return np.flatnonzero([(int(i), int(j)) in chosen for i, j in zip(t, s, strict=True)])


def matching_scores(table: Contingency, iou: float = 0.5) -> MatchingScores:
    """Return the scores of matching truth objects and segments at an IoU threshold.

    Raises:
        InputError: the threshold is not in (0, 1].
    """
    pairs = pairs_of(table)
    return _scores(pairs, iou)


def matching_curve(table: Contingency, thresholds: Sequence[float] = COCO_THRESHOLDS) -> list[MatchingScores]:
    """Return the scores at several IoU thresholds."""
    pairs = pairs_of(table)
    return [_scores(pairs, iou) for iou in thresholds]


def mean_accuracy(curve: Sequence[MatchingScores]) -> float:
    """Return the mean of `accuracy` over thresholds: "mAP" of instance segmentation without confidences.

    Not COCO's AP, which ranks objects by a confidence that segmentations of neurons do not have.
    """
    return fsum(point.accuracy for point in curve) / len(curve) if curve else nan


def symmetric_best_dice(table: Contingency) -> float:
    """Return the smaller of two means: best Dice over truth objects, and over segments; 1 is best.

    Minervini et al., Pattern Recognition Letters 2016, doi:10.1016/j.patrec.2015.10.013. Every object counts once,
    whatever its size. NaN where there is no object at all, 0 where one side has none.
    """
    pairs = pairs_of(table)
    if not pairs.n_truth and not pairs.n_segments:
        return nan
    dice = 2 * pairs.overlap / (pairs.union + pairs.overlap)
    return min(_mean_best(pairs.truth, dice, pairs.n_truth), _mean_best(pairs.segment, dice, pairs.n_segments))


def _mean_best(ids: Ids, dice: NDArray[np.float64], count: int) -> float:
    if not count:
        return 0.0
    order = np.argsort(ids, kind="stable")
    ids = ids[order]
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]][: ids.size])
    best = np.maximum.reduceat(dice[order], starts) if ids.size else np.zeros(0)
    return fsum(best.tolist()) / count


def _scores(pairs: Pairs, iou: float) -> MatchingScores:
    rows = matched(pairs, iou)
    hits = len(rows)
    extra, missed = pairs.n_segments - hits, pairs.n_truth - hits
    total = fsum(pairs.iou[rows].tolist())
    everything = 2 * hits + extra + missed
    return MatchingScores(
        iou=float(iou),
        true_positives=hits,
        false_positives=extra,
        false_negatives=missed,
        precision=_share(hits, hits + extra),
        recall=_share(hits, hits + missed),
        f1=_share(2 * hits, everything),
        accuracy=_share(hits, hits + extra + missed),
        segmentation_quality=_share(total, hits),
        panoptic_quality=_share(2 * total, everything),
    )


def _share(part: float, whole: int) -> float:
    return part / whole if whole else nan
