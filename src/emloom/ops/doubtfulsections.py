"""Sections that cannot be right, told by nothing but their own statistics and their links to neighbours.

For stacks nobody has checked. A section is doubtful when it has no tissue, far less contrast or detail than the
sections around it, or resembles none of them although they resemble each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import median_filter

from emloom.errors import InputError
from emloom.ops.shiftlinks import Links

F64 = NDArray[np.float64]

_AROUND = 11  # sections
_LEAST_USABLE = 0.1
_FAINT = 0.3  # of the contrast around
_BLURRED = 0.5  # of the detail around
_ALIKE = 0.5  # of the correlation around


class Measured(Protocol):
    """What is known of a section by itself; a `preparedsections.Prepared` has it."""

    @property
    def usable(self) -> float:
        """Share of it that is tissue."""

    @property
    def contrast(self) -> float:
        """Deviation of its grey values, grey levels; 0 where nothing is usable."""

    @property
    def detail(self) -> float:
        """Share of the variance that is fine structure."""


def doubts(
    sections: Sequence[Measured],
    links: Links,
    correlation: NDArray[np.float64],
    near: int = 2,
    alike: bool = True,
) -> tuple[str, ...]:
    """Return for each section why it is doubtful, in words; an empty string where it is not.

    Args:
        sections: all of a stack, in order.
        links: those that are known.
        correlation: float64 [L], of each link.
        near: links over at most that many sections count.
        alike: whether to doubt sections for how little they resemble their neighbours, too.

    Raises:
        InputError: not one correlation per link, or a link outside of the stack.
    """
    count = len(sections)
    if len(correlation) != len(links):
        raise InputError(f"there are {len(links)} links, but {len(correlation)} correlations: give one for each")
    if len(links) and max(links.first.max(), links.second.max()) >= count:
        raise InputError(f"a link leads out of the stack of {count} sections")
    usable, contrast, detail = (
        np.array([getattr(section, name) for section in sections], np.float64)
        for name in ("usable", "contrast", "detail")
    )
    dead = (usable < _LEAST_USABLE) | (contrast <= 0)
    best = _best(count, links, np.asarray(correlation, np.float64), near)
    usual = {"c": _around(contrast, dead), "d": _around(detail, dead), "b": _around(best, dead | (best <= 0))}
    out = []
    for z in range(count):
        reasons = []
        if usable[z] <= 0 or contrast[z] <= 0:
            reasons.append("no tissue to be seen: constant, or masked")
        elif dead[z]:
            reasons.append(f"only {usable[z]:.0%} of it is tissue")
        else:
            if contrast[z] < _FAINT * usual["c"][z]:
                reasons.append(f"contrast {contrast[z]:.3g} where {usual['c'][z]:.3g} is usual")
            if detail[z] < _BLURRED * usual["d"][z]:
                reasons.append(f"blurred: detail {detail[z]:.2f} where {usual['d'][z]:.2f} is usual")
            if alike:
                reasons += _unlike(best[z], usual["b"][z])
        out.append("; ".join(reasons))
    return tuple(out)


def _unlike(best: float, usual: float) -> list[str]:
    if usual > 0 and best <= 0:
        return ["like none of its neighbours"]
    return [f"correlation {best:.2f} where {usual:.2f} is usual"] if best < _ALIKE * usual else []


def _best(count: int, links: Links, correlation: F64, near: int) -> F64:
    """Return the best correlation of each section with a near one; 0 where no link is known."""
    out = np.zeros(count)
    which = np.abs(links.second - links.first) <= near
    for ends in (links.first, links.second):
        np.maximum.at(out, ends[which], correlation[which])
    return out


def _around(values: F64, dead: NDArray[np.bool_]) -> F64:
    """Return the median of the sections around each that are not dead."""
    alive = np.flatnonzero(~dead)
    if not alive.size:
        return np.zeros(len(values))
    medians = median_filter(values[alive], min(_AROUND, alive.size), mode="nearest")
    out: F64 = np.interp(np.arange(len(values)), alive, medians)
    return out


__all__ = ["Measured", "doubts"]
