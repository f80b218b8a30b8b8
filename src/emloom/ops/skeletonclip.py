"""Skeletons cut at the faces of a box, in nm.

The box is half-open, as boxes are: a position on its lower face is inside, one on its upper face is not. A link is
cut where it crosses a face, and gets a node there, on the face. So of boxes that tile space, each piece of path is
in one::

    sum of lengths of `clipped` to each tile == length

(Clipping of a line: Liang & Barsky 1984, doi:10.1145/357332.357333.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.grid import as_nm
from emloom.geometry.skeletons import Floats, Skeletons
from emloom.ops.skeletonredraw import Redrawn, between, redrawn

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
    low, high = _spans(skeletons, start, stop)
    found[skeletons.link_skeletons[low < high]] = True
    return found


def clipped(skeletons: Skeletons, start_nm: Sequence[float], stop_nm: Sequence[float]) -> Redrawn:
    """Return what lies in a box, cut at its faces.

    A path that leaves and comes back is in pieces then, and is one skeleton still.

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
    low, high = _spans(skeletons, start, stop)
    # Coincident nodes have a link that is a point: it is inside if they are.
    stays = (low < high) | keep[skeletons.links].all(axis=1)
    links, low, high = skeletons.links[stays], low[stays], high[stays]
    edges = links.copy()
    # A path that ends on the upper face keeps the node it ends at.
    keep[links[low <= 0, 0]] = True
    keep[links[high >= 1, 1]] = True
    cuts_low, cuts_high = np.flatnonzero(low > 0), np.flatnonzero(high < 1)
    edges[cuts_low, 0] = n + np.arange(len(cuts_low))
    edges[cuts_high, 1] = n + len(cuts_low) + np.arange(len(cuts_high))
    new = between(
        skeletons,
        np.concatenate([links[cuts_low], links[cuts_high]]),
        np.concatenate([low[cuts_low], high[cuts_high]]),
    )
    np.clip(new.positions_nm, start, stop, out=new.positions_nm)  # on the face, whatever rounding did
    return redrawn(skeletons, keep, new, edges)


def _corners(start_nm: Sequence[float], stop_nm: Sequence[float]) -> tuple[Floats, Floats]:
    start, stop = as_nm(start_nm, "start of the box"), as_nm(stop_nm, "stop of the box")
    if any(a > b for a, b in zip(start, stop, strict=True)):
        raise InputError(f"the box from {start} to {stop} nm (z, y, x) ends before it starts: swap them")
    return np.array(start), np.array(stop)


def _spans(skeletons: Skeletons, start: Floats, stop: Floats) -> tuple[Floats, Floats]:
    """Return from where to where along each link the box is, 0 to 1; low >= high where it is in none of it."""
    at = skeletons.positions_nm[skeletons.links[:, 0]]
    step = skeletons.positions_nm[skeletons.links[:, 1]] - at
    moves = step != 0
    along = np.where(moves, step, 1.0)
    with np.errstate(over="ignore"):  # a step so short that the face is infinitely far
        to_start, to_stop = (start - at) / along, (stop - at) / along
    beside = ~moves & ~((at >= start) & (at < stop))
    enters = np.where(moves, np.minimum(to_start, to_stop), -np.inf)
    leaves = np.where(moves, np.maximum(to_start, to_stop), np.inf)
    low = np.maximum(enters.max(axis=1), 0.0)
    high = np.minimum(leaves.min(axis=1), 1.0)
    high[beside.any(axis=1) | (step == 0).all(axis=1)] = -1.0
    return low, high
