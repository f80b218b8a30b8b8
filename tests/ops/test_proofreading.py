"""Decisions on fragments: merges and splits undo each other, and the order of rows does not matter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.ops.agglomerate import agglomerate
from emloom.ops.proofreading import Held, HeldTogetherError, apply_decisions, strengths
from emloom.ops.regions import RegionGraph, region_graph

OFFSETS = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]


def drawn(seed: int) -> tuple[Held, RegionGraph]:
    rng = np.random.default_rng(seed)
    fragments = rng.integers(1, 24, (3, 6, 6)).astype(np.uint64)
    affinities = rng.integers(0, 256, (3, 3, 6, 6)).astype(np.uint8)
    graph = region_graph(fragments, affinities, OFFSETS)
    ids = np.unique(fragments)
    return Held.of(ids, agglomerate(graph, threshold=0.3).lut(ids, 0.56)), graph


def chain(weights: list[int]) -> tuple[Held, RegionGraph]:
    """Fragments 1 - 2 - 3 ... in a row, one segment, with these sums of affinities between them."""
    n = len(weights)
    u = np.arange(1, n + 1).astype(np.uint64)
    ones = np.ones(n, np.int64)
    graph = RegionGraph(u, u + np.uint64(1), ones, np.array(weights), ones, ones)
    ids = np.arange(1, n + 2).astype(np.uint64)
    return Held.of(ids, np.ones(n + 1, np.uint64)), graph


seeds = st.integers(0, 10_000)


@given(seeds)
@settings(max_examples=20)
def test_a_merge_is_undone_by_the_split_of_the_same_pair(seed: int) -> None:
    held, graph = drawn(seed)
    before = held.segments()
    rng = np.random.default_rng(seed)
    a, b = rng.choice(held.ids, 2, replace=False).tolist()
    merged = apply_decisions(held, graph, [(a, b)], [])
    now = dict(zip(held.ids.tolist(), merged.segments().tolist(), strict=True))
    assert now[a] == now[b]
    if len(set(before[np.isin(held.ids, [a, b])].tolist())) == 2:
        back = apply_decisions(merged, graph, [], [(b, a)])
        np.testing.assert_array_equal(back.segments(), before)


@given(seeds)
@settings(max_examples=20)
def test_a_split_is_undone_by_the_merge_of_the_same_pair(seed: int) -> None:
    held, graph = drawn(seed)
    before = held.segments()
    largest = np.bincount(before.astype(np.int64)).argmax()
    members = held.ids[before == largest]
    if len(members) < 2:
        return
    a, b = int(members[0]), int(members[-1])
    cut = apply_decisions(held, graph, [], [(a, b)])
    after = cut.segments()
    assert len(np.unique(after)) == len(np.unique(before)) + 1
    np.testing.assert_array_equal(after[before != largest], before[before != largest])
    np.testing.assert_array_equal(apply_decisions(cut, graph, [(a, b)], []).segments(), before)


@given(seeds, st.integers(2, 5))
@settings(max_examples=15)
def test_the_order_of_rows_and_of_sides_does_not_matter(seed: int, count: int) -> None:
    held, graph = drawn(seed)
    rng = np.random.default_rng(seed + 1)
    merges = [tuple(rng.choice(held.ids, 2, replace=False).tolist()) for _ in range(count)]
    base = apply_decisions(held, graph, merges, []).segments()
    turned = [(b, a) for a, b in merges[::-1]]
    np.testing.assert_array_equal(apply_decisions(held, graph, turned, []).segments(), base)
    one_by_one = held
    for pair in merges:
        one_by_one = apply_decisions(one_by_one, graph, [pair], [])
    np.testing.assert_array_equal(one_by_one.segments(), base)


def test_a_split_cuts_where_the_contact_is_weakest() -> None:
    held, graph = chain([50, 40, 7, 60, 30])
    for a, b in [(1, 6), (2, 5), (3, 4)]:
        assert apply_decisions(held, graph, [], [(a, b)]).segments().tolist() == [1, 1, 1, 4, 4, 4]
    assert apply_decisions(held, graph, [], [(4, 6)]).segments().tolist() == [1, 1, 1, 1, 1, 6]


def test_a_cut_costs_no_more_than_any_other_that_separates_the_two() -> None:
    for seed in range(6):
        held, graph = drawn(seed)
        members = held.ids[held.segments() == held.segments()[0]][:9]
        if len(members) < 3:
            continue
        keep = np.isin(graph.u, members) & np.isin(graph.v, members)
        graph = graph.take(keep)
        held = Held.of(members, np.ones(len(members), np.uint64))
        a, b = int(members[0]), int(members[-1])
        after = apply_decisions(held, graph, [], [(a, b)]).segments()

        def cost(side: np.ndarray, graph: RegionGraph = graph, members: np.ndarray = members) -> int:
            one, other = (side[np.searchsorted(members, end)] for end in (graph.u, graph.v))
            return int((strengths(graph) + 1)[one != other].sum())

        best = min(
            cost(np.array([True, *rest, False]))
            for rest in itertools.product([True, False], repeat=len(members) - 2)
        )
        assert cost(after == after[0]) == best


def test_a_merge_of_the_same_table_is_never_cut() -> None:
    held, graph = chain([50, 7, 60])
    cut = apply_decisions(held, graph, [(1, 3)], [(1, 4)])
    assert cut.segments().tolist() == [1, 1, 1, 4]
    with pytest.raises(HeldTogetherError):
        apply_decisions(held, graph, [(1, 3), (3, 4)], [(1, 4)])


def test_an_unknown_fragment_is_refused() -> None:
    held, graph = chain([5])
    with pytest.raises(KeyError):
        apply_decisions(held, graph, [(1, 99)], [])
