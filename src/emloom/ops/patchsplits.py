"""Splits of patches into training, validation and test that share no place, and the leaks of those that do.

Patches that overlap, or lie at one place of neighbouring sections, show the same tissue. Drawn at random one by
one, and worse after each was shifted about, they put the answers of the test into the training. So space is cut
first::

    +---------+---------+      blocks of `block_vox`; each goes to one split as a whole
    | train . | val   . |
    |    [a].[b]      . |      a patch grown by half the gap on every side must lie in blocks of its own split:
    +---------+---------+      a and b do not; they belong to no split (-1)

Two patches of different splits are then at least `gap_vox` apart along z, along y or along x: their grown boxes
lie in different blocks, which do not meet.

Blocks are shared out in several ways, at random and in slabs along an axis, and the way is taken that leaves every
split nearest to its part of the positives and of the others. Scattered blocks resemble each other more; in a box
that is full of patches, slabs lose fewer of them to the gap.

Rows derived from another (shifted copies) inherit its split, and are left out where they reach across.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from emloom.errors import InputError
from emloom.geometry.box import Vec, as_vec

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

SPLITS = ("train", "val", "test")
NO_SPLIT = -1

_WAYS = 16


@dataclass(frozen=True)
class BlockSplit:
    """How space is cut and shared out.

    Args:
        block_vox: extent of a block (z, y, x); holds at least a patch and the gap.
        gap_vox: least distance (z, y, x) of patches of different splits: a patch in y and x, several sections in
            z.
        fractions: part of each split, train, val and test by custom; they add up to 1.
        seed: of the order in which blocks are shared out.

    Raises:
        InputError: an extent is negative or no whole number, or fractions are negative or do not add up to 1.
    """

    block_vox: Vec
    gap_vox: Vec
    fractions: tuple[float, ...] = (0.7, 0.15, 0.15)
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "block_vox", as_vec(self.block_vox))
        object.__setattr__(self, "gap_vox", as_vec(self.gap_vox))
        if min(self.gap_vox) < 0:
            raise InputError(f"gap {self.gap_vox} (z, y, x) is negative: give 0 or more voxels")
        if not self.fractions or min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-9:
            raise InputError(f"fractions {self.fractions} of splits: give parts of 1, such as 0.7, 0.15, 0.15")


@dataclass(frozen=True, eq=False)
class Leaks:
    """Pairs of patches of different splits that show the same tissue.

    Attributes:
        rows: int64 [M, 2], the two patches, smaller row first; sorted.
        iou: float64 [M], intersection over union of their outlines in the plane. Half of a patch shared is 1 / 3.
        sections: int64 [M], sections between them: 0 where they share one, 1 where they are neighbours.
    """

    rows: Rows
    iou: NDArray[np.float64]
    sections: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def leaking(self, n: int) -> Mask:
        """Return whether each of `n` patches is in a pair."""
        found = np.zeros(n, np.bool_)
        found[self.rows.reshape(-1)] = True
        return found


def split_by_blocks(
    starts: Rows, shape: Vec, positive: Mask, how: BlockSplit, *, parents: Rows | None = None
) -> NDArray[np.int8]:
    """Return the split of every patch, -1 for none; see the module.

    Args:
        starts: int64 [N, 3], first voxel (z, y, x) of each patch.
        shape: voxels (z, y, x) of a patch.
        positive: bool [N], what every split shall have its part of.
        how: blocks, gap, parts and seed.
        parents: int64 [N], the row each was derived from, its own where it is an original; None: all are.

    Returns:
        int8 [N], 0 for the first split.

    Raises:
        InputError: a block is smaller than a patch and the gap, or parents are not rows of originals.
    """
    parents = _checked_parents(parents, len(starts))
    margin = np.array([-(-gap // 2) for gap in how.gap_vox])
    grown = np.array(shape) + 2 * margin
    if (np.array(how.block_vox) < grown).any():
        raise InputError(
            f"blocks of {how.block_vox} voxels do not hold a patch of {tuple(shape)} and a gap of {how.gap_vox} "
            f"(z, y, x): give at least {tuple(grown.tolist())}"
        )
    block = np.array(how.block_vox)
    home = ((starts + np.array(shape) // 2) // block)[parents]
    low, high = (starts - margin) // block, (starts - margin + grown - 1) // block
    corners = np.stack([np.where(np.array(c), high, low) for c in product((False, True), repeat=3)])
    blocks, number = np.unique(np.concatenate([home[None], corners]).reshape(-1, 3), axis=0, return_inverse=True)
    # Column 0: the block of the patch, or of what it is derived from; the others: all blocks it reaches.
    reach, which = np.unique(number.reshape(9, -1).T, axis=0, return_inverse=True)
    which = which.reshape(-1)
    original = parents == np.arange(len(starts))
    counts = np.stack(
        [np.bincount(which[original & part], minlength=len(reach)) for part in (positive, ~positive)]
    )
    own = counts.any(axis=0)  # what only copies reach has no say
    of_block = _best_of(_shared_out(blocks, reach[own, 0], counts[:, own], how), reach[own], counts[:, own], how)
    _fill_empty(of_block, reach, len(how.fractions))
    split = _split_of(of_block, reach)[which]
    # A copy of a patch that was left out is left out: nobody learns from what is not there.
    return np.where(split[parents] == NO_SPLIT, NO_SPLIT, split).astype(np.int8)


def leaks(starts: Rows, shape: Vec, split: NDArray[np.int8], *, iou: float = 1 / 3, sections: int = 1) -> Leaks:
    """Return all pairs of patches of different splits that overlap in the plane, in one or in near sections.

    Args:
        starts: int64 [N, 3], first voxel (z, y, x) of each patch.
        shape: voxels (z, y, x) of a patch.
        split: int8 [N]; patches of -1 are in no split and leak nothing.
        iou: pairs of at least this overlap in the plane, above 0.
        sections: pairs of at most this distance in z; 0: only such that share a section.

    Raises:
        InputError: the overlap is not above 0 and at most 1, or the distance is negative.
    """
    if not 0 < iou <= 1 or sections < 0:
        raise InputError(
            f"leaks of an overlap of {iou} within {sections} sections: give an overlap above 0 and at most 1, "
            "and 0 or more sections"
        )
    depth, height, width = shape
    # One unit is where the patches part: a cube around each then holds all it can leak to.
    scaled = starts / np.array([depth + sections, height, width])
    pairs = [np.zeros((0, 2), np.int64)]
    present = np.unique(split[split != NO_SPLIT]).tolist()
    trees = {s: (np.flatnonzero(split == s), cKDTree(scaled[split == s])) for s in present}
    for k, one in enumerate(present):
        for other in present[k + 1 :]:
            (a, tree_a), (b, tree_b) = trees[one], trees[other]
            near = tree_a.sparse_distance_matrix(tree_b, 1.0, p=np.inf, output_type="ndarray")
            pairs.append(np.sort(np.column_stack([a[near["i"]], b[near["j"]]]), axis=1))
    rows = np.concatenate(pairs)
    overlap, apart = _overlap(starts[rows[:, 0]], starts[rows[:, 1]], shape)
    kept = (overlap >= iou) & (apart <= sections)
    rows, overlap, apart = rows[kept], overlap[kept], apart[kept]
    order = np.lexsort(rows.T[::-1])
    return Leaks(rows[order], overlap[order], apart[order])


def shifted(starts: Rows, offsets: Sequence[Vec]) -> tuple[Rows, Rows]:
    """Return patches with shifted copies behind them, and the row each is derived from.

    Args:
        starts: int64 [N, 3].
        offsets: voxels (z, y, x) of each kind of copy.

    Returns:
        starts int64 [N * (1 + K), 3], originals first; parents int64 of that length.
    """
    moves = np.array([(0, 0, 0), *offsets], np.int64)
    copies = (starts[None] + moves[:, None]).reshape(-1, 3)
    return copies, np.tile(np.arange(len(starts), dtype=np.int64), len(moves))


def _overlap(a: Rows, b: Rows, shape: Vec) -> tuple[NDArray[np.float64], Rows]:
    """Return the overlap in the plane of pairs of patches, and the sections between them."""
    depth, height, width = shape
    dz, dy, dx = np.abs(a - b).T
    common = np.maximum(height - dy, 0) * np.maximum(width - dx, 0)
    return common / (2 * height * width - common), np.maximum(dz - depth + 1, 0)


def _checked_parents(parents: Rows | None, n: int) -> Rows:
    if parents is None:
        return np.arange(n, dtype=np.int64)
    wrong = parents.shape != (n,) or ((parents < 0) | (parents >= n)).any() or (parents[parents] != parents).any()
    if wrong:
        raise InputError(
            f"parents of {n} patches: give for each the row of the original it was derived from, its own for an "
            "original"
        )
    return parents


def _best_of(ways: Iterable[Rows], reach: Rows, counts: Rows, how: BlockSplit) -> Rows:
    """Return the way of sharing out blocks that leaves splits nearest to their parts."""
    best, least = np.zeros(0, np.int64), np.inf
    totals = np.maximum(1, counts.sum(axis=1))
    for of_block in ways:
        _fill_empty(of_block, reach, len(how.fractions))
        split = _split_of(of_block, reach)
        kept = np.stack([counts[:, split == k].sum(axis=1) for k in range(len(how.fractions))], axis=1)
        loss = float(np.abs(kept / totals[:, None] - np.array(how.fractions)).sum())
        if loss < least:
            best, least = of_block, loss
    return best


def _split_of(of_block: Rows, reach: Rows) -> Rows:
    """Return the split of patches by their blocks: that of their own where all they reach have it, else -1."""
    own = of_block[reach[:, 0]]
    split: Rows = np.where((of_block[reach[:, 1:]] == own[:, None]).all(axis=1), own, NO_SPLIT)
    return split


def _shared_out(blocks: Rows, home: Rows, counts: Rows, how: BlockSplit) -> Iterator[Rows]:
    """Yield the split of each block, -1 for those without a patch of their own, in several ways.

    Args:
        blocks: int64 [B, 3], where each block lies.
        home: int64 [R], block of each reach.
        counts: int64 [2, R], positives and others of each reach.
        how: fractions and seed.
    """
    rng = np.random.default_rng(how.seed)
    of_blocks = np.stack([np.bincount(home, row, len(blocks)) for row in counts]).astype(np.int64)
    present = np.flatnonzero(of_blocks.sum(axis=0))
    for _ in range(_WAYS):
        yield _scattered(rng.permutation(present), of_blocks, how)
    for _ in range(_WAYS):
        along = int(rng.integers(3))
        yield _slabs(present[np.argsort(blocks[present, along], kind="stable")], of_blocks, how, rng)


def _scattered(order: Rows, counts: Rows, how: BlockSplit) -> Rows:
    """Give blocks with most positives first, similar ones in the order given, to the split that lacks most."""
    # By the power of two: enough to fill evenly, and leaves chance its part where counts differ a little.
    size = np.frexp(counts[:, order])[1]
    lacking = np.outer(counts.sum(axis=1), how.fractions)
    of_block = np.full(counts.shape[1], NO_SPLIT, np.int64)
    for block in order[np.lexsort((-size[1], -size[0]))].tolist():
        chosen = int(np.argmax(lacking[0 if counts[0, block] else 1]))
        of_block[block] = chosen
        lacking[:, chosen] -= counts[:, block]
    return of_block


def _slabs(order: Rows, counts: Rows, how: BlockSplit, rng: np.random.Generator) -> Rows:
    """Give each split a run of blocks in the order given, as much of positives and others as is its part."""
    part = (counts / np.maximum(1, counts.sum(axis=1, keepdims=True)))[:, order].sum(axis=0)
    middle = (np.cumsum(part) - part / 2) / max(part.sum(), 1e-300)
    turn = rng.permutation(len(how.fractions))
    ends = np.cumsum(np.array(how.fractions)[turn])[:-1]
    of_block = np.full(counts.shape[1], NO_SPLIT, np.int64)
    of_block[order] = turn[np.searchsorted(ends, middle, side="right")]
    return of_block


def _fill_empty(of_block: Rows, reach: Rows, n_splits: int) -> None:
    """Give blocks without a patch of their own to the split that most reaches into them; in place."""
    empty = np.zeros(len(of_block), np.bool_)
    empty[reach] = True
    empty &= of_block == NO_SPLIT
    if not empty.any():
        return
    votes = np.zeros((len(of_block), n_splits), np.int64)
    for reached in reach[:, 1:].T:
        np.add.at(votes, (reached, of_block[reach[:, 0]]), 1)
    of_block[empty] = votes[empty].argmax(axis=1)
