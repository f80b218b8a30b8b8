"""Which links between sections to believe at first: those that others confirm.

Two links and a third across them close a triangle, or they do not; links that close one are right, as wrong links
do not agree on anything. Believed links make groups of sections that lie firm to each other. What then remains
between two groups votes on how they lie to each other: the largest number of links that agree wins, and joins the
two. At last single links join what no two agree on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from emloom.ops.shiftlinks import Links, fit, misfit, parts

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bool = NDArray[np.bool_]

_AGREES = 4.0  # deviations within which links agree
_FEWEST_LAGS = 12


def believable(count: int, links: Links, reference: int) -> Bool:
    """Return which links to begin with; they join whatever any links join.

    Args:
        count: sections in the stack.
        links: L links that lead upward, with errors above 0.
        reference: section to which many links may lead.

    Returns:
        bool [L].
    """
    out = _closing(links, reference)
    least = 2
    while True:
        part = parts(count, links.where(out))
        open_ = np.flatnonzero(part[links.first] != part[links.second])
        if not open_.size:
            return out
        weight = 1 / np.square(links.error)
        shift = fit(count, links.where(out), weight[out], reference) if out.any() else np.zeros((count, 2))
        # How the second one's group must move to please a link, were it of the lower number.
        one, other = part[links.first[open_]], part[links.second[open_]]
        move = misfit(shift, links)[open_] * np.where(one < other, 1.0, -1.0)[:, None]
        groups = np.minimum(one, other) * np.int64(count) + np.maximum(one, other)
        votes = _votes(groups, move, links.error[open_])
        if least == 2 and not (votes >= 2).any():
            least = 1
        out[open_[_winners(groups, move, links.error[open_], np.where(votes >= least, votes, 0), count)]] = True


def _votes(groups: I64, move: F64, error: F64) -> I64:
    """Return how many links of its group agree with each, itself among them."""
    out = np.ones(len(groups), np.int64)
    for members in _members(groups):
        out[members] = _agree(move[members], error[members]).sum(1)
    return out


def _agree(move: F64, error: F64) -> Bool:
    apart = np.linalg.norm(move[:, None] - move[None], axis=-1)
    agree: Bool = apart <= _AGREES * np.hypot(error[:, None], error[None])
    return agree


def _members(groups: I64) -> list[I64]:
    """Return the members of every group that has more than one."""
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order], prepend=-1))
    return [m for m in np.split(order, starts[1:]) if len(m) > 1]


def _winners(groups: I64, move: F64, error: F64, votes: I64, count: int) -> I64:
    """Return the links that join each group of sections to the other that it agrees with most."""
    order = np.lexsort((error, -votes))
    order = order[votes[order] > 0]
    pair = np.stack(np.divmod(groups[order], count))
    # The first in this order is the best of each end.
    best = np.unique(np.concatenate([np.unique(p, return_index=True)[1] for p in pair]))
    best = np.unique(groups[order[np.sort(best)]])
    out = []
    leaders = order[np.unique(groups[order], return_index=True)[1]]
    sizes = dict(zip(*(v.tolist() for v in np.unique(groups, return_counts=True)), strict=True))
    for leader in leaders[np.isin(groups[leaders], best)].tolist():
        if sizes[int(groups[leader])] == 1:
            out.append(np.array([leader]))
            continue
        mine = np.flatnonzero(groups == groups[leader])
        apart = np.linalg.norm(move[mine] - move[leader], axis=1)
        out.append(mine[apart <= _AGREES * np.hypot(error[mine], error[leader])])
    return np.concatenate(out)


def _closing(links: Links, reference: int) -> Bool:
    """Return which links close a triangle."""
    closed = np.zeros(len(links), np.bool_)
    table = _table(links, reference)
    for a, one in table.items():
        for b, other in table.items():
            third = table.get(a + b)
            if third is None or a + b > len(one):
                continue
            n = len(one) - a - b
            three = np.stack([one[:n], other[a : a + n], third[:n]])
            three = three[:, (three >= 0).all(0)]
            _close(links, three, np.array([[1, 1, -1]]).T * np.ones(three.shape), closed)
    _close_at_reference(links, reference, table, closed)
    return closed


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


def _close(links: Links, three: I64, sign: F64, closed: Bool) -> None:
    """Mark links [3, N] that are the sides of a triangle whose signed sum [3, N] is next to nothing."""
    gap = np.linalg.norm((links.shift[three] * sign[..., None]).sum(0), axis=1)
    closes = gap <= _AGREES * np.sqrt(np.square(links.error[three]).sum(0))
    closed[three[:, closes]] = True


def _close_at_reference(links: Links, reference: int, table: dict[int, I64], closed: Bool) -> None:
    """Mark links that close a triangle with a corner at the reference."""
    here = np.flatnonzero((links.first == reference) | (links.second == reference))
    if not here.size or not table:
        return
    count = max(len(t) for t in table.values())
    to = np.full(count, -1, np.int64)
    to[links.first[here] + links.second[here] - reference] = here
    away = np.where(links.second == reference, -1.0, 1.0)  # links before the reference lead to it
    for lag, one in table.items():
        if lag >= count:
            continue
        three = np.stack([to[: count - lag], one[: count - lag], to[lag:]])
        three = three[:, (three >= 0).all(0) & (three[0] != three[1]) & (three[1] != three[2])]
        sign = np.stack([away[three[0]], np.ones(three.shape[1]), -away[three[2]]])
        _close(links, three, sign, closed)


__all__ = ["believable"]
