"""Local shape descriptors: what the object around a voxel looks like, in ten numbers.

Sheridan et al., Nature Methods 2023 (doi:10.1038/s41592-022-01711-z).

Around voxel ``x`` of object ``l``, with a Gaussian window ``w`` (standard deviation sigma, cut off at 3 sigma,
sum 1) and the object's indicator ``m`` (zero outside the array), the moments are::

    M_abc(x) = sum over d of  w(d) dz^a dy^b dx^c m(x + d)        d = position relative to x, nm

    size      n    = M_000                         part of the window inside the object
    offset    mu_i = M_i / n                       centre of mass relative to x
    variance  V_i  = max(M_ii / n - mu_i^2, 1e-3 nm^2)
    pearson   r_ij = (M_ij / n - mu_i mu_j) / sqrt(V_i V_j)

    channels  0:3  mu / sigma / 2 + 1/2  (z y x)      3:6  V / sigma^2  (z y x)
              6:9  r / 2 + 1/2  (zy zx yx)            9    n             all clipped to [0, 1]

The window is a product, so the moments are three sweeps of one-dimensional sums over each object's own
bounding box: along x 3 sums, then y 6, then z 10 (not 30 passes over the volume per object). Positions are
relative throughout: nothing cancels, and a crop with 3 sigma of context gives the same bits as the whole.

With ``downsample`` f, objects are seen on the strided grid ``labels[::f]``, anchored at the array's first voxel,
and each descriptor serves the f voxels it stands for. An object with no strided voxel in the window has no
descriptor there: target 0 and weight 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import fastremap
import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.box import as_vec, sub
from emloom.geometry.grid import Vec3, as_nm
from emloom.ops.labels import require_labels_array, require_mask_array

Array = NDArray[Any]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Bits = NDArray[np.uint8]

N_CHANNELS = 10
CUT_OFF_SIGMAS = 3.0
SMALLEST_VARIANCE_NM2 = 1e-3


def context_vox(
    spacing_nm: Sequence[float], sigma_nm: float | Sequence[float] = 80.0, downsample: int | Sequence[int] = 1
) -> Vec:
    """Return how many voxels (z, y, x) around a box its descriptors depend on.

    Raises:
        InputError: spacing, sigma or downsample is not positive.
    """
    spacing, sigma, factor = _checked(spacing_nm, sigma_nm, downsample)
    z, y, x = (_radius(s * f, g) * f for s, g, f in zip(spacing, sigma, factor, strict=True))
    return (z, y, x)


def local_shape_descriptors(
    labels_ZYX: Array,
    spacing_nm: Sequence[float],
    sigma_nm: float | Sequence[float] = 80.0,
    *,
    downsample: int | Sequence[int] = (1, 1, 1),
    box: Box | None = None,
    mask_ZYX: Array | None = None,
) -> tuple[F32, Bits]:
    """Gaussian-weighted size, offset and covariance of the object around each voxel.

    Sheridan et al., Nature Methods 2023 (doi:10.1038/s41592-022-01711-z); see the module for the formulae. For a
    single section, choose a sigma along z below a sixth of the voxel size: the window is then flat.

    Args:
        labels_ZYX: instance ids, any unsigned integer; 0 is background.
        spacing_nm: voxel size (z, y, x) in nm.
        sigma_nm: standard deviation of the window in nm, or one per axis (z, y, x).
        downsample: see objects on every f-th voxel only, per axis (z, y, x).
        box: voxels to describe; the rest of the array is context. Default: all.
        mask_ZYX: 0 where labels are unknown; None: all known.

    Returns:
        descriptors float32 [10, Z, Y, X] in [0, 1] of `box`; channels: offset zyx, variance zyx, correlation
        zy zx yx, size; 0 on background. And weight uint8 [Z, Y, X]: 1 where the descriptor is defined and known.

    Raises:
        InputError: labels are signed or floating, a length is not positive, or `box` leaves the array.
    """
    spacing, sigma, factor = _checked(spacing_nm, sigma_nm, downsample)
    require_labels_array(labels_ZYX[:0])
    box = Box.whole(labels_ZYX.shape) if box is None else box
    mask = require_mask_array(mask_ZYX, labels_ZYX.shape)
    seen = _context(box, Box.whole(labels_ZYX.shape), context_vox(spacing, sigma, factor), factor)
    # Full resolution is needed inside the box only; the context is seen on the strided grid.
    z, y, x = seen.slices()
    coarse = require_labels_array(labels_ZYX[z, y, x][:: factor[0], :: factor[1], :: factor[2]])
    fine = require_labels_array(labels_ZYX[box.slices()])
    lsds = np.zeros((N_CHANNELS, *box.shape), np.float32)
    weight = np.zeros(box.shape, np.uint8)
    present = fastremap.unique(fine) if fine.size else np.zeros(0, np.uint64)
    present = present[present != 0]
    if len(present):
        windows = tuple(_window(s * f, g) for s, f, g in zip(spacing, factor, sigma, strict=True))
        floors = np.array([SMALLEST_VARIANCE_NM2 / s**2 for s in sigma])
        frame = np.array([factor, sub(box.start, seen.start)], np.int64)
        scene = (_number(coarse, present), _number(fine, present), frame)
        tiles = _tiles(scene, len(present), np.array([w.shape[1] // 2 for w in windows]))
        _describe(scene, tiles, (windows[0], windows[1], _running(windows[2])), floors, lsds, weight)
    if mask.size:
        weight &= mask[box.slices()]
    return lsds, weight


def _checked(
    spacing_nm: Sequence[float], sigma_nm: float | Sequence[float], downsample: int | Sequence[int]
) -> tuple[Vec3, Vec3, Vec]:
    spacing = as_nm(spacing_nm, "voxel size")
    sigma = as_nm([sigma_nm] * 3 if isinstance(sigma_nm, int | float) else sigma_nm, "sigma")
    factor = as_vec(downsample)
    for name, value in (("voxel size", spacing), ("sigma", sigma), ("downsample", factor)):
        if min(value) <= 0:
            raise InputError(f"{name} {value} is not positive: give z, y, x, each above 0")
    return spacing, sigma, factor


def _context(box: Box, whole: Box, context: Vec, factor: Vec) -> Box:
    """Return the voxels the box depends on, aligned to the strided grid of the whole array."""
    if not whole.contains(box):
        raise InputError(f"{box} leaves the labels, which are {whole}: choose a box inside them")
    return box if box.is_empty else box.snap(factor).grow(context).intersect(whole)


def _radius(step_nm: float, sigma_nm: float) -> int:
    return int(CUT_OFF_SIGMAS * sigma_nm / step_nm + 0.5)


def _window(step_nm: float, sigma_nm: float) -> F64:
    """Return w(d), w(d) d, w(d) d^2 for all d of the window, [3, 2r + 1]; d in units of sigma."""
    radius = _radius(step_nm, sigma_nm)
    d = np.arange(-radius, radius + 1) * (step_nm / sigma_nm)
    w = np.exp(-0.5 * d**2)
    w /= w.sum()
    return np.stack([w, w * d, w * d**2])


def _running(window: F64) -> F64:
    """Return running sums [3, 2r + 2]: the sum over a run of voxels is the difference of two entries."""
    return np.concatenate([np.zeros((3, 1)), np.cumsum(window, axis=1)], axis=1)


# ---- kernels ----
#
# Work is cut into (object, tile) pairs, a tile being TILE columns of the strided grid along x: inside one, an
# object's bounding box along z and y hugs its cross-section, and rows of a fixed length vectorise.
#
# A scene is (coarse, fine, frame): objects numbered from 1 on the strided grid with context, at full resolution in
# the box, and the frame [downsample, first voxel of the box on the full-resolution grid of coarse].

TILE = 16
Objects = NDArray[np.int32]
Scene = tuple[Objects, Objects, I64]
Windows = tuple[F64, F64, F64]


@njit(cache=True, nogil=True)
def _number(ids: NDArray[np.uint64], present: NDArray[np.uint64]) -> Objects:
    """Return 1 + the index of every id in the sorted list, 0 where it is not there."""
    out = np.empty(ids.shape, np.int32)
    flat_ids, flat_out = ids.reshape(-1), out.reshape(-1)
    last, number = np.uint64(0), np.int32(0)
    for i in range(flat_ids.size):
        if flat_ids[i] != last:
            last = flat_ids[i]
            k = np.searchsorted(present, last)
            found = k < present.size and present[k] == last
            number = np.int32(k + 1) if found else np.int32(0)
        flat_out[i] = number
    return out


@njit(cache=True, nogil=True)
def _tiles(scene: Scene, n_objects: int, radii: I64) -> I64:
    """Return one row per (object, tile) that needs descriptors.

    Columns: object, first x, then low z, low y, high z, high y of the voxels to describe, then the same of the
    voxels they see; all on the strided grid. Pairs that see nothing of their object are left out.
    """
    coarse, fine, frame = scene
    unit = np.ones(3, np.int64)
    seen = _extents(coarse, n_objects, (coarse.shape[2] - 1) // TILE + 1, unit, np.zeros(3, np.int64))
    wanted = _extents(fine, n_objects, seen.shape[1], frame[0], frame[1])
    rows = np.empty((n_objects * seen.shape[1], 10), np.int64)
    n = 0
    for label in range(1, n_objects + 1):
        for tile in range(seen.shape[1]):
            out = wanted[label, tile]
            if out[2] == 0:
                continue
            first = max(0, tile * TILE - radii[2]) // TILE
            last = min((coarse.shape[2] - 1) // TILE, (tile * TILE + TILE - 1 + radii[2]) // TILE)
            row = rows[n]
            row[0], row[1], row[2:6] = label, tile * TILE, out
            for axis in range(2):
                row[6 + axis] = max(seen[label, first : last + 1, axis].min(), out[axis] - radii[axis])
                row[8 + axis] = min(seen[label, first : last + 1, axis + 2].max(), out[axis + 2] + radii[axis])
            n += row[6] < row[8] and row[7] < row[9]
    return rows[:n]


@njit(cache=True, nogil=True)
def _extents(objects: Objects, n_objects: int, n_tiles: int, factor: I64, start: I64) -> I64:
    """Return the bounding box [low z, low y, high z, high y] per object and tile; high is 0 where absent."""
    out = np.zeros((n_objects + 1, n_tiles, 4), np.int64)
    out[:, :, :2] = np.iinfo(np.int64).max
    for z in range(objects.shape[0]):
        for y in range(objects.shape[1]):
            zs, ys = (z + start[0]) // factor[0], (y + start[1]) // factor[1]
            line = objects[z, y]
            last_label, last_tile = np.int32(0), np.int64(-1)
            for x in range(line.size):
                if line[x] == 0:
                    continue
                tile = (x + start[2]) // factor[2] // TILE
                if line[x] == last_label and tile == last_tile:
                    continue
                last_label, last_tile = line[x], tile
                box = out[line[x], tile]
                box[0], box[1] = min(box[0], zs), min(box[1], ys)
                box[2], box[3] = max(box[2], zs + 1), max(box[3], ys + 1)
    return out


@njit(cache=True, nogil=True)
def _describe(scene: Scene, tiles: I64, windows: Windows, floors: F64, lsds: F32, weight: Bits) -> None:
    """Fill in the descriptors of all objects, tile by tile."""
    depth, height_in = tiles[:, 8] - tiles[:, 6], tiles[:, 9] - tiles[:, 7]
    height = tiles[:, 5] - tiles[:, 3]
    sums_x = np.empty(((depth * height_in).max() if len(tiles) else 0, 3 * TILE))
    sums_y = np.empty(((depth * height).max() if len(tiles) else 0, 6 * TILE))
    moments = np.empty((1, N_CHANNELS * TILE))
    for tile in tiles:
        needed = _needed(scene, tile)
        used = _sum_along_x(scene, tile, windows[2], sums_x)
        used = _sum_along_y(tile, used, windows[1], needed, sums_x, sums_y)
        for z in range(needed.shape[0]):
            for y in range(needed.shape[1]):
                if needed[z, y]:
                    _sum_along_z(tile, (z, y), used, windows[0], sums_y, moments)
                    channels = moments.reshape((N_CHANNELS, TILE))
                    _to_channels(channels, floors)
                    _write(scene, tile, (z, y), channels, lsds, weight)


@njit(cache=True, nogil=True)
def _fine_range(scene: Scene, axis: int, low: int, high: int) -> tuple[int, int]:
    """Return the voxels of the box that strided voxels [low, high) stand for."""
    factor, start = scene[2][0, axis], scene[2][1, axis]
    return max(low * factor - start, 0), min(high * factor - start, scene[1].shape[axis])


@njit(cache=True, nogil=True)
def _needed(scene: Scene, tile: I64) -> Bits:
    """Return, per strided row (z, y) of the tile, whether some voxel there needs a descriptor."""
    fine, factor, start = scene[1], scene[2][0], scene[2][1]
    needed = np.zeros((tile[4] - tile[2], tile[5] - tile[3]), np.uint8)
    z_range, y_range = _fine_range(scene, 0, tile[2], tile[4]), _fine_range(scene, 1, tile[3], tile[5])
    x_range = _fine_range(scene, 2, tile[1], tile[1] + TILE)
    for z in range(z_range[0], z_range[1]):
        for y in range(y_range[0], y_range[1]):
            zs, ys = (z + start[0]) // factor[0] - tile[2], (y + start[1]) // factor[1] - tile[3]
            if not needed[zs, ys]:
                for x in range(x_range[0], x_range[1]):
                    if fine[z, y, x] == tile[0]:
                        needed[zs, ys] = 1
                        break
    return needed


@njit(cache=True, nogil=True)
def _sum_along_x(scene: Scene, tile: I64, running: F64, sums: F64) -> Bits:
    """Fill in the sums of w, w d, w d^2 along x of every line (z, y); return which lines see the object."""
    coarse = scene[0]
    depth, height = tile[8] - tile[6], tile[9] - tile[7]
    used = np.zeros((depth, height), np.uint8)
    for z in range(depth):
        for y in range(height):
            line = coarse[z + tile[6], y + tile[7]]
            used[z, y] = _sum_line(line, tile, running, sums[z * height + y])
    return used


@njit(cache=True, nogil=True)
def _sum_line(line: Objects, tile: I64, running: F64, sums: F64) -> bool:
    """Add up each run of the object: its sums are differences of the window's running sums."""
    label, low = tile[0], tile[1]
    radius = running.shape[1] // 2 - 1
    x, stop = max(0, low - radius), min(line.size, low + TILE + radius)
    used = False
    while x < stop:
        if line[x] != label:
            x += 1
            continue
        first = x
        while x < stop and line[x] == label:
            x += 1
        if not used:
            sums[:] = 0.0
            used = True
        for out in range(max(low, first - radius), min(low + TILE, x + radius)):
            a, b = max(first - out, -radius) + radius, min(x - out, radius + 1) + radius
            for k in range(3):
                sums[k * TILE + out - low] += running[k, b] - running[k, a]
    return used


@njit(cache=True, nogil=True)
def _sum_along_y(tile: I64, used_x: Bits, window: F64, needed: Bits, sums_x: F64, sums_y: F64) -> Bits:
    """Fill in the six sums along y and x; return which lines hold any.

    Order, by the powers (y, x): 00 01 02 10 11 20, so that sums of one power of y are contiguous.
    """
    depth, height_in = used_x.shape
    height, radius, shift = needed.shape[1], window.shape[1] // 2, tile[3] - tile[7]
    used = np.zeros((depth, height), np.uint8)
    rows, taps = np.empty(window.shape[1], np.int64), np.empty(window.shape[1], np.int64)
    for y in range(height):
        if not needed[:, y].any():
            continue
        for z in range(depth):
            n = 0
            for y_in in range(max(0, y + shift - radius), min(height_in, y + shift + radius + 1)):
                if used_x[z, y_in]:
                    rows[n], taps[n] = z * height_in + y_in, y_in - y - shift + radius
                    n += 1
            if n:
                used[z, y] = 1
                out = sums_y[z * height + y]
                out[:] = 0.0
                _add_rows(out[: 3 * TILE], sums_x[:, : 3 * TILE], rows[:n], window[0], taps)
                _add_rows(out[3 * TILE : 5 * TILE], sums_x[:, : 2 * TILE], rows[:n], window[1], taps)
                _add_rows(out[5 * TILE :], sums_x[:, :TILE], rows[:n], window[2], taps)
    return used


@njit(cache=True, nogil=True)
def _sum_along_z(tile: I64, place: tuple[int, int], used: Bits, window: F64, sums_y: F64, moments: F64) -> None:
    """Finish the ten moments of a row: the six of power 0 along z, then z, zx, zy, zz."""
    depth, height = used.shape
    radius, centre, y = window.shape[1] // 2, place[0] + tile[2] - tile[6], place[1]
    rows, taps = np.empty(window.shape[1], np.int64), np.empty(window.shape[1], np.int64)
    n = 0
    for z in range(max(0, centre - radius), min(depth, centre + radius + 1)):
        if used[z, y]:
            rows[n], taps[n] = z * height + y, z - centre + radius
            n += 1
    out = moments[0]
    out[:] = 0.0
    _add_rows(out[: 6 * TILE], sums_y, rows[:n], window[0], taps)
    _add_rows(out[6 * TILE : 8 * TILE], sums_y[:, : 2 * TILE], rows[:n], window[1], taps)
    _add_rows(out[8 * TILE : 9 * TILE], sums_y[:, 3 * TILE : 4 * TILE], rows[:n], window[1], taps)
    _add_rows(out[9 * TILE :], sums_y[:, :TILE], rows[:n], window[2], taps)


@njit(cache=True, nogil=True)
def _add_rows(out: F64, source: F64, rows: I64, weights: F64, taps: I64) -> None:
    """Add weighted rows in their order, four per sweep (the order of additions does not depend on that)."""
    n = len(rows)
    for j in range(0, n - 3, 4):
        a, b, c, d = source[rows[j]], source[rows[j + 1]], source[rows[j + 2]], source[rows[j + 3]]
        wa, wb, wc, wd = weights[taps[j]], weights[taps[j + 1]], weights[taps[j + 2]], weights[taps[j + 3]]
        for i in range(out.size):
            out[i] = out[i] + wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i]
    for j in range(n // 4 * 4, n):
        a, wa = source[rows[j]], weights[taps[j]]
        for i in range(out.size):
            out[i] += wa * a[i]


@njit(cache=True, nogil=True)
def _to_channels(rows: F64, floors: F64) -> None:
    """Turn moments (lengths in sigma), ordered 000 x xx y yx yy z zx zy zz, into channels; clip nothing yet."""
    for i in range(TILE):
        size = rows[0, i]
        if size == 0.0:
            continue
        x, xx, y, yx, yy = (
            rows[1, i] / size,
            rows[2, i] / size,
            rows[3, i] / size,
            rows[4, i] / size,
            rows[5, i] / size,
        )
        z, zx, zy, zz = rows[6, i] / size, rows[7, i] / size, rows[8, i] / size, rows[9, i] / size
        var_z, var_y, var_x = max(zz - z * z, floors[0]), max(yy - y * y, floors[1]), max(xx - x * x, floors[2])
        rows[0, i], rows[1, i], rows[2, i] = z / 2 + 0.5, y / 2 + 0.5, x / 2 + 0.5
        rows[3, i], rows[4, i], rows[5, i] = var_z, var_y, var_x
        rows[6, i] = (zy - z * y) / np.sqrt(var_z * var_y) / 2 + 0.5
        rows[7, i] = (zx - z * x) / np.sqrt(var_z * var_x) / 2 + 0.5
        rows[8, i] = (yx - y * x) / np.sqrt(var_y * var_x) / 2 + 0.5
        rows[9, i] = size


@njit(cache=True, nogil=True)
def _write(scene: Scene, tile: I64, place: tuple[int, int], rows: F64, lsds: F32, weight: Bits) -> None:
    """Copy a strided row of channels, clipped, to the object's voxels it stands for."""
    fine, factor, start = scene[1], scene[2][0], scene[2][1]
    zs, ys = place[0] + tile[2], place[1] + tile[3]
    z_range, y_range = _fine_range(scene, 0, zs, zs + 1), _fine_range(scene, 1, ys, ys + 1)
    x_range = _fine_range(scene, 2, tile[1], tile[1] + TILE)
    for z in range(z_range[0], z_range[1]):
        for y in range(y_range[0], y_range[1]):
            for x in range(x_range[0], x_range[1]):
                column = (x + start[2]) // factor[2] - tile[1]
                if fine[z, y, x] == tile[0] and rows[9, column] > 0.0:
                    weight[z, y, x] = 1
                    for c in range(N_CHANNELS):
                        lsds[c, z, y, x] = min(max(rows[c, column], 0.0), 1.0)
