"""Random textures of artifacts: smooth noise as a function of a place in nm, and grain like a detector's.

Gradient noise (Perlin 1985, doi:10.1145/325165.325247) on a fixed periodic lattice of unit vectors, made once and
the same everywhere. What differs between artifacts is where in the lattice they look: a seed gives the place. So a
texture needs no random numbers per voxel, and the same artifact looks alike at any voxel size.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Spacing = tuple[float, float]
"""Voxel size (y, x), nm."""


class Painted(NamedTuple):
    """A section with an artifact.

    Attributes:
        image: float32 ``[Y, X]``, without the noise a detector would have added to what was painted.
        cover: float32 ``[Y, X]``, 0 to 1: which share of a voxel's own noise (its variance) is gone.
        tissue: float32 ``[Y, X]``: the tissue moved, but not damaged; the section itself where nothing moves.
    """

    image: F32
    cover: F32
    tissue: F32


_LATTICE = 256  # a power of two: the period of the noise in cells
_KEY = 19850722  # any constant
_NORM = 1.5  # brings a single octave to about [-1, 1]


@cache
def lattice() -> F32:
    """Return the unit vectors of the lattice, float32 ``[256, 256, 2]``; never change them."""
    angle = np.random.Generator(np.random.Philox(_KEY)).uniform(0.0, 2.0 * np.pi, (_LATTICE, _LATTICE))
    out: F32 = np.stack([np.sin(angle), np.cos(angle)], axis=-1).astype(np.float32)
    out.flags.writeable = False
    return out


def places(seed: int, count: int) -> F64:
    """Return where `count` textures of an artifact look in the lattice, ``[count, 2]`` in cells."""
    return np.random.Generator(np.random.Philox(seed)).uniform(0.0, _LATTICE, (count, 2))


@njit(cache=True, nogil=True, inline="always")
def _gradient_noise(y, x, table):  # type: ignore[no-untyped-def]
    """Return one octave at a place in cells, about [-1, 1], mean 0."""
    fy, fx = np.floor(y), np.floor(x)
    iy, ix = int(fy) & 255, int(fx) & 255
    jy, jx = (iy + 1) & 255, (ix + 1) & 255
    ty, tx = y - fy, x - fx
    wy = ty * ty * ty * (ty * (ty * 6.0 - 15.0) + 10.0)
    wx = tx * tx * tx * (tx * (tx * 6.0 - 15.0) + 10.0)
    a = table[iy, ix, 0] * ty + table[iy, ix, 1] * tx
    b = table[iy, jx, 0] * ty + table[iy, jx, 1] * (tx - 1.0)
    c = table[jy, ix, 0] * (ty - 1.0) + table[jy, ix, 1] * tx
    d = table[jy, jx, 0] * (ty - 1.0) + table[jy, jx, 1] * (tx - 1.0)
    top = a + wx * (b - a)
    return 1.5 * (top + wy * (c + wx * (d - c) - top))


@njit(cache=True, nogil=True)
def noise_at(y, x, octaves, place, table):  # type: ignore[no-untyped-def]
    """Return fractal noise at a place in cells of the first octave; each is twice as fine, half as strong."""
    total, weight, norm, scale = 0.0, 1.0, 0.0, 1.0
    for k in range(octaves):
        total += weight * _gradient_noise(y * scale + place[0] + 17.3 * k, x * scale + place[1] + 5.9 * k, table)
        norm += weight
        weight *= 0.5
        scale *= 2.0
    return total / norm


@njit(cache=True, nogil=True)
def profile(t, cell, octaves, place, table):  # type: ignore[no-untyped-def]
    """Return noise along a line at positions `t` (nm), float64 of the same length, about [-1, 1]."""
    out = np.empty(t.size)
    for i in range(t.size):
        out[i] = noise_at(0.0, t[i] / cell, octaves, place, table)
    return out


def noise_image(
    shape: Sequence[int], spacing_nm: Spacing, cell_nm: tuple[float, float], octaves: int, place: F64
) -> F32:
    """Return fractal noise on a section, float32 ``[Y, X]`` of about [-1, 1], mean 0.

    Args:
        shape: of the section.
        spacing_nm: voxel size (y, x).
        cell_nm: size (y, x) of the first octave's structures; unequal ones give streaks.
        octaves: each is twice as fine and half as strong as the one before.
        place: ``[2]``, see `places`.
    """
    step = (spacing_nm[0] / cell_nm[0], spacing_nm[1] / cell_nm[1])
    out: F32 = _fill(np.empty((shape[0], shape[1]), np.float32), step, octaves, place, lattice())
    return out


@njit(cache=True, nogil=True)
def _fill(out, step, octaves, place, table):  # type: ignore[no-untyped-def]
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            out[y, x] = noise_at(y * step[0], x * step[1], octaves, place, table)
    return out
