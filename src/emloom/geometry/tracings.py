"""Tracings: skeletons and everything else that their file holds, so that nothing is lost on the way back.

::

    skeletons      ids, names, nodes in nm, edges: what every measure takes       `Skeletons`
    nodes trees edges     their attributes: radius, rotation, colour, groupId ...  `Columns`, a row for each
    comments branchpoints                                                          `Marks`, on rows of nodes
    groups         folders of trees, nested                                        `Group`
    parameters     scale, bounding boxes, camera, experiment ...                   `Element`
    others         what emloom does not understand, kept where it stood            `Others`

What stands twice has one master. Positions, names and voxel size are those of `skeletons` and `voxel_size_nm`. The
columns ``x``, ``y``, ``z`` of nodes, ``name`` of trees and the parameter ``scale`` are only how the file *spelled*
them: a writer keeps the spelling where it still means the same (``37484``, ``1.50``), and writes a new one where
an edit moved the node. So `dataclasses.replace(tracing, skeletons=moved)` is a whole edit.

A `Tracing` never changes. `carried` is how every edit makes a new one: it is told where each new node and tree
comes from, and brings attributes, comments, branch points and the active node along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from emloom.errors import InputError
from emloom.geometry.columns import Columns, as_texts
from emloom.geometry.elements import BOX_TAGS, Attachment, Element, Group, NamedBox
from emloom.geometry.grid import Vec3, as_nm
from emloom.geometry.skeletons import Floats, Rows, Skeletons

_COLOUR = ("color.r", "color.g", "color.b", "color.a")
NEW = -1
"""Origin of a node, tree or edge that comes from none: it has no attributes."""


@dataclass(frozen=True, eq=False)
class Marks:
    """Things said about nodes: comments (column ``content``), branch points (perhaps ``time``).

    Attributes:
        rows: int64 [M], the node of each, as a row of `Skeletons.node_ids`; a node may have several.
        columns: their attributes, M rows.
    """

    rows: Rows = field(default_factory=lambda: np.zeros(0, np.int64))
    columns: Columns = field(default_factory=lambda: Columns(0))

    @classmethod
    def of(cls, rows: ArrayLike, **texts: Iterable[str]) -> Marks:
        """Return marks on rows of nodes, with one text for each per attribute."""
        at = np.asarray(rows, np.int64).reshape(-1)
        columns = Columns(len(at))
        for name, values in texts.items():
            columns = columns.replaced(name, list(values))
        return cls(at, columns)

    def take(self, which: ArrayLike) -> Marks:
        """Return the marks of the given numbers."""
        at = np.asarray(which, np.int64)
        return Marks(self.rows[at], self.columns.take(at))

    def carried(self, nodes_from: Rows, n_before: int) -> Marks:
        """Return the marks of the nodes that are still there; see `carried`."""
        now = np.full(n_before, NEW)
        # Backwards, so that of a node that became two the first keeps its marks.
        now[nodes_from[::-1]] = np.arange(len(nodes_from))[::-1]
        kept = np.flatnonzero(now[self.rows] != NEW)
        return Marks(now[self.rows[kept]].astype(np.int64), self.columns.take(kept))


@dataclass(frozen=True, eq=False)
class Others:
    """Elements that emloom keeps without understanding them.

    An element that stood in a container, such as ``<nodes>``, is kept inside an element of that name; attributes
    of a container are kept on an element of that name too.

    Attributes:
        document: of the whole file: ``<meta>``, ``<volume>``, comments on nodes that do not exist, ...
        trees: row of `Skeletons.ids` -> elements inside the tree, such as ``<metadata>``.
        nodes: row of `Skeletons.node_ids` -> elements inside the node.
    """

    document: tuple[Element, ...] = ()
    trees: Mapping[int, tuple[Element, ...]] = field(default_factory=dict)
    nodes: Mapping[int, tuple[Element, ...]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Tracing:
    """Skeletons with everything their file holds; see the module.

    Attributes:
        skeletons: N nodes and E edges of K trees; positions in nm.
        voxel_size_nm: size (z, y, x) of a full-resolution voxel: the unit of coordinates in the file.
        nodes: attributes of nodes, N rows, such as ``radius`` (in `radius_unit_nm`), ``rotX``, ``inVp``, ``time``.
        trees: attributes of trees, K rows, such as ``color.r``, ``groupId``, ``isVisible``.
        edges: attributes of edges, E rows.
        comments: with the column ``content``.
        branchpoints: perhaps with the column ``time``.
        groups: in the order of the file, a parent before its children.
        parameters: in the order of the file.
        others: what is kept without being understood.
        attachments: files that lay beside the tracing in its archive.
        radius_unit_nm: how many nm one unit of the column ``radius`` is.

    Raises:
        InputError: a table has another number of rows, a mark is on a row that does not exist, a group id stands
            twice, a parent does not exist or comes later, or the voxel size is not positive.
    """

    skeletons: Skeletons
    voxel_size_nm: Vec3
    nodes: Columns
    trees: Columns
    edges: Columns
    comments: Marks = field(default_factory=Marks)
    branchpoints: Marks = field(default_factory=Marks)
    groups: tuple[Group, ...] = ()
    parameters: tuple[Element, ...] = ()
    others: Others = field(default_factory=Others)
    attachments: tuple[Attachment, ...] = ()
    radius_unit_nm: float = 1.0

    def __post_init__(self) -> None:
        size = as_nm(self.voxel_size_nm, "voxel size")
        if min(*size, self.radius_unit_nm) <= 0:
            raise InputError(f"{self.source}: the voxel size {size} nm (z, y, x) is not positive")
        object.__setattr__(self, "voxel_size_nm", size)
        s = self.skeletons
        for what, columns, n in (
            ("nodes", self.nodes, len(s.node_ids)),
            ("trees", self.trees, len(s.ids)),
            ("edges", self.edges, len(s.edges)),
        ):
            if columns.n != n:
                raise InputError(f"{self.source} has {n} {what}, but attributes for {columns.n}: give as many")
        for what, marks in (("comments", self.comments), ("branchpoints", self.branchpoints)):
            self._check_marks(what, marks)
        self._check_groups()

    def _check_marks(self, what: str, marks: Marks) -> None:
        n = len(self.skeletons.node_ids)
        if marks.columns.n != len(marks.rows):
            raise InputError(f"{self.source} has {len(marks.rows)} {what}, but attributes for {marks.columns.n}")
        strangers = np.flatnonzero((marks.rows < 0) | (marks.rows >= n))
        if strangers.size:
            raise InputError(
                f"{self.source} has {what} on node row {marks.rows[strangers[0]]}, but {n} nodes, counted from 0"
            )

    def _check_groups(self) -> None:
        seen: set[int] = set()
        for group in self.groups:
            if group.id in seen:
                raise InputError(f"{self.source} has two groups with the id {group.id}: an id names one group")
            if group.parent is not None and group.parent not in seen:
                raise InputError(
                    f"{self.source}: group {group.id} {group.name!r} is in group {group.parent}, which does not "
                    "stand before it: list a parent before its children"
                )
            seen.add(group.id)

    @classmethod
    def of(cls, skeletons: Skeletons, voxel_size_nm: Iterable[float]) -> Tracing:
        """Return a tracing of bare skeletons, to be written in voxels of the given size (z, y, x) in nm."""
        size = as_nm(tuple(voxel_size_nm), "voxel size")
        s = skeletons
        return cls(s, size, Columns(len(s.node_ids)), Columns(len(s.ids)), Columns(len(s.edges)))

    @property
    def source(self) -> str:
        """Path shown in messages."""
        return self.skeletons.source

    @cached_property
    def radii_nm(self) -> Floats:
        """float64 [N]: radius of each node in nm; NaN where it has none.

        Raises:
            InputError: a radius is no number.
        """
        return self.nodes.numbers("radius", f"{self.source}: node row") * self.radius_unit_nm

    @cached_property
    def colours(self) -> Floats:
        """float64 [K, 4]: red, green, blue, opacity of each tree from 0 to 1; NaN where it has none."""
        parts = [self.trees.numbers(name, f"{self.source}: tree row") for name in _COLOUR]
        return np.stack(parts, axis=1)

    @cached_property
    def tree_groups(self) -> tuple[int | None, ...]:
        """Id of the group each tree is in, None for a tree at the top; it may name a group that is not listed.

        Raises:
            InputError: a groupId is no whole number.
        """
        numbers = self.trees.numbers("groupId", f"{self.source}: tree row")
        if (np.floor(numbers) != numbers)[np.isfinite(numbers)].any():
            raise InputError(f"{self.source} has a groupId that is no whole number: mend the file")
        return tuple(None if np.isnan(number) else int(number) for number in numbers)

    @cached_property
    def boxes(self) -> tuple[NamedBox, ...]:
        """Bounding boxes that the tracer drew, or was given, in the order of the file.

        Raises:
            InputError: as `NamedBox.read`.
        """
        return tuple(NamedBox.read(element) for element in self.parameters if element.tag in BOX_TAGS)

    def with_boxes(self, boxes: Iterable[NamedBox]) -> Tracing:
        """Return the tracing with these bounding boxes in place of its own."""
        kept = tuple(element for element in self.parameters if element.tag not in BOX_TAGS)
        return replace(self, parameters=(*kept, *(box.element() for box in boxes)))

    def parameter(self, tag: str) -> Element | None:
        """Return the first parameter of a name, such as ``experiment`` or ``editPosition``; None without one."""
        return next((element for element in self.parameters if element.tag == tag), None)

    def with_parameter(self, element: Element) -> Tracing:
        """Return the tracing with a parameter in place of those of its name, or after the last one."""
        tags = [old.tag for old in self.parameters]
        kept = [old for old in self.parameters if old.tag != element.tag]
        at = tags.index(element.tag) if element.tag in tags else len(kept)
        return replace(self, parameters=(*kept[:at], element, *kept[at:]))

    @cached_property
    def active_node(self) -> int | None:
        """Row of the node that was active in the viewer, None where none is or it does not exist."""
        element = self.parameter("activeNode")
        if element is None:
            return None
        rows = np.flatnonzero(self.skeletons.node_ids == element.whole("id"))
        return int(rows[0]) if rows.size else None

    def comment_texts(self) -> tuple[str, ...]:
        """Return the text of each of `comments`, empty where it has none."""
        return tuple(text or "" for text in self.comments.columns["content"])

    def without_attachments(self) -> Tracing:
        """Return the tracing without the files beside it, and without the volume layers they hold."""
        kept = tuple(element for element in self.others.document if element.tag != "volume")
        return replace(self, attachments=(), others=replace(self.others, document=kept))


def carried(
    tracing: Tracing,
    skeletons: Skeletons,
    *,
    nodes_from: ArrayLike,
    trees_from: ArrayLike,
    edges_from: ArrayLike | None = None,
) -> Tracing:
    """Return other skeletons with what `tracing` said about the nodes, trees and edges they come from.

    Args:
        tracing: where they come from.
        skeletons: the new ones, N nodes, K trees, E edges.
        nodes_from: [N], the row each node had in `tracing`; `NEW` for one that was not there. Of a node that
            became several, all keep the attributes, the first keeps comments and branch points.
        trees_from: [K], likewise of trees; a tree that became several keeps group, colour and metadata in all.
        edges_from: [E], likewise of edges; without it no edge keeps attributes.

    Returns:
        the tracing; its parameters, groups and other elements are kept, an active node that is gone is not.
    """
    nodes, trees = np.asarray(nodes_from, np.int64), np.asarray(trees_from, np.int64)
    edges = np.full(len(skeletons.edges), NEW) if edges_from is None else np.asarray(edges_from, np.int64)
    n = len(tracing.skeletons.node_ids)
    old = np.where(nodes == NEW, n, nodes)  # row n stands for no node
    made = replace(
        tracing,
        skeletons=skeletons,
        nodes=_taken(tracing.nodes, nodes),
        trees=_taken(tracing.trees, trees),
        edges=_taken(tracing.edges, edges),
        comments=tracing.comments.carried(old, n + 1),
        branchpoints=tracing.branchpoints.carried(old, n + 1),
        others=Others(
            tracing.others.document, _moved(tracing.others.trees, trees), _moved(tracing.others.nodes, nodes)
        ),
    )
    active = tracing.parameter("activeNode")
    if active is None:
        return made
    before = tracing.active_node
    now = np.flatnonzero(nodes == (n if before is None else before))
    if now.size:
        return made.with_parameter(active.replaced(id=str(skeletons.node_ids[now[0]])))
    return replace(made, parameters=tuple(e for e in made.parameters if e.tag != "activeNode"))


def _taken(columns: Columns, rows: Rows) -> Columns:
    if not (rows == NEW).any():
        return columns.take(rows)
    absent = as_texts([None])
    texts = {name: np.concatenate([column, absent])[rows] for name, column in columns.texts.items()}
    return Columns(len(rows), texts)


def _moved(others: Mapping[int, tuple[Element, ...]], rows: Rows) -> dict[int, tuple[Element, ...]]:
    if not others:
        return {}
    return {now: others[before] for now, before in enumerate(rows.tolist()) if before in others}


def differences(a: Tracing, b: Tracing) -> tuple[str, ...]:
    """Return what two tracings differ in, by name; empty where they say the same, bit for bit.

    Spelling is no difference: ``1`` or ``1.0`` as a coordinate or a radius, and in which unit the scale stands.
    """
    same: dict[str, Callable[[], bool]] = {
        "tree ids": lambda: np.array_equal(a.skeletons.ids, b.skeletons.ids),
        "names": lambda: a.skeletons.names == b.skeletons.names,
        "node ids": lambda: np.array_equal(a.skeletons.node_ids, b.skeletons.node_ids),
        "trees of nodes": lambda: np.array_equal(a.skeletons.skeletons, b.skeletons.skeletons),
        "positions": lambda: np.array_equal(a.skeletons.positions_nm, b.skeletons.positions_nm),
        "edges": lambda: np.array_equal(a.skeletons.edges, b.skeletons.edges),
        "voxel size": lambda: a.voxel_size_nm == b.voxel_size_nm,
        "radii": lambda: np.array_equal(a.radii_nm, b.radii_nm, equal_nan=True),
        "attributes of nodes": lambda: _unspelled(a.nodes).equals(_unspelled(b.nodes)),
        "attributes of trees": lambda: _unspelled(a.trees).equals(_unspelled(b.trees)),
        "attributes of edges": lambda: a.edges.equals(b.edges),
        "comments": lambda: _same_marks(a.comments, b.comments),
        "branch points": lambda: _same_marks(a.branchpoints, b.branchpoints),
        "groups": lambda: a.groups == b.groups,
        "parameters": lambda: _unscaled(a) == _unscaled(b),
        "other elements": lambda: a.others.document == b.others.document,
        "other elements of trees": lambda: dict(a.others.trees) == dict(b.others.trees),
        "other elements of nodes": lambda: dict(a.others.nodes) == dict(b.others.nodes),
        "attachments": lambda: [x.name for x in a.attachments] == [x.name for x in b.attachments],
    }
    return tuple(name for name, equal in same.items() if not equal())


def _unspelled(columns: Columns) -> Columns:
    spelled = {"x", "y", "z", "radius", "name"}
    return Columns(columns.n, {name: column for name, column in columns.texts.items() if name not in spelled})


def _same_marks(a: Marks, b: Marks) -> bool:
    return np.array_equal(a.rows, b.rows) and a.columns.equals(b.columns)


def _unscaled(tracing: Tracing) -> list[Element]:
    return [element for element in tracing.parameters if element.tag != "scale"]
