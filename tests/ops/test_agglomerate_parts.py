"""Agglomeration in parts against a plain Python version of it, and against the whole."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.ops.agglomerate import MergeTree, agglomerate, agglomerate_part, join_trees
from emloom.ops.regions import RegionGraph, merge_graphs

RULES = [("mean", 50), ("max", 50), ("quantile", 50), ("quantile", 75)]
NONE = np.zeros(0, np.uint64)


def graph_of(edges, bins=256):
    """Region graph of {(u, v): affinities}."""
    pairs = sorted(edges)
    u, v = (np.array([pair[end] for pair in pairs], np.uint64) for end in (0, 1))
    values = [np.asarray(edges[pair], np.int64) for pair in pairs]
    n, total, peak = (np.array([f(x) for x in values], np.int64) for f in (len, np.sum, np.max))
    histogram = np.array([np.bincount(x * bins // 256, minlength=bins) for x in values], np.int64)
    return RegionGraph(u, v, n, total, peak, n.copy(), histogram.reshape(-1, bins))


def score(values, linkage, quantile, bins=256):
    if linkage == "mean":
        return Fraction(sum(values), 255 * len(values))
    if linkage == "max":
        return Fraction(max(values), 255)
    middle = sorted(values)[quantile * len(values) // 100] * bins // 256
    return Fraction((2 * middle + 1) * (256 // bins) - 1, 2 * 255)


def naive_part(edges, frozen, linkage, quantile, threshold=0):
    """The method word for word: the whole set of best edges; its closure; smallest ids first; pool; repeat."""
    edges, frozen, residual, merges = dict(edges), set(frozen), {}, []
    while edges:
        scores = {pair: score(values, linkage, quantile) for pair, values in edges.items()}
        best = max(scores.values())
        if best < threshold:
            break
        level = [pair for pair in edges if scores[pair] == best]
        while spread := {end for pair in level if frozen & set(pair) for end in pair} - frozen:
            frozen |= spread
        residual |= {pair: edges.pop(pair) for pair in level if pair[0] in frozen}
        level = [pair for pair in level if pair in edges]
        if level:
            merges.append((best, *min(level)))
            edges = contracted(edges, *min(level))
    residual |= {pair: values for pair, values in edges.items() if set(pair) <= frozen}
    return sorted(merges, key=lambda merge: (-merge[0], -merge[1], merge[2])), residual


def contracted(edges, a, b):
    pooled = {}
    for pair, values in edges.items():
        u, v = sorted(a if end == b else end for end in pair)
        if u != v:
            pooled[u, v] = [*pooled.get((u, v), []), *values]
    return pooled


def merges_of(tree):
    columns = (tree.score_num.tolist(), tree.score_den.tolist(), tree.a.tolist(), tree.b.tolist())
    return [(Fraction(num, den), a, b) for num, den, a, b in zip(*columns, strict=True)]


@st.composite
def edge_sets(draw):
    """Small graphs; mostly of few values, so that ties abound."""
    nodes = draw(st.integers(2, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    palette = rng.choice(256, draw(st.sampled_from([1, 2, 3, 4, 100])))
    share = draw(st.sampled_from([0.3, 0.8]))
    pairs = [(j, i) for i in range(1, nodes + 1) for j in range(1, i) if rng.random() < share]
    return {pair: rng.choice(palette, rng.integers(1, 4)).tolist() for pair in pairs}


@settings(max_examples=150, deadline=None)
@given(edge_sets(), st.sets(st.integers(1, 14), max_size=5), st.sampled_from(RULES), st.sampled_from([0.0, 0.4]))
def test_part_is_that_of_the_definition(edges, frozen, rule, threshold):
    tree, residual = agglomerate_part(
        graph_of(edges),
        np.array(list(frozen), np.uint64),
        linkage=rule[0],
        quantile=rule[1],
        threshold=threshold,
    )
    merges, left = naive_part(edges, frozen, *rule, Fraction(str(threshold)))
    assert merges_of(tree) == merges
    assert residual == graph_of(left)


@settings(max_examples=100, deadline=None)
@given(edge_sets(), st.sampled_from(RULES), st.sampled_from([0.0, 0.4]))
def test_nothing_frozen_is_plain_agglomeration(edges, rule, threshold):
    graph, chosen = graph_of(edges), {"linkage": rule[0], "quantile": rule[1], "threshold": threshold}
    tree, residual = agglomerate_part(graph, NONE, **chosen)
    assert merges_of(tree) == merges_of(agglomerate(graph, **chosen))
    assert len(residual) == 0
    assert residual.bins == graph.bins


@settings(max_examples=150, deadline=None)
@given(edge_sets(), st.integers(1, 4), st.integers(0, 2**32), st.sampled_from(RULES), st.sampled_from([0.0, 0.4]))
def test_parts_of_any_graph_give_the_tree_of_the_whole(edges, count, seed, rule, threshold):
    """Affinities dealt out at random; what two parts know is frozen in both."""
    rng, parts = np.random.default_rng(seed), [{} for _ in range(count)]
    for pair, values in edges.items():
        favourite = rng.integers(count)
        for value in values:
            part = favourite if rng.random() < 0.8 else rng.integers(count)
            parts[part].setdefault(pair, []).append(value)
    known = [{end for pair in part for end in pair} for part in parts]
    shared = {i for part in known for i in part if sum(i in other for other in known) > 1}
    chosen = {"linkage": rule[0], "quantile": rule[1], "threshold": threshold}
    frozen = np.array(list(shared), np.uint64)
    found = [agglomerate_part(graph_of(part), frozen, **chosen) for part in parts]
    rest = agglomerate(merge_graphs([residual for _, residual in found]), **chosen)
    joined = join_trees([rest, *(tree for tree, _ in found)])
    merges, _ = naive_part(edges, (), *rule, Fraction(str(threshold)))
    assert merges_of(joined) == merges
    ids = np.arange(1, 15, dtype=np.uint64)
    whole = agglomerate(graph_of(edges), **chosen)
    for t in (0.4, 0.6, 1.0):
        assert np.array_equal(joined.lut(ids, t), whole.lut(ids, t))


def test_a_region_two_ties_away_from_a_frozen_one_waits():
    """The example of `emloom.ops.freezing`: to merge 2 and 3 at once would be wrong."""
    part = graph_of({(1, 2): [10], (2, 3): [200], (3, 4): [200], (4, 5): [200], (7, 8): [200]})
    other = graph_of({(1, 5): [200]})
    tree, residual = agglomerate_part(part, np.array([1, 5], np.uint64))
    assert merges_of(tree) == [(Fraction(200, 255), 7, 8)]
    assert residual == part.take(part.u < 7)
    whole = agglomerate(merge_graphs([part, other]))
    assert merges_of(join_trees([tree, agglomerate(merge_graphs([residual, other]))])) == merges_of(whole)
    assert whole.lut(np.arange(1, 6, dtype=np.uint64), 0.7).tolist() == [1, 2, 1, 1, 1]


def test_residual_pools_every_statistic_whatever_the_linkage():
    edges = {(1, 2): [250], (1, 9): [3, 100], (2, 9): [40], (9, 10): [120], (3, 4): [7]}
    pooled = {(1, 9): [3, 40, 100], (9, 10): [120]}
    for linkage in ("mean", "max", "quantile"):
        tree, residual = agglomerate_part(graph_of(edges), np.array([9, 77], np.uint64), linkage=linkage)
        assert merges_of(tree)[0] == (Fraction(250, 255), 1, 2)
        assert residual == graph_of(pooled)


def test_order_is_exact_where_scores_round_to_the_same_double():
    """Three ratios, one double: each tree is in order, and so must their union be."""
    n = 2**50
    ratios = [(100 * n, n), (100 * n + 1, n), (100 * (n + 1) + 1, n + 1)]
    assert len({num / (255 * den) for num, den in ratios}) == 1
    trees = [
        MergeTree(
            *(
                np.array([x], t)
                for x, t in ((num, np.int64), (255 * den, np.int64), (a, np.uint64), (9 + a, np.uint64))
            )
        )
        for a, (num, den) in enumerate(ratios, 1)
    ]
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        joined = join_trees([trees[i] for i in order])
        assert joined.a.tolist() == [2, 3, 1]
        assert merges_of(joined) == sorted(merges_of(joined), reverse=True)


def test_a_tie_is_ordered_by_falling_then_rising_id():
    """Whatever order the kernel met them in: 1 goes first there."""
    tree = agglomerate(graph_of({(2, 4): [9], (4, 6): [9], (4, 5): [9], (1, 8): [9]}))
    assert [(a, b) for _, a, b in merges_of(tree)] == [(2, 4), (2, 5), (2, 6), (1, 8)]
    assert tree.lut(np.array([5, 6, 8], np.uint64), 0.0).tolist() == [2, 2, 1]


def test_what_cannot_be_joined_or_known_is_refused():
    graph = graph_of({(1, 2): [200], (2, 3): [100]})
    low, high = agglomerate(graph), agglomerate(graph, threshold=0.5)
    with pytest.raises(InputError, match=r"\[0.0, 0.5\]"):
        join_trees([low, high])
    with pytest.raises(InputError, match=r"thresholds \[\]"):
        join_trees([])
    with pytest.raises(InputError, match="region 2 ends in two"):
        join_trees([low, low])
    far = RegionGraph(graph.u, graph.v, graph.n, graph.total, graph.peak, np.array([1, 0]), graph.histogram)
    with pytest.raises(InputError, match=r"edge \(2, 3\).*long_range=False"):
        agglomerate_part(far, NONE)
    with pytest.raises(InputError, match="median"):
        agglomerate_part(graph, NONE, linkage="median")
