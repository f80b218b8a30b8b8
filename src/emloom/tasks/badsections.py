"""Which sections of a stack are bad and why, and what each of them is made of instead.

Reasons are words: of `emloom qc` (`qcspec.DEFECTS`), of the table of `emloom align`, or "named" where a person
says so. A person has the last word. ::

    sections   0  1  x  x  4  ~  6      x bad   ~ cracked
    before           1  1     4         the nearest that is whole, on either side; -1: none
    after            4  4     6
    t               1/3 2/3             where it lies between them

The nearest of the two is the one before where both are equally near.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.io.files import explained
from emloom.tasks.repairspec import BadSpec, Filling

State = Literal["measured", "replaced", "between", "mended", "left"]
NAMED = "named"


@dataclass(frozen=True)
class Found:
    """What is wrong with the sections of a stack.

    Attributes:
        reasons: of every section, in words; empty where it is good.
        cracked: of every section, whether its parts are to be put together; never of a bad one.
        otherwise: of a cracked section, for what it is replaced if its parts cannot be put together.
    """

    reasons: tuple[str, ...]
    cracked: tuple[bool, ...]
    otherwise: tuple[str, ...]

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Which sections others can be made of."""
        return np.array([not why and not torn for why, torn in zip(self.reasons, self.cracked, strict=True)])


def find(
    n: int, spec: BadSpec, defects: Mapping[int, Iterable[str]], listed: Mapping[int, str] | None = None
) -> Found:
    """Return what is wrong with n sections.

    Args:
        n: how many there are.
        spec: what a person says.
        defects: of sections, as `emloom qc` names them.
        listed: reasons of sections that the table of an alignment calls bad.

    Raises:
        InputError: a section is named that does not exist, or as bad and good at once.
    """
    _require_sections(n, spec)
    why: list[list[str]] = [[] for _ in range(n)]
    for z, text in (listed or {}).items():
        why[z].append(text or "bad in the alignment")
    torn = np.zeros(n, np.bool_)
    for z, found in defects.items():
        names = list(found)
        why[z] += [name for name in names if name in spec.defects and name not in why[z]]
        torn[z] = "crack" in names and "blank" not in names
    for z in spec.good:
        why[z], torn[z] = [], False
    torn[list(spec.cracked)] = True  # a person says that it can be mended
    torn[[z for z in spec.bad if z not in spec.cracked]] = False
    for z in spec.bad:
        why[z].insert(0, NAMED)
    words = ["; ".join(one) for one in why]
    # A gap makes a section unlike its neighbours: mended, it may not be.
    mend = [bool(t) and not (z in spec.bad and z in spec.cracked) for z, t in enumerate(torn)]
    reasons = tuple("" if m else w for m, w in zip(mend, words, strict=True))
    return Found(reasons, tuple(mend), tuple(w if m else "" for m, w in zip(mend, words, strict=True)))


def _require_sections(n: int, spec: BadSpec) -> None:
    for name in ("bad", "good", "cracked"):
        beyond = [z for z in getattr(spec, name) if z >= n]
        if beyond:
            raise InputError(f"section {beyond[0]} is named {name}, and there are {n}: give 0 to {n - 1}")
    both = sorted(set(spec.good) & (set(spec.bad) | set(spec.cracked)))
    if both:
        raise InputError(f"section {both[0]} is named good, and bad or cracked: leave one of them out")


def listed_in(path: Path) -> dict[int, str]:
    """Return the reasons of sections that a `sections.csv` calls bad (columns z, bad and, if it has one, reason).

    Raises:
        InputError: it is missing, damaged, or has no such columns.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: align again, or copy the folder again")
    with explained(path, "read"), path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    try:
        return {
            int(row["z"]): str(row.get("reason") or "")
            for row in rows
            if row["bad"].strip().lower() not in ("", "0", "0.0", "false")
        }
    except (KeyError, ValueError, AttributeError) as problem:
        raise InputError(
            f"{path} tells no bad sections ({problem!r}): it needs the columns z and bad, one row per section"
        ) from None


@dataclass(frozen=True)
class Fill:
    """What a section is made of; a small value that travels to workers.

    Attributes:
        z: the section.
        state: what is done with it.
        reason: why, in words.
        before: the nearest whole section before it, -1: none.
        after: the nearest after it.
        note: what a person should know, in words.
        otherwise: for what a torn section is replaced if its parts find no place; empty: it is left.
    """

    z: int
    state: State
    reason: str
    before: int = -1
    after: int = -1
    note: str = ""
    otherwise: str = ""

    @property
    def t(self) -> float:
        """Where it lies between its neighbours, 0 to 1; where there is one only, at that."""
        if self.before < 0 or self.after < 0:
            return 0.0 if self.after < 0 else 1.0
        return (self.z - self.before) / (self.after - self.before)

    @property
    def nearest(self) -> int:
        """The nearer neighbour; of two that are equally near, the one before."""
        return self.before if self.t <= 0.5 else self.after

    @property
    def neighbours(self) -> tuple[int, ...]:
        """The sections it is made of, beside itself."""
        if self.state == "replaced":
            return (self.nearest,)
        return tuple(z for z in (self.before, self.after) if z >= 0) if self.state != "left" else ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def plan(found: Found, fill: Filling, longest_run: int) -> tuple[Fill, ...]:
    """Return what is done with every section that is not kept as it is, in order of z.

    Raises:
        InputError: there is something to be filled in, and no section to be made of.
    """
    whole = found.whole
    before, after = neighbours(whole)
    out = []
    for z, (why, torn) in enumerate(zip(found.reasons, found.cracked, strict=True)):
        one = Fill(z, "left", why, int(before[z]), int(after[z]))
        if torn:
            out.append(_mended(one, found.otherwise[z]))
        elif why:
            out.append(_filled(one, fill, longest_run))
    if out and not whole.any() and fill != "mask":
        raise InputError(
            f"all {len(whole)} sections are bad or cracked, so none can be made of another: name good ones "
            "(--good), or only mark them (--fill mask)"
        )
    return tuple(out)


def neighbours(whole: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the nearest section before each, and after, that others can be made of; int64 [Z], -1: none."""
    n = len(whole)
    here = np.arange(n)
    before = np.maximum.accumulate(np.where(whole, here, -1))
    after = np.minimum.accumulate(np.where(whole, here, n)[::-1])[::-1]
    shifted = np.append(-1, before[:-1]), np.append(after[1:], n)
    return shifted[0].astype(np.int64), np.where(shifted[1] == n, -1, shifted[1]).astype(np.int64)


def _filled(one: Fill, fill: Filling, longest_run: int) -> Fill:
    ends = [z for z in (one.before, one.after) if z >= 0]
    if fill == "mask" or not ends:
        return one
    two = len(ends) == 2
    if two and one.after - one.before - 1 > longest_run:
        run = one.after - one.before - 1
        return _with(one, "left", f"one of {run} in a row, more than {longest_run}: left as it is")
    if not two and abs(ends[0] - one.z) > longest_run:
        return _with(one, "left", f"further than {longest_run} from the only neighbour: left as it is")
    if fill == "nearest":
        return _with(one, "replaced", "")
    if not two:
        side = "before" if one.after < 0 else "after"
        return _with(one, "replaced", f"no whole section on both sides: a copy of the one {side}")
    return _with(one, "between", "")


def _mended(one: Fill, otherwise: str) -> Fill:
    one = Fill(one.z, one.state, "crack", one.before, one.after, otherwise=otherwise)
    if max(one.before, one.after) < 0:
        return _with(one, "left", "no whole section to put its parts together by: left as it is")
    if min(one.before, one.after) < 0:
        return _with(one, "mended", "one neighbour only: its gap is a copy of that")
    return _with(one, "mended", "")


def _with(one: Fill, state: State, note: str) -> Fill:
    return replace(one, state=state, note=note)
