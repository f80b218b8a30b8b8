"""How far patches of one picture are displaced from patches of another, to a small part of a pixel.

The patches lie on each other to a few pixels already. Their cross spectra are added, each frequency divided by the
power it has, and trusted as far as the patches cohere in it (Hannan & Thomson 1973): sections that are far apart
share coarse structures only. The maximum of the correlation, a trigonometric polynomial, is found by Newton's
method. How much the patches disagree gives the error, which therefore knows of stretched and noisy sections
(sandwich estimator: Huber 1967).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
C64 = NDArray[np.complex64]

BAND, SLOW = 0.045, 0.01  # cycles per pixel: finer is what sections do not share, slower is staining
_HIGHEST = 0.36  # cycles per pixel
_RING = 1 / 64
_STEPS, _ROUNDS = 12, 3
_ONE_PATCH = 0.25  # pixels: the error where there is no other patch to compare with


@lru_cache(maxsize=8)
def window(side: int) -> F32:
    """Return a window [side, side] by which a patch fades to its border."""
    line = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(side) + 0.5) / side)
    return np.asarray(np.sqrt(np.outer(line, line)), np.float32)


@njit(cache=True, nogil=True)
def windowed(picture_YX: NDArray[np.int8], window_YX: F32) -> F32:
    """Return a patch times a window; -128, which is void, becomes 0."""
    out = np.zeros(picture_YX.shape, np.float32)
    for y in range(picture_YX.shape[0]):
        for x in range(picture_YX.shape[1]):
            if picture_YX[y, x] != -128:
                out[y, x] = picture_YX[y, x] * window_YX[y, x]
    return out


def settle(one_NYX: F32, other_NYX: F32, reach: float) -> tuple[float, float, float] | None:
    """Return the displacement that patches agree on.

    Args:
        one_NYX: windowed patches, float32 [N, side, side].
        other_NYX: what lies on them: what is at p in one is at p + displacement in the other.
        reach: how far the displacement may be from none, pixels.

    Returns:
        (dy, dx, standard error along an axis), pixels; None where there is no maximum.
    """
    side = one_NYX.shape[-1]
    a, b = _kept(fft.rfft2(one_NYX), side), _kept(fft.rfft2(other_NYX), side)
    cross = np.conj(a) * b
    power = np.sqrt((np.abs(a) ** 2).sum(0) * (np.abs(b) ** 2).sum(0))
    fy, fx, first, rings = _frequencies(side)
    cross /= power + 1e-12
    total = cross.sum(0)
    weight, place = first, _highest(total * first, side, reach)
    for k in range(_ROUNDS):
        moved = _climbed(total * weight, fy, fx, place)
        if moved is None:
            return None
        place = moved
        trust = _coherence(total, rings, fy, fx, *place)
        if k == _ROUNDS - 1 or not trust.any():
            break
        weight = trust[rings] * _halved(side)
    slope, bend = _slopes(cross * weight, fy, fx, *place)
    return place[0], place[1], _error(slope, bend)


def _climbed(total: C64, fy: F32, fx: F32, place: tuple[float, float]) -> tuple[float, float] | None:
    """Return the maximum of the correlation near a place."""
    y, x = place
    for _ in range(_STEPS):
        slope, bend = _slopes(total[None], fy, fx, y, x)
        if not (bend[0] < 0 and bend[1] < 0 and bend[0] * bend[1] > bend[2] ** 2):
            return None
        step = _solved(bend, slope[0])
        y, x = y - min(max(step[0], -1.0), 1.0), x - min(max(step[1], -1.0), 1.0)
        if max(abs(step[0]), abs(step[1])) < 1e-4:
            break
    return y, x


def _kept(spectrum: C64, side: int) -> C64:
    """Return the frequencies that are used: the low ones."""
    high = int(_HIGHEST * side)
    rows = np.r_[0 : high + 1, side - high : side]
    return np.ascontiguousarray(spectrum[:, rows, : high + 1])


@lru_cache(maxsize=8)
def _frequencies(side: int) -> tuple[F32, F32, F32, NDArray[np.int64]]:
    """Return cycles per pixel of the rows and columns that are kept, a first weight, and the ring of each."""
    high = int(_HIGHEST * side)
    fy = np.r_[0 : high + 1, -high:0] / side
    fx = np.arange(high + 1) / side
    square = fy[:, None] ** 2 + fx**2
    weight = np.exp(-square / (2 * BAND**2)) * (1 - np.exp(-square / (2 * SLOW**2))) * _halved(side)
    rings = (np.sqrt(square) / _RING).astype(np.int64)
    return fy.astype(np.float32), fx.astype(np.float32), weight.astype(np.float32), rings


@lru_cache(maxsize=8)
def _halved(side: int) -> F32:
    """Return 1, and 1/2 in the first column: the other half of the plane repeats all but that one."""
    high = int(_HIGHEST * side)
    out = np.ones((2 * high + 1, high + 1), np.float32)
    out[:, 0] = 0.5
    return out


@njit(cache=True, nogil=True)
def _coherence(total: C64, rings: NDArray[np.int64], fy: F32, fx: F32, y: float, x: float) -> F32:
    """Return how much to trust each ring of frequencies: g / (1 - g^2), g being its coherence at a place.

    With cross spectra of unit power this is the weight of maximum likelihood (Hannan & Thomson 1973).
    """
    turn = 2 * np.pi
    along = np.exp(1j * turn * fx * x).astype(np.complex64)
    count = np.zeros(rings.max() + 1)
    found = np.zeros(rings.max() + 1)
    for r in range(fy.size):
        down = np.complex64(np.exp(1j * turn * fy[r] * y))
        for c in range(fx.size):
            found[rings[r, c]] += (total[r, c] * along[c] * down).real
            count[rings[r, c]] += 1.0
    out = np.zeros(found.size, np.float32)
    for k in range(1, found.size):
        share = min(found[k] / max(count[k], 1.0), 0.98)
        square = share * share - 1.0 / max(count[k], 1.0)
        if share > 0 and square > 0:
            out[k] = np.sqrt(square) / (1.0 - square)
    return out


def _highest(total: C64, side: int, reach: float) -> tuple[float, float]:
    """Return the pixel where the correlation is highest, at most `reach` from none."""
    high = int(_HIGHEST * side)
    full = np.zeros((side, side // 2 + 1), np.complex64)
    full[np.r_[0 : high + 1, side - high : side], : high + 1] = total
    full[:, 0] *= 2
    near = np.arange(-int(reach), int(reach) + 1)
    surface = fft.irfft2(full, s=(side, side))[np.ix_(near, near)]
    y, x = divmod(int(np.argmax(surface)), near.size)
    return float(near[y]), float(near[x])


@njit(cache=True, nogil=True)
def _slopes(cross: C64, fy: F32, fx: F32, y: float, x: float) -> tuple[F64, F64]:
    """Return the slope of every patch's correlation at a place [N, 2], and the second derivatives of all.

    The latter are (yy, xx, yx).
    """
    turn = 2 * np.pi
    along = np.exp(1j * turn * fx * x).astype(np.complex64)
    slope, bend = np.zeros((cross.shape[0], 2)), np.zeros(3)
    for n in range(cross.shape[0]):
        for r in range(fy.size):
            down = np.complex64(np.exp(1j * turn * fy[r] * y))
            value, first, second, third = 0.0, 0.0, 0.0, 0.0
            imaginary = 0.0
            for c in range(fx.size):
                term = cross[n, r, c] * along[c] * down
                value += term.real
                imaginary += term.imag
                first += fx[c] * term.imag
                second += fx[c] * term.real
                third += fx[c] * fx[c] * term.real
            slope[n, 0] -= turn * fy[r] * imaginary
            slope[n, 1] -= turn * first
            bend[0] -= turn * turn * fy[r] * fy[r] * value
            bend[1] -= turn * turn * third
            bend[2] -= turn * turn * fy[r] * second
    return slope, bend


def _solved(bend: F64, slope: F64) -> F64:
    matrix = np.array([[bend[0], bend[2]], [bend[2], bend[1]]])
    return np.asarray(np.linalg.solve(matrix, slope))


def _error(slope: F64, bend: F64) -> float:
    """Return the standard error along an axis from how the patches pull at the place they agree on."""
    count = len(slope)
    steps = np.stack([_solved(bend, s) for s in slope])
    spread = np.sqrt((steps**2).sum() / 2 * count / max(1, count - 1))
    return float(spread) if count > 1 else _ONE_PATCH


__all__ = ["BAND", "SLOW", "settle", "window", "windowed"]
