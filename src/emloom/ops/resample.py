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
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from emloom.geometry import Box
from emloom.ops.deformation import CoordinateMap, box_to_read

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
    out = np.empty(raw.part.shape, np.float32)
    ids = np.empty(labels.part.shape, labels.source.dtype)
    known = np.ones(labels.part.shape, np.uint8)
    rows = raw.part.hull(labels.part)
    scale = np.array([raw.range[0], 2.0 / (raw.range[1] - raw.range[0])], np.float32)
    slopes = np.diff(raw.tables, axis=1)
    _sweep(
        (mapping.nodes, mapping.step, mapping.planar),
        np.array([rows.start, rows.stop], np.int64),
        (_ends(raw.part), raw.moves.shift, raw.moves.folds),
        (raw.source, np.array(raw.origin, np.int64), scale, raw.tables, slopes, raw.toned, out),
        (_ends(labels.part), labels.moves.shift, labels.moves.folds),
        (labels.source, labels.known, np.array(labels.origin, np.int64), ids, known),
    )
    return out, ids, known


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


def _ends(box: Box) -> I64:
    return np.array([box.start, box.stop], np.int64)


# --- kernels: grey values and positions within the source in float32; nothing is allocated per voxel ------------
# Short loops with one job each: the compiler turns all but the reads of the source into vector instructions, and
# unsigned indices spare the test for negative ones.


@njit(cache=True, nogil=True, error_model="numpy")
def _sweep(mapping, rows, raw_at, raw, labels_at, labels):  # type: ignore[no-untyped-def]
    planar = mapping[2]
    raw_box, raw_shift, raw_folds = raw_at
    label_box, label_shift, label_folds = labels_at
    first, width = rows[0, 2], rows[1, 2] - rows[0, 2]
    base = np.minimum(raw[1], labels[2])  # positions from here on are not negative: to truncate is to round down
    line = np.empty((3, width), np.float32)
    at = (line, np.empty((3, width), np.int32), np.empty((3, width), np.float32))
    taps = np.empty((4, width), np.float32)
    for z in range(rows[0, 0], rows[1, 0]):
        same = (raw_shift[z] == label_shift[z]).all() and (raw_folds[z] == label_folds[z]).all()
        for y in range(rows[0, 1], rows[1, 1]):
            in_raw = _holds(raw_box, z, y)
            in_labels = _holds(label_box, z, y)
            if in_raw:
                _line(mapping, z, y, first, base, line)
                _locate((y, first), raw_shift[z], raw_folds[z], at)
                _linear(raw, (z, y, first), raw_box, planar, base, at, taps)
            if in_labels:
                if not (in_raw and same):
                    _line(mapping, z, y, first, base, line)
                    _locate((y, first), label_shift[z], label_folds[z], at)
                _nearest(labels, (z, y, first), label_box, planar, base, at)


@njit(cache=True, nogil=True)
def _holds(box, z, y):  # type: ignore[no-untyped-def]
    return box[0, 0] <= z < box[1, 0] and box[0, 1] <= y < box[1, 1]


@njit(cache=True, nogil=True, error_model="numpy")
def _line(mapping, z, y, first, base, line):  # type: ignore[no-untyped-def]
    """Evaluate the map along one row, relative to `base`: linear between nodes."""
    nodes, step, planar = mapping[0][z], mapping[1], mapping[2]
    iy = min(y // step, nodes.shape[1] - 2)
    fy = (y - iy * step) / step
    for axis in range(3):
        row = line[axis]
        if axis == 0 and planar:
            row[:] = np.float32(z - base[0])
            continue
        low, high = nodes[axis, iy], nodes[axis, iy + 1]
        x = first
        stop = first + row.size
        while x < stop:
            ix = min(x // step, low.size - 2)
            a = low[ix] + (high[ix] - low[ix]) * fy
            b = low[ix + 1] + (high[ix + 1] - low[ix + 1]) * fy
            slope = np.float32((b - a) / step)
            start = np.float32(a - base[axis])
            end = min(stop, (ix + 1) * step) if ix < low.size - 2 else stop
            for k in range(x, end):
                row[k - first] = start + slope * np.float32(k - ix * step)
            x = end


@njit(cache=True, nogil=True, error_model="numpy")
def _locate(start, shift, fold, at):  # type: ignore[no-untyped-def]
    """Move the positions of one row by a section's shift and fold; split them into whole voxels and fractions."""
    line, whole, part = at
    ny, nx, c, strength = fold[0], fold[1], fold[2], fold[3]
    if strength != 0:
        for x in range(line.shape[1]):
            side = strength if ny * start[0] + nx * (start[1] + x) > c else -strength
            line[1, x] += np.float32(side * ny)
            line[2, x] += np.float32(side * nx)
    for axis in range(3):
        move = np.float32(shift[axis - 1]) if axis else np.float32(0)
        for x in range(line.shape[1]):
            position = line[axis, x] + move
            whole[axis, x] = np.int32(position)
            part[axis, x] = position - np.float32(whole[axis, x])


@njit(cache=True, nogil=True, error_model="numpy")
def _linear(raw, at, box, planar, base, located, taps):  # type: ignore[no-untyped-def]
    source, origin, scale, tables, slopes, toned, out = raw
    _, whole, part = located
    z, y, first = at
    row = out[z - box[0, 0], y - box[0, 1]]
    a = box[0, 2] - first
    low, factor = scale[0], scale[1]
    one = np.float32(1.0)
    dz, dy, dx = np.int32(origin[0] - base[0]), np.int32(origin[1] - base[1]), np.int32(origin[2] - base[2])
    fy, fx = part[1, a : a + row.size], part[2, a : a + row.size]
    iy, ix = whole[1, a : a + row.size], whole[2, a : a + row.size]
    if planar:
        _read_taps(source[whole[0, a] - dz], iy, ix, dy, dx, taps)
        for x in range(row.size):
            top = taps[0, x] + (taps[1, x] - taps[0, x]) * fx[x]
            bottom = taps[2, x] + (taps[3, x] - taps[2, x]) * fx[x]
            row[x] = (top + (bottom - top) * fy[x] - low) * factor - one
    else:
        for x in range(row.size):
            iz, fz = np.uint32(whole[0, a + x] - dz), part[0, a + x]
            y0, x0 = np.uint32(iy[x] - dy), np.uint32(ix[x] - dx)
            below = _bilinear(source[iz], y0, x0, fy[x], fx[x])
            above = _bilinear(source[iz + np.uint32(1)], y0, x0, fy[x], fx[x])
            row[x] = (below + (above - below) * fz - low) * factor - one
    if toned[z]:
        _apply_table(row, tables[z], slopes[z])


@njit(cache=True, nogil=True, error_model="numpy")
def _read_taps(section, iy, ix, dy, dx, taps):  # type: ignore[no-untyped-def]
    one = np.uint32(1)
    for x in range(iy.size):
        y0, x0 = np.uint32(iy[x] - dy), np.uint32(ix[x] - dx)
        taps[0, x] = section[y0, x0]
        taps[1, x] = section[y0, x0 + one]
        taps[2, x] = section[y0 + one, x0]
        taps[3, x] = section[y0 + one, x0 + one]


@njit(cache=True, nogil=True, error_model="numpy")
def _bilinear(section, iy, ix, fy, fx):  # type: ignore[no-untyped-def]
    one = np.uint32(1)
    a, b = np.float32(section[iy, ix]), np.float32(section[iy, ix + one])
    c, d = np.float32(section[iy + one, ix]), np.float32(section[iy + one, ix + one])
    top, bottom = a + (b - a) * fx, c + (d - c) * fx
    return top + (bottom - top) * fy


@njit(cache=True, nogil=True, error_model="numpy")
def _apply_table(row, table, slope):  # type: ignore[no-untyped-def]
    half = np.float32((table.size - 1) / 2)
    last = np.float32(table.size - 2)
    for x in range(row.size):
        t = min(max(row[x] * half + half, np.float32(0.0)), half + half)
        i = np.uint32(min(t, last))
        row[x] = table[i] + slope[i] * (t - np.float32(i))


@njit(cache=True, nogil=True, error_model="numpy")
def _nearest(labels, at, box, planar, base, located):  # type: ignore[no-untyped-def]
    source, known, origin, ids, valid = labels
    z, y, first = at
    row, bits = ids[z - box[0, 0], y - box[0, 1]], valid[z - box[0, 0], y - box[0, 1]]
    a = box[0, 2] - first
    whole, part = located[1][:, a : a + row.size], located[2][:, a : a + row.size]
    dz, dy, dx = np.int32(origin[0] - base[0]), np.int32(origin[1] - base[1]), np.int32(origin[2] - base[2])
    half = np.float32(0.5)
    if planar:
        iz = np.uint32(whole[0, 0] - dz)
        _pick(source[iz], whole, part, dy, dx, row)
        if known.size:
            _pick(known[iz], whole, part, dy, dx, bits)
        return
    for x in range(row.size):
        iz = np.uint32(whole[0, x] - dz + np.int32(part[0, x] >= half))
        iy = np.uint32(whole[1, x] - dy + np.int32(part[1, x] >= half))
        ix = np.uint32(whole[2, x] - dx + np.int32(part[2, x] >= half))
        row[x] = source[iz, iy, ix]
        if known.size:
            bits[x] = known[iz, iy, ix]


@njit(cache=True, nogil=True, error_model="numpy")
def _pick(section, whole, part, dy, dx, row):  # type: ignore[no-untyped-def]
    half = np.float32(0.5)
    for x in range(row.size):
        iy = np.uint32(whole[1, x] - dy + np.int32(part[1, x] >= half))
        ix = np.uint32(whole[2, x] - dx + np.int32(part[2, x] >= half))
        row[x] = section[iy, ix]
