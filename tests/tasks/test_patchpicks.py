"""Which patches somebody shall look at: from everywhere, each once, the same for the same seed."""

from __future__ import annotations

from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.lattice import Lattice
from emloom.io.open import open_volume
from emloom.io.volume import ArrayVolume
from emloom.tasks.patchpicks import lattice_patches, places_of, random_patches, strata
from tests.tasks.labelling import GRID, noise


@given(st.tuples(*[st.integers(1, 40)] * 3), st.tuples(*[st.floats(1, 60)] * 3), st.integers(1, 60))
def test_strata_share_out_all_places(
    shape: tuple[int, int, int], size: tuple[float, float, float], count: int
) -> None:
    places = Box((3, -2, 5), shape)
    boxes = strata(places, size, count)
    owned = np.zeros(shape, int)
    for box in boxes:
        owned[box.slices(places.start)] += 1
    assert (owned == 1).all()
    assert len(boxes) >= min(count, prod(shape))


@settings(max_examples=30)
@given(st.tuples(*[st.integers(8, 30)] * 3), st.integers(1, 40), st.integers(0, 3))
def test_a_sample_is_of_distinct_patches_from_everywhere(
    shape: tuple[int, int, int], count: int, seed: int
) -> None:
    raw, patch = noise(shape), (1, 4, 4)
    places = places_of(raw.info, patch)
    found = random_patches(raw, patch, count, seed)
    assert len(found) == min(count, places.size)
    assert len(np.unique(found, axis=0)) == len(found)
    assert (found >= 0).all()
    assert (found + np.array(patch) <= np.array(shape)).all()
    assert found.tolist() == random_patches(raw, patch, count, seed).tolist()
    # No block gives a second patch before every block has given one.
    boxes = strata(places, GRID.voxel_size_nm, count)
    per_box = [sum(box.contains(Box(tuple(start), (1, 1, 1))) for start in found.tolist()) for box in boxes]
    if places.size > count:
        assert max(per_box) == 1


def test_places_without_data_are_left_out() -> None:
    array = np.zeros((4, 60, 60), np.uint8)
    array[:, :20] = noise((4, 20, 60)).array
    raw = ArrayVolume(array, GRID)
    found = random_patches(raw, (1, 8, 8), 50)
    assert len(found) == 50
    assert all(np.ptp(raw.read(Box(tuple(start), (1, 8, 8)))) > 0 for start in found.tolist())
    everywhere = random_patches(raw, (1, 8, 8), 50, blank=True)
    assert (everywhere[:, 1] > 20).sum() > 10
    assert len(random_patches(ArrayVolume(np.zeros((1, 9, 9), np.uint8), GRID), (1, 8, 8), 3)) == 0


def test_a_lattice_is_complete() -> None:
    info = noise((3, 20, 21)).info
    lattice = Lattice((1, 8, 8), (2, 5, 6), (1, -3, 2))
    expected = [
        (z, y, x)
        for z, y, x in product(range(3), range(20), range(21))
        if (z - 1) % 2 == 0 and (y + 3) % 5 == 0 and (x - 2) % 6 == 0 and y + 8 <= 20 and x + 8 <= 21
    ]
    assert [tuple(start) for start in lattice_patches(info, lattice).tolist()] == expected


def test_what_cannot_be_is_told() -> None:
    raw = noise((2, 9, 9))
    with pytest.raises(InputError, match="does not fit"):
        random_patches(raw, (1, 10, 4), 3)
    with pytest.raises(InputError, match="at least 1"):
        random_patches(raw, (1, 4, 4), 0)
    with pytest.raises(InputError, match="choose 1 to"):
        lattice_patches(raw.info, Lattice((1, 8, 8), (1, 50, 50), (0, 5, 5)))


@pytest.mark.real_data
def test_a_real_stack_gives_a_hundred_places(real_data: Path) -> None:
    raw = open_volume(real_data / "vnc_sstem" / "stack1_z00-14.h5" / "volumes/raw")
    found = random_patches(raw, (1, 140, 140), 200)
    assert len(np.unique(found[:, 1:], axis=0)) >= 100
    assert len(np.unique(found[:, 0])) == 15
    # The originals took 88 % of their clean patches from two columns of 560 x 560.
    quarters = np.bincount((found[:, 1] > 442) * 2 + (found[:, 2] > 442), minlength=4)
    assert quarters.min() > 30
