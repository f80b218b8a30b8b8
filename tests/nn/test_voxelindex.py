"""The index of voxels: exact counts, exact probabilities, one read a draw, bounded memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import emloom.nn.voxelindex as module
from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.volume import ArrayVolume
from emloom.nn.starts import Starts, free_starts
from emloom.nn.voxelindex import Groups, VoxelIndex, index_voxels
from tests.nn.lots import GRID, Counting, Virtual


def small_cells(patch: pytest.MonkeyPatch, cell: int, read: int) -> None:
    patch.setattr(module, "_CELL", cell)
    patch.setattr(module, "_READ", read)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.uint8, np.int8, np.int16, np.uint32, np.int64, np.uint64]),
    st.sampled_from([(1, 1), (2, 4), (3, 6), (4, 4), (32, 128)]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([3, 40, 10_000]),
)
@settings(deadline=None, max_examples=40)
def test_every_reachable_voxel_is_counted_in_its_group(
    seed: int, dtype: type, lattice: tuple[int, int], merged: bool, background: bool, rows: int
) -> None:
    rng = np.random.default_rng(seed)
    names = np.array([0, 1, 5, np.iinfo(dtype).max >> (dtype is np.uint64), 7], dtype)
    if np.dtype(dtype).kind == "i":
        names[4] = -3
    labels = names[rng.integers(5, size=(9, 10, 12))]
    mask = rng.random(labels.shape) < 0.7
    region, held, crop = Box((1, 0, 2), (7, 10, 9)), [Box((3, 4, 2), (2, 3, 9))], (3, 2, 4)
    starts = free_starts(region, held, crop)
    groups = Groups(ArrayVolume(labels, GRID), None, ArrayVolume(mask, GRID), merged, background)
    with pytest.MonkeyPatch.context() as patch:
        small_cells(patch, *lattice)
        if rows == 3 and not merged:
            patch.setattr(module, "_LARGEST_CELL", 4)
            with pytest.raises(InputError, match="by voxel instead"):
                index_voxels(groups, starts, crop, rows)
            return
        index = index_voxels(groups, starts, crop, rows)
    counted = mask & starts.covered(crop, Box.whole(labels.shape)) & (background | (labels != 0))
    expected = Counter([1] * int(counted.sum()) if merged else labels[counted].tolist())
    assert dict(zip(index.ids.tolist(), index.sizes.tolist(), strict=True)) == expected
    assert len(index.ends) <= rows
    for group in range(index.count):
        z, y, x = index.draw(rng, group)
        assert counted[z, y, x]
        assert merged or labels[z, y, x] == index.ids[group]


def test_every_voxel_of_a_group_is_drawn_for_exactly_one_rank() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (6, 7, 8)).astype(np.uint16)
    starts = free_starts(Box.whole(labels.shape), (), (2, 2, 2))
    with pytest.MonkeyPatch.context() as patch:
        small_cells(patch, 3, 6)
        index = index_voxels(Groups(ArrayVolume(labels, GRID)), starts, (2, 2, 2))
    for group, name in enumerate(index.ids.tolist()):
        drawn = [index.draw(Ranks(rank), group) for rank in range(int(index.sizes[group]))]  # type: ignore[arg-type]
        assert sorted(drawn) == [*map(tuple, np.argwhere(labels == name).tolist())]


class Ranks:
    """Stands for a generator whose next integer is known."""

    def __init__(self, rank: int) -> None:
        self.rank = rank

    def integers(self, bound: Any) -> int:
        assert self.rank < bound
        return self.rank


def test_a_draw_reads_one_cell_and_the_table_is_small_whatever_the_volume() -> None:
    shape = (100, 400, 600)
    labels, mask = Counting(Virtual(shape)), Counting(ArrayVolume(np.ones(shape, np.uint8), GRID))
    starts = free_starts(Box.whole(shape), (), (16, 64, 64))
    index = index_voxels(Groups(labels, mask=mask), starts, (16, 64, 64))
    assert labels.voxels == np.prod(shape)  # one pass
    assert index.count == 2 * 8 * 12
    assert index.nbytes < 100_000
    labels.reads = labels.voxels = mask.reads = 0
    rng = np.random.default_rng(0)
    for _ in range(50):
        index.draw(rng)
    assert (labels.reads, mask.reads) == (50, 50)
    assert labels.voxels <= 50 * 32**3


def test_coarser_cells_draw_from_the_same_law() -> None:
    labels = np.random.default_rng(1).integers(0, 3, (20, 20, 20)).astype(np.uint8)
    starts, groups = free_starts(Box.whole(labels.shape), (), (4, 4, 4)), Groups(ArrayVolume(labels, GRID))
    with pytest.MonkeyPatch.context() as patch:
        small_cells(patch, 2, 8)
        fine, coarse = index_voxels(groups, starts, (4, 4, 4)), index_voxels(groups, starts, (4, 4, 4), rows=60)
    assert fine.cell == (2, 2, 2)
    assert coarse.cell > fine.cell
    assert len(coarse.ends) <= 60 < len(fine.ends)
    assert fine.ids.tolist() == coarse.ids.tolist()
    assert fine.sizes.tolist() == coarse.sizes.tolist()
    for group in range(2):
        both = [{index.draw(Ranks(r), group) for r in range(int(fine.sizes[group]))} for index in (fine, coarse)]  # type: ignore[arg-type]
        assert both[0] == both[1]


def test_what_cannot_be_indexed_is_an_error() -> None:
    starts = free_starts(Box.whole((4, 4, 4)), (), (2, 2, 2))

    def index_of(labels: np.ndarray) -> VoxelIndex:
        return index_voxels(Groups(ArrayVolume(labels, GRID)), starts, (2, 2, 2))

    with pytest.raises(InputError, match="only from a zyx volume of integers"):
        index_of(np.ones((4, 4, 4), np.float32))
    with pytest.raises(InputError, match="below 2"):
        index_of(np.full((4, 4, 4), 2**63 + 1, np.uint64))
    labels = np.ones((4, 4, 4), np.uint64)
    index = index_of(labels)
    labels[0] = 0
    with pytest.raises(InputError, match="changed in"):
        index.draw(np.random.default_rng(0))
    assert index_of(np.zeros((4, 4, 4), np.uint64)).count == 0
    assert Starts.of(()).count == 0
