"""Where two neurites of a phantom touch: points on the membrane between them, its normal, who else is near.

Distances to neurites are known in straightened space (`emloom.testing.tissue`); the membrane between two is where
they are equal. Contacts are found there and unbent, so that points and normals are nm as in the picture.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.testing.neurites import uniform
from emloom.testing.tissue import (
    DEEPEST_NM,
    F64,
    I64,
    SEGMENT,
    Tissue,
    bend,
    nearest,
    segments_near,
    site,
    squared_distance,
    unbend,
)

# Streams of random numbers, one per purpose.
PLACE, FOND, CLOUD, BESIDE = 70, 73, 74, 100
FOND_PAIRS, FONDNESS = 0.12, 10.0
DIRECTIONS = 96
STEP_NM = 6.0
VESICLE_GAP_NM = 38.0
# How far from a pre site its vesicles are, and how deep below the membrane at least.
CLOUD_NM, CLOUD_DEPTH_NM = 175.0, 25.0


@njit(cache=True, nogil=True)
def around(tissue: Tissue, centre: F64, radius: float) -> F64:
    """Return the segments [N, SEGMENT] that matter within a ball in straightened space."""
    room = 3.0
    for axis in range(3):
        room *= 2.0 * (2.0 * radius + 2.0 * DEEPEST_NM) / tissue.cell_nm[axis] + 10.0
    out = np.empty((int(room), SEGMENT))
    return out[: segments_near(tissue, centre, radius, out)]


# Kernels below use scalars and plain loops: array expressions in them cost much of compilation.


@njit(cache=True, nogil=True)
def probe(tissue: Tissue, segments: F64, z: float, y: float, x: float, found: F64) -> float:
    """Fill in what `tissue.nearest` finds at a point (nm); return the next neurite, -1 if none is near."""
    point, there = np.empty(3), np.empty(3)
    point[0], point[1], point[2] = z, y, x
    bend(tissue, point, there)
    nearest(segments, len(segments), there[0], there[1], there[2], found)
    return float(segments[int(found[4]), 7]) if found[4] >= 0 else -1.0


@njit(cache=True, nogil=True)
def _lead(segments: F64, label: float, other: float, at: F64) -> float:
    """Return how much farther a neurite is than another one at a place in straightened space, nm."""
    mine, theirs = np.inf, np.inf
    for i in range(len(segments)):
        if segments[i, 7] == label:
            mine = min(mine, squared_distance(segments[i], at[0], at[1], at[2]))
        elif segments[i, 7] == other:
            theirs = min(theirs, squared_distance(segments[i], at[0], at[1], at[2]))
    return float(np.sqrt(mine) - np.sqrt(theirs))


@njit(cache=True, nogil=True)
def _same(found: F64, there: float, pair: tuple[float, float]) -> bool:
    """Whether a point is between the two: in one, with the other next."""
    return bool((found[0] == pair[0] and there == pair[1]) or (found[0] == pair[1] and there == pair[0]))


def face_luck(owner: NDArray[np.int32], seed: int) -> F64:
    """Return luck [3, Z, Y, X] for every cell's face to the next along z, y, x: the smallest gets a synapse first.

    It is infinite where no two neurites meet. Few pairs are fond of each other, the more the broader they meet:
    they get several synapses.
    """
    luck, pair = np.full((3, *owner.shape), np.inf), np.full((3, *owner.shape), -1, np.int64)
    _draw_faces(owner, seed, luck, pair)
    _, where, faces = np.unique(pair, return_inverse=True, return_counts=True)
    fond = np.where(pair >= 0, FONDNESS * faces[where].reshape(pair.shape), 1.0)
    return luck / fond


@njit(cache=True, nogil=True)
def _draw_faces(owner: NDArray[np.int32], seed: int, luck: F64, pair: NDArray[np.int64]) -> None:
    """Fill in luck where two neurites meet, and a number for the pair where they are fond of each other."""
    for axis in range(3):
        dz, dy, dx = int(axis == 0), int(axis == 1), int(axis == 2)
        for z in range(owner.shape[0] - dz):
            for y in range(owner.shape[1] - dy):
                for x in range(owner.shape[2] - dx):
                    a, b = owner[z, y, x], owner[z + dz, y + dy, x + dx]
                    if a != b:
                        luck[axis, z, y, x] = -np.log(1.0 - uniform(seed, PLACE + axis, z, y, x))
                        if uniform(seed, FOND, min(a, b), max(a, b), 0) < FOND_PAIRS:
                            pair[axis, z, y, x] = np.int64(min(a, b)) << 31 | np.int64(max(a, b))


@njit(cache=True, nogil=True)
def meet(tissue: Tissue, first: I64, second: I64, place: int, out: F64) -> bool:
    """Find where two neighbouring cells' neurites touch; fill in the point and the normal towards the second, nm.

    The first place is between the cells' sites, others are beside it, at random. Returns False where the neurites
    do not touch there.
    """
    owner = tissue.owner
    pair = float(owner[first[0], first[1], first[2]]), float(owner[second[0], second[1], second[2]])
    a, b, middle, at = np.empty(3), np.empty(3), np.empty(3), np.empty((1, 3))
    site(tissue, first[0], first[1], first[2], a)
    site(tissue, second[0], second[1], second[2], b)
    half = 0.0
    for axis in range(3):
        luck = uniform(tissue.seed, BESIDE + 3 * place + axis, first[0], first[1], first[2])
        aside = 0.9 * (luck - 0.5) * tissue.cell_nm[axis] if place else 0.0
        a[axis], b[axis] = a[axis] + aside, b[axis] + aside
        middle[axis] = (a[axis] + b[axis]) / 2.0
        half += (a[axis] - b[axis]) ** 2 / 4.0
    segments = around(tissue, middle, np.sqrt(half))
    if _lead(segments, pair[0], pair[1], a) >= 0.0 or _lead(segments, pair[0], pair[1], b) <= 0.0:
        return False
    low, high = 0.0, 1.0
    for _ in range(24):
        t = (low + high) / 2.0
        for axis in range(3):
            at[0, axis] = a[axis] + t * (b[axis] - a[axis])
        if _lead(segments, pair[0], pair[1], at[0]) < 0.0:
            low = t
        else:
            high = t
    there = unbend(tissue, at)
    for axis in range(3):
        out[axis] = there[0, axis]
    found = np.empty(8)
    after = probe(tissue, segments, out[0], out[1], out[2], found)
    return _same(found, after, pair) and normal(tissue, segments, pair, out)


@njit(cache=True, nogil=True)
def normal(tissue: Tissue, segments: F64, pair: tuple[float, float], contact: F64) -> bool:
    """Fill in a contact's normal, from the first of a pair towards the second; False where there is none."""
    there, moved = np.empty(3), np.empty(3)
    for axis in range(3):
        moved[axis] = contact[axis]
    length = 0.0
    for axis in range(3):
        lead = 0.0
        for sign in range(-1, 2, 2):
            moved[axis] = contact[axis] + 3.0 * sign
            bend(tissue, moved, there)
            lead += sign * _lead(segments, pair[0], pair[1], there)
        moved[axis] = contact[axis]
        contact[3 + axis] = lead
        length += lead * lead
    for axis in range(3):
        contact[3 + axis] /= np.sqrt(length) + 1e-9
    return length > 1.0


@njit(cache=True, nogil=True)
def breadth(tissue: Tissue, segments: F64, contact: F64, pair: tuple[float, float], radius: float) -> float:
    """Return the part of a circle around a contact, in its plane, that lies on the membrane of the two."""
    # Two directions in the plane: the normal crossed with the axis that it is least along, and with the result.
    nz, ny, nx = contact[3], contact[4], contact[5]
    z, y, x = abs(nz), abs(ny), abs(nx)
    if z <= y and z <= x:
        uz, uy, ux = 0.0, nx, -ny
    elif y <= x:
        uz, uy, ux = nx, 0.0, -nz
    else:
        uz, uy, ux = ny, -nz, 0.0
    length = np.sqrt(uz * uz + uy * uy + ux * ux)
    uz, uy, ux = uz / length, uy / length, ux / length
    vz, vy, vx = ny * ux - nx * uy, nx * uz - nz * ux, nz * uy - ny * uz
    found, on = np.empty(8), 0
    for i in range(12):
        a, b = radius * np.cos(2.0 * np.pi * i / 12), radius * np.sin(2.0 * np.pi * i / 12)
        z, y, x = contact[0] + a * uz + b * vz, contact[1] + a * uy + b * vy, contact[2] + a * ux + b * vx
        after = probe(tissue, segments, z, y, x, found)
        on += _same(found, after, pair) and found[2] - found[1] < DEEPEST_NM
    return on / 12.0


@njit(cache=True, nogil=True)
def partners(tissue: Tissue, segments: F64, start: F64, reach: float, out: F64) -> int:
    """Find the neurites that are seen from a point within its own; return how many there are.

    Rays leave the point in all directions; where one first leaves the neurite, it meets the other. Each neurite is
    named once, at the nearest such place. Rows of `out`: neurite, z, y, x, nm from the point.
    """
    found, n = np.empty(8), 0
    probe(tissue, segments, start[0], start[1], start[2], found)
    own = found[0]
    for i in range(DIRECTIONS):
        # Points of a spiral over the sphere, evenly spread.
        dz = 1.0 - (2.0 * i + 1.0) / DIRECTIONS
        flat = np.sqrt(1.0 - dz * dz)
        dy, dx = flat * np.cos(2.399963229728653 * i), flat * np.sin(2.399963229728653 * i)
        far = 0.0
        while far < reach and found[0] == own:
            far += STEP_NM
            probe(tissue, segments, start[0] + far * dz, start[1] + far * dy, start[2] + far * dx, found)
        if found[0] != own:
            row = _row(out, n, found[0])
            if row < len(out) and (row == n or far < out[row, 4]):
                near = far - 0.5 * STEP_NM
                out[row, 0], out[row, 4] = found[0], far
                out[row, 1], out[row, 2] = start[0] + near * dz, start[1] + near * dy
                out[row, 3] = start[2] + near * dx
                n = max(n, row + 1)
        found[0] = own
    return n


@njit(cache=True, nogil=True)
def _row(table: F64, n: int, label: float) -> int:
    """Return the row of a neurite, n where it has none."""
    row = 0
    while row < n and table[row, 0] != label:
        row += 1
    return row


@njit(cache=True, nogil=True)
def free_of_mitochondria(tissue: Tissue, segments: F64, contact: F64, spot: bool) -> bool:
    """Whether no mitochondrion is where a contact's densities, and its dense body (`spot`), will be."""
    found, free = np.empty(8), True
    for depth in (-60.0 if spot else -20.0, -25.0, 25.0):
        z, y, x = contact[0] + depth * contact[3], contact[1] + depth * contact[4], contact[2] + depth * contact[5]
        probe(tissue, segments, z, y, x, found)
        free &= found[5] > 4.0
    return free


@njit(cache=True, nogil=True)
def vesicles(tissue: Tissue, segments: F64, contact: F64, key: tuple[int, int], spot: bool, out: F64) -> int:
    """Throw vesicles [N, 3] (centres, nm) into a contact's pre neurite; return how many fell.

    None touches a membrane, a mitochondrion, another vesicle, or (`spot`) the dense body at the contact.
    """
    found, n = np.empty(8), 0
    for attempt in range(1000):
        if n == len(out):
            break
        z = CLOUD_NM * (2.0 * uniform(tissue.seed, CLOUD, key[0], key[1], attempt) - 1.0)
        y = CLOUD_NM * (2.0 * uniform(tissue.seed, CLOUD + 1, key[0], key[1], attempt) - 1.0)
        x = CLOUD_NM * (2.0 * uniform(tissue.seed, CLOUD + 2, key[0], key[1], attempt) - 1.0)
        away = z * z + y * y + x * x
        along = z * contact[3] + y * contact[4] + x * contact[5]
        across = np.sqrt(max(away - along * along, 0.0))
        if along > -22.0 or away > CLOUD_NM**2 or (spot and across < 62.0 and along > -82.0):
            continue
        z, y, x = contact[0] + z, contact[1] + y, contact[2] + x
        probe(tissue, segments, z, y, x, found)
        inside = found[0] == contact[6] and found[2] - found[1] > 2.0 * CLOUD_DEPTH_NM and found[5] > 22.0
        if inside and _is_apart(out, n, z, y, x):
            out[n, 0], out[n, 1], out[n, 2] = z, y, x
            n += 1
    return n


@njit(cache=True, nogil=True)
def _is_apart(points: F64, n: int, z: float, y: float, x: float) -> bool:
    apart = True
    for i in range(n):
        far = (points[i, 0] - z) ** 2 + (points[i, 1] - y) ** 2 + (points[i, 2] - x) ** 2
        apart &= far >= VESICLE_GAP_NM**2
    return apart
