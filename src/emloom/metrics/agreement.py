"""How far two people agree about the same patches, and what that leaves for a machine to reach.

Convention: both said yes or no of ``n`` patches; unknown or unsure by either does not count. ``n_11`` said yes
by both, ``n_10`` by the first alone, and so on::

    agreement   (n_11 + n_00) / n
    kappa       (agreement - chance) / (1 - chance),   chance = (n_1. n_.1 + n_0. n_.0) / n^2          Cohen 1960
    as if the second predicted the first:   precision n_11 / n_.1    recall n_11 / n_1.    F1 = Dice, symmetric

The interval of kappa is its large-sample one, from the standard error of Fleiss, Cohen and Everitt (Psychological
Bulletin 1969, doi:10.1037/h0028106), cut at -1 and 1. It takes patches for independent, which neighbours are
not: read it as the least uncertainty there is.

The **ceiling**: a machine that is tested against one annotator cannot be told from the other one above their F1.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import nan, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from emloom.errors import InputError
from emloom.geometry.patches import NO, UNKNOWN, YES, Labels, PatchLabels, require_same_patches
from emloom.geometry.skeletons import Rows
from emloom.metrics.classify import Confusion, confusion, confusion_scores, rates

_WORDS = {YES: "yes", NO: "no", UNKNOWN: "unsure"}


@dataclass(frozen=True)
class Agreement:
    """How far two annotators agree; see the module.

    Attributes:
        first: name of the one taken for the truth.
        second: name of the one taken for a prediction.
        both_yes: patches that both call so.
        first_only: those that only the first calls so.
        second_only: those that only the second calls so.
        both_no: those that neither does.
        kappa: Cohen's; NaN where both say one and the same of all.
        low: lower end of its interval.
        high: upper end.
        reason: why kappa is NaN; else empty.
    """

    first: str
    second: str
    both_yes: int
    first_only: int
    second_only: int
    both_no: int
    kappa: float
    low: float
    high: float
    reason: str

    @property
    def n(self) -> int:
        """Patches that both know."""
        return self.both_yes + self.both_no + self.n_disagreements

    @property
    def n_disagreements(self) -> int:
        """Patches that one calls yes and the other no."""
        return self.first_only + self.second_only

    @property
    def agreement(self) -> float:
        """Part of the patches of which both say the same; NaN of none."""
        return (self.both_yes + self.both_no) / self.n if self.n else nan

    @property
    def precision(self) -> float:
        """Part of the second's yes that is the first's."""
        return self._rates[0]

    @property
    def recall(self) -> float:
        """Part of the first's yes that is the second's."""
        return self._rates[1]

    @property
    def f1(self) -> float:
        """Harmonic mean of both, the Dice coefficient of their yes."""
        return self._rates[2]

    @property
    def _rates(self) -> tuple[float, float, float]:
        found = rates(self.both_yes, self.both_yes + self.second_only, self.both_yes + self.first_only)
        return found.precision, found.recall, found.f1

    def to_dict(self) -> dict[str, float | int | str]:
        """Return all numbers by name."""
        derived = ("n", "n_disagreements", "agreement", "precision", "recall", "f1")
        return {**vars(self), **{name: getattr(self, name) for name in derived}}


@dataclass(frozen=True, eq=False)
class Differences:
    """Where two tables of labels differ, one row per patch and class.

    Attributes:
        starts: int64 [M, 3], first voxel (z, y, x) of the patch.
        classes: the class, [M] texts.
        first: what the first says, int8 [M]; -1 unsure.
        second: what the second says.
        only_first: int64 [A, 3], patches that only the first has.
        only_second: int64 [B, 3], patches that only the second has.
    """

    starts: Rows
    classes: NDArray[np.str_]
    first: Labels
    second: Labels
    only_first: Rows
    only_second: Rows

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return the differences as columns of a table; "absent" where one has no such patch."""
        starts = np.concatenate([self.starts, self.only_first, self.only_second])
        a, b = len(self.only_first), len(self.only_second)
        first = [*(_WORDS[v] for v in self.first.tolist()), *["present"] * a, *["absent"] * b]
        second = [*(_WORDS[v] for v in self.second.tolist()), *["absent"] * a, *["present"] * b]
        named = [*self.classes.tolist(), *[""] * (a + b)]
        texts = {
            name: np.array(v, np.str_) for name, v in (("class", named), ("first", first), ("second", second))
        }
        return {**{axis: starts[:, k] for k, axis in enumerate("zyx")}, **texts}


def agreement(
    first: Labels, second: Labels, *, names: tuple[str, str] = ("first", "second"), level: float = 0.95
) -> Agreement:
    """Return how far two annotators agree about one class.

    Args:
        first: int8 [N], 1 yes, 0 no, -1 unknown: the one taken for the truth.
        second: int8 [N], of the same patches.
        names: what to call them.
        level: of the interval.

    Raises:
        InputError: they are of different patches, a label is another number, or the level is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"level {level} of an interval is not between 0 and 1: 0.95 is usual")
    # An unknown by the second is an unknown of the pair.
    known = np.where(second == UNKNOWN, UNKNOWN, first)
    table = confusion(known, np.where(second == UNKNOWN, NO, second), 2, ignore=UNKNOWN)
    (both_no, second_only), (first_only, both_yes) = table.counts.tolist()
    kappa, low, high, reason = _kappa(table, level)
    return Agreement(*names, both_yes, first_only, second_only, both_no, kappa, low, high, reason)


def pairwise_agreement(labels: PatchLabels, name: str | None = None) -> list[Agreement]:
    """Return the agreement of all pairs of annotators that judged patches in common, in the order of their names.

    Args:
        labels: several rows per patch, one per annotator.
        name: the class; None: the first, which is looked for.

    Raises:
        InputError: there is no such class.
    """
    found = []
    for one, other in combinations(labels.annotators, 2):
        a, b = labels.by(one), labels.by(other)
        rows_a, rows_b = common_rows(a.starts, b.starts)
        if len(rows_a):
            said = [part.of(name or labels.classes[0]) for part in (a, b)]
            found.append(agreement(said[0][rows_a], said[1][rows_b], names=(one, other)))
    return found


def differences(first: PatchLabels, second: PatchLabels) -> Differences:
    """Return where two tables differ: of patches both have, in classes both have; and patches that only one has.

    Args:
        first: each patch once; `PatchLabels.consensus` makes it so.
        second: likewise.

    Raises:
        InputError: a table has a patch twice, grids or shapes of patches differ, or no class is in both.
    """
    require_same_patches(first, second)
    classes = [name for name in first.classes if name in second.classes]
    if not classes:
        raise InputError(
            f"{first.source} has labels of {', '.join(first.classes)}, {second.source} of "
            f"{', '.join(second.classes)}: no class is in both; rename one"
        )
    for part in (first, second):
        if len(np.unique(part.starts, axis=0)) < len(part):
            raise InputError(f"{part.source} has a patch twice: choose one annotator, or take the consensus")
    rows_a, rows_b = common_rows(first.starts, second.starts)
    a = np.stack([first.of(name)[rows_a] for name in classes], axis=1)
    b = np.stack([second.of(name)[rows_b] for name in classes], axis=1)
    row, at = np.nonzero(a != b)
    alone = [np.delete(part.starts, rows, axis=0) for part, rows in ((first, rows_a), (second, rows_b))]
    return Differences(
        first.starts[rows_a][row], np.array(classes, np.str_)[at], a[row, at], b[row, at], alone[0], alone[1]
    )


def common_rows(a: Rows, b: Rows) -> tuple[Rows, Rows]:
    """Return the rows of two tables of patches, each once, that are the same patch; in the order of the first.

    Args:
        a: int64 [N, 3], first voxels, each once.
        b: int64 [M, 3], likewise.
    """
    _, number = np.unique(np.concatenate([a, b]), axis=0, return_inverse=True)
    number = number.reshape(-1)
    at = np.full(number.size, -1, np.int64)
    at[number[len(a) :]] = np.arange(len(b))
    partner = at[number[: len(a)]]
    rows = np.flatnonzero(partner >= 0)
    return rows, partner[rows]


def _kappa(table: Confusion, level: float) -> tuple[float, float, float, str]:
    scores = confusion_scores(table)
    if np.isnan(scores.kappa):
        return nan, nan, nan, "; ".join(scores.reasons)
    p = table.counts / table.n_voxels
    row, column = p.sum(axis=1), p.sum(axis=0)
    chance, kappa = float(row @ column), scores.kappa
    diagonal = float(sum(p[i, i] * (1 - (row[i] + column[i]) * (1 - kappa)) ** 2 for i in range(2)))
    beside = float(sum(p[i, 1 - i] * (column[i] + row[1 - i]) ** 2 for i in range(2))) * (1 - kappa) ** 2
    variance = diagonal + beside - (kappa - chance * (1 - kappa)) ** 2
    half = float(norm.ppf((1 + level) / 2)) * sqrt(max(0.0, variance) / table.n_voxels) / (1 - chance)
    return kappa, max(-1.0, kappa - half), min(1.0, kappa + half), ""
