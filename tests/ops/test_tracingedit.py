"""Cuts and joints keep what was said about the nodes that stay, and the source as it was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import fsum
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.elements import Element
from emloom.geometry.skeletons import Skeletons
from emloom.geometry.tracings import Marks, Others, Tracing, differences
from emloom.io.nml import read_nml_tracing
from emloom.ops.skeletonbuild import spanning_tree
from emloom.ops.skeletons import components
from emloom.ops.tracingedit import merge_trees, split_at_nodes, split_components
from emloom.ops.tracingnodes import (
    delete_duplicate_nodes,
    delete_nodes,
    delete_unconnected_nodes,
    with_more_edges,
)
from emloom.ops.tracingparts import (
    delete_three_point_trees,
    delete_trees,
    delete_trees_named,
    keep_nodes,
    keep_trees_named,
    largest_tree,
    select_trees,
    sorted_trees,
    trees_named,
)
from tests.geometry.tracing_strategies import tracings
from tests.ops.tracingfacts import check_whole, node_facts, tree_facts, written

Edit = Callable[[Tracing, st.DataObject], Tracing]


def rows_of(t: Tracing, data: st.DataObject) -> list[int]:
    n = len(t.skeletons.node_ids)
    return data.draw(st.lists(st.integers(0, n - 1), max_size=3)) if n else []


def trees_of(t: Tracing, data: st.DataObject, least: int = 0) -> list[int]:
    ids = t.skeletons.ids.tolist()
    return data.draw(st.lists(st.sampled_from(ids), unique=True, min_size=least)) if ids else []


def joined(t: Tracing, data: st.DataObject) -> Tracing:
    trees = trees_of(t, data, least=1)
    return merge_trees(t, trees, join=data.draw(st.sampled_from(["nearest", "none"]))) if trees else t


EDITS: dict[str, Edit] = {
    "split components": lambda t, data: split_components(t, trees_of(t, data)),
    "cut, copied": lambda t, data: split_at_nodes(t, rows_of(t, data)),
    "cut, alone": lambda t, data: split_at_nodes(t, rows_of(t, data), node="alone"),
    "cut, deleted": lambda t, data: split_at_nodes(t, rows_of(t, data), node="deleted"),
    "delete nodes": lambda t, data: delete_nodes(t, rows_of(t, data)),
    "delete nodes, close gaps": lambda t, data: delete_nodes(t, rows_of(t, data), close_gaps=True),
    "unconnected": lambda t, _: delete_unconnected_nodes(t),
    "merge trees": joined,
    "select trees": lambda t, data: select_trees(t, trees_of(t, data)),
    "delete trees": lambda t, data: delete_trees(t, trees_of(t, data)),
    "sort": lambda t, data: sorted_trees(t, data.draw(st.sampled_from(["id", "name", "nodes", "length"]))),
    "no three points": lambda t, _: delete_three_point_trees(t),
}


@pytest.mark.parametrize("name", EDITS)
@settings(max_examples=25)
@given(tracing=tracings(), data=st.data())
def test_an_edit_keeps_what_was_said_and_its_source(name: str, tracing: Tracing, data: st.DataObject) -> None:
    before, facts = written(tracing), node_facts(tracing)
    after = EDITS[name](tracing, data)
    check_whole(after)
    assert written(tracing) == before
    for number, fact in node_facts(after).items():
        if number in facts:
            assert fact == facts[number]
        else:  # a copy of a node has its place and attributes, and is not commented twice
            assert name == "cut, copied"
            assert fact[3:5] == ((), 0)
            assert (*fact[:3], *fact[5:]) in {(*old[:3], *old[5:]) for old in facts.values()}
    assert after.groups == tracing.groups


def graph(t: Tracing) -> nx.Graph:
    """By node ids, the slow and obvious way."""
    made = nx.Graph()
    ids = t.skeletons.node_ids.tolist()
    made.add_nodes_from(ids)
    made.add_edges_from((ids[a], ids[b]) for a, b in t.skeletons.edges.tolist() if a != b)
    return made


def total(t: Tracing) -> float:
    return fsum(t.skeletons.link_lengths_nm.tolist())


@settings(max_examples=25)
@given(tracings())
def test_split_components_makes_one_tree_of_each_piece(t: Tracing) -> None:
    after = split_components(t)
    assert len(np.unique(components(after.skeletons))) == len(np.unique(after.skeletons.skeletons))
    assert len(after.skeletons.ids) - len(t.skeletons.ids) == sum(
        max(0, nx.number_connected_components(graph(select_trees(t, [tree]))) - 1) for tree in t.skeletons.ids
    )
    assert total(after) == total(t)
    assert nx.utils.graphs_equal(graph(after), graph(t))
    assert set(t.skeletons.ids.tolist()) <= set(after.skeletons.ids.tolist())
    assert tree_facts(split_components(after)) == tree_facts(after)


@settings(max_examples=30)
@given(tracings(), st.data())
def test_a_cut_makes_every_branch_a_tree_and_no_path_shorter(t: Tracing, data: st.DataObject) -> None:
    rows = rows_of(t, data)
    after = split_at_nodes(t, rows)
    assert total(after) == pytest.approx(total(t), rel=1e-12)
    assert len(after.skeletons.links) == len(t.skeletons.links)
    cut = set(t.skeletons.node_ids[rows].tolist())
    old = graph(t)
    inner = old.copy()
    inner.remove_nodes_from(cut)
    pieces = [set(piece) for piece in nx.connected_components(inner)]
    # Each branch with the cut nodes at its end; each edge between two cut nodes; each cut node without an edge.
    expected = [len(piece) + len({n for v in piece for n in old[v] if n in cut}) for piece in pieces]
    expected += [2 for a, b in old.edges if a in cut and b in cut]
    expected += [1 for node in cut if not [n for n in old[node] if n != node]]
    touched = {int(row) for row in t.skeletons.skeletons[rows]}
    whole = [tree for k, tree in enumerate(t.skeletons.ids.tolist()) if k not in touched]
    rest = delete_trees(after, [tree for tree in whole if tree in after.skeletons.ids])
    found = Counter(len(piece) for piece in nx.connected_components(graph(after)))
    assert found == Counter(expected)
    counts = np.bincount(rest.skeletons.skeletons, minlength=len(rest.skeletons.ids))
    assert sorted(counts) == sorted(len(piece) for piece in nx.connected_components(graph(rest)))


@settings(max_examples=30)
@given(tracings(), st.data())
def test_closed_gaps_keep_together_what_was_together(t: Tracing, data: st.DataObject) -> None:
    gone = rows_of(t, data)
    after = delete_nodes(t, gone, close_gaps=True)
    old, new = graph(t), graph(after)
    left = set(new)
    assert left == set(old) - set(t.skeletons.node_ids[gone].tolist())
    together = {frozenset(piece & left) for piece in nx.connected_components(old) if piece & left}
    assert {frozenset(piece) for piece in nx.connected_components(new)} == together

    def cycles(g: nx.Graph) -> int:
        return g.number_of_edges() - g.number_of_nodes() + nx.number_connected_components(g)

    assert cycles(new) <= cycles(old)


@settings(max_examples=25)
@given(tracings(), st.data())
def test_duplicates_become_one_node_with_all_that_was_said(t: Tracing, data: st.DataObject) -> None:
    s = t.skeletons
    n = len(s.node_ids)
    if n:  # some nodes of a tree at one place
        from_rows = np.array([data.draw(st.sampled_from(np.flatnonzero(s.skeletons == k))) for k in s.skeletons])
        t = replace(t, skeletons=replace(s, positions_nm=s.positions_nm[from_rows]))
    after = delete_duplicate_nodes(t)
    check_whole(after)
    assert after.skeletons.lengths_nm[: len(after.skeletons.ids)].size == len(t.skeletons.ids)
    keys = {(k, *p) for k, p in zip(s.skeletons.tolist(), (t.skeletons.positions_nm + 0.0).tolist(), strict=True)}
    assert len(after.skeletons.node_ids) == len(keys)
    assert sorted(after.comment_texts()) == sorted(t.comment_texts())
    assert len(np.unique(components(after.skeletons))) <= len(np.unique(components(t.skeletons)))
    assert differences(delete_duplicate_nodes(after), after) == ()


def tree(points: list[list[float]], edges: list[list[int]], **change: Any) -> Tracing:
    return replace(Tracing.of(Skeletons.from_trees([(5, points, edges)], names=("axon",)), (1, 1, 1)), **change)


def test_a_star_is_cut_into_its_rays() -> None:
    star = tree(
        [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 1], [0, 2], [0, 3]],
        comments=Marks.of([0], content=["hub"]),
    )
    copied = split_at_nodes(star, [0])
    assert copied.skeletons.names == ("axon", "axon (2)", "axon (3)")
    assert copied.skeletons.ids.tolist() == [5, 6, 7]
    assert copied.skeletons.lengths_nm.tolist() == [1, 1, 1]
    assert copied.comment_texts() == ("hub",)
    alone = split_at_nodes(star, [0], node="alone")
    assert [len(facts[3]) for facts in tree_facts(alone).values()] == [1, 1, 1, 1]
    deleted = split_at_nodes(star, [0], node="deleted")
    assert [sorted(facts[3]) for facts in tree_facts(deleted).values()] == [[2], [3], [4]]
    assert deleted.comment_texts() == ()
    with pytest.raises(InputError, match="give 'copied', 'alone' or 'deleted'"):
        split_at_nodes(star, [0], node="both")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has 4 nodes, counted from 0, and no row 4"):
        split_at_nodes(star, [4])


def test_a_gap_is_closed_the_short_way() -> None:
    path = tree([[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3]], [[0, 1], [1, 2], [2, 3]])
    assert delete_nodes(path, [1, 2], close_gaps=True).skeletons.lengths_nm.tolist() == [3]
    assert len(np.unique(components(delete_nodes(path, [1, 2]).skeletons))) == 2
    # Around a hub: along the rim, not through the far side.
    hub = tree([[0, 0, 0], [0, 0, 1], [0, 0, 2], [0, 0, 3]], [[0, 1], [0, 2], [0, 3]])
    assert delete_nodes(hub, [0], close_gaps=True).skeletons.links.tolist() == [[0, 1], [1, 2]]


@settings(max_examples=25)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=9))
def test_pieces_are_joined_by_edges_as_short_as_networkx_finds(points: list[tuple[int, int, int]]) -> None:
    positions = np.array(points, np.float64)
    edges = spanning_tree(positions)
    complete = nx.Graph()
    complete.add_nodes_from(range(len(points)))
    for a in range(len(points)):
        for b in range(a):
            complete.add_edge(a, b, weight=float(np.linalg.norm(positions[a] - positions[b])))
    best = nx.minimum_spanning_tree(complete).size("weight")
    assert sum(complete[a][b]["weight"] for a, b in edges.tolist()) == pytest.approx(best)
    assert nx.is_connected(complete.edge_subgraph(map(tuple, edges.tolist())) if len(points) > 1 else complete)


def test_lonely_nodes_go_and_marked_places_stay() -> None:
    s = Skeletons.from_trees(
        [(1, [[0, 0, 0], [1, 0, 0], [9, 9, 9]], [[0, 1]]), (2, [[5, 5, 5]], []), (3, [[1, 1, 1], [2, 2, 2]], [])]
    )
    after = delete_unconnected_nodes(Tracing.of(s, (1, 1, 1)))
    assert after.skeletons.skeletons.tolist() == [0, 0, 1, 2, 2]


def test_trees_are_merged_where_they_are_nearest() -> None:
    s = Skeletons.from_trees(
        [(1, [[0, 0, 0], [0, 0, 9]], [[0, 1]]), (4, [[0, 0, 30]], []), (2, [[0, 0, 20], [0, 0, 10]], [[0, 1]])],
        names=("a", "b", "c"),
    )
    metadata = {0: (Element("metadata", (), (Element("x"),)),), 2: (Element("metadata", (), (Element("y"),)),)}
    t = replace(Tracing.of(s, (1, 1, 1)), others=Others((), metadata))
    one = merge_trees(t, [1, 2])
    assert (one.skeletons.ids.tolist(), one.skeletons.names) == ([1, 4], ("a", "b"))
    assert one.skeletons.lengths_nm.tolist() == [9 + 1 + 10, 0]
    assert one.others.trees == {0: (Element("metadata", (), (Element("x"), Element("y"))),)}
    assert len(set(one.skeletons.node_ids[one.skeletons.skeletons == 0].tolist())) == 4  # 1, 2 stood twice
    assert merge_trees(t, [1, 4, 2]).skeletons.lengths_nm.tolist() == [9 + 21 + 1 + 10]
    assert merge_trees(t, [1, 2], join="none").skeletons.lengths_nm.tolist() == [19, 0]
    for wrong in ([], [1, 1]):
        with pytest.raises(InputError, match="give at least one, and each once"):
            merge_trees(t, wrong)
    with pytest.raises(InputError, match="give 'nearest' or 'none'"):
        merge_trees(t, [1], join="far")  # type: ignore[arg-type]


def test_edges_are_added_within_a_tree() -> None:
    t = tree([[0, 0, 0], [0, 0, 1]], [])
    assert with_more_edges(t, np.array([[0, 1]])).skeletons.lengths_nm.tolist() == [1]
    with pytest.raises(InputError, match="counted from 0"):
        with_more_edges(t, np.array([[0, 2]]))


# ---- trees by name, size, order -------------------------------------------------------------------------------

THREE = Tracing.of(
    Skeletons.from_trees(
        [
            (9, [[0, 0, 0], [0, 0, 50]], [[0, 1]]),
            (3, [[0, 0, 0], [0, 0, 1], [0, 0, 2]], [[0, 1], [1, 2]]),
            (5, [], []),
        ],
        names=("dendrite 2", "axon", "dendrite 10"),
    ),
    (1, 1, 1),
)


def test_trees_are_found_by_name() -> None:
    assert trees_named(THREE, "dend") == (9, 5)
    assert trees_named(THREE, r"\Adendrite \d\Z") == (9,)
    assert keep_trees_named(THREE, "axon").skeletons.ids.tolist() == [3]
    assert delete_trees_named(THREE, "axon").skeletons.ids.tolist() == [9, 5]
    with pytest.raises(InputError, match=r"'\(' is no regular expression"):
        trees_named(THREE, "(")


def test_trees_are_sorted_and_the_largest_is_found() -> None:
    assert sorted_trees(THREE).skeletons.ids.tolist() == [3, 5, 9]
    assert sorted_trees(THREE, "name").skeletons.ids.tolist() == [3, 5, 9]
    assert sorted_trees(THREE, "nodes", descending=True).skeletons.ids.tolist() == [3, 9, 5]
    assert sorted_trees(THREE, "length").skeletons.ids.tolist() == [5, 3, 9]
    assert largest_tree(THREE).skeletons.ids.tolist() == [3]
    assert largest_tree(THREE, "length").skeletons.ids.tolist() == [9]
    assert delete_three_point_trees(THREE).skeletons.ids.tolist() == [9, 5]
    with pytest.raises(InputError, match="cannot be sorted by 'colour'"):
        sorted_trees(THREE, "colour")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no tree"):
        largest_tree(select_trees(THREE, []))


def test_selections_are_checked() -> None:
    with pytest.raises(InputError, match="name one twice"):
        select_trees(THREE, [3, 3])
    with pytest.raises(InputError, match="has no tree 4"):
        delete_trees(THREE, [4])
    with pytest.raises(InputError, match="one boolean for each of 5 nodes"):
        keep_nodes(THREE, [1, 0, 1, 1, 1])
    assert keep_nodes(THREE, [False, False, True, True, False]).skeletons.ids.tolist() == [3, 5]


@pytest.mark.real_data
def test_a_real_tracing_in_pieces_is_split_and_joined(real_data: Path) -> None:
    t = read_nml_tracing(real_data / "skeletons" / "wkskel" / "CC_err.nml")
    parts = split_components(t)
    assert (len(t.skeletons.ids), len(parts.skeletons.ids)) == (1, 2)
    whole = merge_trees(parts, parts.skeletons.ids.tolist())
    assert len(np.unique(components(whole.skeletons))) == 1
    assert node_facts(whole) == node_facts(t)
