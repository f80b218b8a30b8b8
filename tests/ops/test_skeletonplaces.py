"""Distances in three units, nearest nodes, boxes and moves, against plain loops."""

from __future__ import annotations

from collections.abc import Callable
from math import dist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry.skeletons import Skeletons
from emloom.ops.skeletonplaces import (
    boxes_nm,
    distances,
    in_unit,
    mirrored,
    nearest_nodes,
    scaled,
    transformed,
    translated,
)
from tests.ops.neurites import any_skeletons, nodes_of

seeds = st.integers(0, 10**6)
VOXEL = (32.0, 11.24, 11.24)


@given(seeds)
def test_distances_are_those_between_points(seed: int) -> None:
    skeletons = any_skeletons(seed)
    points = np.random.default_rng(seed).normal(0, 100, (4, 3))
    nodes = skeletons.positions_nm.tolist()
    nm = distances(skeletons, points)
    np.testing.assert_allclose(nm, [[dist(p, n) for n in nodes] for p in points.tolist()], rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(distances(skeletons, points, unit="um"), nm / 1000, rtol=1e-12, atol=1e-12)
    vx = distances(skeletons, points, unit="vx", voxel_size_nm=VOXEL)
    for p, row in zip(points.tolist(), vx, strict=True):
        steps = [[(a - b) / s for a, b, s in zip(p, n, VOXEL, strict=True)] for n in nodes]
        np.testing.assert_allclose(row, [sum(v * v for v in step) ** 0.5 for step in steps], atol=1e-9)
    rows, away = nearest_nodes(skeletons, points)
    np.testing.assert_allclose(away, nm.min(axis=1), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(nm[np.arange(4), rows], away, rtol=1e-12, atol=1e-9)
    pairs = distances(skeletons, skeletons.positions_nm)
    np.testing.assert_allclose(pairs, pairs.T, atol=1e-9)
    assert not pairs.diagonal().any()


@given(seeds)
def test_boxes_are_the_lowest_and_highest(seed: int) -> None:
    skeletons = any_skeletons(seed)
    for row, box in enumerate(boxes_nm(skeletons)):
        nodes = skeletons.positions_nm[nodes_of(skeletons, row)]
        if len(nodes):
            np.testing.assert_array_equal(box, [nodes.min(axis=0), nodes.max(axis=0)])
        else:
            assert np.isnan(box).all()


@given(seeds)
def test_moves_have_inverses_and_are_affine_maps(seed: int) -> None:
    skeletons = any_skeletons(seed)
    rng = np.random.default_rng(seed)
    by, factors = rng.normal(0, 100, 3), rng.uniform(0.5, 2, 3)
    matrix = np.eye(4)
    matrix[:3] = np.concatenate([np.eye(3) + rng.uniform(-0.2, 0.2, (3, 3)), rng.normal(0, 50, (3, 1))], axis=1)
    there = transformed(skeletons, matrix)
    expected = [matrix[:3, :3] @ p + matrix[:3, 3] for p in skeletons.positions_nm]
    np.testing.assert_allclose(there.positions_nm, np.array(expected).reshape(-1, 3), atol=1e-9)
    back = transformed(there, np.linalg.inv(matrix)[:3])
    np.testing.assert_allclose(back.positions_nm, skeletons.positions_nm, atol=1e-9)
    np.testing.assert_allclose(
        translated(scaled(skeletons, factors), by).positions_nm,
        transformed(skeletons, np.column_stack([np.diag(factors), by])).positions_nm,
        atol=1e-9,
    )
    for axis in ("z", "y", "x"):
        once = mirrored(skeletons, axis, (-50.0, 450.0))  # type: ignore[arg-type]
        np.testing.assert_allclose(once.lengths_nm, skeletons.lengths_nm, rtol=1e-12, atol=1e-9)
        twice = mirrored(once, axis, (-50.0, 450.0))  # type: ignore[arg-type]
        np.testing.assert_allclose(twice.positions_nm, skeletons.positions_nm, atol=1e-12)
    one = Skeletons.from_trees([(1, [[1, 2, 3]], [])])
    assert mirrored(one, "y", (0, 10)).positions_nm.tolist() == [[1, 8, 3]]


line = Skeletons.from_trees([(7, np.eye(3), [(0, 1)])], source="a.nml")
nothing = Skeletons.from_trees([], source="b.nml")
flat = np.diag([1.0, 1, 0, 1])


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda: in_unit([0, 0, 0], "px"), "unit 'px' is unknown"),  # type: ignore[arg-type]
        (lambda: in_unit([0, 0, 0], "vx"), "unit 'vx', and the voxel size .* is missing: give it"),
        (lambda: in_unit([0, 0, 0], "nm", voxel_size_nm=VOXEL), "was given: it is for unit 'vx', leave it out"),
        (lambda: in_unit([0, 0, 0], "vx", voxel_size_nm=(1, 0, 1)), "is not positive"),
        (lambda: in_unit([[0, 0]]), r"positions have shape \(1, 2\)"),
        (lambda: distances(many, many.positions_nm), "6.7 GiB, more than 4: measure from fewer"),
        (lambda: nearest_nodes(nothing, [[0, 0, 0]]), "b.nml has no node: nothing is nearest"),
        (lambda: nearest_nodes(line, [[0, 0, 0], [0, np.nan, 0]]), "position 1 is .*three finite numbers"),
        (lambda: transformed(line, np.eye(3)), r"shape \(3, 3\): give finite \[3, 4\] or \[4, 4\]"),
        (lambda: transformed(line, np.full((3, 4), np.nan)), "give finite"),
        (lambda: transformed(line, flat), "singular: it flattens"),
        (lambda: transformed(line, np.ones((4, 4))), "the last row of an affine map is"),
        (lambda: scaled(line, (1, -1, 1)), "mirror it"),
        (lambda: translated(line, (1, 1)), "give three"),
        (lambda: mirrored(line, "a", (0, 1)), "axis 'a' is unknown"),  # type: ignore[arg-type]
        (lambda: mirrored(line, "z", (0, np.inf)), "is not finite"),
    ],
)
def test_what_makes_no_sense_is_refused(ask: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask()


many = Skeletons.from_trees([(7, np.zeros((30_000, 3)), [])], source="a.nml")
