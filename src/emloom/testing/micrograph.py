"""How a phantom looks under the microscope: grey values from neurites, membranes, mitochondria and vesicles.

Membranes are two dark lines with the cleft between them. A section averages over its thickness, so a membrane that
runs through it obliquely is broad and faint. Mitochondria are dark, with darker cristae and a rim. Vesicles are
small dark rings in boutons, whose membranes are dark where they meet another neurite. Reticulum is a thin, dark
line. Cytoplasm has a tone per neurite and a fine grain.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.testing.neurites import uniform
from emloom.testing.synapticzones import CONTACT, DARK, Zones, cleft, contacts_near, rings, shade, vesicles_near
from emloom.testing.tissue import (
    DEEPEST_NM,
    F32,
    F64,
    I64,
    SEGMENT,
    SUBTILES,
    Tissue,
    ball,
    between,
    corners,
    keep_near,
    nearest,
    segments_near,
    squared_distance,
)

# Streams of random numbers, one per purpose.
GRAIN, RETICULUM, TONE, BOUTON, VESICLE, CRISTAE, SENSOR, SECTION = 50, 51, 52, 53, 54, 58, 60, 61
GRAIN_NM, RETICULUM_NM, VESICLE_NM = 22.0, 110.0, 46.0
MOST_SEGMENTS = 4096


# What is filled in: neurites, grey values, polyads of clefts; an empty array is not.
Out = tuple[NDArray[np.uint64], F32, NDArray[np.uint64]]
NO_IDS, NO_GREY = np.empty((0, 0, 0), np.uint64), np.empty((0, 0, 0), np.float32)


@njit(cache=True, nogil=True)
def fill(tissue: Tissue, zones: Zones, start: I64, out: Out) -> None:
    """Fill in neurites, grey values and clefts of a box that starts at a voxel; `zones`: what matters there."""
    shape = _shape(out)
    low, high = np.empty(3, np.int64), np.empty(3, np.int64)
    for axis in range(3):
        tile = SUBTILES * tissue.subtile[axis]
        low[axis], high[axis] = start[axis] // tile, (start[axis] + shape[axis] - 1) // tile + 1
    points = np.empty((SUBTILES + 1, SUBTILES + 1, SUBTILES + 1, 3))
    found, few, some = np.empty((MOST_SEGMENTS, SEGMENT)), np.empty((MOST_SEGMENTS, SEGMENT)), np.empty(3)
    near = np.empty((len(zones.contacts), CONTACT)), np.empty((len(zones.vesicles), 3))
    side = np.empty(3)
    for axis in range(3):
        side[axis] = SUBTILES * tissue.subtile[axis] * tissue.voxel_nm[axis]
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            for x in range(low[2], high[2]):
                here = _zones_near(
                    zones,
                    ((z + 0.5) * side[0], (y + 0.5) * side[1], (x + 0.5) * side[2]),
                    side,
                    tissue.voxel_nm,
                    near,
                )
                if not (out[0].size or out[1].size or len(here[0])):
                    continue
                corners(tissue, (z, y, x), points)
                radius = ball(points, some)
                n = segments_near(tissue, some, radius, found)
                _fill_tile(tissue, (z, y, x), (points, found[:n], few), here, start, out)


@njit(cache=True, nogil=True)
def _shape(out: Out) -> tuple[int, ...]:
    return out[0].shape if out[0].size else (out[1].shape if out[1].size else out[2].shape)


@njit(cache=True, nogil=True)
def _zones_near(
    zones: tuple[F64, F64], at: tuple[float, float, float], side: F64, size: F64, out: tuple[F64, F64]
) -> tuple[F64, F64]:
    """Copy the synapses that matter in a cuboid around a point; `size`: of a voxel."""
    if not len(zones[0]) and not len(zones[1]):
        return out
    centre = np.empty(3)
    centre[0], centre[1], centre[2] = at
    radius = 0.5 * np.sqrt(side[0] ** 2 + side[1] ** 2 + side[2] ** 2)
    return (
        out[0][: contacts_near(zones[0], centre, radius, out[0])],
        out[1][: vesicles_near(zones[1], centre, radius + 0.3 * size[0], out[1])],
    )


@njit(cache=True, nogil=True)
def _fill_tile(
    tissue: Tissue,
    tile: tuple[int, int, int],
    segments: tuple[F64, F64, F64],
    zones: tuple[F64, F64],
    start: I64,
    out: Out,
) -> None:
    """Fill in a tile. `segments`: corners of its subtiles, segments that matter in it, room for fewer of them."""
    shape = _shape(out)
    points = segments[0]
    tables = (
        _table(tissue, tile, GRAIN, GRAIN_NM, out[1].size > 0),
        _table(tissue, tile, RETICULUM, RETICULUM_NM, out[1].size > 0),
    )
    near = np.empty_like(zones[0]), np.empty_like(zones[1])
    side = np.empty(3)
    for axis in range(3):
        side[axis] = tissue.subtile[axis] * tissue.voxel_nm[axis]
    centre, low, high = np.empty(3), np.empty(3, np.int64), np.empty(3, np.int64)
    for part in range(SUBTILES**3):
        i, j, k = part // SUBTILES**2, part // SUBTILES % SUBTILES, part % SUBTILES
        first = (
            (tile[0] * SUBTILES + i) * tissue.subtile[0],
            (tile[1] * SUBTILES + j) * tissue.subtile[1],
            (tile[2] * SUBTILES + k) * tissue.subtile[2],
        )
        empty = False
        for axis in range(3):
            low[axis] = max(first[axis], start[axis])
            high[axis] = min(first[axis] + tissue.subtile[axis], start[axis] + shape[axis])
            empty |= low[axis] >= high[axis]
        if empty:
            continue
        middle = (
            first[0] * tissue.voxel_nm[0] + 0.5 * side[0],
            first[1] * tissue.voxel_nm[1] + 0.5 * side[1],
            first[2] * tissue.voxel_nm[2] + 0.5 * side[2],
        )
        here = _zones_near(zones, middle, side, tissue.voxel_nm, near)
        radius = ball(points[i : i + 2, j : j + 2, k : k + 2], centre)
        n = keep_near(segments[1], len(segments[1]), centre, radius, segments[2])
        place = points, (i, j, k), first
        _fill_subtile(tissue, (low, high), place, segments[2][:n], (tables, here), start, out)


@njit(cache=True, nogil=True)
def _fill_subtile(
    tissue: Tissue,
    span: tuple[I64, I64],
    place: tuple[F64, tuple[int, int, int], tuple[int, int, int]],
    segments: F64,
    features: tuple[tuple[F64, F64], tuple[F64, F64]],
    start: I64,
    out: Out,
) -> None:
    low, high = span
    points, (i, j, k), first = place
    tables, zones = features
    size = tissue.subtile
    labels, grey, clefts = out
    found = np.empty(8)
    for z in range(low[0], high[0]):
        for y in range(low[1], high[1]):
            for x in range(low[2], high[2]):
                f = (
                    (z + 0.5 - first[0]) / size[0],
                    (y + 0.5 - first[1]) / size[1],
                    (x + 0.5 - first[2]) / size[2],
                )
                pz, py, px = between(points, i, j, k, f)
                nearest(segments, len(segments), pz, py, px, found)
                if labels.size:
                    labels[z - start[0], y - start[1], x - start[2]] = np.uint64(found[0])
                if grey.size:
                    f = ((i + f[0]) / SUBTILES, (j + f[1]) / SUBTILES, (k + f[2]) / SUBTILES)
                    grain, reticulum = _from_table(tables[0], f), _from_table(tables[1], f)
                    found[6] = _slant(segments, found, pz, py, px)
                    value = _grey(tissue, found, (pz, py, px), grain, reticulum)
                    if len(zones[0]) or len(zones[1]):
                        value = _with_synapses(tissue, zones, (z, y, x), segments, found, value)
                    grey[z - start[0], y - start[1], x - start[2]] = value
                if clefts.size and len(zones[0]):
                    polyad = _cleft(tissue, zones[0], (z, y, x), segments, found)
                    clefts[z - start[0], y - start[1], x - start[2]] = np.uint64(polyad)


@njit(cache=True, nogil=True)
def _who(segments: F64, found: F64) -> tuple[float, float]:
    return found[0], segments[int(found[4]), 7] if found[4] >= 0 else -1.0


@njit(cache=True, nogil=True)
def _cleft(tissue: Tissue, contacts: F64, voxel: tuple[int, int, int], segments: F64, found: F64) -> int:
    size = tissue.voxel_nm
    at = (voxel[0] + 0.5) * size[0], (voxel[1] + 0.5) * size[1], (voxel[2] + 0.5) * size[2]
    return cleft(contacts, at, _who(segments, found), (found[2] - found[1]) / 2.0)


@njit(cache=True, nogil=True)
def _with_synapses(
    tissue: Tissue, zones: tuple[F64, F64], voxel: tuple[int, int, int], segments: F64, found: F64, grey: float
) -> float:
    """Return a voxel's grey value with vesicles and densities of synapses drawn over it."""
    size = tissue.voxel_nm
    at = (voxel[0] + 0.5) * size[0], (voxel[1] + 0.5) * size[1], (voxel[2] + 0.5) * size[2]
    depth = min((found[2] - found[1]) / 2.0, DEEPEST_NM)
    grey -= rings(zones[1], at, 0.3 * size[0])
    seen = depth, 0.15 * found[6] * size[0], tissue.membrane_nm
    return float(grey + (DARK - grey) * shade(zones[0], at, _who(segments, found), seen))


@njit(cache=True, nogil=True)
def _table(tissue: Tissue, tile: tuple[int, int, int], stream: int, pitch: float, wanted: bool) -> F64:
    """Return smooth noise at the points of a lattice of about this pitch that has a point on every tile corner."""
    n = np.ones(3, np.int64)
    for axis in range(3):
        n[axis] = max(1, int(SUBTILES * tissue.subtile[axis] * tissue.voxel_nm[axis] / pitch + 0.5))
    if not wanted:
        return np.empty((0, 0, 0))
    table = np.empty((n[0] + 1, n[1] + 1, n[2] + 1))
    for a in range(n[0] + 1):
        for b in range(n[1] + 1):
            for c in range(n[2] + 1):
                luck = uniform(tissue.seed, stream, tile[0] * n[0] + a, tile[1] * n[1] + b, tile[2] * n[2] + c)
                table[a, b, c] = 2.0 * luck - 1.0
    return table


@njit(cache=True, nogil=True)
def _from_table(table: F64, f: tuple[float, float, float]) -> float:
    """Return the table at a fraction of the tile, smoothly."""
    z, y, x = f[0] * (table.shape[0] - 1), f[1] * (table.shape[1] - 1), f[2] * (table.shape[2] - 1)
    i, j, k = int(z), int(y), int(x)
    z, y, x = z - i, y - j, x - k
    z, y, x = z * z * (3.0 - 2.0 * z), y * y * (3.0 - 2.0 * y), x * x * (3.0 - 2.0 * x)
    a = (table[i, j, k] * (1 - x) + table[i, j, k + 1] * x) * (1 - y)
    a += (table[i, j + 1, k] * (1 - x) + table[i, j + 1, k + 1] * x) * y
    b = (table[i + 1, j, k] * (1 - x) + table[i + 1, j, k + 1] * x) * (1 - y)
    b += (table[i + 1, j + 1, k] * (1 - x) + table[i + 1, j + 1, k + 1] * x) * y
    return float(a * (1 - z) + b * z)


@njit(cache=True, nogil=True)
def _slant(segments: F64, found: F64, z: float, y: float, x: float) -> float:
    """Return the z part of the unit normal of the membrane: 0 where it stands upright in the section."""
    if found[4] < 0 or found[2] - found[1] > 2.0 * DEEPEST_NM:
        return 0.0
    # The distance to a segment grows along the unit vector away from it: differences along z give that vector's z.
    first, second = segments[int(found[3])], segments[int(found[4])]
    up = np.sqrt(squared_distance(second, z + 1.0, y, x)) - np.sqrt(squared_distance(first, z + 1.0, y, x))
    return float(min(1.0, abs(up - (found[2] - found[1])) / 2.0))


@njit(cache=True, nogil=True)
def _grey(tissue: Tissue, found: F64, at: tuple[float, float, float], grain: float, reticulum: float) -> float:
    """Return the grey value before blur and noise."""
    membrane = tissue.membrane_nm
    label, slant = int(found[0]), found[6]
    depth = min((found[2] - found[1]) / 2.0, DEEPEST_NM)
    tone = 160.0 + 34.0 * (uniform(tissue.seed, TONE, label, 0, 0) - 0.5) + 13.0 * grain
    inside_mito = min(-found[5], depth - 2.0 * membrane)
    if inside_mito > 0.0:
        tone = _mito_tone(tissue, label, at, inside_mito, reticulum) + 9.0 * grain
    elif tissue.organelles > 0.0:
        if depth > 3.0 * membrane and abs(reticulum) < 0.05:
            tone -= 34.0 * (1.0 - abs(reticulum) / 0.05) * tissue.organelles
        tone -= _bouton(tissue, label, at, depth)
    # Centre of the membrane below the middle of the cleft, and its half width as seen through the section.
    half = 0.55 * membrane
    through = 0.3 * slant * tissue.voxel_nm[0]
    seen = np.sqrt(half * half + through * through)
    away = max(abs(depth - 0.75 * membrane), 0.0) if depth > 0.75 * membrane else 0.35 * (0.75 * membrane - depth)
    dark = np.exp(-((away / seen) ** 2)) * (half / seen) ** 0.6
    return float(tone + (58.0 - tone) * dark)


@njit(cache=True, nogil=True)
def _mito_tone(tissue: Tissue, label: int, at: tuple[float, float, float], inside: float, wobble: float) -> float:
    rim = 1.1 * tissue.membrane_nm
    if inside < rim:
        return 82.0
    # Cristae: wavy plates, in a direction of their own in every neurite.
    a = 6.28 * uniform(tissue.seed, CRISTAE, label, 0, 0)
    along = at[1] * np.cos(a) + at[2] * np.sin(a) + 0.5 * at[0]
    return float(112.0 + 14.0 * np.sin(along / 6.0 + 7.0 * wobble))


@njit(cache=True, nogil=True)
def _bouton(tissue: Tissue, label: int, at: tuple[float, float, float], depth: float) -> float:
    """Return how much darker vesicles, and the membranes that face them, make the point."""
    owner, cell = tissue.owner, tissue.cell_nm
    z = min(max(int(at[0] / cell[0]), 0), owner.shape[0] - 1)
    y = min(max(int(at[1] / cell[1]), 0), owner.shape[1] - 1)
    x = min(max(int(at[2] / cell[2]), 0), owner.shape[2] - 1)
    luck = uniform(tissue.seed, BOUTON, z, y, x)
    if luck > 0.10 * tissue.organelles:
        return 0.0
    if owner[z, y, x] != label or depth < 2.2 * tissue.membrane_nm:
        dark = tissue.lookalikes and luck < 0.05
        return 45.0 * np.exp(-((depth / (2.2 * tissue.membrane_nm)) ** 2)) if dark else 0.0
    # Layers and rows of vesicles are shifted at random, which hides that they sit on a lattice.
    z_at = at[0] / VESICLE_NM
    iz = int(np.floor(z_at))
    y_at = at[1] / VESICLE_NM + uniform(tissue.seed, VESICLE, iz, 0, 0)
    iy = int(np.floor(y_at))
    x_at = at[2] / VESICLE_NM + uniform(tissue.seed, VESICLE + 1, iz, iy, 0)
    ix = int(np.floor(x_at))
    if uniform(tissue.seed, VESICLE + 2, iz, iy, ix) > 0.75:
        return 0.0
    total = (z_at - iz - 0.5) ** 2 + (y_at - iy - 0.5) ** 2 + (x_at - ix - 0.5) ** 2
    return float(52.0 * np.exp(-(((VESICLE_NM * np.sqrt(total) - 13.0) / 6.5) ** 2)))


@njit(cache=True, nogil=True)
def develop(grey: F32, start: I64, seed: int, noise: float, jitter: float, out: NDArray[np.uint8]) -> None:
    """Add sensor noise and brightness jitter per section, and round to 8 bits."""
    for z in range(grey.shape[0]):
        # The sum of three uniform numbers has a standard deviation of 1/2.
        gain = 1.0 + 0.02 * jitter / 10.0 * _bell(seed, SECTION, z + start[0], 0, 0)
        shift = jitter * _bell(seed, SECTION, z + start[0], 1, 0)
        for y in range(grey.shape[1]):
            for x in range(grey.shape[2]):
                luck = _bell(seed, SENSOR, z + start[0], y + start[1], x + start[2])
                value = gain * grey[z, y, x] + shift + noise * luck
                out[z, y, x] = np.uint8(min(max(value + 0.5, 0.0), 255.0))


@njit(cache=True, nogil=True)
def _bell(seed: int, stream: int, z: int, y: int, x: int) -> float:
    """Return a bell-shaped random number of mean 0 and standard deviation 1, from one hash cut in two halves."""
    luck = uniform(seed, stream, z, y, x) * 67108864.0
    coarse = np.floor(luck)
    # Sum of two uniforms: triangular, variance 1/6.
    return float((coarse / 67108864.0 + (luck - coarse) - 1.0) * 2.449489742783178)
