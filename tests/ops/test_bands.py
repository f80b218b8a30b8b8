"""Bands and seams: cracks and folds are found, biology and margins are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from emloom.ops.bands import Edges, band_spectrum, bands, cracks, lone_bands, seams, standardised, strangers

INNER = Edges(top=False, bottom=False, left=False, right=False)


def strip(shape: tuple[int, int], angle: float, width: float) -> NDArray[np.bool_]:
    y, x = np.mgrid[: shape[0], : shape[1]]
    away = (y - shape[0] / 2) * np.cos(angle) - (x - shape[1] / 2) * np.sin(angle)
    out: NDArray[np.bool_] = np.abs(away) <= width / 2
    return out


@given(st.floats(0, np.pi), st.integers(3, 14))
@settings(max_examples=40)
def test_a_strip_at_any_angle_is_a_band_and_a_crack(angle: float, width: int) -> None:
    mask = strip((128, 128), angle, width)
    np.testing.assert_array_equal(bands(mask, 60), mask)
    np.testing.assert_array_equal(cracks(mask, Edges(), 60), mask)


def test_what_is_broad_or_short_is_no_band() -> None:
    y, x = np.mgrid[:128, :128]
    assert not bands((y - 64) ** 2 + (x - 64) ** 2 < 40**2, 10).any()
    assert not bands(y < 60, 10).any(), "a region that is cut by the edge goes on there"
    assert not bands(strip((40, 40), 0.3, 5), 60).any()
    assert not bands(strip((128, 128), 0.3, 3), 60, least_width=6).any()
    assert not bands(np.zeros((8, 8), np.bool_), 1).any()


def test_a_margin_is_no_crack() -> None:
    margin = np.zeros((128, 128), np.bool_)
    margin[-6:] = True
    assert not cracks(margin, Edges(), 60).any()
    assert cracks(margin, INNER, 60).any(), "inside the volume a strip along a patch is as good as any"
    both = margin | strip((128, 128), 1.2, 8)
    assert cracks(both, INNER, 60).any()


def test_void_that_is_black_tissue_is_in_the_neighbours_too() -> None:
    mask = strip((64, 64), 0.5, 6)
    black, plain = np.where(mask, -2.0, 0.0), np.zeros((64, 64))
    assert not strangers(mask, -2.5, [black, black]).any()
    np.testing.assert_array_equal(strangers(mask, -2.5, [black, plain]), mask)
    np.testing.assert_array_equal(strangers(mask, -2.5, []), mask)
    np.testing.assert_array_equal(strangers(mask, 0.3, [black, black]), mask)


def tissue(seed: int) -> list[NDArray[np.float64]]:
    """Return three sections that have something in common."""
    rng = np.random.default_rng(seed)
    shared = ndimage.gaussian_filter(rng.normal(size=(128, 128)), 2)
    own = [shared / shared.std() + ndimage.gaussian_filter(rng.normal(size=(128, 128)), 1) * 2 for _ in range(3)]
    return [image / image.std() for image in own]


def found(images: list[NDArray[np.float64]]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    before, here, after = images
    spectra = (band_spectrum(here, 30), band_spectrum(before, 30), band_spectrum(after, 30))
    return lone_bands(here, spectra, 30)


@given(st.integers(0, 10_000), st.floats(0, np.pi))
@settings(max_examples=25)
def test_a_band_of_one_section_is_a_fold_or_a_crack_and_one_of_all_is_tissue(seed: int, angle: float) -> None:
    images, mask = tissue(seed), strip((128, 128), angle, 6)
    assert not any(part.any() for part in found(images))
    for change, which in ((-2.0, 1), (2.5, 0)):
        planted = [images[0], images[1] + change * mask, images[2]]
        seen = found(planted)
        assert not seen[1 - which].any()
        assert (seen[which] & mask).sum() > 0.7 * mask.sum()
        assert (seen[which] & ~ndimage.binary_dilation(mask, iterations=5)).sum() < 0.1 * mask.sum()
        assert not any(part.any() for part in found([image + change * mask for image in images]))
    flat = np.where(mask, -4.0, images[1])
    crack, fold = found([images[0], flat, images[2]])
    assert (crack & mask).any(), "black and flat: nothing is there"
    assert not fold.any()


def strips(seed: int, parts: int = 8) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return ndimage.gaussian_filter1d(rng.normal(size=(parts, 400)), 3, axis=1) * 30 + rng.normal(size=(parts, 400))


@given(st.integers(0, 10_000), st.integers(20, 380), st.sampled_from([-1, 1]))
@settings(max_examples=40)
def test_a_step_along_all_of_a_line_is_a_seam(seed: int, at: int, sign: int) -> None:
    plain, spread = strips(seed), 10.0
    assert not seams((plain, plain[:2]), spread)
    stepped = plain + sign * 25.0 * (np.arange(400) >= at)
    (seam,) = seams((plain[:2], stepped), spread)
    assert (seam.axis, abs(seam.at - at) <= 1) == (1, True)
    assert seam.step == pytest.approx(sign * 25.0, abs=8)
    (same,) = seams((7 * stepped + 90, plain[:2]), 7 * spread)
    assert (same.axis, same.at) == (0, seam.at)
    half = np.where(np.arange(8)[:, None] < 4, stepped, plain)
    assert not seams((half, plain[:2]), spread), "the edge of an object ends"
    line = plain + 40.0 * (np.arange(400) == at)
    assert not seams((line, plain[:2]), spread), "a bad line does not stay"


def test_cells_are_measured_in_their_own_spread() -> None:
    cells = np.random.default_rng(0).normal(100, 20, (64, 64)).round().astype(np.int64)
    void = np.zeros(cells.shape, np.bool_)
    void[:8] = True
    standard = standardised(cells, void)
    assert not standard[:8].any()
    assert np.std(standard[8:]) == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(standardised(3 * cells + 5, void), standard)
    assert not standardised(np.full((4, 4), 9), np.zeros((4, 4), np.bool_)).any()
