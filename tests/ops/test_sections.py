"""Sums of sections: as a slow version counts them, and the same for any parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops import sections
from emloom.ops.sections import LAGS, VOID_VOX, VOXEL_SUMS

TILE = 16


@st.composite
def section(draw: st.DrawFn) -> NDArray[Any]:
    """Draw a section of some type and shape, with void in it."""
    dtype = draw(st.sampled_from([np.uint8, np.int8, np.uint16, np.int16]))
    shape = draw(st.tuples(st.integers(1, 50), st.integers(1, 50)))
    rng, limits = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), np.iinfo(dtype)
    out = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    y, x = rng.integers(0, 40, 2)
    out[y : y + rng.integers(30), x : x + rng.integers(30)] = rng.choice([limits.min, limits.max, 3])
    return out


def slow_sums(tile_YX: NDArray[Any], hidden_YX: NDArray[np.bool_]) -> list[int]:
    """Return `VOXEL_SUMS` of one tile, pair by pair."""
    wide, limits = tile_YX.astype(object), np.iinfo(tile_YX.dtype)
    out = [
        wide.size,
        wide.sum(),
        (wide**2).sum(),
        np.isin(tile_YX, [limits.min, limits.max]).sum(),
        hidden_YX.sum(),
    ]
    for lag in LAGS:
        steps = [*(wide[lag:] - wide[:-lag]).ravel(), *(wide[:, lag:] - wide[:, :-lag]).ravel()]
        out += [len(steps), sum(step**2 for step in steps)]
    return [int(value) for value in out]


def hidden(grey: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which voxels lie in void windows, window by window."""
    out = np.zeros(grey.shape, np.bool_)
    for y in range(0, grey.shape[0], VOID_VOX):
        for x in range(0, grey.shape[1], VOID_VOX):
            window = grey[y : y + VOID_VOX, x : x + VOID_VOX]
            out[y : y + VOID_VOX, x : x + VOID_VOX] = min(window.shape) > 1 and (window == window[0, 0]).all()
    return out


@given(section())
@settings(max_examples=60)
def test_sums_of_tiles_are_those_of_their_voxels(grey: NDArray[Any]) -> None:
    void, lost = sections.void_windows(grey), hidden(grey)
    np.testing.assert_array_equal(void.repeat(4, 0).repeat(4, 1)[: grey.shape[0], : grey.shape[1]], lost)
    sums = sections.voxel_sums(grey, void, TILE)
    for i, j in np.ndindex(sums.shape[:2]):
        place = np.s_[i * TILE : (i + 1) * TILE, j * TILE : (j + 1) * TILE]
        assert sums[i, j].tolist() == slow_sums(grey[place], lost[place])
    values, levels = sections.level_values(grey.dtype), sections.count_levels(grey, void)
    own = np.searchsorted(values, grey[~lost].astype(np.int64), side="right") - 1
    np.testing.assert_array_equal(levels, np.bincount(own, minlength=len(values)))


@given(section(), st.integers(1, 3), st.integers(1, 3))
@settings(max_examples=30)
def test_parts_cut_along_the_lattice_are_parts_of_the_whole(grey: NDArray[Any], y: int, x: int) -> None:
    whole = sections.voxel_sums(grey, sections.void_windows(grey), TILE)
    rows = []
    for part in np.split(grey, [y * TILE], axis=0):
        columns = [p for p in np.split(part, [x * TILE], axis=1) if p.size]
        if columns:
            found = [sections.voxel_sums(p, sections.void_windows(p), TILE) for p in columns]
            rows.append(np.concatenate(found, axis=1))
    np.testing.assert_array_equal(np.concatenate(rows), whole)


@given(st.integers(0, 2**32 - 1), st.integers(2, 9), st.integers(-300, 300))
@settings(max_examples=30)
def test_sharpness_does_not_see_brightness_contrast_or_noise(seed: int, times: int, more: int) -> None:
    rng = np.random.default_rng(seed)
    grey = np.cumsum(rng.integers(-3, 4, (64, 64)), axis=1).astype(np.int16)

    def variogram(image: NDArray[Any]) -> tuple[float, float]:
        sums = dict(
            zip(VOXEL_SUMS, sections.voxel_sums(image, sections.void_windows(image), 64)[0, 0], strict=True)
        )
        one, two, eight = (sums[f"steps_{k}"] / sums[f"pairs_{k}"] for k in LAGS)
        return two - one, eight - one

    fine, coarse = variogram(grey)
    moved = variogram((grey * times + more).astype(np.int16))
    assert moved == pytest.approx((fine * times**2, coarse * times**2))
    noisy = [variogram((grey + rng.integers(-9, 10, grey.shape)).astype(np.int16)) for _ in range(40)]
    error = np.std(noisy, axis=0) / np.sqrt(40)
    assert np.all(np.abs(np.mean(noisy, axis=0) - (fine, coarse)) < 6 * error)


@given(st.integers(0, 2**32 - 1), st.tuples(st.integers(8, 40), st.integers(8, 40)), st.sampled_from([1, 2, 4]))
@settings(max_examples=30)
def test_cells_and_their_covariances_are_numpys(seed: int, shape: tuple[int, int], factor: int) -> None:
    a, b = np.random.default_rng(seed).integers(0, 65536, (2, *shape), np.uint16)
    one, two = sections.cells_of(a, factor), sections.cells_of(b, factor)
    y, x = (n // factor for n in shape)
    blocks = a[: y * factor, : x * factor].reshape(y, factor, x, factor)
    np.testing.assert_array_equal(one, blocks.sum(axis=(1, 3), dtype=np.int64))
    found = sections.covariances(one, two, 8)
    for i, j in np.ndindex(found.shape):
        p, q = (cells[i * 8 : i * 8 + 8, j * 8 : j * 8 + 8].ravel().astype(object) for cells in (one, two))
        assert found[i, j] == len(p) * (p * q).sum() - p.sum() * q.sum()


@given(section())
@settings(max_examples=30)
def test_lines_and_strips_are_means_of_rows_and_columns(grey: NDArray[Any]) -> None:
    wide = grey.astype(np.int64)
    expected = [int((np.diff(wide.sum(axis=axis)) ** 2).sum()) for axis in (1, 0)]
    assert list(sections.line_steps(grey)) == expected
    seen = np.where(hidden(grey), np.nan, wide.astype(float))
    along_x, along_y = sections.strip_means(grey, sections.void_windows(grey), TILE)
    for strips, image in ((along_x, seen.T), (along_y, seen)):
        for k, strip in enumerate(strips):
            part = image[k * TILE : (k + 1) * TILE]
            known = np.isfinite(part).any(axis=0)
            np.testing.assert_allclose(strip[known], np.nanmean(part[:, known], axis=0))


def test_what_cannot_be_summed_exactly_is_refused() -> None:
    grey = np.zeros((32, 32), np.float32)
    with pytest.raises(InputError, match="float32 cannot be summed exactly: give integers of 8 or 16 bits"):
        sections.voxel_sums(grey, sections.void_windows(grey), TILE)
    with pytest.raises(InputError, match="tiles of 18 voxels"):
        sections.voxel_sums(grey.astype(np.uint8), sections.void_windows(grey), 18)
