"""One-hot classes: there and back, ignored and strange values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emloom.errors import InputError
from emloom.ops.onehot import one_hot

shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=0, max_side=5)


@given(hnp.arrays(np.int16, shapes, elements=st.integers(-1, 3)), st.integers(4, 6))
def test_there_and_back(labels, n_classes):
    target, weight = one_hot(labels, n_classes, ignore=-1)
    assert target.shape == (n_classes, *labels.shape)
    assert target.dtype == weight.dtype == np.uint8
    np.testing.assert_array_equal(weight, labels != -1)
    np.testing.assert_array_equal(target.sum(axis=0), weight)
    np.testing.assert_array_equal(np.where(weight == 1, target.argmax(axis=0), -1), labels)


def test_a_class_may_be_ignored():
    target, weight = one_hot(np.array([[[0, 1, 2]]], np.uint64), 3, ignore=0)
    np.testing.assert_array_equal(weight, [[[0, 1, 1]]])
    np.testing.assert_array_equal(target[:, 0, 0], [[0, 0, 0], [0, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize("labels", [np.array([[[0, 3]]], np.uint8), np.array([[[0, -1]]], np.int8)])
def test_rejects_values_that_are_no_class(labels):
    with pytest.raises(InputError, match=r"give 0 to 2, or ignore="):
        one_hot(labels, 3)


def test_rejects_what_is_no_array_of_classes():
    with pytest.raises(InputError, match="integers"):
        one_hot(np.zeros((1, 1, 1)), 3)
    with pytest.raises(InputError, match="z, y, x"):
        one_hot(np.zeros((1, 1), np.uint8), 3)
    with pytest.raises(InputError, match="n_classes"):
        one_hot(np.zeros((1, 1, 1), np.uint8), 0)
