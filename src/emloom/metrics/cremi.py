"""Neuron scores exactly as the CREMI challenge computes them, with its conventions made explicit.

They differ from `emloom.metrics.overlap` in three points (cremi_python, `NeuronIds`; https://cremi.org/metrics):

* Truth 2^64 - 1 (TRANSPARENT) is ignored; truth 0 is an object like any other.
* With a border, voxels within a distance of a border *in their section* are ignored. A border voxel is one whose
  4-neighbour has another id; the distance is Euclidean in pixels of the section, to the nearest border voxel.
* Segment 0 counts as one voxel per segment in the adapted Rand error ("undecided"), in a form of its own: with
  ``c = sum_i n_i0`` and ``n`` *all* voxels, ignored ones included::

      A = sum a_i^2      B = sum_{j>0} b_j^2 + c / n      AB = sum_{i, j>0} n_ij^2 + c / n
      error = 1 - 2 P R / (P + R)      P = AB / B      R = AB / A

  ``c / n`` is at most 1 and was meant to be ``c``, the squares of c single voxels; it is kept for parity.

The CREMI score is ``sqrt(VOI * error)``. Some third-party code takes the mean of split, merge and error instead:
that is another number.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import sqrt
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.metrics.contingency import Contingency
from emloom.metrics.overlap import overlap_scores

TRANSPARENT = 2**64 - 1
"""The id of truth that does not count."""

BORDER_NM = 25.0
"""The distance from borders that the leaderboard ignores."""


@dataclass(frozen=True)
class CremiNeuronScores:
    """What the CREMI leaderboard shows for neurons; lower is better everywhere.

    Attributes:
        voi_split: H(segments | truth) in bits.
        voi_merge: H(truth | segments) in bits.
        adapted_rand_error: cremi_python's, 0 to 1.
        cremi_score: sqrt((voi_split + voi_merge) * adapted_rand_error).
    """

    voi_split: float
    voi_merge: float
    adapted_rand_error: float
    cremi_score: float


def cremi_neuron_scores(table: Contingency, n_all: int) -> CremiNeuronScores:
    """Return the scores of a contingency table.

    Args:
        table: made with ``ignore_truth=(TRANSPARENT,)`` and, with a border, the mask of `cremi_border_mask`.
        n_all: voxels of the volume, ignored ones included.

    Raises:
        InputError: the table is empty or counts truth that is TRANSPARENT, or `n_all` is less than it counts.
    """
    if np.uint64(TRANSPARENT) in table.truth_ids:
        raise InputError(f"the table counts truth {TRANSPARENT}, which CREMI ignores: make it with ignore_truth")
    if n_all < table.n_voxels:
        raise InputError(f"{n_all} voxels in all are fewer than the {table.n_voxels} that count: give all of them")
    scores = overlap_scores(table)
    undecided = table.segment_ids == 0
    share = Fraction(int(table.counts[undecided].sum()), n_all)
    decided = table.without(segments=[0])
    a = _sum_squares(table.truth_sizes()[1])
    b = _sum_squares(decided.segment_sizes()[1]) + share
    ab = _sum_squares(decided.counts) + share
    # 1 - 2 P R / (P + R) with P = ab / b, R = ab / a is 1 - 2 ab / (a + b).
    error = float(1 - 2 * ab / (a + b))
    return CremiNeuronScores(scores.voi_split, scores.voi_merge, error, sqrt(scores.voi_sum * max(error, 0.0)))


def cremi_border_mask(truth_ZYX: NDArray[Any], pixel_nm: float, border_nm: float = BORDER_NM) -> NDArray[np.bool_]:
    """Return True where voxels are further from every border of their section than `border_nm`.

    Args:
        truth_ZYX: integer ids [Z, Y, X].
        pixel_nm: size of a pixel along y, which is taken for both axes.
        border_nm: distance; at most this far away is ignored, border voxels themselves always.

    Raises:
        InputError: the array is not 3-dimensional, or a length is not positive.
    """
    if truth_ZYX.ndim != 3:
        raise InputError(f"truth has shape {truth_ZYX.shape}: give z, y, x")
    if pixel_nm <= 0 or border_nm < 0:
        raise InputError(
            f"a border of {border_nm} nm and pixels of {pixel_nm} nm mean nothing: give positive lengths"
        )
    return np.stack([~_near_border(section, border_nm / pixel_nm) for section in truth_ZYX])


def _near_border(section_YX: NDArray[Any], pixels: float) -> NDArray[np.bool_]:
    border = np.zeros(section_YX.shape, bool)
    for axis in range(2):
        a, b = (section_YX[1:], section_YX[:-1]) if axis == 0 else (section_YX[:, 1:], section_YX[:, :-1])
        differs = a != b
        ahead, behind = (border[1:], border[:-1]) if axis == 0 else (border[:, 1:], border[:, :-1])
        ahead |= differs
        behind |= differs
    if not border.any():
        return border
    distance: NDArray[np.float32] = edt.edt(np.ascontiguousarray(~border))
    near: NDArray[np.bool_] = distance <= pixels
    return near


def _sum_squares(counts: NDArray[np.int64]) -> int:
    return sum(n * n for n in counts.tolist())
