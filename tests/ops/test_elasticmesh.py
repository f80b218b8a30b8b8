"""Elastic meshes: bent sections come to lie on each other, in any order, and never fold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.planar import IDENTITY, Affine, Field, PlanarMap
from emloom.ops.elasticmesh import Bent, flat_mesh, relax
from emloom.ops.meshsprings import Elasticity, Pulls, jacobians, mesh_of, nodes_of, springs, stretch
from emloom.ops.meshstart import link_field, stack_meshes
from emloom.ops.patchlinks import Link
from tests.ops.bentstack import agreed, places, planted_affine, planted_field, rounds

SIDE, HOW = 512, Elasticity()


def links_of(maps: list[PlanarMap], lags: tuple[int, ...] = (1, 2)) -> list[Link]:
    """What a perfect flow would find between sections that `maps` take to the common frame."""
    p, out = places(SIDE, 16, 40), []
    for i in range(len(maps)):
        for j in (i + lag for lag in lags if i + lag < len(maps)):
            there = maps[j].inverse()(maps[i](p))
            seen = ((there > 0) & (there < SIDE)).all(1)
            out.append(Link(i, j, p[seen], (there - p)[seen], np.ones(int(seen.sum()))))
    return out


def flat(sections: int) -> dict[int, Bent]:
    return {z: Bent(flat_mesh((SIDE, SIDE), 48.0), Affine.of(np.eye(3))) for z in range(sections)}


def planted(sections: int, seed: int, most: float = 15.0) -> list[PlanarMap]:
    rng = np.random.default_rng(seed)
    return [IDENTITY if z == sections // 2 else planted_field(rng, SIDE, most) for z in range(sections)]


def errors(bent: dict[int, Bent], truth: list[PlanarMap]) -> NDArray[np.float64]:
    p = places(SIDE)
    return np.array([np.hypot(*(bent[z].map()(p) - m(p)).T) for z, m in enumerate(truth)])


def test_what_lies_right_stays() -> None:
    links = links_of([IDENTITY] * 3)
    out = relax(1, flat(3), links)
    assert not out.mesh.displacement.any()
    assert (out.before, out.after, out.residual_px, out.stiffened, out.least_area) == (0, 0, 0, 1, 1)
    fields = [link_field(link, flat(3)) for link in links]
    assert all(np.abs(field.apart.displacement).max() < 1e-6 for field in fields if field is not None)


@pytest.mark.parametrize("turned", [False, True])
def test_planted_fields_come_back(turned: bool) -> None:
    truth, stack = planted(9, 0), flat(9)
    if turned:
        rng = np.random.default_rng(1)
        turns = [Affine.of(np.eye(3)) if z == 4 else planted_affine(rng, SIDE) for z in range(9)]
        truth = [m.then(a) for m, a in zip(truth, turns, strict=True)]
        stack = {z: Bent(b.mesh, turns[z]) for z, b in stack.items()}
    links = links_of(truth)
    before = errors(stack, truth)
    bent = agreed(agreed(stack, links, 4, HOW), links, 4, HOW)
    bent, reports = rounds(bent, links, 4, 4, HOW)
    after = errors(bent, truth)
    assert np.median(before) > 3
    assert np.median(after) < 0.3
    assert np.percentile(after, 95) < 1
    assert not bent[4].mesh.displacement.any()
    assert max(report.residual_px for report in reports.values()) < 0.3


def test_outliers_are_not_followed() -> None:
    truth = planted(7, 2, 8.0)
    links, rng = links_of(truth), np.random.default_rng(0)
    for link in links:
        wrong = rng.random(len(link.places)) < 0.15
        link.moves[wrong] += rng.uniform(-30, 30, (int(wrong.sum()), 2))
    bent, _ = rounds(agreed(flat(7), links, 3, HOW), links, 3, 6, HOW)
    assert np.median(errors(bent, truth)) < 0.3
    assert np.percentile(errors(bent, truth), 95) < 1


def test_rounds_go_in_any_order_and_grow_still() -> None:
    truth = planted(5, 3)
    links, stack = links_of(truth), flat(5)
    held = {z: b.mesh.displacement.copy() for z, b in stack.items()}
    one = {z: relax(z, stack, links).mesh for z in range(5)}
    other = {z: relax(z, dict(reversed(stack.items())), links).mesh for z in reversed(range(5))}
    assert all(one[z] == other[z] for z in range(5))
    assert all(np.array_equal(stack[z].mesh.displacement, held[z]) for z in range(5))
    moved = []
    for _ in range(40):
        before = stack
        stack, _ = rounds(stack, links, 2, 1, HOW)
        moved.append(max(np.abs(stack[z].mesh.displacement - before[z].mesh.displacement).max() for z in range(5)))
    assert moved[0] > 3
    assert moved[-1] < 0.02
    assert np.median(errors(stack, truth)) < 0.3


@given(st.integers(0, 1000))
@settings(max_examples=15)
def test_no_other_mesh_has_less_energy(seed: int) -> None:
    rng, mesh = np.random.default_rng(seed), flat_mesh((200, 150), 40.0)
    p = rng.uniform(0, 150, (60, 2))
    pulls = Pulls.at(mesh, p, rng.normal(0, 2, (60, 2)), rng.uniform(0.1, 1, 60))
    matrix = springs(mesh, HOW)
    best, trust = pulls.solved(matrix, nodes_of(mesh), 1.0)
    least = pulls.energy(best, trust, matrix)
    assert least <= pulls.energy(best + rng.normal(0, 0.1, best.shape), trust, matrix)
    assert least <= pulls.energy(nodes_of(mesh), trust, matrix)
    bent = mesh_of(best, mesh)
    np.testing.assert_allclose(pulls.grip @ nodes_of(bent), bent.at(p), atol=1e-9)


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_the_stretch_between_nodes_is_never_more_than_at_their_corners(seed: int) -> None:
    rng = np.random.default_rng(seed)
    field = Field(rng.normal(0, 4, (2, 5, 6)).astype(np.float32), (20.0, 30.0))
    p = rng.uniform(0.1, (79.9, 149.9), (300, 2))
    step = 1e-4
    slopes = np.stack([(field.at(p + e) - field.at(p)) / step for e in np.eye(2) * step], -1)
    inner = np.abs(p / np.array(field.spacing) - np.rint(p / np.array(field.spacing))).min(1) > 1e-3
    slopes = slopes[inner]
    assert np.linalg.norm(slopes, 2, axis=(1, 2)).max() <= stretch(field) + 1e-6
    assert np.linalg.det(slopes + np.eye(2)).min() >= np.linalg.det(jacobians(field)).min() - 1e-6


@pytest.mark.parametrize("start", [False, True])
def test_a_section_that_asks_to_fold_is_made_stiffer_and_can_be_bent_back(start: bool) -> None:
    p = places(SIDE, 16, 40)
    moves = np.stack([np.zeros(len(p)), 2.0 * (256 - p[:, 1])], 1)  # left and right change places
    link, stack = Link(0, 1, p, moves, np.ones(len(p))), flat(2)
    if start:
        field = link_field(link, stack)
        assert field is not None
        stack[0] = Bent(stack_meshes([stack[0], stack[1]], [field], 1)[0], stack[0].affine)
    else:
        found = relax(0, stack, [link])
        assert found.stiffened > 1
        assert found.least_area > 0
        stack[0] = Bent(found.mesh, stack[0].affine)
    mesh = stack[0].mesh
    assert stretch(mesh) <= HOW.steepest + 1e-6
    q = places(SIDE, 0, 30)
    np.testing.assert_allclose(mesh.inverse()(mesh(q)), q, atol=1e-5)


def test_sections_without_links_return_to_their_affine_maps() -> None:
    stack = flat(2)
    stack[0] = Bent(planted_field(np.random.default_rng(0), SIDE, 4.0), stack[0].affine)
    out = relax(0, stack, [])
    assert np.abs(out.mesh.displacement).max() < 2
    assert np.isnan(out.residual_px)
    assert not stack_meshes([stack[1]] * 3, [], 1)[0].displacement.any()


def test_bad_input_is_named() -> None:
    link = links_of([IDENTITY] * 2)[0]
    with pytest.raises(InputError, match="section 1, whose mesh is not given"):
        relax(0, {0: flat(1)[0]}, [link])
    with pytest.raises(InputError, match="not given"):
        link_field(link, flat(1))
    field = link_field(link, flat(2))
    assert field is not None
    with pytest.raises(InputError, match="not of 1 sections"):
        stack_meshes([flat(1)[0]], [field], 0)
    with pytest.raises(InputError, match="above 0"):
        flat_mesh((10, 10), 0)
    with pytest.raises(InputError, match="steepest"):
        Elasticity(steepest=1.0)
    with pytest.raises(InputError, match="stiffness"):
        Elasticity(stiffness=0.0)
    assert link_field(Link(0, 1, link.places[:2], link.moves[:2], np.ones(2)), flat(2)) is None
