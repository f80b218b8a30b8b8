"""Affine maps of a stack: planted ones come back, whoever lies among the links."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.planar import Affine
from emloom.ops.patchlinks import Link
from emloom.ops.sectionaffines import AffineStack, section_affines
from tests.ops.bentstack import places, planted_affine

F64 = NDArray[np.float64]
SIDE = 512
FREE = AffineStack(drift_sections=None)


def planted(seed: int, sections: int) -> list[Affine]:
    """Maps to the common frame; the middle section is where it is."""
    rng = np.random.default_rng(seed)
    maps = [planted_affine(rng, SIDE) for _ in range(sections)]
    maps[sections // 2] = Affine.of(np.eye(3))
    return maps


def links_of(maps: list[Affine], lags: tuple[int, ...] = (1, 2), noise: float = 0.0, seed: int = 0) -> list[Link]:
    """What a perfect flow would find, and noise."""
    rng, p, out = np.random.default_rng(seed), places(SIDE, 40, 60), []
    for i in range(len(maps)):
        for j in (i + lag for lag in lags if i + lag < len(maps)):
            moves = maps[j].inverse()(maps[i](p)) - p + noise * rng.normal(size=p.shape)
            out.append(Link(i, j, p, moves, np.ones(len(p))))
    return out


def errors(found: tuple[Affine, ...], truth: list[Affine]) -> F64:
    p = places(SIDE)
    return np.array([np.hypot(*(a(p) - b(p)).T).max() for a, b in zip(found, truth, strict=True)])


@given(st.integers(0, 1000), st.integers(2, 14))
@settings(max_examples=15)
def test_planted_maps_come_back_up_to_nothing(seed: int, sections: int) -> None:
    truth = planted(seed, sections)
    found = section_affines(sections, links_of(truth), how=FREE)
    assert errors(found.maps, truth).max() < 1e-3
    assert found.maps[sections // 2] == Affine.of(np.eye(3))
    assert found.linked.all()
    assert np.nanmax(found.residual_px) < 1e-3
    assert all(fit.used and fit.trusted > 0.99 for fit in found.links)


@given(st.integers(0, 1000))
@settings(max_examples=10)
def test_outliers_and_the_order_of_links_change_nothing(seed: int) -> None:
    rng, truth = np.random.default_rng(seed), planted(seed, 10)
    links = links_of(truth, (1, 2, 3), noise=0.3, seed=seed)
    clean = section_affines(10, links)
    for link in links:
        wrong = rng.random(len(link.places)) < 0.25
        link.moves[wrong] += rng.uniform(-40, 40, (int(wrong.sum()), 2))
    dirty = section_affines(10, links)
    assert errors(dirty.maps, list(clean.maps)).max() < 0.4
    assert errors(dirty.maps, truth).max() < 0.8
    turned = [Link(k.second, k.first, k.places + k.moves, -k.moves, k.weights) for k in links]
    shuffled = section_affines(10, [turned[k] for k in rng.permutation(len(turned))])
    assert errors(shuffled.maps, list(dirty.maps)).max() < 0.02


def test_the_banded_solution_is_that_of_all_equations_at_once() -> None:
    truth = planted(4, 6)
    links = links_of(truth, (1, 3), noise=3.0)
    found = section_affines(6, links, how=AffineStack(drift_sections=None, least_px=1e9))
    rows, right = [], []
    for link in links:
        ends = link.places, link.places + link.moves
        block = np.zeros((len(link.places), 6, 3))
        for z, p, sign in ((link.first, ends[0], 1), (link.second, ends[1], -1)):
            block[:, z, :2], block[:, z, 2] = sign * p, sign
        rows.append(np.delete(block, 3, axis=1).reshape(len(block), -1))
        right.append(-(block[:, 3] @ np.array([[1.0, 0], [0, 1], [0, 0]])))
    slow = np.linalg.lstsq(np.concatenate(rows), np.concatenate(right), rcond=None)[0].reshape(5, 3, 2)
    others = [z for z in range(6) if z != 3]
    for z, m in zip(others, slow, strict=True):
        p = places(SIDE)
        np.testing.assert_allclose(found.maps[z](p), p @ m[:2] + m[2], atol=1e-2)


def test_sections_without_links_lie_between_their_neighbours() -> None:
    maps = [Affine.of([[1, 0, 2.0 * z], [0, 1, -1.0 * z]]) for z in range(9)]
    links = [link for link in links_of(maps) if 6 not in (link.first, link.second) and link.second < 8]
    found = section_affines(9, links, how=AffineStack(reference=0))
    np.testing.assert_array_equal(found.linked, [True] * 6 + [False, True, False])
    assert errors(found.maps[:8], maps[:8]).max() < 1e-2
    assert errors(found.maps[8:], [maps[7]]).max() < 1e-2  # nothing tells how it goes on
    assert np.isnan(found.residual_px[[6, 8]]).all()
    known = section_affines(9, links, [[2.0 * z, -1.0 * z] for z in range(9)], AffineStack(reference=0))
    assert errors(known.maps, maps).max() < 1e-2


def test_a_section_without_links_is_turned_as_its_neighbours_are() -> None:
    turned = [
        Affine(((np.cos(t), -np.sin(t), 0), (np.sin(t), np.cos(t), 0))) for t in (0.0, 0.06, 0.0, 0.06, 0.06)
    ]
    links = [link for link in links_of(turned, (1, 2)) if 2 not in (link.first, link.second)]
    found = section_affines(5, links, how=AffineStack(reference=0))
    assert not found.linked[2]
    np.testing.assert_allclose(found.maps[2].matrix[:, :2], found.maps[1].matrix[:, :2], atol=2e-3)


def test_a_link_that_holds_too_few_places_does_not_count() -> None:
    truth = planted(1, 6)
    links = links_of(truth, (1,))
    rng = np.random.default_rng(0)
    links[4] = Link(4, 5, links[4].places, rng.uniform(-90, 90, links[4].moves.shape), links[4].weights)
    links.append(Link(0, 5, np.full((3, 2), 9.0), np.zeros((3, 2)), np.ones(3)))
    found = section_affines(6, links)
    assert errors(found.maps[:5], truth[:5]).max() < 0.1
    assert not found.links[-1].used


def test_shrinkage_does_not_add_up_over_a_stack() -> None:
    """Every link says a thousandth too small, which no section was."""
    shrunk = [Affine.of([[0.999**z, 0, 0], [0, 0.999**z, 0]]) for z in range(121)]
    links = links_of(shrunk, (1, 2))
    free, held = (section_affines(121, links, how=how).maps for how in (FREE, AffineStack(drift_sections=15)))
    ends = [abs(np.linalg.det(maps[z].matrix[:, :2]) - 1) for maps in (free, held) for z in (0, 120)]
    assert min(ends[:2]) > 0.1
    assert max(ends[2:]) < 0.65 * min(ends[:2])
    # A single section that did shrink is left as it is.
    one = [Affine.of(np.eye(3)) for _ in range(61)]
    one[20] = Affine.of([[0.95, 0, 12], [0, 0.95, 12]])
    found = section_affines(61, links_of(one))
    assert errors(found.maps, one).max() < 0.1


def test_bad_input_is_named() -> None:
    links = links_of(planted(0, 3))
    for wrong, match in (
        (lambda: section_affines(3, []), "no links"),
        (lambda: section_affines(2, links), "section 2 of a stack of 2"),
        (lambda: section_affines(3, links, np.zeros((2, 2))), "positions of shape"),
        (lambda: section_affines(3, links, how=AffineStack(reference=3)), "reference section 3"),
        (lambda: AffineStack(fewest=0), "above 0"),
        (lambda: Link(0, 0, links[0].places, links[0].moves, links[0].weights), "no two sections"),
        (lambda: Link(0, 1, links[0].places, links[0].moves[:3], links[0].weights), "as many moves"),
        (lambda: Link(0, 1, links[0].places, links[0].moves * np.nan, links[0].weights), "not finite"),
        (lambda: Link(0, 1, links[0].places, links[0].moves, -links[0].weights), "negative"),
    ):
        with pytest.raises(InputError, match=match):
            wrong()
    with pytest.raises(InputError, match="do not overlap"):
        section_affines(3, [Link(0, 1, np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))])
