from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.geometry import Box
from emloom.ops.heights import gaussian_radius, gaussian_weights, looks_around, mean_heights, smooth


def mean_of_all(affinities, offsets):
    shape = affinities.shape[1:]
    whole = Box.whole(shape)
    alive = np.ones(shape, np.uint8)
    return mean_heights(affinities, looks_around(np.array(offsets)), (whole, whole, shape), 0.0, alive)


@pytest.mark.parametrize(("n_channels", "pairs", "x"), [(6, 12, 1), (5, 9, 0)])
def test_the_mean_is_rounded_exactly_halves_up(n_channels, pairs, x):
    """Every sum that 12 and 9 pairs can have: a reciprocal one bit too short fails for some of them."""
    offsets = [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, 1), (0, 0, -1)][:n_channels]
    places = [(c, 1, 1, x) for c in range(n_channels)]
    places += [(c, 1 - z, 1 - y, x - dx) for c, (z, y, dx) in enumerate(offsets) if x - dx >= 0]
    assert len(places) == pairs
    affinities = np.zeros((n_channels, 3, 3, 3), np.uint8)
    for total in range(255 * pairs + 1):
        for k, place in enumerate(places):
            affinities[place] = min(255, max(0, total - 255 * k))
        got = mean_of_all(affinities, offsets)[1, 1, x]
        assert got == floor(Fraction(257 * total, pairs) + Fraction(1, 2)), total


def test_a_voxel_without_pairs_has_height_0():
    assert mean_of_all(np.full((1, 1, 1, 1), 255, np.uint8), [(1, 0, 0)]).tolist() == [[[0]]]


@given(st.just(0.0) | st.floats(0.01, 30))
def test_weights_are_a_gaussian_that_sums_to_one(sigma):
    weights = gaussian_weights(sigma)
    assert 2 * int(weights.sum()) - int(weights[0]) == 65536
    assert weights.size == gaussian_radius(sigma) + 1
    assert 0 <= gaussian_radius(sigma) - 3 * Fraction(repr(sigma)) < 1
    assert np.all(np.diff(weights.astype(np.int64))[1:] <= 0)
    if weights.size > 1:
        bell = np.exp(-0.5 * (np.arange(weights.size) / sigma) ** 2)
        exact = 65536 * bell / (2 * bell.sum() - 1)
        assert np.all(abs(weights[1:] - exact[1:]) < 0.501)
        assert abs(weights[0] - exact[0]) <= weights.size


def test_weights_of_the_default_are_what_the_docstring_says():
    assert gaussian_weights(1.0).tolist() == [26152, 15862, 3539, 291]


def slow_smooth(heights, sigma):
    """Axis by axis in int64, with numpy's own mirror."""
    out = heights.astype(np.int64)
    for axis, s in enumerate(sigma):
        half = gaussian_weights(s).astype(np.int64)
        weights = np.concatenate([half[:0:-1], half])
        r = half.size - 1
        padded = np.pad(out, [(r, r) if k == axis else (0, 0) for k in range(3)], mode="symmetric")
        parts = [w * np.take(padded, np.arange(k, k + out.shape[axis]), axis) for k, w in enumerate(weights)]
        out = (sum(parts) + 32768) >> 16
    return out


SIGMAS = st.tuples(*[st.sampled_from([0.0, 0.3, 1.0, 2.5])] * 3)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 11)] * 3), SIGMAS, st.data())
def test_smoothing_a_part_is_a_part_of_smoothing_all(seed, shape, sigma, data):
    rng = np.random.default_rng(seed)
    heights = rng.choice([0, 1, 40000, 65535], shape).astype(np.uint16)
    expected = slow_smooth(heights, sigma)
    whole = Box.whole(shape)
    start = tuple(data.draw(st.integers(0, n - 1)) for n in shape)
    wanted = Box.of(start, tuple(data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)))
    box = wanted.grow([gaussian_radius(s) for s in sigma]).intersect(whole)
    part = np.ascontiguousarray(heights[box.slices()])
    assert np.array_equal(smooth(part, (box, wanted, shape), sigma), expected[wanted.slices()])


def test_smoothing_agrees_with_scipy_up_to_rounding():
    heights = np.random.default_rng(0).integers(0, 65536, (9, 20, 31)).astype(np.uint16)
    whole, sigma = Box.whole(heights.shape), (0.5, 1.0, 2.0)
    radius = [gaussian_radius(s) for s in sigma]
    expected = ndimage.gaussian_filter(heights.astype(float), sigma, mode="reflect", radius=radius)
    assert np.abs(smooth(heights, (whole, whole, heights.shape), sigma) - expected).max() < 8
    top = np.full((3, 3, 3), 65535, np.uint16)
    whole = Box.whole(top.shape)
    assert np.all(smooth(top, (whole, whole, top.shape), sigma) == 65535)
