"""Which tiles a network can be shown: along every axis a first size, plus a multiple of a step.

::

    halves its tile four times         first 16,  step 16      16, 32, 48, ...
    valid convolutions, poolings       first 140, step 16      140, 156, 172, ...
    one size and no other              first 140, step 0       140
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from emloom.errors import InputError
from emloom.geometry import Vec


@dataclass(frozen=True)
class TileRule:
    """The sizes (z, y, x) that fit, in voxels.

    Attributes:
        first: the smallest size.
        step: voxels to the next larger one; 0: there is none.
    """

    first: Vec
    step: Vec

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tile fits."""
        return self.at_most(shape) == self.at_least(shape) == tuple(shape)

    def at_most(self, shape: Sequence[int]) -> Vec:
        """Return the largest size that fits and is no larger, along each axis; the first where all are larger."""
        return _vec(
            a + (max(0, n - a) // s * s if s else 0) for n, a, s in zip(shape, self.first, self.step, strict=True)
        )

    def at_least(self, shape: Sequence[int]) -> Vec:
        """Return the smallest size that fits and is no smaller, along each axis; the first if it is the only."""
        return _vec(
            a + (-(-max(0, n - a) // s) * s if s else 0)
            for n, a, s in zip(shape, self.first, self.step, strict=True)
        )

    def nearest(self, shape: Sequence[int]) -> Vec:
        """Return the size that fits next to a wanted one, along each axis; of two as near, the larger."""
        pairs = zip(shape, self.at_most(shape), self.at_least(shape), strict=True)
        return _vec(low if n - low < high - n else high for n, low, high in pairs)

    def check(self, shape: Sequence[int]) -> None:
        """Do nothing if a tile fits.

        Raises:
            InputError: it does not; the message names the rule and the next sizes that fit, below and above.
        """
        if self.fits(shape):
            return
        tile, below, above = _vec(shape), self.at_most(shape), self.at_least(shape)
        rules = (str(a) if not s else f"{a} + k * {s}" for a, s in zip(self.first, self.step, strict=True))
        way_out = f"use {above}" if below == above else f"the next sizes that fit are {below} and {above}"
        raise InputError(
            f"a tile of {tile} voxels (z, y, x) does not fit the network, which takes sizes of "
            f"({', '.join(rules)}) with k = 0, 1, 2, ...: {way_out}"
        )


def _vec(values: Iterable[int]) -> Vec:
    z, y, x = (int(v) for v in values)
    return (z, y, x)
