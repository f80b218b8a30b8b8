"""One map moves everything: what it says about where voxels come from."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.ops.deformation import (
    CoordinateMap,
    Elastic,
    box_to_read,
    control_shape,
    coordinate_map,
    inverse,
    linear_map,
    positions,
)

SHAPE = (6, 50, 61)
STILL = np.zeros((6, 2), np.int64)


def elastic(
    seed: int, sigma: tuple[float, float, float], spacing: tuple[float, float, float] = (4, 20, 20)
) -> Elastic:
    axes = sum(s > 0 for s in sigma)
    normals = np.random.default_rng(seed).standard_normal((axes, *control_shape(SHAPE, spacing)))
    return Elastic(spacing, sigma, normals)


def voxels(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.indices(shape).reshape(3, -1).T.astype(float)


@st.composite
def maps(draw: st.DrawFn) -> CoordinateMap:
    sigma = (draw(st.sampled_from([0.0, 0.5])), draw(st.floats(0, 3)), draw(st.floats(0, 3)))
    linear = linear_map(
        draw(st.floats(-360, 360)), draw(st.floats(0.7, 1.5)), draw(st.floats(-20, 20)), (4.0, 5.0)
    )
    return coordinate_map(SHAPE, linear, elastic(draw(st.integers(0, 999)), sigma))


def test_the_identity_is_whole_numbers() -> None:
    still = coordinate_map(SHAPE)
    assert np.array_equal(positions(still, voxels(), STILL), voxels())
    assert box_to_read(still, Box((1, 2, 3), (4, 5, 6)), STILL).contains(Box((1, 2, 3), (4, 5, 6)))


def test_a_quarter_turn_moves_content_from_y_to_x() -> None:
    square = (1, 11, 11)
    turn = coordinate_map(square, linear_map(rotation_deg=90))
    # What is seen at x + 3 was at y + 3 before it turned.
    came_from = positions(turn, np.array([[0, 5, 8]]), np.zeros((1, 2), np.int64))[0]
    assert came_from == pytest.approx([0, 8, 5])


def test_rotations_are_rigid_in_nanometres() -> None:
    nm = np.array([4.0, 6.0])
    a = linear_map(37, spacing_yx_nm=nm)
    step = np.array([3.0, -2.0])
    assert np.linalg.norm((a @ step) * nm) == pytest.approx(np.linalg.norm(step * nm))


def test_content_grows_by_the_scale() -> None:
    assert linear_map(scale=2.0) @ np.array([1.0, 0.0]) == pytest.approx([0.5, 0.0])


@pytest.mark.parametrize("spacing", [(4.0, 20.0, 20.0), (2.0, 9.0, 40.0), (3.0, 3.0, 3.0)])
def test_the_elastic_field_has_the_standard_deviation_asked_for(spacing: tuple[float, float, float]) -> None:
    sigma = (0.0, 2.0, 3.0)
    moves = []
    for seed in range(60):
        mapping = coordinate_map(SHAPE, None, elastic(seed, sigma, spacing))
        moves.append(positions(mapping, voxels(), STILL) - voxels())
    rms = np.sqrt(np.mean(np.square(moves), axis=(0, 1)))
    assert rms[0] == 0
    assert rms[1:] == pytest.approx(sigma[1:], rel=0.1)
    # At every voxel, not only on average: between control points the field is as strong as on them.
    at_each = np.sqrt(np.mean(np.square(moves), axis=0))[:, 1]
    assert 0.5 * sigma[1] < at_each.min() < at_each.max() < 1.7 * sigma[1]


def test_the_elastic_field_is_smooth() -> None:
    mapping = coordinate_map(SHAPE, None, elastic(0, (0.0, 2.0, 2.0)))
    y = positions(mapping, voxels(), STILL)[:, 1].reshape(SHAPE)
    assert np.abs(np.diff(y, n=2, axis=2)).max() < 0.3


@given(maps(), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_the_inverse_undoes_the_map(mapping: CoordinateMap, seed: int) -> None:
    rng = np.random.default_rng(seed)
    moves = rng.integers(-5, 6, (SHAPE[0], 2))
    points = rng.uniform(0, 1, (50, 3)) * (np.array(SHAPE) - 1)
    if mapping.nodes[:, 0].any():
        points[:, 0] = np.round(points[:, 0])  # where z moves, sections tear between two voxels
    there = positions(mapping, points, moves)
    back = inverse(mapping, there, moves)
    found = ~np.isnan(back).any(axis=1)
    assert found.mean() > 0.9
    assert np.abs(positions(mapping, back[found], moves) - there[found]).max() < 1e-3


@given(maps(), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_the_box_to_read_holds_every_position(mapping: CoordinateMap, seed: int) -> None:
    rng = np.random.default_rng(seed)
    moves = rng.integers(-5, 6, (SHAPE[0], 2))
    start = [int(rng.integers(n - 1)) for n in SHAPE]
    part = Box.of(start, [int(rng.integers(s + 1, n + 1)) for s, n in zip(start, SHAPE, strict=True)])
    inside = voxels(part.shape) + np.array(part.start)
    at = positions(mapping, inside, moves)
    box = box_to_read(mapping, part, moves)
    assert (np.floor(at) >= box.start).all()
    assert (np.floor(at)[:, 1:] + 1 < box.stop[1:]).all()
    assert (at[:, 0] <= np.array(box.stop)[0] - 1).all()


def test_a_fold_hides_a_stripe_and_keeps_the_rest() -> None:
    mapping = coordinate_map((1, 40, 40))
    folds = np.array([[0.0, 1.0, 20.0, 5.0]])  # along x = 20, pulled by 5 from both sides
    still = np.zeros((1, 2), np.int64)
    row = np.array([[0, 7, x] for x in range(40)])
    seen = positions(mapping, row, still, folds)[:, 2]
    assert np.array_equal(seen[:21], np.arange(21) - 5)
    assert np.array_equal(seen[21:], np.arange(21, 40) + 5)
    back = inverse(mapping, np.array([[0, 7, 10], [0, 7, 20], [0, 7, 30]]), still, folds)
    assert back[0] == pytest.approx([0, 7, 15])
    assert np.isnan(back[1]).all()
    assert back[2] == pytest.approx([0, 7, 25])


def test_what_does_not_fit_is_an_error() -> None:
    with pytest.raises(InputError, match="scale 0"):
        linear_map(scale=0)
    with pytest.raises(InputError, match="control points of shape"):
        coordinate_map((9, 9, 9), None, elastic(0, (0, 1, 1)))
    with pytest.raises(InputError, match="spacing must be positive"):
        coordinate_map(SHAPE, None, Elastic((0, 1, 1), (0, 1, 1), np.zeros((2, 4, 4, 4))))
