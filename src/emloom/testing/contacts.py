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
PLACE, FOND, CLOUD = 70, 73, 74
FOND_PAIRS, FONDNESS = 0.07, 40.0
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


@njit(cache=True, nogil=True)
def probe(tissue: Tissue, segments: F64, point: F64, found: F64) -> float:
    """Fill in what `tissue.nearest` finds at a point (nm); return the next neurite, -1 if none is near."""
    there = np.empty(3)
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
def face_luck(owner: NDArray[np.int32], seed: int) -> F64:
    """Return luck [3, Z, Y, X] for every cell's face to the next along z, y, x: the smallest gets a synapse first.

    It is infinite where no two neurites meet. Few pairs are fond of each other and meet in several synapses.
    """
    out = np.full((3, *owner.shape), np.inf)
    for axis in range(3):
        dz, dy, dx = int(axis == 0), int(axis == 1), int(axis == 2)
        for z in range(owner.shape[0] - dz):
            for y in range(owner.shape[1] - dy):
                for x in range(owner.shape[2] - dx):
                    a, b = owner[z, y, x], owner[z + dz, y + dy, x + dx]
                    if a != b:
                        fond = uniform(seed, FOND, min(a, b), max(a, b), 0) < FOND_PAIRS
                        luck = -np.log(1.0 - uniform(seed, PLACE + axis, z, y, x))
                        out[axis, z, y, x] = luck / FONDNESS if fond else luck
    return out


@njit(cache=True, nogil=True)
def meet(tissue: Tissue, first: I64, second: I64, out: F64) -> bool:
    """Find where two neighbouring cells' neurites touch; fill in the point and the normal towards the second, nm.

    Returns False where a third neurite lies between their sites.
    """
    owner = tissue.owner
    label, other = float(owner[first[0], first[1], first[2]]), float(owner[second[0], second[1], second[2]])
    a, b, at = np.empty(3), np.empty(3), np.empty((1, 3))
    site(tissue, first[0], first[1], first[2], a)
    site(tissue, second[0], second[1], second[2], b)
    segments = around(tissue, (a + b) / 2.0, np.sqrt(((a - b) ** 2).sum()) / 2.0)
    low, high = 0.0, 1.0
    for _ in range(24):
        t = (low + high) / 2.0
        at[0] = a + t * (b - a)
        if _lead(segments, label, other, at[0]) < 0.0:
            low = t
        else:
            high = t
    out[:3] = unbend(tissue, at)[0]
    found = np.empty(8)
    there = probe(tissue, segments, out[:3], found)
    if not ((found[0] == label and there == other) or (found[0] == other and there == label)):
        return False
    return normal(tissue, segments, out[:3], (label, other), out[3:6])


@njit(cache=True, nogil=True)
def normal(tissue: Tissue, segments: F64, point: F64, pair: tuple[float, float], out: F64) -> bool:
    """Fill in the unit normal of two neurites' membrane, towards the second; False where there is none."""
    there, moved = np.empty(3), point.copy()
    length = 0.0
    for axis in range(3):
        lead = 0.0
        for sign in (-1.0, 1.0):
            moved[axis] = point[axis] + 3.0 * sign
            bend(tissue, moved, there)
            lead += sign * _lead(segments, pair[0], pair[1], there)
        moved[axis] = point[axis]
        out[axis] = lead
        length += lead * lead
    for axis in range(3):
        out[axis] /= np.sqrt(length) + 1e-9
    return length > 1.0


@njit(cache=True, nogil=True)
def breadth(tissue: Tissue, segments: F64, contact: F64, pair: tuple[float, float], radius: float) -> float:
    """Return the part of a circle around a contact, in its plane, that lies on the membrane of the two."""
    u, v = np.zeros(3), np.empty(3)
    n = contact[3:6]
    u[int(np.argmin(np.abs(n)))] = 1.0
    u -= n * (u[0] * n[0] + u[1] * n[1] + u[2] * n[2])
    u /= np.sqrt((u * u).sum())
    v[0], v[1], v[2] = n[1] * u[2] - n[2] * u[1], n[2] * u[0] - n[0] * u[2], n[0] * u[1] - n[1] * u[0]
    found, on = np.empty(8), 0
    for i in range(12):
        turn = 2.0 * np.pi * i / 12
        there = probe(tissue, segments, contact[:3] + radius * (np.cos(turn) * u + np.sin(turn) * v), found)
        same = (found[0] == pair[0] and there == pair[1]) or (found[0] == pair[1] and there == pair[0])
        on += same and found[2] - found[1] < DEEPEST_NM
    return on / 12.0


@njit(cache=True, nogil=True)
def partners(tissue: Tissue, segments: F64, start: F64, reach: float, out: F64) -> int:
    """Find the neurites that are seen from a point within its own; return how many there are.

    Rays leave the point in all directions; where one first leaves the neurite, it meets the other. Each neurite is
    named once, at the nearest such place. Rows of `out`: neurite, z, y, x, nm from the point.
    """
    found, at, n = np.empty(8), np.empty(3), 0
    probe(tissue, segments, start, found)
    own = found[0]
    for i in range(DIRECTIONS):
        # Points of a spiral over the sphere, evenly spread.
        dz = 1.0 - (2.0 * i + 1.0) / DIRECTIONS
        turn, flat = 2.399963229728653 * i, np.sqrt(1.0 - dz * dz)
        way = np.array([dz, flat * np.cos(turn), flat * np.sin(turn)])
        far = 0.0
        while far < reach:
            far += STEP_NM
            at[:] = start + far * way
            probe(tissue, segments, at, found)
            if found[0] != own:
                n = _note(out, n, found[0], at - 0.5 * STEP_NM * way, far)
                break
    return n


@njit(cache=True, nogil=True)
def _note(out: F64, n: int, label: float, at: F64, far: float) -> int:
    row = 0
    while row < n and out[row, 0] != label:
        row += 1
    if row == len(out):
        return n
    if row == n or far < out[row, 4]:
        out[row, 0], out[row, 4] = label, far
        out[row, 1:4] = at
    return max(n, row + 1)


@njit(cache=True, nogil=True)
def vesicles(tissue: Tissue, segments: F64, contact: F64, key: tuple[int, int], spot: bool, out: F64) -> int:
    """Throw vesicles [N, 3] (centres, nm) into the neurite on the near side of a contact; return how many fell.

    None touches a membrane, a mitochondrion, another vesicle, or (`spot`) the dense body at the contact.
    """
    found, at, n = np.empty(8), np.empty(3), 0
    axis = contact[3:6]
    probe(tissue, segments, contact[:3] - 20.0 * axis, found)
    own = found[0]
    for attempt in range(400):
        if n == len(out):
            break
        for k in range(3):
            at[k] = contact[k] + CLOUD_NM * (2.0 * uniform(tissue.seed, CLOUD + k, key[0], key[1], attempt) - 1.0)
        away = at - contact[:3]
        along = away[0] * axis[0] + away[1] * axis[1] + away[2] * axis[2]
        across = np.sqrt(max((away * away).sum() - along * along, 0.0))
        if along > -22.0 or (away * away).sum() > CLOUD_NM**2 or (spot and across < 62.0 and along > -82.0):
            continue
        probe(tissue, segments, at, found)
        if (
            found[0] == own
            and found[2] - found[1] > 2.0 * CLOUD_DEPTH_NM
            and found[5] > 22.0
            and _apart(out, n, at)
        ):
            out[n] = at
            n += 1
    return n


@njit(cache=True, nogil=True)
def _apart(points: F64, n: int, at: F64) -> bool:
    apart = True
    for i in range(n):
        apart &= ((points[i] - at) ** 2).sum() >= VESICLE_GAP_NM**2
    return apart
