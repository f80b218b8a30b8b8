"""Running medians and spreads: as the slow version, and unmoved by outliers."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from emloom.ops.outliers import running_median, usual_spread
from emloom.ops.sectiontiles import BIN, histogram, usual_of

NUMBERS = st.lists(st.one_of(st.floats(-4, 4), st.just(float("nan"))), min_size=1, max_size=40)


@given(NUMBERS, st.integers(1, 12))
def test_the_median_of_others_around(values: list[float], reach: int) -> None:
    array = np.array(values)
    found = running_median(array, reach)
    for z in range(len(array)):
        around = [v for k, v in enumerate(array) if k != z and abs(k - z) <= reach and np.isfinite(v)]
        if reach <= z < len(array) - reach:
            assert np.isnan(found[z]) if not around else found[z] == np.median(around)
        elif len(array) >= 2 * reach + 1:
            low = 0 if z < reach else len(array) - 1 - 2 * reach
            others = [v for k, v in enumerate(array) if low <= k <= low + 2 * reach and k != z and np.isfinite(v)]
            assert np.isnan(found[z]) if not others else found[z] == np.median(others)


@given(st.integers(0, 2**31), st.floats(-50, 50))
def test_an_outlier_changes_neither_its_own_expectation_nor_the_spread_much(seed: int, far: float) -> None:
    values = np.random.default_rng(seed).normal(size=31)
    moved = values.copy()
    moved[15] = far
    assert running_median(values, 5)[15] == running_median(moved, 5)[15]
    before = usual_spread(values - running_median(values, 5))
    after = usual_spread(moved - running_median(moved, 5))
    assert after < 2.5 * before


def test_nothing_known_has_no_spread() -> None:
    assert usual_spread(np.array([np.nan])) == 0
    assert np.isnan(running_median(np.array([1.0]), 3)).all()
    assert all(np.isnan(usual_of(histogram(np.array([np.nan])))))


@given(NUMBERS, st.integers(0, 40))
def test_histograms_of_parts_know_the_median_and_spread_of_the_whole(values: list[float], cut: int) -> None:
    array = np.array(values)
    counts = histogram(array[:cut]) + histogram(array[cut:])
    np.testing.assert_array_equal(counts, histogram(array))
    known = np.sort(np.floor(array[np.isfinite(array)] / BIN + 0.5))
    if known.size:
        median, spread = usual_of(counts)
        middle = known[(known.size - 1) // 2]
        assert round(median / BIN) == middle
        assert np.isclose(spread / BIN / 1.4826, np.sort(np.abs(known - middle))[(known.size - 1) // 2])
