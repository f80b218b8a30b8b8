"""A link of two large sections, made as precise as their full resolution allows.

`link` sees sections of more than 1024 pixels a side through pixels of several. Here a handful of tiles is read at
full resolution from both sections, where they lie on each other, and the median of what the tiles say is taken, so
that a fold or a crack under some of them does no harm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops.finershifts import settle
from emloom.ops.preparedsections import factors_for, prepare
from emloom.ops.sectionshifts import Link

Read = Callable[[int, int, int, int], NDArray[Any]]
"""Returns rows [first, second) and columns [third, fourth) of a section; never asked for what lies outside."""

_LEAST_SIDE, _MOST_SIDE, _LEAST_TILES = 64, 1024, 3
_LEAST_TISSUE = 0.5
_LEAST_SURE = 1.0  # pixels: a tile with a larger error says nothing


def refine(found: Link, shape: tuple[int, int], a: Read, b: Read, *, tiles: int = 3, side: int = 512) -> Link:
    """Return a link with the precision of full resolution.

    Args:
        found: what `link` says of the two sections.
        shape: (Y, X) of both.
        a: reads the first section.
        b: reads the second.
        tiles: so many by so many tiles are compared, spread over what lies on each other.
        side: pixels of a tile.

    Returns:
        the link, with another shift and error where at least three tiles have tissue and are sure; else as it was.

    Raises:
        InputError: fewer than 2 tiles along a side, or tiles of less than 64 or more than 1024 pixels.
    """
    if tiles < 2 or not _LEAST_SIDE <= side <= _MOST_SIDE:
        raise InputError(f"{tiles} x {tiles} tiles of {side} pixels: take at least 2 x 2, of 64 to 1024 pixels")
    whole = (round(found.shift[0]), round(found.shift[1]))
    room = [n - abs(d) for n, d in zip(shape, whole, strict=True)]
    side = min(side, *room)
    if not found.is_known or side < _LEAST_SIDE:
        return found
    reach = 2.0 * factors_for(shape)[0] + 2.0
    corners = [
        [max(0, -d) + round(at) for at in np.linspace(0, n - side, tiles).tolist()]
        for n, d in zip(room, whole, strict=True)
    ]
    said = [_tile(a, b, (y, x), whole, side, reach) for y in corners[0] for x in corners[1]]
    sure = np.array([one for one in said if one is not None]).reshape(-1, 2)
    if len(sure) < _LEAST_TILES:
        return found
    middle = np.median(sure, axis=0)
    # The deviation of a median of n values is 1.25 / sqrt(n) of theirs; theirs is 1.48 median distances.
    spread = 1.25 * 1.48 * float(np.median(np.abs(sure - middle))) / np.sqrt(len(sure))
    shift = (whole[0] + float(middle[0]), whole[1] + float(middle[1]))
    return replace(found, shift=shift, error=max(0.01, float(spread)))


def _tile(
    a: Read, b: Read, corner: tuple[int, int], whole: tuple[int, int], side: int, reach: float
) -> tuple[float, float] | None:
    """Return what one tile adds to a whole shift; None where it cannot say."""
    (y, x), (dy, dx) = corner, whole
    one = prepare(a(y, y + side, x, x + side))
    other = prepare(b(y + dy, y + dy + side, x + dx, x + dx + side))
    if min(one.usable, other.usable) < _LEAST_TISSUE:
        return None
    at = settle(one.low_frequencies, other.low_frequencies, (side, side), (0.0, 0.0), reach, 1.0)
    return (at[0], at[1]) if at is not None and at[2] <= _LEAST_SURE else None


__all__ = ["Read", "refine"]
