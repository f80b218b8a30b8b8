"""Exact sums: against Python's integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emloom.errors import InputError
from emloom.ops.exact import count_bins, exact_sums

arrays = hnp.arrays(hnp.integer_dtypes() | hnp.unsigned_integer_dtypes(), hnp.array_shapes(max_dims=3))


@given(arrays)
def test_sums_are_those_of_python(values: Any) -> None:
    numbers = [int(v) for v in values.ravel()]
    assert exact_sums(values) == (sum(numbers), sum(v * v for v in numbers))


@pytest.mark.parametrize("dtype", ["uint64", "int64"])
@pytest.mark.parametrize("end", ["min", "max"])
def test_nothing_overflows(dtype: str, end: str) -> None:
    value = int(getattr(np.iinfo(dtype), end))
    assert exact_sums(np.full(100_000, value, dtype)) == (100_000 * value, 100_000 * value**2)


@given(arrays, st.integers(1, 50))
def test_bins_are_counted(values: Any, n_bins: int) -> None:
    numbers = [int(v) for v in values.ravel()]
    width = -(-(max(numbers) - min(numbers) + 1) // n_bins)
    expected = [sum((v - min(numbers)) // width == k for v in numbers) for k in range(n_bins)]
    assert count_bins(values, min(numbers), width, n_bins).tolist() == expected


def test_floating_point_has_no_exact_sum() -> None:
    with pytest.raises(InputError, match="float32 values are no integers"):
        exact_sums(np.ones(3, np.float32))
