from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.ops.regions import RegionGraph, merge_graphs, region_graph

NEAR = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
FAR = [*NEAR, (0, 1, 0), (0, 0, -3), (2, 0, 0)]


def noise(seed, shape=(6, 7, 8), channels=3, ids=5):
    rng = np.random.default_rng(seed)
    fragments = rng.integers(0, ids, shape).astype(np.uint64) * np.uint64(2**40)
    return fragments, rng.integers(0, 256, (channels, *shape)).astype(np.uint8)


def pairs_of(fragments, affinities, neighborhood):
    """Every cut voxel pair: (u, v) -> list of affinities; the definition, voxel by voxel."""
    pairs = {}
    for c, offset in enumerate(neighborhood):
        for p in np.ndindex(fragments.shape):
            q = tuple(a + b for a, b in zip(p, offset, strict=True))
            if all(0 <= a < n for a, n in zip(q, fragments.shape, strict=True)):
                a, b = int(fragments[p]), int(fragments[q])
                if a and b and a != b:
                    pairs.setdefault((min(a, b), max(a, b)), []).append(int(affinities[(c, *p)]))
    return pairs


@pytest.mark.parametrize("long_range", [False, True])
def test_statistics_are_those_of_the_cut_pairs(long_range):
    fragments, affinities = noise(0, channels=len(FAR), ids=9)
    graph = region_graph(fragments, affinities, FAR, bins=64, long_range=long_range)
    used = [c for c, o in enumerate(FAR) if long_range or sum(map(abs, o)) == 1]
    pairs = pairs_of(fragments, affinities[used], [FAR[c] for c in used])
    assert list(zip(graph.u.tolist(), graph.v.tolist(), strict=True)) == sorted(pairs)
    values = [pairs[key] for key in sorted(pairs)]
    assert graph.n.tolist() == [len(v) for v in values]
    assert graph.total.tolist() == [sum(v) for v in values]
    assert graph.peak.tolist() == [max(v) for v in values]
    expected = [np.histogram(v, bins=64, range=(0, 256))[0] for v in values]
    assert np.array_equal(graph.histogram, expected)


def test_long_range_edges_without_contact_are_marked():
    fragments = np.array([[[1, 1, 2, 2, 3, 3]]], np.uint64)
    affinities = np.full((2, 1, 1, 6), 7, np.uint8)
    graph = region_graph(fragments, affinities, [(0, 0, -1), (0, 0, -3)], long_range=True)
    assert list(zip(graph.u.tolist(), graph.v.tolist(), graph.contacts.tolist(), strict=True)) == [
        (1, 2, 1),
        (1, 3, 0),
        (2, 3, 1),
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 9)] * 3), st.sampled_from([0, 16, 256]), st.booleans())
def test_graphs_of_any_blocks_add_up_to_the_whole(seed, cell, bins, long_range):
    fragments, affinities = noise(seed, channels=len(FAR))
    whole = region_graph(fragments, affinities, FAR, bins=bins, long_range=long_range)
    total, parts = Box.whole(fragments.shape), []
    for start in np.ndindex(*[-(-n // c) for n, c in zip(fragments.shape, cell, strict=True)]):
        write = Box(tuple(s * c for s, c in zip(start, cell, strict=True)), cell).intersect(total)
        read = write.grow(3).intersect(total)
        index = read.slices()
        owned = write.shift([-s for s in read.start])
        block = (fragments[index], affinities[:, *index])
        parts.append(region_graph(*block, FAR, owned=owned, bins=bins, long_range=long_range))
    assert merge_graphs(parts[::-1]) == whole
    assert merge_graphs([merge_graphs(parts[:2]), *parts[2:]]) == whole


def test_many_edges_survive_the_growth_of_the_table():
    fragments = np.arange(1, 40**3 + 1, dtype=np.uint64).reshape(40, 40, 40)
    affinities = np.ones((3, 40, 40, 40), np.uint8)
    graph = region_graph(fragments, affinities, NEAR)
    assert len(graph) == 3 * 40 * 40 * 39
    assert np.all(graph.n == 1)
    order = np.lexsort((graph.v, graph.u))
    assert np.array_equal(order, np.arange(len(graph)))


def test_nothing_to_connect_gives_an_empty_graph():
    affinities = np.ones((3, 2, 2, 2), np.uint8)
    for fragments in (np.zeros((2, 2, 2), np.uint64), np.ones((2, 2, 2), np.uint8)):
        assert len(region_graph(fragments, affinities, NEAR, bins=256)) == 0
    assert len(region_graph(np.zeros((0, 2, 2), np.uint64), np.ones((3, 0, 2, 2), np.uint8), NEAR)) == 0
    empty = region_graph(np.ones((2, 2, 2), np.uint8), affinities, NEAR)
    assert merge_graphs([]) == empty == merge_graphs([empty, empty])


def test_graph_equality_sees_every_column():
    graph = region_graph(*noise(1), NEAR)
    other = RegionGraph(graph.u, graph.v, graph.n, graph.total + 1, graph.peak, graph.contacts)
    assert graph == region_graph(*noise(1), NEAR)
    assert graph != other
    assert graph != region_graph(*noise(1), NEAR, bins=256)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"fragments_ZYX": np.ones((6, 7, 8), np.int64)}, "unsigned"),
        ({"fragments_ZYX": np.ones((7, 8), np.uint64)}, "2 axes"),
        ({"fragments_ZYX": np.full((6, 7, 8), 2**63, np.uint64)}, "2\\^63"),
        ({"affinities_CZYX": np.ones((3, 6, 7, 8), np.float32)}, "float32"),
        ({"affinities_CZYX": np.ones((3, 6, 7, 9), np.uint8)}, "do not fit"),
        ({"neighborhood": NEAR[:2]}, "2 offsets"),
        ({"neighborhood": [(0, 0, 2), (0, 3, 0), (1, 1, 0)]}, "face neighbour"),
        ({"bins": 100}, "100 histogram bins"),
        ({"owned": Box((0, 0, 0), (7, 7, 8))}, "leaves the array"),
    ],
)
def test_bad_input_is_named(change, words):
    fragments, affinities = noise(0)
    given_ = {"fragments_ZYX": fragments, "affinities_CZYX": affinities, "neighborhood": NEAR, **change}
    with pytest.raises(InputError, match=words):
        region_graph(**given_)


def test_merging_graphs_with_different_bins_is_refused():
    with pytest.raises(InputError, match="different bins"):
        merge_graphs([region_graph(*noise(1), NEAR), region_graph(*noise(1), NEAR, bins=256)])
