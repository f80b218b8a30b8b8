from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emloom.errors import InputError
from emloom.geometry.planar import (
    IDENTITY,
    Affine,
    Chain,
    Field,
    Inverted,
    Pieces,
    PlanarMap,
    Shift,
    chain,
    from_plain,
)

whole = st.integers(-1000, 1000).map(float)
small = st.floats(-0.05, 0.05)
shifts = st.builds(Shift, st.floats(-500, 500), st.floats(-500, 500))
whole_shifts = st.builds(Shift, whole, whole)
affines = st.builds(
    lambda a, b, c, d, t: Affine(((1 + a, b, t[0]), (c, 1 + d, t[1]))),
    small, small, small, small, st.tuples(st.floats(-90, 90), st.floats(-90, 90)),
)  # fmt: skip
fields = st.builds(
    lambda u, spacing, origin: Field(u, (spacing, spacing + 3), origin),
    hnp.arrays(np.float32, (2, 4, 5), elements=st.floats(-4, 4, width=32)),
    st.floats(20, 60),
    st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
)
maps = st.one_of(shifts, affines, fields)
places = hnp.arrays(np.float64, (7, 2), elements=st.floats(-50, 300))


def halves(upper: Shift | Affine, lower: Shift | Affine) -> Pieces:
    """Return a section torn along row 40."""
    parts = np.ones((100, 80), np.uint8)
    parts[40:45] = 0
    parts[45:] = 2
    return Pieces(parts, (upper, lower))


@given(st.one_of(shifts, affines, fields), places)
def test_the_way_back_leads_back(move: PlanarMap, yx: np.ndarray[Any, Any]) -> None:
    there = move(yx)
    np.testing.assert_allclose(move.inverse()(there), yx, atol=1e-5)
    np.testing.assert_allclose(move(move.inverse()(yx)), yx, atol=1e-5)


@given(whole_shifts, places)
def test_whole_shifts_of_whole_places_are_exact(move: Shift, yx: np.ndarray[Any, Any]) -> None:
    yx = np.floor(yx) + 0.5
    assert np.array_equal(move.inverse()(move(yx)), yx)


@given(maps, maps, places)
def test_composition_is_the_sequence(first: PlanarMap, second: PlanarMap, yx: np.ndarray[Any, Any]) -> None:
    assert np.array_equal(first.then(second)(yx), second(first(yx)))


@given(maps, maps, maps, places)
def test_composition_is_associative(a: PlanarMap, b: PlanarMap, c: PlanarMap, yx: np.ndarray[Any, Any]) -> None:
    assert np.array_equal(a.then(b).then(c)(yx), a.then(b.then(c))(yx))


@given(st.lists(maps, max_size=3))
def test_plain_values_describe_the_map(several: list[PlanarMap]) -> None:
    kept: dict[str, Any] = {}

    def keep(array: Any) -> str:
        kept[f"a{len(kept)}"] = array
        return f"a{len(kept) - 1}"

    pieces = halves(Shift(1.5, -2), Affine(((0.95, 0.01, 8), (0.02, 0.99, -4))))
    move = chain(*several, pieces, *(one.inverse() for one in several))
    plain = json.loads(json.dumps(move.to_plain(keep)))
    assert from_plain(plain, kept.__getitem__) == move


def test_inverse_of_an_inverse_is_the_map() -> None:
    field = Field(np.ones((2, 2, 2), np.float32), (10, 10))
    torn = halves(Shift(), Shift())
    for one in (Shift(2, 3), field, torn, chain(field, torn)):
        assert one.inverse().inverse() == one


def test_chains_are_short() -> None:
    assert chain() == chain(IDENTITY, IDENTITY) == IDENTITY
    assert chain(Shift(1, 2), Shift(3, -4)) == Shift(4, -2)
    assert chain(Shift(1, 2), Shift(-1, -2)) == IDENTITY
    # What is not whole is not added up: the sum would round otherwise than the sequence does.
    assert isinstance(chain(Shift(0.1, 0), Shift(0.2, 0)), Chain)
    nested = chain(Shift(0.5, 0), chain(Affine(((1, 0, 0.5), (0, 1, 0))), Shift(0.5, 0)))
    assert isinstance(nested, Chain)
    assert len(nested.maps) == 3


def test_a_field_is_bilinear_and_constant_beyond_its_border() -> None:
    u = np.zeros((2, 2, 3), np.float32)
    u[0] = [[0, 1, 2], [4, 5, 6]]
    u[1] = -1
    field = Field(u, (10, 5), origin=(2, 1))
    at = field.at([(2, 1), (7, 1), (2, 3.5), (-100, 1), (1000, 1000)])
    np.testing.assert_allclose(at[:, 0], [0, 2, 0.5, 0, 6])
    np.testing.assert_allclose(at[:, 1], -1)


def test_a_field_of_one_node_is_a_shift() -> None:
    field = Field(np.full((2, 1, 1), 2.5, np.float32), (10, 10))
    np.testing.assert_allclose(field([(3, 4)]), [(5.5, 6.5)])


def test_a_fold_has_no_way_back() -> None:
    u = np.zeros((2, 1, 2), np.float32)
    u[1, 0] = [30, -30]  # places cross
    field = Field(u, (10, 10))
    back = field.inverse()([(0, 5), (0, 5.1)])
    there = field(back)
    good = np.isfinite(back).all(1)
    np.testing.assert_allclose(there[good], np.array([(0, 5), (0, 5.1)])[good], atol=1e-5)


def test_pieces_move_by_their_own_map_and_gaps_are_nothing() -> None:
    torn = halves(Shift(0, 0), Shift(10, 1))
    there = torn([(10, 10), (42, 10), (60, 10), (-1, 3), (np.nan, 3), (200, 3)])
    np.testing.assert_array_equal(there[[0, 2]], [(10, 10), (70, 11)])
    assert np.isnan(there[[1, 3, 4, 5]]).all()
    back = torn.inverse()([(10, 10), (70, 11), (50, 10)])
    np.testing.assert_array_equal(back[:2], [(10, 10), (60, 10)])
    assert np.isnan(back[2]).all()


def test_of_pieces_on_each_other_the_first_is_the_way_back() -> None:
    torn = halves(Shift(0, 0), Shift(-20, 0))
    np.testing.assert_array_equal(torn([(30, 5), (50, 5)]), [(30, 5), (30, 5)])
    np.testing.assert_array_equal(torn.inverse()([(30, 5)]), [(30, 5)])


def test_inverted_goes_both_ways() -> None:
    field = Field(np.full((2, 2, 2), 3, np.float32), (10, 10))
    back = field.inverse()
    assert isinstance(back, Inverted)
    np.testing.assert_allclose(back([(5, 5)]), [(2, 2)])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Shift(np.nan, 0), "not finite"),
        (lambda: Affine(((1, 0, 0), (0, -1, 0))), "turns a section over"),
        (lambda: Affine(((1, 1, 0), (1, 1, 0))), "into a line"),
        (lambda: Affine.of(np.zeros((3, 2))), "two rows of three"),
        (lambda: Field(np.zeros((2, 3, 3)), (1, 1)), "float32"),
        (lambda: Field(np.full((2, 3, 3), np.nan, np.float32), (1, 1)), "not finite"),
        (lambda: Field(np.zeros((2, 3, 3), np.float32), (0, 1)), "not positive"),
        (lambda: Pieces(np.full((3, 3), 2, np.uint8), (Shift(),)), "part 2"),
        (lambda: Pieces(np.zeros((3, 3), np.int64), ()), "uint8"),
        (lambda: Shift()([1, 2]), r"\[N, 2\]"),
        (lambda: from_plain({"twist": 3}, {}.__getitem__), "'twist' is unknown"),
        (lambda: from_plain({"field": {}}, {}.__getitem__), "describes no map"),
        (lambda: from_plain({}, {}.__getitem__), "describes no map"),
    ],
)
def test_what_is_no_map_is_refused(make: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make()
