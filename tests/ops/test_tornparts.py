"""Parts of torn sections: planted gaps of any course and grey value are found, holes and margins are no gaps."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from emloom.errors import InputError
from emloom.ops.tornparts import Parts, parts_of

Image = NDArray[np.float64]
Bool = NDArray[np.bool_]
SHAPE = (240, 280)


def tissue(seed: int, shape: tuple[int, int] = SHAPE) -> Image:
    """Return cells with dark membranes, mean 130, spread 30, noise 6."""
    rng = np.random.default_rng(seed)
    fine, coarse = (ndimage.gaussian_filter(rng.normal(size=shape), s) for s in (1.5, 5.0))
    walls = np.exp(-np.square(coarse / coarse.std() / 0.35))
    return 150 - 70 * walls + 10 * fine / fine.std() + rng.normal(size=shape) * 6


def crack(angle: float, width: float, bend: float = 0.0, shape: tuple[int, int] = SHAPE, at: float = 0.0) -> Bool:
    y, x = np.mgrid[: shape[0], : shape[1]]
    y, x = y - shape[0] / 2, x - shape[1] / 2
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    out: Bool = np.abs(across - at - bend * np.square(along / 100)) <= width / 2
    return out


def overlap(a: Bool, b: Bool) -> float:
    return float((a & b).sum() / max(1, (a | b).sum()))


@given(
    st.integers(0, 10_000),
    st.floats(0, np.pi),
    st.floats(14, 40),
    st.floats(-12, 12),
    st.sampled_from(["black", "white", "grey", "dark and noisy", "bright and noisy"]),
)
@settings(max_examples=15)
def test_a_gap_of_any_course_and_grey_value_is_found(
    seed: int, angle: float, width: float, bend: float, how: str
) -> None:
    image, gap = tissue(seed), crack(angle, width, bend)
    noise = np.random.default_rng(seed + 1).normal(size=SHAPE) * 6
    fill = {"black": 0.0, "white": 255.0, "grey": 131.0, "dark and noisy": 20 + noise}.get(how, 235 + noise)
    found = parts_of(np.where(gap, fill, image).clip(0, 255).astype(np.uint8))
    assert found.count == 2, found.notes
    assert overlap(found.gap, gap) > 0.85
    names, count = ndimage.label(~gap)
    for number in (1, 2):
        truth = names == np.argmax(np.bincount(names[found.parts == number], minlength=count + 1))
        assert overlap(found.parts == number, truth) > 0.97
    assert_partition(found)


def assert_partition(found: Parts) -> None:
    assert ((found.parts > 0).astype(int) + found.gap + found.outside == 1).all()
    sizes = np.bincount(found.parts.ravel())[1:]
    assert (np.diff(sizes) <= 0).all()
    for number in range(1, found.count + 1):
        assert ndimage.label(found.parts == number, np.ones((3, 3)))[1] == 1


@given(st.integers(0, 1000), st.sampled_from([np.uint8, np.uint16, np.int16, np.float32]), st.floats(0.5, 60))
@settings(max_examples=10)
def test_the_scale_of_grey_values_does_not_matter(seed: int, dtype: type, gain: float) -> None:
    image = np.where(crack(0.6, 16), 10.0, tissue(seed)).clip(0, 255)
    if dtype != np.uint8:
        image = image * gain
    plain = parts_of(np.where(crack(0.6, 16), 10.0, tissue(seed)).clip(0, 255).astype(np.float32))
    assert (parts_of(image.astype(dtype)).parts == plain.parts).mean() > 0.995


def test_several_cracks_leave_several_parts_and_vignetting_makes_none() -> None:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    shade = 1 - 0.5 * (np.square(y / 120 - 1) + np.square(x / 140 - 1)) / 2
    gaps = crack(1.2, 12, at=50) | crack(1.2, 14, at=-50) | crack(-0.5, 12)
    found = parts_of((np.where(gaps, 6, tissue(3)) * shade).astype(np.uint8))
    assert found.count == ndimage.label(~gaps)[1] == 6
    assert overlap(found.gap, gaps) > 0.85
    assert parts_of((tissue(3) * shade).astype(np.uint8)).count == 1
    assert not parts_of((tissue(3) * shade).astype(np.uint8)).gap.any()


def test_holes_belong_to_their_part_and_canvas_is_outside() -> None:
    image = np.zeros(SHAPE)
    image[20:-10, 15:] = tissue(5)[20:-10, 15:]
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    vessel = np.hypot(y - 120, x - 220) < 14
    image[vessel] = 250
    gap = crack(1.4, 16) & (image > 0)
    image[gap] = 0
    found = parts_of(image.astype(np.uint8))
    assert found.count == 2
    assert (found.parts[vessel] == found.parts[120, 250]).all(), "a vessel is a hole of its part, and filled"
    assert overlap(found.gap, gap) > 0.8
    canvas = np.ones(SHAPE, np.bool_)
    canvas[20:-10, 15:] = False
    assert overlap(found.outside, canvas) > 0.85
    assert_partition(found)


def test_a_crack_that_ends_inside_leaves_one_part_with_a_slit_and_a_bridge_is_torn() -> None:
    image = tissue(7)
    x = np.arange(SHAPE[1])
    slit = crack(0.0, 12) & (x < 150)
    found = parts_of(np.where(slit, 0, image).astype(np.uint8))
    assert found.count == 1
    assert "does not cross" in found.notes[0]
    assert overlap(found.gap, slit) > 0.85
    bridged = crack(0.0, 12) & ~((x > 150) & (x < 154))
    torn = parts_of(np.where(bridged, 0, image).astype(np.uint8))
    assert torn.count == 2
    assert parts_of(np.where(bridged, 0, image).astype(np.uint8), bridge_px=0).count == 1


def test_crumbs_in_the_gap_are_dropped_and_a_threshold_may_be_given() -> None:
    image = tissue(9).clip(80, 255)
    gap = crack(0.9, 40)
    crumb = np.zeros(SHAPE, np.bool_)
    crumb[118:126, 134:142] = True
    torn = np.where(gap & ~crumb, 20.0 + 40 * (np.indices(SHAPE).sum(0) % 2), image).astype(np.uint8)
    found = parts_of(torn, above=70)
    assert found.count == 2
    assert found.gap[crumb].all()
    assert "1 islands" in found.notes[-1]
    np.testing.assert_array_equal(found.gap, gap)


def test_a_region_says_where_a_gap_may_be() -> None:
    dark = crack(0.3, 12, at=60)
    gap = crack(0.3, 12, at=-60)
    image = np.where(dark | gap, 8, tissue(11)).astype(np.uint8)
    assert parts_of(image).count == 3
    inner = parts_of(image, within_YX=ndimage.binary_dilation(gap, iterations=8))
    assert inner.count == 3, "what runs into the border stays void"
    dark[:, :40] = dark[:, -40:] = False
    image = np.where(dark | gap, 8, tissue(11)).astype(np.uint8)
    assert parts_of(image, within_YX=ndimage.binary_dilation(gap, iterations=8)).gap[dark].mean() < 0.05
    assert parts_of(image).gap[dark].mean() > 0.95


def test_what_cannot_be_parted_is_refused() -> None:
    with pytest.raises(InputError, match="missing, not torn"):
        parts_of(np.zeros((50, 50), np.uint8))
    with pytest.raises(InputError, match="no plane"):
        parts_of(np.zeros((2, 50, 50), np.uint8))
    with pytest.raises(InputError, match="least_share=0"):
        parts_of(tissue(0), least_share=0)
    with pytest.raises(InputError, match="the same shape"):
        parts_of(tissue(0), within_YX=np.ones((3, 3), np.bool_))
    with pytest.raises(InputError, match="not finite"):
        parts_of(np.full((50, 50), np.nan))


def test_the_torn_section_of_cremi_has_two_parts(real_data: Path) -> None:
    path = real_data / "artifacts" / "cremi_crack" / "im015_warp0.png"
    if not path.is_file():
        pytest.skip(f"no torn section at {path}")
    image = imageio.imread(path)
    found = parts_of(image)
    assert found.count == 2
    assert found.shares == pytest.approx((0.650, 0.2505), abs=0.002)
    assert found.gap.mean() == pytest.approx(0.094, abs=0.002)
    assert_partition(found)
    assert found.outside[-10:, 1300:].mean() > 0.9, "the black triangle below the right part is canvas"
    assert found.gap[-10:-2, 920:1040].all(), "the crack goes on to the border"
    assert found.outside[:12, :20].all()
    assert (image[found.gap] < 70).mean() > 0.99
    known = parts_of(image, above=70)
    assert known.count == 2
    assert (known.parts == found.parts).mean() > 0.995
