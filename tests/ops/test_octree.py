from __future__ import annotations

import itertools
from fractions import Fraction

import fastremap
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box, cells
from emloom.ops import agglomerate as agglomeration
from emloom.ops import freezing, merging
from emloom.ops.agglomerate import agglomerate, agglomerate_part
from emloom.ops.fragments import Seeding, seeded_fragments
from emloom.ops.octree import SIDES, Contraction, Node, Octree, agglomerate_octree, face_ids
from emloom.ops.regions import merge_graphs, region_graph

NEAR = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
FORWARD = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
MIXED = [(1, 0, 0), (0, -1, 0), (0, 0, 1)]
RULES = [("mean", 50, 0), ("max", 50, 0), ("quantile", 50, 256), ("quantile", 75, 64)]
WHOLE = (99, 99, 99)


def merges_of(tree):
    columns = (tree.score_num.tolist(), tree.score_den.tolist(), tree.a.tolist(), tree.b.tolist())
    return [(Fraction(num, den), a, b) for num, den, a, b in zip(*columns, strict=True)]


def connected(labels):
    """Number the 6-connected pieces of equal labels, in random order; 0 stays."""
    out, count = np.zeros(labels.shape, np.uint64), 0
    for value in np.unique(labels[labels > 0]):
        pieces, found = ndimage.label(labels == value)
        out[pieces > 0] = (pieces[pieces > 0] + count).astype(np.uint64)
        count += found
    numbers = np.random.default_rng(count).permutation(count).astype(np.uint64) * np.uint64(3) + np.uint64(7)
    return np.concatenate([np.zeros(1, np.uint64), numbers])[out]


def volume(seed, shape=(16, 18, 20), values=4, *, grain=2, masked=False):
    """Connected random fragments and affinities of a few values, so that scores tie everywhere."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(1, 7, [-(-n // grain) for n in shape])
    labels = coarse.repeat(grain, 0).repeat(grain, 1).repeat(grain, 2)[tuple(map(slice, shape))]
    labels[rng.random(shape) < 0.1] = 7
    if masked:
        labels[:, 5:9, 3:] = 0
        labels[rng.random(shape) < 0.05] = 0
    palette = rng.choice(256, values)
    return connected(labels), rng.choice(palette, (3, *shape)).astype(np.uint8)


def cut(fragments, affinities, neighborhood, leaf, bins):
    """Region graph and faces of each leaf, from what the leaf reads: itself and the halo its offsets point to."""
    before = [max(0, *(-o[axis] for o in neighborhood)) for axis in range(3)]
    after = [max(0, *(o[axis] for o in neighborhood)) for axis in range(3)]
    whole = Box.whole(fragments.shape)
    graphs, faces = {}, {}
    for index, write in cells(whole, leaf):
        read = write.grow(before, after).intersect(whole)
        part, owned = fragments[read.slices()], write.shift([-i for i in read.start])
        values = affinities[:, *read.slices()]
        graphs[index] = region_graph(part, values, neighborhood, owned=owned, bins=bins)
        faces[index] = face_ids(part, owned)
    return graphs, faces


def trees_of(fragments, affinities, leaf, rule, *, neighborhood=NEAR, threshold=0.0, most_edges=None):
    """The tree of the whole, and the one put together from leaves."""
    linkage, quantile, bins = rule
    chosen = {"linkage": linkage, "quantile": quantile, "threshold": threshold}
    graphs, faces = cut(fragments, affinities, neighborhood, leaf, bins)
    whole = region_graph(fragments, affinities, neighborhood, bins=bins)
    return agglomerate(whole, **chosen), agglomerate_octree(graphs, faces, **chosen, most_edges=most_edges)


def assert_same(first, second):
    assert merges_of(first) == merges_of(second)
    assert first.floor == second.floor


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("leaf", [WHOLE, (8, 8, 8), (5, 9, 7), (12, 40, 6), (3, 3, 3), (1, 18, 20)])
def test_any_leaves_give_the_tree_of_the_whole(rule, leaf):
    for seed, masked, most_edges in [(0, False, None), (1, True, 0)]:
        fragments, affinities = volume(seed, values=3, masked=masked)
        whole, parts = trees_of(fragments, affinities, leaf, rule, most_edges=most_edges)
        assert len(whole) > 500
        assert_same(parts, whole)
        ids = fastremap.unique(fragments)
        for threshold in (0.2, 0.5, 0.7, 0.9):
            assert np.array_equal(parts.lut(ids, threshold), whole.lut(ids, threshold))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(*[st.integers(1, 11)] * 3),
    leaf=st.tuples(*[st.integers(1, 6)] * 3),
    values=st.sampled_from([1, 2, 3, 4, 200]),
    grain=st.integers(1, 3),
    rule=st.sampled_from(RULES),
    neighborhood=st.sampled_from([NEAR, FORWARD, MIXED, [*NEAR, *FORWARD]]),
    threshold=st.sampled_from([0.0, 0.3, 0.57]),
    masked=st.booleans(),
    most_edges=st.sampled_from([None, 0, 50, 500]),
)
def test_any_volume_and_any_leaves_give_the_tree_of_the_whole(
    seed, shape, leaf, values, grain, rule, neighborhood, threshold, masked, most_edges
):
    fragments, affinities = volume(seed, shape, values, grain=grain, masked=masked)
    if len(neighborhood) > 3:
        affinities = np.concatenate([affinities, affinities[::-1]])
    chosen = {"neighborhood": neighborhood, "threshold": threshold, "most_edges": most_edges}
    whole, parts = trees_of(fragments, affinities, leaf, rule, **chosen)
    assert_same(parts, whole)


@pytest.mark.parametrize("rule", RULES)
def test_larger_volumes_with_many_different_scores(rule):
    fragments, affinities = volume(3, (30, 36, 40), values=256, grain=3)
    affinities = np.maximum(affinities, 1)
    whole, parts = trees_of(fragments, affinities, (8, 13, 9), rule)
    assert len(whole) > 2000
    assert_same(parts, whole)


def wait_by_turns(s, e, frozen):
    """The rule without the closure: an edge freezes its ends when its turn comes, if one is frozen by then."""
    ends = s.edges[e, [freezing.U, freezing.V]]
    if len(frozen) and frozen[ends].any():
        frozen[ends] = 1
        return True
    return False


def test_without_the_closure_equal_scores_go_wrong(monkeypatch):
    volumes = [volume(seed, (6, 6, 6), values=2, grain=1) for seed in range(3)]
    monkeypatch.setattr(agglomeration, "run", merging.run.py_func)
    for fragments, affinities in volumes:
        assert_same(*trees_of(fragments, affinities, (3, 3, 3), RULES[0]))
    monkeypatch.setattr(merging, "freeze_level", lambda *_: None)
    monkeypatch.setattr(merging, "waits", wait_by_turns)
    for fragments, affinities in volumes:
        whole, parts = trees_of(fragments, affinities, (3, 3, 3), RULES[0])
        assert merges_of(parts) != merges_of(whole)


def test_leaves_in_any_place_and_order_make_one_tree():
    """Lattices that start anywhere (negative, odd), with leaves missing: a missing leaf has no voxels."""
    fragments, affinities = volume(5, (12, 12, 12), values=3)
    fragments[4:8, :4, 8:] = 0
    graphs, faces = cut(fragments, affinities, NEAR, (4, 4, 4), 0)
    whole = agglomerate(region_graph(fragments, affinities, NEAR))
    del graphs[1, 0, 2]
    for shift in [(0, 0, 0), (-1, 5, -2), (1, 1, 1)]:
        moved = {tuple(np.add(leaf, shift).tolist()): graph for leaf, graph in reversed(graphs.items())}
        moved_faces = {tuple(np.add(leaf, shift).tolist()): lists for leaf, lists in faces.items()}
        assert_same(agglomerate_octree(moved, moved_faces), whole)


def test_every_level_holds_every_leaf_once_up_to_one_root():
    octree = Octree(tuple(itertools.product(range(-1, 4), range(3), [7])))
    assert octree.depth == 3
    for level in range(octree.depth + 1):
        nodes = octree.nodes(level)
        held = [leaf for node in nodes for leaf in octree.leaves_of(node)]
        assert sorted(held) == sorted(octree.leaves)
        assert all(octree.ancestor(leaf, level) == node for node in nodes for leaf in octree.leaves_of(node))
        if level:
            families = [octree.children(node) for node in nodes]
            assert sorted(itertools.chain(*families)) == octree.nodes(level - 1)
            assert max(map(len, families)) <= 8
    assert octree.nodes(octree.depth) == [Node(3, (0, 0, 0))]
    assert Octree(((4, -5, 6),)).depth == 0


def test_open_faces_lead_to_leaves_of_other_nodes():
    octree = Octree(tuple(itertools.product(range(4), range(2), range(3))))
    for level in range(octree.depth + 1):
        for node in octree.nodes(level):
            mine = octree.leaves_of(node)
            expected = [
                (leaf, side)
                for leaf in mine
                for side in range(6)
                if (across := tuple(np.add(leaf, SIDES[side]).tolist())) in octree.leaves and across not in mine
            ]
            assert octree.open_faces([node]) == expected
    assert octree.open_faces(octree.nodes(octree.depth)) == []


def test_nodes_together_are_open_where_no_node_of_them_is_across():
    octree = Octree(tuple(itertools.product(range(4), range(2), range(2))))
    family = octree.children(Node(1, (0, 0, 0)))
    assert octree.open_faces(family) == octree.open_faces([Node(1, (0, 0, 0))])
    assert octree.open_faces(family[:4]) == [(node.index, 1) for node in family[:4]]


def test_halves_make_the_largest_graph_smaller():
    fragments, affinities = volume(0, (48, 48, 48), values=200)
    graphs, faces = cut(fragments, affinities, NEAR, (24, 24, 24), 0)
    octree = Octree(tuple(graphs))
    contracted = [[], []]
    left = {}
    for sizes, most_edges in zip(contracted, (None, 0), strict=True):

        def part(graph, frozen, sizes=sizes):
            sizes.append(len(graph))
            return agglomerate_part(graph, frozen)

        nodes = Contraction(
            octree, left.__getitem__, lambda node: len(left[node]), faces.__getitem__, part, most_edges
        )
        for leaf, graph in graphs.items():
            left[Node(0, leaf)] = agglomerate_part(graph, octree.frozen_of([Node(0, leaf)], faces.__getitem__))[1]
        tree, rest = nodes.contract(octree.nodes(0))
        assert len(tree) > 100
        assert len(rest) == 0
    assert [len(sizes) for sizes in contracted] == [1, 7]
    assert max(contracted[1]) < 0.75 * contracted[0][0]


def test_frozen_are_the_ids_of_open_faces_only():
    octree = Octree(((0, 0, 0), (0, 0, 1), (0, 0, 2)))
    faces = {
        leaf: tuple(np.array([100 * leaf[2] + side], np.uint64) for side in range(6)) for leaf in octree.leaves
    }
    frozen = [
        octree.frozen_of([node], faces.__getitem__).tolist() for level in (0, 1, 2) for node in octree.nodes(level)
    ]
    assert frozen == [[5], [104, 105], [204], [105], [204], []]


def test_faces_hold_both_sides_where_both_are_read():
    fragments = np.arange(1, 61, dtype=np.uint16).reshape(3, 4, 5)
    fragments[1, 1, 2] = 0
    owned = Box((1, 1, 1), (1, 3, 3))
    inside, faces = fragments[owned.slices()], face_ids(fragments, owned)
    for axis in range(3):
        low, high = faces[2 * axis], faces[2 * axis + 1]
        first, last = inside.take(0, axis), inside.take(-1, axis)
        across = fragments[owned.shift([-(axis == a) for a in range(3)]).slices()].take(0, axis)
        assert set(low.tolist()) == {*first.ravel().tolist(), *across.ravel().tolist()} - {0}
        beyond = owned.shift([int(axis == a) for a in range(3)])
        rest = fragments[beyond.slices()].take(-1, axis) if Box.whole((3, 4, 5)).contains(beyond) else last
        assert set(high.tolist()) == {*last.ravel().tolist(), *rest.ravel().tolist()} - {0}
        assert all(ids.dtype == np.uint64 and np.all(np.diff(ids.astype(np.int64)) > 0) for ids in (low, high))


def test_arguments_that_cannot_be_are_named():
    octree = Octree(((0, 0, 0), (0, 0, 1)))
    with pytest.raises(InputError, match="0 leaves"):
        Octree(())
    with pytest.raises(InputError, match="1 of them different"):
        Octree(((0, 0, 0), (0, 0, 0)))
    with pytest.raises(InputError, match=r"outside 0 .. 1"):
        octree.nodes(2)
    with pytest.raises(InputError, match="holds none"):
        octree.leaves_of(Node(1, (3, 0, 0)))
    with pytest.raises(InputError, match="unsigned"):
        face_ids(np.zeros((2, 2, 2), np.int64), Box.whole((2, 2, 2)))
    with pytest.raises(InputError, match="leaves the array"):
        face_ids(np.zeros((2, 2, 2), np.uint64), Box((0, 0, 1), (2, 2, 2)))


@pytest.mark.real_data
@pytest.mark.parametrize("rule", RULES)
def test_real_fragments_in_any_leaves(real_data, rule):
    with h5py.File(real_data / "fib25" / "trvol2_250.h5") as file:
        smooth = ndimage.gaussian_filter(file["volumes/raw"][:80, :80, :80].astype(np.float32), 1.0)
    low, high = np.percentile(smooth, (10, 75))
    inside = np.clip((smooth - low) / (high - low), 0, 1)
    pairs = [np.minimum(inside, np.roll(inside, 1, axis)) for axis in range(3)]
    affinities = np.rint(255 * np.stack(pairs)).astype(np.uint8)
    fragments = seeded_fragments(affinities, NEAR, (10, 10, 10), Seeding(window_vox=6, per_section=True))
    fragments = fragments.astype(np.uint64)
    for leaf in [(32, 32, 32), (17, 80, 23)]:
        assert_same(*trees_of(fragments, affinities, leaf, rule))
    graphs, _ = cut(fragments, affinities, NEAR, (32, 32, 32), 0)
    assert merge_graphs(list(graphs.values())) == region_graph(fragments, affinities, NEAR)
