"""Clefts as objects: how many synapses were found, missed and invented.

An object of the truth and one of the result may match where enough of their union is common; matches are one to
one, as many as possible, and of those with the largest sum of IoU (`metrics.matching`)::

    IoU >= 1/10        the same synapse (the default: of thin plates, a shift by one voxel takes half of the IoU)
    TP = matches       FP = found objects without one       FN = true objects without one
    precision = TP / (TP + FP)      recall = TP / (TP + FN)      F1 = 2 TP / (2 TP + FP + FN)

One to one: a cleft found in two pieces is one match and one invention; two true clefts in one found object are one
match and one miss. Touching the truth is not enough: a found object that covers everything has no IoU.

True objects below a size may be *doubtful*: they are not missed where nothing matches them, and what matches them
is not invented. Objects found are never left out here: a size filter belongs to whoever finds them.

**Intervals** are bootstrap intervals over objects (`metrics.bootstrap`): matches, inventions and misses are drawn
with replacement, as many as there are. With so few kinds, that is one draw of a multinomial. They say how certain
a score is if synapses come one by one; they know nothing of how tissue differs from place to place, for which
boxes must be drawn (`bootstrap(tallies, ...)`). Where nothing is wrong, they have no width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.metrics.bootstrap import Interval, interval, require_resampling
from emloom.metrics.contingency import Contingency, Ids
from emloom.metrics.matching import matched, pairs_of

RATIOS = ("precision", "recall", "f1")


@dataclass(frozen=True)
class ObjectOptions:
    """How objects are matched.

    Attributes:
        min_iou: objects match where they have at least this IoU, above 0 and at most 1.
        doubtful_vox: true objects smaller than this are doubtful.

    Raises:
        InputError: a number is out of its range.
    """

    min_iou: float = 0.1
    doubtful_vox: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.min_iou <= 1:
            raise InputError(
                f"min_iou {self.min_iou} is not above 0 and at most 1: 0.1 asks for a tenth of the union"
            )
        if self.doubtful_vox < 0:
            raise InputError(f"doubtful_vox {self.doubtful_vox} is negative: give a number of voxels, 0 for none")


@dataclass(frozen=True)
class ObjectTally:
    """Objects counted; tallies of several volumes add up.

    Attributes:
        tp: matches.
        fp: found objects without one.
        fn: true objects without one.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: ObjectTally) -> ObjectTally:
        return ObjectTally(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float:
        """Part of the found objects that are true; NaN where nothing was found."""
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else nan

    @property
    def recall(self) -> float:
        """Part of the true objects that were found; NaN where there are none."""
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else nan

    @property
    def f1(self) -> float:
        """Their harmonic mean; NaN where there is neither truth nor result."""
        below = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / below if below else nan

    @classmethod
    def pooled(cls, tallies: Iterable[ObjectTally]) -> ObjectTally:
        """Return the tally of several volumes together."""
        return sum(tallies, cls())


@dataclass(frozen=True)
class ObjectScores:
    """How well objects were found; see the module for the formulae.

    Attributes:
        tp: matches.
        fp: found objects without one.
        fn: true objects without one, doubtful ones aside.
        doubtful: true objects that are doubtful.
        precision: 0 to 1, more is better; NaN where nothing was found.
        precision_low: lower end of its 95 % interval.
        precision_high: upper end.
        recall: 0 to 1, more is better; NaN where there is no true object.
        recall_low: lower end of its 95 % interval.
        recall_high: upper end.
        f1: 0 to 1, more is better; NaN where there is neither.
        f1_low: lower end of its 95 % interval.
        f1_high: upper end.
        mean_iou: of the matches; NaN without one.
        min_iou: that a match needs.
        reason: why something is NaN, None where everything is defined.
    """

    tp: int
    fp: int
    fn: int
    doubtful: int
    precision: float
    precision_low: float
    precision_high: float
    recall: float
    recall_low: float
    recall_high: float
    f1: float
    f1_low: float
    f1_high: float
    mean_iou: float
    min_iou: float
    reason: str | None = None

    @property
    def tally(self) -> ObjectTally:
        """The counts alone."""
        return ObjectTally(self.tp, self.fp, self.fn)


@dataclass(frozen=True, eq=False)
class ObjectMatches:
    """Which objects are the same.

    Attributes:
        truth: uint64 [n], true objects that have a match.
        found: uint64 [n], the match of each.
        iou: float64 [n], of each match.
        missed: uint64, true objects without one, ascending.
        invented: uint64, found objects without one, ascending.
        doubtful: uint64, true objects that are doubtful, with a match or without, ascending.
    """

    truth: Ids
    found: Ids
    iou: NDArray[np.float64]
    missed: Ids
    invented: Ids
    doubtful: Ids

    @property
    def sure(self) -> NDArray[np.bool_]:
        """Which matches are of true objects that are not doubtful, bool [n]."""
        return ~np.isin(self.truth, self.doubtful)

    @property
    def tally(self) -> ObjectTally:
        """What counts."""
        missed = len(np.setdiff1d(self.missed, self.doubtful))
        return ObjectTally(int(self.sure.sum()), len(self.invented), missed)


def object_matches(table: Contingency, options: ObjectOptions | None = None) -> ObjectMatches:
    """Return which objects match; see `object_scores`."""
    chosen = options or ObjectOptions()
    pairs = pairs_of(table)
    rows = matched(pairs, chosen.min_iou)
    truth, found = pairs.truth[rows], pairs.segment[rows]
    (ids, sizes), (others, _) = table.truth_sizes(), table.segment_sizes()
    real = ids != 0
    return ObjectMatches(
        truth=truth,
        found=found,
        iou=pairs.iou[rows],
        missed=np.setdiff1d(ids[real], truth),
        invented=np.setdiff1d(others[others != 0], found),
        doubtful=ids[real & (sizes < chosen.doubtful_vox)],
    )


def object_scores(table: Contingency, options: ObjectOptions | None = None, *, seed: int = 0) -> ObjectScores:
    """Return how well the objects of one side are found on the other.

    Args:
        table: overlap of true and found objects, with 0 as background on both sides, and nothing ignored: a found
            object on background is one as well.
        options: how they are matched.
        seed: of the intervals.
    """
    chosen = options or ObjectOptions()
    matches = object_matches(table, chosen)
    tally = matches.tally
    ends = {name: (value.low, value.high) for name, value in object_intervals(tally, seed=seed).items()}
    iou = matches.iou[matches.sure]
    return ObjectScores(
        tp=tally.tp,
        fp=tally.fp,
        fn=tally.fn,
        doubtful=len(matches.doubtful),
        precision=tally.precision,
        precision_low=ends["precision"][0],
        precision_high=ends["precision"][1],
        recall=tally.recall,
        recall_low=ends["recall"][0],
        recall_high=ends["recall"][1],
        f1=tally.f1,
        f1_low=ends["f1"][0],
        f1_high=ends["f1"][1],
        mean_iou=float(iou.mean()) if iou.size else nan,
        min_iou=chosen.min_iou,
        reason=_reason(tally),
    )


def object_intervals(
    tally: ObjectTally, *, seed: int = 0, resamples: int = 2000, level: float = 0.95
) -> Mapping[str, Interval]:
    """Return precision, recall and F1 with bootstrap intervals over objects.

    Args:
        tally: the counts, of one volume or pooled over several.
        seed: of the draws.
        resamples: how many to draw.
        level: between 0 and 1.

    Raises:
        InputError: fewer than 1 resample, or the level is not between 0 and 1.
    """
    counts = np.array([tally.tp, tally.fp, tally.fn])
    n = int(counts.sum())
    require_resampling(max(n, 1), resamples, level)
    drawn = np.zeros((0, 3), np.int64)
    if n > 1:
        drawn = np.random.default_rng(seed).multinomial(n, counts / n, size=resamples)
    tp, fp, fn = drawn.T
    with np.errstate(invalid="ignore"):
        scores = {"precision": tp / (tp + fp), "recall": tp / (tp + fn), "f1": 2 * tp / (2 * tp + fp + fn)}
    return {name: interval(getattr(tally, name), scores[name], max(n, 1), level) for name in RATIOS}


def _reason(tally: ObjectTally) -> str | None:
    reasons = [] if tally.tp + tally.fn else ["the truth has no object that counts"]
    reasons += [] if tally.tp + tally.fp else ["the result has no object"]
    reasons += [] if tally.tp else ["nothing matches, so there is no mean IoU"]
    if tally.tp + tally.fp + tally.fn == 1:
        reasons.append("one object says nothing about how objects differ: no interval")
    return "; ".join(reasons) or None
