"""How well clefts were found: the CREMI definitions (https://cremi.org/metrics), in voxels and nm.

With T the cleft voxels of the truth, P those of the result (ids are irrelevant), d(v, S) the distance in nm from
the centre of voxel v to that of the nearest voxel of S, and a limit of 200 nm::

    FP    = #{p in P : d(p, T) > limit}            ADGT = mean over P of d(p, T)     zeros included
    FN    = #{t in T : d(t, P) > limit}            ADF  = mean over T of d(t, P)     zeros included
    CREMI score of clefts = (ADGT + ADF) / 2       nm; less is better; the leaderboard takes the mean of samples

What is a cleft, in the stored values of CREMI::

                               truth               result
    0xffffffffffffffff         background          background     TRANSPARENT
    0xfffffffffffffffe         ignored, in both    cleft          INVALID
    0xfffffffffffffffd         ignored, in both    cleft          OUTSIDE (cremi_python: a cleft in the truth too)
    0                          cleft               cleft          background where `zero_is_background`
    any other                  cleft               cleft

An ignored voxel belongs to neither T nor P: it is not counted, and nothing is near because of it.

Where something is not defined it is NaN, and `reason` says why::

                     FP     FN     distances, score    precision    recall    F1
    no truth         |P|    0      NaN                 0            NaN       0
    no result        0      |T|    NaN                 NaN          0         0
    neither          0      0      NaN                 NaN          NaN       NaN
    all ignored      0      0      NaN                 NaN          NaN       NaN

Mean distances are exact blockwise too, and so are sums: see `emloom.metrics.clefttally`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.metrics.clefttally import Array, Bools, CleftOptions, CleftTally, bounding_box, cleft_tally

TRANSPARENT = 0xFFFFFFFFFFFFFFFF
OUTSIDE = 0xFFFFFFFFFFFFFFFD
_SUSPICIOUS = 0.5


@dataclass(frozen=True)
class TolerantScores:
    """Scores of CNNectome (Heinrich et al., Nature 2021, doi:10.1038/s41586-021-03977-3), as its code has them.

    Attributes:
        fp: voxels of the result farther than the tolerance from the truth.
        fn: voxels of the truth farther than the tolerance from the result.
        tp: voxels of either one, less `fp` and `fn`.
        precision: tp / (tp + fp), 0 to 1; more is better.
        recall: tp / (tp + fn), 0 to 1; more is better.
        f1: 2 tp / (2 tp + fp + fn), 0 to 1; more is better.
        false_positive_rate: fp / background voxels of the truth, 0 to 1; less is better.
        false_negative_rate: fn / cleft voxels of the truth, 0 to 1; less is better.
        clipped_adgt_nm: ADGT with distances that end at the clip.
        clipped_adf_nm: ADF with distances that end at the clip.
        clipped_score_nm: their mean.
    """

    fp: int
    fn: int
    tp: int
    precision: float
    recall: float
    f1: float
    false_positive_rate: float
    false_negative_rate: float
    clipped_adgt_nm: float
    clipped_adf_nm: float
    clipped_score_nm: float


@dataclass(frozen=True)
class CleftScores:
    """How well clefts were found; see the module for the formulae.

    Attributes:
        fp: false positive voxels, farther than the limit from the truth; less is better.
        fn: false negative voxels; less is better.
        adgt_nm: mean distance from the result to the truth; less is better.
        adf_nm: mean distance from the truth to the result; less is better.
        cremi_score_nm: (adgt_nm + adf_nm) / 2; less is better.
        tp: voxels of the result within the limit of the truth.
        precision: tp / (tp + fp), 0 to 1; more is better.
        recall: tp / (tp + fn), 0 to 1; more is better.
        f1: 2 tp / (2 tp + fp + fn), 0 to 1; more is better.
        n_known: voxels that count.
        n_truth: cleft voxels of the truth.
        n_found: cleft voxels of the result.
        tolerant: CNNectome's variants.
        reason: why something is NaN (or was replaced), None where everything is defined.
        notes: what deserves a look.
    """

    fp: int
    fn: int
    adgt_nm: float
    adf_nm: float
    cremi_score_nm: float
    tp: int
    precision: float
    recall: float
    f1: float
    n_known: int
    n_truth: int
    n_found: int
    tolerant: TolerantScores
    reason: str | None = None
    notes: tuple[str, ...] = ()


def cleft_scores(
    truth_ZYX: Array,
    found_ZYX: Array,
    spacing_nm: Sequence[float],
    *,
    known_ZYX: Array | None = None,
    zero_is_background: bool = False,
    options: CleftOptions | None = None,
) -> CleftScores:
    """Score clefts in memory.

    Args:
        truth_ZYX: true clefts, unsigned integers or booleans; see the module for what the values mean.
        found_ZYX: clefts found, on the same grid.
        spacing_nm: voxel size (z, y, x) in nm.
        known_ZYX: 0 where voxels are ignored, besides those the truth ignores; None: all count.
        zero_is_background: 0 is background too, as in every volume that emloom opens; needed for types that
            cannot hold CREMI's background.
        options: lengths other than the usual.

    Raises:
        InputError: shapes differ, values are no labels, or a length is not one.
    """
    chosen = options or CleftOptions()
    truth, found, known = cleft_masks(truth_ZYX, found_ZYX, known_ZYX, zero_is_background=zero_is_background)
    hull = bounding_box(truth | found)

    def read(box: Box) -> tuple[Bools, Bools]:
        return truth[box.slices()], found[box.slices()]

    return scores_of(cleft_tally(read, hull, spacing_nm, chosen), int(np.count_nonzero(known)))


def cleft_masks(
    truth_ZYX: Array, found_ZYX: Array, known_ZYX: Array | None = None, *, zero_is_background: bool = False
) -> tuple[Bools, Bools, Bools]:
    """Return where the truth and the result are a cleft that counts, and where anything counts.

    Raises:
        InputError: as `cleft_scores`.
    """
    shape = truth_ZYX.shape
    if len(shape) != 3 or found_ZYX.shape != shape or (known_ZYX is not None and known_ZYX.shape != shape):
        others = f"{found_ZYX.shape}" + ("" if known_ZYX is None else f" and a mask of {known_ZYX.shape}")
        raise InputError(f"true clefts are {shape}, found ones {others}: give the same voxels, z, y, x, of each")
    truth = _clefts(truth_ZYX, "true clefts", zero_is_background)
    found = _clefts(found_ZYX, "found clefts", zero_is_background)
    known = np.ones(shape, bool) if known_ZYX is None else known_ZYX != 0
    if truth_ZYX.dtype == np.uint64:
        known &= (truth_ZYX < OUTSIDE) | (truth_ZYX == TRANSPARENT)
    return truth & known, found & known, known


def scores_of(tally: CleftTally, n_known: int, *, undefined_nm: float | None = None) -> CleftScores:
    """Return the scores of a tally.

    Args:
        tally: of the whole volume.
        n_known: voxels that count.
        undefined_nm: what both mean distances become where only one of truth and result has clefts: the diagonal
            of the volume, by one custom. None: NaN, and the sample is left out of a mean.
    """
    fp, fn = tally.found.beyond, tally.truth.beyond
    n_truth, n_found = tally.truth.voxels, tally.found.voxels
    reason = _reason(n_known, n_truth, n_found)
    adgt, adf = _means(tally.found.mean_nm(), tally.truth.mean_nm(), reason)
    if undefined_nm is not None and reason is not None and (n_truth or n_found):
        adgt = adf = float(undefined_nm)
        reason = f"{reason}; by request {undefined_nm} nm stand for them"
    tp = n_found - fp
    return CleftScores(
        fp=fp,
        fn=fn,
        adgt_nm=adgt,
        adf_nm=adf,
        cremi_score_nm=(adgt + adf) / 2,
        tp=tp,
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, tp + fn),
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
        n_known=n_known,
        n_truth=n_truth,
        n_found=n_found,
        tolerant=_tolerant(tally, n_known, reason),
        reason=reason,
        notes=_notes(n_known, n_truth, n_found),
    )


def mean_cleft_score(samples: Sequence[CleftScores]) -> tuple[float, int]:
    """Return the mean CREMI score of samples in nm, NaN where none has one, and how many had none."""
    defined = [s.cremi_score_nm for s in samples if isfinite(s.cremi_score_nm)]
    return (sum(defined) / len(defined) if defined else nan), len(samples) - len(defined)


def _clefts(labels: Array, what: str, zero_is_background: bool) -> Bools:
    if labels.dtype.kind not in "ub":
        raise InputError(f"{what} are {labels.dtype}: give unsigned labels, or booleans that are true in clefts")
    if labels.dtype.kind == "b":
        return labels.astype(bool)
    clefts: Bools
    if zero_is_background:
        clefts = labels != 0
        return clefts & (labels != TRANSPARENT) if labels.dtype == np.uint64 else clefts
    if labels.dtype != np.uint64:
        raise InputError(
            f"{what} are {labels.dtype}, which cannot hold CREMI's background 0xffffffffffffffff: say that 0 is "
            "background (zero_is_background=True), or give uint64"
        )
    clefts = labels != TRANSPARENT
    return clefts


def _means(adgt: float, adf: float, reason: str | None) -> tuple[float, float]:
    """Return both mean distances, NaN where there is nothing to be near to."""
    return (adgt, adf) if reason is None else (nan, nan)


def _reason(n_known: int, n_truth: int, n_found: int) -> str | None:
    if n_known == 0:
        return "no voxel counts: all are ignored, or the volume is empty"
    if not (n_truth or n_found):
        return "neither the truth nor the result has a cleft, so there are no distances and no rates"
    if not n_truth:
        return "the truth has no cleft, so the result has no distance to it, and recall asks for nothing"
    if not n_found:
        return "the result has no cleft, so the truth has no distance to it, and precision has nothing to judge"
    return None


def _notes(n_known: int, n_truth: int, n_found: int) -> tuple[str, ...]:
    sides = (("truth", n_truth), ("result", n_found))
    return tuple(
        f"{n / n_known:.0%} of the voxels of the {what} are clefts: is its 0 meant as background? CREMI's "
        "background is 0xffffffffffffffff, and its 0 a cleft (zero_is_background=True changes that)"
        for what, n in sides
        if n_known and n / n_known > _SUSPICIOUS
    )


def _tolerant(tally: CleftTally, n_known: int, reason: str | None) -> TolerantScores:
    fp, fn = tally.found.beyond_tolerance, tally.truth.beyond_tolerance
    tp = tally.either - fp - fn
    adgt, adf = _means(tally.found.clipped_mean_nm(), tally.truth.clipped_mean_nm(), reason)
    return TolerantScores(
        fp=fp,
        fn=fn,
        tp=tp,
        precision=_ratio(tp, tp + fp),
        recall=_ratio(tp, tp + fn),
        f1=_ratio(2 * tp, 2 * tp + fp + fn),
        false_positive_rate=_ratio(fp, n_known - tally.truth.voxels),
        false_negative_rate=_ratio(fn, tally.truth.voxels),
        clipped_adgt_nm=adgt,
        clipped_adf_nm=adf,
        clipped_score_nm=(adgt + adf) / 2,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else nan
