"""Polarity: there and back, proximity against its formula."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from emloom.errors import InputError
from emloom.ops.polarity import polarity_labels, polarity_target, signed_proximity, synapses_of

shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
sides = hnp.arrays(np.uint64, shapes, elements=st.sampled_from([0, 1, 2, 3, 4, 2**40 + 1, 2**63 - 2]))
light = settings(deadline=None, max_examples=60)


@light
@given(sides, st.none() | st.integers(0, 99))
def test_there_and_back(labels, seed):
    mask = None if seed is None else np.random.default_rng(seed).random(labels.shape) < 0.7
    (pre, post, union), weight = polarity_target(labels, mask_ZYX=mask)
    known = np.ones(labels.shape, bool) if mask is None else mask
    np.testing.assert_array_equal(weight, known)
    np.testing.assert_array_equal(pre, (labels % np.uint64(2) == 1) & known)
    np.testing.assert_array_equal(union, (labels != 0) & known)
    np.testing.assert_array_equal(pre + post, union)
    np.testing.assert_array_equal(polarity_labels(synapses_of(labels), pre, post), np.where(known, labels, 0))


def test_both_sides_of_a_synapse_belong_to_it():
    labels = np.array([[[0, 1, 2, 3, 4]]], np.uint8)
    np.testing.assert_array_equal(synapses_of(labels), [[[0, 1, 1, 2, 2]]])
    # A side without a synapse is nothing; a synapse without a side neither.
    nothing = polarity_labels(
        np.array([[[0, 5]]], np.uint8), np.array([[[1, 0]]], bool), np.zeros((1, 1, 2), bool)
    )
    np.testing.assert_array_equal(nothing, [[[0, 0]]])


def test_proximity_equals_its_formula():
    rng = np.random.default_rng(1)
    labels = (rng.random((5, 30, 30)) < 0.003).astype(np.uint8) * rng.integers(1, 5, (5, 30, 30)).astype(np.uint8)
    spacing, scale = (40.0, 4.0, 4.0), 12.0
    value, weight = signed_proximity(labels, spacing, scale)
    to_pre, to_post = (
        ndimage.distance_transform_edt(~((labels % 2 == odd) & (labels != 0)), sampling=spacing) for odd in (1, 0)
    )
    expected = np.exp(-((np.minimum(to_pre, to_post) / scale) ** 2)) * np.sign(to_post - to_pre)
    np.testing.assert_allclose(value, expected, atol=2e-4)
    np.testing.assert_array_equal(value == 1, labels % 2 == 1)
    np.testing.assert_array_equal(value == -1, (labels != 0) & (labels % 2 == 0))
    assert weight[labels != 0].all()
    assert 0 < weight.mean() < 1


@pytest.mark.parametrize("side", [1, 2])
def test_proximity_of_nothing_and_of_one_side_only(side):
    value, weight = signed_proximity(np.zeros((9, 9, 9), np.uint8), (8, 8, 8), 8.0)
    assert not value.any()
    assert weight[4, 4, 4] == 1
    full = np.full((3, 3, 3), side, np.uint8)
    value, weight = signed_proximity(full, (8, 8, 8), 8.0)
    np.testing.assert_array_equal(value, 1.0 if side == 1 else -1.0)
    assert weight.all()


def test_swapping_sides_turns_the_sign():
    labels = np.random.default_rng(0).integers(0, 60, (4, 9, 9)).astype(np.uint8)
    labels[labels > 4] = 0
    swapped = np.where(labels % 2 == 1, labels + 1, np.maximum(labels, 1) - 1).astype(np.uint8)
    a, b = signed_proximity(labels, (40, 4, 4), 20.0), signed_proximity(swapped, (40, 4, 4), 20.0)
    np.testing.assert_array_equal(a[0], -b[0])
    np.testing.assert_array_equal(a[1], b[1])


def test_unknown_voxels_weigh_nothing():
    labels = np.zeros((5, 9, 9), np.uint8)
    labels[2, 4, 4] = 1
    mask = np.ones(labels.shape, bool)
    mask[2, 4, 4] = mask[2, 4, 6] = False
    value, weight = signed_proximity(labels, (8, 8, 8), 8.0, mask_ZYX=mask)
    assert not weight[~mask].any()
    assert weight[2, 4, 5] == 0  # what lies on either side of it is unknown
    assert np.isfinite(value).all()


def test_rejects_bad_values():
    ones = np.ones((1, 1, 1), np.uint8)
    with pytest.raises(InputError, match="relabel"):
        polarity_labels(np.full((1, 1, 1), 2**62, np.uint64), ones, ones)
    with pytest.raises(InputError, match="mask has shape"):
        polarity_labels(ones, np.ones((1, 1, 2), np.uint8), ones)
    with pytest.raises(InputError, match="cap"):
        signed_proximity(ones, (8, 8, 8), 0.0)
