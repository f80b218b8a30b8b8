"""Where all sections of a stack belong, from links between some of them; wrong links do no harm.

Convention: ``positions[z]`` is what to *apply* to section z: its content moves by that, and then sections lie on
each other. A link (i, j, d) says that what is at q in section i is at q + d in section j, hence ::

    positions[i] = d + positions[j]        for every link that is right

Only differences are known; the reference section stays where it is: ``positions[reference] == 0``.

Method: least squares on all links at once, again and again, each link weighted by how well it fits (Holland &
Welsch 1977, doi:10.1080/03610927708827533), y and x together; a link that contradicts the rest ends with no weight
(Geman & McClure 1987). Such weights stay where they begin, so the first ones decide: `emloom.ops.linkvotes`.
Memory and time grow with the number of links.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order

from emloom.errors import InputError
from emloom.ops.linkvotes import believable
from emloom.ops.shiftlinks import Links, fit, misfit, parts

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
State = Literal["linked", "between", "apart"]
"""A section's position: from links; from its neighbours for want of links; from links within a part that no link
joins to the part of the reference."""

_CUT = 3.0  # deviations from which on a link loses its weight
_LEAST_PX = 0.05  # what links can know at best
_NOTHING = 1e-9
_BELIEVED = 0.1
_STEPS = 20


@dataclass(frozen=True, eq=False)
class Positions:
    """Where sections belong, and how sure that is.

    Attributes:
        shift: float64 [Z, 2], (y, x) pixels to move each section's content by; 0 for the reference.
        residual: float64 [L], how far each link is from what was found, pixels.
        weight: float64 [L], 1: believed, 0: not.
        links: int64 [Z], how many believed links each section has.
        median: float64 [Z], median residual of a section's links that were believed; NaN without any.
        state: of each section, see `State`.
        cuts: sections after which another part begins: the stack falls apart between each and the next.
        deviation: typical residual of links that are right, pixels.
    """

    shift: F64
    residual: F64
    weight: F64
    links: I64
    median: F64
    state: tuple[State, ...]
    cuts: tuple[int, ...]
    deviation: float

    @property
    def believed(self) -> Bool:
        """Which links are believed, [L]."""
        return np.asarray(self.weight > _BELIEVED)

    def partings(self) -> list[tuple[int, int]]:
        """Return the linked sections before and after every cut; those between are linked to none."""
        after = dict(pairwise(z for z, state in enumerate(self.state) if state != "between"))
        return [(cut, after[cut]) for cut in self.cuts]

    def notes(self) -> tuple[str, ...]:
        """Return what a person should know of it, one sentence each."""
        linked = [z for z, state in enumerate(self.state) if state != "between"]
        out = [f"the stack falls apart between sections {a} and {b}" for a, b in self.partings()]
        loose = [z for z, state in enumerate(self.state) if state == "between"]
        if not linked:
            return ("no section resembles another one: all stay where they are",)
        if loose:
            out.append(f"sections without links lie between their neighbours: {', '.join(map(str, loose))}")
        return tuple(out)


def solve_positions(count: int, links: Links, reference: int | None = None) -> Positions:
    """Return where sections belong.

    Sections without a link are put between their neighbours. Where the stack falls into parts that no link joins,
    the sections at either side of the cut get the same position: the parts stay to each other as they are.

    Args:
        count: sections in the stack, Z.
        links: any of them, in any order and direction; only those that are known.
        reference: section that stays where it is; None: the middle one.

    Raises:
        InputError: no sections, a reference or a link outside of the stack, or a link that is no number.
    """
    fixed = count // 2 if reference is None else reference
    _check(count, links, fixed)
    ordered, order = _sorted(links)
    weight, scale = np.ones(len(ordered)), _LEAST_PX
    shift = np.zeros((count, 2))
    if len(weight):
        shift, weight, scale = _robust(count, ordered, fixed)
    believed = weight > _BELIEVED
    part = parts(count, ordered.where(believed))
    linked = np.bincount(np.r_[ordered.first[believed], ordered.second[believed]], minlength=count)
    # What was found with links that are not believed says nothing about how parts lie to each other.
    _join(shift, part, linked > 0, fixed)
    shift -= shift[fixed].copy()
    residual = np.linalg.norm(misfit(shift, ordered), axis=1)
    back = np.argsort(order)
    home = part[_nearest(linked > 0, fixed)] if linked.any() else -1
    return Positions(
        shift,
        residual[back],
        weight[back],
        linked.astype(np.int64),
        _medians(count, ordered, residual, believed),
        tuple(_state(n, p == home) for n, p in zip(linked.tolist(), part.tolist(), strict=True)),
        _cuts(part, linked > 0),
        float(scale),
    )


def _check(count: int, links: Links, reference: int) -> None:
    if count < 1:
        raise InputError("a stack without sections cannot be aligned: give at least one")
    if not 0 <= reference < count:
        raise InputError(f"the reference {reference} is no section of the stack: choose one of 0 to {count - 1}")
    ends = np.concatenate([links.first, links.second])
    if ends.size and not (ends.min() >= 0 and ends.max() < count):
        raise InputError(
            f"a link joins section {_outside(ends, count)}, but the stack has sections 0 to {count - 1}"
        )
    if (links.first == links.second).any():
        raise InputError("a link joins a section to itself: leave it out")
    if not (np.isfinite(links.shift).all() and np.isfinite(links.error).all() and (links.error >= 0).all()):
        raise InputError("a link's shift or error is no number: leave links that are unknown out")


def _sorted(links: Links) -> tuple[Links, I64]:
    """Return links that lead upward, in an order that is theirs alone, and which of the given ones they are."""
    up = replace(links.upward(), error=np.maximum(links.error, _LEAST_PX))
    order = np.lexsort((up.shift[:, 1], up.shift[:, 0], up.error, up.second, up.first))
    return Links(up.first[order], up.second[order], up.shift[order], up.error[order]), order


def _outside(ends: I64, count: int) -> int:
    return int(ends[(ends < 0) | (ends >= count)][0])


# ---- robust least squares -------------------------------------------------------------------------------------


def _robust(count: int, links: Links, reference: int) -> tuple[F64, F64, float]:
    """Return positions, how much each link is believed, and the deviation of those that are."""
    sure, own = believable(count, links, reference), 1 / np.square(links.error)
    weight, deviation = np.where(sure, 1.0, _NOTHING), 1.0
    before = np.full((count, 2), np.inf)
    for step in range(_STEPS):
        shift = fit(count, links, own * np.maximum(weight, _NOTHING), reference)
        distance = np.linalg.norm(misfit(shift, links), axis=1) / links.error
        if step < _STEPS // 2:
            # What is fitted lies nearer than the truth would.
            free = max(0.2, 1 - count / max(1, sure.sum()))
            deviation = _deviation(distance[sure], links.error[sure]) / np.sqrt(free)
        wide = max(1.0, 4.0 / 2**step)
        weight = np.square(1 / (1 + np.square(distance / (_CUT * wide * deviation))))
        sure = weight > _BELIEVED
        if np.abs(shift - before).max() < 1e-4:
            break
        before = shift
    return shift, weight, float(deviation * np.median(links.error))


def _deviation(distance: F64, error: F64) -> float:
    """Return the deviation along an axis of distances in errors; links know no better than `_LEAST_PX`."""
    # The median length of a normal vector in the plane is 1.18 deviations.
    return float(max(np.median(distance) / 1.18, _LEAST_PX / np.median(error))) if distance.size else 1.0


# ---- parts ----------------------------------------------------------------------------------------------------


def _nearest(linked: Bool, reference: int) -> int:
    """Return the linked section that is nearest to the reference."""
    here = np.flatnonzero(linked)
    return int(here[np.argmin(np.abs(here - reference))])


def _join(shift: F64, part: I64, linked: Bool, reference: int) -> None:
    """Move parts so that they go on where the next one ends, and put what is unlinked in between."""
    here = np.flatnonzero(linked)
    if not here.size:
        shift[:] = 0
        return
    left, right = here[:-1], here[1:]
    border = part[left] != part[right]
    left, right = left[border], right[border]
    count = int(part.max()) + 1
    pair, which = np.unique(np.sort(part[np.stack([left, right])], axis=0), axis=1, return_inverse=True)
    turned = np.where(part[left] < part[right], 1.0, -1.0)
    steps = turned[:, None] * (shift[right] - shift[left])
    step = {  # interleaved parts have many borders
        (int(a), int(b)): np.median(steps[which == k], axis=0) for k, (a, b) in enumerate(pair.T)
    }
    graph = sparse.coo_matrix((np.ones(len(pair.T)), (pair[0], pair[1])), (count, count)).tocsr()
    home = int(part[_nearest(linked, reference)])
    order, before = breadth_first_order(graph, home, directed=False)
    offset = np.zeros((count, 2))
    for name in order[1:].tolist():
        known = int(before[name])
        offset[name] = offset[known] + (-step[known, name] if known < name else step[name, known])
    shift += offset[part]
    every = np.arange(len(shift))
    for axis in range(2):
        shift[:, axis] = np.interp(every, here, shift[here, axis])


def _cuts(part: I64, linked: Bool) -> tuple[int, ...]:
    """Return after which sections another part begins; sections without links are no part."""
    here = np.flatnonzero(linked)
    return tuple(here[:-1][np.diff(part[here]) != 0].tolist())


def _state(links: int, at_home: bool) -> State:
    if not links:
        return "between"
    return "linked" if at_home else "apart"


def _medians(count: int, links: Links, residual: F64, believed: Bool) -> F64:
    """Return the median residual of each section's links that are believed."""
    ends = np.r_[links.first[believed], links.second[believed]]
    values = np.r_[residual[believed], residual[believed]]
    order = np.lexsort((values, ends))
    ends, values = ends[order], values[order]
    n = np.bincount(ends, minlength=count)
    start = np.cumsum(n) - n
    out = np.full(count, np.nan)
    some = np.flatnonzero(n)
    out[some] = (values[start[some] + (n[some] - 1) // 2] + values[start[some] + n[some] // 2]) / 2
    return out


__all__ = ["Links", "Positions", "State", "solve_positions"]
