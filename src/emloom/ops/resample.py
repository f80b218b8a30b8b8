"""The one gather of augmentation: linear raw, nearest labels and masks, one grey-value table per section.

A sample of a frame is gathered in one sweep over its rows. For every row the coordinate map is evaluated once
(`emloom.ops.deformation`), then the raw is interpolated and the labels are picked at those positions::

    raw     v = linear interpolation of the source          n = (v - low) * 2 / (high - low) - 1
            sections with a table:  n -> table[z](n), linear between its entries, n clipped to [-1, 1]
    labels  id of the nearest voxel

The normalisation is the very expression of prediction, in float32, and whole-number positions interpolate nothing:
an identity map reproduces `Preprocessing(raw)` bit for bit. Where no voxel leaves its section, four taps are read,
not eight.

`gather` is the numba backend; `emloom.nn.gather` does the same in torch, `gather_reference` in SciPy, slowly.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.geometry import Box
from emloom.ops.deformation import CoordinateMap, box_to_read
from emloom.ops.sweeps import flat_memory, sweep_labels, sweep_raw

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bits = NDArray[np.uint8]

#: Intervals of a grey-value table over [-1, 1].
TABLE_SIZE = 1024


@dataclass(frozen=True)
class Moves:
    """What happens to whole sections on top of the map.

    Attributes:
        shift: int64 ``[Z, 2]`` displacement (y, x) in voxels of every section of the frame.
        folds: float64 ``[Z, 4]`` n_y, n_x, c, strength of every section's fold; strength 0 is none.
    """

    shift: I64
    folds: F64

    @classmethod
    def none(cls, sections: int) -> Moves:
        """Return moves that leave every section where it is."""
        return cls(np.zeros((sections, 2), np.int64), np.zeros((sections, 4)))


@dataclass(frozen=True)
class RawPart:
    """The raw of a sample: what is asked for, and from what.

    Attributes:
        part: box of the frame to fill.
        moves: of the sections, as the raw sees them.
        source: ``ZYX`` of any number type; covers `box_to_read`.
        origin: source voxel of the frame at which `source` starts.
        range: raw values that become -1 and +1.
        tables: float32 ``[Z, TABLE_SIZE + 1]`` for every section of the frame; read where `toned`.
        toned: uint8 ``[Z]``: whether a section's table is applied.
    """

    part: Box
    moves: Moves
    source: NDArray[Any]
    origin: tuple[int, int, int]
    range: tuple[float, float]
    tables: F32
    toned: Bits


@dataclass(frozen=True)
class LabelPart:
    """The labels of a sample and where they are known.

    Attributes:
        part: box of the frame to fill.
        moves: of the sections, as the labels see them.
        source: ``ZYX`` ids of any unsigned type; covers `box_to_read`.
        known: uint8 of the same shape; size 0 where everything is known.
        origin: source voxel of the frame at which both start.
    """

    part: Box
    moves: Moves
    source: NDArray[Any]
    known: Bits
    origin: tuple[int, int, int]


def part_to_read(mapping: CoordinateMap, part: Box, moves: Moves) -> Box:
    """Return the source voxels of the frame that a part needs."""
    return box_to_read(mapping, part, moves.shift, np.abs(moves.folds[:, 3]))


def gather(mapping: CoordinateMap, raw: RawPart, labels: LabelPart) -> tuple[F32, NDArray[Any], Bits]:
    """Return (raw float32, labels of the source's type, known uint8), each ``ZYX`` of its part."""
    return _gather_raw(mapping, raw), *_gather_labels(mapping, labels)


def _gather_raw(mapping: CoordinateMap, raw: RawPart) -> F32:
    out = np.empty(raw.part.shape, np.float32)
    memory, strides = flat_memory(raw.source)
    low, high = raw.range
    sweep_raw(
        (mapping.nodes, mapping.step, mapping.planar),
        _ends(raw.part),
        (raw.moves.shift, raw.moves.folds),
        (memory, strides, np.array(raw.source.shape), np.array(raw.origin), raw.source.dtype == np.uint8),
        np.array([low, 2.0 / (high - low)], np.float32),
        (raw.tables, np.diff(raw.tables, axis=1), raw.toned),
        out,
    )
    return out


def _gather_labels(mapping: CoordinateMap, labels: LabelPart) -> tuple[NDArray[Any], Bits]:
    ids = np.empty(labels.part.shape, labels.source.dtype)
    known = np.ones(labels.part.shape, np.uint8)
    sweep_labels(
        (mapping.nodes, mapping.step, mapping.planar),
        _ends(labels.part),
        (labels.moves.shift, labels.moves.folds),
        (*flat_memory(labels.source), np.array(labels.origin)),
        (*flat_memory(labels.known), labels.known.size > 0),
        ids,
        known,
    )
    return ids, known


def _ends(box: Box) -> I64:
    return np.array([box.start, box.stop], np.int64)


def gather_reference(mapping: CoordinateMap, raw: RawPart, labels: LabelPart) -> tuple[F32, NDArray[Any], Bits]:
    """Return what `gather` does, by SciPy on dense float64 positions: slow, and independent of the kernel."""
    at = _dense(mapping, raw.part, raw.moves) - np.array(raw.origin)[:, None, None, None]
    value = ndimage.map_coordinates(raw.source.astype(float), at, order=1, mode="nearest")
    low, high = raw.range
    out = (value - low) * (2.0 / (high - low)) - 1.0
    knots = np.linspace(-1.0, 1.0, TABLE_SIZE + 1)
    for z in range(out.shape[0]):
        section = raw.part.start[0] + z
        if raw.toned[section]:
            out[z] = np.interp(out[z], knots, raw.tables[section])
    at = _dense(mapping, labels.part, labels.moves) - np.array(labels.origin)[:, None, None, None]
    iz, iy, ix = np.floor(at + 0.5).astype(int)
    known = labels.known[iz, iy, ix] if labels.known.size else np.ones(labels.part.shape, np.uint8)
    return out.astype(np.float32), labels.source[iz, iy, ix], known


def _dense(mapping: CoordinateMap, part: Box, moves: Moves) -> F64:
    """Return the source position ``[3, Z, Y, X]`` of every voxel of a part."""
    sections, y, x = (np.arange(a, b) for a, b in zip(part.start, part.stop, strict=True))
    grid = np.stack(np.meshgrid(y, x, indexing="ij")) / mapping.step
    out = np.empty((3, *part.shape))
    for i, z in enumerate(sections):
        for axis in range(3):
            out[axis, i] = ndimage.map_coordinates(mapping.nodes[z, axis], grid, order=1, mode="nearest")
        ny, nx, c, strength = moves.folds[z]
        side = np.where(ny * y[:, None] + nx * x > c, strength, -strength)
        out[1, i] += moves.shift[z, 0] + side * ny
        out[2, i] += moves.shift[z, 1] + side * nx
        if mapping.planar:
            out[0, i] = z
    return out
