"""Splits keep their distance, share out positives, and keep copies together; leaks are found, all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.lattice import Lattice
from emloom.ops.patchsplits import NO_SPLIT, BlockSplit, Rows, leaks, shifted, split_by_blocks

SHAPE = (1, 6, 6)
HOW = BlockSplit((8, 20, 20), (2, 6, 6), (0.6, 0.2, 0.2), 3)


def scattered(seed: int, n: int = 120, span: int = 60) -> Rows:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.integers(-20, 20, n), rng.integers(-span, span, n), rng.integers(-span, span, n)])


def brute_leaks(starts: Rows, shape: tuple[int, int, int], split: np.ndarray, iou: float, sections: int) -> set:
    found = set()
    patches = [Box(tuple(s), shape) for s in starts.tolist()]
    for i, a in enumerate(patches):
        for j in range(i + 1, len(patches)):
            b = patches[j]
            if split[i] == split[j] or NO_SPLIT in (split[i], split[j]):
                continue
            flat = [Box((0, *box.start[1:]), (1, *box.shape[1:])) for box in (a, b)]
            common = flat[0].intersect(flat[1]).size
            apart = max(0, max(a.start[0], b.start[0]) - min(a.stop[0], b.stop[0]) + 1)
            apart = 0 if apart == 1 and a.start[0] < b.stop[0] and b.start[0] < a.stop[0] else apart
            if common / (flat[0].size + flat[1].size - common) >= iou and apart <= sections:
                found.add((i, j))
    return found


@given(
    st.integers(0, 10**6),
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([1e-9, 0.2, 1 / 3, 1.0]),
    st.integers(0, 3),
)
def test_every_leak_is_found_and_nothing_else(
    seed: int, shape: tuple[int, int, int], iou: float, sections: int
) -> None:
    rng = np.random.default_rng(seed)
    starts = scattered(seed, 60, 12)
    starts = np.concatenate([starts, starts[:10]])
    split = rng.integers(-1, 3, len(starts)).astype(np.int8)
    found = leaks(starts, shape, split, iou=iou, sections=sections)
    assert {tuple(row) for row in found.rows.tolist()} == brute_leaks(starts, shape, split, iou, sections)
    assert found.rows.tolist() == sorted(found.rows.tolist())
    assert len(found.iou) == len(found.sections) == len(found)


@given(st.integers(0, 10**6), st.tuples(*[st.integers(0, 7)] * 3))
@settings(max_examples=40)
def test_patches_of_different_splits_keep_their_distance(seed: int, gap: tuple[int, int, int]) -> None:
    starts = scattered(seed, 600, 30)
    how = BlockSplit((16, 20, 20), gap, (0.6, 0.2, 0.2), seed)
    split = split_by_blocks(starts, SHAPE, starts[:, 1] % 5 == 0, how)
    a, b = np.triu_indices(len(starts), 1)
    cross = (split[a] != split[b]) & (split[a] != NO_SPLIT) & (split[b] != NO_SPLIT)
    apart = np.abs(starts[a] - starts[b])[cross] - np.array(SHAPE)
    assert (apart >= np.array(how.gap_vox)).any(axis=1).all()
    assert len(leaks(starts, SHAPE, split, iou=1e-9, sections=gap[0])) == 0
    again = split_by_blocks(starts, SHAPE, starts[:, 1] % 5 == 0, how)
    assert np.array_equal(split, again)


@given(st.integers(0, 10**6))
@settings(max_examples=30)
def test_copies_inherit_the_split_of_their_original(seed: int) -> None:
    originals = scattered(seed, 80)
    starts, parents = shifted(originals, [(0, 3, 0), (0, -3, 0), (0, 0, 3), (0, 0, -3)])
    split = split_by_blocks(starts, SHAPE, np.ones(len(starts), np.bool_), HOW, parents=parents)
    alone = split_by_blocks(originals, SHAPE, np.ones(len(originals), np.bool_), HOW)
    assert np.array_equal(np.where(split == NO_SPLIT, split[parents], split), split[parents])
    assert (split[split[parents] == NO_SPLIT] == NO_SPLIT).all()
    assert len(leaks(starts, SHAPE, split, iou=1e-9)) == 0
    assert np.array_equal(alone, split[: len(originals)])  # copies change nothing for originals


def test_a_random_split_of_shifted_patches_leaks_nearly_every_positive_and_blocks_none() -> None:
    """The originals' way: 600 positives, four copies of each 35 of 140 px away, then split patch by patch."""
    rng = np.random.default_rng(1337)
    originals = np.column_stack([rng.integers(0, 7000, 600), *rng.integers(0, 20000, (2, 600))]).astype(np.int64)
    starts, parents = shifted(originals, [(0, 35, 0), (0, -35, 0), (0, 0, 35), (0, 0, -35)])
    shape = (1, 140, 140)
    random = rng.choice(2, len(starts), p=[0.85, 0.15]).astype(np.int8)
    found = leaks(starts, shape, random, iou=1 / 3, sections=0)
    held_out = random == 1
    # A copy shares 3/4 of its original, and half of it with two of its three siblings.
    assert found.leaking(len(starts))[held_out].mean() > 0.98
    how = BlockSplit((200, 1000, 1000), (5, 140, 140), (0.7, 0.15, 0.15), 1)
    blocked = split_by_blocks(starts, shape, np.ones(len(starts), np.bool_), how, parents=parents)
    assert len(leaks(starts, shape, blocked, iou=1e-9, sections=5)) == 0
    parts = np.bincount(blocked[blocked != NO_SPLIT], minlength=3) / (blocked != NO_SPLIT).sum()
    assert np.abs(parts - (0.7, 0.15, 0.15)).max() < 0.05


def test_neighbours_in_z_leak_as_well() -> None:
    """Clean columns of the originals: 50 sections of one place, split section by section."""
    starts = np.column_stack([np.arange(50), np.zeros((50, 2), np.int64)])
    split = (np.arange(50) % 5 == 0).astype(np.int8)
    assert len(leaks(starts, (1, 140, 140), split, sections=0)) == 0
    assert leaks(starts, (1, 140, 140), split, sections=1).leaking(50)[split == 1].all()


@given(st.integers(0, 10**6))
@settings(max_examples=30)
def test_positives_are_shared_out_as_asked(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks = np.stack(np.meshgrid(np.arange(4), np.arange(6), np.arange(6), indexing="ij"), -1).reshape(-1, 3)
    starts = np.repeat(blocks * (8, 20, 20) + (4, 7, 7), 3, axis=0) + np.tile(
        [[0, 0, 0], [1, 0, 0], [-1, 0, 0]], (144, 1)
    )
    positive = rng.random(len(starts)) < 0.2
    split = split_by_blocks(starts, SHAPE, positive, HOW)
    assert (split != NO_SPLIT).all()
    for mask in (positive, ~positive):
        parts = np.bincount(split[mask], minlength=3) / mask.sum()
        assert np.abs(parts - HOW.fractions).max() <= 3 / mask.sum() + 0.02


def test_a_dense_box_loses_little_to_the_gap() -> None:
    """Random blocks would leave three of four patches in the gap."""
    lattice = Lattice((1, 140, 140), (1, 35, 35))
    starts = lattice.starts(Box.whole((100, 12, 12)))
    positive = np.random.default_rng(0).random(len(starts)) < 0.05
    split = split_by_blocks(starts, lattice.shape, positive, BlockSplit((10, 300, 300), (5, 140, 140)))
    assert (split == NO_SPLIT).mean() < 0.2
    assert len(leaks(starts, lattice.shape, split, iou=1e-9, sections=4)) == 0
    none = split_by_blocks(starts[:0], lattice.shape, positive[:0], BlockSplit((10, 300, 300), (5, 140, 140)))
    assert none.shape == (0,)


def test_blocks_that_cannot_hold_a_patch_and_strange_parents_are_refused() -> None:
    starts, positive = scattered(0), np.zeros(120, np.bool_)
    with pytest.raises(InputError, match="give at least"):
        split_by_blocks(starts, SHAPE, positive, BlockSplit((8, 10, 20), (2, 6, 6)))
    with pytest.raises(InputError, match="parents of 120"):
        split_by_blocks(starts, SHAPE, positive, HOW, parents=np.full(120, 120))
    with pytest.raises(InputError, match="parents of 120"):
        split_by_blocks(starts, SHAPE, positive, HOW, parents=np.roll(np.arange(120), 1))
    with pytest.raises(InputError, match="parts of 1"):
        BlockSplit((8, 20, 20), (2, 6, 6), (0.5, 0.4))
    with pytest.raises(InputError, match="negative"):
        BlockSplit((8, 20, 20), (-2, 6, 6))
    with pytest.raises(InputError, match="above 0"):
        leaks(starts, SHAPE, np.zeros(120, np.int8), iou=0)
