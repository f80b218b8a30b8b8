"""What a crop must hold to be used, and which starts can hold it.

A rule counts marked voxels of a crop: at least so many known ones, at most so many artefacts, at least so much
foreground. `suitable_starts` answers, before training begins, whether any crop obeys all rules, and narrows the
starts to those that might, as far as needed for draws to succeed soon:

1. try some crops at random; if enough obey, leave the starts as they are;
2. else count the marked voxels of a coarse lattice in one pass, and drop every cell of starts whose crops cannot
   obey: the cells around a crop bound its count from above, the cells inside it from below;
3. if still hardly any crop obeys, look at every start that is left and shrink each cell to the bounding box of
   the starts that obey. This is exact: no cell left means that no crop obeys.

Only starts that break a rule are ever dropped. So a uniform draw among what is left, repeated until the rules are
obeyed, is uniform among the starts that obey, whichever step was the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec
from emloom.geometry.tiling import cells
from emloom.io.volume import Volume
from emloom.nn.starts import Starts, Voxels

_PROBES = 64
_ENOUGH = 16  # of the probes: a draw then takes 4 tries on average
_CELLS = 32  # of the coarse lattice, per axis
_READ = 128  # voxels per axis of one read of a pass


def is_one_of(values: NDArray[Any], ids: Sequence[int]) -> NDArray[np.bool_]:
    """Return where integers are among `ids`; exact for all of uint64, which numpy would compare as floats."""
    limits = np.iinfo(values.dtype)
    wanted = np.array([i for i in ids if limits.min <= i <= limits.max], values.dtype)
    return values == wanted[0] if len(wanted) == 1 else np.isin(values, wanted)


@dataclass(frozen=True)
class Marked:
    """The voxels of a label volume that count: non-zero, or with one of some ids, and known.

    Attributes:
        volume: ``zyx`` integers.
        ids: the ids that count; None: all but 0.
        mask: where values count at all, non-zero; None: everywhere.
    """

    volume: Volume
    ids: tuple[int, ...] | None = None
    mask: Volume | None = None

    def read(self, box: Box) -> NDArray[np.bool_]:
        """Return bool ZYX, the marked voxels of `box`."""
        values = self.volume.read(box)
        marked = values != 0 if self.ids is None else is_one_of(values, self.ids)
        return marked if self.mask is None else marked & (self.mask.read(box) != 0)


@dataclass(frozen=True)
class Rule:
    """A crop holds at least `least` and at most `most` marked voxels.

    Attributes:
        marked: which voxels are counted.
        least: smallest count.
        most: largest count.
        text: the rule in words, e.g. "has at least half of its voxels known".
    """

    marked: Marked
    least: int
    most: int
    text: str

    @classmethod
    def at_least(cls, marked: Marked, share: float, shape: Vec, text: str) -> Rule:
        """Return the rule that at least a share of the voxels of a crop is marked."""
        size = prod(shape)
        return cls(marked, ceil(share * size - 1e-6), size, text)

    @classmethod
    def at_most(cls, marked: Marked, share: float, shape: Vec, text: str) -> Rule:
        """Return the rule that at most a share of the voxels of a crop is marked."""
        return cls(marked, 0, floor(share * prod(shape) + 1e-6), text)

    def obeyed(self, box: Box) -> bool:
        """Whether the crop `box` obeys the rule (one read)."""
        return self.least <= int(np.count_nonzero(self.marked.read(box))) <= self.most

    def binds(self, shape: Vec) -> bool:
        """Whether a crop of `shape` could break the rule at all."""
        return self.least > 0 or self.most < prod(shape)


def obey(rules: Sequence[Rule], start: Vec, shape: Vec) -> bool:
    """Whether a crop obeys every rule."""
    box = Box(start, shape)
    return all(rule.obeyed(box) for rule in rules)


@dataclass(frozen=True, eq=False)
class Suitable:
    """The outcome of `suitable_starts`.

    Attributes:
        starts: every start that obeys is among them.
        witnesses: int64 [k, 3], some starts that do obey; none at all exactly if no start obeys.
    """

    starts: Starts
    witnesses: Voxels


def suitable_starts(starts: Starts, rules: Sequence[Rule], shape: Vec, rng: np.random.Generator) -> Suitable:
    """Return the starts narrowed to those that may obey all rules, with proof that some do; see the module.

    Args:
        starts: the allowed starts.
        rules: what a crop must obey; if all volumes are large, one pass over each marked volume may be needed.
        shape: of the crop.
        rng: chooses the crops that are tried.
    """
    found = _probe(starts, rules, shape, rng)
    if len(found) >= _ENOUGH or not starts.count:
        return Suitable(starts, found)
    for rule in rules:
        starts = _coarse(starts, rule, shape)
        if not starts.count:
            return Suitable(starts, found)
    found = np.unique(np.concatenate([found, _probe(starts, rules, shape, rng)]), axis=0)
    return Suitable(starts, found) if len(found) else _exact(starts, rules, shape, rng)


def _probe(starts: Starts, rules: Sequence[Rule], shape: Vec, rng: np.random.Generator) -> Voxels:
    drawn = [starts.draw(rng) for _ in range(_PROBES)] if starts.count else []
    return np.array([start for start in drawn if obey(rules, start, shape)], np.int64).reshape(-1, 3)


# ---- one pass over a coarse lattice ----------------------------------------------------------------------


def _coarse(starts: Starts, rule: Rule, shape: Vec) -> Starts:
    """Return the starts without the cells of a coarse lattice whose crops cannot obey a rule."""
    if not rule.binds(shape):
        return starts
    hull = starts.hull(shape)
    cell = tuple(max(1, ceil(n / _CELLS)) for n in hull.shape)
    sums = _lattice_sums(rule.marked, hull, cell)
    extent = tuple(s - n + 1 for s, n in zip(hull.shape, shape, strict=True))
    lattice = tuple(ceil(n / c) for n, c in zip(extent, cell, strict=True))
    # Starts j*c .. j*c+c-1: every crop lies in the cells j .. j + (c+n-2)//c and contains j+1 .. j + n//c - 1
    # (with cells of one voxel it contains j, too, and both bounds are the count itself).
    upper, lower = sums, sums
    for axis, (c, n, m) in enumerate(zip(cell, shape, lattice, strict=True)):
        upper = _windows(upper, axis, range(m), 0, (c + n - 2) // c + 1)
        first = 0 if c == 1 else 1
        lower = _windows(lower, axis, range(m), first, max(first, n // c))
    kept = np.argwhere((upper >= rule.least) & (lower <= rule.most))
    corner = np.array(hull.start) + kept * cell
    low, high = [], []
    for a, b in zip(corner, corner + cell, strict=True):
        inside = starts.within(a, b)
        low.append(inside.low)
        high.append(inside.high)
    return Starts(np.concatenate(low), np.concatenate(high)) if low else Starts.of(())


def _lattice_sums(marked: Marked, hull: Box, cell: tuple[int, ...]) -> Voxels:
    """Return the number of marked voxels of each cell of the lattice that begins at the hull's first voxel."""
    out = np.zeros([ceil(n / c) for n, c in zip(hull.shape, cell, strict=True)], np.int64)
    for _, box in cells(hull, _READ):
        block = marked.read(box).astype(np.int64)
        index = []
        for axis, (a, n, o) in enumerate(zip(box.start, box.shape, hull.start, strict=True)):
            number = (np.arange(a, a + n) - o) // cell[axis]
            numbers, first = np.unique(number, return_index=True)
            block = np.add.reduceat(block, first, axis=axis)
            index.append(numbers)
        out[np.ix_(*index)] += block
    return out


def _windows(sums: Voxels, axis: int, at: range, first: int, stop: int) -> Voxels:
    """Return the sums of ``sums[j + first : j + stop]`` along an axis for every j of `at`; beyond the end is 0."""
    total = np.insert(np.cumsum(sums, axis=axis), 0, 0, axis=axis)
    last = sums.shape[axis]
    j = np.arange(at.start, at.stop)
    upper, lower = np.minimum(j + stop, last), np.minimum(j + first, last)
    out: Voxels = total.take(upper, axis=axis) - total.take(lower, axis=axis)
    return out


# ---- every start -----------------------------------------------------------------------------------------


def _exact(starts: Starts, rules: Sequence[Rule], shape: Vec, rng: np.random.Generator) -> Suitable:
    """Return each box of starts shrunk around the starts that obey, and up to 64 of these."""
    low, high, seen = [], [], []
    for whole in starts.boxes():
        for _, box in cells(whole, _READ // 2):
            good = np.argwhere(_obeying(box, rules, shape)) + box.start
            if len(good):
                low.append(good.min(axis=0))
                high.append(good.max(axis=0) + 1)
                seen.append(good[rng.integers(len(good))])
    if not seen:
        return Suitable(Starts.of(()), np.zeros((0, 3), np.int64))
    picks = rng.permutation(len(seen))[:_PROBES]
    return Suitable(Starts(np.array(low), np.array(high)), np.array(seen)[picks])


def _obeying(box: Box, rules: Sequence[Rule], shape: Vec) -> NDArray[np.bool_]:
    """Return, for each start in `box`, whether its crop obeys all rules: bool ZYX."""
    hull = Box(box.start, tuple(n + s - 1 for n, s in zip(box.shape, shape, strict=True)))  # type: ignore[arg-type]
    good = np.ones(box.shape, bool)
    for rule in rules:
        count = rule.marked.read(hull).astype(np.int64)
        for axis, (n, s) in enumerate(zip(box.shape, shape, strict=True)):
            count = _windows(count, axis, range(n), 0, s)
        good &= (rule.least <= count) & (count <= rule.most)
    return good
