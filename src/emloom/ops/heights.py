"""Heights: how far inside an object a voxel lies, by the affinities to its face neighbours, in integers.

A voxel's height is the mean of all *its pairs*: a channel with the offset ``o`` tells of the pair (p, p + o) at p
and of the pair (p - o, p) at p - o, and both count. Pairs that leave the whole volume do not exist. The mean is
scaled from 0 .. 255 to 0 .. 65535 and rounded, halves up. Smoothing is a Gaussian with fixed integer weights along
z, then y, then x, rounded after each axis, with mirrors at the faces of the whole volume (``c b a | a b c``)::

    sigma 1     weights / 65536     291  3539  15862  26152  15862  3539  291     (radius: 3 sigma, rounded up)

So the height of a voxel is a function of the affinities near it and of nothing else: a block computes the same
bits as the whole volume.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from math import ceil

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.geometry import Box, Vec
from emloom.geometry.box import sub

Bytes = NDArray[np.uint8]
Table = NDArray[np.int64]
Heights = NDArray[np.uint16]

_ONE = 65536  # weights sum to this: the largest sum of heights times weights still fits in 32 bits
_HALF = np.uint32(_ONE // 2)


def gaussian_radius(sigma: float) -> int:
    """Return how many voxels a Gaussian of `sigma` voxels reaches: three sigma, rounded up."""
    return ceil(3 * Fraction(repr(float(sigma))))


def gaussian_weights(sigma: float) -> NDArray[np.uint32]:
    """Return the weights at distance 0, 1, .. radius, uint32; both sides together sum to exactly 65536.

    The exponential is computed in decimals, correctly rounded, so that the weights are the same on every machine.
    """
    radius = gaussian_radius(sigma)
    with localcontext() as context:
        context.prec = 40
        width = 2 * Decimal(repr(float(sigma))) ** 2 if radius else Decimal(1)
        bell = [(-(Decimal(k) ** 2) / width).exp() for k in range(radius + 1)]
        scale = _ONE / (2 * sum(bell) - bell[0])
        sides = [int((scale * b).to_integral_value()) for b in bell[1:]]
    return np.array([_ONE - 2 * sum(sides), *sides], np.uint32)


def looks_around(offsets: Table) -> Table:
    """Return what a voxel looks at, one row per pair, int64 [2 * channels, 8].

    Columns: channel; step (z, y, x) to the partner; where, from the voxel, the affinity stands (z, y, x); and the
    step's direction, 1 .. 6: -x, -y, -z, +x, +y, +z. Rows are sorted by direction.
    """
    rows = []
    for channel, offset in enumerate(offsets.tolist()):
        back = [-o for o in offset]
        rows += [[channel, *offset, 0, 0, 0], [channel, *back, *back]]
    directions = [(0, 0, -1), (0, -1, 0), (-1, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    looks = [[*row, 1 + directions.index((row[1], row[2], row[3]))] for row in rows]
    return np.array(sorted(looks, key=lambda look: look[7]), np.int64).reshape(-1, 8)


def mean_heights(
    affinities_CZYX: Bytes, looks: Table, boxes: tuple[Box, Box, Vec], background: float, alive_ZYX: Bytes
) -> Heights:
    """Return the heights of a box, not smoothed, and clear `alive` where they are background.

    Args:
        affinities_CZYX: uint8 [C, Z, Y, X] of the `read` box, C-contiguous.
        looks: of `looks_around`.
        boxes: of the affinities (at least the next grown by one voxel, as far as the whole volume reaches), of the
            heights (not empty), and the shape of the whole volume.
        background: voxels with a mean affinity (0 .. 1) below this are background, decided exactly.
        alive_ZYX: uint8 [Z, Y, X], 1 or 0, of the heights' box; cleared in place.

    Returns:
        uint16 [Z, Y, X]; a voxel without any pair has height 0.
    """
    read, box, total = boxes
    lowest = Fraction(repr(float(background))) * 255
    counts = range(1, len(looks) + 1)
    limits = [int(background > 0), *(ceil(lowest * n) for n in counts)]
    factors = [0, *(ceil(Fraction(257 * _ONE, n)) for n in counts)]
    heights = np.empty(box.shape, np.uint16)
    frame = np.array([total, box.start, sub(box.start, read.start)], np.int64)
    tables = np.array(factors, np.uint32), np.array(limits, np.uint16)
    stretches = _stretches(looks, box.start[2], box.stop[2], total[2])
    _mean(affinities_CZYX, looks, frame, stretches, tables, heights, alive_ZYX)
    return heights


def _stretches(looks: Table, first: int, stop: int, total: int) -> Table:
    """Cut a row where the number of its voxels' pairs changes: from, to, pairs that lack; int64 [N, 3]."""
    x = np.arange(first, stop)
    along_x = np.count_nonzero(looks[:, 3]) // 2  # as many look back as look ahead
    lack = along_x * ((x == 0).astype(np.int64) + (x == total - 1))
    cuts = np.flatnonzero(np.diff(lack, prepend=-1, append=-1))
    return np.array([[a, b, lack[a]] for a, b in pairwise(cuts)], np.int64)


@njit(cache=True, nogil=True)
def _mean(affinities, looks, frame, stretches, tables, heights, alive):  # type: ignore[no-untyped-def]
    total, start, at = frame
    factors, limits = tables
    n_z, n_y, n_x = heights.shape
    sums = np.empty(n_x, np.uint16)
    for z in range(n_z):
        for y in range(n_y):
            sums[:] = 0
            pairs = 0
            for channel, sz, sy, sx, az, ay, ax, _ in looks:
                if 0 <= start[0] + z + sz < total[0] and 0 <= start[1] + y + sy < total[1]:
                    low, high = max(0, -sx - start[2]), min(n_x, total[2] - sx - start[2])
                    first = at[2] + ax
                    row = affinities[channel, z + at[0] + az, y + at[1] + ay, first + low : first + high]
                    _add(sums[low:high], row)
                    pairs += 1
            for low, high, lack in stretches:
                n = pairs - lack
                _finish(sums[low:high], factors[n], limits[n], heights[z, y, low:high], alive[z, y, low:high])


@njit(cache=True, nogil=True)
def _add(sums, row):  # type: ignore[no-untyped-def]
    for x in range(sums.size):
        sums[x] += row[x]


@njit(cache=True, nogil=True)
def _finish(sums, factor, limit, heights, alive):  # type: ignore[no-untyped-def]
    # factor = 65536 * 257 / pairs, rounded up: its error is too small to reach the next multiple of 1 / pairs.
    for x in range(sums.size):
        heights[x] = np.uint16((np.uint64(sums[x]) * np.uint64(factor) + np.uint64(_HALF)) >> np.uint64(16))
        alive[x] &= np.uint8(sums[x] >= limit)


def smooth(heights_ZYX: Heights, boxes: tuple[Box, Box, Vec], sigma: tuple[float, float, float]) -> Heights:
    """Return smoothed heights.

    Args:
        heights_ZYX: uint16 [Z, Y, X].
        boxes: of these heights (at least the next grown by the radius of each axis, as far as the whole volume
            reaches), of the result (not empty), and the shape of the whole volume, whose faces mirror.
        sigma: of the Gaussian (z, y, x) in voxels; 0 leaves an axis as it is.

    Returns:
        uint16 [Z, Y, X] of the second box.
    """
    box, wanted, total = boxes
    out = np.empty(wanted.shape, np.uint16)
    frame = np.array([total, box.start, wanted.start], np.int64)
    z, y, x = (gaussian_weights(s) for s in sigma)
    _smooth(heights_ZYX, frame, (z, y, x), out)
    return out


# Section by section, so that what lies between the axes stays in cache and costs no memory.
@njit(cache=True, nogil=True)
def _smooth(heights, frame, weights, out):  # type: ignore[no-untyped-def]
    total, start, wanted = frame
    in_z, in_y, in_x = weights
    sums, section = np.empty(heights.shape[2], np.uint32), np.empty(heights.shape[1:], np.uint16)
    row, padded = np.empty(heights.shape[2], np.uint16), np.empty(out.shape[2] + 2 * in_x.size - 2, np.uint16)
    for z in range(out.shape[0]):
        for y in range(heights.shape[1]):
            sums[:] = _HALF
            for k in range(in_z.size):
                below = _mirrored(wanted[0] + z - k, total[0]) - start[0]
                above = _mirrored(wanted[0] + z + k, total[0]) - start[0]
                _weigh(sums, in_z[k], k, heights[below, y], heights[above, y])
            _narrow(sums, section[y])
        for y in range(out.shape[1]):
            sums[:] = _HALF
            for k in range(in_y.size):
                below = _mirrored(wanted[1] + y - k, total[1]) - start[1]
                above = _mirrored(wanted[1] + y + k, total[1]) - start[1]
                _weigh(sums, in_y[k], k, section[below], section[above])
            _narrow(sums, row)
            _pad(row, start[2], wanted[2] - in_x.size + 1, total[2], padded)
            _along(padded, in_x, sums[: out.shape[2]], out[z, y])


@njit(cache=True, nogil=True)
def _along(padded, weights, sums, out):  # type: ignore[no-untyped-def]
    reach, n = weights.size - 1, out.size
    sums[:] = _HALF
    for k in range(weights.size):
        _weigh(sums, weights[k], k, padded[reach - k : reach - k + n], padded[reach + k : reach + k + n])
    _narrow(sums, out)


@njit(cache=True, nogil=True)
def _pad(row, start, first, total, padded):  # type: ignore[no-untyped-def]
    """Fill `padded`, which starts at voxel `first`, from a row that starts at voxel `start`; beyond it, mirror."""
    low, high = max(0, start - first), min(padded.size, start - first + row.size)
    padded[low:high] = row[low + first - start : high + first - start]
    for x in range(low):
        padded[x] = row[_mirrored(first + x, total) - start]
    for x in range(high, padded.size):
        padded[x] = row[_mirrored(first + x, total) - start]


@njit(cache=True, nogil=True)
def _mirrored(i, total):  # type: ignore[no-untyped-def]
    if 0 <= i < total:
        return i
    i %= 2 * total  # a volume thinner than the radius is mirrored over and over
    return min(i, 2 * total - 1 - i)


@njit(cache=True, nogil=True)
def _weigh(sums, weight, distance, below, above):  # type: ignore[no-untyped-def]
    if distance == 0:
        for x in range(sums.size):
            sums[x] += weight * np.uint32(below[x])
    else:
        for x in range(sums.size):
            sums[x] += weight * (np.uint32(below[x]) + np.uint32(above[x]))


@njit(cache=True, nogil=True)
def _narrow(sums, out):  # type: ignore[no-untyped-def]
    for x in range(out.size):
        out[x] = np.uint16(sums[x] >> np.uint32(16))
