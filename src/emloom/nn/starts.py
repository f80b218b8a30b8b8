"""Where a crop may start: a set of voxels held as disjoint boxes, drawn from without a single refusal.

A crop of a given shape is named by its first voxel. The allowed starts of a region without its held-out boxes are
a box minus some boxes, so they fall into a few disjoint boxes, whatever the size of the volume::

    region of starts        ┌───────────┐        ┌───────────┐
    minus the starts whose  │   ┌───┐   │        │     1     │     a box that is cut out leaves at most
    crops meet a held-out   │   └───┘   │   ->   ├───┬───┬───┤     six pieces (four in the plane)
    box                     └───────────┘        │ 3 │   │ 4 │
                                                 ├───┴───┴───┤
                                                 │     2     │
                                                 └───────────┘

Numbering the starts piece by piece makes a uniform draw one integer and one binary search. Nothing as long as the
volume is ever stored or shuffled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec

Voxels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Starts:
    """A set of voxels: disjoint boxes, none of them empty.

    Attributes:
        low: int64 [n, 3], first voxel (z, y, x) of each box.
        high: int64 [n, 3], first voxel after each box.
    """

    low: Voxels
    high: Voxels

    @classmethod
    def of(cls, boxes: Iterable[Box]) -> Starts:
        """Return the voxels of disjoint boxes; empty ones are left out."""
        kept = [box for box in boxes if not box.is_empty]
        low = np.array([box.start for box in kept], np.int64).reshape(-1, 3)
        high = np.array([box.stop for box in kept], np.int64).reshape(-1, 3)
        return cls(low, high)

    @cached_property
    def _ends(self) -> Voxels:
        return np.cumsum((self.high - self.low).prod(axis=1))

    @property
    def count(self) -> int:
        """Number of voxels."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def boxes(self) -> Iterator[Box]:
        """Iterate over the boxes."""
        for low, high in zip(self.low.tolist(), self.high.tolist(), strict=True):
            yield Box.of(low, high)

    def at(self, number: int) -> Vec:
        """Return voxel `number` of the set, 0 <= number < count."""
        piece = int(np.searchsorted(self._ends, number, side="right"))
        rest = number - (int(self._ends[piece - 1]) if piece else 0)
        low = self.low[piece].tolist()
        _, rows, columns = (self.high[piece] - self.low[piece]).tolist()
        plane, rest = divmod(rest, rows * columns)
        row, column = divmod(rest, columns)
        return (low[0] + plane, low[1] + row, low[2] + column)

    def draw(self, rng: np.random.Generator) -> Vec:
        """Return a voxel of the set, each with the same probability: one integer of the generator."""
        return self.at(int(rng.integers(self.count)))

    def within(self, low: Sequence[int] | Voxels, high: Sequence[int] | Voxels) -> Starts:
        """Return the voxels of the set that lie in ``[low, high)``."""
        a, b = np.maximum(self.low, low), np.minimum(self.high, high)
        kept = (a < b).all(axis=1)
        return Starts(a[kept], b[kept])

    def holding(self, voxel: Sequence[int] | Voxels, shape: Vec) -> Starts:
        """Return the starts of the crops of `shape` that contain `voxel`."""
        top = np.asarray(voxel, np.int64) + 1
        return self.within(top - shape, top)

    def nearest(self, voxel: Sequence[int] | Voxels) -> Vec:
        """Return the voxel of the set nearest to any voxel (of equals that of the first box); it is not empty."""
        closest = np.clip(voxel, self.low, self.high - 1)
        z, y, x = closest[int(np.argmin(((closest - voxel) ** 2).sum(axis=1)))].tolist()
        return (z, y, x)

    def covered(self, shape: Vec, box: Box) -> NDArray[np.bool_]:
        """Return, for each voxel of `box`, whether some crop of `shape` contains it: bool ZYX."""
        reach = Starts(self.low, self.high + (np.array(shape) - 1)).within(box.start, box.stop)
        out = np.zeros(box.shape, bool)
        for low, high in zip(reach.low - box.start, reach.high - box.start, strict=True):
            out[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
        return out

    def hull(self, shape: Vec) -> Box:
        """Return the smallest box around all crops of `shape` (at least one start)."""
        return Box.of(self.low.min(axis=0).tolist(), (self.high.max(axis=0) + np.array(shape) - 1).tolist())


def free_starts(region: Box, held_out: Sequence[Box], shape: Vec) -> Starts:
    """Return the starts of every crop of `shape` that lies in `region` and meets no held-out box."""
    extents = [n - s + 1 for n, s in zip(region.shape, shape, strict=True)]
    if min(extents) < 1:
        return Starts.of(())
    free = [Box(region.start, (extents[0], extents[1], extents[2]))]
    for held in held_out:
        if not held.is_empty:
            # A crop meets `held` exactly if its start lies in `held` grown below by shape - 1.
            hit = held.grow([n - 1 for n in shape], 0)
            free = [piece for box in free for piece in _without(box, hit)]
    return Starts.of(free)


def _without(box: Box, hit: Box) -> Iterator[Box]:
    """Iterate over disjoint boxes that hold the voxels of `box` outside `hit`."""
    common = box.intersect(hit)
    if common.is_empty:
        yield box
        return
    low, high = list(box.start), list(box.stop)
    for axis in range(3):
        for a, b in ((low[axis], common.start[axis]), (common.stop[axis], high[axis])):
            if a < b:
                yield Box.of([*low[:axis], a, *low[axis + 1 :]], [*high[:axis], b, *high[axis + 1 :]])
        low[axis], high[axis] = common.start[axis], common.stop[axis]
