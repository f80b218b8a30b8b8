"""Sums over all other voxels, weighted by how near and how alike they are: the kernels of a fully connected CRF.

A kernel is a symmetric matrix over the voxels, 1 on its diagonal::

    spatial      k_ij = exp(-1/2 sum over axes ((i_a - j_a) / sigma_a)^2)
    bilateral    k_ij = the same times exp(-1/2 ((I_i - I_j) / sigma_I)^2)

`PairSums` multiplies by the kernel normalised as Krähenbühl and Koltun do (arXiv:1210.5644; "symmetric"), without
its diagonal: a voxel does not speak to itself::

    N_i = 1 + sum over j != i of k_ij          out_i = sum over j != i of  k_ij / sqrt(N_i N_j)  values_j

Three ways compute a kernel. Spatial: one sum per axis, to 5 standard deviations. Bilateral: by `BilateralGrid`,
or, where every sigma is below `VOXELWISE` voxels and a grid would be larger than the volume, voxel by voxel in a
window of 3 standard deviations. Which is a matter of the sigmas alone, so every block of a volume does the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.ops.bilateralgrid import STEP, VOXELWISE, BilateralGrid, grid_reach_vox
from emloom.ops.blur import blur, gaussian_taps
from emloom.ops.threads import each, ranges

Array = NDArray[Any]
F32 = NDArray[np.float32]

_WINDOW_SIGMAS = 3.0
_CONTRACT = {"contract", "nsz"}


@dataclass(frozen=True)
class Kernel:
    """One kernel of a fully connected CRF.

    Args:
        sigma_vox: standard deviation along z, y, x, in voxels.
        weight: of its messages.
        sigma_intensity: standard deviation in grey levels; None: a spatial kernel.
        step: standard deviations from vertex to vertex of the bilateral grid, 0.25 to 1.

    Raises:
        InputError: a sigma is not positive, a weight is negative, or the step is out of its range.
    """

    sigma_vox: Vec3
    weight: float = 1.0
    sigma_intensity: float | None = None
    step: float = STEP

    def __post_init__(self) -> None:
        sigmas = [*self.sigma_vox] if self.sigma_intensity is None else [*self.sigma_vox, self.sigma_intensity]
        if not all(0 < s < float("inf") for s in sigmas):
            raise InputError(f"standard deviations {sigmas} of a kernel: each is a finite number above 0")
        if not 0 <= self.weight < float("inf"):
            raise InputError(f"weight {self.weight} of a kernel is not 0 or more: what repels is a penalty of 0")
        if not 0.25 <= self.step <= 1:
            raise InputError(f"step {self.step} of a bilateral grid is not within 0.25 and 1 standard deviations")

    @property
    def windowed(self) -> bool:
        """Whether a bilateral kernel is computed voxel by voxel."""
        return max(self.sigma_vox) < VOXELWISE

    @property
    def reach_vox(self) -> Vec:
        """How far (z, y, x) a voxel's sum looks."""
        if self.sigma_intensity is not None and not self.windowed:
            return grid_reach_vox(self.sigma_vox, self.step)
        sigmas = 5.0 if self.sigma_intensity is None else _WINDOW_SIGMAS
        z, y, x = (ceil(sigmas * s) for s in self.sigma_vox)
        return (z, y, x)


class _Sums(Protocol):
    """Adds ``scale norm_i (sum over j != i of k_ij norm_j values_j)`` to `out`; arrays as `BilateralGrid.add`."""

    def add(self, values_ZYXW: F32, norm_ZYX: F32, scale: float, out_ZYXW: F32) -> None: ...


class PairSums:
    """A normalised kernel over the voxels of one volume.

    Args:
        kernel: which.
        raw_ZYX: grey levels; only its shape matters to a spatial kernel.
        known_ZYX: bool; other voxels neither send nor receive.
        start: absolute voxel at which the array begins.
        width: channels of what is summed, a multiple of 4.
        threads: how many work; the bits do not depend on it.
    """

    def __init__(
        self, kernel: Kernel, raw_ZYX: Array, known_ZYX: NDArray[np.bool_], start: Vec, width: int, threads: int
    ) -> None:
        self.kernel = kernel
        self._sums = _sums_of(kernel, raw_ZYX, start, threads)
        known = known_ZYX.astype(np.float32)
        ones = np.zeros((*known.shape, width), np.float32)
        ones[..., 0] = known
        beside = np.zeros_like(ones)
        self._sums.add(ones, known, 1.0, beside)
        self._norm: F32 = known / np.sqrt(1 + beside[..., 0])

    def add(self, values_ZYXW: F32, out_ZYXW: F32) -> None:
        """Add the kernel's weight times the normalised sums to `out`; float32, C-contiguous, channels last."""
        if self.kernel.weight > 0:
            self._sums.add(values_ZYXW, self._norm, self.kernel.weight, out_ZYXW)


def _sums_of(kernel: Kernel, raw: Array, start: Vec, threads: int) -> _Sums:
    if kernel.sigma_intensity is None:
        return _Spatial(kernel.sigma_vox, threads)
    if kernel.windowed:
        return _Window(raw, kernel.sigma_vox, kernel.sigma_intensity, threads)
    return BilateralGrid(
        raw, kernel.sigma_vox, kernel.sigma_intensity, step=kernel.step, start=start, threads=threads
    )


class _Spatial:
    """Sums weighted by distance only."""

    def __init__(self, sigma_vox: Sequence[float], threads: int) -> None:
        self._taps = [gaussian_taps(s) for s in sigma_vox]
        self._blurred: F32 = np.empty((0, 0, 0, 0), np.float32)  # kept: new memory costs as much as the sums
        self._threads = threads

    def add(self, values_ZYXW: F32, norm_ZYX: F32, scale: float, out_ZYXW: F32) -> None:
        if self._blurred.shape != values_ZYXW.shape:
            self._blurred = np.empty_like(values_ZYXW)
        blurred = np.multiply(values_ZYXW, norm_ZYX[..., None], out=self._blurred)
        for axis, taps in enumerate(self._taps):
            blur(blurred, axis, taps, self._threads)
        work = partial(_take_range, blurred, values_ZYXW, norm_ZYX, np.float32(scale), out_ZYXW)
        each(work, ranges(len(norm_ZYX), self._threads), self._threads)


def _take_range(sums: F32, values: F32, norm: F32, scale: np.float32, out: F32, piece: tuple[int, int]) -> None:
    _take(sums, values, norm, scale, out, *piece)


@njit(cache=True, nogil=True, fastmath=_CONTRACT)
def _take(sums: F32, values: F32, norm: F32, scale: np.float32, out: F32, first: int, last: int) -> None:
    _, Y, X, W = values.shape
    for z in range(first, last):
        for y in range(Y):
            for x in range(X):
                n = norm[z, y, x]
                for c in range(W):
                    out[z, y, x, c] += scale * n * (sums[z, y, x, c] - n * values[z, y, x, c])


class _Window:
    """Bilateral sums, voxel by voxel."""

    def __init__(self, raw: Array, sigma_vox: Sequence[float], sigma_intensity: float, threads: int) -> None:
        self._levels = (raw / np.float64(sigma_intensity)).astype(np.float32)
        self._taps = [gaussian_taps(s, sigmas=_WINDOW_SIGMAS) for s in sigma_vox]
        self._threads = threads

    def add(self, values_ZYXW: F32, norm_ZYX: F32, scale: float, out_ZYXW: F32) -> None:
        given = values_ZYXW * norm_ZYX[..., None]
        z, y, x = self._taps
        like = (0,) * values_ZYXW.shape[-1]
        fixed = (given, norm_ZYX, self._levels, z, y, x, np.float32(scale), out_ZYXW, like)
        each(partial(_window_range, fixed), ranges(len(norm_ZYX), 4 * self._threads), self._threads)


def _window_range(fixed: tuple[Any, ...], piece: tuple[int, int]) -> None:
    kernel: Any = _window
    kernel(*fixed, *piece)


@njit(cache=True, nogil=True, fastmath=_CONTRACT)
def _window(  # noqa: C901, PLR0913 (a kernel takes arrays, not objects)
    given: F32,
    norm: F32,
    levels: F32,
    z_taps: F32,
    y_taps: F32,
    x_taps: F32,
    scale: np.float32,
    out: F32,
    like: tuple[int, ...],
    first: int,
    last: int,
) -> None:
    W = len(like)  # known when it is compiled, so the loops over it become vectors
    Z, Y, X = norm.shape
    rz, ry, rx = z_taps.size - 1, y_taps.size - 1, x_taps.size - 1
    sums, weights = np.empty(X * W, np.float32), np.empty(X, np.float32)
    one, half, sixth, part, most = (
        np.float32(1),
        np.float32(1 / 2),
        np.float32(1 / 6),
        np.float32(1 / 64),
        np.float32(16),
    )
    for z in range(first, last):
        for y in range(Y):
            sums[:] = 0
            for dz in range(max(-rz, -z), min(rz, Z - 1 - z) + 1):
                for dy in range(max(-ry, -y), min(ry, Y - 1 - y) + 1):
                    near = z_taps[abs(dz)] * y_taps[abs(dy)]
                    here, there = levels[z, y], levels[z + dz, y + dy]
                    source = given[z + dz, y + dy].reshape(-1)
                    for dx in range(-rx, rx + 1):
                        if dx == 0 and dy == 0 and dz == 0:
                            continue
                        start, stop = max(0, -dx), min(X, X - dx)
                        tap = near * x_taps[abs(dx)]
                        for x in range(start, stop):
                            apart = here[x] - there[x + dx]
                            t = part * min(half * apart * apart, most)
                            w = one - t * (one - t * (half - t * sixth))  # exp(-t), to be taken to the power of 64
                            w *= w
                            w *= w
                            w *= w
                            w *= w
                            w *= w
                            weights[x] = tap * w * w
                        shift = dx * W
                        for x in range(start, stop):
                            for c in range(W):
                                sums[x * W + c] += weights[x] * source[x * W + shift + c]
            for x in range(X):
                for c in range(W):
                    out[z, y, x, c] += scale * norm[z, y, x] * sums[x * W + c]
