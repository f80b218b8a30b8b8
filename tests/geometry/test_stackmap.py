from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.planar import IDENTITY, Affine, Field, Shift
from emloom.geometry.stackmap import Frame, Layer, StackMap

RAW = Frame((5, 60, 50), Grid((40.0, 4.0, 4.0), (80.0, 0.0, 8.0)))
CANVAS = Frame((4, 80, 70), Grid((40.0, 4.0, 4.0)))
BEND = Field(np.linspace(-2, 2, 18).reshape(2, 3, 3).astype(np.float32), (30, 25))

homes = st.permutations([0, 1, 2, 3, 4]).map(lambda order: [*order[:3], None])
wholes = st.builds(Shift, st.integers(-20, 20).map(float), st.integers(-20, 20).map(float))
points = hnp.arrays(np.int64, (9, 3), elements=st.integers(0, 199)).map(lambda p: p + [80, 0, 8] + 0.5)


def bent(order: list[int | None]) -> StackMap:
    turn = Affine(((1.02, 0.01, -3), (-0.01, 0.98, 4)))
    return StackMap.of(RAW, CANVAS, [Shift(3, -4), turn, BEND, IDENTITY], order)


@given(homes, st.lists(wholes, min_size=4, max_size=4), points)
def test_points_come_back_to_the_bit_through_whole_shifts(
    order: list[int | None], moves: list[Shift], nm: np.ndarray[Any, Any]
) -> None:
    stack = StackMap.of(RAW, CANVAS, moves, order)
    there = stack.moved(nm)
    back = stack.inverse().moved(there)
    shown = np.isin((nm[:, 0] - 80) // 40, [home for home in order if home is not None])
    assert np.array_equal(back[shown], nm[shown])
    assert np.isnan(there[~shown]).all()


@given(homes, points)
def test_points_come_back_through_any_map(order: list[int | None], nm: np.ndarray[Any, Any]) -> None:
    stack = bent(order)
    there = stack.moved(nm)
    back = stack.inverse().moved(there)
    known = np.isfinite(there).all(1)
    np.testing.assert_allclose(back[known], nm[known], atol=1e-4)


@given(homes, points)
def test_composition_is_the_sequence(order: list[int | None], nm: np.ndarray[Any, Any]) -> None:
    first = bent(order)
    back = StackMap.of(CANVAS, RAW, [Shift(1, 1), BEND, IDENTITY, Shift(0.5, 0), IDENTITY], [1, 0, None, 2, 3])
    both = first.then(back)
    np.testing.assert_allclose(both.moved(nm), back.moved(first.moved(nm)), atol=1e-9)
    assert both.source == RAW
    assert both.target == RAW


def test_homes_and_guests_are_opposites() -> None:
    stack = bent([3, None, 0, 4])
    assert [stack.home(z) for z in range(4)] == [3, None, 0, 4]
    assert [stack.guest(z) for z in range(5)] == [2, None, None, 0, 3]
    back = stack.inverse()
    assert [back.home(z) for z in range(5)] == [2, None, None, 0, 3]
    assert back.inverse().map(2) == stack.map(2)
    both = stack.then(back)
    assert [both.home(z) for z in range(5)] == [0, None, None, 3, 4]


def test_a_point_stays_where_it_is_within_its_section() -> None:
    stack = StackMap.of(RAW, CANVAS, [Shift(1, 2)] * 4, [1, 2, 3, 4])
    # 13 nm above the lower face of section 1; the canvas begins 80 nm lower, and with section 1.
    np.testing.assert_array_equal(stack.moved([(133.0, 10.0, 20.0)]), [(13.0, 14.0, 20.0)])


def test_a_point_on_a_face_belongs_to_the_section_above_in_spite_of_rounding() -> None:
    frame = Frame((4, 10, 10), Grid((0.1, 1, 1)))
    stack = StackMap.of(frame, frame, [IDENTITY] * 4, [None, None, None, 3])
    assert np.isfinite(stack.moved([(0.1 * 3, 1, 1)])).all()


def test_the_identity_moves_nothing() -> None:
    p = np.random.default_rng(0).uniform([80, 0, 8], [280, 240, 208], (20, 3))
    np.testing.assert_array_equal(StackMap.identity(RAW).moved(p), p)
    assert StackMap.identity(RAW).map(2) == IDENTITY


def test_what_has_no_home_has_no_map() -> None:
    with pytest.raises(InputError, match="section 1 shows nothing"):
        bent([3, None, 0, 4]).map(1)


def _coarse() -> Frame:
    return Frame((4, 80, 70), Grid((40.0, 8.0, 8.0)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: StackMap.of(RAW, CANVAS, [IDENTITY] * 3, [0, 1, 2]), "4 sections has 3 homes"),
        (lambda: StackMap.of(RAW, CANVAS, [IDENTITY] * 4, [0, 1, 2, 5]), "beyond 0 to 4"),
        (lambda: StackMap.of(RAW, CANVAS, [IDENTITY] * 4, [0, 1, 2, 1]), "section 1 is the home of two"),
        (lambda: StackMap.of(RAW, _coarse(), [IDENTITY] * 4), "does not resample"),
        (lambda: StackMap(()), "leads nowhere"),
        (lambda: StackMap.identity(RAW).then(StackMap.identity(CANVAS)), "only maps that meet"),
        (lambda: StackMap.identity(RAW).moved([1, 2, 3]), r"\[N, 3\]"),
        (lambda: Frame((0, 1, 1), Grid((1, 1, 1))), "holds nothing"),
        (lambda: Layer(RAW, RAW, (0,), [IDENTITY], turned=True), "5 sections has 1 homes"),
    ],
)
def test_what_is_no_stack_map_is_refused(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()
