"""What a detector of artifacts is worth, on patches whose labels are known.

Convention: each of ``N`` patches has a score, a truth (1, 0, or -1 for unknown, which does not count) and a
section, its first voxel along z. Scores of patches are read from a `Ranking`; intervals resample **sections**,
because the patches of one section share its scratches, its staining and its focus.

``False positives per mm^2`` divides by the area that patches cover, each piece of a section once however many
patches overlap there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.box import Vec
from emloom.geometry.grid import Grid
from emloom.geometry.patches import UNKNOWN, YES, Labels, PatchLabels
from emloom.geometry.patchscores import PatchScores
from emloom.geometry.skeletons import Floats, Rows
from emloom.metrics.agreement import common_rows
from emloom.metrics.bootstrap import Interval, interval, require_resampling
from emloom.metrics.curves import area_mm2
from emloom.metrics.ranking import Ranking, ranking

Statistic = Callable[[Ranking], float]


@dataclass(frozen=True, eq=False)
class Judged:
    """Patches with a score and a truth.

    Attributes:
        starts: int64 [N, 3], first voxel (z, y, x).
        shape: voxels (z, y, x) of a patch.
        grid: voxel size and offset of the volume.
        scores: float64 [N].
        truth: int8 [N], 1 yes, 0 no, -1 unknown.
        columns: further texts about every patch, [N] each, such as "tissue".
        n_unscored: patches with a truth but without a score, which are not among the N.
    """

    starts: Rows
    shape: Vec
    grid: Grid
    scores: Floats
    truth: Labels
    columns: Mapping[str, NDArray[np.str_]]
    n_unscored: int = 0

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def known(self) -> NDArray[np.bool_]:
        """bool [N]: patches that count."""
        known: NDArray[np.bool_] = self.truth != UNKNOWN
        return known

    @property
    def sections(self) -> Rows:
        """int64 [N]: the section of each patch."""
        return self.starts[:, 0]

    def ranking(self) -> Ranking:
        """Return the patches that count by their score."""
        return ranking(self.scores, self.truth, ignore=UNKNOWN)

    def taken(self, rows: NDArray[np.bool_] | Rows) -> Judged:
        """Return some patches: a boolean for each, or their numbers."""
        return replace(
            self,
            starts=self.starts[rows],
            scores=self.scores[rows],
            truth=self.truth[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
        )

    def covered_mm2(self) -> float:
        """Return the area of the patches that count, in mm^2, overlaps counted once."""
        return area_mm2(covered_voxels(self.starts[self.known], self.shape), self.grid.voxel_size_nm)


def judged(scores: PatchScores, truth: PatchLabels, name: str | None = None, *, partial: bool = False) -> Judged:
    """Return the patches of both tables, in the order of the truth.

    Args:
        scores: what the detector says; patches that the truth does not have are left out.
        truth: each patch once; `PatchLabels.consensus` makes it so.
        name: the class; None: the first, which is looked for.
        partial: leave out patches of known truth without a score; else they are an error.

    Raises:
        InputError: grids or shapes of patches differ, the truth has a patch twice, no patch is in both, or a
            patch of known truth has no score.
    """
    if scores.shape != truth.shape or not scores.grid.matches(truth.grid):
        raise InputError(
            f"{scores.source} has scores of patches of {scores.shape} voxels of {scores.grid.voxel_size_nm} nm "
            f"at {scores.grid.offset_nm} nm, {truth.source} labels of {truth.shape} voxels of "
            f"{truth.grid.voxel_size_nm} nm at {truth.grid.offset_nm} nm: they must be of the same patches"
        )
    if len(np.unique(truth.starts, axis=0)) < len(truth):
        raise InputError(f"{truth.source} has a patch twice: choose one annotator, or take the consensus")
    said = truth.of(name or truth.classes[0])
    rows, at = common_rows(truth.starts, scores.starts)
    without = np.delete(np.arange(len(truth)), rows)
    without = without[said[without] != UNKNOWN]
    if not rows.size:
        raise InputError(
            f"{scores.source} and {truth.source} have no patch in common: first voxels are "
            f"{_extent(scores.starts)} and {_extent(truth.starts)} (z, y, x)"
        )
    if without.size and not partial:
        raise InputError(
            f"{len(without)} of {len(truth)} patches of {truth.source} have no score in {scores.source}, such as "
            f"the one at {truth.starts[without[0]].tolist()} (z, y, x): score all, or ask for a partial "
            "evaluation"
        )
    return Judged(
        truth.starts[rows],
        truth.shape,
        truth.grid,
        scores.scores[at],
        said[rows],
        {column: values[rows] for column, values in truth.columns.items()},
        len(without),
    )


def bootstrapped(
    patches: Judged,
    statistics: Mapping[str, Statistic],
    rng: np.random.Generator,
    *,
    resamples: int = 2000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return scores of rankings with their intervals, from resampled sections.

    What `emloom.metrics.bootstrap.bootstrap` returns for one ranking per section, drawn in the same order,
    without making those rankings.

    Args:
        patches: patches with scores and truths.
        statistics: name -> score of a ranking, such as `average_precision`.
        rng: the source of all randomness.
        resamples: how many to draw.
        level: of the intervals.

    Raises:
        InputError: no patch counts, fewer than 1 resample, or the level is not between 0 and 1.
    """
    known = patches.taken(patches.known)
    sections, section = np.unique(known.sections, return_inverse=True)
    require_resampling(len(sections), resamples, level)
    whole = known.ranking()
    # Rows of the ranking are scores, highest first.
    row = np.searchsorted(-whole.scores, -known.scores)
    hit = known.truth == YES
    values = {name: float(of(whole)) for name, of in statistics.items()}
    drawn: dict[str, list[float]] = {name: [] for name in statistics}
    if len(sections) > 1:
        for chosen in rng.integers(0, len(sections), (resamples, len(sections))):
            weight = np.bincount(chosen, minlength=len(sections))[section]
            again = Ranking(
                whole.scores, *(_counted(row[which], weight[which], len(whole.scores)) for which in (hit, ~hit))
            )
            for name, of in statistics.items():
                drawn[name].append(float(of(again)))
    return {
        name: interval(values[name], np.array(scores, np.float64), len(sections), level)
        for name, scores in drawn.items()
    }


def covered_voxels(starts: Rows, shape: Vec) -> int:
    """Return how many voxels of the plane patches cover, summed over sections; where several overlap, once.

    Args:
        starts: int64 [N, 3], first voxel (z, y, x).
        shape: voxels (z, y, x) of a patch; of a thick one the outline counts once, in its first section.
    """
    order = np.argsort(starts[:, 0], kind="stable")
    sections = np.split(starts[order, 1:], np.flatnonzero(np.diff(starts[order, 0])) + 1)
    # Boxes of evaluation have the same patches in every section.
    seen: dict[bytes, int] = {}
    total = 0
    for places in sections:
        key = np.unique(places - places.min(axis=0, initial=2**62), axis=0).tobytes()
        if key not in seen:
            seen[key] = _union(places, shape[1], shape[2])
        total += seen[key]
    return total


def _union(places: Rows, height: int, width: int) -> int:
    """Return the area of the union of rectangles at places [N, 2], strip by strip between all their edges in y."""
    if not len(places):
        return 0
    xs = np.unique(np.concatenate([places[:, 1], places[:, 1] + width]))
    first, last = np.searchsorted(xs, places[:, 1]), np.searchsorted(xs, places[:, 1] + width)
    ys, strip = np.unique(np.concatenate([places[:, 0], places[:, 0] + height]), return_inverse=True)
    changes = np.split(np.argsort(strip, kind="stable"), np.cumsum(np.bincount(strip))[:-1])
    open_, total, n = np.zeros(len(xs), np.int64), 0, len(places)
    for rows, depth in zip(changes[:-1], np.diff(ys).tolist(), strict=True):
        step = np.where(rows < n, 1, -1)  # a rectangle begins, or ends
        np.add.at(open_, first[rows % n], step)
        np.add.at(open_, last[rows % n], -step)
        total += depth * int(np.diff(xs) @ (np.cumsum(open_)[:-1] > 0))
    return total


def _counted(rows: Rows, weights: Rows, n: int) -> Rows:
    # Sums of whole numbers below 2^53 are exact in float64.
    counts: Rows = np.bincount(rows, weights, n).astype(np.int64)
    return counts


def _extent(starts: Rows) -> str:
    if not len(starts):
        return "none"
    return f"{starts.min(axis=0).tolist()} to {starts.max(axis=0).tolist()}"
