"""A tracing brings along what was said about its nodes and trees, and never changes itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry.box import Box
from emloom.geometry.columns import Columns, as_texts, number_text, stacked
from emloom.geometry.elements import Element, Group, NamedBox
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import NEW, Marks, Others, Tracing, carried, differences

SKELETONS = Skeletons.from_trees(
    [(1, [[0, 0, 0], [10, 2, 2], [20, 4, 4]], [[0, 1], [1, 2]]), (5, [[10, 0, 0]], [])], names=("axon", "soma")
)


def tracing() -> Tracing:
    bare = Tracing.of(SKELETONS, (10, 2, 2))
    return replace(
        bare,
        nodes=bare.nodes.replaced("radius", [1.5, np.nan, 2, 3]).replaced("inVp", ["0", "0", None, "1"]),
        trees=bare.trees.replaced("groupId", [None, 7]).replaced("color.r", [0.5, 1]),
        edges=bare.edges.replaced("kind", ["thick", None]),
        comments=Marks.of([2, 0, 2], content=["tip", "start", "again"]),
        branchpoints=Marks.of([1]),
        groups=(Group(3, "all"), Group(7, "cells", parent=3)),
        parameters=(Element.of("activeNode", {"id": "2"}),),
        others=Others((), {1: (Element("metadata"),)}, {2: (Element("note", text="?"),)}),
        radius_unit_nm=1000,
    )


def test_attributes_read_as_numbers_and_absent_ones_as_nan() -> None:
    t = tracing()
    assert t.radii_nm.tolist()[:1] == [1500]
    assert np.isnan(t.radii_nm[1])
    assert t.nodes["inVp"].tolist() == ["0", "0", None, "1"]
    assert t.nodes["time"].tolist() == [None] * 4
    assert t.tree_groups == (None, 7)
    assert t.colours[:, 0].tolist() == [0.5, 1]
    assert np.isnan(t.colours[:, 1]).all()
    assert t.comment_texts() == ("tip", "start", "again")
    with pytest.raises(InputError, match="node row 2 has inVp='x': give a number"):
        t.nodes.replaced("inVp", ["0", None, "x", "1"]).numbers("inVp", "node row")


def test_what_is_carried_follows_its_node_and_its_tree() -> None:
    t = tracing()
    # Without node row 0, and with a new node in front.
    new = Skeletons.from_trees(
        [(9, [[0, 0, 0], [20, 4, 4], [10, 2, 2]], [[1, 2]]), (5, [[10, 0, 0]], [])], names=("axon", "soma")
    )
    after = carried(t, new, nodes_from=[NEW, 2, 1, 3], trees_from=[0, 1], edges_from=[1])
    assert after.nodes["radius"].tolist() == [None, "2", None, "3"]
    assert after.comments.rows.tolist() == [1, 1]
    assert after.comment_texts() == ("tip", "again")
    assert after.branchpoints.rows.tolist() == [2]
    assert after.others.nodes == {1: (Element("note", text="?"),)}
    assert after.active_node == 2
    assert after.parameters == (Element.of("activeNode", {"id": "3"}),)
    assert after.edges["kind"].tolist() == [None]
    gone = carried(t, SKELETONS.restricted(np.array([1, 0, 1, 1], bool)), nodes_from=[0, 2, 3], trees_from=[0, 1])
    assert gone.parameters == ()
    assert differences(t, tracing()) == ()


def test_a_node_that_becomes_two_has_its_comments_once() -> None:
    two = Skeletons.from_trees([(1, [[20, 4, 4]], []), (2, [[20, 4, 4]], [])])
    after = carried(tracing(), two, nodes_from=[2, 2], trees_from=[0, 0])
    assert after.comments.rows.tolist() == [0, 0]
    assert after.nodes["radius"].tolist() == ["2", "2"]
    assert after.colours[:, 0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"comments": Marks.of([2, 0], content=["tip", "start"])}, ("comments",)),
        ({"branchpoints": Marks.of([1], time=["4"])}, ("branch points",)),
        ({"groups": (Group(3, "all"),)}, ("groups",)),
        ({"voxel_size_nm": (10, 2, 3)}, ("voxel size",)),
        ({"radius_unit_nm": 1.0}, ("radii",)),
        ({"others": Others()}, ("other elements of trees", "other elements of nodes")),
        ({"edges": Columns(2)}, ("attributes of edges",)),
        ({"parameters": ()}, ("parameters",)),
    ],
)
def test_differences_are_named(change: dict, named: tuple[str, ...]) -> None:
    assert differences(tracing(), replace(tracing(), **change)) == named


def test_boxes_are_voxels_zyx_and_come_back() -> None:
    boxes = (
        NamedBox(Box((3, 2, 1), (6, 5, 4)), "mine", id=2, colour=(1.0, 0.5, 0.25, 1.0), visible=False),
        NamedBox(Box((-3, 0, 1), (1, 1, 1)), kind="task"),
    )
    t = tracing().with_boxes(boxes)
    assert t.boxes == boxes
    element = t.parameter("userBoundingBox")
    assert element is not None
    assert (element.get("topLeftX"), element.get("width"), element.get("depth")) == ("1", "4", "6")
    assert t.with_boxes(()).parameters == tracing().parameters
    broken = t.with_parameter(element.replaced(width="4.5"))
    with pytest.raises(InputError, match=r"<userBoundingBox> has width='4\.5': give a whole number"):
        _ = broken.boxes


def test_a_parameter_keeps_its_place() -> None:
    t = tracing().with_parameter(Element.of("time", {"ms": "1"})).with_parameter(Element.of("zoomLevel"))
    assert [e.tag for e in t.with_parameter(Element.of("time", {"ms": "2"})).parameters] == [
        "activeNode",
        "time",
        "zoomLevel",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"comments": Marks.of([4], content=["?"])}, "comments on node row 4, but 4 nodes"),
        ({"groups": (Group(3), Group(3))}, "two groups with the id 3"),
        ({"groups": (Group(7, parent=3), Group(3))}, "group 7 '' is in group 3, which does not stand before it"),
        ({"nodes": Columns(3)}, "has 4 nodes, but attributes for 3"),
        ({"voxel_size_nm": (0, 1, 1)}, "is not positive"),
    ],
)
def test_what_contradicts_itself_is_refused(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(tracing(), **change)


def test_columns_are_stacked_and_never_change() -> None:
    a = Columns(2, {"x": as_texts(["1", None])})
    b = Columns(1, {"y": as_texts(["2"])})
    both = stacked([a, b])
    assert both["x"].tolist() == ["1", None, None]
    assert both["y"].tolist() == [None, None, "2"]
    with pytest.raises(ValueError, match="read-only"):
        a["x"][0] = "3"
    assert "y" not in both.take([0, 1])
    with pytest.raises(InputError, match="holds"):
        Columns(1, {"x": np.array([1], object)})


@pytest.mark.parametrize(
    ("number", "text"),
    [(3.0, "3"), (-2, "-2"), (0.1, "0.1"), (1e20, "1e+20"), (-0.0, "-0.0"), (2.0**53, str(2**53))],
)
def test_numbers_are_written_whole_or_in_full(number: float, text: str) -> None:
    assert number_text(number) == text
    assert float(text) == number
