"""Patch flow: planted displacements come back to a part of a pixel; from where nothing was seen nothing comes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from emloom.errors import InputError
from emloom.geometry.planar import Affine, PlanarMap, Shift
from emloom.ops.flowpeaks import median_faults, peaks
from emloom.ops.flowtexture import measured, texture
from emloom.ops.patchflow import Flow, NodeState, Patches, patch_flow
from tests.ops.bentstack import planted_affine, planted_field, seen_through

SMALL = Patches(size=64, step=32, search=12)


def tissue(seed: int, side: int = 256) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(size=(side, side))
    smooth = ndimage.gaussian_filter(noise, 2.5)
    return np.clip(128 + 40 * smooth / smooth.std(), 1, 255).astype(np.uint8)


def error(flow: Flow, truth: PlanarMap) -> NDArray[np.float64]:
    p = flow.places[flow.valid]
    out: NDArray[np.float64] = np.hypot(*(p + flow.moves[flow.valid] - truth(p)).T)
    return out


def inside(flow: Flow, shape: tuple[int, ...], away: int) -> Flow:
    """Return the flow without patches that come nearer to the rim of the section than `away` pixels."""
    reach = SMALL.size / 2 + away
    inner = ((flow.places >= reach) & (flow.places <= np.array(shape) - reach)).all(axis=-1)
    return replace(flow, verdict=np.where(inner, flow.verdict, NodeState.EMPTY))


@pytest.mark.parametrize("shape", [(256, 256), (100, 230)])
def test_a_section_lies_on_itself(shape: tuple[int, int]) -> None:
    one = texture(tissue(0)[: shape[0], : shape[1]])
    flow = patch_flow(one, one, patches=SMALL)
    assert flow.valid.all()
    assert np.abs(flow.moves).max() < 0.02
    np.testing.assert_allclose(flow.score, 1, atol=1e-4)
    assert flow.places.min() > 0
    assert (flow.places.reshape(-1, 2).max(0) < shape).all()


@given(st.integers(0, 1000), st.floats(-9, 9), st.floats(-9, 9), st.floats(0, 20))
@settings(max_examples=8)
def test_planted_shifts_come_back(seed: int, y: float, x: float, noise: float) -> None:
    a, rng = tissue(seed), np.random.default_rng(seed + 5000)
    truth = Shift(y, x)
    b = seen_through(a, truth.inverse()) * 0.5 + 60 + noise * rng.normal(size=a.shape)
    known = ndimage.binary_erosion(measured(seen_through(a, truth.inverse())), iterations=2)
    flow = patch_flow(texture(a), texture(b, known), patches=SMALL)
    assert flow.valid.mean() > 0.8
    assert np.median(error(flow, truth)) < 0.12
    # Patches over the rim see less tissue: half a pixel off at times. Those wholly inside do not care.
    assert np.percentile(error(flow, truth), 95) < 0.7
    assert np.percentile(error(inside(flow, a.shape, 16), truth), 95) < 0.2


def test_it_says_what_another_library_says() -> None:
    a, truth = tissue(5), Shift(4.3, -6.7)
    b = seen_through(a, truth.inverse())
    flow = patch_flow(texture(a), texture(b), patches=SMALL)
    inner = (slice(64, 192), slice(64, 192))
    back, *_ = phase_cross_correlation(a[inner], b[inner], upsample_factor=50, normalization=None)
    np.testing.assert_allclose(np.median(flow.moves[flow.valid], axis=0), -back, atol=0.2)


@pytest.mark.parametrize("kind", ["affine", "field"])
def test_what_bends_is_followed_and_the_better_from_a_good_start(kind: str) -> None:
    rng, a = np.random.default_rng(3), tissue(3, 384)
    truth = planted_affine(rng, 384) if kind == "affine" else planted_field(rng, 384, 8.0)
    b = seen_through(a, truth.inverse())
    blind = patch_flow(texture(a), texture(b), patches=Patches(size=64, step=32, search=24))
    seeing = patch_flow(texture(a), texture(b), truth, SMALL)
    assert np.median(error(blind, truth)) < 0.3
    assert np.percentile(error(seeing, truth), 95) < 0.15
    assert seeing.valid.mean() > 0.9


def test_small_images_speak_of_full_resolution() -> None:
    a, truth = ndimage.zoom(tissue(7, 300), 2, order=1), Shift(30.0, -17.0)
    b = seen_through(a, truth.inverse())
    small = [texture(ndimage.uniform_filter(v, 2)[1::2, 1::2], factor=2) for v in (a, b)]
    flow = patch_flow(small[0], small[1], patches=Patches(size=64, step=32, search=24))
    assert flow.places.max() > 500
    assert np.percentile(error(flow, truth), 95) < 0.3
    again = patch_flow(small[0], small[1], Affine.of([[1, 0, 29.0], [0, 1, -15.0]]), SMALL)
    assert np.percentile(error(again, truth), 95) < 0.3


def test_what_is_blank_in_both_does_not_attract() -> None:
    """A black border and a black bar stay where they are while tissue moves by 7 pixels."""
    wide, truth = tissue(1, 300), Shift(7.0, -5.0)
    a, b = wide[20:276, 20:276].copy(), wide[13:269, 25:281].copy()
    for image in (a, b):
        image[:30] = 0
        image[:, 120:150] = 0
        image[:, -20:] = 255
    flow = patch_flow(texture(a), texture(b), patches=SMALL)
    assert flow.valid.mean() > 0.5
    assert error(flow, truth).max() < 0.5
    careless = np.ones(a.shape, bool)
    naive = patch_flow(texture(a, careless), texture(b, careless), patches=SMALL)
    assert error(naive, truth).max() > 2  # unmasked, the bar holds on to itself


def test_empty_sections_and_strangers_say_nothing() -> None:
    a = texture(tissue(2))
    for blank in (np.zeros((256, 256), np.uint8), np.full((256, 256), np.nan)):
        for flow in (patch_flow(a, texture(blank), patches=SMALL), patch_flow(texture(blank), a, patches=SMALL)):
            assert (flow.verdict == NodeState.EMPTY).all()
            assert np.isnan(flow.moves).all()
    assert (patch_flow(a, a, Shift(500, 0), SMALL).verdict == NodeState.EMPTY).all()
    strangers = [patch_flow(a, texture(tissue(seed)), patches=SMALL).valid.mean() for seed in range(3, 9)]
    assert np.mean(strangers) < 0.05


def test_stripes_are_not_followed_along_themselves() -> None:
    line = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=256), 2)
    stripes = texture(np.broadcast_to(line[:, None] * 100, (256, 256)) + 1e-3 * tissue(1))
    assert not patch_flow(stripes, stripes, patches=SMALL).valid.any()


@given(st.floats(-1.4, 1.4), st.floats(-1.4, 1.4))
def test_a_paraboloid_has_its_peak_where_it_has(y: float, x: float) -> None:
    v, u = np.mgrid[-4:5, -4:5]
    surface = (1 - 0.02 * (v - y) ** 2 - 0.03 * (u - x) ** 2 + 0.01 * (v - y) * (u - x)).astype(np.float32)
    found = peaks(surface[None], 3)[0]
    np.testing.assert_allclose(found[:2], (y, x), atol=1e-3)
    bend = -np.linalg.eigvalsh([[-0.04, 0.01], [0.01, -0.06]]).max()
    np.testing.assert_allclose(found[4] * found[2], bend, rtol=1e-2)
    top = np.unravel_index(np.argmax(surface), surface.shape)
    far = np.hypot(v + 4 - top[0], u + 4 - top[1]) >= 3
    assert found[3] <= surface[far].max() + 1e-6 or found[3] == 0


@given(st.integers(0, 1000))
def test_only_those_unlike_their_neighbours_are_faults(seed: int) -> None:
    """Linear fields have none, however steep."""
    rng = np.random.default_rng(seed)
    j, i = np.mgrid[:10, :9]
    moves = np.stack([j, i], -1) @ rng.uniform(-0.8, 0.8, (2, 2)) + rng.normal(0, 0.1, (10, 9, 2))
    valid = np.ones((10, 9), bool)
    assert not median_faults(moves, valid, 4.0, 5.0).any()
    at = (rng.integers(2, 8), rng.integers(2, 7))
    moves[at] += 8 * np.array([np.cos(seed), np.sin(seed)])
    assert median_faults(moves, valid, 4.0, 5.0)[at]
    lonely = np.zeros((10, 9), bool)
    lonely[at] = True
    assert median_faults(moves, lonely, 4.0, 5.0)[at]


def test_bad_input_is_named() -> None:
    a = tissue(0)
    holed: NDArray[Any] = a.astype(float)
    holed[5, 5] = np.nan
    with pytest.raises(InputError, match="not finite"):
        texture(holed, np.ones(a.shape, bool))
    assert patch_flow(texture(holed), texture(a), patches=SMALL).valid.mean() > 0.9
    with pytest.raises(InputError, match="do not fit into a section of 256 x 256 px"):
        patch_flow(texture(a), texture(a), patches=Patches(size=300))
    with pytest.raises(InputError, match="1 and 2 times"):
        patch_flow(texture(a), texture(a, factor=2), patches=SMALL)
    with pytest.raises(InputError, match="mask of"):
        texture(a, np.ones((3, 3), bool))
    with pytest.raises(InputError, match="give numbers"):
        texture(np.zeros((2, 2, 2)))
    with pytest.raises(InputError, match="at least 1 px"):
        Patches(step=0)
