"""Groups nest to any depth, and trees move between them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.elements import Group
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Tracing, differences
from emloom.ops.tracinggroups import (
    add_group,
    delete_group,
    groups_within,
    move_group,
    move_trees,
    rename_group,
    trees_in_group,
)
from emloom.ops.tracingids import renumbered
from tests.geometry.tracing_strategies import tracings
from tests.ops.tracingfacts import check_whole, node_facts, written


def grouped() -> Tracing:
    skeletons = Skeletons.from_trees([(number, [[number, 0, 0]], []) for number in (1, 2, 3, 4)])
    bare = renumbered(Tracing.of(skeletons, (1, 1, 1)))
    return replace(
        bare,
        trees=bare.trees.replaced("groupId", [0, 5, 6, None]),
        groups=(Group(0, "all"), Group(5, "axons", 0), Group(6, "thin", 5), Group(2, "rest")),
    )


def test_groups_nest_as_deep_as_wanted() -> None:
    t = grouped()
    parent = 6
    for depth in range(5):  # a peer puts them at the top, silently
        t = add_group(t, f"level {depth}", parent=parent)
        parent = max(group.id for group in t.groups)
    assert groups_within(t, 6) == (6, 7, 8, 9, 10, 11)
    assert groups_within(t, 0) == (0, 5, 6, 7, 8, 9, 10, 11)
    check_whole(t)
    assert grouped().groups == grouped().groups
    assert [group.id for group in add_group(add_group(t, "x", id=40), "y").groups][-2:] == [40, 41]


def test_an_id_that_a_tree_names_is_not_given_to_a_new_group() -> None:
    t = replace(grouped(), trees=grouped().trees.replaced("groupId", [0, 5, 90, None]))
    assert add_group(t, "x").groups[-1].id == 91


def test_trees_are_found_and_moved() -> None:
    t = grouped()
    assert trees_in_group(t, 0) == (1, 2, 3)
    assert trees_in_group(t, 0, deep=False) == (1,)
    assert trees_in_group(t, 2) == ()
    moved = move_trees(t, [1, 4], 6)
    assert moved.tree_groups == (6, 5, 6, 6)
    assert move_trees(moved, [4], None).tree_groups == (6, 5, 6, None)
    assert t.tree_groups == (0, 5, 6, None)


def test_groups_are_moved_and_renamed() -> None:
    t = move_group(grouped(), 5, 2)
    assert [(group.id, group.parent) for group in t.groups] == [(0, None), (2, None), (5, 2), (6, 5)]
    check_whole(t)
    assert trees_in_group(t, 2) == (2, 3)
    assert [g.parent for g in move_group(t, 6, None).groups] == [None, None, 2, None]
    assert rename_group(t, 6, "thick").groups[-1].name == "thick"
    with pytest.raises(InputError, match="group 0 cannot go into group 6, which is inside it"):
        move_group(grouped(), 0, 6)


def test_a_group_is_deleted_with_its_trees_or_without() -> None:
    t = grouped()
    gone = delete_group(t, 5, content="delete")
    assert gone.skeletons.ids.tolist() == [1, 4]
    assert [group.id for group in gone.groups] == [0, 2]
    up = delete_group(t, 5, content="move up")
    assert up.tree_groups == (0, 0, 6, None)
    assert [(group.id, group.parent) for group in up.groups] == [(0, None), (6, 0), (2, None)]
    assert delete_group(t, 0, content="move up").tree_groups == (None, 5, 6, None)
    for each in (gone, up):
        check_whole(each)
    with pytest.raises(InputError, match="give 'delete' or 'move up'"):
        delete_group(t, 5, content="?")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: add_group(t, "x", parent=9),
        lambda t: move_trees(t, [1], 9),
        lambda t: move_group(t, 9, None),
        lambda t: move_group(t, 5, 9),
        lambda t: rename_group(t, 9, "x"),
        lambda t: delete_group(t, 9, content="delete"),
        lambda t: trees_in_group(t, 9),
    ],
)
def test_a_group_that_is_not_there_is_named(edit) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="has no group 9: its ids are 0, 5, 6, 2"):
        edit(grouped())
    with pytest.raises(InputError, match="two groups with the id 5"):
        add_group(grouped(), "x", id=5)


@settings(max_examples=40)
@given(tracings(), st.data())
def test_what_is_in_no_group_is_not_touched(t: Tracing, data: st.DataObject) -> None:
    if not t.groups:
        return
    group = data.draw(st.sampled_from(t.groups)).id
    before = written(t)
    up = delete_group(t, group, content="move up")
    assert node_facts(up) == node_facts(t)
    gone = delete_group(t, group, content="delete")
    inside = trees_in_group(t, group)
    assert gone.skeletons.ids.tolist() == [n for n in t.skeletons.ids.tolist() if n not in inside]
    moved = move_group(t, group, None)
    assert sorted(g.id for g in moved.groups) == sorted(g.id for g in t.groups)
    for each in (up, gone, moved):
        check_whole(each)
    assert written(t) == before
    child = add_group(t, "new", parent=group)
    (new,) = {g.id for g in child.groups} - {g.id for g in t.groups}
    assert differences(delete_group(child, new, content="delete"), t) == ()
