"""Displacements of sections: planted ones come back, masks and borders attract nothing, strangers stay unknown."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from emloom.errors import InputError
from emloom.ops.fullresolution import refine
from emloom.ops.preparedsections import VOID, Prepared, factors_for, prepare
from emloom.ops.sectionshifts import UNKNOWN, Link, known_links, link, pairs, section_shift

F64 = NDArray[np.float64]


@lru_cache(maxsize=32)
def tissue(seed: int, side: int) -> F64:
    """Membranes around cells: the borders of a mosaic, at two scales, blurred."""
    rng = np.random.default_rng(seed)
    out = np.zeros((side, side))
    for scale, weight in ((12, 1.0), (4, 0.4)):
        noise = ndimage.gaussian_filter(rng.normal(size=(side, side)), scale, mode="wrap")
        out += weight * np.exp(-np.abs(noise / noise.std()) * 4)
    out = ndimage.gaussian_filter(out, 1.0, mode="wrap")
    return (out - out.mean()) / out.std()


@lru_cache(maxsize=32)
def spectrum(seed: int, side: int) -> NDArray[np.complex128]:
    return np.asarray(np.fft.rfft2(tissue(seed, side)))


def elsewhere(seed: int, side: int, dy: float, dx: float) -> F64:
    """Tissue moved by a fraction of a pixel, by Fourier; what leaves it comes back at the other side."""
    turn = np.exp(-2j * np.pi * np.fft.fftfreq(side) * dy)[:, None] * np.exp(
        -2j * np.pi * np.fft.rfftfreq(side) * dx
    )
    return np.asarray(np.fft.irfft2(spectrum(seed, side) * turn, s=(side, side)))


def seen(seed: int, at: tuple[float, float], side: int = 256, noise: float = 0.5) -> F64:
    """A section with its content moved, with noise that no other one has; what leaves it is gone."""
    rng = np.random.default_rng([seed, *np.abs(np.round(np.multiply(at, 1000))).astype(int)])
    own = ndimage.gaussian_filter(rng.normal(size=(side, side)), 2)
    wide = elsewhere(seed, 2 * side, *at)[side // 2 : -(side // 2), side // 2 : -(side // 2)]
    return 128 + 30 * (wide + noise * own / own.std() + 0.2 * rng.normal(size=(side, side)))


@given(st.integers(0, 3), st.floats(-60, 60), st.floats(-60, 60), st.sampled_from(["u1", "u2", "i4", "f4", "f8"]))
@settings(max_examples=15)
def test_planted_shifts_come_back(seed: int, dy: float, dx: float, dtype: str) -> None:
    a, b = seen(seed, (0, 0)), seen(seed, (dy, dx))
    if dtype[0] == "f":
        b = b * 1e-3 + 5  # grey levels of another microscope
    else:
        a, b = np.round(a).clip(0, 255), np.round(b).clip(0, 255)
    found = section_shift(a.astype(dtype), b.astype(dtype))
    assert found.is_known
    np.testing.assert_allclose(found.shift, (dy, dx), atol=0.25)
    back = section_shift(b.astype(dtype), a.astype(dtype))
    np.testing.assert_allclose(np.add(found.shift, back.shift), 0, atol=0.05)


@given(st.integers(0, 3), st.floats(-0.6, 0.6), st.floats(-0.3, 0.3), st.booleans())
@settings(max_examples=12)
def test_shifts_of_more_than_half_a_section_are_found(seed: int, far: float, near: float, turn: bool) -> None:
    side = 384
    shift = (far * side, near * side) if turn else (near * side, far * side)
    a, b = seen(seed, (0, 0), side, 0.3), seen(seed, shift, side, 0.3)
    found = section_shift(a, b)
    assert found.is_known
    np.testing.assert_allclose(found.shift, shift, atol=0.5)
    assert found.overlap == pytest.approx((1 - abs(far)) * (1 - abs(near)), abs=0.05)


def test_its_own_error_is_about_right() -> None:
    rng = np.random.default_rng(0)
    wrong, said = [], []
    for seed in range(5):
        for noise in (0.5, 1.5):
            at = tuple(rng.uniform(-20, 20, 2).tolist())
            found = section_shift(seen(seed, (0, 0), noise=noise), seen(seed, at, noise=noise))
            assert found.is_known
            wrong += np.subtract(found.shift, at).tolist()
            said += [found.error] * 2
    ratio = np.abs(wrong) / said
    assert 0.3 < np.median(ratio) / 0.67 < 3  # the median of a normal distance is 0.67


def test_black_borders_cracks_and_masks_at_fixed_places_attract_nothing() -> None:
    for seed, (dy, dx) in enumerate([(17.3, -9.6), (-30.5, 22.2), (4.4, 3.1)]):
        images, masks = [], []
        for at in ((0.0, 0.0), (dy, dx)):
            image = np.round(seen(seed, at, 384)).clip(1, 255)
            image[:, :50] = image[-30:] = 0  # padding
            image[100:130, 150:] = 255  # saturated
            image[200:300, 60:120] = 0  # a hole
            dirt = np.zeros(image.shape, bool)
            dirt[250:330, 200:320] = True  # what the caller knows: structure that stays where it is
            image[dirt] = np.random.default_rng(7).integers(0, 255, image.shape)[dirt]
            images.append(image.astype(np.uint8))
            masks.append(~dirt)
        a, b = (prepare(i, m) for i, m in zip(images, masks, strict=True))
        found = link(a, b)
        assert found.is_known
        np.testing.assert_allclose(found.shift, (dy, dx), atol=0.4)
        assert (a.fine[:, :48] == VOID).all()
        assert (a.fine[210:290, 70:110] == VOID).all()
        assert (a.coarse[260 // 2 : 320 // 2, 210 // 2 : 310 // 2] == VOID).all()


def test_strangers_stay_strangers_even_with_the_same_borders() -> None:
    found = []
    for seed in range(8):
        a, b = np.round(seen(seed, (0, 0), 192)), np.round(seen(seed + 100, (0, 0), 192))
        for image in (a, b):
            image[:, :30] = image[:, -30:] = image[60:80] = 0
        found.append(section_shift(a.clip(0, 255).astype(np.uint8), b.clip(0, 255).astype(np.uint8)))
    assert not any(one.is_known for one in found)


@pytest.mark.parametrize("kind", ["constant", "black", "noise", "nan", "masked", "moved away", "inverted"])
def test_what_cannot_be_known_is_unknown(kind: str) -> None:
    a = seen(0, (0, 0))
    rng = np.random.default_rng(1)
    b: dict[str, Any] = {
        "constant": np.full_like(a, 77.0),
        "black": np.zeros(a.shape, np.uint8),
        "noise": rng.normal(128, 30, a.shape),
        "nan": np.full_like(a, np.nan),
        "masked": seen(0, (3, 2)),
        "moved away": elsewhere(0, 512, 250, 250)[128:-128, 128:-128],  # no overlap
        "inverted": 255 - seen(0, (3, 2)),
    }
    other = prepare(b[kind], np.zeros(a.shape, bool) if kind == "masked" else None)
    found = link(prepare(a), other)
    assert not found.is_known
    if kind in ("constant", "black", "nan", "masked"):
        assert (other.usable, other.contrast) == (0, 0)
        assert link(other, other) == UNKNOWN


def test_some_values_that_are_no_numbers_do_no_harm() -> None:
    a, b = seen(0, (0, 0)), seen(0, (5.5, -7.25))
    b[40:90, 100:200], b[3, 3] = np.nan, np.inf
    np.testing.assert_allclose(section_shift(a, b).shift, (5.5, -7.25), atol=0.3)


def test_faint_sections_are_found_all_the_same() -> None:
    a, b = seen(0, (0, 0)), seen(0, (5.5, -7.25))
    found = section_shift(a.astype(np.uint8), np.round(120 + (b - 128) / 10).astype(np.uint8))
    np.testing.assert_allclose(found.shift, (5.5, -7.25), atol=0.3)


def test_small_sections_work_or_say_so() -> None:
    for seed in range(8):
        found = section_shift(seen(seed, (0, 0), 64, 0.3), seen(seed, (4.5, -3.0), 64, 0.3))
        assert not found.is_known or np.abs(np.subtract(found.shift, (4.5, -3.0))).max() < 1
    strangers = [section_shift(seen(s, (0, 0), 64), seen(s + 50, (0, 0), 64)) for s in range(20)]
    assert sum(one.is_known for one in strangers) <= 1
    with pytest.raises(InputError, match="at least 32 x 32"):
        prepare(np.zeros((31, 64)))


def test_oblong_sections_and_sides_that_are_no_multiples() -> None:
    wide = tissue(3, 1400)
    a, b = wide[:301, :1237], elsewhere(3, 1400, 7.5, -40.25)[:301, :1237]
    assert factors_for(a.shape) == (2, 4)
    np.testing.assert_allclose(section_shift(a, b).shift, (7.5, -40.25), atol=0.3)


@given(st.integers(1, 40_000), st.integers(1, 40_000))
def test_what_is_kept_of_a_section_is_small(rows: int, columns: int) -> None:
    fine, coarse = factors_for((rows, columns))
    assert coarse % fine == 0
    assert max(rows, columns) // fine <= 2048
    assert max(rows, columns) // coarse <= 512


def test_prepared_sections_go_through_a_file(tmp_path: Path) -> None:
    a, b = prepare(seen(1, (0, 0))), prepare(seen(1, (2, 3)))
    np.savez(tmp_path / "a.npz", **a.arrays())
    with np.load(tmp_path / "a.npz") as arrays:
        again = Prepared.of(arrays)
    assert link(again, b) == link(a, b)
    assert (again.shape, again.factors, again.detail) == (a.shape, a.factors, a.detail)


def test_blur_takes_detail_away_and_contrast_is_in_grey_levels() -> None:
    sharp = seen(2, (0, 0))
    blurred, faint = prepare(ndimage.gaussian_filter(sharp, 4)), prepare(sharp / 5)
    assert blurred.detail < 0.5 * prepare(sharp).detail
    assert faint.contrast == pytest.approx(prepare(sharp).contrast / 5, rel=1e-3)


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="mask of shape"):
        prepare(np.zeros((64, 64)), np.ones((64, 32), bool))
    with pytest.raises(InputError, match="complex128"):
        prepare(np.zeros((64, 64), complex))
    with pytest.raises(InputError, match="pad them"):
        link(prepare(seen(0, (0, 0), 64)), prepare(seen(0, (0, 0), 128)))
    with pytest.raises(InputError, match="lags"):
        pairs(5, (0, 1))
    with pytest.raises(InputError, match="references"):
        pairs(5, (1,), (5,))


def test_pairs_are_neighbours_and_references_once_each() -> None:
    assert pairs(1) == []
    assert pairs(4, (1, 2), (0,)) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    links, correlation = known_links([(0, 1), (1, 2)], [section_shift(seen(0, (0, 0)), seen(0, (2, 1))), UNKNOWN])
    assert (links.first.tolist(), links.second.tolist()) == ([0], [1])
    assert correlation[0] > 0.3


def test_as_phase_correlation_of_scikit_image_on_ordinary_pairs_and_nearer_to_the_truth() -> None:
    at, mine, theirs = (6.3, -4.7), [], []
    for seed in range(4):
        a, b = seen(seed, (0, 0), noise=0.2), seen(seed, at, noise=0.2)
        mine.append(section_shift(a, b).shift)
        theirs.append(-phase_cross_correlation(a, b, upsample_factor=20)[0])
        np.testing.assert_allclose(mine[-1], theirs[-1], atol=0.6)
    assert np.abs(np.subtract(mine, at)).mean() <= np.abs(np.subtract(theirs, at)).mean()


# ---- full resolution ------------------------------------------------------------------------------------------

SIDE = 1400


class Reader:
    """Reads parts of a section, and complains about places outside of it."""

    def __init__(self, image: F64) -> None:
        self.image, self.asked = image, 0

    def __call__(self, y0: int, y1: int, x0: int, x1: int) -> F64:
        assert 0 <= y0 < y1 <= SIDE
        assert 0 <= x0 < x1 <= SIDE
        self.asked += (y1 - y0) * (x1 - x0)
        return self.image[y0:y1, x0:x1]


def rough(dy: float, dx: float) -> Link:
    return Link((dy, dx), 2.0, 0.5, 20.0, 0.9, True)


def test_full_resolution_makes_a_link_precise_though_some_tiles_are_wrong() -> None:
    rng = np.random.default_rng(0)
    for at in ((3.3, -2.7), (-120.4, 340.8)):
        a, b = (i + 0.3 * rng.normal(size=i.shape) for i in (tissue(5, SIDE), elsewhere(5, SIDE, *at)))
        b[:500, :500] = tissue(6, SIDE)[:500, :500]  # torn out, and other tissue in its place
        one, other = Reader(a), Reader(b)
        found = refine(rough(at[0] + 2.2, at[1] - 1.8), (SIDE, SIDE), one, other, side=256)
        np.testing.assert_allclose(found.shift, at, atol=0.1)
        assert found.error < 0.1
        assert one.asked == other.asked == 9 * 256**2


def test_full_resolution_that_knows_nothing_changes_nothing() -> None:
    blank, some = Reader(np.zeros((SIDE, SIDE))), Reader(tissue(5, SIDE))
    assert refine(rough(3, 2), (SIDE, SIDE), some, blank) == rough(3, 2)
    assert refine(rough(1380, 2), (SIDE, SIDE), some, some) == rough(1380, 2)
    asked = some.asked
    assert refine(UNKNOWN, (SIDE, SIDE), some, some) is UNKNOWN
    assert some.asked == asked
    for tiles, side in ((1, 512), (3, 32), (3, 2048)):
        with pytest.raises(InputError, match="64 to 1024"):
            refine(rough(3, 2), (SIDE, SIDE), some, some, tiles=tiles, side=side)
