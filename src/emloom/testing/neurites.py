"""Where the neurites of a phantom run: every cell of a coarse lattice belongs to one neurite.

A neurite is grown by walkers. A walker steps from a cell to a face neighbour, keeps roughly its direction, claims
the free cells around it (thick dendrites) or only its own (thin axons, with a swelling here and there), branches
now and then, and stops at the volume's face or where all is taken. Dendrites grow first, then axons start from
every cell that is still free, so that in the end no cell is. ::

    owner   1 1 1 4 4        link of a core cell: direction of its parent (0..5: -z +z -y +y -x +x), ROOT;
            2 2 1 4 5        FLESH: a cell around the core, no part of the skeleton
            2 3 3 3 5

All cells of a neurite are face-connected, and so are its core cells: they form its skeleton, a tree.

Randomness is a hash of (seed, stream, place): no state, the same numbers in any order.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

ROOT, FLESH = 6, 7
# Neurites of fewer cells than this are no neurites; and how far one may branch.
SCRAP, MOST_WALKERS = 6, 60
Cell = tuple[int, int, int]
Owner = NDArray[np.int32]
Links = NDArray[np.uint8]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Streams of random numbers, one per purpose.
START, DIRECTION, TURN, BRANCH, SWELL, RADIUS, ORDER = 1, 2, 3, 4, 5, 6, 7


@njit(cache=True, nogil=True)
def _mix(h: np.uint64) -> np.uint64:
    # The finaliser of splitmix64 (Steele et al., OOPSLA 2014, doi:10.1145/2660193.2660195).
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@njit(cache=True, nogil=True)
def uniform(seed: int, stream: int, z: int, y: int, x: int) -> float:
    """Return a number in [0, 1) that depends on all arguments and on nothing else."""
    h = _mix(np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(stream))
    h = _mix(h + np.uint64(z) * np.uint64(0xD1B54A32D192ED03) + np.uint64(y) * np.uint64(0xABC98388FB8FAC03))
    h = _mix(h + np.uint64(x) * np.uint64(0x8CB92BA72F3D8DD7))
    return np.float64(h >> np.uint64(11)) * (1.0 / 9007199254740992.0)


def grow_neurites(cells: Cell, seed: int, thick_fraction: float) -> tuple[Owner, Links]:
    """Return the neurite of every cell (1, 2, ...) and every cell's link.

    Args:
        cells: lattice size (z, y, x).
        seed: another seed, other neurites.
        thick_fraction: part of the cells claimed by thick neurites, 0..0.8.
    """
    owner = np.zeros(cells, np.int32)
    link = np.full(cells, FLESH, np.uint8)
    n_thick = _grow_thick(owner, link, seed, thick_fraction)
    order = np.argsort(_order(owner.size, seed), kind="stable")
    _grow_thin(owner, link, seed, order, n_thick)
    numbers = np.unique(owner)
    return np.searchsorted(numbers, owner).astype(np.int32) + 1, link


@njit(cache=True, nogil=True)
def _order(n: int, seed: int) -> F64:
    out = np.empty(n)
    for i in range(n):
        out[i] = uniform(seed, ORDER, i, 0, 0)
    return out


# Kernels below use scalars and plain loops throughout: array expressions in them cost minutes of compilation.


@njit(cache=True, nogil=True)
def _grow_thick(owner: Owner, link: Links, seed: int, fraction: float) -> int:
    """Grow dendrites until they hold the fraction; return how many there are."""
    height, width = owner.shape[1], owner.shape[2]
    n, claimed = 0, 0
    for attempt in range(owner.size):
        if claimed >= fraction * owner.size:
            break
        cell = int(uniform(seed, START, attempt, 0, 0) * owner.size)
        z, y, x = cell // (height * width), cell // width % height, cell % width
        if owner[z, y, x] == 0:
            n += 1
            radius = 1.0 + 1.8 * uniform(seed, RADIUS, n, 0, 0) ** 2
            # No dendrite takes all of a small volume.
            most = max(SCRAP, int(fraction * owner.size / 4))
            claimed += _grow(owner, link, (z, y, x), n, seed, (radius, most))
    return n


@njit(cache=True, nogil=True)
def _grow_thin(owner: Owner, link: Links, seed: int, order: I64, n: int) -> None:
    """Start an axon in every cell that is still free; scraps join a neighbour."""
    height, width = owner.shape[1], owner.shape[2]
    for i in order:
        z, y, x = i // (height * width), i // width % height, i % width
        if owner[z, y, x] == 0:
            n += 1
            if _grow(owner, link, (z, y, x), n, seed, (0.0, owner.size)) < SCRAP:
                _join(owner, link, (z, y, x), n)


@njit(cache=True, nogil=True)
def neighbour(z: int, y: int, x: int, direction: int) -> Cell:
    """Return the face neighbour in a direction: 0..5 is -z +z -y +y -x +x."""
    step, axis = 2 * (direction % 2) - 1, direction // 2
    return z + step * (axis == 0), y + step * (axis == 1), x + step * (axis == 2)


@njit(cache=True, nogil=True)
def _owner_at(owner: Owner, z: int, y: int, x: int) -> int:
    """Return the owner, 0 where free, -1 outside the lattice."""
    if 0 <= z < owner.shape[0] and 0 <= y < owner.shape[1] and 0 <= x < owner.shape[2]:
        return int(owner[z, y, x])
    return -1


@njit(cache=True, nogil=True)
def _normalise(v: F64) -> None:
    length = np.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]) + 1e-9
    for axis in range(3):
        v[axis] /= length


# A walker: heading (3), radius, steps left, number, cell (3).
HEADING, GIRTH, LEFT, WHO, CELL, WALKER_SIZE = 0, 3, 4, 5, 6, 9


@njit(cache=True, nogil=True)
def _grow(owner: Owner, link: Links, start: Cell, label: int, seed: int, size: tuple[float, int]) -> int:
    """Grow one neurite from its root both ways, with branches; return its cells. `size`: radius, most cells."""
    owner[start] = label
    link[start] = ROOT
    claimed = 1
    stack = np.empty((MOST_WALKERS, WALKER_SIZE))
    waiting, walkers = 2, 2
    for i in range(2):
        for axis in range(3):
            stack[i, axis] = (uniform(seed, DIRECTION, label, axis, 0) - 0.5) * (1 - 2 * i)
            stack[i, CELL + axis] = start[axis]
        _normalise(stack[i])
        stack[i, GIRTH], stack[i, LEFT], stack[i, WHO] = size[0], 1e9, i
    walker = np.empty(WALKER_SIZE)
    while waiting and claimed < size[1]:
        waiting -= 1
        for i in range(WALKER_SIZE):
            walker[i] = stack[waiting, i]
        who, step = label * MOST_WALKERS + int(walker[WHO]), 0
        while step < walker[LEFT] and _step(owner, link, walker, label, seed, who * 65536 + step):
            step += 1
            claimed += 1 + _swell(owner, walker, label, _girth(walker[GIRTH], seed, who, step))
            if walkers < MOST_WALKERS and _branch(walker, seed, label, stack[waiting]):
                stack[waiting, WHO] = walkers
                waiting += 1
                walkers += 1
    return claimed


@njit(cache=True, nogil=True)
def _girth(radius: float, seed: int, who: int, step: int) -> float:
    """Return how far the walker claims cells: dendrites swell slowly, axons have a varicosity here and there."""
    if radius > 0.0:
        a, b = uniform(seed, SWELL, who, step // 5, 0), uniform(seed, SWELL, who, step // 5 + 1, 0)
        return radius * (0.7 + 0.6 * (a + (b - a) * (step % 5 / 5.0)))
    return 1.0 if uniform(seed, SWELL, who, step, 1) < 0.12 else 0.0


@njit(cache=True, nogil=True)
def _step(owner: Owner, link: Links, walker: F64, label: int, seed: int, clock: int) -> bool:
    """Move to the free (or own, not yet core) face neighbour that lies best ahead; return whether there is one."""
    z, y, x = int(walker[CELL]), int(walker[CELL + 1]), int(walker[CELL + 2])
    best, choice = 0.0, -1
    for direction in range(6):
        nz, ny, nx = neighbour(z, y, x, direction)
        there = _owner_at(owner, nz, ny, nx)
        if there == 0 or (there == label and link[nz, ny, nx] == FLESH):
            ahead = walker[direction // 2] * (2 * (direction % 2) - 1)
            # A little luck makes the lattice steps follow slanted headings.
            score = ahead + 0.55 * uniform(seed, TURN, clock, direction, 0) + 0.05
            if score > best:
                best, choice = score, direction
    if choice < 0:
        return False
    z, y, x = neighbour(z, y, x, choice)
    walker[CELL], walker[CELL + 1], walker[CELL + 2] = z, y, x
    owner[z, y, x] = label
    link[z, y, x] = choice ^ 1
    for axis in range(3):
        walker[axis] += 0.5 * (uniform(seed, TURN, clock, axis, 1) - 0.5)
    _normalise(walker)
    return True


@njit(cache=True, nogil=True)
def _swell(owner: Owner, walker: F64, label: int, radius: float) -> int:
    """Claim the free cells within the radius that touch the neurite; return how many."""
    z, y, x = int(walker[CELL]), int(walker[CELL + 1]), int(walker[CELL + 2])
    reach = int(radius)
    side = 2 * reach + 1
    claimed = 0
    for i in range(reach * side**3):
        dz, dy, dx = i // (side * side) % side - reach, i // side % side - reach, i % side - reach
        near = dz * dz + dy * dy + dx * dx <= radius * radius
        if (
            near
            and _owner_at(owner, z + dz, y + dy, x + dx) == 0
            and _touches(owner, label, z + dz, y + dy, x + dx)
        ):
            owner[z + dz, y + dy, x + dx] = label
            claimed += 1
    return claimed


@njit(cache=True, nogil=True)
def _touches(owner: Owner, label: int, z: int, y: int, x: int) -> bool:
    for direction in range(6):
        nz, ny, nx = neighbour(z, y, x, direction)
        if _owner_at(owner, nz, ny, nx) == label:
            return True
    return False


@njit(cache=True, nogil=True)
def _branch(walker: F64, seed: int, label: int, out: F64) -> bool:
    """Put a branch (of the neurite's kind) or a spine (short, thin) into `out`, if one starts here."""
    place = (int(walker[CELL]) * 65536 + int(walker[CELL + 1])) * 65536 + int(walker[CELL + 2])
    luck = uniform(seed, BRANCH, label, place, 0)
    thick = walker[GIRTH] > 0.0
    if luck > (0.28 if thick else 0.03):
        return False
    spine = thick and luck > 0.03
    for axis in range(3):
        side = 2.0 * uniform(seed, BRANCH, label, place, 1 + axis) - 1.0
        out[axis] = side + (0.0 if spine else walker[axis])
        out[CELL + axis] = walker[CELL + axis]
    _normalise(out)
    out[GIRTH] = 0.0 if spine or not thick else max(1.0, 0.7 * walker[GIRTH])
    out[LEFT] = walker[GIRTH] + 2.0 + 8.0 * luck if spine else 1e9
    return True


@njit(cache=True, nogil=True)
def _join(owner: Owner, link: Links, root: Cell, label: int) -> None:
    """Give a scrap to the neurite next to its root, as a branch of its core where the root touches that."""
    for i in range(12):
        direction, core = i % 6, i < 6
        z, y, x = neighbour(root[0], root[1], root[2], direction)
        there = _owner_at(owner, z, y, x)
        if there > 0 and there != label and (link[z, y, x] != FLESH or not core):
            link[root] = direction
            _rename(owner, link, root, there, not core)
            return


@njit(cache=True, nogil=True)
def _rename(owner: Owner, link: Links, root: Cell, label: int, to_flesh: bool) -> None:
    old = owner[root]
    cells = np.empty((SCRAP, 3), np.int64)
    cells[0, 0], cells[0, 1], cells[0, 2] = root
    owner[root] = label
    n, i = 1, 0
    while i < n:
        z, y, x = cells[i, 0], cells[i, 1], cells[i, 2]
        i += 1
        if to_flesh:
            link[z, y, x] = FLESH
        for direction in range(6):
            nz, ny, nx = neighbour(z, y, x, direction)
            if _owner_at(owner, nz, ny, nx) == old:
                owner[nz, ny, nx] = label
                cells[n, 0], cells[n, 1], cells[n, 2] = nz, ny, nx
                n += 1
