"""Groups of trees: folders in folders, of any depth.

Every function returns a new tracing, its groups in the order of a file: each before those in it, and those before
the next at its side.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import numpy as np

from emloom.errors import InputError
from emloom.geometry.elements import Group, nested
from emloom.geometry.tracings import Tracing
from emloom.ops.tracingids import free_groups, group_index, tree_rows
from emloom.ops.tracingparts import select_trees


def add_group(tracing: Tracing, name: str, *, parent: int | None = None, id: int | None = None) -> Tracing:
    """Return the tracing with a new group, the last inside its parent.

    Args:
        tracing: what it is added to.
        name: several groups may have one name.
        parent: id of the group around it, None at the top.
        id: number of the group; without it, one above all others, so that it is the largest.

    Raises:
        InputError: the parent does not exist, or the id is taken.
    """
    if parent is not None:
        group_index(tracing, parent)
    named = [Group(g) for g in tracing.tree_groups if g is not None]
    number = free_groups([*tracing.groups, *named], 1)[0] if id is None else id
    return replace(tracing, groups=nested((*tracing.groups, Group(number, name, parent))))


def groups_within(tracing: Tracing, group: int) -> tuple[int, ...]:
    """Return a group and all groups in it, however deep.

    Raises:
        InputError: the group does not exist.
    """
    group_index(tracing, group)
    inside = {group: None}
    for each in tracing.groups:  # parents stand before their children
        if each.parent in inside:
            inside[each.id] = None
    return tuple(inside)


def trees_in_group(tracing: Tracing, group: int, *, deep: bool = True) -> tuple[int, ...]:
    """Return the ids of the trees in a group, and in the groups within it unless `deep` is False.

    Raises:
        InputError: the group does not exist.
    """
    wanted = set(groups_within(tracing, group)) if deep else {tracing.groups[group_index(tracing, group)].id}
    ids = tracing.skeletons.ids.tolist()
    return tuple(number for number, of in zip(ids, tracing.tree_groups, strict=True) if of in wanted)


def move_trees(tracing: Tracing, trees: Iterable[int], group: int | None) -> Tracing:
    """Return the tracing with some trees in another group, or in none.

    Args:
        tracing: whose other trees stay where they are.
        trees: ids of trees.
        group: id of a group, None for the top.

    Raises:
        InputError: a tree or the group does not exist.
    """
    if group is not None:
        group_index(tracing, group)
    texts = tracing.trees["groupId"].copy()
    texts[tree_rows(tracing, trees)] = None if group is None else str(group)
    return replace(tracing, trees=tracing.trees.replaced("groupId", texts.tolist()))


def move_group(tracing: Tracing, group: int, parent: int | None) -> Tracing:
    """Return the tracing with a group, and all in it, inside another group, or at the top.

    Raises:
        InputError: a group does not exist, or `parent` lies inside the group itself.
    """
    within = groups_within(tracing, group)
    if parent is not None and parent in within:
        raise InputError(
            f"group {group} cannot go into group {parent}, which is inside it: move that one out first"
        )
    if parent is not None:
        group_index(tracing, parent)
    moved = [replace(g, parent=parent) if g.id == group else g for g in tracing.groups if g.id in within]
    rest = [g for g in tracing.groups if g.id not in within]
    return replace(tracing, groups=nested((*rest, *moved)))


def rename_group(tracing: Tracing, group: int, name: str) -> Tracing:
    """Return the tracing with another name for a group.

    Raises:
        InputError: the group does not exist.
    """
    at = group_index(tracing, group)
    renamed = replace(tracing.groups[at], name=name)
    return replace(tracing, groups=(*tracing.groups[:at], renamed, *tracing.groups[at + 1 :]))


def delete_group(tracing: Tracing, group: int, *, content: Literal["delete", "move up"]) -> Tracing:
    """Return the tracing without a group.

    Args:
        tracing: whose other groups stay.
        group: id of the group.
        content: "delete" also deletes the trees in it and the groups within it with theirs; "move up" puts its
            trees and groups where it was itself.

    Raises:
        InputError: the group does not exist, or `content` is neither.
    """
    if content not in ("delete", "move up"):
        raise InputError(f"what shall become of the content of group {group}? give 'delete' or 'move up'")
    if content == "delete":
        within = set(groups_within(tracing, group))
        keep = np.array([of not in within for of in tracing.tree_groups], bool)
        kept = select_trees(tracing, tracing.skeletons.ids[keep])
        return replace(kept, groups=tuple(each for each in tracing.groups if each.id not in within))
    parent = tracing.groups[group_index(tracing, group)].parent
    moved = move_trees(tracing, trees_in_group(tracing, group, deep=False), parent)
    groups = [
        replace(each, parent=parent) if each.parent == group else each
        for each in tracing.groups
        if each.id != group
    ]
    return replace(moved, groups=tuple(groups))
