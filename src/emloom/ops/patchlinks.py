"""Links between sections: places of one and where they lie in another, as patch flow found them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops.patchflow import Flow

F64 = NDArray[np.float64]

_MOST = 0.9  # correlation: what resembles more is limited by pixels, not by noise


@dataclass(frozen=True, eq=False)
class Link:
    """What is at ``places`` in one section is at ``places + moves`` in another.

    Attributes:
        first: number of the one section.
        second: number of the other.
        places: float64 [N, 2], (y, x) in the first, pixels.
        moves: float64 [N, 2], displacement.
        weights: float64 [N], how much each counts, not negative.

    Raises:
        InputError: the sections are one, shapes differ, or a number is not finite.
    """

    first: int
    second: int
    places: F64
    moves: F64
    weights: F64

    def __post_init__(self) -> None:
        n, name = len(self.places), f"the link of sections {self.first} and {self.second}"
        if self.first == self.second or min(self.first, self.second) < 0:
            raise InputError(f"{name} joins no two sections")
        if (self.places.shape, self.moves.shape, self.weights.shape) != ((n, 2), (n, 2), (n,)):
            raise InputError(f"{name} has {n} places, but not as many moves [N, 2] and weights [N]")
        if not all(np.isfinite(v).all() for v in (self.places, self.moves, self.weights)):
            raise InputError(f"{name} holds numbers that are not finite: leave such nodes out")
        if (self.weights < 0).any():
            raise InputError(f"{name} has negative weights")

    @classmethod
    def of(cls, first: int, second: int, flow: Flow) -> Link:
        """Return the valid nodes of a flow.

        A displacement found at a correlation r has an error of a variance in proportion to (1 - r²) / r² (that of
        the noise over that of what both share), so it weighs the inverse of that.
        """
        good = flow.valid
        shared = np.square(np.clip(flow.score[good].astype(np.float64), 0.0, _MOST))
        weights = shared / (1 - shared)
        return cls(first, second, flow.places[good], flow.moves[good], weights)

    def seen_from(self, section: int) -> tuple[int, F64, F64]:
        """Return the other section, the places in this one, and those in the other."""
        ends = self.places, self.places + self.moves
        if section == self.first:
            return self.second, ends[0], ends[1]
        return self.first, ends[1], ends[0]
