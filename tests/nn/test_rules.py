"""Rules of crops: starts are narrowed, never wrongly; a crop that obeys is found exactly if there is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emloom.nn.rules as module
from emloom.geometry import Box, Vec
from emloom.io.volume import ArrayVolume
from emloom.nn.rules import Marked, Rule, is_one_of, suitable_starts
from emloom.nn.starts import free_starts
from tests.nn.lots import GRID, Counting
from tests.nn.test_starts import crops, voxels


def rule_of(marks: np.ndarray, least: int, most: int) -> Rule:
    return Rule(Marked(ArrayVolume(marks, GRID)), least, most, "obeys")


def every_good(shape: Vec, held: list[Box], crop: Vec, rules: list[Rule]) -> set[Vec]:
    starts = voxels(free_starts(Box.whole(shape), held, crop))
    return {s for s in starts if all(rule.obeyed(Box(s, crop)) for rule in rules)}


@given(
    st.integers(0, 2**32 - 1),
    st.floats(0, 1),
    crops,
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from([1, 2, 3, 32]),
    st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_no_start_that_obeys_is_lost(
    seed: int, density: float, crop: Vec, least: float, most: float, lattice: int, probing: bool
) -> None:
    rng = np.random.default_rng(seed)
    shape = (9, 10, 11)
    known = rng.random(shape) < density
    known[rng.integers(9) :] = False  # whole parts unknown, so that cells fall out
    bad = rng.random(shape) < 0.3
    size = int(np.prod(crop))
    rules = [rule_of(known, int(least * size), size), rule_of(bad, 0, int(most * size))]
    held = [Box((2, 3, 4), (2, 2, 2))]
    good = every_good(shape, held, crop, rules)
    starts = free_starts(Box.whole(shape), held, crop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CELLS", lattice)
        if not probing:  # chance never helps: every step is taken
            patch.setattr(module, "_probe", lambda *_: np.zeros((0, 3), np.int64))
        found = suitable_starts(starts, rules, crop, rng)
    kept = voxels(found.starts)
    assert len(kept) == len(set(kept))
    assert good <= set(kept) <= set(voxels(starts))
    assert {tuple(w) for w in found.witnesses.tolist()} <= good
    assert bool(good) == bool(len(found.witnesses))


def test_one_crop_in_a_large_volume_is_found() -> None:
    mask = np.zeros((60, 200, 200), np.uint8)
    mask[11:19, 101:117, 33:49] = 1
    rule = rule_of(mask, 8 * 16 * 16, 8 * 16 * 16)
    starts = free_starts(Box.whole(mask.shape), (), (8, 16, 16))
    found = suitable_starts(starts, [rule], (8, 16, 16), np.random.default_rng(0))
    assert found.witnesses.tolist() == [[11, 101, 33]]
    assert voxels(found.starts) == [(11, 101, 33)]
    mask[15, 110, 40] = 0
    none = suitable_starts(starts, [rule], (8, 16, 16), np.random.default_rng(0))
    assert not len(none.witnesses)


def test_where_many_crops_obey_nothing_is_scanned() -> None:
    mask = Counting(ArrayVolume(np.ones((60, 200, 200), np.uint8), GRID))
    rule = replace(rule_of(np.zeros((1, 1, 1)), 10, 1000), marked=Marked(mask))
    starts = free_starts(Box.whole((60, 200, 200)), (), (10, 10, 10))
    assert suitable_starts(starts, [rule], (10, 10, 10), np.random.default_rng(0)).starts is starts
    assert mask.reads == 64
    assert mask.voxels == 64_000


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint32, np.int64, np.uint64])
def test_ids_are_compared_exactly(dtype: type) -> None:
    top = int(np.iinfo(dtype).max)
    values = np.array([0, 1, top - 1, top], dtype)
    assert is_one_of(values, (top,)).tolist() == [False, False, False, True]
    assert is_one_of(values, (1, top - 1, -7, 2**70)).tolist() == [False, True, True, False]
    assert not is_one_of(values, (2**70,)).any()
