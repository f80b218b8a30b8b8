"""Affine maps between sections: planted ones are found, and what is not alike is not believed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage import transform

from emloom.errors import InputError
from emloom.geometry.planar import Affine
from emloom.ops.affinefit import _gram
from emloom.ops.affinematch import LEAST_OVERLAP, STILL, match, match_levels
from emloom.ops.matchlevels import levels_of
from tests.ops.torn import centres, pulled, sampled, tissue

SHAPE = (260, 280)


def noisy(image: NDArray[np.float64], seed: int, gain: float = 1.0, offset: float = 0.0) -> NDArray[np.float64]:
    return gain * image + offset + gain * np.random.default_rng(seed).normal(size=image.shape) * 8


def furthest(found: Affine, true: Affine, mask: NDArray[np.bool_] | None = None) -> float:
    """Return the 95th percentile of the distance between two maps, of places in a mask."""
    places = centres(SHAPE)[::53] if mask is None else np.argwhere(mask)[::53] + 0.5
    return float(np.percentile(np.linalg.norm(found(places) - true(places), axis=1), 95))


@given(
    st.integers(0, 10_000),
    st.tuples(*[st.floats(-0.035, 0.035)] * 4),
    st.tuples(*[st.floats(-35, 35)] * 2),
    st.floats(0.3, 40),
)
@settings(max_examples=12)
def test_a_planted_map_is_found_whatever_brightness_and_contrast(
    seed: int, bend: tuple[float, ...], shift: tuple[float, float], gain: float
) -> None:
    b = tissue(seed, SHAPE)
    true = Affine(((0.985 + bend[0], bend[1], shift[0]), (bend[2], 0.985 + bend[3], shift[1])))
    a = noisy(pulled(b, true), seed + 1, gain, 100)
    there = true(centres(SHAPE)).reshape(*SHAPE, 2)
    mask = ((there > 0) & (there < SHAPE)).all(-1)
    found = match(a, noisy(b, seed + 2), mask_a=mask)
    assert found.ok, found.reason
    assert furthest(found.affine, true, mask) < 0.3
    back = match(noisy(b, seed + 2), a, mask_b=mask)
    assert furthest(back.affine.inverse(), true, mask) < 0.5


def test_skimage_agrees() -> None:
    b = tissue(4, SHAPE)
    true = Affine(((0.96, 0.02, 9.0), (-0.03, 1.02, -12.0)))
    corners = np.array([[0, 0], [0, 280], [260, 0], [260, 280]], float)
    # There (x, y), and the middle of the first pixel is 0.
    judge = transform.estimate_transform("affine", corners[:, ::-1] - 0.5, true(corners)[:, ::-1] - 0.5)
    a = transform.warp(b, judge, order=1, mode="edge")
    np.testing.assert_allclose(a[30:-30, 30:-30], pulled(b, true)[30:-30, 30:-30], atol=1e-6)
    found = match(a, b)
    assert found.ok, found.reason
    assert furthest(found.affine, true) < 0.2


def test_only_the_mask_counts_and_a_start_leads_further_than_the_reach() -> None:
    b = tissue(6, SHAPE)
    true = Affine(((1.0, 0.0, 4.0), (0.0, 1.0, 90.0)))
    mask = np.zeros(SHAPE, np.bool_)
    mask[20:-20, 20:170] = True
    a = np.where(mask, pulled(b, true), tissue(7, SHAPE))
    near = match(a, b, mask_a=mask, reach_px=20)
    assert not near.ok
    found = match(a, b, mask_a=mask, reach_px=20, start=Affine(((1.0, 0.0, 0.0), (0.0, 1.0, 80.0))))
    assert found.ok, found.reason
    assert furthest(found.affine, true, mask) < 0.2
    beside = match(np.where(mask, a, 0), b, mask_a=mask, reach_px=100)
    assert furthest(beside.affine, found.affine, mask) < 0.05, "what is outside of the mask changes nothing"


def test_unlike_images_are_not_believed() -> None:
    believed = 0
    for seed in range(8):
        a, b = (noisy(tissue(seed + k, SHAPE), seed) for k in (0, 100))
        found = match(a, b)
        believed += found.ok
        assert found.ok or found.reason
    assert believed == 0
    a = tissue(0, SHAPE)
    assert not match(a, 255 - a).ok, "inside out"
    assert not match(a, a[:, ::-1]).ok, "turned over"
    assert not match(a, np.full(SHAPE, 7.0)).ok
    assert not match(np.full(SHAPE, 7.0), a).ok


def test_what_hardly_overlaps_or_is_stretched_is_not_believed() -> None:
    b = tissue(8, (260, 600))
    a, far = b[:, :280], np.zeros(b.shape, np.bool_)
    far[:, 280 - int(280 * LEAST_OVERLAP * 0.5) :] = True
    found = match(a, b, mask_b=far, reach_px=30)
    assert not found.ok
    assert match(a, b, mask_b=np.zeros(b.shape, np.bool_)).reason == "the sections do not overlap"
    assert match(a, b, mask_a=np.zeros(a.shape, np.bool_)).reason == "the sections do not overlap"
    wide = pulled(b, Affine(((0.7, 0.0, 0.0), (0.0, 0.7, 0.0))))[:, :400]
    assert not match(wide, b).ok
    small = np.zeros(a.shape, np.bool_)
    small[100:120, 100:120] = True
    assert not match(a, b, mask_a=small).ok


@pytest.mark.parametrize("stride", [1, 2])
def test_a_step_adds_up_what_the_obvious_way_does(stride: int) -> None:
    a, b = (levels_of(tissue(k, (40, 50)), np.ones((40, 50), np.bool_))[0] for k in (1, 2))
    stacked = np.dstack([b.image, *np.gradient(b.image)]).astype(np.float32)
    m = np.array([[0.98, 0.03, 1.7], [-0.02, 1.01, -2.4]])
    how = np.array([20.0, 25.0, 25.0, 0.4, 0.1, 0.8, stride])
    gram = np.zeros((9, 9))
    _gram(a.image, a.mask, stacked, b.mask, m, how, gram)
    places = centres((40, 50))
    there = places @ m[:, :2].T + m[:, 2]
    inside = ((there >= 0.5) & (there < np.array(b.mask.shape) - 0.5)).all(1) & a.mask.ravel()
    inside &= (places % stride < 1).all(1)
    inside[inside] = b.mask[tuple(there[inside].astype(int).T)]
    p, q = (places[inside] - how[:2]) / how[2], there[inside]
    value, gy, gx = (sampled(stacked[..., k], q) for k in range(3))
    own = a.image.ravel()[inside].astype(np.float64)
    columns = np.array(
        [gy * p[:, 0], gy * p[:, 1], gy, gx * p[:, 0], gx * p[:, 1], gx, own, np.ones(len(p)), value]
    )
    weights = 1 / (1 + np.square((value - 0.4 * own - 0.1) / (2.385 * 0.8)))
    np.testing.assert_allclose(np.triu(gram), np.triu((columns * weights) @ columns.T), rtol=1e-4, atol=1e-2)


def test_bad_input_is_refused() -> None:
    image = tissue(0, (50, 50))
    with pytest.raises(InputError, match="no plane"):
        match(image[None], image)
    with pytest.raises(InputError, match="a mask of"):
        match(image, image, mask_a=np.ones((3, 3), np.bool_))
    everything = np.ones((50, 50), np.bool_)
    with pytest.raises(InputError, match="the same for both"):
        match_levels(levels_of(image, everything, 1), levels_of(image, everything, 2), STILL, 10)


def test_levels_are_even_and_blind_to_what_is_masked() -> None:
    image = tissue(3, (200, 220))
    shade = np.linspace(0.4, 1.6, 220)
    mask = np.ones(image.shape, np.bool_)
    mask[60:90, 40:200] = False
    one = levels_of(image * shade + 500 * shade, mask)
    other = levels_of(np.where(mask, image * shade + 500 * shade, -1e4), mask)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a.image, b.image, atol=2e-2)
        np.testing.assert_array_equal(a.mask, b.mask)
        assert abs(a.image[a.mask].mean()) < 0.1
        left, right = (a.image[:, part][a.mask[:, part]].std() for part in (slice(None, 50), slice(-50, None)))
        assert left / right == pytest.approx(1, abs=0.25)
    assert [level.factor for level in one] == [1, 2]
    assert ndimage.minimum_filter(mask, 5)[one[0].mask].all()
