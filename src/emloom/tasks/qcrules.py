"""Which sections of a stack are bad, and why: every flag with what was measured, what was expected, and the limit.

A section is compared with those around it (`emloom.ops.outliers`), never with a fixed number: stacks differ. It
stands out where it differs by more than `spreads` usual spreads *and* by an effect that matters; in a very even
stack the first alone would flag what nobody can see.

Comparisons with neighbours are chains: one bad section makes two pairs bad. So pairs that hold a section that is
known to be bad judge nobody else, and a pair is a *jump* only where neither of its sections is bad.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite, log

import numpy as np
from numpy.typing import NDArray

from emloom.ops.outliers import running_median, usual_spread
from emloom.tasks.qcspec import CODES, Defect, RulesSpec

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]

LEAST_LIKENESS = 0.1
"""Where sections usually resemble their neighbours less than this, likeness says nothing."""
LEAST_SERIES = 3
"""Sections that a series needs for outliers."""

SD_OF_CONTRAST = 3.29
"""5th to 95th percentile of a normal distribution, in standard deviations."""
_LINES = 1.0  # least effect of stripes: twice as strong as usual
_SAME = 0.2  # a duplicate differs from the section before by less than this part of what is usual
_BETWEEN = 0.75  # a section resembles its neighbours by less than this part of what these resemble each other


@dataclass(frozen=True)
class Flag:
    """What is wrong with a section.

    Attributes:
        z: section.
        defect: what.
        statistic: column of the table that told.
        value: what was measured.
        expected: what is usual around; NaN where nothing was compared.
        limit: the value beyond which it is flagged.
    """

    z: int
    defect: Defect
    statistic: str
    value: float
    expected: float
    limit: float

    @property
    def severity(self) -> float:
        """How far beyond the limit, in distances of the limit from what was expected; at least 1."""
        usual = self.expected if isfinite(self.expected) else 0.0
        reach = abs(self.limit - usual)
        return max(1.0, abs(self.value - usual) / reach) if reach > 0 else 1.0 + abs(self.value)


@dataclass
class _Judge:
    table: dict[str, F64]
    rules: RulesSpec
    flags: list[Flag] = field(default_factory=list)

    @property
    def n(self) -> int:
        return len(self.table["z"])

    def flag(self, where: Bool, defect: Defect, statistic: str, expected: F64 | float, limit: F64 | float) -> None:
        """Flag sections, each with its own value of a column."""
        usual, limits = np.broadcast_to(expected, self.n), np.broadcast_to(limit, self.n)
        for z in np.flatnonzero(where).tolist():
            value = float(self.table[statistic][z])
            self.flags.append(Flag(z, defect, statistic, value, float(usual[z]), float(limits[z])))

    def named(self, *defects: Defect) -> Bool:
        """Return which sections have one of some defects."""
        out = np.zeros(self.n, np.bool_)
        out[[flag.z for flag in self.flags if flag.defect in defects]] = True
        return out

    def seen(self, statistic: str) -> F64:
        """Return a column without the sections that are blank."""
        return np.where(self.named("blank"), np.nan, self.table[statistic])

    def usual(self, values: F64, least: float) -> tuple[F64, float]:
        """Return what is expected of each value, and how far from it is too far."""
        expected = running_median(values, self.rules.reach)
        return expected, max(least, self.rules.spreads * usual_spread(values - expected))


def judge(table: dict[str, F64], rules: RulesSpec) -> list[Flag]:
    """Return what is wrong with the sections of a stack, in order of z, worst defect first.

    Args:
        table: columns of `emloom.tasks.qcsections`.
        rules: when a section stands out.
    """
    what = _Judge(table, rules)
    _void(what)
    if what.n >= LEAST_SERIES:
        _tone(what)
        _structure(what)
        _duplicates(what)
        if _is_alike(table):
            _neighbours(what)
            _shifts(what)
    return sorted(what.flags, key=lambda flag: (flag.z, CODES[flag.defect]))


def not_judged(table: dict[str, F64]) -> list[str]:
    """Return which rules could not be applied and why, in words; empty where all could."""
    n = len(table["z"])
    if n < LEAST_SERIES:
        return [
            f"{n} section{'s' if n > 1 else ''}: rules that compare sections need {LEAST_SERIES}, so only void, "
            "cracks and seams were looked for"
        ]
    if not _is_alike(table):
        return [
            "sections hardly resemble their neighbours: unlike sections, jumps and shifts were not looked for; "
            "align the stack first"
        ]
    return []


def _is_alike(table: dict[str, F64]) -> bool:
    known = table["like_next"][np.isfinite(table["like_next"])]
    return bool(known.size) and float(np.median(known)) >= LEAST_LIKENESS


def _void(what: _Judge) -> None:
    table = what.table
    blank = (table["void"] >= what.rules.blank) | ~(table["contrast"] > 0)
    what.flag(blank, "blank", "void", np.nan, what.rules.blank)
    for name, column in (("crack", "crack"), ("fold", "fold"), ("seam", "seams")):
        what.flag((table[column] > 0) & ~blank, name, column, 0.0, 0.0)  # type: ignore[arg-type]


def _tone(what: _Judge) -> None:
    median, contrast = what.seen("median"), what.seen("contrast")
    spread = running_median(contrast, what.rules.reach) / SD_OF_CONTRAST
    expected = running_median(median, what.rules.reach)
    away = (median - expected) / spread
    far = max(what.rules.tone, what.rules.spreads * usual_spread(away))
    what.flag(away < -far, "dark", "median", expected, expected - far * spread)
    what.flag(away > far, "bright", "median", expected, expected + far * spread)
    _lost(what, "low_contrast", "contrast")
    share = what.seen("saturated")
    usual, far = what.usual(share, what.rules.extremes)
    what.flag(share > usual + far, "saturated", "saturated", usual, usual + far)


def _lost(what: _Judge, defect: Defect, statistic: str) -> None:
    """Flag sections that keep only a part of what is usual."""
    values = what.seen(statistic)
    logs = np.log(values, out=np.full(values.shape, np.nan), where=values > 0)
    usual, far = what.usual(logs, -log(what.rules.loss))
    what.flag(values < np.exp(usual - far), defect, statistic, np.exp(usual), np.exp(usual - far))


def _structure(what: _Judge) -> None:
    _lost(what, "blurred", "sharpness")
    # A band makes steps between lines, too.
    lines = np.where(what.named("crack", "fold"), np.nan, what.seen("stripes"))
    usual, far = what.usual(lines, _LINES)
    limit = np.where(lines > usual, usual + far, usual - far)
    what.flag(np.abs(lines - usual) > far, "stripes", "stripes", usual, limit)


def _pairs(what: _Judge, statistic: str, lag: int, *bad: Defect) -> F64:
    """Return a column about pairs, NaN where either section has one of some defects."""
    wrong = what.named(*bad)
    values = what.table[statistic].copy()
    values[wrong] = np.nan
    values[: what.n - lag][wrong[lag:]] = np.nan
    return values


def _duplicates(what: _Judge) -> None:
    """Flag sections that are the one before again: bit by bit, or closer than others by far."""
    blank = what.named("blank")
    differing = what.table["differing"]
    same = np.append(False, (differing[:-1] == 0) & ~blank[:-1])
    distance = 1 - _pairs(what, "like_next", 1, "blank")
    logs = np.log(distance, out=np.full(distance.shape, np.nan), where=distance > 0)
    usual, far = what.usual(logs, -log(_SAME))
    near = np.append(False, (logs < usual - far)[:-1])
    for z in np.flatnonzero(same | near).tolist():
        limits = (1 - float(np.exp(usual[z - 1])), 1 - float(np.exp(usual[z - 1] - far)))
        what.flags.append(Flag(z, "duplicate", "like_previous", float(what.table["like_next"][z - 1]), *limits))


@dataclass(frozen=True)
class _Likeness:
    """How alike sections and later ones are; index z is about z and z + lag.

    Attributes:
        values: correlation, NaN where nothing can be said.
        usual: what was expected.
        limit: below it a pair is unlike.
    """

    values: F64
    usual: F64
    limit: F64

    @classmethod
    def of(cls, what: _Judge, statistic: str, lag: int) -> _Likeness:
        values = _pairs(what, statistic, lag, "blank", "duplicate")
        usual = running_median(values, what.rules.reach)
        far = np.maximum((1 - what.rules.alike) * usual, what.rules.spreads * usual_spread(values - usual))
        return cls(values, usual, usual - far)

    def before(self, lag: int) -> tuple[Bool, Bool]:
        """Return of every section whether it is known how alike it is to that `lag` before, and unlike."""
        known, low = (np.append(np.zeros(lag, np.bool_), of[:-lag]) for of in self.after())
        return known, low

    def after(self) -> tuple[Bool, Bool]:
        """Return of every section whether it is known how alike it is to the later one, and unlike."""
        return np.isfinite(self.values), self.values < self.limit


def _neighbours(what: _Judge) -> None:
    """Flag sections that resemble neither neighbour, then jumps: pairs of good sections that do not go on."""
    near, across = _Likeness.of(what, "like_next", 1), _Likeness.of(what, "like_next_but_one", 2)
    sides = []
    for first, second in ((near.before(1), across.before(2)), (near.after(), across.after())):
        # Where the neighbour is blank, the section beyond it is asked.
        sides.append((first[0] | second[0], np.where(first[0], first[1], second[1])))
    (known_before, low_before), (known_after, low_after) = sides
    unlike = (low_before | low_after) & (low_before | ~known_before) & (low_after | ~known_after)
    between = _between(what, near.values)
    best = np.fmax(near.values, np.append(np.nan, near.values[:-1]))
    for z in np.flatnonzero(unlike | between).tolist():
        at = z if np.isfinite(near.values[z]) else z - 1
        usual, limit = float(near.usual[at]), float(near.limit[at])
        if not unlike[z]:
            usual = float(what.table["like_next_but_one"][z - 1])
            limit = _BETWEEN * usual
        what.flags.append(Flag(z, "unlike", "like_neighbours", float(best[z]), usual, limit))
    unlike |= between
    jumps = near.after()[1][:-1] & ~unlike[:-1] & ~unlike[1:]
    for z in np.flatnonzero(jumps).tolist():
        values = (float(of[z]) for of in (near.values, near.usual, near.limit))
        what.flags.append(Flag(z + 1, "jump", "like_previous", *values))


def _between(what: _Judge, like: F64) -> Bool:
    """Return which sections resemble both neighbours less than these resemble each other."""
    out = np.zeros(what.n, np.bool_)
    across = what.table["like_next_but_one"][:-2]
    best = np.maximum(like[:-2], like[1:-1])
    out[1:-1] = (across >= LEAST_LIKENESS) & (best < _BETWEEN * across)
    return out


def _shifts(what: _Judge) -> None:
    """Flag sections that lie to the side of both neighbours, and lasting jumps to the side."""
    n, known = what.n, _pairs(what, "like_next", 1, "blank", "duplicate", "unlike")
    steps = np.stack([np.where(np.isfinite(known), what.table[name], np.nan) for name in ("shift_y", "shift_x")])[
        :, : n - 1
    ]
    drift = np.stack([running_median(row, what.rules.reach) for row in steps])
    away = steps - drift
    length = np.hypot(*away)
    far = max(what.rules.shift_nm, what.rules.spreads * usual_spread(length))
    large = length > far
    usual = float(np.nanmedian(length)) if np.isfinite(length).any() else np.nan
    z = 1
    while z < n:
        if large[z - 1]:
            back = z < n - 1 and large[z] and np.hypot(*(away[:, z - 1] + away[:, z])) < _back_again(length, z)
            name: Defect = "shifted" if back else "jump"
            what.flags.append(Flag(z, name, "shift", float(length[z - 1]), usual, far))
            z += int(back)
        z += 1


def _back_again(length: F64, z: int) -> float:
    """Return how far a section may be from where it was, after a step aside and one back."""
    return 0.5 * float(length[z - 1] + length[z])
