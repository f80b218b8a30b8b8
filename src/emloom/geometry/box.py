"""A box of voxels: where it starts and how large it is.

Convention: ``[start, start + shape)`` in voxels, ordered z, y, x. A box may start below zero (padding) and may
be empty (some extent 0), but its extents are never negative.

Algebra::

    a.intersect(b) == b.intersect(a)            the voxels in both; empty where they do not meet
    a.hull(b) contains a and b                  the smallest such box; an empty box adds nothing to it
    a.grow(m).grow(-m) == a                     for any margin m >= 0
    a.shift(v).shift(-v) == a
    a.snap(s).snap(s) == a.snap(s)              the faces lie on the lattice, once and for all
    a.coarsen(f).coarsen(g) == a.coarsen(f * g)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from numbers import Real
from operator import index
from typing import SupportsIndex

from emloom.errors import InputError

Vec = tuple[int, int, int]


def as_vec(value: int | Sequence[int]) -> Vec:
    """Return three exact integers (z, y, x); one integer is repeated. numpy's integers and 2.0 are welcome.

    Raises:
        InputError: not three values, or a value is not a whole number (nothing is ever truncated).
    """
    values = list(value) if isinstance(value, Iterable) else [value] * 3
    if len(values) != 3:
        raise InputError(f"{value!r} has {len(values)} values: give three, in z, y, x order")
    z, y, x = (_whole(v, value) for v in values)
    return (z, y, x)


def _whole(number: object, given: object) -> int:
    if isinstance(number, int | SupportsIndex):  # int first: asking for a protocol takes 20 times as long
        return index(number)
    if isinstance(number, Real) and float(number).is_integer():
        return int(float(number))
    raise InputError(f"{given!r} is not a whole number of voxels: voxel counts are never rounded silently")


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open, axis-aligned box of voxels.

    Args:
        start: first voxel (z, y, x).
        shape: number of voxels along (z, y, x); zero is an empty box.

    Raises:
        InputError: a value is not a whole number, or an extent is negative.
    """

    start: Vec
    shape: Vec

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", as_vec(self.start))
        object.__setattr__(self, "shape", as_vec(self.shape))
        if min(self.shape) < 0:
            raise InputError(f"box shape {self.shape} has a negative extent: extents are at least 0")

    @classmethod
    def of(cls, start: Sequence[int], stop: Sequence[int]) -> Box:
        """Return the box ``[start, stop)``; raises `InputError` where stop lies before start."""
        a, b = as_vec(start), as_vec(stop)
        return cls(a, (b[0] - a[0], b[1] - a[1], b[2] - a[2]))

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """Return the box of this shape that starts at voxel (0, 0, 0)."""
        return cls((0, 0, 0), as_vec(shape))

    @property
    def stop(self) -> Vec:
        """First voxel (z, y, x) after the box."""
        return add(self.start, self.shape)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return prod(self.shape)

    @property
    def is_empty(self) -> bool:
        """Whether the box holds no voxel."""
        return 0 in self.shape

    def slices(self, origin: Vec = (0, 0, 0)) -> tuple[slice, slice, slice]:
        """Return the index of this box into an array whose first voxel is `origin`.

        Raises:
            InputError: the box starts before `origin` (a negative index would wrap around silently).
        """
        low = sub(self.start, origin)
        if min(low) < 0:
            raise InputError(f"{self} starts before the array's first voxel {origin}")
        z, y, x = (slice(a, a + n) for a, n in zip(low, self.shape, strict=True))
        return (z, y, x)

    def shift(self, by: int | Sequence[int]) -> Box:
        """Return this box moved by a vector of voxels."""
        return Box(add(self.start, as_vec(by)), self.shape)

    def grow(self, before: int | Sequence[int], after: int | Sequence[int] | None = None) -> Box:
        """Return this box with a margin added below and above (negative shrinks); `after` defaults to `before`.

        Raises:
            InputError: a negative margin is larger than the box.
        """
        low = as_vec(before)
        high = low if after is None else as_vec(after)
        return Box.of(sub(self.start, low), add(self.stop, high))

    def intersect(self, other: Box) -> Box:
        """Return the voxels in both boxes; where they do not meet, an empty box."""
        low = tuple(max(a, b) for a, b in zip(self.start, other.start, strict=True))
        high = tuple(max(lo, min(a, b)) for lo, a, b in zip(low, self.stop, other.stop, strict=True))
        return Box.of(low, high)

    def hull(self, other: Box) -> Box:
        """Return the smallest box that contains both; an empty box adds nothing."""
        if self.is_empty or other.is_empty:
            return self if other.is_empty else other
        low = tuple(min(a, b) for a, b in zip(self.start, other.start, strict=True))
        high = tuple(max(a, b) for a, b in zip(self.stop, other.stop, strict=True))
        return Box.of(low, high)

    def contains(self, other: Box) -> bool:
        """Whether every voxel of `other` lies in this box (an empty box lies in every box)."""
        return other.is_empty or self.intersect(other) == other

    def meets(self, other: Box) -> bool:
        """Whether the two boxes share a voxel."""
        return not self.intersect(other).is_empty

    def snap(self, step: int | Sequence[int], origin: Vec = (0, 0, 0)) -> Box:
        """Return the smallest box around this one whose faces lie on the lattice ``origin + k * step``.

        An extent of 0 that lies between two lattice planes grows to one step.

        Raises:
            InputError: a step is below 1 voxel.
        """
        steps = as_vec(step)
        if min(steps) < 1:
            raise InputError(f"lattice step {steps} has an extent below 1 voxel")
        low = tuple(o + (a - o) // s * s for a, s, o in zip(self.start, steps, origin, strict=True))
        high = tuple(o - (o - b) // s * s for b, s, o in zip(self.stop, steps, origin, strict=True))
        return Box.of(low, high)

    def coarsen(self, factors: int | Sequence[int]) -> Box:
        """Return the coarse voxels that touch this box; coarse voxel ``k`` is ``[k * factor, (k + 1) * factor)``.

        Raises:
            InputError: a factor is below 1.
        """
        f = as_vec(factors)
        snapped = self.snap(f)
        low = [a // k for a, k in zip(snapped.start, f, strict=True)]
        return Box.of(low, [b // k for b, k in zip(snapped.stop, f, strict=True)])

    def __iter__(self) -> Iterator[Vec]:
        yield self.start
        yield self.shape

    def __str__(self) -> str:
        return "box [" + ", ".join(f"{a}:{b}" for a, b in zip(self.start, self.stop, strict=True)) + "]"


def add(a: Vec, b: Vec) -> Vec:
    """Return a + b."""
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2])


def sub(a: Vec, b: Vec) -> Vec:
    """Return a - b."""
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])
