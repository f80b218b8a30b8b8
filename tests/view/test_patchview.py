"""How a patch is shown: with tissue around that belongs to the picture alone."""

from __future__ import annotations

import io

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.view.patchview import Window, context, context_png, framed, shown_section, window_of

RAW = ArrayVolume(np.random.default_rng(1).integers(1, 255, (5, 30, 24)).astype(np.uint8), Grid((35, 32, 32)))


@given(
    st.tuples(st.integers(-1, 5), st.integers(-40, 40), st.integers(-40, 40)),
    st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    st.integers(0, 9),
)
def test_a_picture_is_the_volume_where_there_is_one(
    start: tuple[int, int, int], shape: tuple[int, int, int], margin: int
) -> None:
    box = Box(start, shape)
    section = shown_section(box)
    values, inside = context(RAW, box, margin, section)
    assert values.shape == inside.shape == (shape[1] + 2 * margin, shape[2] + 2 * margin)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            at = (section, start[1] - margin + y, start[2] - margin + x)
            there = all(0 <= v < n for v, n in zip(at, RAW.info.shape, strict=True))
            assert inside[y, x] == there
            assert values[y, x] == (RAW.array[at] if there else 0)


def test_the_png_is_the_picture() -> None:
    box, window = Box((1, -2, 3), (1, 6, 5)), Window(0, 255)
    picture = iio.imread(io.BytesIO(context_png(RAW, box, 4, 1, window)))
    values, inside = context(RAW, box, 4, 1)
    assert (picture[..., 0] == values).all()
    assert (picture[..., -1] == np.where(inside, 255, 0)).all()


@pytest.mark.parametrize("margin", [0, 1, 2, 7])
def test_a_frame_covers_nothing_of_the_patch(margin: int) -> None:
    box, window = Box((2, 10, 9), (1, 6, 5)), Window(0, 255)
    picture = framed(RAW, box, margin, 2, window)
    inner = picture[margin : margin + 6, margin : margin + 5]
    assert (inner == RAW.read(box)[0, :, :, None]).all()
    coloured = (picture[..., 0] != picture[..., 1]).sum()
    width = min(2, margin)
    assert coloured == (6 + 2 * width) * (5 + 2 * width) - 6 * 5


def test_a_window_is_shared_and_faint_stays_faint() -> None:
    boxes = [Box((z, 0, 0), (1, 30, 24)) for z in range(5)]
    window = window_of(RAW, boxes)
    low, high = np.percentile(RAW.array, [0.3, 99.7])
    assert (window.black, window.white) == pytest.approx((low, high))
    assert np.ptp(window.grey(np.array([100.0, 110.0]))) == pytest.approx(10 / (high - low) * 255, abs=1)
    flat = window_of(ArrayVolume(np.full((1, 4, 4), 7, np.uint16), RAW.grid), [Box((0, 0, 0), (1, 4, 4))])
    assert flat.grey(np.array([7])) == 128
    empty = window_of(ArrayVolume(np.full((1, 4, 4), np.nan, np.float32), RAW.grid), [Box((0, 0, 0), (1, 4, 4))])
    assert empty.grey(np.array([np.nan])) == 0
