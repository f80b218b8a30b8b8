"""Positions from links: exact where links are right, unharmed by wrong ones, whatever their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops.sectiondrift import slow, without_drift
from emloom.ops.sectionpositions import solve_positions
from emloom.ops.shiftlinks import Links, fit

F64 = NDArray[np.float64]


def walk(count: int, rng: np.random.Generator, reference: int) -> F64:
    p = np.cumsum(rng.normal(0, 20, (count, 2)), axis=0)
    return p - p[reference]


def links_of(p: F64, lags: tuple[int, ...], rng: np.random.Generator, noise: float = 0.0) -> Links:
    """Links that are right, in any order and direction."""
    pairs = np.array([(i, i + lag) for lag in lags for i in range(len(p) - lag)]).reshape(-1, 2)
    pairs = rng.permuted(rng.permutation(pairs), axis=1)
    shift = p[pairs[:, 0]] - p[pairs[:, 1]] + noise * rng.normal(size=(len(pairs), 2))
    return Links(pairs[:, 0], pairs[:, 1], shift, np.full(len(pairs), max(noise, 0.1)))


@given(st.integers(2, 60), st.integers(0, 2**31), st.booleans())
@settings(max_examples=40)
def test_links_that_agree_are_met_exactly(count: int, seed: int, to_reference: bool) -> None:
    rng = np.random.default_rng(seed)
    reference = int(rng.integers(count))
    p = walk(count, rng, reference)
    links = links_of(p, (1, 2, 3), rng)
    if to_reference:
        others = np.delete(np.arange(count), reference)
        links = Links(
            np.r_[links.first, others],
            np.r_[links.second, np.full(count - 1, reference)],
            np.r_[links.shift, p[others] - p[reference]],
            np.r_[links.error, np.ones(count - 1)],
        )
    found = solve_positions(count, links, reference)
    np.testing.assert_allclose(found.shift, p, atol=1e-6)
    np.testing.assert_array_equal(found.shift[reference], 0)
    assert set(found.state) == {"linked"}
    assert not found.cuts
    assert found.residual.max(initial=0) < 1e-6
    assert found.weight.min(initial=1) > 0.9
    assert (found.links >= 1).all()


def test_the_convention() -> None:
    # What is at q in section 0 is at q + (3, -2) in section 1: section 1 must move by (-3, 2) to lie on section 0.
    found = solve_positions(2, Links.of([(0, 1, (3.0, -2.0), 0.1)]), reference=0)
    np.testing.assert_allclose(found.shift, [[0, 0], [-3, 2]])


@given(st.integers(0, 2**31), st.sampled_from([0.1, 0.2, 0.3]))
@settings(max_examples=25)
def test_wrong_links_do_no_harm(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    p = walk(80, rng, 40)
    links = links_of(p, (1, 2, 3, 4, 5, 6), rng)
    wrong = rng.random(len(links)) < share
    shift = np.where(wrong[:, None], rng.uniform(-400, 400, links.shift.shape), links.shift)
    found = solve_positions(80, Links(links.first, links.second, shift, links.error), 40)
    error = np.linalg.norm(found.shift - p, axis=1)
    # A section may be left with wrong links only, by chance, at the ends of the stack.
    assert np.median(error) < 1e-3
    assert (error[6:-6] < 0.1).mean() > 0.95
    assert found.weight[wrong].mean() < 0.05


@given(st.integers(0, 2**31))
@settings(max_examples=20)
def test_bad_sections_do_not_shift_the_rest(seed: int) -> None:
    """All links of every tenth section are wrong, and agree with one another where they can."""
    rng = np.random.default_rng(seed)
    p = walk(60, rng, 30)
    links = links_of(p, (1, 2, 3), rng, noise=0.1)
    bad = rng.choice(np.delete(np.arange(60), 30), 6, replace=False)
    seen = p.copy()
    seen[bad] += rng.uniform(50, 400, (6, 2))
    away = np.isin(links.first, bad) | np.isin(links.second, bad)
    shift = np.where(away[:, None], seen[links.first] - seen[links.second], links.shift)
    shift[away] += rng.normal(0, 30, (away.sum(), 2))
    found = solve_positions(60, Links(links.first, links.second, shift, links.error), 30)
    good = np.delete(np.arange(60), bad)
    steps = np.diff((found.shift - p)[good], axis=0)
    near = np.diff(good) <= 2  # across three bad ones in a row nothing is known
    assert np.median(np.abs(steps[near])) < 0.2
    assert np.quantile(np.abs(steps[near]), 0.95) < 0.5


@given(st.integers(0, 2**31))
@settings(max_examples=20)
def test_the_order_of_links_is_no_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    links = links_of(walk(30, rng, 15), (1, 2, 3), rng, noise=0.5)
    links.shift[rng.random(len(links)) < 0.3] += 100 * rng.normal(size=2)
    order = rng.permutation(len(links))
    mixed = Links(links.first[order], links.second[order], links.shift[order], links.error[order])
    one, other = solve_positions(30, links), solve_positions(30, mixed)
    np.testing.assert_array_equal(one.shift, other.shift)
    np.testing.assert_array_equal(one.weight[order], other.weight)
    np.testing.assert_array_equal(one.residual[order], other.residual)


@given(st.integers(3, 40), st.integers(0, 2**31))
@settings(max_examples=25)
def test_least_squares_agree_with_the_dense_equations(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    links = links_of(walk(count, rng, 0), (1, 2, count - 1), rng, noise=3.0).upward()
    reference = int(rng.integers(count))
    weight = rng.uniform(0.1, 2, len(links))
    rows = np.zeros((len(links), count))
    at = np.arange(len(links))
    rows[at, links.second], rows[at, links.first] = 1, -1
    root = np.sqrt(weight)[:, None]
    free = np.delete(np.arange(count), reference)
    dense = np.zeros((count, 2))
    dense[free] = np.linalg.lstsq(root * rows[:, free], -root * links.shift, rcond=None)[0]
    np.testing.assert_allclose(fit(count, links, weight, reference), dense, atol=1e-7)


def test_long_links_go_through_the_sparse_solver() -> None:
    rng = np.random.default_rng(3)
    p = walk(1500, rng, 0)
    links = links_of(p, (1, 700), rng)
    np.testing.assert_allclose(fit(1500, links.upward(), np.ones(len(links)), 0), p, atol=1e-6)


def test_a_section_without_links_lies_between_its_neighbours() -> None:
    links = Links.of([(0, 2, (-4.0, 2.0), 0.1), (2, 3, (0.0, 0.0), 0.1)])
    found = solve_positions(5, links, reference=0)
    np.testing.assert_allclose(found.shift, [[0, 0], [2, -1], [4, -2], [4, -2], [4, -2]], atol=1e-9)
    assert found.state == ("linked", "between", "linked", "linked", "between")
    assert found.links.tolist() == [1, 0, 2, 1, 0]
    assert np.isnan(found.median[[1, 4]]).all()
    assert found.notes() == ("sections without links lie between their neighbours: 1, 4",)


def test_parts_stay_to_each_other_as_they_are() -> None:
    links = Links.of([(z, z + 1, (1.0, 0.0), 0.1) for z in (0, 1, 3, 4, 5)])
    found = solve_positions(7, links, reference=4)
    np.testing.assert_allclose(found.shift[:, 0], [3, 2, 1, 1, 0, -1, -2], atol=1e-9)
    assert found.cuts == (2,)
    assert found.state == ("apart",) * 3 + ("linked",) * 4
    assert found.notes() == ("the stack falls apart between sections 2 and 3",)
    even = Links.of([(z, z + 2, (0.0, 0.0), 0.1) for z in range(6)])
    interleaved = solve_positions(8, even)
    np.testing.assert_allclose(interleaved.shift, 0, atol=1e-9)
    assert interleaved.state.count("apart") == 4


def test_a_stack_without_links_stays_where_it_is() -> None:
    for count in (1, 4):
        found = solve_positions(count, Links.of([]))
        np.testing.assert_array_equal(found.shift, np.zeros((count, 2)))
        assert found.state == ("between",) * count
        assert "resembles" in found.notes()[0]


def test_links_given_twice_and_a_reference_nobody_agrees_on() -> None:
    rng = np.random.default_rng(0)
    p = walk(3000, rng, 1500)
    links = links_of(p, (1,), rng)
    others = np.delete(np.arange(3000), 1500)
    odd = rng.uniform(-500, 500, (2999, 2))  # links that contradict each other, thousands of them
    given = Links(
        np.r_[links.first, links.first, others],
        np.r_[links.second, links.second, np.full(2999, 1500)],
        np.r_[links.shift, links.shift, odd],
        np.r_[links.error, links.error, np.full(2999, 0.1)],
    )
    # Of thousands of wrong links some are nearly right by chance, and are believed.
    assert np.abs(solve_positions(3000, given, 1500).shift - p).max() < 3


def test_long_stacks_take_little() -> None:
    rng = np.random.default_rng(0)
    p = walk(20_000, rng, 10_000)
    links = links_of(p, (1, 2, 3), rng)
    shift = np.where(rng.random(len(links))[:, None] < 0.02, rng.uniform(-300, 300, (len(links), 2)), links.shift)
    found = solve_positions(20_000, Links(links.first, links.second, shift, links.error))
    assert np.abs(found.shift - p).max() < 1e-2


@pytest.mark.parametrize(
    ("count", "links", "reference", "says"),
    [
        (0, [], None, "at least one"),
        (3, [], 3, "0 to 2"),
        (3, [(0, 3, (0.0, 0.0), 1.0)], None, "section 3"),
        (3, [(1, 1, (0.0, 0.0), 1.0)], None, "itself"),
        (3, [(0, 1, (float("nan"), 0.0), 1.0)], None, "no number"),
        (3, [(0, 1, (0.0, 0.0), float("inf"))], None, "unknown"),
    ],
)
def test_bad_input_is_named(
    count: int, links: list[tuple[int, int, tuple[float, float], float]], reference: int | None, says: str
) -> None:
    with pytest.raises(InputError, match=says):
        solve_positions(count, Links.of(links), reference)


def test_links_to_a_reference_hold_drift_back() -> None:
    """Errors of neighbours add up; a few links to the reference, no better than they are, stop that."""
    without, held = [], []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        p = walk(300, rng, 150)
        near = links_of(p, (1, 2), rng, noise=0.5)
        far = np.delete(np.arange(0, 300, 10), 15)
        shift = p[far] - p[150] + rng.normal(0, 0.5, (len(far), 2))
        both = Links(
            np.r_[near.first, far],
            np.r_[near.second, np.full(len(far), 150)],
            np.r_[near.shift, shift],
            np.r_[near.error, np.full(len(far), 0.5)],
        )
        for links, errors in ((near, without), (both, held)):
            errors.append(np.abs(solve_positions(300, links, 150).shift - p).mean())
    assert np.mean(held) < 0.5 * np.mean(without)


# ---- drift ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=25)
def test_an_oblique_stack_is_not_straightened(seed: int, dy: float, dx: float) -> None:
    rng = np.random.default_rng(seed)
    z = np.arange(120)[:, None]
    jitter = rng.normal(0, 1, (120, 2))
    tilted = jitter + z * np.array([[dy, dx]])
    # A line is slow, wherever it is, also at the ends.
    np.testing.assert_allclose(slow(tilted, 20) - slow(jitter, 20), z * np.array([[dy, dx]]), atol=0.05)
    np.testing.assert_array_equal(without_drift(tilted, 20, 60)[60], 0)


def test_waves_are_kept_or_corrected_by_their_length() -> None:
    z = np.arange(600)
    for length, kept in ((10, 0.0), (40, 0.5), (400, 1.0)):
        wave = np.stack([np.sin(2 * np.pi * z / length), np.zeros(600)], 1)
        middle = slice(200, 400)
        share = (slow(wave, 40)[middle, 0] * wave[middle, 0]).sum() / np.square(wave[middle, 0]).sum()
        assert share == pytest.approx(kept, abs=0.1)


def test_a_displaced_section_bends_no_line_and_parts_have_lines_of_their_own() -> None:
    z = np.arange(80)[:, None] * np.ones((1, 2))
    out = z.copy()
    out[30] += 200
    moved = without_drift(out, 16, 0)
    assert np.abs(np.delete(moved, 30, axis=0)).max() < 1e-3
    assert moved[30, 0] == pytest.approx(200, abs=1e-3)
    apart = z.copy()
    apart[40:] = -2 * apart[40:] + 500
    assert np.abs(without_drift(apart, 16, 0, cuts=(39,))).max() < 1e-6
    for sections, reference, says in ((3, 0, "at least 4"), (8, 80, "0 to 79")):
        with pytest.raises(InputError, match=says):
            without_drift(z, sections, reference)
