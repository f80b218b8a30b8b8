"""Means of replicates: against SciPy's interval, and what has none."""

from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from emloom.errors import InputError
from emloom.metrics.replicates import replicated


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9), st.floats(0.5, 0.99))
def test_the_interval_is_that_of_scipy(values: list[float], confidence: float) -> None:
    found = replicated(values, confidence)
    error = float(stats.sem(values))
    assert found.value == pytest.approx(float(np.mean(values)), rel=1e-9, abs=1e-9)
    if error > 1e-9:
        low, high = stats.t.interval(confidence, len(values) - 1, found.value, error)
        assert (found.low, found.high) == (
            pytest.approx(low, rel=1e-6, abs=1e-6),
            pytest.approx(high, rel=1e-6, abs=1e-6),
        )
    assert found.low <= found.value <= found.high


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = [(f := replicated(rng.normal(3, 2, 3).tolist(), 0.9)).low <= 3 <= f.high for _ in range(2000)]
    assert np.mean(held) == pytest.approx(0.9, abs=0.02)


def test_one_replicate_has_no_interval_and_a_missing_one_no_mean() -> None:
    one = replicated([2.5])
    assert (one.value, isnan(one.low), one.reason) == (2.5, True, "one replicate has no interval")
    assert isnan(replicated([1.0, nan]).value)


def test_nothing_cannot_be_averaged() -> None:
    with pytest.raises(InputError, match="at least one value"):
        replicated([])
    with pytest.raises(InputError, match="between 0 and 1"):
        replicated([1.0, 2.0], 1.0)
