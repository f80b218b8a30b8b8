"""Pasting fills, and pieces laid by the house: as the maps say, nothing added up, nothing darkened by the gap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage import transform

from emloom.errors import InputError
from emloom.geometry.planar import Affine, Pieces, Shift
from emloom.ops.feather import feather_weights, feathered
from tests.ops.torn import centres, laid, sampled

SHAPE = (120, 140)


def halves(gap: int = 12) -> NDArray[np.uint8]:
    parts = np.zeros(SHAPE, np.uint8)
    parts[:, : 70 - gap // 2], parts[:, 70 + gap // 2 :] = 1, 2
    return parts


def smooth(seed: int) -> NDArray[np.float64]:
    image = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 8)
    return 128 + 60 * image / np.abs(image).max()


affines = st.builds(
    lambda a, t: Affine(((1 + a[0], a[1], t[0]), (a[2], 1 + a[3], t[1]))),
    st.tuples(*[st.floats(-0.05, 0.05)] * 4),
    st.tuples(*[st.floats(-9, 9)] * 2),
)


@given(st.integers(0, 1000), affines, affines)
@settings(max_examples=25)
def test_there_and_back_is_within_a_grey_level_away_from_the_seam(seed: int, one: Affine, two: Affine) -> None:
    image, pieces = smooth(seed), Pieces(halves(), (one, two))
    there, shown = laid(np.rint(image).astype(np.uint8), pieces)
    # Which part a pixel shows is what the map itself says.
    places = centres(SHAPE)
    source = pieces.inverse()(places)
    np.testing.assert_array_equal(shown.ravel(), pieces.part_of(source))
    assert (there.ravel()[shown.ravel() == 0] == 0).all()
    # Back: by scipy, from pixels that show nothing but their own part, all around.
    inner = np.where(ndimage.maximum_filter(shown, 3) == ndimage.minimum_filter(shown, 3), shown, 0).ravel()
    target = pieces(places)
    inside = ((target > 1) & (target < np.array(SHAPE) - 1)).all(1)
    at = np.floor(np.where(inside[:, None], target, 0)).astype(int)
    inside &= inner.reshape(SHAPE)[tuple(at.T)] == pieces.parts.ravel()
    inside &= pieces.parts.ravel() > 0
    back = sampled(there, target[inside])
    assert np.abs(back - image.ravel()[inside]).max() < 1.3, "half a level of rounding twice, and the bend"
    assert np.abs(back - image.ravel()[inside]).mean() < 0.5


@given(st.integers(0, 1000), affines)
@settings(max_examples=15)
def test_skimage_warps_one_piece_the_same(seed: int, move: Affine) -> None:
    image = smooth(seed)
    there, shown = laid(image, Pieces(np.ones(SHAPE, np.uint8), (move,)))
    m = np.eye(3)
    m[:2] = move.inverse().matrix
    flip = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]])
    half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])
    judge = transform.warp(image, np.linalg.inv(half) @ flip @ m @ flip @ half, order=1, mode="edge")
    np.testing.assert_allclose(there[shown > 0], judge[shown > 0], atol=1e-6)


def test_parts_on_each_other_are_not_added_and_the_first_is_on_top() -> None:
    section = np.where(halves() == 1, 200, 250).astype(np.uint8)
    there, shown = laid(section, Pieces(halves(), (Shift(0, 20), Shift(0, -20))))
    assert set(np.unique(there)) <= {0, 200, 250}
    assert (there[:, 40:84] == 200).all()
    assert (shown[:, 40:84] == 1).all()


def test_the_gap_darkens_no_edge_and_whole_shifts_copy() -> None:
    section = np.where(halves() > 0, 37, 0).astype(np.uint16)
    there, shown = laid(
        section, Pieces(halves(), (Affine(((0.97, 0.02, 3.3), (0.01, 0.96, 2.2))), Shift(0.5, 0.5)))
    )
    assert (there[shown > 0] == 37).all()
    noise = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    there, shown = laid(noise, Pieces(halves(), (Shift(3, -4), Shift(-2, 6))))
    np.testing.assert_array_equal(there[3:, :60], noise[:-3, 4:64])
    np.testing.assert_array_equal(there[:-2, 82:], noise[2:, 76:-6])


@given(st.integers(0, 1000), st.floats(0, 12), st.sampled_from([np.uint8, np.int16, np.float32]))
@settings(max_examples=25)
def test_a_fill_fades_and_leaves_the_rest_alone(seed: int, feather: float, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    gap = ndimage.gaussian_filter(rng.normal(size=SHAPE), 6) > 0.06
    section, fill = (rng.integers(0, 255, SHAPE).astype(dtype) for _ in range(2))
    out, weights = feathered(section, fill, gap, feather), feather_weights(gap, feather)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out[gap], fill[gap])
    np.testing.assert_array_equal(out[weights == 0], section[weights == 0])
    low, high = np.minimum(section, fill), np.maximum(section, fill)
    assert ((out >= low) & (out <= high)).all()
    away = ndimage.distance_transform_edt(~gap) if gap.any() else np.full(SHAPE, np.inf)
    np.testing.assert_array_equal(weights > 0, away < feather + 1)
    order = np.argsort(away, axis=None)
    assert (np.diff(weights.ravel()[order]) <= 0).all(), "the further, the less"


def test_a_fill_is_looked_at_where_it_is_needed_only() -> None:
    gap = np.zeros((20, 20), np.bool_)
    gap[:, 8:12] = True
    section, fill = np.full((20, 20), 10.0), np.full((20, 20), np.nan)
    section[gap] = np.nan
    fill[:, 5:15] = 20
    out = feathered(section, fill, gap, 2)
    np.testing.assert_allclose(out[3, 4:13], [10, 10, 10 + 10 / 3, 10 + 20 / 3, 20, 20, 20, 20, 10 + 20 / 3])
    with pytest.raises(InputError, match="not finite"):
        feathered(section, fill, gap, 6)
    with pytest.raises(InputError, match="differ"):
        feathered(section, fill[:5], gap, 2)
    with pytest.raises(InputError, match="feather of -1"):
        feathered(section, fill, gap, -1)
    with pytest.raises(InputError, match="no mask"):
        feathered(section, fill, gap.astype(int), 1)
