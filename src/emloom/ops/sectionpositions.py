"""Where all sections of a stack belong, from links between some of them; wrong links do no harm.

Convention: ``positions[z]`` is what to *apply* to section z: its content moves by that, and then sections lie on
each other. A link (i, j, d) says that what is at q in section i is at q + d in section j, hence ::

    positions[i] = d + positions[j]        for every link that is right

Only differences are known; the reference section stays where it is: ``positions[reference] == 0``.

Method: least squares on all links at once, again and again, each link weighted by how well it fits (Holland &
Welsch 1977, doi:10.1080/03610927708827533), y and x together. A link that contradicts the rest ends with no weight
(Geman & McClure 1987), and this is approached slowly, from a scale at which all count (graduated non-convexity:
Blake & Zisserman 1987). The start decides between many wrong links: triangles do. Where i to j and j to k add up to
i to k, all three are believed; wrong links do not agree on anything. Memory and time grow with the number of
links: the equations are banded, links of the reference, which is fixed, reach across any distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.linalg import solveh_banded
from scipy.sparse.csgraph import connected_components

from emloom.errors import InputError

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]
State = Literal["linked", "between", "apart"]
"""A section's position: from links; from its neighbours for want of links; from links within a part that no link
joins to the part of the reference."""

_CUT = 3.0  # deviations from which on a link loses its weight
_AGREES = 4.0  # deviations within which a triangle closes
_LEAST_PX = 0.05  # what links can know at best
_NOTHING = 1e-9
_FEWEST_LAGS = 12
_WIDEST = 512


@dataclass(frozen=True, eq=False)
class Links:
    """Displacements between sections; L of them.

    Attributes:
        first: int64 [L], sections.
        second: int64 [L], sections; never the same as first.
        shift: float64 [L, 2], (dy, dx): what is at q in the first is at q + shift in the second.
        error: float64 [L], standard errors, pixels; only their ratios matter where links disagree.
    """

    first: I64
    second: I64
    shift: F64
    error: F64

    @classmethod
    def of(cls, links: Sequence[tuple[int, int, tuple[float, float], float]]) -> Links:
        """Return links from (first, second, (dy, dx), error)."""
        return cls(
            np.array([one[0] for one in links], np.int64),
            np.array([one[1] for one in links], np.int64),
            np.array([one[2] for one in links], np.float64).reshape(-1, 2),
            np.array([one[3] for one in links], np.float64),
        )


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
        cuts: sections z such that no link joins what ends at z to what begins at z + 1: the stack falls apart there.
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
    ordered = _ordered(links)
    weight, scale = np.ones(len(ordered.first)), _LEAST_PX
    shift = np.zeros((count, 2))
    if len(weight):
        shift, weight, scale = _robust(count, ordered, fixed)
    believed = weight > 0.1
    part = _parts(count, ordered, believed)
    linked = np.bincount(np.r_[ordered.first[believed], ordered.second[believed]], minlength=count)
    # What was found with links that are not believed says nothing about how parts lie to each other.
    _join(shift, part, linked > 0, fixed)
    shift -= shift[fixed].copy()
    residual = np.linalg.norm(_misfit(shift, ordered), axis=1)
    home = part[_nearest(linked > 0, fixed)] if linked.any() else -1
    return Positions(
        shift,
        residual,
        weight,
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


def _outside(ends: I64, count: int) -> int:
    return int(ends[(ends < 0) | (ends >= count)][0])


def _ordered(links: Links) -> Links:
    """Return links that all lead to higher sections."""
    back = links.first > links.second
    return Links(
        np.where(back, links.second, links.first),
        np.where(back, links.first, links.second),
        np.where(back[:, None], -links.shift, links.shift),
        np.maximum(links.error, _LEAST_PX),
    )


def _misfit(shift: F64, links: Links) -> F64:
    """Return by how much (y, x) links miss what positions say."""
    out: F64 = shift[links.second] - shift[links.first] + links.shift
    return out


# ---- robust least squares -------------------------------------------------------------------------------------


def _robust(count: int, links: Links, reference: int) -> tuple[F64, F64, float]:
    """Return positions, how much each link is believed, and the deviation of those that are."""
    trust = _trust(links, reference)
    own = 1 / np.square(links.error)
    shift = _solve(count, links, own * trust, reference)
    sure = trust == trust.max()
    for wide in (16.0, 8.0, 4.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        distance = np.linalg.norm(_misfit(shift, links), axis=1) / links.error
        deviation = _deviation(distance[sure], links.error[sure])
        weight = np.square(1 / (1 + np.square(distance / (_CUT * wide * deviation))))
        shift = _solve(count, links, own * np.maximum(weight, _NOTHING), reference)
        sure = weight > 0.1
    for _ in range(20):  # until it stands still
        before = shift
        distance = np.linalg.norm(_misfit(shift, links), axis=1) / links.error
        weight = np.square(1 / (1 + np.square(distance / (_CUT * deviation))))
        shift = _solve(count, links, own * np.maximum(weight, _NOTHING), reference)
        if np.abs(shift - before).max() < 1e-4:
            break
    return shift, weight, float(deviation * np.median(links.error))


def _deviation(distance: F64, error: F64) -> float:
    """Return the deviation along an axis of distances in errors; links know no better than `_LEAST_PX`."""
    # The median length of a normal vector in the plane is 1.18 deviations.
    return float(max(np.median(distance) / 1.18, _LEAST_PX / np.median(error))) if distance.size else 1.0


def _solve(count: int, links: Links, weight: F64, reference: int) -> F64:
    """Return the positions [Z, 2] that fit best, the reference and one section of every other part at 0."""
    lag = links.second - links.first
    free = (links.first != reference) & (links.second != reference)
    diagonal = np.bincount(links.first, weight, count) + np.bincount(links.second, weight, count)
    pull = weight[:, None] * links.shift
    right = np.stack(
        [np.bincount(links.first, p, count) - np.bincount(links.second, p, count) for p in pull.T], axis=1
    )
    _, part = connected_components(_graph(count, links), directed=False)
    anchors = np.unique(part, return_index=True)[1]
    anchors = np.append(anchors[part[anchors] != part[reference]], reference)
    diagonal[anchors] += weight.max()
    diagonal[reference], right[reference] = 1.0, 0.0
    width = int(lag[free].max(initial=0))
    if width > _WIDEST:
        return _solve_sparse(diagonal, right, links, np.where(free, weight, 0))
    bands = np.zeros((width + 1, count))
    bands[0] = diagonal
    np.subtract.at(bands, (lag[free], links.first[free]), weight[free])
    out: F64 = solveh_banded(bands, right, lower=True, check_finite=False)
    return out


def _solve_sparse(diagonal: F64, right: F64, links: Links, weight: F64) -> F64:
    count = len(diagonal)
    half = sparse.coo_matrix((-weight, (links.first, links.second)), (count, count))
    matrix = sparse.csc_matrix(half + half.T + sparse.diags(diagonal))
    return np.asarray(sparse.linalg.splu(matrix).solve(right), np.float64)


def _graph(count: int, links: Links) -> sparse.coo_matrix:
    return sparse.coo_matrix((np.ones(len(links.first)), (links.first, links.second)), (count, count))


def _trust(links: Links, reference: int) -> F64:
    """Return a first weight of links: 1 where a triangle closes, little where none does, 0.1 where there is none."""
    seen, closed = np.zeros(len(links.first), np.int64), np.zeros(len(links.first), np.int64)
    table = _table(links, reference)
    for a, one in table.items():
        for b, other in table.items():
            third = table.get(a + b)
            if third is None or a + b > len(one):
                continue
            n = len(one) - a - b
            three = np.stack([one[:n], other[a : a + n], third[:n]])
            three = three[:, (three >= 0).all(0)]
            _vote(links, three, np.array([1, 1, -1]), seen, closed)
    _vote_of_reference(links, reference, table, seen, closed)
    trust = np.where(seen == 0, 0.1, 1e-4)
    return np.where(closed > 0, 1.0, trust)


def _table(links: Links, reference: int) -> dict[int, I64]:
    """Return for each of the shortest lags which link leads from each section; -1: none."""
    count = int(links.second.max(initial=0)) + 1
    lag = links.second - links.first
    out: dict[int, I64] = {}
    for one in np.unique(lag)[:_FEWEST_LAGS].tolist():
        which = np.flatnonzero(lag == one)
        which = which[np.argsort(-links.error[which], kind="stable")]  # the best of several is written last
        out[one] = np.full(count, -1, np.int64)
        out[one][links.first[which]] = which
    return out


def _vote(links: Links, three: I64, sign: I64, seen: I64, closed: I64) -> None:
    """Count for links, three of which are the sides of a triangle, in how many they are and how many close."""
    gap = np.linalg.norm((links.shift[three] * sign[:, None, None]).sum(0), axis=1)
    closes = gap <= _AGREES * np.sqrt(np.square(links.error[three]).sum(0))
    for side in three:
        np.add.at(seen, side, 1)
        np.add.at(closed, side[closes], 1)


def _vote_of_reference(links: Links, reference: int, table: dict[int, I64], seen: I64, closed: I64) -> None:
    """Let triangles vote that have a corner at the reference."""
    here = np.flatnonzero((links.first == reference) | (links.second == reference))
    if not here.size or not table:
        return
    count = max(len(t) for t in table.values())
    to = np.full(count, -1, np.int64)
    to[links.first[here] + links.second[here] - reference] = here
    # From the reference: links before it lead to it.
    facing = np.where(links.second == reference, -1, 1)
    for lag, one in table.items():
        near = np.arange(count - lag)
        three = np.stack([to[near], one[near], to[near + lag]])
        three = three[:, (three >= 0).all(0) & (three[0] != three[1]) & (three[1] != three[2])]
        gap = facing[three[0]][:, None] * links.shift[three[0]] + links.shift[three[1]]
        gap = np.linalg.norm(gap - facing[three[2]][:, None] * links.shift[three[2]], axis=1)
        closes = gap <= _AGREES * np.sqrt(np.square(links.error[three]).sum(0))
        for side in three:
            np.add.at(seen, side, 1)
            np.add.at(closed, side[closes], 1)


# ---- parts ----------------------------------------------------------------------------------------------------


def _parts(count: int, links: Links, believed: Bool) -> I64:
    """Return to which part of the stack each section belongs, as links that are believed have it."""
    kept = Links(links.first[believed], links.second[believed], links.shift[believed], links.error[believed])
    return np.asarray(connected_components(_graph(count, kept), directed=False)[1], np.int64)


def _nearest(linked: Bool, reference: int) -> int:
    """Return the linked section that is nearest to the reference."""
    here = np.flatnonzero(linked)
    return int(here[np.argmin(np.abs(here - reference))])


def _join(shift: F64, part: I64, linked: Bool, reference: int) -> None:
    """Move parts so that they go on where the nearest other one ends, and put what is unlinked in between."""
    here = np.flatnonzero(linked)
    if not here.size:
        shift[:] = 0
        return
    placed = linked & (part == part[_nearest(linked, reference)])
    rest = set(np.unique(part[here]).tolist()) - {int(part[placed][0])}
    while rest:
        known = np.flatnonzero(placed)
        open_ = here[~placed[here]]
        after = np.searchsorted(known, open_).clip(1, max(1, known.size - 1))
        low, high = known[after - 1], known[np.minimum(after, known.size - 1)]
        side = np.where(np.abs(open_ - low) <= np.abs(high - open_), low, high)
        best = int(np.argmin(np.abs(open_ - side)))
        name = part[open_[best]]
        # Interleaved parts have many borders: the median over those that are as close.
        border = (part[open_] == name) & (np.abs(open_ - side) == abs(open_[best] - side[best]))
        mine = linked & (part == name)
        shift[mine] -= np.median(shift[open_[border]] - shift[side[border]], axis=0)
        placed |= mine
        rest.discard(int(name))
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
