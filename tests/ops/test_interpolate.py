"""What lies between two sections: between their values, never a new id, and the slow obvious sampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.planar import Field
from emloom.ops.interpolate import between, nearest_between

SHAPE = (9, 12)
STILL = Field(np.zeros((2, 1, 1), np.float32), (1.0, 1.0))
FLOWS = hnp.arrays(np.float32, (2, 3, 4), elements=st.floats(-6, 6, width=32)).map(
    lambda u: Field(u, (4.0, 4.0), (2.0, 2.0))
)
SECTIONS = hnp.arrays(np.uint8, SHAPE)


def sampled(image: NDArray[np.generic], y: float, x: float) -> tuple[float, bool]:
    """Return the bilinear value at a place, of the border beyond it, and whether it is inside."""
    rows, columns = image.shape
    inside = 0 <= y <= rows and 0 <= x <= columns
    y, x = min(max(y - 0.5, 0), rows - 1), min(max(x - 0.5, 0), columns - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
    f, g = y - y0, x - x0
    v = image.astype(np.float64)
    value = (1 - f) * ((1 - g) * v[y0, x0] + g * v[y0, x1]) + f * ((1 - g) * v[y1, x0] + g * v[y1, x1])
    return value, inside


@given(SECTIONS, SECTIONS, FLOWS, st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0]))
def test_it_is_the_slow_obvious_sampling(
    a: NDArray[np.uint8], b: NDArray[np.uint8], flow: Field, t: float
) -> None:
    found = between(a, b, flow, t).astype(float)
    for i, k in np.ndindex(SHAPE):
        place = np.array([i + 0.5, k + 0.5])
        ((dy, dx),) = flow.at(place[None])
        one, inside = sampled(a, place[0] - t * dy, place[1] - t * dx)
        other, also = sampled(b, place[0] + (1 - t) * dy, place[1] + (1 - t) * dx)
        expected = (1 - t) * one + t * other if inside == also else one if inside else other
        # At a border a rounding decides whether a place is inside.
        edge = any(min(abs(q), abs(q - n)) < 1e-4 for q, n in _crossings(place, dy, dx, t))
        assert edge or abs(found[i, k] - expected) <= 0.5 + 1e-3
        assert min(a.min(), b.min()) <= found[i, k] <= max(a.max(), b.max())


def _crossings(place: NDArray[np.float64], dy: float, dx: float, t: float) -> list[tuple[float, int]]:
    return [(place[axis] + step * d, SHAPE[axis]) for axis, d in enumerate((dy, dx)) for step in (-t, 1 - t)]


@given(SECTIONS, SECTIONS, st.floats(0, 1))
def test_without_flow_it_is_the_mean_and_its_ends_are_the_sections(
    a: NDArray[np.uint8], b: NDArray[np.uint8], t: float
) -> None:
    np.testing.assert_array_equal(between(a, b, STILL, 0.0), a)
    np.testing.assert_array_equal(between(a, b, STILL, 1.0), b)
    mean = (1 - t) * a.astype(float) + t * b.astype(float)
    assert np.abs(between(a, b, STILL, t) - mean).max() <= 0.501


@given(SECTIONS, SECTIONS, hnp.arrays(np.bool_, SHAPE), hnp.arrays(np.bool_, SHAPE))
def test_what_is_not_usable_is_not_used(
    a: NDArray[np.uint8], b: NDArray[np.uint8], one: NDArray[np.bool_], other: NDArray[np.bool_]
) -> None:
    found = between(a, b, STILL, 0.5, usable=(one, other))
    np.testing.assert_array_equal(found[one & ~other], a[one & ~other])
    np.testing.assert_array_equal(found[~one & other], b[~one & other])
    assert not found[~one & ~other].any()


@given(hnp.arrays(np.uint64, SHAPE), hnp.arrays(np.uint64, SHAPE), FLOWS, st.floats(0, 1))
def test_ids_are_those_of_the_sections(
    a: NDArray[np.uint64], b: NDArray[np.uint64], flow: Field, t: float
) -> None:
    found = nearest_between(a, b, flow, t)
    assert found.dtype == np.uint64
    assert np.isin(found, np.union1d(a, b)).all()
    np.testing.assert_array_equal(nearest_between(a, b, STILL, t), a if t <= 0.5 else b)


def test_ids_follow_the_flow_from_the_nearer_section() -> None:
    a, b = np.zeros((20, 20), np.uint32), np.zeros((20, 20), np.uint32)
    a[4:8, 4:8], b[12:16, 8:12] = 7, 9
    flow = Field(np.broadcast_to(np.array([8, 4], np.float32)[:, None, None], (2, 1, 1)).copy(), (1.0, 1.0))
    for t, value in ((0.25, 7), (0.5, 7), (0.75, 9)):
        found = nearest_between(a, b, flow, t)
        y, x = 4 + round(8 * t), 4 + round(4 * t)
        expected = np.zeros_like(a)
        expected[y : y + 4, x : x + 4] = value
        np.testing.assert_array_equal(found, expected)


def test_bad_input() -> None:
    a = np.zeros(SHAPE, np.uint8)
    with pytest.raises(InputError, match="one shape and type"):
        between(a, a[1:], STILL)
    with pytest.raises(InputError, match="one shape and type"):
        between(a, a.astype(np.uint16), STILL)
    with pytest.raises(InputError, match="lies not between"):
        between(a, a, STILL, -0.1)
    with pytest.raises(InputError, match="are no ids"):
        nearest_between(a.astype(np.float32), a.astype(np.float32), STILL)
