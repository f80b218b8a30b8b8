"""What a tracing says about its nodes follows them through a cut, more nodes, or fewer."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emloom.geometry.columns import Columns
from emloom.geometry.elements import Element, Group
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Marks, Others, Tracing
from emloom.ops.tracingredraw import (
    clipped_tracing,
    resampled_tracing,
    simplified_tracing,
    spoken_of,
)
from tests.ops.neurites import any_skeletons, neurites

seeds = st.integers(0, 10**6)


def tracing_of(skeletons: Skeletons, seed: int) -> Tracing:
    """Return a tracing in which every node, tree and edge can be told by its attributes."""
    rng = np.random.default_rng(seed)
    n, k, e = len(skeletons.node_ids), len(skeletons.ids), len(skeletons.edges)
    nodes = Columns(n).replaced("radius", rng.uniform(1, 9, n)).replaced("who", [f"n{row}" for row in range(n)])
    rows = rng.integers(0, n, min(n, 3))
    return Tracing(
        skeletons,
        (30.0, 8.0, 8.0),
        nodes,
        Columns(k).replaced("groupId", [3] * k).replaced("who", [f"t{row}" for row in range(k)]),
        Columns(e).replaced("who", [f"e{row}" for row in range(e)]),
        Marks.of(rows, content=[f"c{row}" for row in rows]),
        Marks.of(rows[:1], time=["7"]),
        (Group(3, "axons"),),
        others=Others(nodes={int(rows[-1]): (Element("odd"),)}),
        radius_unit_nm=2.0,
    )


@given(seeds, st.sampled_from(["clip", "resample", "simplify"]), st.booleans())
def test_attributes_follow_their_nodes(seed: int, how: str, odd: bool) -> None:
    old = tracing_of(any_skeletons(seed) if odd else neurites(seed), seed)
    s = old.skeletons
    middle = np.median(s.positions_nm, axis=0)
    made = {
        "clip": lambda: clipped_tracing(old, middle - 60, middle + 60),
        "resample": lambda: resampled_tracing(old, 70),
        "simplify": lambda: simplified_tracing(old, 40),
    }[how]()
    t = made.skeletons
    row_of = {(int(s.ids[k]), int(i)): r for r, (k, i) in enumerate(zip(s.skeletons, s.node_ids, strict=True))}
    keys = [(int(t.ids[k]), int(i)) for k, i in zip(t.skeletons, t.node_ids, strict=True)]
    from_row = [row_of.get(key) for key in keys]
    assert made.nodes["who"].tolist() == [None if row is None else f"n{row}" for row in from_row]
    assert [made.trees["who"][k] for k in range(len(t.ids))] == [
        f"t{s.ids.tolist().index(number)}" for number in t.ids.tolist()
    ]
    assert not np.isnan(made.radii_nm).any()
    kept = [k for k, row in enumerate(from_row) if row is not None]
    np.testing.assert_array_equal(made.radii_nm[kept], old.radii_nm[[from_row[k] for k in kept]])
    left = {row for row in from_row if row is not None}
    # Every comment of a node that is left is on that node, and no other comment.
    found = sorted(
        (from_row[row], text) for row, text in zip(made.comments.rows, made.comment_texts(), strict=True)
    )
    assert found == sorted(
        (row, text)
        for row, text in zip(old.comments.rows.tolist(), old.comment_texts(), strict=True)
        if row in left
    )
    if how != "clip":
        assert left >= set(np.flatnonzero(spoken_of(old)).tolist())
        assert len(made.branchpoints.rows) == 1
        assert len(made.others.nodes) == 1
    for (a, b), who in zip(t.edges.tolist(), made.edges["who"], strict=True):
        ends = {from_row[a], from_row[b]}
        assert (who is None) == (ends not in [set(edge) for edge in s.edges.tolist()])
        assert who is None or set(s.edges[int(who[1:])].tolist()) == ends
    assert (made.groups, made.voxel_size_nm, made.radius_unit_nm) == (old.groups, old.voxel_size_nm, 2.0)


def test_a_new_node_has_the_radius_and_type_of_its_place() -> None:
    line = Skeletons.from_trees([(1, [[0, 0, 0], [0, 0, 100]], [(0, 1)])])
    nodes = Columns(2).replaced("radius", ["1.50", "3.5"]).replaced("type", ["2", "6"])
    old = Tracing(line, (1.0, 1.0, 1.0), nodes, Columns(1), Columns(1))
    made = resampled_tracing(old, 50)
    assert made.nodes["radius"].tolist() == ["1.50", "3.5", "2.5"]
    assert made.nodes["type"].tolist() == ["2", "6", "2"]
    half = Tracing(line, (1.0, 1.0, 1.0), nodes.replaced("radius", ["1", None]), Columns(1), Columns(1))
    assert resampled_tracing(half, 50).nodes["radius"].tolist() == ["1", None, None]


def test_a_root_on_a_straight_path_stays() -> None:
    straight = [[0, 0, 10 * k] for k in range(5)]
    from_middle = Skeletons.from_trees([(1, straight, [(2, 1), (1, 0), (2, 3), (3, 4)])])
    made = simplified_tracing(Tracing.of(from_middle, (1, 1, 1)), 1).skeletons
    assert made.node_ids.tolist() == [1, 3, 5]
    assert sorted(made.edges.tolist()) == [[1, 0], [1, 2]]
    both_ways = Skeletons.from_trees([(1, straight, [(0, 1), (2, 1), (2, 3), (3, 4)])])
    assert simplified_tracing(Tracing.of(both_ways, (1, 1, 1)), 1).skeletons.node_ids.tolist() == [1, 5]
