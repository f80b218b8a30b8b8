"""Polyads as labels: what is encoded is read back, whatever was done to the array in between."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.ops.polarity import polarity_target, synapses_of
from emloom.ops.polyads import (
    LARGEST_POLYAD,
    SIDES,
    encode,
    polarity_labels_of,
    polyads_of,
    post_sides,
    pre_balls,
    side_masks,
    sides_of,
    ways_to_pre,
)
from emloom.ops.synapse_targets import Crop, Sites, draw_balls, site_mask

GRID = Grid((20.0, 8.0, 8.0))
U64 = np.uint64


@given(st.lists(st.tuples(st.integers(1, LARGEST_POLYAD), st.integers(0, SIDES - 1)), min_size=1, max_size=20))
def test_polyad_and_side_come_back(pairs) -> None:
    polyads, sides = np.array([p for p, _ in pairs], U64), np.array([s for _, s in pairs])
    labels = encode(polyads, sides)
    assert polyads_of(labels).tolist() == polyads.tolist()
    assert sides_of(labels).tolist() == sides.tolist()
    assert int(labels.max()) < 2**63  # still ids, far beyond int16 and int32


def test_ids_beyond_int16_are_kept() -> None:
    """The original stored ±id in int16: 40000 became -25536."""
    labels = encode(np.array([40_000, 3_000_000_000], U64), np.array([0, 255]))
    assert polyads_of(labels).tolist() == [40_000, 3_000_000_000]
    assert side_masks(labels.reshape(1, 1, 2)).tolist() == [[[[1, 0]]], [[[0, 1]]]]


@pytest.mark.parametrize(
    ("polyad", "side", "words"),
    [(0, 0, "is no polyad"), (LARGEST_POLYAD + 1, 0, "is no polyad"), (1, 256, "side 256"), (1, -1, "side -1")],
)
def test_what_cannot_be_encoded(polyad: int, side: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        encode(np.array([polyad], U64), np.array([side]))


def test_sides_follow_ids_and_not_rows() -> None:
    polyads, ids = np.array([7, 3, 7, 7, 3], U64), np.array([50, 2, 10, 30, 1], U64)
    assert post_sides(polyads, ids).tolist() == [3, 2, 1, 2, 1]
    order = np.array([4, 0, 3, 1, 2])
    assert post_sides(polyads[order], ids[order]).tolist() == [1, 3, 2, 2, 1]
    assert post_sides(polyads[:0], ids[:0]).tolist() == []


def test_a_polyad_has_at_most_255_posts() -> None:
    ids = np.arange(1, 257, dtype=U64)
    assert post_sides(np.full(255, 9, U64), ids[:255]).max() == 255
    with pytest.raises(InputError, match="polyad 9 has 256 post sites"):
        post_sides(np.full(256, 9, U64), ids)


def test_polarity_numbers_are_those_of_em_r50() -> None:
    labels = encode(np.array([5, 5, 5, 6], U64), np.array([0, 1, 2, 0])).reshape(1, 1, 4)
    numbers = polarity_labels_of(np.concatenate([labels, np.zeros((1, 1, 1), U64)], axis=2))
    assert numbers[0, 0].tolist() == [9, 10, 10, 11, 0]
    assert synapses_of(numbers)[0, 0].tolist() == [5, 5, 5, 6, 0]
    target, _ = polarity_target(numbers)
    assert np.array_equal(target[:2, :, :, :4], side_masks(labels))


def balls(shape=(12, 40, 40), seed: int = 0, n: int = 5, inside: bool = False):
    """Draw polyads of one pre and two posts somewhere."""
    rng = np.random.default_rng(seed)
    values, voxels = [], []
    for polyad in range(1, n + 1):
        pre = rng.integers((2, 4, 4), np.array(shape) - (2, 4, 4)) if inside else rng.integers(0, shape)
        for side in range(3):
            values.append(int(encode(np.array([polyad], U64), np.array([side]))[0]))
            voxels.append(pre if side == 0 else pre + rng.integers(-6, 7, 3))
    radii = np.full(len(values), 25.0)
    none = np.zeros(len(values), U64)
    return draw_balls(np.array(values, U64), np.array(voxels), none, radii, GRID.voxel_size_nm, None, shape)


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_turned_labels_give_turned_ways(seed: int) -> None:
    """Every mirror and transposition: the balls keep their sides, and ways turn as displacements do."""
    labels = balls(seed=seed)
    box = Box.whole(labels.shape)
    sides, (ways, told) = side_masks(labels), ways_to_pre(labels, box, GRID.voxel_size_nm, 200.0)
    for order, flips in product(((0, 1, 2), (0, 2, 1)), product((1, -1), repeat=3)):
        steps = tuple(slice(None, None, f) for f in flips)

        def turn(array, order=order, steps=steps):
            return np.ascontiguousarray(array.transpose(order)[steps])

        turned = turn(labels)
        assert np.array_equal(side_masks(turned), np.stack([turn(side) for side in sides]))
        found, seen = ways_to_pre(turned, box, GRID.voxel_size_nm, 200.0)
        assert np.array_equal(seen, turn(told))
        expected = np.stack([turn(ways[axis]) * f for axis, f in zip(order, flips, strict=True)])
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_ways_end_in_the_middle_of_the_pre_ball() -> None:
    labels = balls(n=3, inside=True)
    box = Box((1, 3, 2), (10, 33, 35))
    ways, told = ways_to_pre(labels, box, GRID.voxel_size_nm, 1000.0)
    found = pre_balls(labels)
    assert told.any()
    for z, y, x in np.argwhere(told):
        polyad = polyads_of(labels[box.slices()])[z, y, x]
        middle = found.centroids[found.polyads == polyad][0]
        ends = np.array([z, y, x]) + box.start + ways[:, z, y, x] / GRID.voxel_size_nm
        np.testing.assert_allclose(ends, middle, atol=1e-4)


def test_ways_are_told_only_where_the_pre_ball_is_whole_known_and_near() -> None:
    one = np.zeros((9, 9, 30), U64)
    one[3:6, 3:6, 3:6] = encode(np.array([4], U64), np.array([0]))[0]
    one[3:6, 3:6, 20:23] = encode(np.array([4], U64), np.array([1]))[0]
    whole, size = Box.whole(one.shape), (10.0, 10.0, 10.0)
    assert ways_to_pre(one, whole, size, 190.0)[1].sum() == 27
    assert ways_to_pre(one, whole, size, 169.0)[1].sum() == 9  # the voxels whose way is 160 nm long
    assert ways_to_pre(one[:, :, 3:], Box.whole((9, 9, 27)), size, 190.0)[1].sum() == 0  # touches the face
    assert ways_to_pre(one[:, :, 4:], Box.whole((9, 9, 26)), size, 190.0)[1].sum() == 0  # is cut
    assert ways_to_pre(one[:, :, 10:], Box.whole((9, 9, 20)), size, 190.0)[1].sum() == 0  # is not in sight
    known = np.ones(one.shape, np.uint8)
    known[4, 4, 2] = 0  # beside the pre ball, which may go on there
    assert ways_to_pre(one, whole, size, 190.0, mask_ZYX=known)[1].sum() == 0
    known[:], known[4, 4, 21] = 1, 0  # in the post ball
    assert ways_to_pre(one, whole, size, 190.0, mask_ZYX=known)[1].sum() == 26


def test_where_balls_meet_the_nearest_site_decides() -> None:
    values, voxels = np.array([300, 200], U64), np.array([[0, 0, 3], [0, 0, 8]])
    drawn = draw_balls(
        values, voxels, np.zeros(2, U64), np.array([40.0, 60.0]), (10.0, 10.0, 10.0), None, (1, 1, 14)
    )
    assert drawn[0, 0].tolist() == [300] * 6 + [200] * 8


def test_balls_are_those_of_site_masks() -> None:
    rng = np.random.default_rng(3)
    shape, n = (7, 20, 20), 8
    voxels = rng.integers(0, shape, (n, 3))
    neurons = rng.integers(0, 3, shape).astype(U64)
    owners = neurons[tuple(voxels.T)]
    points = np.array([GRID.centre(v) for v in voxels.tolist()])
    mask, _ = site_mask(Sites(np.arange(1, n + 1, dtype=U64), points, owners), Crop(GRID, shape, neurons), 30.0)
    drawn = draw_balls(
        np.arange(1, n + 1, dtype=U64), voxels, owners, np.full(n, 30.0), GRID.voxel_size_nm, neurons, shape
    )
    assert np.array_equal(drawn != 0, mask != 0)
    assert mask.any()
