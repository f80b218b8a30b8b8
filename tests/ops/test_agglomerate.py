from __future__ import annotations

import contextlib
import heapq
import os
from fractions import Fraction

import fastremap
import h5py
import numpy as np
import pytest
import waterz
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.errors import InputError
from emloom.ops.agglomerate import agglomerate
from emloom.ops.fragments import Seeding, seeded_fragments
from emloom.ops.labels import apply_lut
from emloom.ops.queues import compare
from emloom.ops.regions import RegionGraph, region_graph

NEAR = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
LINKAGES = [("mean", 50), ("max", 50), ("quantile", 50), ("quantile", 75), ("quantile", 0)]


def score_of(stats, linkage, quantile):
    """The definition, in rational numbers."""
    n, total, peak, histogram = stats
    if linkage == "mean":
        return Fraction(total, 255 * n)
    if linkage == "max":
        return Fraction(peak, 255)
    bins = len(histogram)
    rank, k, below = quantile * n // 100 + 1, 0, histogram[0]
    while below < rank:
        k += 1
        below += histogram[k]
    low, high = k * (256 // bins), (k + 1) * (256 // bins) - 1
    return Fraction(low + high, 2 * 255)


def reference(graph, linkage="mean", quantile=50, threshold=0):
    """Greedy agglomeration, word for word: the best edge (of equals, the smallest ids); pool; repeat."""
    stats = {}
    for i in range(len(graph)):
        histogram = () if graph.histogram is None else tuple(graph.histogram[i].tolist())
        stats[int(graph.u[i]), int(graph.v[i])] = (
            int(graph.n[i]),
            int(graph.total[i]),
            int(graph.peak[i]),
            histogram,
        )
    queue = [(-score_of(x, linkage, quantile), pair, x) for pair, x in stats.items()]
    heapq.heapify(queue)
    merges = []
    while queue:
        score, (a, b), x = heapq.heappop(queue)
        if stats.get((a, b)) != x:
            continue
        if -score < threshold:
            break
        merges.append((-score, a, b))
        del stats[a, b]
        for pair in [pair for pair in stats if b in pair]:
            y, c = stats.pop(pair), pair[0] if pair[1] == b else pair[1]
            new = (min(a, c), max(a, c))
            z = stats.get(new, (0, 0, 0, (0,) * len(y[3])))
            pooled = tuple(p + q for p, q in zip(y[3], z[3], strict=True))
            stats[new] = (y[0] + z[0], y[1] + z[1], max(y[2], z[2]), pooled)
            heapq.heappush(queue, (-score_of(stats[new], linkage, quantile), new, stats[new]))
    return sorted(merges, key=lambda merge: (-merge[0], -merge[1], merge[2]))


def merges_of(tree):
    columns = (tree.score_num.tolist(), tree.score_den.tolist(), tree.a.tolist(), tree.b.tolist())
    return [(Fraction(num, den), a, b) for num, den, a, b in zip(*columns, strict=True)]


def partition(merges, ids, threshold):
    group = {i: {i} for i in ids}
    for score, a, b in merges:
        if score >= threshold:
            joined = group[a] | group[b]
            group.update(dict.fromkeys(joined, joined))
    return [min(group[i]) for i in ids]


@st.composite
def graphs(draw):
    """Small random region graphs with few distinct values, so that ties abound."""
    nodes = draw(st.integers(2, 14))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.choice(256, draw(st.integers(1, 4)))
    ids = np.sort(rng.choice(10**6, nodes, replace=False)).astype(np.uint64) + np.uint64(1)
    pairs = [(i, j) for i in range(nodes) for j in range(i) if rng.random() < draw(st.sampled_from([0.3, 0.8]))]
    return graph_of({(ids[j], ids[i]): rng.choice(values, rng.integers(1, 4)) for i, j in pairs})


def graph_of(edges):
    edges = dict(sorted((tuple(map(int, pair)), np.asarray(values)) for pair, values in edges.items()))
    u, v = (np.array([pair[end] for pair in edges], np.uint64) for end in (0, 1))
    n, total, peak = (np.array([f(x) for x in edges.values()], np.int64) for f in (len, np.sum, np.max))
    histogram = np.array([np.bincount(x, minlength=256) for x in edges.values()], np.int64).reshape(-1, 256)
    return RegionGraph(u, v, n, total, peak, n.copy(), histogram)


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from(LINKAGES), st.sampled_from([0.0, 0.3]))
def test_tree_is_that_of_the_definition(graph, rule, threshold):
    tree = agglomerate(graph, linkage=rule[0], quantile=rule[1], threshold=threshold)
    expected = reference(graph, *rule, threshold)
    assert merges_of(tree) == expected
    assert np.all(np.diff(tree.scores) <= 0)
    ids = np.unique(np.concatenate([graph.u, graph.v]))
    for t in (0.3, 0.5, 0.57, 1.0):
        assert tree.lut(ids, t).tolist() == partition(expected, ids.tolist(), t)


@settings(max_examples=20, deadline=None)
@given(graphs(), st.sampled_from(LINKAGES), st.randoms())
def test_order_of_the_edges_does_not_matter(graph, rule, random):
    rows = list(range(len(graph)))
    random.shuffle(rows)
    shuffled = graph.take(np.array(rows, np.int64))
    first, second = (agglomerate(g, linkage=rule[0], quantile=rule[1]) for g in (graph, shuffled))
    assert merges_of(first) == merges_of(second)


@pytest.mark.parametrize("linkage", ["mean", "quantile", "max"])
def test_large_graph_with_ties_follows_the_definition(linkage):
    """Enough merges for the hash table to be swept and regions to outgrow each other."""
    rng = np.random.default_rng(5)
    fragments = rng.permutation(9**3).reshape(9, 9, 9).astype(np.uint64) + np.uint64(1)
    affinities = rng.choice(np.array([3, 60, 60, 61, 200], np.uint8), (3, 9, 9, 9))
    graph = region_graph(fragments, affinities, NEAR, bins=16)
    assert merges_of(agglomerate(graph, linkage=linkage)) == reference(graph, linkage)


def test_one_tree_holds_every_threshold_and_nests():
    fragments, affinities = cubes(np.random.default_rng(0), 5, 3)
    graph = region_graph(fragments, affinities, NEAR)
    tree = agglomerate(graph)
    ids = np.unique(fragments)
    finer = tree.lut(ids, 1.0)
    for threshold in (0.55, 0.5, 0.45, 0.0):
        coarser = tree.lut(ids, threshold)
        assert np.array_equal(coarser, agglomerate(graph, threshold=threshold).lut(ids, threshold))
        assert len(set(zip(finer.tolist(), coarser.tolist(), strict=True))) == len(set(finer.tolist()))
        assert np.all(coarser <= ids)
        assert np.array_equal(tree.lut(coarser, threshold), coarser)
        finer = coarser
    assert len(set(finer.tolist())) == 1


def test_threshold_is_the_decimal_as_written_and_inclusive():
    graph = graph_of({(1, 2): [51], (3, 4): [50], (5, 6): [255]})  # 51 / 255 is 1/5
    tree = agglomerate(graph)
    assert [tree.count(t) for t in (1.0, 0.2001, 0.2, 0.1999, 0.0)] == [1, 1, 2, 2, 3]
    assert len(agglomerate(graph, threshold=0.2)) == 2


@given(st.integers(0, 10**6), st.lists(st.integers(0, 255), min_size=1, max_size=5))
def test_steps_between_thresholds_lead_to_the_lowest(seed, levels):
    rng = np.random.default_rng(seed)
    pairs = {tuple(sorted(rng.choice(12, 2, replace=False) + 1)): [int(rng.integers(0, 256))] for _ in range(20)}
    tree = agglomerate(graph_of({(int(a), int(b)): values for (a, b), values in pairs.items()}))
    ids, above = np.arange(1, 13, dtype=np.uint64), None
    for threshold in sorted((level / 255 for level in levels), reverse=True):
        ids, above = apply_lut(ids, *tree.table(threshold, above)), threshold
        assert np.array_equal(ids, tree.lut(np.arange(1, 13), threshold))


def test_unknown_ids_are_their_own_segments():
    tree = agglomerate(graph_of({(7, 9): [255]}))
    assert tree.lut(np.array([[0, 9], [7, 1000]], np.uint32), 0.5).tolist() == [[0, 7], [7, 1000]]
    assert [column.tolist() for column in tree.table(0.5)] == [[9], [7]]
    assert [column.tolist() for column in agglomerate(graph_of({})).table(0.5)] == [[], []]


def test_scores_of_huge_contacts_are_compared_exactly():
    """Ratios that round to the same double, and counts whose products overflow 64 bits."""
    n = 2**50
    ids, n_E = np.arange(1, 5, dtype=np.uint64), np.array([n, n, n + 1], np.int64)
    total = np.array([100 * n, 100 * n + 1, 100 * (n + 1) + 1], np.int64)
    assert total[0] / n_E[0] == total[1] / n_E[1] == total[2] / n_E[2]
    graph = RegionGraph(ids[:3], ids[1:], n_E, total, np.full(3, 255), n_E)
    assert merges_of(agglomerate(graph))[:2] == [
        (Fraction(100 * n + 1, 255 * n), 2, 3),
        (Fraction(100 * (n + 1) + 1, 255 * (n + 1)), 2, 4),
    ]


def test_quantile_rank_does_not_overflow():
    n = 2**60  # 75 n is beyond int64
    histogram = np.zeros((1, 256), np.int64)
    histogram[0, [10, 20]] = n // 2, n // 2
    one = np.array([1], np.uint64)
    graph = RegionGraph(one, one + one, np.array([n]), np.array([1]), np.array([20]), np.array([1]), histogram)
    scores = [agglomerate(graph, linkage="quantile", quantile=q).scores[0] for q in (0, 49, 50, 75, 99)]
    assert scores == [10 / 255, 10 / 255, 20 / 255, 20 / 255, 20 / 255]


@settings(max_examples=200, deadline=None)
@given(*[st.integers(0, 2**62), st.integers(1, 2**62)] * 2)
def test_comparison_of_ratios_is_exact(a, b, c, d):
    x, y = Fraction(a, b), Fraction(c, d)
    assert compare(*map(np.int64, (a, b, c, d))) == (x > y) - (x < y)


def test_edges_without_contact_do_not_merge():
    fragments = np.array([[[1, 2, 3]]], np.uint64)
    affinities = np.full((2, 1, 1, 3), 255, np.uint8)
    affinities[0] = 100
    graph = region_graph(fragments, affinities, [(0, 0, -1), (0, 0, -2)], long_range=True)
    assert agglomerate(graph).scores.max() == 100 / 255


@contextlib.contextmanager
def silent_stdout():
    """waterz reports on C's stdout."""
    kept = os.dup(1)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def waterz_segmentations(affinities, fragments, thresholds, function):
    """Segmentation per threshold of affinity, descending."""
    as_float = affinities.astype(np.float32) / np.float32(255)
    with silent_stdout():
        found = waterz.agglomerate(
            as_float, [1 - t for t in thresholds], fragments=fragments.copy(), scoring_function=function
        )
        return [segmentation.copy() for segmentation in found]


def cubes(rng, count, side):
    """Cubic fragments with dense ids in random order, noisy affinities between them."""
    ids = rng.permutation(count**3).reshape((count,) * 3).astype(np.uint64) + np.uint64(1)
    fragments = ids.repeat(side, 0).repeat(side, 1).repeat(side, 2)
    return fragments, rng.integers(0, 256, (3, *fragments.shape)).astype(np.uint8)


def assert_same_partition(a, b):
    assert max(a.max(), b.max()) < 2**32
    joint = fastremap.unique(a << np.uint64(32) | b)
    assert len(fastremap.unique(a)) == len(fastremap.unique(b)) == len(joint)


MEAN = "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>"
MEDIAN = "OneMinus<HistogramQuantileAffinity<RegionGraphType, 50, ScoreValue, 256, false>>"


@pytest.mark.parametrize("seed", [0, 3, 4])
def test_mean_linkage_agrees_with_waterz(seed):
    """Seeds where no two edges of one region tie: waterz leaves the order of equal scores open."""
    fragments, affinities = cubes(np.random.default_rng(seed), 6, 12)
    tree = agglomerate(region_graph(fragments, affinities, NEAR))
    thresholds = [0.5601, 0.5201, 0.5001, 0.4801]
    for t, other in zip(thresholds, waterz_segmentations(affinities, fragments, thresholds, MEAN), strict=True):
        assert_same_partition(apply_lut(fragments, *tree.table(t)), other)


def test_median_linkage_agrees_with_waterz():
    """Scores are bytes, so ties are everywhere; each contact has its own median here to keep the order unique."""
    fragments, affinities = cubes(np.random.default_rng(3), 3, 4)
    level = np.random.default_rng(4).permutation(256)[: 3 * 27].reshape(3, 3, 3, 3)
    affinities = level.repeat(4, 1).repeat(4, 2).repeat(4, 3).astype(np.uint8)
    tree = agglomerate(region_graph(fragments, affinities, NEAR, bins=256), linkage="quantile")
    # waterz scores a bin by its middle, (value + 1/2) / 256: cut between two bytes, where both agree.
    thresholds = [200 / 256, 150 / 256, 100 / 256]
    other = waterz_segmentations(affinities, fragments, thresholds, MEDIAN)
    for t, theirs in zip(thresholds, other, strict=True):
        assert_same_partition(apply_lut(fragments, *tree.table(t)), theirs)


@pytest.mark.real_data
def test_mean_linkage_agrees_with_waterz_on_real_boundaries(real_data):
    with h5py.File(real_data / "gala_fib" / "train.h5") as file:
        inside = 1 - ndimage.gaussian_filter(file["boundary_prob"][:], 0.7)
        fragments = file["watershed"][:].astype(np.uint64)
    pairs = [np.minimum(inside, np.roll(inside, 1, axis)) for axis in range(3)]
    affinities = np.rint(255 * np.stack(pairs)).clip(0, 255).astype(np.uint8)
    tree = agglomerate(region_graph(fragments, affinities, NEAR))
    thresholds = [0.9001, 0.7001, 0.5001]
    for t, other in zip(thresholds, waterz_segmentations(affinities, fragments, thresholds, MEAN), strict=True):
        assert_same_partition(apply_lut(fragments, *tree.table(t)), other)


@pytest.mark.real_data
def test_tree_of_real_fragments_is_exact(real_data):
    with h5py.File(real_data / "fib25" / "trvol2_250.h5") as file:
        smooth = ndimage.gaussian_filter(file["volumes/raw"][:80, :80, :80].astype(np.float32), 1.0)
    low, high = np.percentile(smooth, (10, 75))
    inside = np.clip((smooth - low) / (high - low), 0, 1)
    pairs = [np.minimum(inside, np.roll(inside, 1, axis)) for axis in range(3)]
    affinities = np.rint(255 * np.stack(pairs)).astype(np.uint8)
    fragments = seeded_fragments(affinities, NEAR, (10, 10, 10), Seeding(window_vox=6))
    graph = region_graph(fragments, affinities, NEAR)
    assert len(graph) > 300
    assert merges_of(agglomerate(graph)) == reference(graph)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"linkage": "median"}, "median"),
        ({"linkage": "quantile", "quantile": 100}, "quantile 100"),
        ({"threshold": 1.5}, "1.5"),
        ({"threshold": float("nan")}, "nan"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(InputError, match=words):
        agglomerate(graph_of({(1, 2): [3]}), **arguments)


def test_quantile_without_histogram_and_threshold_below_the_floor_are_refused():
    graph = graph_of({(1, 2): [200]})
    plain = RegionGraph(graph.u, graph.v, graph.n, graph.total, graph.peak, graph.contacts)
    with pytest.raises(InputError, match="bins=256"):
        agglomerate(plain, linkage="quantile")
    with pytest.raises(InputError, match=r"outside \[0.5, 1\]"):
        agglomerate(graph, threshold=0.5).lut(graph.u, 0.4)
