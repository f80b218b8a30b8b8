"""Shifts between sections: planted ones come back, and none is made up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from emloom.ops.registration import correlation, overlapping, shift_between


def texture(seed: int, shape: tuple[int, int] = (128, 128)) -> NDArray[np.float64]:
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth: NDArray[np.float64] = ndimage.gaussian_filter(noise, 3.0)
    return smooth / smooth.std()


@given(st.integers(0, 2**31), st.integers(-50, 50), st.integers(-50, 50), st.floats(0, 0.8))
@settings(max_examples=40)
def test_a_planted_shift_is_found_through_noise_and_tone(seed: int, y: int, x: int, noise: float) -> None:
    wide, rng = texture(seed, (240, 240)), np.random.default_rng(seed + 1)
    a, b = wide[56:184, 56:184], wide[56 - y : 184 - y, 56 - x : 184 - x]
    found = shift_between(a, 3 * b + 40 + noise * rng.normal(size=b.shape))
    assert max(abs(found.y - y), abs(found.x - x)) <= 1  # smooth tissue is nearly as like itself a pixel further
    assert found.correlation >= found.before
    one, other = overlapping(a, b, y, x)
    np.testing.assert_array_equal(one, other)


def test_strangers_stay_strangers() -> None:
    found = [shift_between(texture(seed), texture(seed + 100)) for seed in range(20)]
    assert max(shift.correlation for shift in found) < 0.5
    assert all(shift.correlation >= shift.before for shift in found)


def test_a_constant_resembles_nothing() -> None:
    found = shift_between(np.full((32, 32), 7.0), texture(0, (32, 32)))
    assert (found.y, found.x) == (0, 0)
    assert np.isnan(found.correlation)
    assert np.isnan(correlation(np.zeros((0, 3)), np.zeros((0, 3))))


@given(st.integers(0, 2**31))
@settings(max_examples=20)
def test_correlation_is_pearsons(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 9, 7))
    assert correlation(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
    assert correlation(a, -2 * a + 3) == pytest.approx(-1)
