"""The sixteen orientations of a block of tissue: three mirrors and one transposition of the section.

A rule is four bits, most significant first ``[z, x, y, T]``. Forward mirrors z, then x, then y, then transposes y
and x; backward undoes it in the opposite order, T, y, x, z::

    forward  = T . Y . X . Z        backward(forward(a)) == a, bit for bit        rule 0 is the identity
    turn(v)  = where a displacement v of the tissue points in the oriented block

Both return views: nothing is copied. Mirrors commute, and a transposition swaps the two mirrors in the section, so
the sixteen are a group: the inverse of an orientation is one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Vec

Item = TypeVar("Item")

_SETS: dict[int, tuple[int, ...]] = {
    1: (0,),
    4: (0, 2, 4, 6),
    8: tuple(range(0, 16, 2)),
    16: tuple(range(16)),
}


@dataclass(frozen=True, slots=True)
class Orientation:
    """One way to turn a block.

    Attributes:
        mirrors: whether z, y, x are mirrored (before the transposition).
        transposed: whether y and x change places (after the mirrors).
    """

    mirrors: tuple[bool, bool, bool] = (False, False, False)
    transposed: bool = False

    @classmethod
    def of(cls, rule: int) -> Orientation:
        """Return the orientation of a rule.

        Raises:
            InputError: the rule is not one of 0 to 15.
        """
        if not 0 <= rule < 16:
            raise InputError(f"orientation {rule} is unknown: rules are 0 to 15, four bits [z, x, y, transpose]")
        return cls((bool(rule & 8), bool(rule & 2), bool(rule & 4)), bool(rule & 1))

    @property
    def rule(self) -> int:
        """The four bits [z, x, y, T] as a number."""
        z, y, x = self.mirrors
        return 8 * z + 4 * x + 2 * y + self.transposed

    @property
    def inverse(self) -> Orientation:
        """The orientation that undoes this one."""
        z, _, _ = self.mirrors
        y, x = self.swap(self.mirrors)[1:]
        return Orientation((z, y, x), self.transposed)

    def forward(self, block: NDArray[Any]) -> NDArray[Any]:
        """Return ``[..., Z, Y, X]`` turned, ``[..., Z, X, Y]`` if transposed: a view."""
        mirrored = self._mirrored(block)
        return np.swapaxes(mirrored, -1, -2) if self.transposed else mirrored

    def backward(self, block: NDArray[Any]) -> NDArray[Any]:
        """Return what `forward` was given: a view."""
        return self._mirrored(np.swapaxes(block, -1, -2) if self.transposed else block)

    def turn(self, displacement: Vec) -> Vec:
        """Return where a displacement (z, y, x) points after `forward`."""
        z, y, x = (-v if mirror else v for v, mirror in zip(displacement, self.mirrors, strict=True))
        return self.swap((z, y, x))

    def swap(self, per_axis: tuple[Item, Item, Item]) -> tuple[Item, Item, Item]:
        """Return values of z, y, x in the order of the oriented axes; its own inverse."""
        z, y, x = per_axis
        return (z, x, y) if self.transposed else (z, y, x)

    def __str__(self) -> str:
        """Name what is done, e.g. `mirror z, transpose yx`."""
        done = [f"mirror {axis}" for axis, mirror in zip("zyx", self.mirrors, strict=True) if mirror]
        return ", ".join(done + ["transpose yx"] * self.transposed) or "as it is"

    def _mirrored(self, block: NDArray[Any]) -> NDArray[Any]:
        z, y, x = (slice(None, None, -1 if mirror else 1) for mirror in self.mirrors)
        return block[..., z, y, x]


def orientations(which: int | Sequence[int]) -> tuple[Orientation, ...]:
    """Return a named set of orientations, or those of explicit rules.

    Args:
        which: 1 is the block as it is, 4 the mirrors in the section, 8 all mirrors, 16 those and transposed; or a
            sequence of rules, each once.

    Raises:
        InputError: there is no such set or rule, none is given, or one twice.
    """
    if isinstance(which, int):
        if which not in _SETS:
            raise InputError(f"{which} orientations are no set: use {', '.join(map(str, _SETS))}, or list rules")
        which = _SETS[which]
    if not which or len(set(which)) != len(which):
        raise InputError(f"orientations {tuple(which)} must name at least one rule, and each once")
    return tuple(Orientation.of(rule) for rule in which)
