"""How much of every level of a reference is noise, and so how much of it a denoiser should keep.

At the finest level an image is mostly noise, and an output that keeps all its power (``R = 1``) has kept the
noise. Two targets for the ratio ``R_l`` of an ideal denoiser, which keeps all structure and no noise:

    by the noise    1 - n sigma^2 / E_x      white noise of standard deviation sigma adds sigma^2 to each of the n
                                             orthonormal coefficients of every level
    by neighbours   rho(x_z, x_z+1)          coherence of adjacent sections, whose noise is independent

sigma of a section is the median absolute deviation of the finest diagonal Haar band, ``median |HH1| / 0.6745``
(Donoho and Johnstone 1994, doi:10.1093/biomet/81.3.425): there is least structure there, and the median does not
see what little there is. Noise differs from section to section, and its powers, not its medians, add up: the sigma
of a volume is the root mean square of its sections'. The formula holds for white noise: where resampling or
compression has smoothed it, sigma is too small. The coherence of neighbours needs no such assumption, but is a
lower bound: structure changes from section to section as well, the more the thicker the sections are against the
wavelength. It says something where voxels are about isotropic, and where no noise is shared between sections
(charging, curtains, interpolated sections).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, isfinite, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.metrics.spectra import Spectra, spectra
from emloom.ops.wavelets import Decomposition, diagonal_histogram

Array = NDArray[Any]
F64 = NDArray[np.float64]
Counts = NDArray[np.int64]

_MAD_OF_NORMAL = 0.6745


@dataclass(frozen=True)
class SignalTarget:
    """What the ratio of an ideal denoiser is at one level.

    Attributes:
        level: 1 is the finest.
        wavelength_nm: 2^level times the voxel size.
        noise_share: part of the reference's power that is noise by sigma; above 1 where the noise is not white.
        by_noise: 1 - noise_share, at least 0.
        by_neighbours: coherence of adjacent sections, at least 0; a lower bound. NaN where not measured.
        reason: why a value is NaN; else empty.
    """

    level: int
    wavelength_nm: float
    noise_share: float
    by_noise: float
    by_neighbours: float
    reason: str


def noise_sigma(x_ZYX: Array) -> float:
    """Return the standard deviation of white noise, in grey levels: the root mean square of `section_sigmas`.

    Args:
        x_ZYX: real numbers [Z, Y, X].

    Returns:
        NaN where a section has no 2 x 2 voxels, or one that is NaN, or there is no section.
    """
    sigmas = section_sigmas(x_ZYX)
    return sqrt(fsum((sigmas**2).tolist()) / sigmas.size) if sigmas.size else nan


def section_sigmas(x_ZYX: Array) -> F64:
    """Return the standard deviation of white noise of every section, in grey levels.

    Integers of up to 16 bits are counted; for blocks of a section add `ops.wavelets.diagonal_histogram` up and ask
    `sigma_of_histogram`. Other types are sorted, section by section.

    Args:
        x_ZYX: real numbers [Z, Y, X]; a last odd row or column is left out.

    Returns:
        float64 [Z]; NaN where there are no 2 x 2 voxels, or one of them is NaN. Of integers in steps of 0.74, as
        their coefficients are whole.
    """
    if x_ZYX.dtype.kind in "biu" and x_ZYX.dtype.itemsize <= 2:
        return np.array([sigma_of_histogram(diagonal_histogram(section[None])) for section in x_ZYX])
    return np.array([_sorted_sigma(section.astype(np.float64)) for section in x_ZYX])


def _sorted_sigma(a_YX: F64) -> float:
    a = a_YX[: a_YX.shape[0] // 2 * 2, : a_YX.shape[1] // 2 * 2]
    diagonal = np.abs(a[::2, ::2] - a[::2, 1::2] - a[1::2, ::2] + a[1::2, 1::2])
    return float(np.median(diagonal)) / 2 / _MAD_OF_NORMAL if diagonal.size else nan


def sigma_of_histogram(counts: Counts) -> float:
    """Return the standard deviation of white noise from `ops.wavelets.diagonal_histogram`; NaN if it is empty."""
    total = int(counts.sum())
    if not total:
        return nan
    # The two middle ones of all values in order, as numpy's median has it.
    running = np.cumsum(counts)
    lower, upper = (int(np.searchsorted(running, rank, side="right")) for rank in ((total - 1) // 2, total // 2))
    return (lower + upper) / 2 / 2 / _MAD_OF_NORMAL


def neighbours(
    x_ZYX: Array, decomposition: Decomposition, voxel_size_nm: Sequence[float], first_section: int = 0
) -> Spectra:
    """Return the table of adjacent sections of one volume: every section with the next.

    Args:
        x_ZYX: at least two sections [Z, Y, X].
        decomposition: of sections, see `ops.wavelets.of_sections`.
        voxel_size_nm: (z, y, x).
        first_section: z of the array's first section in the volume; blocks have to overlap by one section.

    Raises:
        InputError: fewer than two sections, a decomposition that joins them, or see `spectra`.
    """
    if decomposition.tile_vox[0] != 1 or len(x_ZYX) < 2:
        raise InputError(
            f"{len(x_ZYX)} sections in tiles of {decomposition.tile_vox[0]}: adjacent sections are compared in "
            "tiles of one section, and there have to be two; use ops.wavelets.of_sections"
        )
    return spectra(x_ZYX[:-1], x_ZYX[1:], decomposition, voxel_size_nm, (first_section, 0, 0))


def signal_targets(table: Spectra, sigma: float, adjacent: Spectra | None = None) -> tuple[SignalTarget, ...]:
    """Return the targets of every level, finest first.

    Args:
        table: of the reference and anything.
        sigma: standard deviation of the reference's noise in grey levels, see `noise_sigma`.
        adjacent: see `neighbours`; of the reference, by the same decomposition.

    Raises:
        InputError: sigma is negative or not finite, or decompositions differ.
    """
    if not (isfinite(sigma) and sigma >= 0):
        raise InputError(f"noise of standard deviation {sigma}: give a number of grey levels, 0 or more")
    if adjacent is not None and adjacent.decomposition != table.decomposition:
        raise InputError(
            f"neighbours were decomposed by {adjacent.decomposition}, the reference by {table.decomposition}: use "
            "one for both"
        )
    return tuple(_target(table, sigma, adjacent, level + 1) for level in range(table.decomposition.n_levels))


def _target(table: Spectra, sigma: float, adjacent: Spectra | None, level: int) -> SignalTarget:
    columns = table.columns(level)
    energy = table.totals(columns)[0]
    count = sum(table.bands[i].n_coefficients for i in columns) * int(table.n_tiles.sum())
    share = count * sigma**2 / energy if energy else nan
    coherence, reason = _coherence(adjacent, level)
    return SignalTarget(
        level=level,
        wavelength_nm=table.decomposition.wavelength_nm(level, table.voxel_size_nm),
        noise_share=share,
        by_noise=max(0.0, 1 - share) if energy else nan,
        by_neighbours=coherence,
        reason=reason if energy else "the reference has no power here",
    )


def _coherence(adjacent: Spectra | None, level: int) -> tuple[float, str]:
    if adjacent is None:
        return nan, "adjacent sections were not compared"
    x, y, cross, _ = adjacent.totals(adjacent.columns(level))
    if not x or not y:
        return nan, "sections have no power here"
    return min(1.0, max(0.0, cross / x / (y / x) ** 0.5)), ""
