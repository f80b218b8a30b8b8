"""What the channels of a prediction mean, and so what becomes of them when the tissue is turned.

A network shown turned tissue answers about turned tissue. Turning the answer back puts every value at the voxel it
was computed for, but a value may be *about* more than its voxel. For each channel, a `Route` says where its value
stands in the answer after `Orientation.backward`::

    scalar       s(p)                        where it is
    vector       v_y(p)                      in the channel of the axis that y became; opposite if y was mirrored
    descriptors  offset: a vector            variance: permuted       correlation: permuted, opposite if one of its
                                             size: a scalar           two axes was mirrored
    affinity     about p and p + o           o became o'.  A channel with offset  o': at p
                                                           a channel with offset -o': at p + o, the other end

    mirror x, offset -1        turned:   . . [b a] . .     the answer stands at b's place in the turned tissue:
    tissue:  . . [a b] . .               pair stored at a  read at p + o, after turning back, for the pair at p

Values are probabilities, [0, 1] or uint8 0 to 255, and a signed quantity has its zero in the middle: its opposite
is ``1 - v``, or ``255 - v``, which is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.nn.orientations import Orientation

_PAIRS = ((0, 1), (0, 2), (1, 2))  # of axes, in the order of the correlations: zy, zx, yx


@dataclass(frozen=True, slots=True)
class Route:
    """Where the value of a channel at p stands in an answer that was turned back.

    Attributes:
        source: channel of the answer.
        opposite: whether the sign changed.
        shift: the value stands at p + shift.
    """

    source: int
    opposite: bool = False
    shift: Vec = (0, 0, 0)


class Channels(Protocol):
    """The meaning of all channels of a head; `Scalars`, `Vectors`, `Descriptors` and `Affinities` are four."""

    def routes(self, orientation: Orientation) -> tuple[Route, ...]:
        """Return one route per channel; raises `InputError` where a channel has no counterpart."""


@dataclass(frozen=True)
class Scalars:
    """Values that do not know directions: boundaries, classes, distances, pre- and postsynaptic sites."""

    count: int

    def routes(self, orientation: Orientation) -> tuple[Route, ...]:
        """Return one route per channel."""
        return tuple(Route(channel) for channel in range(self.count))


@dataclass(frozen=True)
class Vectors:
    """Vectors of three components each, z, y, x, zero in the middle of the range."""

    count: int = 1

    def routes(self, orientation: Orientation) -> tuple[Route, ...]:
        """Return one route per component."""
        axes = list(zip(orientation.swap((0, 1, 2)), orientation.mirrors, strict=True))
        return tuple(Route(3 * n + axis, mirror) for n in range(self.count) for axis, mirror in axes)


@dataclass(frozen=True)
class Descriptors:
    """Local shape descriptors as `emloom.ops.descriptors` orders them: ten channels."""

    def routes(self, orientation: Orientation) -> tuple[Route, ...]:
        """Return one route per channel."""
        axes, mirrors = orientation.swap((0, 1, 2)), orientation.mirrors
        variances = tuple(Route(3 + axis) for axis in axes)
        pairs = [(_PAIRS.index(_ordered(axes[a], axes[b])), mirrors[a] != mirrors[b]) for a, b in _PAIRS]
        correlations = tuple(Route(6 + source, opposite) for source, opposite in pairs)
        return (*Vectors().routes(orientation), *variances, *correlations, Route(9))


@dataclass(frozen=True)
class Affinities:
    """Affinities: channel c at p is about the pair (p, p + neighborhood[c])."""

    neighborhood: tuple[Vec, ...]

    def routes(self, orientation: Orientation) -> tuple[Route, ...]:
        """Return one route per offset.

        Raises:
            InputError: the neighborhood has neither an offset that another is turned into nor its opposite.
        """
        channel = {offset: index for index, offset in enumerate(self.neighborhood)}
        turned = [orientation.turn(offset) for offset in self.neighborhood]
        missing = [o for o in turned if o not in channel and _opposite(o) not in channel]
        if missing:
            raise InputError(
                f"the orientation '{orientation}' needs affinities of the offsets "
                f"{', '.join(map(str, missing))}, or their opposites, and the neighborhood has none: choose other "
                f"orientations (--tta), or train a model with these offsets"
            )
        return tuple(
            Route(channel[o]) if o in channel else Route(channel[_opposite(o)], shift=offset)
            for offset, o in zip(self.neighborhood, turned, strict=True)
        )


def restore(
    answer_CZYX: NDArray[Any], channels: Channels, orientation: Orientation
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return what an answer about turned tissue says about the tissue, and where it says anything.

    Args:
        answer_CZYX: the answer, about ``orientation.forward(tissue)``; uint8, or floats in [0, 1].
        channels: what its channels mean.
        orientation: how the tissue was turned.

    Returns:
        values ``[C, Z, Y, X]`` of the tissue as it is, 0 where unknown; known ``[C, Z, Y, X]``, false where a
        pair's other end is outside.

    Raises:
        InputError: a channel has no counterpart.
    """
    back = orientation.backward(answer_CZYX)
    values = np.zeros(back.shape, back.dtype)
    known = np.zeros(back.shape, np.bool_)
    whole = Box.whole(back.shape[1:])
    for channel, route in enumerate(channels.routes(orientation)):
        here = whole.shift([-v for v in route.shift]).intersect(whole)
        values[channel][here.slices()] = read(back, route, here)
        known[channel][here.slices()] = True
    return values, known


def read(back_CZYX: NDArray[Any], route: Route, here: Box) -> NDArray[Any]:
    """Return the values of one channel on the voxels of `here`, of an answer that was turned back."""
    found: NDArray[Any] = back_CZYX[route.source][here.shift(route.shift).slices()]
    if not route.opposite:
        return found
    top = found.dtype.type(255 if found.dtype == np.uint8 else 1)
    out: NDArray[Any] = top - found
    return out


def _ordered(a: int, b: int) -> tuple[int, int]:
    return (a, b) if a < b else (b, a)


def _opposite(offset: Vec) -> Vec:
    z, y, x = offset
    return (-z, -y, -x)
