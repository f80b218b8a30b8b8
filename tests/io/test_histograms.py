"""Histograms survive being bytes, and bytes that are none are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from emloom.errors import InputError
from emloom.io.histograms import pack, unpack

COUNTS = st.one_of(st.just(0), st.integers(0, 3), st.integers(120, 140), st.integers(0, 2**63 - 1))


@settings(deadline=None, max_examples=50)
@given(st.data(), st.integers(0, 6), st.sampled_from([1, 2, 16, 256]))
def test_round_trip(data, rows, bins):
    histogram = data.draw(arrays(np.int64, (rows, bins), elements=COUNTS))
    starts, packed = pack(histogram)
    assert starts[0] == 0
    assert starts[-1] == len(packed)
    np.testing.assert_array_equal(unpack(starts, packed, bins), histogram)


def test_the_bytes_are_those_of_the_module_s_picture():
    starts, packed = pack(np.array([[0, 0, 5, 300, 0, 0, 1, 0]], np.int64))
    assert packed.tolist() == [2, 5, 0, 0xAC, 2, 2, 1]
    assert starts.tolist() == [0, 7]


@pytest.mark.parametrize(
    "packed",
    [[2], [8, 1], [0, 0x80], [0, 1, 7, 1], [0, *[0x80] * 9, 1]],
    ids=["no count", "beyond the bins", "cut short", "beyond, second", "too long"],
)
def test_bytes_that_are_no_histograms_are_refused(packed):
    with pytest.raises(InputError, match="damaged, or have not 8 bins"):
        unpack(np.array([0, len(packed)]), np.array(packed, np.uint8), 8)


def test_bad_histograms_are_named():
    for bad in (np.zeros((2, 300), np.int64), np.zeros((2, 0), np.int64), np.zeros(3, np.int64), np.zeros((2, 4))):
        with pytest.raises(InputError, match="give int64"):
            pack(bad)
    with pytest.raises(InputError, match="counts -1"):
        pack(np.array([[0, -1]], np.int64))
