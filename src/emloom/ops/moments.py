"""Kernels of the local shape descriptors: see `emloom.ops.descriptors` for what they compute.

Work is cut into (object, tile) pairs, a tile being TILE columns of the strided grid along x: inside one, an
object's bounding box along z and y hugs its cross-section, and rows of a fixed length vectorise.

A scene is what the kernels look at, with objects numbered from 1::

    lines, runs   the strided grid with its context, as runs [object, first x, stop x];
                  line i = z * height + y holds runs[lines[i] : lines[i + 1]]
    fine          the box at full resolution
    frame         [downsample, first voxel of the box on the full-resolution grid of the context]
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
Bits = NDArray[np.uint8]

N_CHANNELS = 10
TILE = 16
Scene = tuple[I64, I32, I32, I64]
Windows = tuple[F64, F64, F64]
# Which record a voxel of the box takes (0: none), and the channels of each record. Objects finish in turn, far
# apart in memory: their short list stays in cache, and the long output is written once, in order.
Records = tuple[I32, F32]


@njit(cache=True, nogil=True)
def number(ids: NDArray[np.uint64], present: NDArray[np.uint64]) -> I32:
    """Return 1 + the index of every id in the sorted list, 0 where it is not there."""
    out = np.empty(ids.shape, np.int32)
    flat_ids, flat_out = ids.reshape(-1), out.reshape(-1)
    last, number = np.uint64(0), np.int32(0)
    for i in range(flat_ids.size):
        if flat_ids[i] != last:
            last = flat_ids[i]
            number = _number_of(last, present)
        flat_out[i] = number
    return out


@njit(cache=True, nogil=True)
def _number_of(label: np.uint64, present: NDArray[np.uint64]) -> np.int32:
    k = np.searchsorted(present, label)
    return np.int32(k + 1) if k < present.size and present[k] == label else np.int32(0)


@njit(cache=True, nogil=True)
def runs(ids: NDArray[np.uint64], present: NDArray[np.uint64]) -> tuple[I64, I32]:
    """Return the runs of present ids along x: where each line's runs begin, and [object, first x, stop x]."""
    depth, height, width = ids.shape
    lines = np.zeros(depth * height + 1, np.int64)
    runs = np.empty((ids.size, 3), np.int32)
    n = 0
    for i in range(depth * height):
        line = ids[i // height, i % height]
        x = 0
        while x < width:
            first, label = x, line[x]
            while x < width and line[x] == label:
                x += 1
            number = _number_of(label, present)
            if number:
                runs[n, 0], runs[n, 1], runs[n, 2] = number, first, x
                n += 1
        lines[i + 1] = n
    return lines, runs[:n].copy()


@njit(cache=True, nogil=True)
def tiles(scene: Scene, shape: tuple[int, int, int], n_objects: int, radii: I64) -> I64:
    """Return one row per (object, tile) that needs descriptors.

    Columns: object, first x, then low z, low y, high z, high y of the voxels to describe, then the same of the
    voxels they see; all on the strided grid. Pairs that see nothing of their object are left out.
    """
    n_tiles = (shape[2] - 1) // TILE + 1
    seen = _seen_extents(scene[0], scene[1], shape[1], n_objects, n_tiles)
    wanted = _wanted_extents(scene[2], scene[3], n_objects, n_tiles)
    rows = np.empty((n_objects * n_tiles, 10), np.int64)
    n = 0
    for label in range(1, n_objects + 1):
        for tile in range(n_tiles):
            out = wanted[label, tile]
            if out[2] == 0:
                continue
            first = max(0, tile * TILE - radii[2]) // TILE
            last = min(n_tiles - 1, (tile * TILE + TILE - 1 + radii[2]) // TILE)
            row = rows[n]
            row[0], row[1], row[2:6] = label, tile * TILE, out
            for axis in range(2):
                row[6 + axis] = max(seen[label, first : last + 1, axis].min(), out[axis] - radii[axis])
                row[8 + axis] = min(seen[label, first : last + 1, axis + 2].max(), out[axis + 2] + radii[axis])
            n += row[6] < row[8] and row[7] < row[9]
    return rows[:n]


@njit(cache=True, nogil=True)
def _no_extents(n_objects: int, n_tiles: int) -> I64:
    """Return bounding boxes [low z, low y, high z, high y] per object and tile, none of which holds anything."""
    out = np.zeros((n_objects + 1, n_tiles, 4), np.int64)
    out[:, :, :2] = np.iinfo(np.int64).max
    return out


@njit(cache=True, nogil=True)
def _include(box: I64, z: int, y: int) -> None:
    box[0], box[1] = min(box[0], z), min(box[1], y)
    box[2], box[3] = max(box[2], z + 1), max(box[3], y + 1)


@njit(cache=True, nogil=True)
def _seen_extents(lines: I64, runs: I32, height: int, n_objects: int, n_tiles: int) -> I64:
    out = _no_extents(n_objects, n_tiles)
    for i in range(lines.size - 1):
        for j in range(lines[i], lines[i + 1]):
            for tile in range(runs[j, 1] // TILE, (runs[j, 2] - 1) // TILE + 1):
                _include(out[runs[j, 0], tile], i // height, i % height)
    return out


@njit(cache=True, nogil=True)
def _wanted_extents(fine: I32, frame: I64, n_objects: int, n_tiles: int) -> I64:
    out = _no_extents(n_objects, n_tiles)
    factor, start = frame[0], frame[1]
    tile_of_x = (np.arange(fine.shape[2]) + start[2]) // factor[2] // TILE
    for z in range(fine.shape[0]):
        for y in range(fine.shape[1]):
            zs, ys = (z + start[0]) // factor[0], (y + start[1]) // factor[1]
            line = fine[z, y]
            last_label, last_tile = np.int32(0), np.int64(0)
            for x in range(line.size):
                if line[x] != last_label or tile_of_x[x] != last_tile:
                    last_label, last_tile = line[x], tile_of_x[x]
                    if last_label:
                        _include(out[last_label, last_tile], zs, ys)
    return out


@njit(cache=True, nogil=True)
def describe(scene: Scene, height: int, tiles: I64, windows: Windows, floors: F64, records: Records) -> None:
    """Record the descriptors of all objects, tile by tile; `height` is that of the strided grid."""
    n = 1
    records[1][:, 0] = 0.0
    size_x, size_y = 0, 0
    for tile in tiles:
        depth = tile[8] - tile[6]
        size_x, size_y = max(size_x, depth * (tile[9] - tile[7])), max(size_y, depth * (tile[5] - tile[3]))
    sums_x, sums_y = np.empty((size_x, 3 * TILE)), np.empty((size_y, 6 * TILE))
    moments = np.empty(N_CHANNELS * TILE)
    for tile in tiles:
        needed = _needed(scene[2], scene[3], tile)
        used = _sum_along_x(scene, height, tile, windows[2], sums_x)
        used = _sum_along_y(tile, used, windows[1], needed, sums_x, sums_y)
        for z in range(needed.shape[0]):
            for y in range(needed.shape[1]):
                if needed[z, y]:
                    _sum_along_z(tile, (z, y), used, windows[0], sums_y, moments)
                    _to_channels(moments, floors)
                    n = _record(scene, tile, (z, y), moments, records, n)


@njit(cache=True, nogil=True)
def _fine_range(fine: I32, frame: I64, axis: int, low: int, high: int) -> tuple[int, int]:
    """Return the voxels of the box that strided voxels [low, high) stand for."""
    factor, start = frame[0, axis], frame[1, axis]
    return max(low * factor - start, 0), min(high * factor - start, fine.shape[axis])


@njit(cache=True, nogil=True)
def _needed(fine: I32, frame: I64, tile: I64) -> Bits:
    """Return, per strided row (z, y) of the tile, whether some voxel there needs a descriptor."""
    factor, start = frame[0], frame[1]
    needed = np.zeros((tile[4] - tile[2], tile[5] - tile[3]), np.uint8)
    z_range = _fine_range(fine, frame, 0, tile[2], tile[4])
    y_range = _fine_range(fine, frame, 1, tile[3], tile[5])
    x_range = _fine_range(fine, frame, 2, tile[1], tile[1] + TILE)
    for z in range(z_range[0], z_range[1]):
        row = needed[(z + start[0]) // factor[0] - tile[2]]
        for y in range(y_range[0], y_range[1]):
            ys = (y + start[1]) // factor[1] - tile[3]
            if row[ys]:
                continue
            for x in range(x_range[0], x_range[1]):
                if fine[z, y, x] == tile[0]:
                    row[ys] = 1
                    break
    return needed


@njit(cache=True, nogil=True)
def _sum_along_x(scene: Scene, height: int, tile: I64, running: F64, sums: F64) -> Bits:
    """Fill in the sums of w, w d, w d^2 along x of every line (z, y); return which lines see the object.

    The sums over a run are differences of the window's running sums, so a run costs the same at any length.
    """
    lines, runs = scene[0], scene[1]
    low, high, radius = tile[1], tile[1] + TILE, running.shape[1] // 2 - 1
    used = np.zeros((tile[8] - tile[6], tile[9] - tile[7]), np.uint8)
    for z in range(used.shape[0]):
        for y in range(used.shape[1]):
            line = (z + tile[6]) * height + y + tile[7]
            row = sums[z * used.shape[1] + y]
            for i in range(lines[line], lines[line + 1]):
                if runs[i, 0] != tile[0] or runs[i, 2] <= low - radius or runs[i, 1] >= high + radius:
                    continue
                if not used[z, y]:
                    row[:] = 0.0
                    used[z, y] = 1
                _add_run(int(runs[i, 1]), int(runs[i, 2]), low, running, row)
    return used


@njit(cache=True, nogil=True)
def _add_run(first: int, stop: int, low: int, running: F64, row: F64) -> None:
    radius = running.shape[1] // 2 - 1
    for i in range(TILE):
        # Entries of the running sums: 0 stands before the window, 2 radius + 1 after it.
        a = min(max(first - low - i + radius, 0), 2 * radius + 1)
        b = min(max(stop - low - i + radius, 0), 2 * radius + 1)
        row[i] += running[0, b] - running[0, a]
        row[TILE + i] += running[1, b] - running[1, a]
        row[2 * TILE + i] += running[2, b] - running[2, a]


@njit(cache=True, nogil=True)
def _sum_along_y(tile: I64, used_x: Bits, window: F64, needed: Bits, sums_x: F64, sums_y: F64) -> Bits:
    """Fill in the six sums along y and x; return which lines hold any.

    Order, by the powers (y, x): 00 01 02 10 11 20, so that sums of one power of y are contiguous.
    """
    depth, height_in = used_x.shape
    height, radius, shift = needed.shape[1], window.shape[1] // 2, tile[3] - tile[7]
    used = np.zeros((depth, height), np.uint8)
    rows, weights = np.empty(window.shape[1] + 3, np.int64), np.empty((3, window.shape[1] + 3))
    for y in range(height):
        if not needed[:, y].any():
            continue
        for z in range(depth):
            n = 0
            for y_in in range(max(0, y + shift - radius), min(height_in, y + shift + radius + 1)):
                if used_x[z, y_in]:
                    rows[n], weights[:, n] = z * height_in + y_in, window[:, y_in - y - shift + radius]
                    n += 1
            if n:
                used[z, y] = 1
                out = sums_y[z * height + y]
                out[:] = 0.0
                for i in range(0, _fill_up(rows, weights, n), 4):
                    _add_y(out, sums_x, rows, weights, i)
    return used


@njit(cache=True, nogil=True)
def _sum_along_z(tile: I64, place: tuple[int, int], used: Bits, window: F64, sums_y: F64, out: F64) -> None:
    """Finish the ten moments of a row: the six of power 0 along z, then z, zx, zy, zz."""
    depth, height = used.shape
    radius, centre, y = window.shape[1] // 2, place[0] + tile[2] - tile[6], place[1]
    rows, weights = np.empty(window.shape[1] + 3, np.int64), np.empty((3, window.shape[1] + 3))
    n = 0
    for z in range(max(0, centre - radius), min(depth, centre + radius + 1)):
        if used[z, y]:
            rows[n], weights[:, n] = z * height + y, window[:, z - centre + radius]
            n += 1
    out[:] = 0.0
    for i in range(0, _fill_up(rows, weights, n), 4):
        _add_z(out, sums_y, rows, weights, i)


@njit(cache=True, nogil=True)
def _fill_up(rows: I64, weights: F64, n: int) -> int:
    """Append rows of weight 0 until they come in fours; return how many there are now."""
    while n % 4:
        rows[n], weights[:, n] = rows[n - 1], 0.0
        n += 1
    return n


# Rows are short: loops of lengths known to the compiler, four rows per sweep over the output. They are added in
# their order, so sums do not depend on how rows fall into fours.
@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_y(out: F64, source: F64, rows: I64, weights: F64, i: int) -> None:
    a, b, c, d = source[rows[i]], source[rows[i + 1]], source[rows[i + 2]], source[rows[i + 3]]
    wa, wb, wc, wd = weights[0, i], weights[0, i + 1], weights[0, i + 2], weights[0, i + 3]
    for x in range(3 * TILE):
        out[x] = out[x] + wa * a[x] + wb * b[x] + wc * c[x] + wd * d[x]
    wa, wb, wc, wd = weights[1, i], weights[1, i + 1], weights[1, i + 2], weights[1, i + 3]
    for x in range(2 * TILE):
        y = x + 3 * TILE
        out[y] = out[y] + wa * a[x] + wb * b[x] + wc * c[x] + wd * d[x]
    wa, wb, wc, wd = weights[2, i], weights[2, i + 1], weights[2, i + 2], weights[2, i + 3]
    for x in range(TILE):
        y = x + 5 * TILE
        out[y] = out[y] + wa * a[x] + wb * b[x] + wc * c[x] + wd * d[x]


@njit(cache=True, nogil=True, fastmath={"contract"})
def _add_z(out: F64, source: F64, rows: I64, weights: F64, i: int) -> None:
    a, b, c, d = source[rows[i]], source[rows[i + 1]], source[rows[i + 2]], source[rows[i + 3]]
    wa, wb, wc, wd = weights[0, i], weights[0, i + 1], weights[0, i + 2], weights[0, i + 3]
    for x in range(6 * TILE):
        out[x] = out[x] + wa * a[x] + wb * b[x] + wc * c[x] + wd * d[x]
    wa, wb, wc, wd = weights[1, i], weights[1, i + 1], weights[1, i + 2], weights[1, i + 3]
    for x in range(2 * TILE):
        y = x + 6 * TILE
        out[y] = out[y] + wa * a[x] + wb * b[x] + wc * c[x] + wd * d[x]
    for x in range(3 * TILE, 4 * TILE):
        y = x + 5 * TILE
        out[y] = out[y] + wa * a[x] + wb * b[x] + wc * c[x] + wd * d[x]
    wa, wb, wc, wd = weights[2, i], weights[2, i + 1], weights[2, i + 2], weights[2, i + 3]
    for x in range(TILE):
        y = x + 9 * TILE
        out[y] = out[y] + wa * a[x] + wb * b[x] + wc * c[x] + wd * d[x]


@njit(cache=True, nogil=True, error_model="numpy")
def _to_channels(rows: F64, floors: F64) -> None:
    """Turn moments (lengths in sigma), ordered 000 x xx y yx yy z zx zy zz, into clipped channels."""
    floor_z, floor_y, floor_x = floors[0], floors[1], floors[2]
    for i in range(TILE):
        size = rows[i]
        per = 1.0 / (size if size > 0.0 else 1.0)
        x, y, z = rows[TILE + i] * per, rows[3 * TILE + i] * per, rows[6 * TILE + i] * per
        var_x = max(rows[2 * TILE + i] * per - x * x, floor_x)
        var_y = max(rows[5 * TILE + i] * per - y * y, floor_y)
        var_z = max(rows[9 * TILE + i] * per - z * z, floor_z)
        yx, zx, zy = (
            rows[4 * TILE + i] * per - y * x,
            rows[7 * TILE + i] * per - z * x,
            rows[8 * TILE + i] * per - z * y,
        )
        rows[i] = _clip(z / 2 + 0.5)
        rows[TILE + i] = _clip(y / 2 + 0.5)
        rows[2 * TILE + i] = _clip(x / 2 + 0.5)
        rows[3 * TILE + i] = _clip(var_z)
        rows[4 * TILE + i] = _clip(var_y)
        rows[5 * TILE + i] = _clip(var_x)
        rows[6 * TILE + i] = _clip(zy / np.sqrt(var_z * var_y) / 2 + 0.5)
        rows[7 * TILE + i] = _clip(zx / np.sqrt(var_z * var_x) / 2 + 0.5)
        rows[8 * TILE + i] = _clip(yx / np.sqrt(var_y * var_x) / 2 + 0.5)
        rows[9 * TILE + i] = _clip(size)


@njit(cache=True, nogil=True)
def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)


@njit(cache=True, nogil=True)
def _record(scene: Scene, tile: I64, place: tuple[int, int], rows: F64, records: Records, n: int) -> int:
    """Append the columns of a strided row that some voxel needs; return the number of records now."""
    fine, frame = scene[2], scene[3]
    zs, ys, step = place[0] + tile[2], place[1] + tile[3], frame[0, 2]
    z_range, y_range = _fine_range(fine, frame, 0, zs, zs + 1), _fine_range(fine, frame, 1, ys, ys + 1)
    first = tile[1] * step - frame[1, 2]
    for i in range(TILE):
        if rows[9 * TILE + i] == 0.0:
            continue
        wanted = False
        low, high = max(first + i * step, 0), min(first + (i + 1) * step, fine.shape[2])
        for z in range(z_range[0], z_range[1]):
            for y in range(y_range[0], y_range[1]):
                for x in range(low, high):
                    if fine[z, y, x] == tile[0]:
                        records[0][z, y, x] = n
                        wanted = True
        if wanted:
            for c in range(N_CHANNELS):
                records[1][c, n] = rows[c * TILE + i]
            n += 1
    return n


@njit(cache=True, nogil=True)
def spread(record_of: I32, values: F32, lsds: F32) -> None:
    """Write the channels of every voxel's record; record 0 is all 0."""
    for c in range(N_CHANNELS):
        for z in range(lsds.shape[1]):
            for y in range(lsds.shape[2]):
                source, out = record_of[z, y], lsds[c, z, y]
                for x in range(out.size):
                    out[x] = values[c, source[x]]
