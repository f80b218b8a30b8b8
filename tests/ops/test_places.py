from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.ops.places import named_inside, require_place, voxels_of

SHAPES = st.tuples(*[st.integers(1, 2**20)] * 3)


@given(SHAPES, st.randoms(use_true_random=False))
def test_an_id_names_one_voxel(total, random):
    voxel = [random.randrange(n) for n in total]
    z, y, x = voxel
    number = 1 + (z * total[1] + y) * total[2] + x
    assert voxels_of(np.array([number], np.uint64), total).tolist() == [voxel]


def test_first_and_last_place_of_a_volume_of_2_to_the_62_voxels():
    total = (2**20, 2**21, 2**21)
    ids = np.array([1, 2**62], np.uint64)
    assert voxels_of(ids, total).tolist() == [[0, 0, 0], [n - 1 for n in total]]
    assert require_place((1, 1, 1), (0, 0, 0), total) == total


def test_places_inside_a_box():
    total, box = (4, 5, 6), Box((1, 2, 0), (2, 2, 5))
    marked = np.zeros(total, bool)
    marked[box.slices()] = True
    assert np.array_equal(named_inside(np.arange(1, 121, dtype=np.uint64), box, total), marked.ravel())


@pytest.mark.parametrize("number", [0, 121, 2**64 - 1])
def test_an_id_beyond_the_volume_names_nothing(number):
    with pytest.raises(InputError, match=f"id {number} names no voxel"):
        voxels_of(np.array([5, number], np.uint64), (4, 5, 6))


def test_an_array_outside_the_volume_is_refused():
    assert require_place((2, 3, 4)) == (2, 3, 4)
    with pytest.raises(InputError, match="leaves the whole volume"):
        require_place((2, 3, 4), (0, 0, 1), (2, 3, 4))
    with pytest.raises(InputError, match="leaves the whole volume"):
        require_place((2, 3, 4), (-1, 0, 0), (2, 3, 4))
    with pytest.raises(InputError, match="places to name"):
        require_place((1, 1, 1), (0, 0, 0), (2**21, 2**21, 2**21))
