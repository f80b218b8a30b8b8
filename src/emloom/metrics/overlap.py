"""Scores of a segmentation against the truth, read from their contingency table.

With ``n_ij`` voxels in truth object ``i`` and segment ``j``, sizes ``a_i`` (truth) and ``b_j`` (segments), and
``N`` voxels in all:

* variation of information (Meila, J. Multivariate Analysis 2007, doi:10.1016/j.jmva.2006.11.013), in bits::

      split = H(segments | truth) = 1/N * (sum_i a_i log2 a_i - sum_ij n_ij log2 n_ij)   one object, many segments
      merge = H(truth | segments) = 1/N * (sum_j b_j log2 b_j - sum_ij n_ij log2 n_ij)   one segment, many objects

* adapted Rand error of SNEMI3D and CREMI (Arganda-Carreras et al., Frontiers in Neuroanatomy 2015,
  doi:10.3389/fnana.2015.00142)::

      1 - 2 * sum_ij n_ij^2 / (sum_i a_i^2 + sum_j b_j^2)

  and its variant over pairs of *different* voxels (scikit-image): every square ``n^2`` becomes ``n (n - 1)``.

* the variation of information made comparable between volumes (Vinh, Epps & Bailey, J. Machine Learning Research
  11, 2010): NVI = VOI / H(truth, segments), and NID = 1 - I(truth; segments) / max(H(truth), H(segments)), both 0
  (perfect) to 1.

Sums of squares are exact integers; sums of ``n log2 n`` are correctly rounded (`math.fsum`). So a score depends
on the multiset of counts only: renaming ids, or counting in other blocks, changes no bit of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import fsum, log2, sqrt
from typing import Any, Literal, get_args

import edt
import numpy as np
from numpy.typing import ArrayLike, NDArray

from emloom.errors import InputError, did_you_mean
from emloom.metrics.contingency import Contingency, Counts

Kind = Literal["split", "merge"]
Error = Literal[
    "voi_sum", "voi_split", "voi_merge", "adapted_rand_error", "adapted_rand_error_pairs", "cremi_score"
]


@dataclass(frozen=True)
class OverlapScores:
    """How well a segmentation agrees with the truth; see the module for the formulae.

    Attributes:
        voi_split: H(segments | truth) in bits; 0 where no truth object is split.
        voi_merge: H(truth | segments) in bits; 0 where no segment merges truth objects.
        voi_sum: variation of information, split + merge.
        adapted_rand_error: 0 (perfect) to 1, the SNEMI3D and CREMI definition.
        adapted_rand_error_pairs: the same over pairs of different voxels, the scikit-image definition.
        rand_split: Rand recall, sum n_ij^2 / sum a_i^2; 1 where no truth object is split.
        rand_merge: Rand precision, sum n_ij^2 / sum b_j^2; 1 where no segment merges truth objects.
        nvi: normalised variation of information, 0 (perfect) to 1; 0 where both are one object.
        nid: normalised information distance, 0 (perfect) to 1; 0 where both are one object.
        n_voxels: voxels counted.
        n_truth: truth objects among them.
        n_segments: segments among them.
    """

    voi_split: float
    voi_merge: float
    voi_sum: float
    adapted_rand_error: float
    adapted_rand_error_pairs: float
    rand_split: float
    rand_merge: float
    nvi: float
    nid: float
    n_voxels: int
    n_truth: int
    n_segments: int

    @property
    def cremi_score(self) -> float:
        """Geometric mean of VOI and adapted Rand error, which ranks the CREMI challenge."""
        return sqrt(self.voi_sum * self.adapted_rand_error)


@dataclass(frozen=True)
class SweepPoint:
    """The scores of one agglomeration threshold."""

    threshold: float
    scores: OverlapScores


@dataclass(frozen=True)
class ObjectError:
    """What one truth object (split) or one segment (merge) adds to the variation of information.

    Attributes:
        id: truth id for splits, segment id for merges.
        bits: its share of VOI split or VOI merge; the shares of all objects sum to the score.
        voxels: its size.
        pieces: segments in the truth object, or truth objects in the segment.
        largest_fraction: share of its voxels in the largest piece.
    """

    id: int
    bits: float
    voxels: int
    pieces: int
    largest_fraction: float


def overlap_scores(table: Contingency) -> OverlapScores:
    """Return every overlap score of a contingency table.

    Raises:
        InputError: the table is empty, where no score is defined.
    """
    if table.n_voxels == 0:
        raise InputError(
            "there is no voxel to score: the truth is background or masked everywhere; check the mask, the "
            "ignored ids and that truth and segmentation cover the same box"
        )
    total = table.n_voxels
    joint = _Spectrum.of(table.counts)
    truth = _Spectrum.of(table.truth_sizes()[1])
    segments = _Spectrum.of(table.segment_sizes()[1])
    split = _conditional_entropy(joint, truth, total)
    merge = _conditional_entropy(joint, segments, total)
    of_truth, of_segments = _entropy(truth, total), _entropy(segments, total)
    nn, aa, bb = joint.squares(), truth.squares(), segments.squares()
    pairs = aa + bb - 2 * total
    return OverlapScores(
        voi_split=split,
        voi_merge=merge,
        voi_sum=split + merge,
        # The numerator is formed in integers first: 1 - F would cancel for a nearly perfect segmentation.
        adapted_rand_error=(aa + bb - 2 * nn) / (aa + bb),
        # No pair at all: every voxel is alone in both, so the two agree.
        adapted_rand_error_pairs=(aa + bb - 2 * nn) / pairs if pairs else 0.0,
        rand_split=nn / aa,
        rand_merge=nn / bb,
        nvi=_ratio(split + merge, of_segments + merge),
        # max(H) - I(truth; segments) is the conditional entropy of the side with the larger entropy.
        nid=_ratio(split, of_segments) if of_segments >= of_truth else _ratio(merge, of_truth),
        n_voxels=total,
        n_truth=truth.n_objects,
        n_segments=segments.n_objects,
    )


def sweep(fragments: Contingency, luts: Iterable[tuple[float, ArrayLike, ArrayLike]]) -> list[SweepPoint]:
    """Score many agglomerations of the same fragments without reading a voxel again.

    Args:
        fragments: contingency table of truth and *fragments*.
        luts: per threshold (threshold, fragment ids, segment ids); fragments without an entry stay alone.
    """
    return [SweepPoint(float(t), overlap_scores(fragments.relabelled(k, v))) for t, k, v in luts]


def best_threshold(points: Sequence[SweepPoint], by: Error = "voi_sum", tolerance: float = 0.0) -> SweepPoint:
    """Return the point with the highest threshold (fewest merges) among those of lowest error.

    Args:
        points: the sweep, any order.
        by: the error to keep low.
        tolerance: errors up to this part above the lowest count as equal to it.

    Raises:
        InputError: there is no point, `by` names no error, or the tolerance is negative.
    """
    if not tolerance >= 0:
        raise InputError(f"tolerance {tolerance} is negative: 0.05 takes errors within 5 % of the lowest as equal")
    if by not in get_args(Error):
        raise InputError(
            f"cannot choose a threshold by {by!r}{did_you_mean(by, get_args(Error))}: "
            f"use one of {', '.join(get_args(Error))}"
        )
    if not points:
        raise InputError("there is no threshold to choose from: sweep at least one")
    bar = min(getattr(point.scores, by) for point in points) * (1 + tolerance)
    return max((p for p in points if getattr(p.scores, by) <= bar), key=lambda p: p.threshold)


def worst_objects(table: Contingency, kind: Kind = "split", k: int = 10) -> list[ObjectError]:
    """Return the truth objects (or segments) that add most to VOI split (or merge), worst first.

    Object ``i`` adds ``1/N * sum_j n_ij log2(a_i / n_ij)``. Objects without error are left out; equals are ordered
    by id.

    Raises:
        InputError: `kind` is unknown.
    """
    if kind not in get_args(Kind):
        raise InputError(f"kind {kind!r} is unknown: use 'split' or 'merge'")
    ids, (unique, sizes) = (
        (table.truth_ids, table.truth_sizes()) if kind == "split" else (table.segment_ids, table.segment_sizes())
    )
    counts = table.counts[np.argsort(ids, kind="stable")]
    stops = np.searchsorted(np.sort(ids), unique, side="right")
    starts = np.r_[0, stops[:-1]]
    total = table.n_voxels
    found = []
    for row in np.flatnonzero(stops - starts > 1):
        size, pieces = int(sizes[row]), counts[starts[row] : stops[row]].tolist()
        bits = fsum(n * log2(size / n) for n in pieces) / total
        found.append(ObjectError(int(unique[row]), bits, size, len(pieces), max(pieces) / size))
    return sorted(found, key=lambda item: (-item.bits, item.id))[:k]


def border_mask(truth_ZYX: NDArray[Any], width_vox: int = 1, in_plane: bool = False) -> NDArray[np.bool_]:
    """Return True where no other truth id lies within a distance, for scores that ignore the exact border.

    Args:
        truth_ZYX: unsigned instance ids; background 0 is an id like any other. The faces of the array are no
            border.
        width_vox: Euclidean distance in voxels between voxel centres: 1 excludes exactly the voxels with a
            differing 6-neighbour. 0 excludes nothing.
        in_plane: look for borders within each z section only (4-neighbours), for anisotropic sections.

    Returns:
        bool [Z, Y, X], the `mask` of `contingency`.

    Raises:
        InputError: the array is not 3-dimensional unsigned, or the width is negative.
    """
    if truth_ZYX.ndim != 3 or truth_ZYX.dtype.kind != "u":
        raise InputError(f"truth is {truth_ZYX.dtype} {truth_ZYX.shape}: give unsigned ids, z, y, x")
    if width_vox < 0:
        raise InputError(f"border width {width_vox} is negative: give 0 voxels or more")
    if in_plane:
        return np.stack([_far_from_border(section, width_vox) for section in truth_ZYX])
    return _far_from_border(truth_ZYX, width_vox)


def _far_from_border(labels: NDArray[Any], width_vox: int) -> NDArray[np.bool_]:
    distance: Callable[[NDArray[Any]], NDArray[np.float32]] = edt.edt
    # edt measures inside every nonzero label and calls 0 background, so the zeros are measured on their own.
    background = np.ascontiguousarray(labels == 0)
    near = np.where(background, distance(background), distance(np.ascontiguousarray(labels)))
    far: NDArray[np.bool_] = near > width_vox
    return far


def _ratio(part: float, whole: float) -> float:
    return min(part / whole, 1.0) if whole else 0.0


@dataclass(frozen=True)
class _Spectrum:
    """How often each count occurs: all a score needs, and far fewer terms than rows.

    Attributes:
        counts: int64 [K], ascending.
        times: int64 [K].
    """

    counts: Counts
    times: Counts

    @classmethod
    def of(cls, counts: Counts) -> _Spectrum:
        return cls(*np.unique(counts, return_counts=True))

    @property
    def n_objects(self) -> int:
        return int(self.times.sum())

    def squares(self) -> int:
        """Return the sum of squares, exactly."""
        # Bounded by the largest times the sum. Else Python integers: a 4e9-voxel object's square leaves 64 bits.
        if int(self.counts[-1]) * int(self.counts @ self.times) < 2**63:
            return int((self.counts * self.counts) @ self.times)
        return sum(times * n * n for n, times in zip(self.counts.tolist(), self.times.tolist(), strict=True))

    def logs(self) -> NDArray[np.float64]:
        """Return float64 [K], the terms of the sum of ``n log2 n``."""
        n = self.counts.astype(np.float64)
        terms: NDArray[np.float64] = self.times * (n * np.log2(n))
        return terms


def _entropy(sizes: _Spectrum, total: int) -> float:
    """Return H in bits; exactly 0 for one object."""
    return _conditional_entropy(sizes, _Spectrum(np.array([total]), np.array([1])), total)


def _conditional_entropy(joint: _Spectrum, given: _Spectrum, total: int) -> float:
    """Return H(joint) - H(given) in bits; exactly 0 for equal spectra, never negative."""
    return max(0.0, fsum(np.concatenate([given.logs(), -joint.logs()]).tolist())) / total
