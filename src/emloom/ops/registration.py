"""Where one section lies on another: rigid shifts by phase correlation.

Kuglin & Hines 1975; the Gaussian that weighs frequencies keeps noise, which is white, from outvoting tissue.
A shift ``(dy, dx)`` says that what is at ``p`` in the first image is at ``p + (dy, dx)`` in the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

F64 = NDArray[np.float64]

_SIGMA = 0.12  # cycles per pixel: what is finer is mostly noise


@dataclass(frozen=True)
class Shift:
    """How one image lies on another.

    Attributes:
        y: rows.
        x: columns.
        correlation: of the parts that lie on each other after the shift, -1 to 1; NaN where one is constant.
        before: the same without the shift.
    """

    y: int
    x: int
    correlation: float
    before: float


def spectrum(image_YX: NDArray[Any]) -> NDArray[np.complex128]:
    """Return the Fourier transform of an image, faded to its mean at the edges."""
    image = np.asarray(image_YX, np.float64)
    window = np.outer(_taper(image.shape[0]), _taper(image.shape[1]))
    out: NDArray[np.complex128] = fft.rfft2((image - image.mean()) * window)
    return out


def shift_between(
    a_YX: NDArray[Any],
    b_YX: NDArray[Any],
    spectra: tuple[NDArray[np.complex128], NDArray[np.complex128]] | None = None,
) -> Shift:
    """Return the shift that lays an image on another, up to half of its sides.

    No shift is the answer where the one found does not make the images more alike.

    Args:
        a_YX: an image.
        b_YX: another one of the same shape.
        spectra: `spectrum` of both, where they are known.
    """
    before = correlation(a_YX, b_YX)
    one, other = spectra or (spectrum(a_YX), spectrum(b_YX))
    cross = np.conj(one) * other
    weight = _weight(a_YX.shape[0], a_YX.shape[1])
    peaks = fft.irfft2(weight * cross / np.maximum(np.abs(cross), 1e-12), s=a_YX.shape)
    place = np.unravel_index(int(np.argmax(peaks)), peaks.shape)
    y, x = (int(p) - n if p > n // 2 else int(p) for p, n in zip(place, peaks.shape, strict=True))
    after = correlation(*overlapping(a_YX, b_YX, y, x))
    if not after > before:
        return Shift(0, 0, before, before)
    return Shift(y, x, after, before)


def overlapping(a_YX: NDArray[Any], b_YX: NDArray[Any], y: int, x: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the parts of two images that show the same, `b` shifted by (y, x)."""
    rows, columns = a_YX.shape
    a = a_YX[max(0, -y) : rows - max(0, y), max(0, -x) : columns - max(0, x)]
    b = b_YX[max(0, y) : rows + min(0, y), max(0, x) : columns + min(0, x)]
    return a, b


def correlation(a_YX: NDArray[Any], b_YX: NDArray[Any]) -> float:
    """Return Pearson's correlation of two images; NaN where one is constant, or empty."""
    if a_YX.size == 0:
        return float("nan")
    a, b = np.asarray(a_YX, np.float64), np.asarray(b_YX, np.float64)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt(np.square(a).sum() * np.square(b).sum()))
    return float((a * b).sum()) / size if size > 0 else float("nan")


@lru_cache(maxsize=16)
def _taper(n: int) -> F64:
    """Return a window that falls as a cosine over the outer eighths."""
    edge = max(1, n // 8)
    out = np.ones(n)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / edge)
    out[:edge], out[n - edge :] = ramp, ramp[::-1]
    return out


@lru_cache(maxsize=16)
def _weight(rows: int, columns: int) -> F64:
    fy, fx = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None, :]
    out: F64 = np.exp(-(fy**2 + fx**2) / (2 * _SIGMA**2))
    return out
