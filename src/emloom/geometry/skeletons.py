"""Skeletons: tracings of neurites as nodes in nanometres and the edges between them.

Convention: positions are world positions (z, y, x) in nm. All nodes of all skeletons stand in one array, and an
edge is a pair of *rows* of it: measures are array operations, and node ids stay what the tracer called them::

    ids         [K]      which skeleton               names [K]
    skeletons   [N]      row of `ids` of each node    node_ids [N]    positions_nm [N, 3]
    edges       [E, 2]   rows of nodes

What counts as path: every pair of different nodes that an edge joins counts **once**, however often the edge is
listed and in whichever direction; an edge from a node to itself has no length and does not count
(`Skeletons.links`). A skeleton may have cycles, and may fall into several pieces: it is one skeleton still, whose
length is the sum over its pieces. `emloom.ops.skeletons.findings` reports all of that, nothing is mended silently.

Lengths are correctly rounded sums (`math.fsum`): the order of nodes and edges changes no bit of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emloom.errors import InputError
from emloom.geometry.grid import TOLERANCE_VOX, Grid

Ids = NDArray[np.uint64]
Rows = NDArray[np.int64]
Floats = NDArray[np.float64]
Tree = tuple[int, ArrayLike, ArrayLike]


@dataclass(frozen=True, eq=False)
class Skeletons:
    """Any number of skeletons, as flat arrays; see the module.

    Attributes:
        ids: uint64 [K], id of each skeleton, each once.
        skeletons: int64 [N], the skeleton of each node, as a row of `ids`.
        node_ids: uint64 [N], id of each node, each once within its skeleton.
        positions_nm: float64 [N, 3], world positions (z, y, x) in nm.
        edges: int64 [E, 2], rows of nodes, both of one skeleton.
        names: K texts; empty where there are none.
        source: path shown in messages.

    Raises:
        InputError: lengths disagree, a position is not finite, an id stands twice, an edge names a row that is
            not there, or an edge joins two skeletons.
    """

    ids: Ids
    skeletons: Rows
    node_ids: Ids
    positions_nm: Floats
    edges: Rows
    names: tuple[str, ...] = field(default=())
    source: str = "skeletons"

    def __post_init__(self) -> None:
        for name, dtype, ndim in (
            ("ids", np.uint64, 1),
            ("skeletons", np.int64, 1),
            ("node_ids", np.uint64, 1),
            ("positions_nm", np.float64, 2),
            ("edges", np.int64, 2),
        ):
            array = np.asarray(getattr(self, name))
            if array.dtype != dtype or array.ndim != ndim:
                raise InputError(
                    f"{self.source}: {name} is {array.dtype} of {array.ndim} dimensions: give {np.dtype(dtype)} "
                    f"of {ndim}"
                )
            frozen = array.view()
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)
        object.__setattr__(self, "names", tuple(self.names) or ("",) * len(self.ids))
        self._check_lengths()
        self._check_nodes()
        self._check_edges()

    def _check_lengths(self) -> None:
        n = len(self.node_ids)
        if len(self.skeletons) != n or self.positions_nm.shape != (n, 3) or len(self.names) != len(self.ids):
            raise InputError(
                f"{self.source} has {n} node ids, {len(self.skeletons)} skeletons of nodes, positions of shape "
                f"{self.positions_nm.shape}, {len(self.ids)} skeleton ids and {len(self.names)} names: one of "
                "each per node, three coordinates, one name per skeleton"
            )
        if self.edges.shape[1] != 2:
            raise InputError(f"{self.source}: edges have shape {self.edges.shape}: give [E, 2], two rows of nodes")

    def _check_nodes(self) -> None:
        twice = _first_duplicate(self.ids)
        if twice is not None:
            raise InputError(
                f"{self.source}: the skeleton id {self.ids[twice]} stands twice: an id names one skeleton"
            )
        strangers = np.flatnonzero((self.skeletons < 0) | (self.skeletons >= len(self.ids)))
        if strangers.size:
            raise InputError(
                f"{self.source}: node {self.node_ids[strangers[0]]} belongs to skeleton number "
                f"{self.skeletons[strangers[0]]}, but there are {len(self.ids)}, counted from 0"
            )
        infinite = np.flatnonzero(~np.isfinite(self.positions_nm).all(axis=1))
        if infinite.size:
            raise InputError(
                f"{self.source}: {self._called(infinite[0])} lies at {self.positions_nm[infinite[0]].tolist()} "
                "nm: give three finite numbers, z, y, x in nm, or remove the node"
            )
        twice = _first_duplicate(self.skeletons, self.node_ids)
        if twice is not None:
            raise InputError(
                f"{self.source}: {self._called(twice)} stands twice: a node id names one node of its skeleton"
            )

    def _check_edges(self) -> None:
        n = len(self.node_ids)
        strangers = np.flatnonzero(((self.edges < 0) | (self.edges >= n)).any(axis=1))
        if strangers.size:
            row = strangers[0]
            raise InputError(
                f"{self.source}: edge {row} joins the nodes in rows {self.edges[row].tolist()}, but there are {n} "
                "nodes, counted from 0: remove the edge or add the node"
            )
        whose = self.skeletons[self.edges]
        crossing = np.flatnonzero(whose[:, 0] != whose[:, 1])
        if crossing.size:
            a, b = self.edges[crossing[0]]
            raise InputError(
                f"{self.source}: an edge joins {self._called(a)} and {self._called(b)}: an edge stays within one "
                "skeleton; merge the two, or remove the edge"
            )

    def _called(self, row: int) -> str:
        return f"node {self.node_ids[row]} of skeleton {self.ids[self.skeletons[row]]}"

    @classmethod
    def from_trees(
        cls, trees: Iterable[Tree], *, names: Sequence[str] = (), source: str = "skeletons"
    ) -> Skeletons:
        """Return skeletons from (id, positions [n, 3] in nm, edges [m, 2] of rows of these positions).

        Nodes are called 1, 2, ... within each skeleton. This is what `emloom.testing.Phantom.skeletons` returns.

        Raises:
            InputError: as `Skeletons`.
        """
        ids: list[int] = []
        positions, edges, counts = [np.zeros((0, 3))], [np.zeros((0, 2), np.int64)], []
        first = 0
        for number, nodes, pairs in trees:
            ids.append(number)
            positions.append(np.asarray(nodes, np.float64).reshape(-1, 3))
            local = np.asarray(pairs, np.int64).reshape(-1, 2)
            if local.size and not 0 <= int(local.min()) <= int(local.max()) < len(positions[-1]):
                raise InputError(
                    f"{source}: skeleton {number} has an edge to row {int(local.max())} or {int(local.min())}, "
                    f"but {len(positions[-1])} nodes, counted from 0: remove the edge or add the node"
                )
            edges.append(local + first)
            counts.append(len(positions[-1]))
            first += counts[-1]
        of_node = np.repeat(np.arange(len(ids)), counts).astype(np.int64)
        node_ids = np.concatenate([np.arange(1, n + 1) for n in counts] or [np.zeros(0, np.int64)]).astype(
            np.uint64
        )
        return cls(
            np.array(ids, np.uint64),
            of_node,
            node_ids,
            np.concatenate(positions),
            np.concatenate(edges),
            tuple(names),
            source,
        )

    @cached_property
    def links(self) -> Rows:
        """int64 [M, 2]: the pairs of different nodes that edges join, each once, smaller row first, sorted."""
        low, high = self.edges.min(axis=1), self.edges.max(axis=1)
        n = max(1, len(self.node_ids))
        # One number per pair: sorting those is ten times as fast as sorting rows.
        keys = np.unique((low * n + high)[low != high])
        pairs = np.stack([keys // n, keys % n], axis=1)
        pairs.flags.writeable = False
        return pairs

    @cached_property
    def link_lengths_nm(self) -> Floats:
        """float64 [M]: the Euclidean length of each link in nm."""
        step = self.positions_nm[self.links[:, 0]] - self.positions_nm[self.links[:, 1]]
        lengths: Floats = np.sqrt(step[:, 0] ** 2 + step[:, 1] ** 2 + step[:, 2] ** 2)
        lengths.flags.writeable = False
        return lengths

    @cached_property
    def link_skeletons(self) -> Rows:
        """int64 [M]: the skeleton of each link, as a row of `ids`."""
        whose: Rows = self.skeletons[self.links[:, 0]]
        return whose

    @cached_property
    def lengths_nm(self) -> Floats:
        """float64 [K]: the path length of each skeleton in nm, 0 where it has no edge."""
        return grouped_fsum(self.link_skeletons, self.link_lengths_nm, len(self.ids))

    def restricted(self, keep: NDArray[np.bool_]) -> Skeletons:
        """Return the nodes where `keep` is True and the edges between them, say those inside a box.

        Skeletons that lose every node are dropped. A path that leaves and comes back is in pieces then, and is one
        skeleton still.

        Raises:
            InputError: `keep` is not one boolean per node.
        """
        keep = np.asarray(keep)
        if keep.dtype != np.bool_ or keep.shape != self.node_ids.shape:
            raise InputError(
                f"keep is {keep.dtype} {keep.shape}: give one boolean for each of {len(self.node_ids)} nodes"
            )
        number = np.cumsum(keep) - 1
        kept, whose = np.unique(self.skeletons[keep], return_inverse=True)
        inside = keep[self.edges].all(axis=1)
        return Skeletons(
            self.ids[kept],
            whose.astype(np.int64),
            self.node_ids[keep],
            self.positions_nm[keep],
            number[self.edges[inside]].astype(np.int64),
            tuple(self.names[k] for k in kept),
            self.source,
        )


def joined(parts: Iterable[Skeletons], *, source: str = "skeletons") -> Skeletons:
    """Return all skeletons of several tables as one table; node ids stay as they are.

    Raises:
        InputError: two tables have a skeleton of the same id.
    """
    listed = list(parts)
    first_node = np.cumsum([0, *(len(part.node_ids) for part in listed)])
    first_skeleton = np.cumsum([0, *(len(part.ids) for part in listed)])
    return Skeletons(
        _stacked([part.ids for part in listed], np.zeros(0, np.uint64)),
        _stacked(
            [p.skeletons + a for p, a in zip(listed, first_skeleton[:-1], strict=True)], np.zeros(0, np.int64)
        ),
        _stacked([part.node_ids for part in listed], np.zeros(0, np.uint64)),
        _stacked([part.positions_nm for part in listed], np.zeros((0, 3))),
        _stacked([p.edges + a for p, a in zip(listed, first_node[:-1], strict=True)], np.zeros((0, 2), np.int64)),
        tuple(name for part in listed for name in part.names),
        source,
    )


def voxels_containing(grid: Grid, positions_nm: Floats) -> Rows:
    """Return the voxel that contains each position: `Grid.containing` for many positions.

    Args:
        grid: its offset is the *corner* of voxel (0, 0, 0).
        positions_nm: float64 [N, 3], finite world positions (z, y, x) in nm.

    Returns:
        int64 [N, 3], voxels (z, y, x); a position on a face belongs to the voxel above it.
    """
    continuous = (positions_nm - np.array(grid.offset_nm)) / np.array(grid.voxel_size_nm)
    voxels: Rows = np.floor(continuous + TOLERANCE_VOX).astype(np.int64)
    return voxels


def grouped_fsum(groups: Rows, values: Floats, n_groups: int) -> Floats:
    """Return the correctly rounded sum of the values of every group; float64 [n_groups], 0 where one is empty.

    Args:
        groups: int64 [N], group of each value, 0 to n_groups - 1.
        values: float64 [N].
        n_groups: number of groups.
    """
    order = np.argsort(groups, kind="stable")
    listed: list[float] = values[order].tolist()
    stops = np.searchsorted(groups[order], np.arange(n_groups), side="right").tolist()
    sums = np.empty(n_groups)
    start = 0
    for group, stop in enumerate(stops):
        sums[group] = fsum(listed[start:stop])
        start = stop
    return sums


def _stacked(arrays: list[NDArray[Any]], empty: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([empty, *arrays])


def _first_duplicate(*columns: NDArray[Any]) -> int | None:
    """Return the row of some value that stands twice, None where there is none."""
    order = np.lexsort(columns[::-1])
    same = np.ones(max(0, len(order) - 1), bool)
    for column in columns:
        same &= column[order][1:] == column[order][:-1]
    rows = np.flatnonzero(same)
    return int(order[rows[0] + 1]) if rows.size else None
