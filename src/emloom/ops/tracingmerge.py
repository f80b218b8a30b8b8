"""Several tracings as one, and trees added to one; ids stay unique, sources stay as they were.

Law: every node, edge, comment and branch point of every source is in the result once, and each id of a node, tree
and group stands once in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from emloom.errors import InputError
from emloom.geometry.columns import Columns, stacked
from emloom.geometry.elements import BOX_TAGS, Attachment, Element, stands_last
from emloom.geometry.skeletons import Skeletons, joined
from emloom.geometry.tracings import Marks, Others, Tracing
from emloom.ops.tracinggroups import move_trees
from emloom.ops.tracingids import renumbered, stray_ids


def merged(tracings: Iterable[Tracing]) -> Tracing:
    """Return the trees of several tracings as one tracing.

    The first keeps its ids. Of every other, trees, nodes and groups keep theirs where none of them is taken; else
    all trees and nodes, or all groups, get new ones above those that are there, and comments, branch points and
    groups of trees follow.

    Args:
        tracings: at least one. Positions are in nm, so voxel sizes may differ: the first's is the result's.

    Returns:
        the tracing: parameters of the first, with the bounding boxes of all; volume layers of all; other elements
        of the document of all, those that are equal once.

    Raises:
        InputError: there is no tracing, or two have different files of one name beside them.
    """
    listed = list(tracings)
    if not listed:
        raise InputError("no tracing was given to merge: give at least one")
    parts = _with_free_ids(listed)
    first = parts[0]
    same_unit = [_in_unit(part, first.radius_unit_nm) for part in parts]
    return replace(
        first,
        skeletons=joined([part.skeletons for part in parts], source=first.source),
        nodes=stacked(part.nodes for part in same_unit),
        trees=stacked(part.trees for part in parts),
        edges=stacked(part.edges for part in parts),
        comments=_all_marks([part.comments for part in parts], parts),
        branchpoints=_all_marks([part.branchpoints for part in parts], parts),
        groups=tuple(group for part in parts for group in part.groups),
        parameters=(*first.parameters, *_boxes(parts)),
        others=_all_others(parts),
        attachments=_all_attachments(parts),
    )


def _with_free_ids(tracings: Sequence[Tracing]) -> list[Tracing]:
    parts: list[Tracing] = []
    trees: set[int] = set()
    nodes: set[int] = set()
    groups: set[int] = set()
    for tracing in tracings:
        own_nodes = tracing.skeletons.node_ids.tolist()
        own_nodes_and_strays = {*own_nodes, *stray_ids(tracing)}
        repeated = len(set(own_nodes)) < len(own_nodes)
        if repeated or trees & set(tracing.skeletons.ids.tolist()) or nodes & own_nodes_and_strays:
            tracing = renumbered(
                tracing, first_tree=max(trees, default=0) + 1, first_node=max(nodes, default=0) + 1
            )
        own_groups = {group.id for group in tracing.groups} | set(tracing.tree_groups) - {None}
        if groups & own_groups:
            tracing = _regrouped(tracing, groups)
        trees |= set(tracing.skeletons.ids.tolist())
        nodes |= {*tracing.skeletons.node_ids.tolist(), *stray_ids(tracing)}
        groups |= {group.id for group in tracing.groups} | {g for g in tracing.tree_groups if g is not None}
        parts.append(tracing)
    return parts


def _regrouped(tracing: Tracing, taken: set[int]) -> Tracing:
    """Return the tracing with new ids for its groups, also for those that trees name and nobody lists."""
    named = [group.id for group in tracing.groups]
    named += sorted({g for g in tracing.tree_groups if g is not None} - set(named))
    start = max(*taken, *named) + 1
    new = {old: start + k for k, old in enumerate(named)}
    groups = tuple(
        replace(group, id=new[group.id], parent=None if group.parent is None else new[group.parent])
        for group in tracing.groups
    )
    of_trees = [None if old is None else new[old] for old in tracing.tree_groups]
    return replace(tracing, groups=groups, trees=tracing.trees.replaced("groupId", of_trees))


def _in_unit(tracing: Tracing, unit_nm: float) -> Tracing:
    if tracing.radius_unit_nm == unit_nm:
        return tracing
    nodes = tracing.nodes.replaced("radius", tracing.radii_nm / unit_nm)
    return replace(tracing, nodes=nodes, radius_unit_nm=unit_nm)


def _all_marks(marks: Sequence[Marks], parts: Sequence[Tracing]) -> Marks:
    first = np.cumsum([0, *(len(part.skeletons.node_ids) for part in parts)])
    rows = [each.rows + start for each, start in zip(marks, first[:-1], strict=True)]
    return Marks(np.concatenate(rows).astype(np.int64), stacked(each.columns for each in marks))


def _boxes(parts: Sequence[Tracing]) -> list[Element]:
    """Return the bounding boxes of all but the first, with ids that no other has."""
    taken = {element.get("id") for element in parts[0].parameters if element.tag in BOX_TAGS}
    boxes = []
    for part in parts[1:]:
        for element in part.parameters:
            if element.tag not in BOX_TAGS:
                continue
            if element.get("id") in taken - {None}:
                numbers = [int(number) for number in taken if number is not None and number.isdecimal()]
                element = element.replaced(id=str(max(numbers, default=0) + 1))
            taken.add(element.get("id"))
            boxes.append(element)
    return boxes


def _all_others(parts: Sequence[Tracing]) -> Others:
    document = list(parts[0].others.document)
    for part in parts[1:]:
        known = set(document)
        document += [element for element in part.others.document if element not in known]
    trees: dict[int, tuple[Element, ...]] = {}
    nodes: dict[int, tuple[Element, ...]] = {}
    first_tree = first_node = 0
    for part in parts:
        trees |= {first_tree + row: inside for row, inside in part.others.trees.items()}
        nodes |= {first_node + row: inside for row, inside in part.others.nodes.items()}
        first_tree += len(part.skeletons.ids)
        first_node += len(part.skeletons.node_ids)
    return Others(tuple(sorted(document, key=stands_last)), trees, nodes)


def _all_attachments(parts: Sequence[Tracing]) -> tuple[Attachment, ...]:
    found: dict[str, Attachment] = {}
    for part in parts:
        for attachment in part.attachments:
            if found.setdefault(attachment.name, attachment) != attachment:
                raise InputError(
                    f"{part.source} and another tracing both have a file {attachment.name} beside them: leave the "
                    "volume layers of one out, tracing.without_attachments()"
                )
    return tuple(found.values())


def add_trees(
    tracing: Tracing,
    skeletons: Skeletons,
    *,
    group: int | None = None,
    colour: Sequence[float] | None = None,
    radius_nm: float | None = None,
) -> Tracing:
    """Return the tracing with more trees, whose ids are new where theirs are taken.

    Args:
        tracing: what they are added to.
        skeletons: any number of trees; adding a thousand is one step, not a thousand.
        group: id of the group they go into; it must exist.
        colour: red, green, blue, and perhaps opacity, from 0 to 1.
        radius_nm: radius of every node.

    Returns:
        the tracing, its last trees the new ones.

    Raises:
        InputError: the group does not exist, or the colour is not 3 or 4 numbers.
    """
    bare = Tracing.of(skeletons, tracing.voxel_size_nm)
    n, k = len(skeletons.node_ids), len(skeletons.ids)
    if radius_nm is not None:
        bare = replace(bare, nodes=bare.nodes.replaced("radius", [float(radius_nm)] * n))
    if colour is not None:
        bare = replace(bare, trees=_coloured(bare, colour))
    made = merged([tracing, bare])
    return made if group is None else move_trees(made, made.skeletons.ids[len(made.skeletons.ids) - k :], group)


def _coloured(tracing: Tracing, colour: Sequence[float]) -> Columns:
    if len(colour) not in (3, 4):
        raise InputError(f"the colour {tuple(colour)} has {len(colour)} numbers: give red, green, blue, opacity")
    columns = tracing.trees
    for name, part in zip("rgba", (*colour, 1.0)[:4], strict=True):
        columns = columns.replaced(f"color.{name}", [float(part)] * columns.n)
    return columns


def add_points(
    tracing: Tracing, positions_nm: ArrayLike, names: Sequence[str] = (), *, group: int | None = None
) -> Tracing:
    """Return the tracing with a tree of one node at each position, as annotations of places are made.

    Args:
        tracing: what they are added to.
        positions_nm: [M, 3], z, y, x in nm.
        names: M names of trees, or none.
        group: id of the group they go into.

    Raises:
        InputError: as `add_trees`.
    """
    points = np.asarray(positions_nm, np.float64).reshape(-1, 3)
    trees = [(number, point[None], np.zeros((0, 2), np.int64)) for number, point in enumerate(points, 1)]
    return add_trees(tracing, Skeletons.from_trees(trees, names=names), group=group)
