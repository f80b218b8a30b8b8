"""Where the neurites of a phantom are: which one fills a voxel, and how deep below its membrane.

Every lattice cell has a site, somewhere near its middle; face neighbours of one neurite are joined by a segment.
A voxel belongs to the neurite of the nearest segment. Segments of different neurites keep a third of a cell apart,
so sites lie inside their neurite, and moving straight to the nearest segment never leaves it: it is connected.
Space is bent first, by a smooth displacement that moves nothing across the faces of the volume.

Half the difference of the distances to the nearest and to the next neurite is the depth below the membrane: it is
where the picture is dark.

Work is cut into tiles of 4 x 4 x 4 subtiles aligned to voxel 0, each with the list of segments that can matter in
it. The lists leave out what cannot win, and no tile depends on the box that asks for it: a voxel's value neither.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.testing.neurites import uniform

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

SUBTILES = 4
JITTER = 0.25
# Depth below the membrane is exact up to this; nothing we draw looks deeper.
DEEPEST_NM = 48.0
# Streams of random numbers, one per purpose.
SITE, BEND, MITO = 11, 20, 30


class Tissue(NamedTuple):
    """Everything a kernel needs to know.

    Attributes:
        owner: neurite of every cell, [Z, Y, X].
        cell_nm: size of a cell.
        voxel_nm: voxel size.
        subtile: voxels per subtile.
        seed: of all randomness.
        bend_nm: largest displacement, of the fine and the coarse kind.
        membrane_nm: thickness of one membrane.
        organelles: 0 leaves them out, 1 is normal.
        lookalikes: whether boutons have dark membranes, as at synapses, without being any.
    """

    owner: NDArray[np.int32]
    cell_nm: F64
    voxel_nm: F64
    subtile: I64
    seed: int
    bend_nm: F64
    membrane_nm: float
    organelles: float
    lookalikes: bool


@njit(cache=True, nogil=True)
def noise(seed: int, stream: int, z: float, y: float, x: float) -> float:
    """Return smooth noise in (-1, 1) that varies over a length of 1."""
    iz, iy, ix = int(np.floor(z)), int(np.floor(y)), int(np.floor(x))
    fz, fy, fx = _ease(z - iz), _ease(y - iy), _ease(x - ix)
    total = 0.0
    for corner in range(8):
        cz, cy, cx = corner // 4, corner // 2 % 2, corner % 2
        weight = (fz if cz else 1 - fz) * (fy if cy else 1 - fy) * (fx if cx else 1 - fx)
        total += weight * uniform(seed, stream, iz + cz, iy + cy, ix + cx)
    return 2.0 * total - 1.0


@njit(cache=True, nogil=True)
def _ease(t: float) -> float:
    return t * t * (3.0 - 2.0 * t)


@njit(cache=True, nogil=True)
def bend(tissue: Tissue, point: F64, out: F64) -> None:
    """Put the straightened position of a point (nm) into `out`."""
    cell = tissue.cell_nm
    for axis in range(3):
        # Nothing moves across a face of the volume, so what is inside stays inside.
        to_face = min(point[axis], tissue.owner.shape[axis] * cell[axis] - point[axis])
        fade = min(1.0, max(0.0, to_face / (4.0 * cell[axis])))
        shift = 0.0
        for octave in range(2):
            if tissue.bend_nm[octave] > 0.0:
                pitch = 2.6 if octave == 0 else 8.0
                shift += tissue.bend_nm[octave] * noise(
                    tissue.seed,
                    BEND + 3 * octave + axis,
                    point[0] / (pitch * cell[0]),
                    point[1] / (pitch * cell[1]),
                    point[2] / (pitch * cell[2]),
                )
        out[axis] = point[axis] + fade * shift


@njit(cache=True, nogil=True)
def unbend(tissue: Tissue, points: F64) -> F64:
    """Return the points [N, 3] (nm) whose straightened positions are given."""
    out = points.copy()
    there = np.empty(3)
    for i in range(len(points)):
        for _ in range(40):
            bend(tissue, out[i], there)
            for axis in range(3):
                out[i, axis] += points[i, axis] - there[axis]
    return out


@njit(cache=True, nogil=True)
def site(tissue: Tissue, z: int, y: int, x: int, out: F64) -> None:
    """Put the site (nm, in straightened space) of a cell into `out`.

    Every other row and layer is shifted by half a cell, so that neighbours meet at 120 degrees rather than at 90.
    """
    for axis in range(3):
        row = 0.0 if axis == 0 else (z if axis == 1 else y + z) % 2 - 0.5
        cell = z if axis == 0 else (y if axis == 1 else x)
        luck = uniform(tissue.seed, SITE + axis, z, y, x)
        out[axis] = (cell + 0.5 + 0.5 * row + JITTER * (2.0 * luck - 1.0)) * tissue.cell_nm[axis]


# A segment: start (3), vector (3), 1 / length^2 (0 for a point), neurite, radius of its mitochondrion (0: none).
SEGMENT = 9


@njit(cache=True, nogil=True)
def squared_distance(segment: F64, z: float, y: float, x: float) -> float:
    """Return the squared distance from a point to a segment."""
    az, ay, ax = z - segment[0], y - segment[1], x - segment[2]
    t = (az * segment[3] + ay * segment[4] + ax * segment[5]) * segment[6]
    t = min(1.0, max(0.0, t))
    az, ay, ax = az - t * segment[3], ay - t * segment[4], ax - t * segment[5]
    return float(az * az + ay * ay + ax * ax)


@njit(cache=True, nogil=True)
def _append_segments(tissue: Tissue, z: int, y: int, x: int, out: F64, n: int) -> int:
    """Append the segments that start in a cell, or its site where there is none; return how many there are now."""
    owner = tissue.owner
    label = owner[z, y, x]
    here, there = out[n, :3].copy(), np.empty(3)
    site(tissue, z, y, x, here)
    first = n
    for axis in range(3):
        nz, ny, nx = z + (axis == 0), y + (axis == 1), x + (axis == 2)
        if nz >= owner.shape[0] or ny >= owner.shape[1] or nx >= owner.shape[2] or owner[nz, ny, nx] != label:
            continue
        site(tissue, nz, ny, nx, there)
        length = 0.0
        for i in range(3):
            out[n, i], out[n, 3 + i] = here[i], there[i] - here[i]
            length += out[n, 3 + i] ** 2
        out[n, 6], out[n, 7] = 1.0 / length, label
        out[n, 8] = _mito_radius(tissue, axis, z, y, x)
        n += 1
    if n == first:
        for i in range(3):
            out[n, i], out[n, 3 + i], out[n, 6 + i] = here[i], 0.0, 0.0
        out[n, 7] = label
        n += 1
    return n


@njit(cache=True, nogil=True)
def _mito_radius(tissue: Tissue, axis: int, z: int, y: int, x: int) -> float:
    """Return the radius of the mitochondrion along a segment: they run straight through up to four cells."""
    run_z, run_y, run_x = z // 4 if axis == 0 else z, y // 4 if axis == 1 else y, x // 4 if axis == 2 else x
    luck = uniform(tissue.seed, MITO, (run_z * 3 + axis), run_y, run_x)
    if luck > 0.07 * tissue.organelles:
        return 0.0
    return float((0.35 + 2.8 * luck) * tissue.cell_nm.min())


@njit(cache=True, nogil=True)
def segments_near(tissue: Tissue, centre: F64, radius: float, out: F64) -> int:
    """Put all segments that matter within a ball into `out`; return how many."""
    cell = tissue.cell_nm
    own = np.empty(3)
    index = np.empty(3, np.int64)
    for axis in range(3):
        index[axis] = min(max(int(centre[axis] / cell[axis]), 0), tissue.owner.shape[axis] - 1)
    site(tissue, index[0], index[1], index[2], own)
    nearest = np.sqrt((own[0] - centre[0]) ** 2 + (own[1] - centre[1]) ** 2 + (own[2] - centre[2]) ** 2)
    reach = nearest + 2.0 * radius + 2.0 * DEEPEST_NM
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for axis in range(3):
        low[axis] = max(int((centre[axis] - reach) / cell[axis]) - 3, 0)
        high[axis] = min(int((centre[axis] + reach) / cell[axis]) + 2, tissue.owner.shape[axis])
    n = 0
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            for x in range(low[2], high[2]):
                last = _append_segments(tissue, z, y, x, out, n)
                for i in range(n, last):
                    if squared_distance(out[i], centre[0], centre[1], centre[2]) <= reach * reach:
                        for k in range(SEGMENT):
                            out[n, k] = out[i, k]
                        n += 1
    return n


@njit(cache=True, nogil=True)
def keep_near(segments: F64, n: int, centre: F64, radius: float, out: F64) -> int:
    """Copy the segments that matter within a smaller ball."""
    nearest = np.inf
    for i in range(n):
        nearest = min(nearest, squared_distance(segments[i], centre[0], centre[1], centre[2]))
    reach = np.sqrt(nearest) + 2.0 * radius + 2.0 * DEEPEST_NM
    kept = 0
    for i in range(n):
        if squared_distance(segments[i], centre[0], centre[1], centre[2]) <= reach * reach:
            for k in range(SEGMENT):
                out[kept, k] = segments[i, k]
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def nearest(segments: F64, n: int, z: float, y: float, x: float, found: F64) -> None:
    """Fill in: neurite, distance to it, to the next one, which segments those are, depth in a mitochondrion."""
    first, second, label = np.inf, np.inf, -1.0
    at_first, at_second = 0, -1
    mito, mito_label = np.inf, -1.0
    for i in range(n):
        d = squared_distance(segments[i], z, y, x)
        if segments[i, 7] == label:
            if d < first:
                first, at_first = d, i
        elif d < first:
            second, at_second = first, at_first
            first, at_first, label = d, i, segments[i, 7]
        elif d < second:
            second, at_second = d, i
        if segments[i, 8] > 0.0 and np.sqrt(d) - segments[i, 8] < mito:
            mito, mito_label = np.sqrt(d) - segments[i, 8], segments[i, 7]
    found[0], found[1], found[2] = label, np.sqrt(first), np.sqrt(second)
    found[3], found[4] = at_first, at_second
    found[5] = mito if mito_label == label else np.inf


@njit(cache=True, nogil=True)
def corners(tissue: Tissue, tile: tuple[int, int, int], out: F64) -> None:
    """Fill in the straightened positions of the corners of a tile's subtiles, [5, 5, 5, 3]."""
    point = np.empty(3)
    for i in range(SUBTILES + 1):
        for j in range(SUBTILES + 1):
            for k in range(SUBTILES + 1):
                point[0] = (tile[0] * SUBTILES + i) * tissue.subtile[0] * tissue.voxel_nm[0]
                point[1] = (tile[1] * SUBTILES + j) * tissue.subtile[1] * tissue.voxel_nm[1]
                point[2] = (tile[2] * SUBTILES + k) * tissue.subtile[2] * tissue.voxel_nm[2]
                bend(tissue, point, out[i, j, k])


@njit(cache=True, nogil=True)
def ball(points: F64, centre: F64) -> float:
    """Put the mean of points [A, B, C, 3] into `centre`; return the largest distance from it."""
    n = points.shape[0] * points.shape[1] * points.shape[2]
    for axis in range(3):
        total = 0.0
        for i in range(points.shape[0]):
            for j in range(points.shape[1]):
                for k in range(points.shape[2]):
                    total += points[i, j, k, axis]
        centre[axis] = total / n
    largest = 0.0
    for i in range(points.shape[0]):
        for j in range(points.shape[1]):
            for k in range(points.shape[2]):
                largest = max(largest, _squared_length(points[i, j, k], centre))
    return float(np.sqrt(largest))


@njit(cache=True, nogil=True)
def _squared_length(a: F64, b: F64) -> float:
    return float((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2)


@njit(cache=True, nogil=True)
def between(points: F64, i: int, j: int, k: int, f: tuple[float, float, float]) -> tuple[float, float, float]:
    """Return the position at fraction f of subtile (i, j, k), between its corners."""
    z, y, x = 0.0, 0.0, 0.0
    for corner in range(8):
        a, b, c = corner // 4, corner // 2 % 2, corner % 2
        weight = (f[0] if a else 1.0 - f[0]) * (f[1] if b else 1.0 - f[1]) * (f[2] if c else 1.0 - f[2])
        point = points[i + a, j + b, k + c]
        z, y, x = z + weight * point[0], y + weight * point[1], x + weight * point[2]
    return z, y, x
