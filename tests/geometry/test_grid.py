"""Grids: voxels and nanometres name the same places."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from tests.geometry.strategies import boxes, grids, vectors

few = settings(deadline=None, max_examples=100)


@few
@given(grids(), vectors(-100_000, 100_000))
def test_a_voxel_contains_its_corner_and_its_centre(grid: Grid, voxel: Vec) -> None:
    assert grid.containing(grid.to_world(voxel)) == voxel
    assert grid.containing(grid.centre(voxel)) == voxel


def test_a_face_belongs_to_the_voxel_above_even_where_floats_fall_short() -> None:
    grid = Grid((0.1, 0.1, 0.1))
    assert grid.to_voxel((0.7 - 0.1, 0.3, 0.0))[0] < 6  # what floats make of 0.6 / 0.1
    assert grid.containing((0.7 - 0.1, 0.3, 0.0)) == (6, 3, 0)
    assert grid.containing((0.6 - 0.001, 0.3 - 0.001, -0.001)) == (5, 2, -1)


@few
@given(grids(), vectors(-100_000, 100_000))
def test_world_and_back_is_the_identity_up_to_rounding(grid: Grid, voxel: Vec) -> None:
    assert grid.to_voxel(grid.to_world(voxel)) == pytest.approx(voxel, abs=1e-6)


@few
@given(grids(), boxes(), vectors(-50, 50))
def test_a_crop_keeps_every_voxel_where_it_was(grid: Grid, box: Box, voxel: Vec) -> None:
    inner = box.shift(voxel).start
    assert grid.crop(box).to_world(voxel) == pytest.approx(grid.to_world(inner), rel=1e-9, abs=1e-6)
    assert grid.crop(Box.whole((1, 1, 1))).matches(grid)


@few
@given(grids(), st.floats(0, 1e6))
def test_voxels_is_the_smallest_count_that_spans_the_length(grid: Grid, length: float) -> None:
    for count, size in zip(grid.voxels(length), grid.voxel_size_nm, strict=True):
        assert count * size >= length - 1.1e-6 * size
        assert (count - 1) * size < length


@few
@given(grids(), st.integers(0, 10_000))
def test_voxels_of_a_whole_number_of_voxels_is_that_number(grid: Grid, count: int) -> None:
    for axis, size in enumerate(grid.voxel_size_nm):
        assert grid.voxels(count * size)[axis] == count


@few
@given(grids(), st.integers(0, 2))
def test_grids_match_themselves_and_nothing_else(grid: Grid, axis: int) -> None:
    assert grid.matches(grid)
    for scale in (0.5, 1.001):
        sizes = [s * (scale if i == axis else 1) for i, s in enumerate(grid.voxel_size_nm)]
        assert not grid.matches(Grid(tuple(sizes), grid.offset_nm))  # type: ignore[arg-type]
    half = [
        o + (s / 2 if i == axis else 0)
        for i, (o, s) in enumerate(zip(grid.offset_nm, grid.voxel_size_nm, strict=True))
    ]
    assert not grid.matches(Grid(grid.voxel_size_nm, tuple(half)))  # type: ignore[arg-type]


def test_grids_that_differ_by_storage_rounding_match() -> None:
    stored = Grid((40.0, 4.0000000001, 3.9999999999), (1e6 + 1e-9, 0, 0))
    assert Grid((40, 4, 4), (1e6, 0, 0)).matches(stored)


def test_fractions_of_a_nanometre_survive() -> None:
    grid = Grid((9.8, 11.24, 11.24))
    assert grid.voxel_size_nm == (9.8, 11.24, 11.24)
    assert pickle.loads(pickle.dumps(grid)) == grid
    assert hash(Grid((40, 4, 4))) == hash(Grid((40.0, 4.0, 4.0)))


@pytest.mark.parametrize(
    ("size", "rule"),
    [
        ((40, 4), "give three"),
        ((40, 4, 0), "not positive"),
        ((40, -4, 4), "not positive"),
        ((40, float("nan"), 4), "not finite"),
        ((40, float("inf"), 4), "not finite"),
        ((40, "x", 4), "three numbers"),
        (4.0, "three numbers"),
        (None, "three numbers"),
    ],
)
def test_an_impossible_voxel_size_is_refused_with_the_way_out(size: object, rule: str) -> None:
    with pytest.raises(InputError, match=f"voxel size.*{rule}.*nm"):
        Grid(size)  # type: ignore[arg-type]


def test_impossible_places_and_lengths_are_refused() -> None:
    grid = Grid((40, 4, 4))
    with pytest.raises(InputError, match=r"offset.*not finite"):
        Grid((40, 4, 4), (0, float("inf"), 0))
    with pytest.raises(InputError, match=r"position.*not finite"):
        grid.containing((0, float("nan"), 0))
    for length in (-1.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match="not a length"):
            grid.voxels(length)
