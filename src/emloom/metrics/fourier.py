"""Fourier ring and shell correlation: up to which frequency two images agree.

Saxton and Baumeister 1982 (doi:10.1111/j.1365-2818.1982.tb00405.x); van Heel 1987. With Fourier coefficients ``X``
and ``Y`` of a pair, summed over the ring (in sections) or shell (in volumes) of frequency ``q``, and over
sections::

    FRC(q) = Re sum X Y* / sqrt(sum |X|^2 sum |Y|^2)                  -1 to 1, 1 is best

Frequencies are in 1/nm, so shells are round in the tissue whatever the voxels are. The rings are as wide as the
coarsest step of any axis, and end at the Nyquist frequency of the finest one: with anisotropic voxels the outer
shells are bands without their poles. The mean is subtracted and a Hann window laid over all axes, or else the cut
edges correlate.

The resolution is the wavelength ``1 / q`` where the curve first falls below a threshold, between rings in a
straight
line: 0.143 (Rosenthal and Henderson 2003, doi:10.1016/j.jmb.2003.07.013), or half a bit of information per
coefficient (van Heel and Schatz 2005, doi:10.1016/j.jsb.2005.05.009), with ``n`` coefficients in the ring::

    (0.2071 + 1.9102 / sqrt(n)) / (1.2071 + 0.9102 / sqrt(n))

Both were made for two independent halves of the data. Between a reference and an output of it noise that was kept
correlates, too: read the curve as a cross-check of wavelet coherence, not as the resolution of the microscope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, nan
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from emloom.errors import InputError
from emloom.geometry.grid import as_nm

Array = NDArray[Any]
F64 = NDArray[np.float64]
Counts = NDArray[np.int64]

FIXED_THRESHOLD = 0.143


@dataclass(frozen=True, eq=False)
class RingSums:
    """Sums over rings or shells, one row per section, or one for a volume; rows of more sections go below.

    Attributes:
        frequency_per_nm: float64 [K], centre of each ring, increasing; ring 0, the mean, is not among them.
        n_coefficients: int64 [K], coefficients in each ring of one row, both halves of the plane counted.
        sums: float64 [S, 3, K]: Re X Y*, |X|^2, |Y|^2.
    """

    frequency_per_nm: F64
    n_coefficients: Counts
    sums: F64


@dataclass(frozen=True, eq=False)
class RingCorrelation:
    """A correlation curve and where it crosses the thresholds.

    Attributes:
        frequency_per_nm: float64 [K].
        correlation: float64 [K], NaN where an image has no power.
        half_bit: float64 [K], the half-bit threshold.
        resolution_nm: wavelength where the curve falls below 0.143; NaN where it does not.
        resolution_half_bit_nm: likewise for the half-bit threshold.
        reason: why a resolution is NaN; else empty.
    """

    frequency_per_nm: F64
    correlation: F64
    half_bit: F64
    resolution_nm: float
    resolution_half_bit_nm: float
    reason: str


def ring_sums(
    x_ZYX: Array, y_ZYX: Array, voxel_size_nm: Sequence[float], dimensions: Literal[2, 3] = 2
) -> RingSums:
    """Return the sums of a pair over Fourier rings of every section, or over shells of the volume.

    Args:
        x_ZYX: real numbers [Z, Y, X], each axis that is transformed at least 4 long.
        y_ZYX: on the same grid.
        voxel_size_nm: (z, y, x).
        dimensions: 2, section by section, in the memory of one; 3, all at once, in about 40 bytes per voxel.

    Raises:
        InputError: shapes differ or are too small, a voxel size is not positive, or a value is not finite.
    """
    size = as_nm(voxel_size_nm, "voxel size")
    axes = (0, 1, 2)[3 - dimensions :]
    _check(x_ZYX, y_ZYX, size, axes)
    shape, spacing = [x_ZYX.shape[a] for a in axes], [size[a] for a in axes]
    ring, width, n_rings = _rings(shape, spacing)
    # rfft keeps half of the last axis: what has a mirror image elsewhere counts twice.
    twice = np.full(ring.shape, 2, np.int64)
    twice[..., 0] = 1
    if shape[-1] % 2 == 0:
        twice[..., -1] = 1
    window = _window(shape)
    pairs = zip(x_ZYX, y_ZYX, strict=True) if dimensions == 2 else [(x_ZYX, y_ZYX)]
    flat, weight = ring.ravel(), twice.ravel()
    rows = []
    with np.errstate(all="ignore"):  # what is not finite is told below
        for x, y in pairs:
            of_x, of_y = (fft.rfftn(window * (a - a.mean(dtype=np.float64))).ravel() for a in (x, y))
            products = (_product(of_x, of_y), _product(of_x, of_x), _product(of_y, of_y))
            rows.append([np.bincount(flat, weight * p, n_rings + 2)[1 : n_rings + 1] for p in products])
    sums = np.array(rows)
    if not np.isfinite(sums).all():
        raise InputError("a volume holds NaN, infinity or values beyond 1e150: fill such voxels in both, or crop")
    count = np.bincount(flat, weight, n_rings + 2)[1 : n_rings + 1].astype(np.int64)
    frequency: F64 = width * np.arange(1, n_rings + 1, dtype=np.float64)
    return RingSums(frequency, count, sums)


def ring_correlation(parts: Sequence[RingSums]) -> RingCorrelation:
    """Return the correlation of all sections of several parts; their order changes no bit.

    Raises:
        InputError: no part, or parts with different rings.
    """
    if not parts or any(
        not np.array_equal(part.frequency_per_nm, parts[0].frequency_per_nm)
        or not np.array_equal(part.n_coefficients, parts[0].n_coefficients)
        for part in parts
    ):
        raise InputError("give one part or more, all of sections of one shape and voxel size: rings differ")
    rows = np.concatenate([part.sums for part in parts])
    cross, x, y = np.array([[fsum(ring) for ring in kind.T.tolist()] for kind in rows.transpose(1, 0, 2)])
    correlation = np.full(len(cross), nan)
    # In this order a pair of equals gives exactly 1.
    known = (x > 0) & (y > 0)
    correlation[known] = np.clip(cross[known] / x[known] / np.sqrt(y[known] / x[known]), -1, 1)
    frequency, count = parts[0].frequency_per_nm, parts[0].n_coefficients * len(rows)
    root = np.sqrt(np.maximum(count, 1))
    half_bit = (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
    fixed = _crossing(frequency, correlation - FIXED_THRESHOLD)
    by_half_bit = _crossing(frequency, correlation - half_bit)
    return RingCorrelation(
        frequency, correlation, half_bit, fixed, by_half_bit, _reason(correlation, fixed, by_half_bit)
    )


def _check(x: Array, y: Array, size: tuple[float, float, float], axes: Sequence[int]) -> None:
    if x.shape != y.shape or x.ndim != 3 or not x.size:
        raise InputError(
            f"the reference is {x.shape} and the output {y.shape}: give two [Z, Y, X] arrays on one grid"
        )
    if x.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
        raise InputError(f"{x.dtype} and {y.dtype}: give real numbers")
    if min(size) <= 0:
        raise InputError(f"voxel size {size} is not positive: give z, y, x in nm, each above 0")
    short = min(x.shape[a] for a in axes)
    if short < 4:
        raise InputError(f"{x.shape} has an axis of {short} voxels: rings need 4; compare sections, dimensions=2")


def _rings(shape: Sequence[int], spacing: Sequence[float]) -> tuple[Counts, float, int]:
    """Return the ring of each coefficient of rfftn (0 the mean, n + 1 beyond the last), their width, and n."""
    width = max(1 / (n * d) for n, d in zip(shape, spacing, strict=True))
    frequencies = [fft.fftfreq(n, d) for n, d in zip(shape[:-1], spacing[:-1], strict=True)]
    frequencies.append(fft.rfftfreq(shape[-1], spacing[-1]))
    square = sum(f**2 for f in np.meshgrid(*frequencies, indexing="ij", sparse=True))
    n_rings = int(1 / (2 * min(spacing)) / width + 1e-9)
    return np.minimum(np.rint(np.sqrt(square) / width), n_rings + 1).astype(np.int64), width, n_rings


def _window(shape: Sequence[int]) -> Any:
    """Return the Hann window over all axes: zero at the faces of the array, half a voxel outside its centres."""
    out: Any = 1.0
    for n in shape:
        out = np.multiply.outer(out, 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(n) + 0.5) / n))
    return out


def _product(a: Array, b: Array) -> F64:
    """Return Re a b*; of equals the very bits of their power."""
    product: F64 = a.real * b.real + a.imag * b.imag
    return product


def _crossing(frequency: F64, above: F64) -> float:
    """Return the wavelength at which a curve first falls below zero; NaN where it does not, or begins below."""
    below = np.flatnonzero(above < 0)
    if not below.size or below[0] == 0 or np.isnan(above[: below[0]]).any():
        return nan
    k = int(below[0])
    step = above[k - 1] / (above[k - 1] - above[k])
    return float(1 / (frequency[k - 1] + step * (frequency[k] - frequency[k - 1])))


def _reason(correlation: F64, *resolutions: float) -> str:
    if not np.isnan(resolutions).any():
        return ""
    if np.isnan(correlation).any():
        return "an image has no power at some frequencies, as a constant image has none"
    if correlation[0] < FIXED_THRESHOLD:
        return "the curve begins below a threshold: the images share nothing at any wavelength that fits into them"
    return "the curve does not fall below a threshold before the Nyquist frequency: finer voxels would be needed"
