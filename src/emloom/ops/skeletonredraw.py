"""Skeletons drawn anew: cut at a box, sampled at a spacing, with fewer nodes where they are straight.

Every new node lies on a link of the old skeleton, and says where: what is known of the old nodes (radii, times,
comments) can follow (`Redrawn`). Repeated edges and edges from a node to itself have no path to redraw and are
left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.skeletons import Floats, Rows, Skeletons


@dataclass(frozen=True, eq=False)
class Redrawn:
    """Skeletons drawn anew, and where their nodes come from.

    Attributes:
        skeletons: N nodes. A node that was there before keeps its id and position; others have ids that no node
            had.
        between: int64 [N, 2], rows of the old skeleton that each node lies between; one twice: it is that node.
        part: float64 [N], how much of the way from the first to the second; 0 for an old node.
    """

    skeletons: Skeletons
    between: Rows
    part: Floats

    @property
    def is_old(self) -> NDArray[np.bool_]:
        """bool [N], which nodes were there before."""
        old: NDArray[np.bool_] = self.between[:, 0] == self.between[:, 1]
        return old

    def carried(self, values: Floats) -> Floats:
        """Return a value for each node, linear between the old ones; an old node keeps its value exactly.

        Args:
            values: float64, one per old node: radii, say.
        """
        a, b = values[self.between].T
        carried: Floats = np.where(self.is_old, a, a + self.part * (b - a))
        return carried


@dataclass(frozen=True, eq=False)
class Between:
    """New nodes on links.

    Attributes:
        rows: int64 [P, 2], the two nodes of the link.
        part: float64 [P], how much of the way from the first to the second.
        positions_nm: float64 [P, 3].
    """

    rows: Rows
    part: Floats
    positions_nm: Floats


def between(skeletons: Skeletons, rows: Rows, part: Floats) -> Between:
    """Return new nodes part of the way along links."""
    a, b = skeletons.positions_nm[rows[:, 0]], skeletons.positions_nm[rows[:, 1]]
    return Between(rows, part, a + part[:, None] * (b - a))


def redrawn(
    skeletons: Skeletons, keep: NDArray[np.bool_], new: Between, edges: Rows, *, drop_empty: bool = False
) -> Redrawn:
    """Return kept nodes, new ones, and edges among them.

    Args:
        skeletons: the old ones, with N nodes.
        keep: bool [N], which nodes stay.
        new: P nodes on links.
        edges: int64 [E, 2]: rows of old nodes, and N + k for the k-th new one.
        drop_empty: leave out skeletons without a node.
    """
    n, old = len(skeletons.node_ids), np.flatnonzero(keep)
    whose = np.concatenate([skeletons.skeletons[old], skeletons.skeletons[new.rows[:, 0]]])
    order = np.argsort(whose, kind="stable")  # the nodes of each skeleton stay together
    number = np.full(n + len(new.part), -1, np.int64)
    number[np.concatenate([old, n + np.arange(len(new.part))])[order]] = np.arange(len(order))
    k = len(skeletons.ids)
    kept = np.unique(whose) if drop_empty else np.arange(k)
    row = np.zeros(k, np.int64)
    row[kept] = np.arange(len(kept))
    made = Skeletons(
        skeletons.ids[kept],
        row[whose[order]],
        np.concatenate([skeletons.node_ids[old], fresh_ids(skeletons, len(new.part))])[order],
        np.concatenate([skeletons.positions_nm[old], new.positions_nm])[order],
        number[edges].reshape(-1, 2),
        tuple(skeletons.names[k] for k in kept),
        skeletons.source,
    )
    rows = np.concatenate([np.stack([old, old], axis=1), new.rows])[order]
    return Redrawn(made, rows, np.concatenate([np.zeros(len(old)), new.part])[order])


def leads_up(skeletons: Skeletons) -> NDArray[np.bool_]:
    """Return bool [M], the links whose edge, the first that lists them, leads from the lower to the higher row.

    In formats with parents an edge leads from the parent to the child: what is redrawn keeps the direction.
    """
    low, high = skeletons.edges.min(axis=1), skeletons.edges.max(axis=1)
    proper = np.flatnonzero(low != high)
    _, first = np.unique(low[proper] * len(skeletons.node_ids) + high[proper], return_index=True)
    up: NDArray[np.bool_] = skeletons.edges[proper[first], 0] == low[proper[first]]
    return up


def fresh_ids(skeletons: Skeletons, count: int) -> NDArray[np.uint64]:
    """Return ids above that of every node, ascending; uint64 [count].

    Raises:
        InputError: there are no such numbers left.
    """
    highest = int(skeletons.node_ids.max(initial=0))
    if highest + count >= 2**64:
        raise InputError(f"{skeletons.source} has a node of id {highest}: no higher ids are left, number it anew")
    return (np.uint64(highest) + np.arange(1, count + 1, dtype=np.uint64)).astype(np.uint64)
