"""What can be seen: windows against slow ones, noise against known noise, and what is called visible."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.ops.visibility import box_mean, noise_of, noticed, variance, visible


def random(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@given(
    shape=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    half=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    seed=st.integers(0, 99),
)
def test_windows_are_cut_at_the_borders(shape, half, seed):
    image = random(seed).normal(5.0, 1.0, shape).astype(np.float32)
    mean, spread = box_mean(image, half), variance(image, half)
    for y, x in np.ndindex(shape):
        part = image[max(0, y - half[0]) : y + half[0] + 1, max(0, x - half[1]) : x + half[1] + 1]
        assert mean[y, x] == pytest.approx(part.mean(dtype=float), abs=1e-6)
        assert spread[y, x] == pytest.approx(part.var(dtype=float), abs=1e-5)


@pytest.mark.parametrize("sigma", [0.02, 0.2])
def test_noise_is_measured_beside_tissue(sigma):
    y, x = np.indices((200, 200))
    smooth = 0.5 * np.sin(y / 9) * np.cos(x / 11)
    noisy = (smooth + random().normal(0.0, sigma, smooth.shape)).astype(np.float32)
    assert noise_of(noisy) == pytest.approx(sigma, rel=0.1)
    assert noise_of(smooth.astype(np.float32)) < 0.002
    assert noise_of(np.zeros((2, 5), np.float32)) == 0.0


def test_noise_and_contrast_hide_what_is_small():
    flat, busy = np.zeros((60, 60), np.float32), (random().random((60, 60)) > 0.5).astype(np.float32)
    change = np.zeros((60, 60), np.float32)
    change[20:40, 20:40] = 0.2
    square = change > 0
    np.testing.assert_array_equal(noticed(flat, flat + change, (8, 8), 0.0), square)
    assert not noticed(flat, flat + change, (8, 8), 0.1).any()
    assert not noticed(busy, busy + change, (8, 8), 0.0).any()
    assert visible(flat, flat + change, (8, 8), 0.0)[square].all()
    assert not visible(busy, busy, (8, 8), 0.0).any()


def test_contrast_that_is_lost_is_seen_though_single_voxels_are_alike():
    busy = random().normal(0.0, 0.2, (120, 120)).astype(np.float32)
    pale = busy.copy()
    pale[:, :60] *= 0.5
    assert noticed(busy, pale, (8, 8), 0.05).mean() < 0.5 * 0.5
    seen = visible(busy, pale, (8, 8), 0.05)
    assert seen[:, :40].mean() > 0.95
    assert seen[:, 80:].mean() < 0.01
