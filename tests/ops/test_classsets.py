"""Sets of candidate classes: there and back, against Python's own sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.ops.classsets import MOST_IN_SETS, SETS, are_sets, candidates, classes_of, set_label

members = st.sets(st.integers(0, MOST_IN_SETS - 1), min_size=1)


@given(members)
def test_there_and_back(classes):
    label = set_label(classes)
    assert SETS < label < 2**63
    assert set(classes_of(label)) == classes


@given(st.lists(members, max_size=6), st.sampled_from([np.int64, np.uint64]))
def test_candidates_are_the_members(sets, dtype):
    plain = [0, 3, SETS - 1, *([2**63, 2**64 - 1] if dtype is np.uint64 else [-1])]
    labels = np.array([*plain, *map(set_label, sets)], dtype)
    where = are_sets(labels)
    assert where.tolist() == [False] * len(plain) + [True] * len(sets)
    found = candidates(labels, MOST_IN_SETS, where)
    assert found.shape == (MOST_IN_SETS, len(sets))
    assert [set(np.flatnonzero(column)) for column in found.T] == sets


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint32])
def test_small_labels_hold_no_sets(dtype):
    assert not are_sets(np.full((2, 3), np.iinfo(dtype).max, dtype)).any()


@pytest.mark.parametrize("classes", [(), (-1,), (3, MOST_IN_SETS)])
def test_sets_that_cannot_be(classes):
    with pytest.raises(InputError, match="set"):
        set_label(classes)


@pytest.mark.parametrize(
    ("label", "message"), [(SETS, "set of no class"), (set_label((1, 3)), r"\(1, 3\), and there are 3")]
)
def test_labels_that_are_no_sets_of_these_classes(label, message):
    labels = np.array([[0, label]], np.uint64)
    with pytest.raises(InputError, match=message):
        candidates(labels, 3, are_sets(labels))
