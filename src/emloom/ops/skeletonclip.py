"""Skeletons cut at the faces of a box, in nm.

The box is half-open, as boxes are: a position on its lower face is inside, one on its upper face is not. A link is
cut where it crosses a face, and gets a node there, on the face. So of boxes that tile space, each piece of path is
in one::

    sum of lengths of `clipped` to each tile == length

(Clipping of a line: Liang & Barsky 1984, doi:10.1145/357332.357333.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.grid import as_nm
from emloom.geometry.skeletons import Floats, Rows, Skeletons
from emloom.ops.skeletonredraw import Redrawn, between, leads_up, redrawn

Mask = NDArray[np.bool_]


def inside(skeletons: Skeletons, start_nm: Sequence[float], stop_nm: Sequence[float]) -> Mask:
    """Return bool [N], the nodes in a half-open box of (z, y, x) in nm; `Skeletons.restricted` takes it.

    Raises:
        InputError: the box ends before it starts, or is not of three finite numbers.
    """
    start, stop = _corners(start_nm, stop_nm)
    within = (skeletons.positions_nm >= start) & (skeletons.positions_nm < stop)
    found: Mask = np.all(within, axis=1)
    return found


def crosses(skeletons: Skeletons, start_nm: Sequence[float], stop_nm: Sequence[float]) -> Mask:
    """Return bool [K], the skeletons with a node or a piece of path in a half-open box; raises as `inside`."""
    start, stop = _corners(start_nm, stop_nm)
    found = np.zeros(len(skeletons.ids), bool)
    found[skeletons.skeletons[inside(skeletons, start_nm, stop_nm)]] = True
    found[skeletons.link_skeletons[_Spans.of(skeletons, start, stop).runs]] = True
    return found


def clipped(skeletons: Skeletons, start_nm: Sequence[float], stop_nm: Sequence[float]) -> Redrawn:
    """Return what lies in a box, cut at its faces.

    A path that leaves and comes back is in pieces then, and is one skeleton still. Skeletons without a node in the
    box are dropped.

    Args:
        skeletons: any.
        start_nm: (z, y, x) of the lower corner, in nm.
        stop_nm: (z, y, x) of the upper corner, where the box no longer is.

    Raises:
        InputError: as `inside`.
    """
    start, stop = _corners(start_nm, stop_nm)
    n = len(skeletons.node_ids)
    keep = inside(skeletons, start_nm, stop_nm)
    every = _Spans.of(skeletons, start, stop)
    spans, up = every.running(), leads_up(skeletons)[every.runs]
    links, edges = spans.links, spans.links.copy()
    # A path that ends on the upper face keeps the node it ends at.
    keep[links[spans.low <= 0, 0]] = True
    keep[links[spans.high >= 1, 1]] = True
    enter, leave = np.flatnonzero(spans.low > 0), np.flatnonzero(spans.high < 1)
    edges[enter, 0] = n + np.arange(len(enter))
    edges[leave, 1] = n + len(enter) + np.arange(len(leave))
    cut = np.concatenate([enter, leave])
    new = between(skeletons, links[cut], np.concatenate([spans.low[enter], spans.high[leave]]))
    # On the face to the last bit, and nowhere outside, whatever rounding did.
    np.clip(new.positions_nm, start, stop, out=new.positions_nm)
    axis = np.concatenate([spans.low_axis[enter], spans.high_axis[leave]])
    upwards = np.take_along_axis(spans.step[cut], axis[:, None], axis=1)[:, 0] > 0
    at_start = upwards == (np.arange(len(cut)) < len(enter))
    new.positions_nm[np.arange(len(cut)), axis] = np.where(at_start, start[axis], stop[axis])
    return redrawn(skeletons, keep, new, np.where(up[:, None], edges, edges[:, ::-1]), drop_empty=True)


def _corners(start_nm: Sequence[float], stop_nm: Sequence[float]) -> tuple[Floats, Floats]:
    start, stop = as_nm(start_nm, "start of the box"), as_nm(stop_nm, "stop of the box")
    if any(a > b for a, b in zip(start, stop, strict=True)):
        raise InputError(f"the box from {start} to {stop} nm (z, y, x) ends before it starts: swap them")
    return np.array(start), np.array(stop)


@dataclass(frozen=True, eq=False)
class _Spans:
    """From where to where along links a box is.

    Attributes:
        links: rows of their nodes [M, 2].
        step: from the first to the second node, nm [M, 3].
        low: where the link is first in the box, 0 to 1.
        high: where it is last; not above `low` where it is in none of it.
        low_axis: the axis across which it enters there.
        high_axis: the axis across which it leaves.
    """

    links: Rows
    step: Floats
    low: Floats
    high: Floats
    low_axis: Rows
    high_axis: Rows

    @classmethod
    def of(cls, skeletons: Skeletons, start: Floats, stop: Floats) -> _Spans:
        at = skeletons.positions_nm[skeletons.links[:, 0]]
        step = skeletons.positions_nm[skeletons.links[:, 1]] - at
        moves = step != 0
        along = np.where(moves, step, 1.0)
        with np.errstate(over="ignore"):  # a step so short that the face is infinitely far
            to_start, to_stop = (start - at) / along, (stop - at) / along
        enters = np.where(moves, np.minimum(to_start, to_stop), -np.inf)
        leaves = np.where(moves, np.maximum(to_start, to_stop), np.inf)
        beside = ~moves & ~((at >= start) & (at < stop))
        high = np.where(beside.any(axis=1), -1.0, np.minimum(leaves.min(axis=1), 1.0))
        low = np.maximum(enters.max(axis=1), 0.0)
        return cls(skeletons.links, step, low, high, enters.argmax(axis=1), leaves.argmin(axis=1))

    @property
    def runs(self) -> Mask:
        """bool [M], which links run in the box."""
        runs: Mask = self.low < self.high
        return runs

    def running(self) -> _Spans:
        """Return those of the links that run in the box."""
        r = self.runs
        return _Spans(self.links[r], self.step[r], self.low[r], self.high[r], self.low_axis[r], self.high_axis[r])
