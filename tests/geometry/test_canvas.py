from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emloom.geometry import Grid
from emloom.geometry.canvas import bounds, laid_out
from emloom.geometry.planar import Affine, Field, Pieces, PlanarMap, Shift
from emloom.geometry.stackmap import Frame

RAW = Frame((3, 30, 40), Grid((40.0, 4.0, 4.0), (0.0, 8.0, 0.0)))

moves: st.SearchStrategy[PlanarMap] = st.one_of(
    st.builds(Shift, st.integers(-50, 50), st.integers(-50, 50)),
    st.builds(Shift, st.floats(-50, 50), st.floats(-50, 50)),
    st.builds(lambda a, b: Affine(((1 + a, b, 3), (-b, 1 - a, -7))), st.floats(-0.1, 0.1), st.floats(-0.1, 0.1)),
)


@given(st.lists(moves, min_size=3, max_size=3))
def test_the_canvas_holds_everything_and_no_more(maps: list[PlanarMap]) -> None:
    stack = laid_out(RAW, maps)
    rows, columns = stack.target.shape[1:]
    corners = np.array([(0.0, 0.0), (0.0, 40.0), (30.0, 0.0), (30.0, 40.0)])
    all_of_them = np.concatenate([stack.map(z)(corners) for z in range(3)])
    assert all_of_them.min() > -1e-5
    assert (all_of_them.max(0) < (rows + 1e-5, columns + 1e-5)).all()
    assert (all_of_them.min(0) < 1).all()
    assert (all_of_them.max(0) > (rows - 1 - 1e-5, columns - 1 - 1e-5)).all()


@given(st.lists(moves, min_size=3, max_size=3))
def test_world_positions_are_those_of_the_maps(maps: list[PlanarMap]) -> None:
    at = np.array([(20.0, 28.0, 44.0), (60.0, 28.0, 44.0)])
    moved = laid_out(RAW, maps).moved(at)
    places = np.array([maps[z]([(5.0, 11.0)])[0] for z in (0, 1)])
    np.testing.assert_allclose(moved[:, 1:], places * 4 + (8, 0), atol=1e-9)


def test_kept_canvas_is_that_of_the_source() -> None:
    assert laid_out(RAW, [Shift(9, 9)] * 3, keep=True).target == RAW


def test_still_sections_need_no_other_canvas() -> None:
    assert laid_out(RAW, [Shift()] * 3).target == RAW


def test_pieces_and_fields_are_held_too() -> None:
    parts = np.zeros((30, 40), np.uint8)
    parts[:, 25:] = 1
    torn = Pieces(parts, (Shift(0, 30),))
    low, high = bounds(RAW, [torn, torn, torn])
    np.testing.assert_array_equal(low, [0.5, 55.5])
    np.testing.assert_array_equal(high, [29.5, 69.5])
    bent = Field(np.full((2, 2, 2), -3, np.float32), (30, 40))
    assert laid_out(RAW, [bent] * 3).target.shape == (3, 30, 40)
    nothing = Pieces(np.zeros((30, 40), np.uint8), ())
    assert laid_out(RAW, [nothing] * 3).target == RAW
