"""Averaging over orientations: show the network a tile turned, turn its answers back, keep the mean.

The mean of up to sixteen answers needs the memory of one: a sum (uint16) and a count (uint8) per stored value.
Sums are of stored uint8 values, so they are exact and no order of orientations changes a bit; the mean is rounded,
half upwards.

Affinities of a turned tile may stand at the other end of their pair (`emloom.nn.channels`), so the network answers
for the tile and the reach of the offsets around it, rounded up to its lattice, and tiles agree at their seams::

    tile             |~~~~~~~~~~~~~~~|            offset -9: needs answers as far as 9 voxels below
    answered     |..·|···············|            lattice 8: 16 voxels more
    faces        pairs that leave the volume: unknown, and not counted

Transposed tiles need y and x to be interchangeable for the lattice: both get the least common multiple of the two
lattices and the larger context, from which each orientation cuts what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import lcm
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.io.volume import Volume, read_padded
from emloom.nn.channels import Channels, Route, read
from emloom.nn.heads import DenseNet
from emloom.nn.orientations import Orientation

Bytes = NDArray[np.uint8]


class Answers(Protocol):
    """A network that maps raw to stored values by head; `emloom.nn.predict.Predictor` is one."""

    @property
    def net(self) -> DenseNet:
        """What is known of the network."""

    def __call__(self, raw_ZYX: NDArray[Any]) -> dict[str, Bytes]:
        """Return uint8 ``[C, Z, Y, X]`` by head, for the voxels that have `net.context` others around them."""


@dataclass(frozen=True)
class Averaging:
    """What to average: the orientations, at least one, and what the channels of every head mean."""

    orientations: tuple[Orientation, ...]
    channels: Mapping[str, Channels]

    def __post_init__(self) -> None:
        if not self.orientations:
            raise InputError("an average over no orientation is nothing: give at least one, e.g. orientations(8)")


class RunningMean:
    """The mean of stored values, ``[C, Z, Y, X]``, of as many answers as arrive: three bytes per value.

    Args:
        shape: of the answers, four axes.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.total = np.zeros(shape, np.uint16)  # 257 answers fit
        self.count = np.zeros(shape, np.uint8)

    def add(self, channel: int, where: tuple[slice, slice, slice], values_ZYX: Bytes) -> None:
        """Count the values of one channel on a part of its voxels."""
        self.total[channel][where] += values_ZYX
        self.count[channel][where] += np.uint8(1)

    def mean(self) -> Bytes:
        """Return the rounded means, 0 where nothing arrived."""
        out = np.empty_like(self.count)
        for channel, (total, count) in enumerate(zip(self.total, self.count, strict=True)):
            n = np.maximum(count, 1)
            out[channel] = (total + n // 2) // n
        return out


class Averager:
    """Answers for tiles of one volume, averaged over orientations; `lattice`, `context` as tiling needs them.

    Args:
        answers: the network.
        averaging: the orientations.
        raw: the volume.
        heads: the heads to answer for.

    Raises:
        InputError: sections to be transposed have voxels that are not square, a head's channels are unknown, or
            one of them has no counterpart in an orientation.
    """

    def __init__(self, answers: Answers, averaging: Averaging, raw: Volume, heads: tuple[str, ...]) -> None:
        net = answers.net
        transposed = any(o.transposed for o in averaging.orientations)
        if transposed:
            _require_square(raw)
        unknown = [name for name in heads if name not in averaging.channels]
        if unknown:
            raise InputError(
                f"what the channels of {', '.join(unknown)} mean is unknown: they cannot be turned back"
            )
        self._answers = answers
        self._raw = raw
        self._routes = {
            turned: {name: averaging.channels[name].routes(turned) for name in heads}
            for turned in averaging.orientations
        }
        self.lattice = _symmetric(net.lattice, lcm) if transposed else net.lattice
        self._context = _symmetric(net.context, max) if transposed else net.context
        self._below, self._above = self._reach()

    @property
    def context(self) -> Vec:
        """Voxels (z, y, x) per side that a tile needs around it, the reach of the affinities included."""
        more = [-(-(low + high) // 2) for low, high in zip(self._below, self._above, strict=True)]
        z, y, x = (c + m for c, m in zip(self._context, more, strict=True))
        return (z, y, x)

    def peak_bytes(self, input_shape: Sequence[int]) -> int:
        """Return an estimate of the memory that one tile takes."""
        return self._answers.net.peak_bytes(input_shape)

    def answer(self, cell: Box) -> dict[str, Bytes]:
        """Return uint8 ``[C, Z, Y, X]`` by head for a cell of the lattice."""
        answered = cell.grow(self._below, self._above)
        raw = read_padded(self._raw, answered.grow(self._context))
        channels = next(iter(self._routes.values()))
        means = {name: RunningMean((len(ways), *cell.shape)) for name, ways in channels.items()}
        for turned, routes in self._routes.items():
            answers = self._answers(self._seen(raw, turned))
            for name, ways in routes.items():
                back = turned.backward(answers[name])
                for channel, route in enumerate(ways):
                    here = cell if route.shift == (0, 0, 0) else self._known(cell, route)
                    values = read(back, route, here.shift([-v for v in answered.start]))
                    means[name].add(channel, here.slices(cell.start), values)
        return {name: mean.mean() for name, mean in means.items()}

    def _seen(self, raw_ZYX: NDArray[Any], turned: Orientation) -> NDArray[Any]:
        """Return the raw turned, with the context that the network needs along the axes it then has."""
        spare = [have - need for have, need in zip(self._context, self._answers.net.context, strict=True)]
        z, y, x = (slice(s, n - s) for s, n in zip(spare, turned.swap(_vec(raw_ZYX.shape)), strict=True))
        return np.ascontiguousarray(turned.forward(raw_ZYX)[z, y, x])

    def _known(self, cell: Box, route: Route) -> Box:
        """Return the voxels of the cell whose pair does not leave the volume."""
        return self._raw.info.box.shift([-v for v in route.shift]).intersect(cell)

    def _reach(self) -> tuple[Vec, Vec]:
        """Return the voxels below and above a tile that shifted channels look at, in whole lattice steps."""
        shifts = [
            route.shift for heads in self._routes.values() for routes in heads.values() for route in routes
        ] or [(0, 0, 0)]
        below = _vec(max(0, *(-shift[axis] for shift in shifts)) for axis in range(3))
        above = _vec(max(0, *(shift[axis] for shift in shifts)) for axis in range(3))
        return _rounded_up(below, self.lattice), _rounded_up(above, self.lattice)


def _require_square(raw: Volume) -> None:
    _, y, x = raw.info.grid.voxel_size_nm
    if y != x:
        raise InputError(
            f"{raw.info.source} has voxels of {y:g} x {x:g} nm (y, x) in the section: transposed, it is not what "
            f"the network learned; choose orientations without transposition (--tta 8)"
        )


def _symmetric(per_axis: Vec, join: Any) -> Vec:
    z, y, x = per_axis
    both = join(y, x)
    return (z, both, both)


def _rounded_up(reach: Vec, lattice: Vec) -> Vec:
    return _vec(-(-n // step) * step for n, step in zip(reach, lattice, strict=True))


def _vec(values: Any) -> Vec:
    z, y, x = (int(v) for v in values)
    return (z, y, x)
