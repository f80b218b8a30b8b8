"""Turning tissue and turning back: a group, exact inverses, and the meaning of every kind of channel."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.channels import Affinities, Channels, Descriptors, Scalars, Vectors, restore
from emloom.nn.orientations import Orientation, orientations
from emloom.ops.affinities import affinities, neighborhood
from emloom.ops.descriptors import local_shape_descriptors

ALL = orientations(16)
RULES = st.integers(0, 15).map(Orientation.of)
SHAPES = st.tuples(*[st.integers(1, 7)] * 3)
BLOCKS = hnp.arrays(np.uint8, SHAPES)
# One of each pair of opposite directions: some channels stand at the other end, some do not.
ASKEW = ((1, 2, 3), (-1, 2, -3), (1, 2, -3), (1, -2, -3), (1, 3, 2), (1, -3, 2), (-1, -3, 2), (1, -3, -2))
CLOSED = (*neighborhood(1, (0, 3, 3), (2, 0, 0)), (0, 0, 1), (0, 1, 0), *ASKEW)
# Turned, (0, 0, 1) and (0, 0, -1) both stand in the channel of (0, -1, 0).
LOPSIDED = (*neighborhood(1), (0, 0, 1))
DIAGONAL = (-1, -2, -3)


def bits(rule: int) -> list[int]:
    return [rule >> 3 & 1, rule >> 2 & 1, rule >> 1 & 1, rule & 1]


@settings(deadline=None)
@given(BLOCKS, st.integers(0, 15))
def test_forward_is_mirror_z_x_y_then_transpose_as_the_bits_say(block, rule):
    z, x, y, t = bits(rule)
    expected = block
    for axis, mirrored in ((0, z), (2, x), (1, y)):
        expected = np.flip(expected, axis) if mirrored else expected
    expected = expected.transpose(0, 2, 1) if t else expected
    assert np.array_equal(Orientation.of(rule).forward(block), expected)
    assert Orientation.of(rule).rule == rule


@settings(deadline=None)
@given(BLOCKS, RULES)
def test_backward_undoes_forward_bit_for_bit(block, turned):
    there = turned.forward(block)
    assert np.array_equal(turned.backward(there), block)
    assert np.array_equal(turned.inverse.forward(there), block)
    assert there.shape == turned.swap(block.shape)


@settings(deadline=None)
@given(RULES, RULES)
def test_orientations_are_a_group(a, b):
    block = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    both = b.forward(a.forward(block))
    assert sum(np.array_equal(both, o.forward(block)) for o in ALL) == 1


def test_generic_data_have_sixteen_orientations_and_the_sets_are_subgroups():
    block = np.arange(27).reshape(3, 3, 3)
    assert len({o.forward(block).tobytes() for o in ALL}) == 16
    for which in (1, 4, 8, 16):
        members = orientations(which)
        assert len(members) == which
        seen = {o.forward(block).tobytes() for o in members}
        for a, b in product(members, members):
            assert b.forward(a.forward(block)).tobytes() in seen


@settings(deadline=None)
@given(RULES, st.tuples(*[st.integers(-2, 2)] * 3))
def test_turn_says_where_a_displacement_points(turned, displacement):
    numbers = np.arange(5 * 6 * 7).reshape(5, 6, 7)
    here = np.array((2, 2, 3))
    there = turned.forward(numbers)
    origin, end = (np.argwhere(there == numbers[tuple(p)])[0] for p in (here, here + displacement))
    assert tuple(end - origin) == turned.turn(displacement)


@pytest.mark.parametrize("which", [0, 2, 32, (), (3, 3), (16,), (-1,)])
def test_unknown_orientations_are_refused(which):
    with pytest.raises(InputError, match="orientation"):
        orientations(which)


# ---- channels -------------------------------------------------------------------------------------------------


def kinds() -> list[Channels]:
    return [Scalars(3), Vectors(2), Descriptors(), Affinities(CLOSED)]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(kinds()), RULES, SHAPES, st.booleans(), st.integers(0, 2**32 - 1))
def test_there_and_back_is_exact_where_both_are_known(channels, turned, shape, floats, seed):
    n = len(channels.routes(Orientation()))
    x = np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)
    if floats:
        x = x.astype(np.float32) / 256  # 1 - v is exact for these
    there, known_there = restore(x, channels, turned.inverse)
    back, known = restore(there, channels, turned)
    # A value is back where it was known on the way there as well.
    way, _ = restore(known_there.astype(np.uint8), same_places(channels, turned), turned)
    both = known & (way == 1)
    assert np.array_equal(back[both], x[both])
    if not isinstance(channels, Affinities):
        assert both.all()


def same_places(channels: Channels, turned: Orientation) -> Channels:
    """Return the channels without signs: where values go, not what becomes of them."""
    if isinstance(channels, Affinities):
        return channels

    class Places:
        def routes(self, orientation: Orientation):
            return tuple(type(r)(r.source, False, r.shift) for r in channels.routes(orientation))

    return Places()


LABELS = hnp.arrays(np.uint8, st.tuples(*[st.integers(1, 6)] * 3), elements=st.integers(0, 3))


@settings(max_examples=100, deadline=None)
@given(LABELS, RULES, st.sampled_from([CLOSED, LOPSIDED, ASKEW]))
def test_affinities_of_turned_labels_turned_back_are_the_affinities(labels, turned, offsets):
    expected, valid = affinities(labels, offsets)
    there, valid_there = affinities(np.ascontiguousarray(turned.forward(labels)), offsets)
    back, known = restore(there, Affinities(offsets), turned)
    back_valid, _ = restore(valid_there, Affinities(offsets), turned)
    # Whatever is an affinity is known, and equal.
    assert known[valid == 1].all()
    assert np.array_equal(back[valid == 1], expected[valid == 1])
    assert np.array_equal((back_valid * known)[valid == 1], valid[valid == 1])


def test_the_other_end_of_a_pair_is_what_a_mirror_shows():
    """Forgetting the shift is wrong by a voxel: the test above can fail."""
    labels = np.array([[[1, 1, 2, 2, 2]]], np.uint8)
    mirror = Orientation.of(4)
    there, _ = affinities(np.ascontiguousarray(mirror.forward(labels)), ((0, 0, -1),))
    assert mirror.backward(there)[0, 0, 0].tolist() == [1, 0, 1, 1, 0]
    back, known = restore(there, Affinities(((0, 0, -1),)), mirror)
    assert back[0, 0, 0, 1:].tolist() == [1, 0, 1, 1]
    assert known[0, 0, 0].tolist() == [False, True, True, True, True]


def blobs(shape: Vec, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    seeds = rng.integers(0, shape, (5, 3))
    grid = np.indices(shape).transpose(1, 2, 3, 0)
    distance = ((grid[..., None, :] - seeds) ** 2).sum(-1)
    labels = distance.argmin(-1).astype(np.uint64) + 1
    labels[distance.min(-1) > 30] = 0
    return labels


@settings(max_examples=25, deadline=None)
@given(RULES, st.integers(0, 1000))
def test_descriptors_of_turned_labels_turned_back_are_the_descriptors(turned, seed):
    labels = blobs((7, 10, 12), seed)
    spacing = (20.0, 8.0, 8.0)
    expected, weight = local_shape_descriptors(labels, spacing, 24.0)
    there, _ = local_shape_descriptors(np.ascontiguousarray(turned.forward(labels)), spacing, 24.0)
    back, known = restore(there, Descriptors(), turned)
    assert known.all()
    assert np.abs(back - expected)[:, weight == 1].max(initial=0) < 2e-5
    assert expected[:, weight == 1].std() > 0.05


@settings(max_examples=40, deadline=None)
@given(RULES)
def test_the_gradient_of_turned_tissue_turned_back_is_the_gradient(turned):
    tissue = np.random.default_rng(3).random((5, 6, 7))
    expected = np.stack(np.gradient(tissue)) / 2 + 0.5
    there = np.stack(np.gradient(turned.forward(tissue))) / 2 + 0.5
    back, _ = restore(there, Vectors(), turned)
    assert np.allclose(back, expected, atol=1e-12)


def test_an_offset_without_counterpart_is_named():
    channels = Affinities(((-1, 0, 0), (0, -3, 0)))
    for rule in range(0, 16, 2):
        channels.routes(Orientation.of(rule))
    with pytest.raises(InputError, match=r"transpose yx' needs affinities of the offsets \(0, 0, -3\)"):
        channels.routes(Orientation.of(1))
    with pytest.raises(InputError, match=r"mirror z'"):
        Affinities((DIAGONAL,)).routes(Orientation.of(8))
    assert Affinities((DIAGONAL,)).routes(Orientation.of(14))[0].shift == DIAGONAL
