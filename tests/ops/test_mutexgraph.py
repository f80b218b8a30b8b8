from __future__ import annotations

from fractions import Fraction

import mwatershed
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, cells
from emloom.ops.mutexgraph import mutex_statistics, mutex_tree
from emloom.ops.regions import RegionGraph, merge_graphs, region_graph

NEAR = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
HOOD = [*NEAR, (0, 0, 3), (0, -2, 0), (2, 1, 0)]
SEEDS = st.integers(0, 2**32)


def random_graph(rng, ids, edges, most):
    u, v = np.sort(rng.choice(ids, (edges, 2)), axis=1).T
    u, v = np.unique(np.stack([u, v], axis=1)[u != v], axis=0).T
    n = rng.integers(1, most + 1, len(u))
    total = np.array([rng.integers(0, 255 * k + 1) for k in n], np.int64)
    if most < 4:
        total = total // 60 * 60  # ties
    peak = np.minimum(255, total)
    return RegionGraph(u.astype(np.uint64), v.astype(np.uint64), n, total, peak, n)


def slow_merges(attraction, repulsion, threshold):
    """Segment of every fragment, with fractions and Python sets."""
    edges = []
    for repels, graph in enumerate((attraction, repulsion)):
        for u, v, n, total in zip(*(c.tolist() for c in (graph.u, graph.v, graph.n, graph.total)), strict=True):
            mean = Fraction(total, n)
            if repels or (mean > 0 and mean >= Fraction(repr(threshold)) * 255):
                edges.append((-(255 - mean) if repels else -mean, repels, u, v))
    ids = {end for edge in edges for end in edge[2:]}
    of = {i: i for i in ids}
    barred = set()
    for _, repels, u, v in sorted(edges):
        a, b = of[u], of[v]
        if a == b:
            continue
        if repels:
            barred.add(frozenset((a, b)))
        elif frozenset((a, b)) not in barred:
            low, high = min(a, b), max(a, b)
            of = {i: low if s == high else s for i, s in of.items()}
            barred = {frozenset(low if s == high else s for s in pair) for pair in barred}
    return of


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    count=st.integers(2, 40),
    most=st.sampled_from([1, 3, 50]),
    threshold=st.sampled_from([0.0, 0.3, 0.6]),
    floor=st.sampled_from([0.0, 0.3]),
)
def test_the_tree_is_that_of_the_definition_at_every_threshold(seed, count, most, threshold, floor):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(1000)[:count] + 1
    attraction, repulsion = (random_graph(rng, ids, 3 * count, most) for _ in range(2))
    tree = mutex_tree(attraction, repulsion, threshold=min(floor, threshold))
    assert (np.diff(tree.scores) <= 0).all()
    expected = slow_merges(attraction, repulsion, threshold)
    found = tree.lut(np.array(sorted(expected), np.uint64), threshold).tolist()
    assert found == [expected[i] for i in sorted(expected)]


def test_weights_that_round_alike_are_told_apart():
    # 2^53 voxel pairs: the attractions differ, but not as doubles; the better one goes first and bars the other.
    big = 2**53
    u, v = np.array([1, 2], np.uint64), np.array([2, 3], np.uint64)
    n = np.array([big, big + 1], np.int64)
    attraction = RegionGraph(u, v, n, n - 1, np.full(2, 255), n)
    one, three = np.array([1], np.uint64), np.array([3], np.uint64)
    few = np.array([1], np.int64)
    repulsion = RegionGraph(one, three, few, np.array([0]), few, few * 0)
    assert mutex_tree(attraction, repulsion).b.tolist() == [3]  # 1 - 1 / n: the larger n is better
    assert mutex_tree(attraction, repulsion).a.tolist() == [2]


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_partitions_are_those_of_a_peer(seed):
    rng = np.random.default_rng(seed)
    ids = np.arange(1, 200)
    attraction, repulsion = (random_graph(rng, ids, 700, 10**6) for _ in range(2))
    edges = []
    for sign, graph in ((1, attraction), (-1, repulsion)):
        weight = graph.total / graph.n if sign > 0 else 255 - graph.total / graph.n
        edges += list(zip((sign * weight).tolist(), graph.u.tolist(), graph.v.tolist(), strict=True))
    theirs = dict(mwatershed.cluster_edges(edges))
    named = np.array(sorted(theirs), np.uint64)
    ours = mutex_tree(attraction, repulsion).lut(named, 0.0).tolist()
    pairs = set(zip(ours, (theirs[int(i)] for i in named), strict=True))
    assert len(pairs) == len(set(ours)) == len(set(theirs.values()))


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, cell=st.sampled_from([(4, 4, 4), (3, 5, 8)]))
def test_statistics_of_cells_add_up(seed, cell):
    rng = np.random.default_rng(seed)
    fragments = rng.integers(0, 6, (7, 8, 9)).astype(np.uint64)
    affinities = rng.integers(0, 256, (len(HOOD), 7, 8, 9)).astype(np.uint8)
    whole = mutex_statistics(fragments, affinities, HOOD)
    parts = []
    for _, write in cells(Box.whole(fragments.shape), cell):
        read = write.grow(3).intersect(Box.whole(fragments.shape))
        owned = write.shift([-v for v in read.start])
        block = fragments[read.slices()], affinities[(slice(None), *read.slices())]
        parts.append(mutex_statistics(*block, HOOD, owned=owned))
    assert tuple(merge_graphs([p[k] for p in parts]) for k in (0, 1)) == whole
    # Each kind is what the other leaves of all channels.
    assert whole[0] == region_graph(fragments, affinities, HOOD)
    assert merge_graphs(whole) == region_graph(fragments, affinities, HOOD, long_range=True)
    assert not whole[1].contacts.any()


def test_bad_input_is_named():
    fragments, affinities = np.ones((2, 2, 2), np.uint64), np.zeros((3, 2, 2, 2), np.uint8)
    with pytest.raises(InputError, match="lacks an offset beyond face neighbours"):
        mutex_statistics(fragments, affinities, NEAR)
    empty = merge_graphs([])
    with pytest.raises(InputError, match=r"threshold 1\.5 is outside"):
        mutex_tree(empty, empty, threshold=1.5)
    assert len(mutex_tree(empty, empty)) == 0
