"""Agglomeration of a volume too large for one graph: leaf by leaf, then eight nodes at a time, with equal results.

Leaves are cells of a lattice. A node of level k holds 2 x 2 x 2 nodes of level k - 1 (fewer at the rim); the root
holds all. Each node adds up what its children left over, makes the merges that nothing outside can change, and
passes the rest on (`emloom.ops.agglomerate.agglomerate_part`)::

    level 0    a │ b ║ c │ d    region graph of each leaf
                 ↓       ↓
    level 1    a   b ║ c   d    what lies on ║ stays frozen; what lies on │ only is free to merge now
                     ↓
    level 2    a   b   c   d    nothing outside: every merge left

Which regions must wait? Those with voxel pairs that the node does not own (`emloom.ops.regions`). Fragments are
connected, so such a region shows at a face between the node and a leaf of another: with a voxel in the node's own
layer there, or, where it lies outside and the node reads it, in the halo layer across. `face_ids` lists both. They
are fragments that nothing merged so far, since the face was open at every level below.

Nodes of one level know nothing of each other, so they can run anywhere, in any order. For large volumes each is a
block that reads its children's residuals and the faces `Octree.open_faces` names; `agglomerate_octree` is the same
in memory. Where eight residuals together are too large, halves of the family come first (`Contraction`): the last
graph is then what two halves leave on one plane, not what eight nodes leave on three.

The method is that of Lu, Zlateski & Seung (Large-scale image segmentation based on distributed clustering
algorithms, arXiv:2106.10795), with a rule for equal scores (`emloom.ops.freezing`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.ops.agglomerate import Linkage, MergeTree, agglomerate_part, join_trees
from emloom.ops.regions import RegionGraph, merge_graphs

Ids = NDArray[np.uint64]
FacesOf = Callable[[Vec], Sequence[Ids]]

SIDES: tuple[Vec, ...] = ((-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1))
"""The faces of a cell, in the order of every list of faces: z-, z+, y-, y+, x-, x+."""


@dataclass(frozen=True, slots=True, order=True)
class Node:
    """A place in the octree.

    Attributes:
        level: 0 for a leaf.
        index: position (z, y, x) among the nodes of its level; a leaf's is its lattice position.
    """

    level: int
    index: Vec


@dataclass(frozen=True)
class Octree:
    """The hierarchy over the leaves of a volume; where no leaf is listed, there is nothing to wait for.

    Attributes:
        leaves: lattice positions (z, y, x), in any order, any sign.

    Raises:
        InputError: there is no leaf, or one is listed twice.
    """

    leaves: tuple[Vec, ...]

    def __post_init__(self) -> None:
        count, different = len(self.leaves), len(self._known)
        if not count or different < count:
            raise InputError(f"{count} leaves, {different} of them different: list each once, and at least one")

    @cached_property
    def _known(self) -> frozenset[Vec]:
        return frozenset(self.leaves)

    @cached_property
    def _low(self) -> Vec:
        z, y, x = (min(axis) for axis in zip(*self.leaves, strict=True))
        return z, y, x

    @cached_property
    def depth(self) -> int:
        """Level of the root: 0 where there is one leaf, k for up to 2^k leaves along the longest axis."""
        extents: list[int] = [max(axis) - min(axis) for axis in zip(*self.leaves, strict=True)]
        return max(extents).bit_length()

    @cached_property
    def _levels(self) -> list[dict[Node, list[Vec]]]:
        """Leaves of each node, for each level."""
        levels: list[dict[Node, list[Vec]]] = [{} for _ in range(self.depth + 1)]
        for leaf in sorted(self.leaves):
            for level, members in enumerate(levels):
                members.setdefault(self.ancestor(leaf, level), []).append(leaf)
        return levels

    def ancestor(self, leaf: Vec, level: int) -> Node:
        """Return the node of `level` that holds a leaf."""
        if level == 0:
            return Node(0, leaf)
        z, y, x = ((i - low) >> level for i, low in zip(leaf, self._low, strict=True))
        return Node(level, (z, y, x))

    def nodes(self, level: int) -> list[Node]:
        """Return the nodes of a level, ascending.

        Raises:
            InputError: the level is not in 0 .. depth.
        """
        if not 0 <= level <= self.depth:
            raise InputError(f"level {level} is outside 0 .. {self.depth}, the level of this octree's root")
        return sorted(self._levels[level])

    def leaves_of(self, node: Node) -> list[Vec]:
        """Return the leaves a node holds, ascending.

        Raises:
            InputError: the octree has no such node.
        """
        if node.level > self.depth or node not in self._levels[node.level]:
            raise InputError(f"{node} holds none of the {len(self.leaves)} leaves of this octree")
        return self._levels[node.level][node]

    def children(self, node: Node) -> list[Node]:
        """Return the nodes of the level below that a node holds, ascending: at most eight, none for a leaf."""
        if node.level == 0:
            return []
        return sorted({self.ancestor(leaf, node.level - 1) for leaf in self.leaves_of(node)})

    def open_faces(self, nodes: Collection[Node]) -> list[tuple[Vec, int]]:
        """Return the faces between nodes of one level, together, and the others: (leaf of a node, its side).

        The side is a number in `SIDES`.
        """
        faces = [(node, leaf, side) for node in nodes for leaf in self.leaves_of(node) for side in range(6)]
        return [(leaf, side) for node, leaf, side in faces if self._leads_out(leaf, side, node.level, nodes)]

    def frozen_of(self, nodes: Collection[Node], faces: FacesOf) -> Ids:
        """Return the ids that must not merge in nodes of one level, ascending: on both sides of their open faces.

        Args:
            nodes: which; they are contracted together.
            faces: tells the six arrays of `face_ids` of a leaf; asked once for each leaf that `open_faces` names.
        """
        sides: dict[Vec, list[int]] = {}
        for leaf, side in self.open_faces(nodes):
            sides.setdefault(leaf, []).append(side)
        known = ((faces(leaf), chosen) for leaf, chosen in sides.items())
        return _unique(six[side] for six, chosen in known for side in chosen)

    def _leads_out(self, leaf: Vec, side: int, level: int, nodes: Collection[Node]) -> bool:
        (z, y, x), (dz, dy, dx) = leaf, SIDES[side]
        across = (z + dz, y + dy, x + dx)
        return across in self._known and self.ancestor(across, level) not in nodes


def face_ids(fragments_ZYX: NDArray[Any], owned: Box) -> tuple[Ids, ...]:
    """Return the fragments at the six faces of a leaf, on both sides where both are read.

    Args:
        fragments_ZYX: fragment ids, any unsigned integer, of the leaf and its halo; 0 is background.
        owned: the leaf, in array coordinates, as given to `emloom.ops.regions.region_graph`. The halo must hold
            every voxel that a pair of the leaf's needs: one layer below for offsets -1, one above for offsets +1.

    Returns:
        Six arrays uint64, ascending, in the order of `SIDES`: the ids other than 0 in the leaf's outermost layer
        and, where the array goes on beyond it, in the layer across.

    Raises:
        InputError: the fragments are not unsigned [Z, Y, X], or `owned` is empty or leaves the array.
    """
    if fragments_ZYX.ndim != 3 or fragments_ZYX.dtype.kind != "u":
        kind = f"{fragments_ZYX.dtype} array with {fragments_ZYX.ndim} axes"
        raise InputError(f"fragments are a {kind}: they must be unsigned integers [Z, Y, X]")
    whole = Box.whole(fragments_ZYX.shape)
    if owned.is_empty or not whole.contains(owned):
        raise InputError(f"the owned {owned} is empty or leaves the array of shape {fragments_ZYX.shape}")
    return tuple(_unique([fragments_ZYX[_layers(owned, side).intersect(whole).slices()]]) for side in SIDES)


@dataclass(frozen=True)
class Contraction:
    """How the nodes of an octree are contracted, whatever keeps their graphs.

    Attributes:
        octree: which.
        graph: returns the graph of a node: of a leaf its region graph, else what its children left over.
        edges: returns how many edges that graph has, without reading it.
        faces: returns the six arrays of `face_ids` of a leaf.
        part: `agglomerate_part` with its linkage and threshold.
        most_edges: nodes that have more together are contracted in halves first, where they are more than two.
    """

    octree: Octree
    graph: Callable[[Node], RegionGraph]
    edges: Callable[[Node], int]
    faces: FacesOf
    part: Callable[[RegionGraph, Ids], tuple[MergeTree, RegionGraph]]
    most_edges: int | None = None

    def contract(self, nodes: Sequence[Node]) -> tuple[MergeTree, RegionGraph]:
        """Make the merges of nodes of one level, taken together, that nothing outside of them can change.

        Returns:
            The merges, and the graph left over, as `agglomerate_part`: the same for any `most_edges`.
        """
        trees: list[MergeTree] = []
        too_many = self.most_edges is not None and sum(map(self.edges, nodes)) > self.most_edges
        if too_many and len(nodes) > 2:
            graphs = []
            for half in _halves(nodes):
                tree, left = self.contract(half)
                trees.append(tree)
                graphs.append(left)
            graph = merge_graphs(graphs)
            del graphs, left
        else:
            graph = merge_graphs([self.graph(node) for node in nodes])
        tree, left = self.part(graph, self.octree.frozen_of(nodes, self.faces))
        return join_trees([*trees, tree]), left


def agglomerate_octree(
    graphs: Mapping[Vec, RegionGraph],
    faces: Mapping[Vec, Sequence[Ids]],
    *,
    linkage: Linkage = "mean",
    quantile: int = 50,
    threshold: float = 0.0,
    most_edges: int | None = None,
) -> MergeTree:
    """Return the merge tree of the sum of all leaves' graphs, found node by node.

    Law: equal to ``agglomerate(merge_graphs(list(graphs.values())), ...)``, merge by merge.

    Args:
        graphs: region graph of each leaf (lattice position): the voxel pairs it owns, face contacts only.
        faces: the fragments at the faces of each leaf, from `face_ids`; every fragment is connected through faces.
        linkage: the score; see `emloom.ops.agglomerate`.
        quantile: percentage, 0 .. 99, of the quantile linkage.
        threshold: stop where the best score falls below this, in [0, 1].
        most_edges: see `Contraction`.

    Raises:
        InputError: there is no leaf, or as `agglomerate_part` and `merge_graphs`.
    """
    octree = Octree(tuple(graphs))
    left = {Node(0, leaf): graph for leaf, graph in graphs.items()}
    part = partial(agglomerate_part, linkage=linkage, quantile=quantile, threshold=threshold)
    nodes = Contraction(
        octree, left.__getitem__, lambda node: len(left[node]), faces.__getitem__, part, most_edges
    )
    trees = []
    for level in range(octree.depth + 1):
        for node in octree.nodes(level):
            tree, left[node] = nodes.contract(octree.children(node) or [node])
            trees.append(tree)
    return join_trees(trees)


def _halves(nodes: Sequence[Node]) -> list[list[Node]]:
    """Cut siblings in two, across the first axis along which they lie side by side."""
    places = np.array([node.index for node in nodes])
    axis = int(np.flatnonzero(np.ptp(places, axis=0))[0])
    upper = places[:, axis] == places[:, axis].max()
    return [[node for node, high in zip(nodes, upper, strict=True) if high == wanted] for wanted in (False, True)]


def _layers(owned: Box, side: Vec) -> Box:
    """Return the outermost layer of a box on one side, and the layer across."""
    start, stop = list(owned.start), list(owned.stop)
    for axis, step in enumerate(side):
        if step < 0:
            start[axis], stop[axis] = start[axis] - 1, start[axis] + 1
        elif step > 0:
            start[axis], stop[axis] = stop[axis] - 1, stop[axis] + 1
    return Box.of(start, stop)


def _unique(parts: Iterable[NDArray[Any]]) -> Ids:
    """Return the ids other than 0 of all arrays, ascending."""
    flat = [np.zeros(0, np.uint64), *(np.unique(part).astype(np.uint64) for part in parts)]
    ids = np.unique(np.concatenate(flat))
    return ids[ids > 0]
