"""How far one section is displaced from another: `prepare` each once, `link` any two.

A displacement ``d = (dy, dx)`` says that what is at ``p`` in the first section is at ``p + d`` in the second;
pixels of the sections as they were given. ::

    link(prepare(a), prepare(b)).shift      d
    link(prepare(b), prepare(a)).shift      -d, to the precision of the estimate

Search: correlation of the coarse pictures with their power evened out by half, between plain and phase correlation
(Kuglin & Hines 1975): it sees neighbours further apart than either. It is circular, so a peak stands for up to
four displacements; each that leaves the sections an overlap is judged by the correlation of what then lies on each
other, void left out (Padfield 2012, doi:10.1109/TIP.2011.2181402, at a few places instead of all). `Link` gives
the height of the peak in deviations of the whole correlation; a link is believed when that is beyond what the best
of as many places as the pictures have independent ones reaches by chance.

Precision: `emloom.ops.finershifts` on the fine pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import log, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import fft

from emloom.errors import InputError
from emloom.ops.finershifts import BAND, SLOW, settle
from emloom.ops.preparedsections import I8, Prepared, prepare
from emloom.ops.shiftlinks import Links

F32 = NDArray[np.float32]
C64 = NDArray[np.complex64]
_PEAKS, _APART = 4, 6
_FARTHEST = 0.75  # of a side
_LEAST_OVERLAP = 0.04  # of a section
_BEYOND_CHANCE, _FEW_PLACES = 2.0, 25.0
_LEAST_ALIKE = 3.0
_REACH = 2.5  # coarse pixels
_DISTANT = 8  # sections
_NOTHING = 1e-5  # a weight


@dataclass(frozen=True)
class Link:
    """How one section lies on another.

    Attributes:
        shift: (dy, dx) pixels: what is at p in the first is at p + shift in the second.
        error: standard error of the shift along an axis, pixels; infinite where the link is unknown.
        correlation: of the coarse pictures where they lie on each other, -1 to 1; 0 without any overlap.
        sigmas: height of the peak in deviations of the correlation at all places; strangers have 3 to 4.5.
        overlap: share of the section that was compared.
        is_known: whether it is more than chance: do not believe the shift otherwise.
    """

    shift: tuple[float, float]
    error: float
    correlation: float
    sigmas: float
    overlap: float
    is_known: bool


UNKNOWN = Link((0.0, 0.0), float("inf"), 0.0, 0.0, 0.0, False)


def section_shift(a_YX: NDArray[Any], b_YX: NDArray[Any]) -> Link:
    """Return how `b` lies on `a`: `prepare` and `link` at once."""
    return link(prepare(a_YX), prepare(b_YX))


def link(a: Prepared, b: Prepared) -> Link:
    """Return how section `b` lies on section `a`.

    Raises:
        InputError: they differ in shape.
    """
    if a.shape != b.shape:
        raise InputError(
            f"sections of shapes {a.shape} and {b.shape} cannot be compared: pad them to one shape and mask the "
            "padding"
        )
    if a.contrast <= 0 or b.contrast <= 0:
        return UNKNOWN
    found = _search(a, b)
    return _precise(a, b, found) if found.is_known else found


def pairs(count: int, lags: Sequence[int] = (1, 2, 3), references: Sequence[int] = ()) -> list[tuple[int, int]]:
    """Return which sections of a stack to compare: neighbours at some distances, and all with a few others.

    Args:
        count: sections.
        lags: distances, each at least 1; over several a stack gets past a bad section.
        references: sections that every other one is compared with; what shows on few sections only is not known.

    Raises:
        InputError: a lag or a reference that is none.
    """
    if any(lag < 1 for lag in lags):
        raise InputError(f"the lags {tuple(lags)} are not all at least 1: compare with later sections")
    if any(not 0 <= one < count for one in references):
        raise InputError(f"the references {tuple(references)} are not all sections: choose from 0 to {count - 1}")
    near = {(z, z + lag) for lag in lags for z in range(count - lag)}
    far = {(min(z, one), max(z, one)) for one in references for z in range(count) if z != one}
    return sorted(near | far)


def known_links(of: Sequence[tuple[int, int]], found: Sequence[Link]) -> tuple[Links, NDArray[np.float64]]:
    """Return the links that are known, for `emloom.ops.sectionpositions`, and their correlations [L].

    Errors are multiplied by the distance of the sections, up to 8: tissue itself moves from section to section, so
    that neighbours say how they lie to each other, and links further across say it where neighbours cannot.
    """
    known = [(pair, one) for pair, one in zip(of, found, strict=True) if one.is_known]
    links = Links.of([(i, j, one.shift, one.error * min(abs(j - i), _DISTANT)) for (i, j), one in known])
    return links, np.array([one.correlation for _, one in known], np.float64)


# ---- search ---------------------------------------------------------------------------------------------------


def _search(a: Prepared, b: Prepared) -> Link:
    """Return the most significant displacement of the coarse pictures."""
    rows, columns = a.padded
    cross, power, places, chance = _whitened(a.spectrum, b.spectrum, _weight(rows, columns), columns % 2 == 0)
    if not power > 0:
        return UNKNOWN
    surface = fft.irfft2(cross, s=(rows, columns), overwrite_x=True) * np.float32(rows * columns / sqrt(power))
    best, most, coarse = UNKNOWN, _LEAST_ALIKE, a.factors[1]
    for y, x, height in _peaks(surface):
        for at in _unwrapped((y, x), (rows, columns), a.coarse.shape):
            found, pixels = _correlation(a.coarse, b.coarse, round(at[0]), round(at[1]))
            alike, share = found * sqrt(pixels / (chance * rows * columns)), pixels / a.coarse.size
            if share >= _LEAST_OVERLAP and alike > most:
                most = alike
                known = height > sqrt(2 * log(places)) + _BEYOND_CHANCE + _FEW_PLACES / places
                best = Link((at[0] * coarse, at[1] * coarse), float(coarse), found, height, share, known)
    return best


@njit(cache=True, nogil=True, error_model="numpy")
def _whitened(a: C64, b: C64, weight: F32, even: bool) -> tuple[C64, float, float, float]:
    """Return the cross spectrum with its power evened out by half, and what chance makes of it.

    Returns:
        the spectrum; its power; to how many independent places its transform amounts; the variance of the
        correlation of pictures that have nothing to do with each other.
    """
    out = np.empty_like(a)
    first, second, both, power, fourth = 0.0, 0.0, 0.0, 0.0, 0.0
    for r in range(a.shape[0]):
        for c in range(a.shape[1]):
            u, v = a[r, c], b[r, c]
            pa = np.float64(u.real * u.real + u.imag * u.imag)
            pb = np.float64(v.real * v.real + v.imag * v.imag)
            twice = 1.0 if c == 0 or (even and c == a.shape[1] - 1) else 2.0
            first += twice * pa
            second += twice * pb
            both += twice * pa * pb
            if weight[r, c] < _NOTHING:
                out[r, c] = 0
                continue
            out[r, c] = np.conj(u) * v * (weight[r, c] / np.float32(np.sqrt(np.sqrt(pa * pb)) + 1e-12))
            size = np.float64(out[r, c].real * out[r, c].real + out[r, c].imag * out[r, c].imag)
            power += twice * size
            fourth += twice * size * size
    if not (first > 0 and second > 0 and fourth > 0):
        return out, 0.0, 0.0, 0.0
    return out, power, power * power / fourth, both / (first * second)


@lru_cache(maxsize=16)
def _weight(rows: int, columns: int) -> F32:
    fy, fx = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :]
    square = fy**2 + fx**2
    return np.asarray(np.exp(-square / (2 * BAND**2)) * (1 - np.exp(-square / (2 * SLOW**2))), np.float32)


def _peaks(surface: F32) -> Iterator[tuple[float, float, float]]:
    """Yield the highest maxima (y, x, height), to a fraction of a pixel, in the order of the transform."""
    rows, columns = surface.shape
    left = surface.copy()
    for _ in range(_PEAKS):
        y, x = divmod(int(np.argmax(left)), columns)
        near = np.arange(-1, 2)
        above, at, below = surface[np.ix_((y + near) % rows, (x + near) % columns)].tolist()
        yield y + _vertex(above[1], at[1], below[1]), x + _vertex(*at), at[1]
        around = np.arange(-_APART, _APART + 1)
        left[np.ix_((y + around) % rows, (x + around) % columns)] = -np.inf


def _vertex(before: float, at: float, after: float) -> float:
    """Return where the parabola through three values has its top; the middle one is the largest."""
    bend = before - 2 * at + after
    move = (before - after) / (2 * bend) if bend < 0 else 0.0
    return min(max(move, -0.5), 0.5)


def _unwrapped(
    peak: tuple[float, float], period: tuple[int, int], sides: tuple[int, ...]
) -> list[tuple[float, float]]:
    """Return the displacements that a peak of a circular correlation may stand for."""
    ways = [
        [at for at in (p, p - n) if abs(at) <= _FARTHEST * side]
        for p, n, side in zip(peak, period, sides, strict=True)
    ]
    return [(y, x) for y in ways[0] for x in ways[1]]


@njit(cache=True, nogil=True, error_model="numpy")
def _correlation(a: I8, b: I8, dy: int, dx: int) -> tuple[float, int]:
    """Return Pearson's correlation of what lies on each other, and how many pixels do; void left out."""
    count = 0
    one = other = squares = others = products = np.int64(0)  # exact
    rows, columns = a.shape
    for y in range(max(0, -dy), min(rows, rows - dy)):
        for x in range(max(0, -dx), min(columns, columns - dx)):
            p, q = np.int64(a[y, x]), np.int64(b[y + dy, x + dx])
            if p != -128 and q != -128:
                count += 1
                one += p
                other += q
                squares += p * p
                others += q * q
                products += p * q
    size = (squares * count - one * one) * np.float64(others * count - other * other)
    if size <= 0:
        return 0.0, count
    return (products * count - one * other) / np.sqrt(size), count


# ---- precision ------------------------------------------------------------------------------------------------


def _precise(a: Prepared, b: Prepared, found: Link) -> Link:
    """Return a link with its shift improved on the fine pictures."""
    fine, coarse = a.factors
    start = (found.shift[0] / fine, found.shift[1] / fine)
    rows, columns = a.fine.shape
    better = settle(
        a.low_frequencies, b.low_frequencies, (rows, columns), start, _REACH * coarse / fine, found.overlap
    )
    if better is None:
        return found
    return replace(found, shift=(better[0] * fine, better[1] * fine), error=better[2] * fine)


__all__ = ["UNKNOWN", "Link", "known_links", "link", "pairs", "section_shift"]
