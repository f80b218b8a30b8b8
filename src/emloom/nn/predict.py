"""Prediction: a trained network over a volume of any size, tile by tile.

Tiles lie on one lattice of absolute raw voxels, a multiple of the network's `lattice`, and see its `context`
around them, mirrored at the faces of the volume, so the whole volume is answered for::

    tile lattice   |···············|···············|      k * tile_shape, from raw voxel (0, 0, 0)
    box to predict       [═══════════════════]            any box
    network sees   ░░░|············|░░░                   one constant shape, whatever part of a tile is wanted

Hence ``tiled == one big tile`` up to float rounding: at most one step of the stored uint8. Every tile has the same
shape, so on one machine a tile's bits depend on nothing but its raw. The guarantee needs a network whose answers
do not depend on the tile: group and instance norm break it (a warning is logged).

Stored values are, by default, ``round(255 * sigmoid(logit))``: 0..255 stands for a probability of 0..1; those of a
reconstruction are grey values (`emloom.nn.coding`).
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Box, Vec, blocks
from emloom.geometry.box import as_vec
from emloom.io.volume import Volume, read_padded
from emloom.nn.averaging import Averager, Averaging
from emloom.nn.backends import dense
from emloom.nn.coding import PROBABILITIES, Codings, coding_of
from emloom.nn.engine import Engine
from emloom.nn.heads import DenseNet

log = logging.getLogger(__name__)

Normalise = Callable[[NDArray[Any]], NDArray[np.float32]]
Progress = Callable[[int, int], None]

_LONGEST_TILE = 1024


class Predictor:
    """A network ready to answer: raw voxels in, stored values out.

    It owns evaluation: every call runs in ``eval`` and ``inference_mode``, whatever mode the module is in, and
    leaves each submodule in the mode it was found in. Threads may share it if the module is already in ``eval``.

    Args:
        module: a `MultiHead`, an `AutoContext`, or another module with the properties of `DenseNet`; it is moved
            to the engine's device.
        normalise: maps raw to float32 of the same shape, voxel by voxel: the checkpoint's preprocessing.
        engine: what computes; the default is torch in float32 on the processor.
        codings: what is stored of the heads.

    Raises:
        InputError: the engine is unknown, not installed, or not for this device.
    """

    def __init__(
        self,
        module: nn.Module,
        normalise: Normalise,
        engine: Engine | None = None,
        codings: Codings = PROBABILITIES,
    ) -> None:
        self.net: DenseNet = dense(module)
        self.normalise = normalise
        self.codings = codings
        self.backend = (engine or Engine()).start(module, codings)

    def __call__(self, raw_ZYX: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return stored values ``[C, Z, Y, X]`` by head, for the voxels that have `net.context` others around
        them.

        Args:
            raw_ZYX: raw as stored, context included; less the context, a multiple of `net.lattice`.

        Raises:
            InputError: the shape does not fit, the raw (or the answer) is not finite.
        """
        return self.backend(torch.from_numpy(self._normalised(raw_ZYX))[None, None])

    def _normalised(self, raw_ZYX: NDArray[Any]) -> NDArray[np.float32]:
        if raw_ZYX.ndim != 3:
            raise InputError(f"raw of shape {raw_ZYX.shape} has {raw_ZYX.ndim} axes: the network sees z, y, x")
        if raw_ZYX.dtype.kind == "f" and not np.isfinite(raw_ZYX).all():
            count = int((~np.isfinite(raw_ZYX)).sum())
            raise InputError(f"raw holds {count} values that are NaN or infinite: repair or mask them first")
        x = self.normalise(raw_ZYX)
        if x.dtype != np.float32 or x.shape != raw_ZYX.shape:
            raise TypeError(
                f"normalise made {x.dtype} {x.shape} of {raw_ZYX.shape}: it must give float32, same shape"
            )
        return np.ascontiguousarray(x)


def predict(
    predictor: Predictor,
    raw: Volume,
    outputs: Mapping[str, Volume],
    *,
    box: Box | None = None,
    tile_shape: Vec | None = None,
    averaging: Averaging | None = None,
    progress: Progress | None = None,
) -> None:
    """Predict the voxels of `box` and write them, tile by tile.

    Args:
        predictor: the network.
        raw: `zyx` volume.
        outputs: `czyx` volumes by head, of the type of its coding; each has raw's voxels (its grid says which) and
            covers `box`. A head of one channel may have a `zyx` volume. Heads without an output are not stored.
        box: voxels of raw to predict; None is all.
        tile_shape: voxels per tile, a multiple of the network's lattice; None chooses for `box` within 2 GiB. Jobs
            that share the work of one volume must pass one shape: see `choose_tile`.
        averaging: orientations whose answers are averaged; None predicts once.
        progress: called after every tile with (tiles done, tiles in all).

    Raises:
        InputError: an output does not fit raw or network, the tile is off the lattice, raw is not finite, or the
            channels of an output cannot be averaged.
    """
    net = predictor.net
    box = raw.info.box if box is None else box
    if raw.info.channels is not None or not raw.info.box.contains(box):
        raise InputError(
            f"{raw.info.source} is {raw.info.axes}, {raw.info.box}: predict {box} of a zyx volume in it"
        )
    places = {name: _place(name, output, raw, predictor, box) for name, output in outputs.items()}
    source = _source(predictor, raw, averaging, tuple(outputs))
    tile = choose_tile(source, box) if tile_shape is None else _checked_tile(source, tile_shape)
    work = blocks(box, tile, source.context)
    if net.tile_dependent and len(work) > 1:
        log.warning("the network normalises over its tile: %d tiles will not agree exactly at seams", len(work))
    for done, block in enumerate(work, start=1):
        cell = Box(as_vec([i * n for i, n in zip(block.index, tile, strict=True)]), tile)
        answers = _answer(source, raw, cell)
        part = block.write.slices(cell.start)
        for name, output in outputs.items():
            start = places[name]
            where = block.write.shift([-v for v in start])
            answer = answers[name][:, *part] if output.info.channels is not None else answers[name][0, *part]
            output.write(where, np.ascontiguousarray(answer))
        if progress is not None:
            progress(done, len(work))


def tile_for(
    predictor: Predictor,
    raw: Volume,
    heads: tuple[str, ...],
    box: Box,
    averaging: Averaging | None = None,
    wanted: Vec | None = None,
) -> Vec:
    """Return the tile shape that `predict` would use for a box, or the wanted one if the network can use it.

    Jobs that share the work of one volume pass it to every call of `predict`.

    Raises:
        InputError: the wanted shape is off the lattice, or the heads cannot be averaged.
    """
    source = _source(predictor, raw, averaging, heads)
    return choose_tile(source, box) if wanted is None else _checked_tile(source, wanted)


def _source(
    predictor: Predictor, raw: Volume, averaging: Averaging | None, heads: tuple[str, ...]
) -> _Once | Averager:
    return _Once(predictor, raw) if averaging is None else Averager(predictor, averaging, raw, heads)


class Tiled(Protocol):
    """What choosing a tile needs to know; networks are such, and averages over orientations."""

    @property
    def lattice(self) -> Vec:
        """Voxels (z, y, x) of which tiles are multiples."""

    @property
    def context(self) -> Vec:
        """Voxels (z, y, x) per side that a tile must see around it."""

    def peak_bytes(self, input_shape: Sequence[int]) -> int:
        """Return an estimate of the memory that one tile takes."""


class _Once:
    """Answers for tiles of one volume, predicted once."""

    def __init__(self, predictor: Predictor, raw: Volume) -> None:
        self.lattice, self.context = predictor.net.lattice, predictor.net.context
        self.peak_bytes = predictor.net.peak_bytes
        self._predictor, self._raw = predictor, raw

    def answer(self, cell: Box) -> dict[str, NDArray[Any]]:
        return self._predictor(read_padded(self._raw, cell.grow(self.context)))


def choose_tile(net: Tiled, box: Box, budget_bytes: int = 2 << 30) -> Vec:
    """Return the tile shape that covers a box with the least work within a memory budget.

    The work of a tiling is the number of voxels that networks see, context and overhang included. A function of
    its arguments alone: it does not ask the machine, so a job makes the same tiles everywhere.

    Args:
        net: the network, or an average over its orientations.
        box: voxels to cover.
        budget_bytes: memory for one tile; if not even one lattice cell fits, that cell is returned.
    """
    margins = net.context
    axes = [
        _tile_lengths(start, stop, step, margin)
        for start, stop, step, margin in zip(box.start, box.stop, net.lattice, margins, strict=True)
    ]

    def peak(z: int, y: int, x: tuple[int, int]) -> int:
        return net.peak_bytes([n + 2 * margin for n, margin in zip((z, y, x[0]), margins, strict=True)])

    best: tuple[int, Vec] | None = None
    for (z, work_z), (y, work_y) in product(axes[0], axes[1]):
        # Along x, longer is less work and more memory: the longest that fits is the best.
        fitting = bisect_right(axes[2], budget_bytes, key=partial(peak, z, y))
        if fitting == 0:
            continue
        x, work_x = axes[2][fitting - 1]
        if best is None or work_z * work_y * work_x < best[0]:
            best = (work_z * work_y * work_x, (z, y, x))
    return net.lattice if best is None else best[1]


def _tile_lengths(start: int, stop: int, step: int, margin: int) -> list[tuple[int, int]]:
    """Return (tile length, voxels seen along this axis), shortest first, if they save 1 % over shorter ones."""
    out: list[tuple[int, int]] = []
    for length in range(step, min(_LONGEST_TILE, stop + step) + 1, step):
        cost = (-(-stop // length) - start // length) * (length + 2 * margin)
        if not out or cost < 0.99 * out[-1][1]:
            out.append((length, cost))
    return out


def _checked_tile(net: Tiled, tile_shape: Vec) -> Vec:
    tile = as_vec(tile_shape)
    if any(n < 1 or n % step for n, step in zip(tile, net.lattice, strict=True)):
        raise InputError(f"tile shape {tile} is not a multiple of {net.lattice}, the network's pooling lattice")
    return tile


def _place(name: str, output: Volume, raw: Volume, predictor: Predictor, box: Box) -> Vec:
    """Return the raw voxel at which an output starts, once it is known to fit."""
    net = predictor.net
    if name not in net.channels:
        hint = did_you_mean(name, net.channels)
        raise InputError(f"the network has no head {name!r}: it has {', '.join(net.channels)}{hint}")
    info, dtype = output.info, coding_of(predictor.codings, name).dtype
    if info.dtype != dtype or (1 if info.channels is None else info.channels) != net.channels[name]:
        raise InputError(
            f"{info.source} is {info.dtype} with {info.channels} channels: "
            f"{name!r} needs {dtype} with {net.channels[name]}"
        )
    start = as_vec([round(v) for v in raw.info.grid.to_voxel(info.grid.offset_nm)])
    if not raw.info.grid.crop(Box(start, info.shape)).matches(info.grid):
        raise InputError(f"{info.source} has {info.grid}, whose voxels are not those of the raw, {raw.info.grid}")
    if not Box(start, info.shape).contains(box):
        raise InputError(f"{info.source} covers {Box(start, info.shape)} of the raw: make it cover {box}")
    return start


def _answer(source: _Once | Averager, raw: Volume, cell: Box) -> dict[str, NDArray[Any]]:
    try:
        return source.answer(cell)
    except InputError as problem:
        raise InputError(f"{raw.info.source}, around {cell}: {problem}") from None
