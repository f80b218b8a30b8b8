"""Fragments by steepest ascent: every voxel points to its best neighbour, and what leads to one top is a fragment.

The best among a voxel and its six face neighbours is the highest (`emloom.ops.heights`); of equals, the one that
comes first in the whole volume. That order is strict, so no path is a circle, and every path has one end, whatever
the rounding and the ties::

    height  3 5 6 4 2 2 7 8 7          A block knows where its voxels point to, and follows paths until they end
    points  ▸ ▸ ▲ ◂ ◂ ▸ ▸ ▲ ◂          or leave it:     [▸ ▸|▲ ◂ ◂ ▸|▸ ▲ ◂]
    id      3 3 3 3 3 8 8 8 8          provisional       3 3 3 3 3 7 8 8 8      id 7, the exit, becomes 8

A height depends on affinities within a fixed reach (`Ascent.halo`) and so does a pointer; the rest is bookkeeping
(`emloom.ops.exits`). Hence the fragments are the same bits for any blocks whatsoever, and the whole volume at once
is one block of the same code. An id is 1 + the linear index, in the whole volume, of the fragment's top.

Fragments are many and small, one for each local maximum: agglomeration merges them. Watershed by the steepest
neighbour: Meyer, Signal Processing 1994, doi:10.1016/0165-1684(94)90060-4; as the first step of a pipeline on
affinities, with equals resolved otherwise: Zlateski and Seung, 2015, arXiv:1505.00249.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, isfinite
from typing import Any, NamedTuple, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.box import as_vec, sub
from emloom.ops.affinities import near_channels, require_neighborhood
from emloom.ops.heights import Bytes, gaussian_radius, looks_around, mean_heights, smooth
from emloom.ops.labels import require_mask_array
from emloom.ops.places import Ids, require_place

# Where a voxel points: 0 itself, 1 .. 6 to a neighbour, 7 .. 12 to one outside the write box; and afterwards.
_LEAVES = 6
_DONE, _DEAD = 254, 255


@dataclass(frozen=True, slots=True)
class Ascent:
    """How voxels ascend.

    Args:
        sigma_vox: Gaussian that smooths the heights, in voxels (one number, or z, y, x); 0 leaves an axis as it
            is. Smoother heights have fewer tops, so fragments are fewer and larger.
        least_affinity: a voxel points only to neighbours with at least this affinity to it, in [0, 1].
        background: voxels whose mean affinity (not smoothed) is below this belong to no fragment, in [0, 1].
        per_section: work in each section alone: in-plane affinities, neighbours and smoothing.

    Raises:
        InputError: a value is out of range.
    """

    sigma_vox: float | Sequence[float] = (1.0, 1.0, 1.0)
    least_affinity: float = 0.0
    background: float = 0.0
    per_section: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma_vox", _three(self.sigma_vox))
        for name, value in (("least affinity", self.least_affinity), ("background", self.background)):
            if not 0 <= value <= 1:
                raise InputError(f"{name} {value} is outside [0, 1]")

    @property
    def sigma(self) -> tuple[float, float, float]:
        """Sigma of the Gaussian (z, y, x) in voxels."""
        z, y, x = _three(self.sigma_vox)
        return (0.0 if self.per_section else z, y, x)

    @property
    def radius(self) -> Vec:
        """Voxels (z, y, x) that smoothing reaches."""
        z, y, x = (gaussian_radius(s) for s in self.sigma)
        return (z, y, x)

    @property
    def halo(self) -> Vec:
        """Voxels (z, y, x) of affinities that a block must read around those it writes.

        One to the neighbour, the radius around that, and one more for pairs whose affinity stands there.
        """
        z, y, x = self.radius
        return (0 if self.per_section else z + 2, y + 2, x + 2)


def _three(value: float | Iterable[float]) -> tuple[float, float, float]:
    numbers = tuple(value) if isinstance(value, Iterable) else (value,) * 3
    if len(numbers) != 3 or not all(isfinite(v) and 0 <= v <= 1000 for v in numbers):
        raise InputError(f"sigma {value} is not usable: give one number of voxels or three (z, y, x), 0 .. 1000")
    z, y, x = (float(v) for v in numbers)
    return (z, y, x)


@dataclass(frozen=True)
class Paths:
    """Where the voxels of a block point; `follow` gives their fragments.

    Attributes:
        points: uint8 [Z, Y, X], a direction for each voxel, in a code of this module.
        write: the block, in the whole volume.
        total_shape: shape of the whole volume.
    """

    points: Bytes
    write: Box
    total_shape: Vec

    @classmethod
    def nowhere(cls, write: Box, total_shape: Vec) -> Self:
        """Return the paths of a block that is all background."""
        return cls(np.full(write.shape, _DEAD, np.uint8), write, total_shape)

    def on_faces(self) -> Ids:
        """Return where the paths from the block's faces lead, uint64 [N]; in the order of `exits.labels_on_faces`.

        Ids of places: of the path's top where the path ends inside the block, else of its exit, the first voxel
        outside; 0 on background. What enters or leaves the block does so on its faces, so this is all that blocks
        need to know of each other; paths are short, so it costs little beside `follow`.
        """
        whole = Box.whole(self.write.shape)
        layers = [_layer(whole, axis, last=last) for axis in range(3) for last in (False, True)]
        ends = [np.empty(layer.shape, np.uint64) for layer in layers]
        for layer, out in zip(layers, ends, strict=True):
            _trace(self.points, np.array([layer.start, layer.shape], np.int64), self._names(), out)
        return np.concatenate([out.reshape(-1) for out in ends])

    def follow(self, exits: Ids | None = None, tops: Ids | None = None) -> Ids:
        """Return the id of every voxel's fragment, uint64 [Z, Y, X]; 0 on background.

        Args:
            exits: uint64 [E] in increasing order, of the voxels outside to which paths leave the block.
            tops: uint64 [E], where the paths from these voxels end. An exit that is not listed stands for itself.
        """
        none = np.zeros(0, np.uint64)
        out = np.empty(self.write.shape, np.uint64)
        exits, tops = (none if given is None else given for given in (exits, tops))
        _follow(self.points.copy(), self._names(), exits, tops, out)
        return out

    def _names(self) -> NDArray[np.int64]:
        return np.array([self.write.start, self.total_shape], np.int64)


def _layer(box: Box, axis: int, *, last: bool) -> Box:
    """Return the first or the last layer of a box along an axis."""
    shape, shift = list(box.shape), [0, 0, 0]
    shape[axis] = min(1, shape[axis])
    shift[axis] = box.shape[axis] - shape[axis] if last else 0
    return Box(box.start, as_vec(shape)).shift(shift)


class _Place(NamedTuple):
    """Where an array and the voxels to label lie in a world of shape `total`."""

    array: Box
    write: Box
    total: Vec


def ascent_fragments(
    affinities_CZYX: Bytes,
    neighborhood: Sequence[Sequence[int]],
    params: Ascent | None = None,
    *,
    mask_ZYX: NDArray[Any] | None = None,
    origin: Vec = (0, 0, 0),
    total_shape: Vec | None = None,
) -> Ids:
    """Cut an array, taken as all there is, into fragments: one block of the code that cuts a volume in blocks.

    O(voxels) time and about 12 bytes per voxel beside the affinities, plus a copy of the near ones among others.

    Args:
        affinities_CZYX: uint8 [C, Z, Y, X]; channel c at p is about the pair (p, p + neighborhood[c]). Only face
            neighbours are used (per section: only those in the plane), and only pairs inside the array.
        neighborhood: offset (z, y, x) of each channel, each once.
        params: see `Ascent`; default its defaults.
        mask_ZYX: boolean or unsigned, zero where no fragment may be; affinities there still count for heights.
        origin: voxel (z, y, x) of the whole volume at which this array starts; only ids depend on it.
        total_shape: shape of the whole volume; default the array's.

    Returns:
        uint64 [Z, Y, X] fragment ids: 1 + the linear index, in the whole volume, of the top. Every fragment is one
        piece, connected through voxel faces, and contains its top.

    Raises:
        InputError: shapes or dtypes break these rules, or no channel has a face neighbour.
    """
    shape = as_vec(affinities_CZYX.shape[-3:])
    total = require_place(shape, origin, total_shape)
    whole = Box.whole(shape)
    points = _ascend(affinities_CZYX, neighborhood, params, mask_ZYX, _Place(whole, whole, shape))
    return Paths(points, Box(origin, shape), total).follow()


def ascend(
    affinities_CZYX: Bytes,
    neighborhood: Sequence[Sequence[int]],
    params: Ascent | None = None,
    *,
    write: Box,
    origin: Vec,
    total_shape: Vec,
    mask_ZYX: NDArray[Any] | None = None,
) -> Paths:
    """Find where the voxels of a block point; `exits.resolve` tells what the paths that leave it lead to.

    Args:
        affinities_CZYX: as for `ascent_fragments`, of at least ``write.grow(params.halo)``, as far as the whole
            volume reaches.
        neighborhood: offset (z, y, x) of each channel, each once.
        params: see `Ascent`; default its defaults.
        write: the voxels to label, in the whole volume.
        origin: voxel (z, y, x) of the whole volume at which the arrays start.
        total_shape: shape of the whole volume.
        mask_ZYX: as for `ascent_fragments`, of the same box as the affinities.

    Raises:
        InputError: shapes or dtypes break these rules, no channel has a face neighbour, or the array is too small.
    """
    shape = as_vec(affinities_CZYX.shape[-3:])
    total = require_place(shape, origin, total_shape)
    require_place(write.shape, write.start, total)
    place = _Place(Box(origin, shape), write, total)
    return Paths(_ascend(affinities_CZYX, neighborhood, params, mask_ZYX, place), write, total)


def _ascend(
    affinities: Bytes,
    neighborhood: Sequence[Sequence[int]],
    params: Ascent | None,
    mask: NDArray[Any] | None,
    place: _Place,
) -> Bytes:
    params = params or Ascent()
    channels = near_channels(affinities, require_neighborhood(neighborhood), params.per_section)
    looks = looks_around(np.asarray(neighborhood, np.int64)[channels])
    usable = np.zeros(0, np.uint8) if mask is None else require_mask_array(mask, place.array.shape)
    if place.write.is_empty:
        return np.zeros(place.write.shape, np.uint8)
    whole, step = Box.whole(place.total), (int(not params.per_section), 1, 1)
    read, seen = place.write.grow(params.halo).intersect(whole), place.write.grow(step).intersect(whole)
    lit = seen.grow(params.radius).intersect(whole)
    if not place.array.contains(read):
        raise InputError(
            f"affinities of {place.array} are too few to write {place.write}: give {read}, a halo of {params.halo}"
        )
    near = affinities[(slice(None), *read.slices(place.array.start))]
    near = np.ascontiguousarray(near if len(channels) == len(near) else near[channels])
    alive = usable[lit.slices(place.array.start)].copy() if usable.size else np.ones(lit.shape, np.uint8)
    heights = mean_heights(near, looks, (read, lit, place.total), params.background, alive)
    if any(params.sigma):
        heights = smooth(heights, (lit, seen, place.total), params.sigma)
        alive = np.ascontiguousarray(alive[seen.slices(lit.start)])
    points = np.zeros(place.write.shape, np.uint8)
    start = place.write.start
    frame = np.array([place.total, start, sub(start, seen.start), sub(start, read.start)], np.int64)
    least = np.uint8(ceil(Fraction(repr(float(params.least_affinity))) * 255))  # exact on the decimal given
    _point(near, looks, frame, least, heights, alive, points)
    return points


# Row by row, one direction after the other, as far as the whole volume reaches: the best so far, and how to go.
@njit(cache=True, nogil=True)
def _point(affinities, looks, frame, least, heights, alive, points):  # type: ignore[no-untyped-def]
    """Write where every voxel points.

    `frame` holds the shape of the whole volume, where in it `points` starts, where in `heights` (and `alive`), and
    where in `affinities`.
    """
    total, start, at, pair = frame
    n_z, n_y, n_x = points.shape
    best = np.empty(n_x, np.uint16)
    for z in range(n_z):
        for y in range(n_y):
            way = points[z, y]
            best[:] = heights[z + at[0], y + at[1], at[2] : at[2] + n_x]
            for channel, sz, sy, sx, az, ay, ax, direction in looks:
                if not (0 <= start[0] + z + sz < total[0] and 0 <= start[1] + y + sy < total[1]):
                    continue
                leaves = not (0 <= z + sz < n_z and 0 <= y + sy < n_y)
                code = np.uint8(direction + _LEAVES * leaves)
                low, high = max(0, -sx - start[2]), min(n_x, total[2] - sx - start[2])
                there = at[2] + sx
                height = heights[z + at[0] + sz, y + at[1] + sy, there + low : there + high]
                living = alive[z + at[0] + sz, y + at[1] + sy, there + low : there + high]
                there = pair[2] + ax
                tie = affinities[channel, z + pair[0] + az, y + pair[1] + ay, there + low : there + high]
                _climb(best[low:high], way[low:high], height, living, tie, least, code)
            way[0] += _LEAVES * (way[0] == 1)
            way[-1] += _LEAVES * (way[-1] == 4)
            _bury(way, alive[z + at[0], y + at[1], at[2] : at[2] + n_x])


@njit(cache=True, nogil=True)
def _climb(best, way, height, living, tie, least, code):  # type: ignore[no-untyped-def]
    """Point to the neighbours that are better than the best so far."""
    if (
        code - 1
    ) % _LEAVES < 3:  # of the two, the neighbour comes first in the volume: it is better if equally high
        for x in range(best.size):
            better = (height[x] >= best[x]) & (tie[x] >= least) & (living[x] != 0)
            best[x] = height[x] if better else best[x]
            way[x] = code if better else way[x]
    else:
        for x in range(best.size):
            better = (height[x] > best[x]) & (tie[x] >= least) & (living[x] != 0)
            best[x] = height[x] if better else best[x]
            way[x] = code if better else way[x]


@njit(cache=True, nogil=True)
def _bury(way, living):  # type: ignore[no-untyped-def]
    for x in range(way.size):
        way[x] = way[x] if living[x] else np.uint8(_DEAD)


@njit(cache=True, nogil=True)
def _trace(points, box, names, out):  # type: ignore[no-untyped-def]
    """Write where the paths from the voxels of a box (start, shape) end or leave; `points` stays as it is."""
    n, steps = _strides(points.shape)
    way, ids = points.reshape(n), out.reshape(out.size)
    (z0, y0, x0), (n_z, n_y, n_x) = box
    k = 0
    for z in range(z0, z0 + n_z):
        for y in range(y0, y0 + n_y):
            for x in range(x0, x0 + n_x):
                j = (z * points.shape[1] + y) * points.shape[2] + x
                while 0 < way[j] <= _LEAVES:
                    j += steps[way[j]]
                ids[k] = 0 if way[j] == _DEAD else _name(j, way[j], points.shape, names)
                k += 1


@njit(cache=True, nogil=True)
def _follow(points, names, exits, tops, out):  # type: ignore[no-untyped-def]
    """Give every voxel the id of where its path ends; `points` is used up.

    A path is walked until it meets one walked before, then once more to write down what it leads to.
    """
    n, steps = _strides(points.shape)
    way, ids = points.reshape(n), out.reshape(n)
    for i in range(n):
        if way[i] == _DEAD:
            ids[i] = 0
            continue
        j = i
        while 0 < way[j] <= _LEAVES:
            j += steps[way[j]]
        if way[j] == _DONE:
            end = ids[j]
        else:
            end = _name(j, way[j], points.shape, names)
            if way[j] != 0 and exits.size:
                k = np.searchsorted(exits, end)
                if k < exits.size and exits[k] == end:
                    end = tops[k]
            ids[j], way[j] = end, _DONE
        j = i
        while way[j] != _DONE:
            step = steps[way[j]]
            ids[j], way[j] = end, _DONE
            j += step


@njit(cache=True, nogil=True)
def _strides(shape):  # type: ignore[no-untyped-def]
    """Return the number of voxels, and how far apart in memory neighbours of each direction are."""
    row, section = shape[2], shape[1] * shape[2]
    return shape[0] * section, np.array([0, -1, -row, -section, 1, row, section])


@njit(cache=True, nogil=True)
def _name(i, way, shape, names):  # type: ignore[no-untyped-def]
    """Return the id of voxel i of an array, or of the one outside that it points to."""
    start, total = names
    section = shape[1] * shape[2]
    z, y, x = start[0] + i // section, start[1] + i % section // shape[2], start[2] + i % shape[2]
    first = (z * total[1] + y) * total[2] + x
    if way > _LEAVES:
        first += _strides(total)[1][way - _LEAVES]
    return np.uint64(1 + first)
