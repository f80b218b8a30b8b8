"""Which synaptic partners were found: the CREMI definitions (https://cremi.org/metrics), matching by matching.

Both sites of every pair, true or found, are looked up in the *truth* segmentation, which gives the pair its (pre
segment, post segment). Background is a segment like any other there. Then::

    cost(t, f) = (|pre_t - pre_f| + |post_t - post_f|) / 2      same segments, and both distances <= 400 nm
               = never matched                                  else
    the matching with the least sum of costs, where a pair without a partner costs 2 * 400 nm
    TP = matched pairs    FP = found - TP    FN = true - TP
    precision = TP / found       1 where nothing was found
    recall    = TP / true        1 where there is nothing to find
    F-score   = 2 P R / (P + R)  0 where TP is 0, but 1 where there is neither truth nor result

cremi_python solves one square matrix over all pairs, filled up with 800 nm. Only pairs of the same segments within
400 nm of each other can match, so the pairs fall into groups that never meet, and each group is solved alone: the
same TP and the same total cost (two matchings of equal cost may differ in who matches whom), in time and memory
that grow with the number of neighbours.

CREMI: Funke, Saalfeld, Bock, Turaga, Perlman, 2016. Options after Synful (Buhmann et al., Nature Methods 2021,
doi:10.1038/s41592-021-01183-7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.metrics.partnerpairs import F64, Ids, Outside, PartnerPairs, segments_of

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class PartnerOptions:
    """How pairs are matched; the defaults are CREMI's.

    Attributes:
        limit_nm: sites farther apart than this never match.
        outside: what to do with a found pair that has a site outside the segmentation: refuse it, or keep it as a
            false positive that can match nothing. True pairs must lie inside.
        drop_autapses: leave out found pairs whose two sites lie in one segment.
        redundant_nm: of found pairs between the same two segments whose post sites form a chain of steps up to
            this length, keep the first row. 0: keep all. (Synful moves the one it keeps to the mean of all.)

    Raises:
        InputError: a length is negative or not finite, or the word is unknown.
    """

    limit_nm: float = 400.0
    outside: Outside = "refuse"
    drop_autapses: bool = False
    redundant_nm: float = 0.0

    def __post_init__(self) -> None:
        for name in ("limit_nm", "redundant_nm"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise InputError(f"{name} {value} is not a length: give a finite number of nm, at least 0")
        if self.outside not in ("refuse", "unmatched"):
            raise InputError(f"outside {self.outside!r} is unknown: use 'refuse' or 'unmatched'")


@dataclass(frozen=True, eq=False)
class PartnerScores:
    """Which pairs were found; see the module for the formulae. More is better for the three ratios, 0 to 1.

    Attributes:
        tp: matched pairs.
        fp: found pairs without a match.
        fn: true pairs without a match.
        precision: tp / (tp + fp).
        recall: tp / (tp + fn).
        fscore: their harmonic mean.
        cost_nm: sum of the costs of the matched pairs.
        matches: int64 [tp, 2], (row of the true pair, row of the found pair), sorted.
        missed: int64 [fn], rows of the true pairs without a match, sorted.
        invented: int64 [fp], rows of the found pairs without a match, sorted.
        dropped: int64, rows of the found pairs that the options left out, sorted; they count nowhere.
        reason: why a ratio is what it is although nothing is divided, None where all are quotients.
    """

    tp: int
    fp: int
    fn: int
    precision: float
    recall: float
    fscore: float
    cost_nm: float
    matches: Rows
    missed: Rows
    invented: Rows
    dropped: Rows
    reason: str | None = None


def partner_scores(
    truth: PartnerPairs,
    found: PartnerPairs,
    segments_ZYX: NDArray[Any],
    grid: Grid,
    options: PartnerOptions | None = None,
) -> PartnerScores:
    """Match found partner pairs with the true ones and count.

    Args:
        truth: true pairs.
        found: found pairs, in the same world.
        segments_ZYX: the true segmentation, any integer ids.
        grid: its voxel size and offset in nm.
        options: other rules than CREMI's.

    Raises:
        InputError: a site lies outside the segmentation (see the options).
    """
    chosen = options or PartnerOptions()
    true_segments = segments_of(truth, segments_ZYX, grid)[0]
    found_segments, inside = segments_of(found, segments_ZYX, grid, chosen.outside)
    return match_pairs(truth, found, true_segments, found_segments, inside=inside, options=chosen)


def match_pairs(
    truth: PartnerPairs,
    found: PartnerPairs,
    true_segments: Ids,
    found_segments: Ids,
    *,
    inside: NDArray[np.bool_] | None = None,
    options: PartnerOptions | None = None,
) -> PartnerScores:
    """Match pairs whose segments are known already; see `partner_scores`.

    Args:
        truth: true pairs.
        found: found pairs.
        true_segments: uint64 [m, 2], (pre segment, post segment) of the true pairs.
        found_segments: uint64 [n, 2], of the found pairs.
        inside: bool [n], False for found pairs that can match nothing; None: all can.
        options: other rules than CREMI's.

    Raises:
        InputError: a column does not have one row per pair.
    """
    chosen = options or PartnerOptions()
    able = np.ones(len(found), bool) if inside is None else inside
    given = (true_segments.shape, found_segments.shape, able.shape)
    if given != ((len(truth), 2), (len(found), 2), (len(found),)):
        raise InputError(f"segments have shapes {given} for {len(truth)} true and {len(found)} found pairs")
    kept = _kept(found, found_segments, able, chosen)
    rows, columns, costs = _candidates(truth, found, true_segments, found_segments, chosen.limit_nm)
    use = (kept & able)[columns]
    matches, cost = _matched(rows[use], columns[use], costs[use], chosen.limit_nm)
    return _scores(len(truth), kept, matches, cost)


def mean_fscore(samples: Sequence[PartnerScores]) -> float:
    """Return the mean F-score of samples; NaN of none."""
    return sum(s.fscore for s in samples) / len(samples) if samples else float("nan")


# ---- which found pairs count --------------------------------------------------------------------------------


def _kept(
    found: PartnerPairs, segments: Ids, inside: NDArray[np.bool_], options: PartnerOptions
) -> NDArray[np.bool_]:
    kept = np.ones(len(found), bool)
    if options.drop_autapses:
        kept &= ~inside | (segments[:, 0] != segments[:, 1])
    if options.redundant_nm > 0:
        rows = np.flatnonzero(kept & inside)
        first = _first_of_chains(found.post_nm[rows], segments[rows], options.redundant_nm)
        kept[rows[~first]] = False
    return kept


def _first_of_chains(points: F64, segments: Ids, step_nm: float) -> NDArray[np.bool_]:
    """Return which row is the first of its chain of near points between the same segments."""
    a, b = _near(points, points, step_nm)
    same = (segments[a] == segments[b]).all(axis=1)
    _, chain = _components(len(points), a[same], b[same])
    first = np.zeros(len(points), bool)
    first[np.unique(chain, return_index=True)[1]] = True
    return first


# ---- matching -----------------------------------------------------------------------------------------------


def _candidates(
    truth: PartnerPairs, found: PartnerPairs, true_segments: Ids, found_segments: Ids, limit_nm: float
) -> tuple[Rows, Rows, F64]:
    """Return (true row, found row, cost) of all that can match."""
    a, b = _near(truth.pre_nm, found.pre_nm, limit_nm)
    same = (true_segments[a] == found_segments[b]).all(axis=1)
    a, b = a[same], b[same]
    pre = np.linalg.norm(truth.pre_nm[a] - found.pre_nm[b], axis=1)
    post = np.linalg.norm(truth.post_nm[a] - found.post_nm[b], axis=1)
    near = (pre <= limit_nm) & (post <= limit_nm)
    return a[near], b[near], (pre[near] + post[near]) / 2


def _near(points: F64, others: F64, radius_nm: float) -> tuple[Rows, Rows]:
    """Return all pairs of rows that are at most a radius apart, and perhaps a few a hair farther."""
    from scipy.spatial import cKDTree  # not at import: scipy takes its time

    if not (len(points) and len(others)):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    reach = np.nextafter(radius_nm * (1 + 1e-12), np.inf)
    hits = cKDTree(points).query_ball_tree(cKDTree(others), reach)
    a = np.repeat(np.arange(len(points)), [len(hit) for hit in hits])
    b = np.fromiter((j for hit in hits for j in hit), np.int64, a.size)
    return a.astype(np.int64), b


def _components(n: int, a: Rows, b: Rows) -> tuple[int, Rows]:
    """Return how many components a graph of n nodes has, and the component of each node."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(a.size, np.int8), (a, b)), shape=(n, n))
    count, of = connected_components(graph, directed=False)
    return int(count), of.astype(np.int64)


def _matched(rows: Rows, columns: Rows, costs: F64, limit_nm: float) -> tuple[Rows, float]:
    """Return the matching of least cost, int64 [tp, 2] sorted, and the sum of its costs."""
    if not rows.size:
        return np.zeros((0, 2), np.int64), 0.0
    (true_rows, r), (found_rows, c) = (np.unique(ids, return_inverse=True) for ids in (rows, columns))
    _, group = _components(true_rows.size + found_rows.size, r, c + true_rows.size)
    order = np.argsort(group[r], kind="stable")
    bounds = np.flatnonzero(np.diff(group[r][order])) + 1
    chosen = [edges[_best(r[edges], c[edges], costs[edges], limit_nm)] for edges in np.split(order, bounds)]
    edges = np.concatenate(chosen)
    matches = np.column_stack([rows[edges], columns[edges]])
    order = np.lexsort((matches[:, 1], matches[:, 0]))
    return matches[order], float(np.sum(costs[edges][order]))


def _best(r: Rows, c: Rows, costs: F64, limit_nm: float) -> Rows:
    """Return which of the edges of one group make the matching of least cost."""
    from scipy.optimize import linear_sum_assignment

    if r.size == 1:
        return np.zeros(1, np.int64)
    (_, i), (_, j) = (np.unique(ids, return_inverse=True) for ids in (r, c))
    shape = (int(i.max()) + 1, int(j.max()) + 1)
    matrix, edge = np.full(shape, 2 * limit_nm), np.full(shape, -1, np.int64)
    matrix[i, j], edge[i, j] = costs, np.arange(r.size)
    picked: Rows = edge[linear_sum_assignment(matrix)]
    return picked[picked >= 0]


def _scores(n_truth: int, kept: NDArray[np.bool_], matches: Rows, cost: float) -> PartnerScores:
    tp, n_found = len(matches), int(np.count_nonzero(kept))
    missed = np.setdiff1d(np.arange(n_truth), matches[:, 0])
    invented = np.setdiff1d(np.flatnonzero(kept), matches[:, 1])
    precision = tp / n_found if n_found else 1.0
    recall = tp / n_truth if n_truth else 1.0
    both = precision + recall
    reasons = [] if n_found else ["nothing was found, so nothing found is false: precision 1"]
    reasons += [] if n_truth else ["there is nothing to find, so nothing is missed: recall 1"]
    return PartnerScores(
        tp=tp,
        fp=n_found - tp,
        fn=n_truth - tp,
        precision=precision,
        recall=recall,
        fscore=2 * precision * recall / both if both else 0.0,
        cost_nm=cost,
        matches=matches,
        missed=missed,
        invented=invented,
        dropped=np.flatnonzero(~kept),
        reason="; ".join(reasons) or None,
    )
