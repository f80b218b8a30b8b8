"""Which spatial frequencies of a reference an output keeps: share, ratio, coherence and error of wavelet levels.

Convention: ``E_x``, ``E_y`` and ``C`` are sums over the coefficients of a level (1 is the finest), or of one of
its orientations, over all tiles (`spectra`)::

    share       p   = E_x / sum over levels of E_x, and so for y     the approximation ("DC") left out
    ratio       R   = E_y / E_x                                      1 is best: as much as there was
    median            of E_y / E_x of single tiles                   no tile decides it
    coherence   rho = C / sqrt(E_x E_y)                              1 is best: the same structure, not as much
    error       e   = (E_x + E_y - 2 C) / E_x                        0 is best: what is lost plus what is invented

Of an output that is the reference plus something unrelated to it, ``R = 1 / rho^2``; of the best linear estimate
of the reference from noisy data, ``R = rho^2``. The part of the output that no multiple of the reference explains
is ``R (1 - rho^2)`` of the reference's energy: **power alone cannot tell structure from noise**, nor restoration
from invention.

DC holds most of the energy of an image (95 % on FIB-SEM of hippocampus) and says how bright it is: no share counts
it. A level is labelled with the wavelength ``2^l`` voxels (`Decomposition.wavelength_nm`); its band holds those of
about ``2^l`` to ``2^(l+1)`` voxels.

Intervals come from resampling tiles (`bootstrap`, and its draws): tiles that share structures, as those of
neighbouring sections do, give intervals that are too narrow. `Spectra.coarsened` adds them up first. Values have
the same bits everywhere; the ends of intervals come from a matrix product, whose last digits are the machine's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import fsum, inf, log10, nan, prod, sqrt
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.metrics.bootstrap import Interval, interval, require_resampling
from emloom.metrics.spectra import F64, Rows, Spectra

ALL = "all"
"""The orientation of a row that holds all orientations of its level."""

NO_REFERENCE = "the reference has no power here, as a constant image has none anywhere"
NO_OUTPUT = "the output has no power here"
_DRAWN_AT_ONCE = 1 << 22
_X, _Y, _C, _RESIDUAL = range(4)


@dataclass(frozen=True)
class BandFidelity:
    """What an output keeps of one level, all orientations together or one; see the module for the formulae.

    Attributes:
        level: 1 is the finest.
        orientation: `ALL`, or the axes along which coefficients are differences.
        wavelength_nm: 2^level times the voxel size.
        share_x: part of the reference's power, without DC.
        share_y: part of the output's power, without DC.
        ratio: power of the output over power of the reference.
        median_ratio: median of the tiles' ratios, of those in which the reference has power.
        coherence: correlation of the coefficients about zero, -1 to 1.
        error: energy of the difference over energy of the reference.

    A value that is undefined is NaN, and its interval's `reason` says why.
    """

    level: int
    orientation: str
    wavelength_nm: float
    share_x: Interval
    share_y: Interval
    ratio: Interval
    median_ratio: Interval
    coherence: Interval
    error: Interval


def fidelity(
    table: Spectra, rng: np.random.Generator, *, resamples: int = 2000, level: float = 0.95
) -> tuple[BandFidelity, ...]:
    """Return what an output keeps of every level: a row for the level, then one for each of its orientations.

    Args:
        table: one row per tile, or per group of tiles that vary independently.
        rng: the source of all randomness.
        resamples: how many to draw; time and memory grow with this times the number of rows.
        level: of the confidence intervals, between 0 and 1.

    Returns:
        finest level first.

    Raises:
        InputError: the table is empty, fewer than 1 resample, or the level is not between 0 and 1.
    """
    n_tiles = len(table.tiles)
    require_resampling(n_tiles, resamples, level)
    keys = _keys(table)
    columns = [table.columns(number, None if name == ALL else name) for number, name in keys]
    of_tiles = np.stack([table.energies(c) for c in columns])
    whole = np.array([name == ALL for _, name in keys])
    totals = np.array([table.totals(c) for c in columns])
    # Correctly rounded: the order of tiles and levels changes no bit of a value.
    power = fsum(totals[whole, _X].tolist()), fsum(totals[whole, _Y].tolist())
    values = _statistics(totals, np.array(power))
    values["median_ratio"] = _medians(_parts(of_tiles[..., _Y], of_tiles[..., _X]))
    drawn = _resampled(of_tiles, whole, rng, resamples) if n_tiles > 1 else {}
    rows = []
    for k, (number, name) in enumerate(keys):
        found = {
            field: interval(float(value[k]), drawn[field][:, k] if drawn else np.empty(0), n_tiles, level)
            for field, value in values.items()
        }
        wavelength = table.decomposition.wavelength_nm(number, table.voxel_size_nm)
        rows.append(BandFidelity(number, name, wavelength, **_explained(found, totals[k], power)))
    return tuple(rows)


@dataclass(frozen=True, eq=False)
class LocalMap:
    """Where an output keeps what a level of the reference holds, tile by tile.

    Attributes:
        first_tile: place (z, y, x) of the maps' first entry in the lattice of tiles.
        ratio_ZYX: float64, E_y / E_x; NaN where there is no tile or no power.
        coherence_ZYX: float64, -1 to 1; NaN likewise.
        error_ZYX: float64, energy of the difference over that of the reference.
        invented_ZYX: float64, R (1 - rho^2): energy of the output that no multiple of the reference explains, over
            the reference's. High with a ratio near 1: structure or noise was replaced, not kept.
    """

    first_tile: tuple[int, int, int]
    ratio_ZYX: F64  # noqa: N815
    coherence_ZYX: F64  # noqa: N815
    error_ZYX: F64  # noqa: N815
    invented_ZYX: F64  # noqa: N815

    def hallucinated(
        self, ratio: tuple[float, float] = (0.7, 1.4), coherence_below: float = 0.7
    ) -> NDArray[np.bool_]:
        """Return the tiles whose power is about right while its content is not.

        The defaults are a convention: power right to a factor of 1.4, less than half of it (0.7^2) explained by
        the reference. At levels where the reference is mostly noise its tiles are found, too: noise was replaced
        by noise.

        Args:
            ratio: lowest and highest ratio that pass as right.
            coherence_below: what counts as other content.
        """
        low, high = ratio
        with np.errstate(invalid="ignore"):
            found: NDArray[np.bool_] = (
                (self.ratio_ZYX >= low) & (self.ratio_ZYX <= high) & (self.coherence_ZYX < coherence_below)
            )
        return found


def local_map(table: Spectra, level: int, orientation: str | None = None) -> LocalMap:
    """Return ratio, coherence and error of every tile of one level.

    Args:
        table: one row per tile.
        level: 1 is the finest.
        orientation: one of the level's; None: all together.

    Raises:
        InputError: the table is empty, or there is no such band.
    """
    if not len(table.tiles):
        raise InputError("the table has no tile to map")
    energies = table.energies(table.columns(level, orientation))
    first = table.tiles.min(axis=0)
    z, y, x = (table.tiles - first).T
    maps = np.full((4, *(table.tiles.max(axis=0) - first + 1)), nan)
    found = _statistics(energies, np.ones(2))
    invented = found["ratio"] * (1 - found["coherence"] ** 2)
    for k, values in enumerate((found["ratio"], found["coherence"], found["error"], invented)):
        maps[k, z, y, x] = values
    return LocalMap((int(first[0]), int(first[1]), int(first[2])), *maps)


def _keys(table: Spectra) -> list[tuple[int, str]]:
    levels = range(1, table.decomposition.n_levels + 1)
    return [
        (level, name)
        for level in levels
        for name in (ALL, *(table.bands[i].orientation for i in table.columns(level)))
    ]


def _statistics(energies: F64, power: F64) -> dict[str, F64]:
    """Return all statistics of sums [..., 4] but the median; `power` [..., 2] is that of all levels."""
    x, y, cross, residual = (energies[..., k] for k in range(4))
    ratio = _parts(y, x)
    # C / sqrt(E_x E_y) in an order that neither overflows nor rounds where y is x, or twice x.
    coherence = _parts(_parts(cross, x), np.sqrt(ratio))
    return {
        "share_x": _parts(x, power[..., 0]),
        "share_y": _parts(y, power[..., 1]),
        "ratio": ratio,
        "coherence": np.clip(coherence, -1, 1),
        "error": _parts(residual, x),
    }


def _parts(part: F64, whole: F64) -> F64:
    """Return the quotient, NaN where the divisor is no positive number."""
    whole = np.broadcast_to(whole, np.broadcast_shapes(np.shape(part), np.shape(whole)))
    out = np.full(whole.shape, nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


def _medians(ratios: F64) -> F64:
    """Return the median of the defined ratios of every band [K, T]."""
    defined = [row[~np.isnan(row)] for row in ratios]
    return np.array([np.median(row) if row.size else nan for row in defined])


def _resampled(
    of_tiles: F64, whole: NDArray[np.bool_], rng: np.random.Generator, resamples: int
) -> dict[str, F64]:
    """Return every statistic of every resample, [resamples, K]: sums of tiles are a product with their weights."""
    n_bands, n_tiles, _ = of_tiles.shape
    table = of_tiles.transpose(1, 0, 2).reshape(n_tiles, -1)
    ratios = _parts(of_tiles[..., _Y], of_tiles[..., _X])
    order = np.argsort(ratios, axis=1)  # NaN last
    increasing = np.take_along_axis(ratios, order, axis=1)
    n_defined = np.count_nonzero(~np.isnan(ratios), axis=1)
    parts: list[dict[str, F64]] = []
    for weights in _weights(rng, n_tiles, resamples):
        sums = (weights.astype(np.float64) @ table).reshape(len(weights), n_bands, 4)
        found = _statistics(sums, sums[:, whole, :2].sum(axis=1)[:, None])
        found["median_ratio"] = np.empty((len(weights), n_bands))
        _weighted_medians(weights, order, increasing, n_defined, found["median_ratio"])
        parts.append(found)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _weights(rng: np.random.Generator, n: int, resamples: int) -> Iterator[Rows]:
    """Yield how often each of n rows occurs in each resample: the draws of `bootstrap.bootstrap`, counted."""
    at_once = max(1, _DRAWN_AT_ONCE // n)
    for start in range(0, resamples, at_once):
        m = min(at_once, resamples - start)
        drawn = rng.integers(0, n, (m, n)) + n * np.arange(m)[:, None]
        yield np.bincount(drawn.ravel(), minlength=m * n).reshape(m, n)


@njit(cache=True, nogil=True)
def _weighted_medians(weights: Rows, order: Rows, increasing: F64, n_defined: Rows, out: F64) -> None:
    """Write the median of each band's defined ratios, each as often as its tile was drawn; NaN where none was."""
    for r in range(len(weights)):
        drawn = weights[r]
        for k in range(len(order)):
            total = 0
            for j in range(n_defined[k]):
                total += drawn[order[k, j]]
            if total == 0:
                out[r, k] = np.nan
                continue
            seen, j = drawn[order[k, 0]], 0
            while seen <= (total - 1) // 2:
                j += 1
                seen += drawn[order[k, j]]
            lower = increasing[k, j]
            while seen <= total // 2:
                j += 1
                seen += drawn[order[k, j]]
            out[r, k] = (lower + increasing[k, j]) / 2


def root_mean_square_error(table: Spectra) -> float:
    """Return the root mean square difference of output and reference over all tiles, in grey levels.

    Wavelets are orthonormal: squared differences of coefficients sum up to those of voxels. NaN without a tile.
    """
    deepest = table.decomposition.n_levels
    columns = [table.columns(level) for level in range(1, deepest + 1)] + [table.columns(deepest, "")]
    voxels = int(table.n_tiles.sum()) * prod(table.decomposition.tile_vox)
    return sqrt(fsum(table.totals(each)[_RESIDUAL] for each in columns) / voxels) if voxels else nan


def psnr_db(rmse: float, dtype: np.dtype[Any]) -> float:
    """Return the peak signal-to-noise ratio, 20 log10(range / rmse); infinite where nothing differs.

    Args:
        rmse: root mean square error.
        dtype: of the images; the range is that of integers of this type, 255 of 8 bits. NaN for floats, which have
            none.
    """
    if dtype.kind not in "iu":
        return nan
    span = np.iinfo(dtype)
    return inf if rmse == 0 else 20 * log10((int(span.max) - int(span.min)) / rmse)


def _explained(found: dict[str, Interval], totals: F64, power: tuple[float, float]) -> dict[str, Interval]:
    """Return the intervals, with the reason where a value is undefined."""
    reference = NO_REFERENCE if totals[_X] == 0 else ""
    reasons = {
        "share_x": "" if power[0] else "the reference has no power at any level: it is constant in every tile",
        "share_y": "" if power[1] else "the output has no power at any level: it is constant in every tile",
        "ratio": reference,
        "median_ratio": reference,
        "coherence": reference or (NO_OUTPUT if totals[_Y] == 0 else ""),
        "error": reference,
    }
    return {name: replace(value, reason=reasons[name] or value.reason) for name, value in found.items()}
