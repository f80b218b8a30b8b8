"""A box is a set of voxels: every operation is checked against the set itself."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.box import as_vec
from tests.geometry.strategies import boxes, vectors, voxels

few = settings(deadline=None, max_examples=60)


@few
@given(boxes(), boxes())
def test_intersect_is_the_intersection_of_sets(a: Box, b: Box) -> None:
    assert voxels(a.intersect(b)) == voxels(a) & voxels(b)
    assert a.intersect(b) == b.intersect(a)
    assert a.meets(b) == bool(voxels(a) & voxels(b))


@few
@given(boxes(), boxes())
def test_contains_is_the_subset_relation(a: Box, b: Box) -> None:
    assert a.contains(b) == (voxels(b) <= voxels(a))
    assert a.contains(a)
    assert a.contains(a.intersect(b))
    assert b.contains(a.intersect(b))


@few
@given(boxes(), boxes(), boxes())
def test_hull_is_the_smallest_box_that_contains_both(a: Box, b: Box, other: Box) -> None:
    hull = a.hull(b)
    assert hull.contains(a)
    assert hull.contains(b)
    assert voxels(hull) == voxels(b.hull(a))
    if other.contains(a) and other.contains(b):
        assert other.contains(hull)


@few
@given(boxes(), boxes())
def test_hull_fits_tightly(a: Box, b: Box) -> None:
    both = voxels(a) | voxels(b)
    assert bool(both) == bool(voxels(a.hull(b)))
    if both:
        assert a.hull(b).start == tuple(np.min(list(both), axis=0))
        assert a.hull(b).stop == tuple(np.max(list(both), axis=0) + 1)


@few
@given(boxes(), vectors(-9, 9), vectors(0, 4), vectors(0, 4))
def test_shift_and_grow_are_undone(
    a: Box, by: tuple[int, ...], before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    assert a.shift(by).shift([-v for v in by]) == a
    assert a.grow(before, after).grow([-v for v in before], [-v for v in after]) == a
    assert a.grow(before) == a.grow(before, before)
    assert a.grow(before, after).shape == tuple(n + p + q for n, p, q in zip(a.shape, before, after, strict=True))


@few
@given(boxes(), vectors(1, 5), vectors(-3, 3))
def test_snap_finds_the_nearest_faces_on_the_lattice(
    a: Box, step: tuple[int, int, int], origin: tuple[int, int, int]
) -> None:
    snapped = a.snap(step, origin)
    assert snapped.contains(a)
    assert snapped.snap(step, origin) == snapped
    for low, high, a_low, a_high, s, o in zip(
        snapped.start, snapped.stop, a.start, a.stop, step, origin, strict=True
    ):
        assert (low - o) % s == 0
        assert (high - o) % s == 0
        assert 0 <= a_low - low < s
        assert 0 <= high - a_high < s


@few
@given(boxes(), vectors(1, 4), vectors(1, 4))
def test_coarsen_is_the_set_of_coarse_voxels_that_hold_a_voxel(
    a: Box, first: tuple[int, int, int], second: tuple[int, int, int]
) -> None:
    coarse = a.coarsen(first)
    if not a.is_empty:
        assert voxels(coarse) == {tuple(v // f for v, f in zip(p, first, strict=True)) for p in voxels(a)}
        both = [f * g for f, g in zip(first, second, strict=True)]
        assert coarse.coarsen(second) == a.coarsen(both)


@few
@given(boxes(), boxes())
def test_slices_index_exactly_the_voxels_of_the_box(whole: Box, b: Box) -> None:
    part = b.intersect(whole)
    counted = np.zeros(whole.shape, int)
    if not part.is_empty:
        counted[part.slices(whole.start)] += 1
    assert counted.sum() == part.size == len(voxels(part))
    assert {tuple(p) for p in np.argwhere(counted) + whole.start} == voxels(part)


def test_slices_never_wrap_around() -> None:
    with pytest.raises(InputError, match="starts before"):
        Box((-1, 0, 0), (3, 3, 3)).slices()
    with pytest.raises(InputError, match="starts before"):
        Box((4, 0, 0), (3, 3, 3)).slices(origin=(5, 0, 0))


@few
@given(boxes())
def test_a_box_is_a_value(a: Box) -> None:
    again = Box.of(a.start, a.stop)
    assert again == a
    assert hash(again) == hash(a)
    assert pickle.loads(pickle.dumps(a)) == a
    start, shape = a
    assert Box(start, shape) == a
    assert a.size == len(voxels(a))
    assert a.is_empty == (a.size == 0)
    with pytest.raises(AttributeError):
        a.start = (0, 0, 0)  # type: ignore[misc]


@pytest.mark.parametrize(
    "given_value",
    [(1, 2, 3), [1, 2, 3], (1.0, 2.0, 3.0), np.array([1, 2, 3], np.uint8), np.array([1, 2, 3], np.float32)],
)
def test_whole_numbers_of_any_type_become_exact_integers(given_value: object) -> None:
    out = as_vec(given_value)  # type: ignore[arg-type]
    assert out == (1, 2, 3)
    assert all(type(v) is int for v in out)


def test_one_number_is_repeated_whatever_its_type() -> None:
    assert as_vec(4) == as_vec(np.int64(4)) == (4, 4, 4)  # type: ignore[arg-type]
    assert as_vec([2**60 + 1] * 3) == (2**60 + 1,) * 3  # not by way of a float


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ((0, 0, 9.8), "whole number"),
        ((0, 0, float("nan")), "whole number"),
        ((0, 0, float("inf")), "whole number"),
        ((0, 0, None), "whole number"),
        ("123", "whole number"),
        (None, "whole number"),
        ((1, 2), "give three"),
        ((1, 2, 3, 4), "give three"),
    ],
)
def test_anything_else_is_refused_by_rule(bad: object, rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        as_vec(bad)  # type: ignore[arg-type]


def test_impossible_boxes_are_refused() -> None:
    with pytest.raises(InputError, match="negative extent"):
        Box((0, 0, 0), (1, -1, 1))
    with pytest.raises(InputError, match="negative extent"):
        Box.of((5, 0, 0), (4, 1, 1))
    with pytest.raises(InputError, match="negative extent"):
        Box.whole((4, 4, 4)).grow(-3)
    with pytest.raises(InputError, match="below 1"):
        Box.whole((4, 4, 4)).snap((1, 0, 1))


def test_a_box_prints_as_intervals() -> None:
    assert str(Box((1, -2, 3), (4, 5, 6))) == "box [1:5, -2:3, 3:9]"
