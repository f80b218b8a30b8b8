"""Merging keeps everything of everyone, and changes no source."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.box import Box
from emloom.geometry.elements import Attachment, Element, Group, NamedBox
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Marks, Others, Tracing, differences
from emloom.io.nml import read_nml_tracing
from emloom.ops.tracingids import node_rows, renumbered, tree_rows
from emloom.ops.tracingmerge import add_points, add_trees, merged
from emloom.ops.tracingparts import select_trees
from tests.geometry.tracing_strategies import tracings
from tests.ops.tracingfacts import check_whole, node_facts, tree_facts, written


def small(**change: Any) -> Tracing:
    """Two nodes of one tree in a group, commented and branching."""
    skeletons = Skeletons.from_trees([(1, [[0, 0, 0], [4, 4, 4]], [[0, 1]])], names=("axon",))
    bare = Tracing.of(skeletons, (2, 2, 2))
    made = replace(
        bare,
        nodes=bare.nodes.replaced("radius", [0, 1.5]).replaced("rotX", [0, 0]),
        trees=bare.trees.replaced("groupId", [7]),
        comments=Marks.of([1], content=["tip"]),
        branchpoints=Marks.of([0], time=["12"]),
        groups=(Group(3, "all"), Group(7, "axons", 3)),
    )
    return replace(made, **change)


@settings(max_examples=40)
@given(st.lists(tracings(), min_size=1, max_size=3))
def test_everything_of_everyone_is_there_once(parts: list[Tracing]) -> None:
    texts = [written(part) for part in parts]
    whole = merged(parts)
    check_whole(whole)
    assert [written(part) for part in parts] == texts  # a peer renumbers the source it merges from
    nodes = Counter(fact for part in parts for fact in node_facts(part).values())
    assert sorted(map(repr, Counter(node_facts(whole).values()).items())) == sorted(map(repr, nodes.items()))
    names = [name for part in parts for name in part.skeletons.names]
    assert list(whole.skeletons.names) == names
    assert whole.skeletons.lengths_nm.tolist() == [x for p in parts for x in p.skeletons.lengths_nm.tolist()]
    ids = [group.id for group in whole.groups]
    assert len(set(ids)) == len(ids)
    named = [dict(zip(ids, whole.groups, strict=True)).get(g) for g in whole.tree_groups]
    before = [{group.id: group.name for group in part.groups}.get(of) for part in parts for of in part.tree_groups]
    assert [None if group is None else group.name for group in named] == before


@settings(max_examples=30)
@given(tracings(), tracings())
def test_the_first_keeps_its_ids(first: Tracing, second: Tracing) -> None:
    whole = merged([first, second])
    part = select_trees(whole, first.skeletons.ids)
    assert node_facts(part) == node_facts(first)
    assert tree_facts(part) == tree_facts(first)
    assert differences(merged([first]), first) == ()


@settings(max_examples=30)
@given(tracings(), st.integers(0, 9), st.integers(0, 9))
def test_renumbering_changes_nothing_but_numbers(tracing: Tracing, tree: int, node: int) -> None:
    new = renumbered(tracing, first_tree=tree, first_node=node)
    check_whole(new)
    assert new.skeletons.ids.tolist() == list(range(tree, tree + len(new.skeletons.ids)))
    assert new.skeletons.node_ids.tolist() == list(range(node, node + len(new.skeletons.node_ids)))
    assert list(node_facts(new).values()) == list(node_facts(tracing).values())
    assert new.active_node == tracing.active_node


def test_ids_that_are_free_stay() -> None:
    other = renumbered(
        small(groups=(), trees=small().trees.replaced("groupId", None)), first_tree=9, first_node=50
    )
    whole = merged([small(), other])
    assert whole.skeletons.ids.tolist() == [1, 9]
    assert whole.skeletons.node_ids.tolist() == [1, 2, 50, 51]


def test_groups_boxes_and_comments_follow_their_new_numbers() -> None:
    boxed = small().with_boxes([NamedBox(Box((0, 0, 0), (1, 1, 1)), "b", id=0)])
    whole = merged([boxed, boxed, boxed])
    assert whole.skeletons.node_ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert whole.comments.rows.tolist() == [1, 3, 5]
    assert whole.branchpoints.rows.tolist() == [0, 2, 4]  # a peer leaves them on the old ids
    assert [(group.id, group.parent) for group in whole.groups] == [
        (3, None),
        (7, 3),
        (8, None),
        (9, 8),
        (10, None),
        (11, 10),
    ]
    assert whole.tree_groups == (7, 9, 11)
    assert [box.id for box in whole.boxes] == [0, 1, 2]
    assert '<comment node="4" content="tip" />' in written(whole)
    assert '<branchpoint id="3" time="12" />' in written(whole)


def test_radii_and_places_are_lengths_whatever_the_units() -> None:
    in_micrometres = replace(small(), radius_unit_nm=1000.0, voxel_size_nm=(1, 1, 1))
    whole = merged([small(), in_micrometres])
    assert whole.radii_nm.tolist() == [0, 1.5, 0, 1500]
    assert whole.voxel_size_nm == (2, 2, 2)
    assert whole.skeletons.positions_nm[3].tolist() == [4, 4, 4]
    check_whole(whole)


def test_columns_of_zeros_are_columns() -> None:
    # A peer drops columns whose first value is falsy, and shifts the others into their place.
    whole = merged([small(), small()])
    assert whole.nodes["rotX"].tolist() == ["0"] * 4
    assert whole.radii_nm.tolist() == [0, 1.5, 0, 1.5]


def test_a_comment_without_a_node_never_finds_one() -> None:
    stray = Element("comments", (), (Element.of("comment", {"node": "3", "content": "lost"}),))
    a, b = small(), small(others=Others((stray,)))
    for whole in (merged([a, b]), merged([b, a]), merged([b, b])):
        assert sorted(set(whole.comment_texts())) == ["tip"]
        again = written(whole)
        assert again.count("lost") >= 1
        check_whole(whole)


def test_volume_layers_of_one_name_are_not_mixed_up() -> None:
    a = small(attachments=(Attachment("data.zip", "a.zip", 1),))
    b = small(attachments=(Attachment("data.zip", "b.zip", 1),))
    assert merged([a, small()]).attachments == a.attachments
    with pytest.raises(InputError, match=r"both have a file data\.zip"):
        merged([a, b])
    with pytest.raises(InputError, match="no tracing was given"):
        merged([])


def test_trees_are_added_and_the_tracing_stays_as_it_was() -> None:
    t = small()
    before = written(t)
    new = Skeletons.from_trees([(1, [[1, 2, 3]], []), (2, [[0, 0, 0], [0, 0, 2]], [[0, 1]])], names=("a", "b"))
    for _ in range(2):  # a peer remembers what it added before, in a default argument
        more = add_trees(t, new, group=7, colour=(1, 0, 0), radius_nm=0)
        assert more.skeletons.ids.tolist() == [1, 2, 3]
        assert more.tree_groups == (7, 7, 7)
        assert more.colours[1:].tolist() == [[1, 0, 0, 1]] * 2
        assert more.radii_nm.tolist() == [0, 1.5, 0, 0, 0]
        assert more.nodes["rotX"].tolist() == ["0", "0", None, None, None]
        check_whole(more)
    assert written(t) == before
    with pytest.raises(InputError, match="has no group 8: its ids are 3, 7"):
        add_trees(t, new, group=8)
    with pytest.raises(InputError, match="has 2 numbers: give red, green, blue"):
        add_trees(t, new, colour=(1, 0))


def test_points_are_trees_of_one_node() -> None:
    more = add_points(small(), [[1, 2, 3], [4, 5, 6]], ["p", "q"], group=3)
    assert more.skeletons.names == ("axon", "p", "q")
    assert more.skeletons.positions_nm[2:].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert more.tree_groups == (7, 3, 3)
    assert add_points(small(), np.zeros((0, 3))).skeletons.ids.tolist() == [1]


def test_rows_are_found_by_ids() -> None:
    t = merged([small(), small()])
    assert node_rows(t, [4, 1]).tolist() == [3, 0]
    assert tree_rows(t, [2]).tolist() == [1]
    with pytest.raises(InputError, match="has no node 9: its ids are 1, 2, 3, 4"):
        node_rows(t, [9])
    with pytest.raises(InputError, match="has no tree 9"):
        tree_rows(t, [9])
    twice = Tracing.of(Skeletons.from_trees([(1, [[0, 0, 0]], []), (2, [[0, 0, 0]], [])]), (1, 1, 1))
    with pytest.raises(InputError, match="has 2 nodes of the id 1, in several trees"):
        node_rows(twice, [1])


@pytest.mark.real_data
def test_real_tracings_merge(real_data: Path) -> None:
    parts = [
        read_nml_tracing(real_data / "skeletons" / "wkskel" / f"{name}.nml")
        for name in ("01_ref", "02_ref", "01_ref")
    ]
    whole = merged(parts)
    check_whole(whole)
    assert len(whole.skeletons.node_ids) == 1719 + 170 + 1719
    assert len(whole.comments.rows) == sum(len(part.comments.rows) for part in parts)
    assert whole.skeletons.lengths_nm.tolist() == [x for p in parts for x in p.skeletons.lengths_nm.tolist()]
