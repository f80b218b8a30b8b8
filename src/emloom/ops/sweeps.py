"""Kernels of the gather (`emloom.ops.resample`): raw and labels of a box of the frame, band by band of rows.

Every section is swept in bands of a few thousand voxels, which stay in the cache while short loops with one job
each pass over them::

    columns   the map along the rows of nodes, at every voxel of x          once per section
    locate    between two rows of nodes: whole voxels and fractions         vector instructions
    read      one number per voxel from the source, at its place            the only loop that jumps in memory
    blend     interpolate, normalise, look up grey values                   vector instructions

uint8 raw is packed beforehand, section by section: four neighbours in one 32-bit word, so that one read brings
all of them. Sources are flat memory with three strides, so turned and transposed views need no copy and no kernel
of their own. Positions are float32, relative to the source's first voxel, and never negative there: truncation
rounds down. Nothing is allocated per band.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

I64 = NDArray[np.int64]

_BAND_VOX = 4096
_LARGEST_INDEX = 2**31 - 1
_ONE = np.float32(1.0)
_HALF = np.float32(0.5)


def flat_memory(array_ZYX: NDArray[Any]) -> tuple[NDArray[Any], I64]:
    """Return the memory behind an array, read-only ``[N]``, and int64 (z, y, x strides, index of its first voxel).

    Only what is not a regular stretch of memory, or too long for 32-bit indices, is copied.
    """
    item = array_ZYX.itemsize
    if not array_ZYX.size:
        array_ZYX = np.zeros((1, 1, 1), array_ZYX.dtype)
    span = 1 + sum((n - 1) * abs(s) for n, s in zip(array_ZYX.shape, array_ZYX.strides, strict=True)) // item
    if any(s % item for s in array_ZYX.strides) or span > _LARGEST_INDEX:
        array_ZYX = np.ascontiguousarray(array_ZYX)
        span = array_ZYX.size
    strides = [s // item for s in array_ZYX.strides]
    first = sum((n - 1) * -s for n, s in zip(array_ZYX.shape, strides, strict=True) if s < 0)
    lowest = array_ZYX[tuple(slice(None, None, -1 if s < 0 else 1) for s in strides)]
    return as_strided(lowest, (span,), (item,), writeable=False), np.array([*strides, first], np.int64)


@njit(cache=True, nogil=True, error_model="numpy")
def sweep_raw(mapping, box, moves, source, scale, tones, out):  # type: ignore[no-untyped-def]
    """Fill `out` with raw.

    Args:
        mapping: nodes, step, planar; see `emloom.ops.deformation.CoordinateMap`.
        box: int64 ``[2, 3]`` start and stop of the part of the frame.
        moves: shift and folds; see `emloom.ops.resample.Moves`.
        source: flat memory, its strides, its shape, its origin in the frame, whether it is uint8.
        scale: raw value that becomes -1, and factor.
        tones: tables, their slopes, toned.
        out: float32 ``ZYX``.
    """
    nodes, step, planar = mapping
    shift, folds = moves
    memory, strides, shape, origin, packed = source
    tables, slopes, toned = tones
    ny, nx = out.shape[1], out.shape[2]
    band = max(1, min(ny, _BAND_VOX // max(1, nx)))
    line = np.empty((3, nodes.shape[2], nx), np.float32)
    place, part = np.empty((3, band, nx), np.int32), np.empty((3, band, nx), np.float32)
    taps, value = np.empty((4, band, nx), np.float32), np.empty((band, nx), np.float32)
    words, index = np.empty((band, nx), np.uint32), np.empty((band, nx), np.int32)
    packed = packed and planar
    quads = np.empty(shape[1] * shape[2] if packed else 0, np.uint32)
    for i in range(out.shape[0]):
        z = box[0, 0] + i
        _columns(nodes[z], step, planar, origin, shift[z], box, line)
        section = z - origin[0] if planar else 0
        if packed:
            _pack(memory, strides[3] + section * strides[0], strides, shape, quads)
        for start in range(0, ny, band):
            n = min(band, ny - start)
            _locate(line, step, planar, folds[z], (box[0, 1] + start, box[0, 2], n), place, part)
            if packed:
                _read_words(quads, shape[2], n, place, words)
                _blend_words(words, n, part, value)
            else:
                _index(strides, section, planar, n, place, index)
                _read_taps(memory, strides, n, index, taps)
                _blend(taps, n, part, value)
                if not planar:
                    _index(strides, 1, planar, n, place, index)
                    _read_taps(memory, strides, n, index, taps)
                    _blend_next(taps, n, part, value)
            _normalise(value, n, scale, start, out[i])
            if toned[z]:
                _apply_table(tables[z], slopes[z], n, start, words, taps, out[i])


@njit(cache=True, nogil=True, error_model="numpy")
def sweep_labels(mapping, box, moves, source, known, out, bits):  # type: ignore[no-untyped-def]
    """Fill `out` with labels of the nearest voxels, and `bits` with what `known` says there, if it says anything.

    Args:
        mapping: see `sweep_raw`.
        box: see `sweep_raw`.
        moves: see `sweep_raw`.
        source: flat memory, its strides, its origin in the frame.
        known: flat memory, its strides, whether there is any.
        out: ``ZYX`` of the labels' type.
        bits: uint8 ``ZYX``.
    """
    nodes, step, planar = mapping
    shift, folds = moves
    memory, strides, origin = source
    mask, mask_strides, masked = known
    ny, nx = out.shape[1], out.shape[2]
    band = max(1, min(ny, _BAND_VOX // max(1, nx)))
    line = np.empty((3, nodes.shape[2], nx), np.float32)
    place, part = np.empty((3, band, nx), np.int32), np.empty((3, band, nx), np.float32)
    index = np.empty((band, nx), np.int32)
    place[0], part[0] = 0, 0
    for i in range(out.shape[0]):
        z = box[0, 0] + i
        section = z - origin[0] if planar else 0
        _columns(nodes[z], step, planar, origin, shift[z], box, line)
        for start in range(0, ny, band):
            n = min(band, ny - start)
            _locate(line, step, planar, folds[z], (box[0, 1] + start, box[0, 2], n), place, part)
            _round(planar, n, place, part)
            _index(strides, section, planar, n, place, index)
            _pick(memory, n, index, start, out[i])
            if masked:
                _index(mask_strides, section, planar, n, place, index)
                _pick(mask, n, index, start, bits[i])


@njit(cache=True, nogil=True, error_model="numpy")
def _columns(nodes, step, planar, origin, shift, box, line):  # type: ignore[no-untyped-def]
    """Evaluate the map of a section at every voxel of the rows of nodes, relative to the source's first voxel."""
    xa, xb = box[0, 2], box[1, 2]
    last = nodes.shape[2] - 2
    low, high = box[0, 1] // step, min((box[1, 1] - 1) // step + 1, nodes.shape[1] - 1)
    for axis in range(1 if planar else 0, 3):
        base = float(origin[axis] - (shift[axis - 1] if axis else 0))
        for row in range(low, high + 1):
            x = xa
            while x < xb:
                ix = min(x // step, last)
                a = nodes[axis, row, ix] - base
                slope = (nodes[axis, row, ix + 1] - nodes[axis, row, ix]) / step
                end = min(xb, (ix + 1) * step) if ix < last else xb
                for k in range(x, end):
                    line[axis, row, k - xa] = a + slope * (k - ix * step)
                x = end


@njit(cache=True, nogil=True, error_model="numpy")
def _locate(line, step, planar, fold, rows, place, part):  # type: ignore[no-untyped-def]
    """Evaluate the map of a band of rows; split positions into whole voxels and fractions."""
    y0, x0, n = rows
    last = line.shape[1] - 2
    for axis in range(1 if planar else 0, 3):
        for i in range(n):
            row = min((y0 + i) // step, last)
            f = np.float32((y0 + i - row * step) / step)
            for x in range(line.shape[2]):
                low = line[axis, row, x]
                position = low + (line[axis, row + 1, x] - low) * f
                whole = np.int32(position)
                place[axis, i, x] = whole
                part[axis, i, x] = position - np.float32(whole)
    if fold[3] != 0:
        _bend(fold, y0, x0, n, place, part)


@njit(cache=True, nogil=True, error_model="numpy")
def _bend(fold, y0, x0, n, place, part):  # type: ignore[no-untyped-def]
    for axis in range(1, 3):
        pull = np.float32(fold[3] * fold[axis - 1])
        for i in range(n):
            for x in range(place.shape[2]):
                far = fold[0] * (y0 + i) + fold[1] * (x0 + x) > fold[2]
                # Whole voxels and fraction are moved apart, so that no fraction loses digits.
                moved = part[axis, i, x] + (pull if far else -pull)
                whole = np.floor(moved)
                place[axis, i, x] += np.int32(whole)
                part[axis, i, x] = moved - whole


@njit(cache=True, nogil=True, error_model="numpy")
def _pack(memory, first, strides, shape, quads):  # type: ignore[no-untyped-def]
    """Put every voxel of a section and its neighbours at +x, +y and both into one word, lowest byte first."""
    ny, nx, sy, sx = shape[1], shape[2], strides[1], strides[2]
    for y in range(ny - 1):
        above, below, to = first + y * sy, first + (y + 1) * sy, y * nx
        if sx == 1:
            for x in range(nx - 1):
                quads[to + x] = _word(memory, above + x, below + x, 1)
        else:
            for x in range(nx - 1):
                quads[to + x] = _word(memory, above + x * sx, below + x * sx, sx)


@njit(cache=True, nogil=True, error_model="numpy")
def _word(memory, above, below, sx):  # type: ignore[no-untyped-def]
    a, b = np.uint32(memory[np.uint64(above)]), np.uint32(memory[np.uint64(above + sx)])
    c, d = np.uint32(memory[np.uint64(below)]), np.uint32(memory[np.uint64(below + sx)])
    return a | (b << np.uint32(8)) | (c << np.uint32(16)) | (d << np.uint32(24))


@njit(cache=True, nogil=True, error_model="numpy")
def _read_words(quads, width, n, place, words):  # type: ignore[no-untyped-def]
    w = np.int32(width)
    for i in range(n):
        for x in range(words.shape[1]):
            words[i, x] = quads[np.uint32(place[1, i, x] * w + place[2, i, x])]


@njit(cache=True, nogil=True, error_model="numpy")
def _blend_words(words, n, part, value):  # type: ignore[no-untyped-def]
    byte = np.uint32(255)
    for i in range(n):
        for x in range(words.shape[1]):
            word, fx = words[i, x], part[2, i, x]
            a, b = np.float32(word & byte), np.float32((word >> np.uint32(8)) & byte)
            c, d = np.float32((word >> np.uint32(16)) & byte), np.float32(word >> np.uint32(24))
            top, bottom = a + (b - a) * fx, c + (d - c) * fx
            value[i, x] = top + (bottom - top) * part[1, i, x]


@njit(cache=True, nogil=True, error_model="numpy")
def _read_taps(memory, strides, n, index, taps):  # type: ignore[no-untyped-def]
    sy, sx = np.int32(strides[1]), np.int32(strides[2])
    for i in range(n):
        for x in range(taps.shape[2]):
            at = index[i, x]
            taps[0, i, x] = memory[np.uint32(at)]
            taps[1, i, x] = memory[np.uint32(at + sx)]
            taps[2, i, x] = memory[np.uint32(at + sy)]
            taps[3, i, x] = memory[np.uint32(at + sy + sx)]


@njit(cache=True, nogil=True, error_model="numpy")
def _blend(taps, n, part, value):  # type: ignore[no-untyped-def]
    for i in range(n):
        for x in range(value.shape[1]):
            top = taps[0, i, x] + (taps[1, i, x] - taps[0, i, x]) * part[2, i, x]
            bottom = taps[2, i, x] + (taps[3, i, x] - taps[2, i, x]) * part[2, i, x]
            value[i, x] = top + (bottom - top) * part[1, i, x]


@njit(cache=True, nogil=True, error_model="numpy")
def _blend_next(taps, n, part, value):  # type: ignore[no-untyped-def]
    for i in range(n):
        for x in range(value.shape[1]):
            top = taps[0, i, x] + (taps[1, i, x] - taps[0, i, x]) * part[2, i, x]
            bottom = taps[2, i, x] + (taps[3, i, x] - taps[2, i, x]) * part[2, i, x]
            above = top + (bottom - top) * part[1, i, x]
            value[i, x] = value[i, x] + (above - value[i, x]) * part[0, i, x]


@njit(cache=True, nogil=True, error_model="numpy")
def _normalise(value, n, scale, start, out):  # type: ignore[no-untyped-def]
    low, factor = scale[0], scale[1]
    for i in range(n):
        for x in range(value.shape[1]):
            out[start + i, x] = (value[i, x] - low) * factor - _ONE


@njit(cache=True, nogil=True, error_model="numpy")
def _apply_table(table, slope, n, start, words, taps, out):  # type: ignore[no-untyped-def]
    half, last = np.float32((table.size - 1) / 2), np.float32(table.size - 2)
    nothing = np.float32(0.0)
    for i in range(n):
        y = start + i
        for x in range(out.shape[1]):
            t = min(max(out[y, x] * half + half, nothing), half + half)
            k = np.int32(min(t, last))
            words[i, x] = k
            out[y, x] = t - np.float32(k)
        for x in range(out.shape[1]):
            taps[0, i, x] = table[words[i, x]]
            taps[1, i, x] = slope[words[i, x]]
        for x in range(out.shape[1]):
            out[y, x] = taps[0, i, x] + taps[1, i, x] * out[y, x]


@njit(cache=True, nogil=True, error_model="numpy")
def _round(planar, n, place, part):  # type: ignore[no-untyped-def]
    """Replace whole voxels by nearest ones."""
    for axis in range(1 if planar else 0, 3):
        for i in range(n):
            for x in range(place.shape[2]):
                place[axis, i, x] += np.int32(part[axis, i, x] >= _HALF)


@njit(cache=True, nogil=True, error_model="numpy")
def _index(strides, section, planar, n, place, index):  # type: ignore[no-untyped-def]
    """Find whole voxels in memory; `section` is the first one."""
    first = np.int32(strides[3] + section * strides[0])
    sz, sy, sx = np.int32(strides[0]), np.int32(strides[1]), np.int32(strides[2])
    for i in range(n):
        for x in range(index.shape[1]):
            index[i, x] = first + place[1, i, x] * sy + place[2, i, x] * sx
        if not planar:
            for x in range(index.shape[1]):
                index[i, x] += place[0, i, x] * sz


@njit(cache=True, nogil=True, error_model="numpy")
def _pick(memory, n, index, start, out):  # type: ignore[no-untyped-def]
    for i in range(n):
        for x in range(out.shape[1]):
            out[start + i, x] = memory[np.uint32(index[i, x])]
