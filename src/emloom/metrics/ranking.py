"""Positives and negatives by score: what ROC, precision-recall and calibration are read from.

One class stands against the rest: voxels of the class are *positive*, all others that count *negative*. Scores
order them; a voxel is called positive where its score is at least a threshold. Two tables hold what there is to
know::

    ScoreHistogram   quantised scores (uint8, uint16): one row per level, fixed shape, additive over blocks
    Ranking          distinct scores, highest first, with the positives and negatives that have each

    score_histogram(scores, truth).ranking() == ranking(scores / max_level, truth)            nothing is lost
    add(score_histogram(block) for block in blocks) == score_histogram(whole)                 blockwise == whole

Voxels of equal score cannot be told apart by any threshold; they stand in one row and are called together. So no
score depends on the order of voxels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, DTypeLike, NDArray

from emloom.errors import InputError
from emloom.metrics.classify import Confusion
from emloom.metrics.counts import Array, Counts, CountTable, Ignore, Mask, slabs

F64 = NDArray[np.float64]

NO_POSITIVE = "no voxel is positive: the class does not occur in the truth that counts"
NO_NEGATIVE = "no voxel is negative: the class is all the truth that counts"


@dataclass(frozen=True, eq=False)
class Ranking:
    """Positives and negatives per distinct score, highest score first.

    Attributes:
        scores: float64 [K], strictly decreasing.
        positives: int64 [K], voxels of the class that have the score.
        negatives: int64 [K], the other voxels that have it.

    Raises:
        InputError: lengths differ, scores are not finite and strictly decreasing, or counts are negative.
    """

    scores: F64
    positives: Counts
    negatives: Counts

    def __post_init__(self) -> None:
        for name, dtype in (("scores", np.float64), ("positives", np.int64), ("negatives", np.int64)):
            column = np.asarray(getattr(self, name))
            if column.dtype != dtype or column.shape != (np.size(self.scores),):
                raise InputError(
                    f"{name} is {column.dtype} {column.shape}: a ranking has three columns of equal length, here "
                    f"{np.size(self.scores)} rows of {np.dtype(dtype)}"
                )
            frozen = column.view()
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)
        if not (np.isfinite(self.scores).all() and (self.scores[1:] < self.scores[:-1]).all()):
            raise InputError("the scores of a ranking are not finite and strictly decreasing: use `ranking`")
        if self.scores.size and min(int(self.positives.min()), int(self.negatives.min())) < 0:
            raise InputError("a ranking holds a negative count: counts are 0 or more")

    @property
    def n_positive(self) -> int:
        """Voxels of the class."""
        return int(self.positives.sum())

    @property
    def n_negative(self) -> int:
        """The other voxels that count."""
        return int(self.negatives.sum())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Ranking):
            return NotImplemented
        return all(
            np.array_equal(getattr(self, n), getattr(other, n)) for n in ("scores", "positives", "negatives")
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class ScoreHistogram(CountTable):
    """Negatives and positives per level of a quantised score.

    Attributes:
        counts: int64 [2, L], row 0 the negatives, row 1 the positives; L is 256 for uint8, 65 536 for uint16.

    Raises:
        InputError: the counts are not int64, negative or not [2, L].
    """

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[0] != 2 or shape[1] < 2:
            raise InputError(f"a score histogram is [2, levels], not {shape}: negatives, then positives")

    @property
    def levels(self) -> int:
        """Levels, whether they occur or not."""
        return int(self.counts.shape[1])

    def ranking(self, values: ArrayLike | None = None) -> Ranking:
        """Return the levels that occur, highest first.

        Args:
            values: what each level means [L], strictly increasing; None: level / (L - 1), a probability stored as
                0 to 255. Logits that were stored with clipping have other ones.

        Raises:
            InputError: there is not one value per level, or they do not increase.
        """
        of_level = np.arange(self.levels) / (self.levels - 1) if values is None else np.asarray(values, np.float64)
        if of_level.shape != (self.levels,) or not (of_level[1:] > of_level[:-1]).all():
            raise InputError(f"{of_level.shape} values of levels: give {self.levels}, strictly increasing")
        occurs = np.flatnonzero(self.counts.sum(axis=0))[::-1]
        negatives, positives = self.counts[:, occurs]
        return Ranking(of_level[occurs], positives, negatives)

    def confusion(self, level: int) -> Confusion:
        """Return the confusion matrix of calling positive what scores at least a level; class 1 is positive.

        Raises:
            InputError: the level is below 0 or above L (where nothing is called positive).
        """
        if not 0 <= level <= self.levels:
            raise InputError(f"level {level} is outside 0 .. {self.levels}: of {self.levels} levels choose one")
        below, above = self.counts[:, :level].sum(axis=1), self.counts[:, level:].sum(axis=1)
        return Confusion(np.stack([below, above], axis=1))


def score_histogram(
    scores: Array, truth: Array, *, positive: int = 1, ignore: Ignore = 255, mask: Mask | None = None
) -> ScoreHistogram:
    """Count positives and negatives per level of a quantised score, in one pass and without sorting.

    Args:
        scores: uint8 or uint16, any shape: the score of one class. `quantised` makes them of probabilities.
        truth: class labels of the same shape; any integer type or bool.
        positive: the class the scores are of; all other labels that count are negative.
        ignore: value or values of the truth whose voxels do not count; () for none.
        mask: bool, the shape of `truth`; only True voxels count.

    Raises:
        InputError: shapes differ, scores are not uint8 or uint16, or the truth is not integer.
    """
    if scores.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"scores have dtype {scores.dtype}: a histogram counts uint8 or uint16; use `quantised` on "
            "probabilities, or `ranking` for floats in memory"
        )
    counts = np.zeros((2, np.iinfo(scores.dtype).max + 1), np.int64)
    for t, s, known in slabs(truth, scores, ignore, mask):
        _count(s.astype(scores.dtype.newbyteorder("="), copy=False), t == positive, known, counts)
    return ScoreHistogram(counts)


def ranking(
    scores: Array, truth: Array, *, positive: int = 1, ignore: Ignore = 255, mask: Mask | None = None
) -> Ranking:
    """Rank all distinct scores, exactly; sorts them, so they must fit in memory.

    Args:
        scores: floating or integer, any shape: the score of one class, higher is more likely. Nothing is rounded
            beyond float64.
        truth: class labels of the same shape; any integer type or bool.
        positive: the class the scores are of; all other labels that count are negative.
        ignore: value or values of the truth whose voxels do not count; () for none.
        mask: bool, the shape of `truth`; only True voxels count.

    Raises:
        InputError: shapes differ, a score that counts is not finite, or the truth is not integer.
    """
    if scores.dtype.kind not in "fui":
        raise InputError(f"scores have dtype {scores.dtype}: give numbers, higher where the class is more likely")
    kept = [
        (s[known].astype(np.float64), t[known] == positive) for t, s, known in slabs(truth, scores, ignore, mask)
    ]
    values = np.concatenate([np.zeros(0), *(v for v, _ in kept)])
    hits = np.concatenate([np.zeros(0, np.bool_), *(h for _, h in kept)])
    if not np.isfinite(values).all():
        raise InputError("a score that counts is NaN or infinite: mask voxels without a score")
    distinct, at = np.unique(-values, return_inverse=True)
    positives = np.bincount(at[hits], minlength=distinct.size).astype(np.int64)
    negatives = np.bincount(at[~hits], minlength=distinct.size).astype(np.int64)
    return Ranking(0.0 - distinct, positives, negatives)


def quantised(probabilities: Array, dtype: DTypeLike = np.uint8) -> Array:
    """Return probabilities as levels, 0 to 255 or 65 535, rounded to the nearest.

    A level holds all voxels that a threshold then cannot tell apart. Where a network is sure of most voxels, 256
    levels put many of them on the highest one, and scores change: take uint16, or `ranking`.

    Args:
        probabilities: floats within 0 and 1, any shape.
        dtype: uint8, as predictions are stored, or uint16.

    Raises:
        InputError: a value is NaN, below 0 or above 1, or the type is another one.
    """
    levels = np.dtype(dtype)
    if levels not in (np.uint8, np.uint16):
        raise InputError(f"cannot count levels of {levels}: use uint8 or uint16")
    if probabilities.dtype.kind != "f" or not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise InputError(f"{probabilities.dtype} values are not probabilities: give floats within 0 and 1")
    # In float64, where 65 535 and its halves are exact; float16 holds neither.
    return np.rint(probabilities.astype(np.float64) * np.iinfo(levels).max).astype(levels)


@njit(cache=True, nogil=True)
def _count(scores: NDArray[Any], hits: Mask, known: Mask, counts: Counts) -> None:
    for i in range(scores.size):
        if known[i]:
            counts[1 if hits[i] else 0, scores[i]] += 1
