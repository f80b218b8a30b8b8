"""How far one picture is displaced from another, to a small part of a pixel, from where that is known roughly.

Both pictures' spectra are multiplied; turned by the rough displacement, what is left of the product turns slowly
with frequency, so it is summed over blocks of frequencies. That is a window of some 64 pixels around the rough
displacement, and it leaves a hundredth of the numbers. Each block is divided by the power in it, which leaves the
coherence there, and trusted as far as its ring of frequencies coheres (maximum likelihood: Hannan & Thomson 1973):
sections that are far apart share coarse structures only. The maximum of the correlation, which is a trigonometric
polynomial, is found by Newton's method; its likelihood gives the error.
"""

from __future__ import annotations

from math import hypot, sqrt

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
C64 = NDArray[np.complex64]
C128 = NDArray[np.complex128]

BAND, SLOW = 0.045, 0.01  # cycles per pixel: finer is what sections do not share, slower is staining
_HIGHEST = 0.36  # cycles per pixel
_WINDOW = 64  # pixels
_RING = 1 / 64
_STEPS, _ROUNDS, _TURNS = 12, 3, 3
_LEAST_ERROR = 0.01  # pixels


def low_frequencies(picture_YX: F32) -> C64:
    """Return the part of a picture's spectrum that `settle` looks at.

    Args:
        picture_YX: mean 0, faded at its edges.

    Returns:
        complex64 [2 H + 1, K]: rows of frequency -H to H, columns 1 to K, in waves per side.
    """
    rows, columns = picture_YX.shape
    high, wide = int(_HIGHEST * rows), int(_HIGHEST * columns)
    half = fft.rfft(picture_YX, axis=1)[:, 1 : wide + 1]
    full = fft.fft(half, axis=0)
    return np.concatenate([full[rows - high :], full[: high + 1]]).astype(np.complex64)


def settle(
    a: C64, b: C64, sides: tuple[int, int], start: tuple[float, float], reach: float, share: float
) -> tuple[float, float, float] | None:
    """Return the displacement of one picture from another.

    Args:
        a: `low_frequencies` of the first picture.
        b: of the second; what is at p in the first is at p + displacement in the second.
        sides: (Y, X) of the pictures.
        start: about where the displacement is, (dy, dx) pixels.
        reach: how far it may be from there, pixels.
        share: part of the pictures that is on both.

    Returns:
        (dy, dx, standard error along an axis), pixels; None where there is no maximum.
    """
    at, error = start, 0.0
    for turn in range(_TURNS):
        coherence, fy, fx, count = _blocks(a, b, sides, at)
        found = _maximum(coherence, fy, fx, count * share, reach if turn == 0 else 0.0)
        if found is None:
            return None
        at, error = (at[0] + found[0], at[1] + found[1]), found[2]
        if hypot(at[0] - start[0], at[1] - start[1]) > reach + 1:
            return None
        if turn and max(abs(found[0]), abs(found[1])) < 0.02:
            break
    return at[0], at[1], error


def _blocks(a: C64, b: C64, sides: tuple[int, int], at: tuple[float, float]) -> tuple[C128, F64, F64, F64]:
    """Return the coherence in blocks of frequencies, turned back by a displacement, and where the blocks are."""
    size = tuple(max(1, round(n / _WINDOW)) for n in sides)
    cross, one, other, count, fy, fx = _summed(a, b, size[0], size[1], at[0] / sides[0], at[1] / sides[1])
    power = np.sqrt(one * other)
    coherence = np.where(power > 0, cross / np.where(power > 0, power, 1), 0)
    return coherence, fy / sides[0], fx / sides[1], count


@njit(cache=True, nogil=True)
def _summed(a: C64, b: C64, rows: int, columns: int, y: float, x: float) -> tuple[C128, F64, F64, F64, F64, F64]:
    high, wide = a.shape[0] // 2, a.shape[1]
    shape = (-(-a.shape[0] // rows), -(-wide // columns))
    cross = np.zeros(shape, np.complex128)
    one, other, count = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    turn = 2j * np.pi
    along = np.exp(turn * x * np.arange(1, wide + 1)).astype(np.complex64)
    for r in range(a.shape[0]):
        down = np.complex64(np.exp(turn * y * (r - high)))
        for block in range(shape[1]):
            total, p, q = np.complex64(0), np.float32(0), np.float32(0)
            last = min(wide, (block + 1) * columns)
            for c in range(block * columns, last):
                u, v = a[r, c], b[r, c]
                total += np.conj(u) * v * along[c]
                p += u.real * u.real + u.imag * u.imag
                q += v.real * v.real + v.imag * v.imag
            cross[r // rows, block] += total * down
            one[r // rows, block] += p
            other[r // rows, block] += q
            count[r // rows, block] += last - block * columns
    fy, fx = np.zeros(shape[0]), np.zeros(shape[1])
    for k in range(shape[0]):
        fy[k] = (k * rows + min((k + 1) * rows, a.shape[0]) - 1) / 2 - high
    for k in range(shape[1]):
        fx[k] = (k * columns + min((k + 1) * columns, wide) - 1) / 2 + 1
    return cross, one, other, count, fy, fx


def _maximum(coherence: C128, fy: F64, fx: F64, count: F64, reach: float) -> tuple[float, float, float] | None:
    """Return where the correlation has its maximum, (y, x), and the standard error."""
    square = np.square(fy)[:, None] + np.square(fx)
    rings = (np.sqrt(square) / _RING).astype(np.int64)
    weight = count * np.exp(-square / (2 * BAND**2)) * (1 - np.exp(-square / (2 * SLOW**2)))
    place = _highest(coherence * weight, fy, fx, int(np.ceil(reach)))
    trust = np.zeros(0)
    for k in range(_ROUNDS):
        moved = _climbed(coherence * weight, fy, fx, place)
        if moved is None:
            return None
        place = moved
        trust = _trusted(coherence, rings, fy, fx, count, place)
        if k == _ROUNDS - 1 or not trust.any():
            break
        weight = count * (trust / (1 - np.square(trust)))[rings]
    known = 2 * count * (np.square(trust) / (1 - np.square(trust)))[rings]
    steep = (2 * np.pi) ** 2 * min((known.sum(1) * fy**2).sum(), (known.sum(0) * fx**2).sum())
    return (place[0], place[1], max(_LEAST_ERROR, 1 / sqrt(steep))) if steep > 0 else None


def _trusted(
    coherence: C128, rings: NDArray[np.int64], fy: F64, fx: F64, count: F64, place: tuple[float, float]
) -> F64:
    """Return the coherence of each ring of frequencies at a displacement, less what chance shows; 0 to 0.99."""
    turned = coherence * np.exp(2j * np.pi * fy * place[0])[:, None] * np.exp(2j * np.pi * fx * place[1])
    size = np.bincount(rings.ravel(), count.ravel())
    found = np.bincount(rings.ravel(), (turned.real * count).ravel()) / np.maximum(size, 1e-9)
    chance = 2.0 / np.maximum(size, 1e-9)
    out: F64 = np.sqrt(np.maximum(np.square(np.clip(found, 0, 0.99)) - chance, 0))
    return out


@njit(cache=True, nogil=True)
def _highest(weighted: C128, fy: F64, fx: F64, reach: int) -> tuple[float, float]:
    """Return the whole displacement, at most `reach` from none, at which the correlation is highest."""
    turn = 2j * np.pi
    best, y, x = -np.inf, 0, 0
    for i in range(-reach, reach + 1):
        row = np.zeros(fx.size, np.complex128)
        for r in range(fy.size):
            row += weighted[r] * np.exp(turn * fy[r] * i)
        for j in range(-reach, reach + 1):
            height = (row * np.exp(turn * fx * j)).real.sum()
            if height > best:
                best, y, x = height, i, j
    return float(y), float(x)


def _climbed(weighted: C128, fy: F64, fx: F64, place: tuple[float, float]) -> tuple[float, float] | None:
    """Return the maximum of the correlation near a place."""
    y, x = place
    for _ in range(_STEPS):
        dy, dx, yy, xx, yx = _slopes(weighted, fy, fx, y, x)
        size = yy * xx - yx * yx
        if not (yy < 0 and xx < 0 and size > 0):
            return None
        step = (xx * dy - yx * dx) / size, (yy * dx - yx * dy) / size
        y, x = y - min(max(step[0], -1.0), 1.0), x - min(max(step[1], -1.0), 1.0)
        if max(abs(step[0]), abs(step[1])) < 1e-5:
            break
    return y, x


@njit(cache=True, nogil=True)
def _slopes(weighted: C128, fy: F64, fx: F64, y: float, x: float) -> tuple[float, float, float, float, float]:
    """Return the derivatives of the correlation at a place: y, x, yy, xx, yx."""
    turn = 2 * np.pi
    along = np.exp(1j * turn * fx * x)
    dy, dx, yy, xx, yx = 0.0, 0.0, 0.0, 0.0, 0.0
    for r in range(fy.size):
        v = fy[r]
        down = np.exp(1j * turn * v * y)
        for c in range(fx.size):
            u, term = fx[c], weighted[r, c] * along[c] * down
            dy -= v * term.imag
            dx -= u * term.imag
            yy -= v * v * term.real
            xx -= u * u * term.real
            yx -= v * u * term.real
    return turn * dy, turn * dx, turn * turn * yy, turn * turn * xx, turn * turn * yx


__all__ = ["BAND", "SLOW", "low_frequencies", "settle"]
