"""Vectorised sums have the bits of math.fsum, or are math.fsum."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.geometry.skeletons import grouped_fsum
from emloom.metrics.exactsums import ExactSums


# The spread decides which way is taken: narrow ones are vectorised, wide ones fall back.
@pytest.mark.parametrize(("spread", "vectorised"), [(0, True), (2, True), (5, False), (40, False)])
@given(seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_sums_are_rounded_once(spread: int, vectorised: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.uniform(1, 2, 3000) * 10.0 ** rng.uniform(-spread, spread, 3000)
    groups, chosen = rng.integers(0, 7, 3000), rng.random(3000) < 0.7
    sums = ExactSums(values)
    assert (sums.unit_exponent is not None) == vectorised
    np.testing.assert_array_equal(sums.of(groups, 9), grouped_fsum(groups, values, 9))
    np.testing.assert_array_equal(sums.of(groups, 9, chosen), grouped_fsum(groups[chosen], values[chosen], 9))


@pytest.mark.parametrize("values", [[], [0.0], [0.0, 5e-324], [1e308, 0.0], [0.1] * 10])
def test_the_ends_of_the_range(values: list[float]) -> None:
    array = np.array(values)
    groups = np.zeros(len(array), np.int64)
    np.testing.assert_array_equal(ExactSums(array).of(groups, 2), grouped_fsum(groups, array, 2))
