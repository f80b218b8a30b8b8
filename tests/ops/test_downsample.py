"""Downsampling: against definitions spelled out in Python integers, and blockwise against whole."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, cells
from emloom.ops.downsample import coarse_shape, downsample_majority, downsample_mean, in_phase

INTEGERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")
shapes = st.tuples(*[st.integers(1, 9)] * 3)
factors_of = st.tuples(*[st.integers(1, 4)] * 3)


def windows(array: NDArray[Any], factors: tuple[int, int, int]) -> Any:
    """Yield (coarse voxel, list of its values as Python numbers)."""
    for index in product(*[range(n) for n in coarse_shape(array.shape, factors)]):
        where = tuple(slice(i * f, (i + 1) * f) for i, f in zip(index, factors, strict=True))
        yield index, array[where].ravel().tolist()


def random_array(shape: tuple[int, ...], dtype: str, seed: int, few: bool = False) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    low, high = (0, 3) if few else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return rng.integers(low, high, shape, dtype=dtype, endpoint=True)


@settings(deadline=None)
@given(shapes, factors_of, st.sampled_from(INTEGERS), st.integers(0, 99))
def test_mean_is_the_exact_sum_rounded_half_up(
    shape: tuple[int, int, int], factors: tuple[int, int, int], dtype: str, seed: int
) -> None:
    array = random_array(shape, dtype, seed)
    got = downsample_mean(array, factors)
    assert (got.dtype, got.shape) == (array.dtype, coarse_shape(shape, factors))
    for index, values in windows(array, factors):
        n = len(values)
        assert int(got[index]) == (2 * sum(values) + n) // (2 * n)


@settings(deadline=None)
@given(shapes, factors_of, st.sampled_from(INTEGERS), st.integers(0, 99))
def test_majority_is_the_most_frequent_value_and_the_smallest_of_a_tie(
    shape: tuple[int, int, int], factors: tuple[int, int, int], dtype: str, seed: int
) -> None:
    array = random_array(shape, dtype, seed, few=True)
    got = downsample_majority(array, factors)
    assert (got.dtype, got.shape) == (array.dtype, coarse_shape(shape, factors))
    for index, values in windows(array, factors):
        counts = Counter(values)
        assert int(got[index]) == min(v for v in counts if counts[v] == max(counts.values()))


@settings(deadline=None)
@given(shapes, factors_of, factors_of, st.booleans(), st.integers(0, 99))
def test_parts_of_the_whole_are_the_whole_of_the_parts(
    shape: tuple[int, int, int], factors: tuple[int, int, int], steps: tuple[int, int, int], few: bool, seed: int
) -> None:
    array = random_array(shape, "uint16", seed, few)
    for kernel in (downsample_mean, downsample_majority):
        whole = kernel(array, factors)
        parts = np.empty_like(whole)
        for _, box in cells(Box.whole(coarse_shape(shape, factors)), steps):
            fine = tuple(slice(a * f, b * f) for a, b, f in zip(box.start, box.stop, factors, strict=True))
            parts[box.slices()] = kernel(array[fine], factors)
        np.testing.assert_array_equal(parts, whole)


@settings(deadline=None)
@given(st.permutations(range(27)))
def test_majority_does_not_depend_on_the_order_of_voxels(order: list[int]) -> None:
    values = np.array([7, 7, 3, 3, 9, 0, 0] + [100 + i for i in range(20)], np.uint64)[order]
    assert downsample_majority(values.reshape(3, 3, 3), 3) == [[[0]]]


@pytest.mark.parametrize("factor", [4, 5])
def test_large_windows_count_alike(factor: int) -> None:
    array = random_array((factor, factor, factor), "uint32", 5, few=True)
    values, counts = np.unique(array, return_counts=True)
    assert downsample_majority(array, factor) == [[[values[np.argmax(counts)]]]]


def test_half_is_rounded_up_below_zero_too() -> None:
    assert downsample_mean(np.array([[[-1, -2]]], np.int16), (1, 1, 2)) == [[[-1]]]
    assert downsample_mean(np.array([[[1, 2]]], np.uint8), (1, 1, 2)) == [[[2]]]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_means_of_floating_point(dtype: str) -> None:
    array = np.random.default_rng(0).random((5, 7, 9)).astype(dtype)
    array[4, 6, 8] = np.nan
    got = downsample_mean(array, (2, 3, 2))
    assert got.dtype == array.dtype
    for index, values in windows(array.astype("float64"), (2, 3, 2)):
        np.testing.assert_allclose(got[index], np.mean(values), rtol=1e-3 if dtype == "float16" else 1e-6)


def test_masks_stay_boolean() -> None:
    mask = np.array([[[True, False, True, True, True]]])
    np.testing.assert_array_equal(downsample_majority(mask, 2), [[[False, True, True]]])


def test_channels_are_downsampled_each_on_its_own() -> None:
    array = random_array((3, 4, 5, 6), "uint8", 0)
    np.testing.assert_array_equal(downsample_mean(array, 2), [downsample_mean(c, 2) for c in array])


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [">u2", "<u2"])
def test_layout_in_memory_does_not_matter(order: str, dtype: str) -> None:
    array = random_array((5, 6, 7), "uint16", 0)
    stored = np.asarray(array, dtype, order=order)
    np.testing.assert_array_equal(downsample_mean(stored, 2), downsample_mean(array, 2))


@pytest.mark.parametrize(
    ("kernel", "array", "factors", "message"),
    [
        (downsample_mean, np.zeros((2, 2, 2), bool), 2, "no mean"),
        (downsample_majority, np.zeros((2, 2, 2), np.float32), 2, "no majority"),
        (downsample_mean, np.zeros((2, 2), np.uint8), 2, "2 dimensions"),
        (downsample_mean, np.zeros((2, 2, 2), np.uint8), (1, 0, 1), "not positive"),
    ],
)
def test_what_cannot_be_downsampled(kernel: Any, array: NDArray[Any], factors: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kernel(array, factors)


@settings(deadline=None)
@given(shapes, factors_of, st.data(), st.sampled_from([downsample_mean, downsample_majority]))
def test_a_phase_is_a_lattice_that_begins_before_the_array(
    shape: tuple[int, int, int], factors: tuple[int, int, int], data: st.DataObject, method: Any
) -> None:
    phase = data.draw(st.tuples(*[st.integers(0, f - 1) for f in factors]))
    array = random_array(shape, "int16", 5, few=True)
    got = in_phase(method, array, factors, phase)
    assert got.shape == tuple(-(-(n + p) // f) for n, p, f in zip(shape, phase, factors, strict=True))
    held: dict[Any, list[int]] = {}
    for at in np.ndindex(shape):
        held.setdefault(tuple((a + p) // f for a, p, f in zip(at, phase, factors, strict=True)), []).append(
            array[at]
        )
    for index, values in held.items():
        assert got[index] == method(np.array(values, np.int16).reshape(1, 1, -1), (1, 1, len(values))).item()
    with pytest.raises(InputError, match="does not lie in a window"):
        in_phase(method, array, factors, factors)
