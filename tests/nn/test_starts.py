"""Starts of crops: disjoint boxes that hold exactly the allowed starts."""

from __future__ import annotations

from itertools import product

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.geometry import Box, Vec
from emloom.nn.starts import Starts, free_starts
from tests.nn.lots import allowed, volume_of

SHAPE = (7, 8, 9)
corners = st.tuples(*(st.integers(-3, 8) for _ in range(3)))
extents = st.tuples(*(st.integers(0, 6) for _ in range(3)))
boxes = st.builds(Box, corners, extents)
crops = st.tuples(*(st.integers(1, 5) for _ in range(3)))
regions = st.builds(
    lambda low, high: Box.of(low, high),
    st.tuples(*(st.integers(0, 2) for _ in range(3))),
    st.tuples(*(st.integers(4, n) for n in SHAPE)),
)


def voxels(starts: Starts) -> list[Vec]:
    found = []
    for box in starts.boxes():
        found += product(*(range(a, b) for a, b in zip(box.start, box.stop, strict=True)))
    return found  # type: ignore[return-value]


@given(regions, st.lists(boxes, max_size=4), crops)
@settings(deadline=None, max_examples=60)
def test_free_starts_are_the_allowed_ones_each_once(region: Box, held: list[Box], crop: Vec) -> None:
    volume = volume_of(np.zeros(SHAPE, np.uint8), region=region, held_out=tuple(held))
    starts = free_starts(region, held, crop)
    expected = allowed(volume, crop) if all(s <= n for s, n in zip(crop, region.shape, strict=True)) else []
    assert sorted(voxels(starts)) == expected
    assert starts.count == len(expected)
    assert sorted(starts.at(i) for i in range(starts.count)) == expected


@given(regions, st.lists(boxes, max_size=3), crops, corners)
@settings(deadline=None, max_examples=60)
def test_starts_that_hold_a_voxel_and_voxels_that_are_covered(
    region: Box, held: list[Box], crop: Vec, voxel: Vec
) -> None:
    starts = free_starts(region, held, crop)
    every = voxels(starts)
    holding = [s for s in every if Box(s, crop).contains(Box(voxel, (1, 1, 1)))]
    assert sorted(voxels(starts.holding(voxel, crop))) == sorted(holding)
    window = Box((0, 1, 0), (6, 6, 9))
    covered = np.zeros(window.shape, bool)
    for s in every:
        hit = Box(s, crop).intersect(window)
        if not hit.is_empty:
            covered[hit.slices(window.start)] = True
    assert np.array_equal(starts.covered(crop, window), covered)


def test_the_number_of_pieces_does_not_depend_on_the_size_of_the_volume() -> None:
    for scale in (1, 1000):
        held = [Box((30 * scale, 30 * scale, 30 * scale), (10 * scale, 10 * scale, 10 * scale))]
        starts = free_starts(Box.whole((100 * scale,) * 3), held, (5, 5, 5))
        assert len(starts.low) == 6
