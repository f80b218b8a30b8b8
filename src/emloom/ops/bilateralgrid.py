"""Sums over all voxels, near in space and alike in grey level, by a coarse grid of both: the bilateral grid.

Chen, Paris and Durand 2007 (doi:10.1145/1276377.1276506); here with symmetric interpolation, so that what it
computes is a symmetric matrix times the values::

    out_i  =  sum over voxels j of  k_ij values_j
    k_ij  ~=  exp(-1/2 sum over axes ((i_a - j_a) / sigma_a)^2  -  1/2 ((I_i - I_j) / sigma_I)^2)

    splat    every voxel adds its value to the 16 vertices around it in (z, y, x, I), by quadrilinear weights
    blur     a Gaussian along each of the four axes of the grid
    slice    every voxel reads its 16 vertices, by the same weights

Vertices lie every `step` standard deviations. Splat and slice widen a kernel by 1/6 of a squared vertex each, on
average over where voxels lie between vertices; the blur is as much narrower: its variance is ``1/step^2 - 1/3``.
The taps of an axis sum to ``sqrt(2 pi) / step``, the integral of the Gaussian whose peak is 1.

* Along a spatial axis of less than `VOXELWISE` voxels, every voxel is a vertex of its own: exact there.
* Vertices stand at multiples of their distance in *absolute* voxels and grey levels, and every sum has one order,
  so results do not depend on where a block begins, nor on the number of threads. A crop with `reach_vox` around it
  gives the bits of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import ceil, pi, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.ops.blur import blur, gaussian_taps
from emloom.ops.threads import each

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]

STEP = 0.75
"""Vertices lie this many standard deviations apart; the error against the definition grows with its square."""
VOXELWISE = 1.5
"""Standard deviations, in voxels, below which the grid is as fine as the voxels along an axis."""
_BLUR_SIGMAS = 3.3  # what the blur leaves out then is far below the error of the interpolation
_CONTRACT = {"contract", "nsz"}


@dataclass(frozen=True)
class _Axis:
    """Where voxels of one spatial axis lie between vertices.

    Attributes:
        first: absolute number of the first vertex.
        below: int32 [n], the vertex at or below each voxel, counted from `first`.
        above: float32 [n], weight of the vertex after that.
        taps: of the blur.
    """

    first: int
    below: I32
    above: F32
    taps: F32

    @property
    def vertices(self) -> int:
        """How many the grid needs."""
        return int(self.below[-1]) + 2


def _vertex_taps(step: float) -> F32:
    sigma = sqrt(1 / step**2 - 1 / 3)
    taps = gaussian_taps(sigma, sigmas=_BLUR_SIGMAS).astype(np.float64)
    scaled: F32 = (taps * (sqrt(2 * pi) / step / (taps[0] + 2 * taps[1:].sum()))).astype(np.float32)
    return scaled


def _axis(start: int, n: int, sigma: float, step: float) -> _Axis:
    voxelwise = sigma < VOXELWISE
    at = np.arange(start, start + n) / (1.0 if voxelwise else step * sigma)
    below = np.floor(at)
    first = int(below[0])
    taps = gaussian_taps(sigma, sigmas=4.5) if voxelwise else _vertex_taps(step)
    return _Axis(first, (below - first).astype(np.int32), (at - below).astype(np.float32), taps)


def grid_reach_vox(sigma_vox: Sequence[float], step: float = STEP) -> Vec:
    """Return how far (z, y, x) a voxel's sum looks."""
    blurred = _vertex_taps(step).size - 1
    reach = [
        gaussian_taps(s, sigmas=4.5).size - 1 if s < VOXELWISE else ceil((blurred + 1) * step * s)
        for s in sigma_vox
    ]
    return (reach[0], reach[1], reach[2])


class BilateralGrid:
    """The sums of one raw volume.

    Args:
        raw_ZYX: grey levels, any real numbers; float32 precision.
        sigma_vox: standard deviation along z, y, x, in voxels.
        sigma_intensity: standard deviation in grey levels.
        step: standard deviations from vertex to vertex, 0.25 to 1.
        start: absolute voxel at which the array begins.
        threads: how many work.
    """

    def __init__(
        self,
        raw_ZYX: NDArray[Any],
        sigma_vox: Vec3,
        sigma_intensity: float,
        *,
        step: float = STEP,
        start: Vec = (0, 0, 0),
        threads: int = 1,
    ) -> None:
        self._threads = threads
        self._axes = tuple(
            _axis(s, n, sigma, step) for s, n, sigma in zip(start, raw_ZYX.shape, sigma_vox, strict=True)
        )
        level = raw_ZYX.astype(np.float64) / (step * sigma_intensity)
        below = np.floor(level)
        self._above: F32 = (level - below).astype(np.float32)
        lowest = below.min()
        self._below: I32 = (below - lowest).astype(np.int32)
        self._level_taps = _vertex_taps(step)
        z, y, x = (axis.vertices for axis in self._axes)
        self._shape = (z, y, x, int(self._below.max()) + 2)
        self._grid: F32 = np.empty((*self._shape, 0), np.float32)  # kept: new memory costs as much as the sums

    def add(self, values_ZYXW: F32, norm_ZYX: F32, scale: float, out_ZYXW: F32) -> None:
        """Add ``scale norm_i (sum over j != i of k_ij norm_j values_j)`` to `out`.

        Args:
            values_ZYXW: float32, C-contiguous, channels last.
            norm_ZYX: float32; voxels where it is 0 neither give nor take.
            scale: of everything.
            out_ZYXW: changed in place.
        """
        width = values_ZYXW.shape[-1]
        if self._grid.shape[-1] != width:
            self._grid = np.empty((*self._shape, width), np.float32)
        grid = self._grid
        grid[...] = 0
        z, y, x = self._axes
        voxels = (norm_ZYX, self._below, self._above)
        like = (0,) * width
        splat = partial(_run, _splat, (values_ZYXW, *voxels), self._axes, grid, (like,))
        layers = self._layers()
        for parity in (0, 1):  # layers of one parity share no vertex
            each(splat, [layer for layer in layers if layer[0] % 2 == parity], self._threads)
        for k, taps in enumerate((z.taps, y.taps, x.taps, self._level_taps)):
            blur(grid, k, taps, self._threads)
        diagonal = tuple(_diagonal(axis) for axis in self._axes)
        own = (diagonal, self._level_taps, np.float32(scale), like)
        take = partial(_run, _slice, (values_ZYXW, *voxels, out_ZYXW), self._axes, grid, own)
        each(take, layers, self._threads)

    def _layers(self) -> list[tuple[int, int, int]]:
        """Return (absolute vertex, first section, last + 1) of the sections between two vertices of z."""
        z = self._axes[0]
        cuts = np.flatnonzero(np.diff(z.below, prepend=-1, append=z.below[-1] + 1))
        return [(z.first + int(z.below[a]), int(a), int(b)) for a, b in pairwise(cuts)]


def _diagonal(axis: _Axis) -> F32:
    """Return what one axis contributes to k_ii, float32 [n]."""
    return _own(axis.above, axis.taps)


def _own(above: F32, taps: F32) -> F32:
    near, far = above, 1 - above
    beside = taps[1] if taps.size > 1 else np.float32(0)
    return np.asarray(taps[0] * (near * near + far * far) + 2 * beside * near * far, np.float32)


def _run(
    kernel: Any,
    voxels: tuple[Any, ...],
    axes: tuple[_Axis, ...],
    grid: F32,
    more: tuple[Any, ...],
    layer: tuple[int, int, int],
) -> None:
    z, y, x = axes
    places = (z.below, z.above, y.below, y.above, x.below, x.above)
    kernel(*voxels, *places, grid, *more, layer[1], layer[2])


@njit(cache=True, nogil=True, fastmath=_CONTRACT)
def _splat(  # noqa: PLR0913 (a kernel takes arrays, not objects)
    values: F32,
    norm: F32,
    below: I32,
    above: F32,
    z_below: I32,
    z_above: F32,
    y_below: I32,
    y_above: F32,
    x_below: I32,
    x_above: F32,
    grid: F32,
    like: tuple[int, ...],
    first: int,
    last: int,
) -> None:
    """Add sections first .. last, all between the same two vertices of z, to the grid: into a plane, then up."""
    W = len(like)  # known when it is compiled, so the loops over it become vectors
    _, Y, X = norm.shape
    along_x = grid.shape[3] * W
    along_y = grid.shape[2] * along_x
    plane = np.empty(grid.shape[1] * along_y, np.float32)
    flat = values.reshape(-1)
    bottom, top = grid[z_below[first]].reshape(-1), grid[z_below[first] + 1].reshape(-1)
    for z in range(first, last):
        plane[:] = 0
        for y in range(Y):
            row = y_below[y] * along_y
            wy = y_above[y]
            for x in range(X):
                n = norm[z, y, x]
                if n == 0:
                    continue
                wx = x_above[x] * n
                w11, w01 = wy * wx, wx - wy * wx
                w10, w00 = wy * (n - wx), (n - wx) - wy * (n - wx)
                f = above[z, y, x]
                p00 = row + x_below[x] * along_x + below[z, y, x] * W
                p01, p10, p11 = p00 + along_x, p00 + along_y, p00 + along_y + along_x
                v = ((z * Y + y) * X + x) * W
                for c in range(W):
                    upper = flat[v + c] * f
                    lower = flat[v + c] - upper
                    plane[p00 + c] += w00 * lower
                    plane[p00 + W + c] += w00 * upper
                    plane[p01 + c] += w01 * lower
                    plane[p01 + W + c] += w01 * upper
                    plane[p10 + c] += w10 * lower
                    plane[p10 + W + c] += w10 * upper
                    plane[p11 + c] += w11 * lower
                    plane[p11 + W + c] += w11 * upper
        f = z_above[z]
        for i in range(plane.size):
            upper = plane[i] * f
            bottom[i] += plane[i] - upper
            top[i] += upper


@njit(cache=True, nogil=True, fastmath=_CONTRACT)
def _slice(  # noqa: PLR0913 (a kernel takes arrays, not objects)
    values: F32,
    norm: F32,
    below: I32,
    above: F32,
    out: F32,
    z_below: I32,
    z_above: F32,
    y_below: I32,
    y_above: F32,
    x_below: I32,
    x_above: F32,
    grid: F32,
    own: tuple[F32, F32, F32],
    taps: F32,
    scale: np.float32,
    like: tuple[int, ...],
    first: int,
    last: int,
) -> None:
    """Add to sections first .. last what they read from the grid, without what they gave it themselves."""
    W = len(like)
    _, Y, X = norm.shape
    along_x = grid.shape[3] * W
    along_y = grid.shape[2] * along_x
    plane = np.empty(grid.shape[1] * along_y, np.float32)
    flat, flat_out = values.reshape(-1), out.reshape(-1)
    bottom, top = grid[z_below[first]].reshape(-1), grid[z_below[first] + 1].reshape(-1)
    one = np.float32(1)
    for z in range(first, last):
        f = z_above[z]
        for i in range(plane.size):
            plane[i] = bottom[i] + f * (top[i] - bottom[i])
        for y in range(Y):
            row = y_below[y] * along_y
            wy = y_above[y]
            for x in range(X):
                n = norm[z, y, x]
                if n == 0:
                    continue
                wx = x_above[x]
                w11, w01 = wy * wx, wx - wy * wx
                w10, w00 = wy * (one - wx), (one - wx) - wy * (one - wx)
                f = above[z, y, x]
                mine = taps[0] * (f * f + (one - f) * (one - f)) + 2 * taps[1] * f * (one - f)
                mine *= own[0][z] * own[1][y] * own[2][x] * n
                p00 = row + x_below[x] * along_x + below[z, y, x] * W
                p01, p10, p11 = p00 + along_x, p00 + along_y, p00 + along_y + along_x
                v = ((z * Y + y) * X + x) * W
                n *= scale
                for c in range(W):
                    lower = w00 * plane[p00 + c] + w01 * plane[p01 + c]
                    lower += w10 * plane[p10 + c] + w11 * plane[p11 + c]
                    upper = w00 * plane[p00 + W + c] + w01 * plane[p01 + W + c]
                    upper += w10 * plane[p10 + W + c] + w11 * plane[p11 + W + c]
                    flat_out[v + c] += n * (lower + f * (upper - lower) - mine * flat[v + c])
