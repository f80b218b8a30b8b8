"""The laws of sizes that fit: enumeration agrees with arithmetic, and refusals name the way out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.nn.tilesize import TileRule

sizes = st.tuples(*[st.integers(1, 60)] * 3)


@given(first=sizes, step=st.tuples(*[st.integers(0, 9)] * 3), shape=sizes)
def test_neighbours_are_those_of_a_list_of_all_sizes(first, step, shape):
    rule = TileRule(first, step)
    for axis in range(3):
        valid = [first[axis] + k * step[axis] for k in range(70)]
        wanted = shape[axis]
        below = max((n for n in valid if n <= wanted), default=first[axis])
        above = min((n for n in valid if n >= wanted), default=first[axis])
        assert rule.at_most(shape)[axis] == below
        assert rule.at_least(shape)[axis] == above
        assert abs(rule.nearest(shape)[axis] - wanted) == min(abs(n - wanted) for n in valid)
    assert rule.fits(shape) == all(
        n in {a + k * s for k in range(70)} for n, a, s in zip(shape, first, step, strict=True)
    )
    for fitting in (rule.at_most(shape), rule.at_least(shape), rule.nearest(shape)):
        rule.check(fitting)


def test_of_two_sizes_as_near_the_larger_is_taken():
    assert TileRule((1, 16, 16), (1, 16, 16)).nearest((3, 24, 23)) == (3, 32, 16)


@pytest.mark.parametrize(
    ("rule", "shape", "words"),
    [
        (
            TileRule((1, 16, 16), (1, 16, 16)),
            (1, 100, 64),
            r"\(1, 100, 64\).*\(1 \+ k \* 1, 16 \+ k \* 16, 16 \+ k \* 16\).*\(1, 96, 64\) and \(1, 112, 64\)",
        ),
        (TileRule((1, 140, 140), (1, 16, 16)), (2, 150, 172), r"\(2, 140, 172\) and \(2, 156, 172\)"),
        (TileRule((1, 140, 140), (1, 0, 0)), (1, 156, 140), r"\(1 \+ k \* 1, 140, 140\).*use \(1, 140, 140\)"),
        (TileRule((1, 16, 16), (1, 16, 16)), (1, 3, 3), r"use \(1, 16, 16\)"),
    ],
)
def test_a_tile_that_does_not_fit_is_refused_with_the_next_sizes(rule, shape, words):
    with pytest.raises(InputError, match=words):
        rule.check(shape)
