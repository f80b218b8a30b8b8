"""How much of each spatial frequency two arrays hold, and share: energies of an orthonormal wavelet transform.

Mallat 1989 (doi:10.1109/34.192463); Daubechies 1992. The array is cut into tiles, each of which is transformed on
its own (periodic at its borders), and only sums over its coefficients are kept, for every level ``l`` = 1 (finest)
.. L and every orientation, ``x`` the reference and ``y`` the output::

    E_x = sum c_x^2     E_y = sum c_y^2     C = sum c_x c_y     sum |c_x|     sum |c_y|
    sum (c_y - c_x)^2 = E_x + E_y - 2 C
    sum of E_x over all bands and the approximation = sum of x^2 over the voxels                      (Parseval)

Sums of tiles add up. An *orientation* names the axes along which a coefficient is a difference: ``x`` (a
vertical edge), ``y``, ``yx`` and, where z is transformed, ``z``, ``zx``, ``zy``, ``zyx``. What is left after the
last level, the approximation, has the orientation ``""``: one coefficient, the mean grey level times the root of
the number of voxels, where the edge of a tile is ``2^L``; more, and lower frequencies than those of level L, where
it is longer.

Haar ("db1") is the default: its tiles need no values beyond their borders, and its sums of integers are exact
(`haar`). Other orthogonal wavelets are PyWavelets', with ``mode="periodization"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod, sqrt
from typing import Any

import numpy as np
import pywt
from numpy.typing import NDArray

from emloom.errors import InputError, did_you_mean
from emloom.geometry import Box, Vec
from emloom.geometry.box import as_vec
from emloom.geometry.grid import as_nm
from emloom.ops.haar import N_ORIENTATIONS, SUMS, count_diagonal, fits_int64, haar_sums

Array = NDArray[Any]
Counts = NDArray[np.int64]

AXES = "zyx"
_HAAR = ("db1", "haar")


@dataclass(frozen=True)
class Band:
    """One level and orientation of a decomposition.

    Attributes:
        level: 1 is the finest.
        orientation: axes along which its coefficients are differences; "" for the approximation.
        halvings: how often a tile was halved to get here, over all axes; a coefficient is about 2^halvings voxels.
        n_coefficients: per tile.
    """

    level: int
    orientation: str
    halvings: int
    n_coefficients: int


@dataclass(frozen=True)
class Decomposition:
    """Which axes are halved at which level, in tiles of which shape, by which wavelet.

    `of_sections` and `of_volume` make the usual ones.

    Args:
        tile_vox: voxels per tile (z, y, x); along an axis a multiple of 2 to the number of levels that halve it.
        axes: for every level, finest first, the axes (0 z, 1 y, 2 x) that it halves.
        wavelet: an orthogonal wavelet by PyWavelets' name.

    Raises:
        InputError: an axis is none, there is no level, a level halves nothing, a tile cannot be halved so often,
            or the wavelet is unknown or not orthogonal.
    """

    tile_vox: Vec
    axes: tuple[tuple[int, ...], ...]
    wavelet: str = "db1"

    def __post_init__(self) -> None:
        object.__setattr__(self, "tile_vox", as_vec(self.tile_vox))
        object.__setattr__(self, "axes", tuple(tuple(sorted(set(level))) for level in self.axes))
        if not self.axes or not all(level and set(level) <= {0, 1, 2} for level in self.axes):
            raise InputError(
                f"axes {self.axes}: give one or more of 0 (z), 1 (y), 2 (x) for each of 1 level or more"
            )
        _require_orthogonal(self.wavelet)
        for axis, (edge, halvings) in enumerate(zip(self.tile_vox, self.halvings, strict=True)):
            if edge < 1 or edge % 2**halvings:
                raise InputError(
                    f"a tile of {edge} voxels along {AXES[axis]} cannot be halved {halvings} times: give a "
                    f"multiple of {2**halvings}, the next is {_next(edge, 2**halvings)}, or at most {_twos(edge)} "
                    "levels there"
                )

    @property
    def n_levels(self) -> int:
        """Number of levels L."""
        return len(self.axes)

    @property
    def halvings(self) -> Vec:
        """How often all levels together halve each axis (z, y, x)."""
        return self.halvings_to(self.n_levels)

    def halvings_to(self, level: int) -> Vec:
        """Return how often levels 1 to `level` halve each axis (z, y, x)."""
        done = [axis for of_level in self.axes[:level] for axis in of_level]
        return (done.count(0), done.count(1), done.count(2))

    @cached_property
    def bands(self) -> tuple[Band, ...]:
        """All bands, finest level first, the approximation last."""
        rows = []
        for level, axes in enumerate(self.axes, 1):
            halvings = sum(self.halvings_to(level))
            count = prod(self.tile_vox) >> halvings
            rows += [Band(level, name, halvings, count) for name in map(_name, range(1, 8)) if _within(name, axes)]
        return (*rows, Band(self.n_levels, "", halvings, count))

    def wavelength_nm(self, level: int, voxel_size_nm: Sequence[float]) -> float:
        """Return the wavelength that labels a level: 2^l times the voxel size, along the finest axis it halves.

        A label: the band of level l holds wavelengths of about 2^l to 2^(l+1) voxels, and Haar's bands overlap.
        """
        size, halvings = as_nm(voxel_size_nm, "voxel size"), self.halvings_to(level)
        return min(size[axis] * float(1 << halvings[axis]) for axis in self.axes[level - 1])

    def whole_tiles(self, shape_ZYX: Sequence[int]) -> Box:
        """Return the largest box of whole tiles that starts at the first voxel; empty where no tile fits."""
        z, y, x = (n // tile * tile for n, tile in zip(as_vec(shape_ZYX), self.tile_vox, strict=True))
        return Box.whole((z, y, x))


def of_sections(levels: int = 8, tile_vox: Sequence[int] | None = None, wavelet: str = "db1") -> Decomposition:
    """Return the decomposition of every section on its own.

    Args:
        levels: L.
        tile_vox: voxels per tile (y, x); default 2^L each, so that the approximation is the mean grey level.
        wavelet: an orthogonal wavelet by PyWavelets' name.

    Raises:
        InputError: see `Decomposition`.
    """
    y, x = (2**levels, 2**levels) if tile_vox is None else tile_vox
    return Decomposition((1, y, x), ((1, 2),) * levels, wavelet)


def of_volume(
    voxel_size_nm: Sequence[float], levels: int, tile_vox: Sequence[int] | None = None, wavelet: str = "db1"
) -> Decomposition:
    """Return the decomposition in three dimensions that keeps coefficients as isotropic as they can be.

    A level halves the axes whose cells are at most sqrt(2) times as long as the shortest, the rule of image
    pyramids. With voxels of 40 x 4 x 4 nm levels 1 to 3 halve y and x only, to cells of 40 x 32 x 32 nm; from
    level 4 on z joins.

    Args:
        voxel_size_nm: (z, y, x) in nm.
        levels: L.
        tile_vox: voxels per tile (z, y, x); default 2 to the number of levels that halve an axis.
        wavelet: an orthogonal wavelet by PyWavelets' name.

    Raises:
        InputError: a voxel size is not positive; see also `Decomposition`.
    """
    cell = list(as_nm(voxel_size_nm, "voxel size"))
    if min(cell) <= 0:
        raise InputError(f"voxel size {tuple(cell)} is not positive: give z, y, x in nm, each above 0")
    axes = []
    for _ in range(levels):
        near = tuple(axis for axis in range(3) if cell[axis] <= sqrt(2) * min(cell) * (1 + 1e-9))
        cell = [size * 2 if axis in near else size for axis, size in enumerate(cell)]
        axes.append(near)
    tile = [2 ** sum(axis in level for level in axes) for axis in range(3)] if tile_vox is None else tile_vox
    return Decomposition(as_vec(tile), tuple(axes), wavelet)


@dataclass(frozen=True, eq=False)
class PairEnergies:
    """Sums over the coefficients of two arrays, per tile and band.

    Attributes:
        sums: [tiles z, y, x, bands, 5]: E_x, E_y, C, sum |c_x|, sum |c_y| (`haar.SUMS`). int64 where they are
            exact: then those of a band are to be divided by 2^halvings, its sums of absolute values by
            2^(halvings / 2). float64 else, as they are.
    """

    sums: Array

    @property
    def exact(self) -> bool:
        """Whether the sums are exact integers."""
        return bool(self.sums.dtype.kind == "i")


def pair_energies(x_ZYX: Array, y_ZYX: Array, decomposition: Decomposition) -> PairEnergies:
    """Return the sums of every tile of two arrays.

    Booleans and integers of 8 bits, and of 16 where levels or tiles are not too many or large (`haar.fits_int64`),
    signed or not, have exact sums under Haar. All else is summed in float64, tile by tile in one fixed order: the
    same bits for a tile in whatever array it comes, and Parseval to about 1e-12.

    Args:
        x_ZYX: the reference [Z, Y, X], numbers of any real type.
        y_ZYX: the output, on the same grid.
        decomposition: what to do.

    Returns:
        the sums; tile (i, j, k) begins at voxel (i, j, k) times the shape of a tile.

    Raises:
        InputError: shapes differ, are not three-dimensional, empty or no whole number of tiles; the numbers are
            complex; or a tile holds NaN or infinity, or values whose squares are.
    """
    tiles = _tiles(x_ZYX, y_ZYX, decomposition)
    depth, dtype = decomposition.tile_vox[0], _work_type(x_ZYX, y_ZYX, decomposition)
    sums = np.zeros((*tiles, len(decomposition.bands), len(SUMS)), np.int64 if dtype.kind in "iu" else np.float64)
    transform = _by_haar if decomposition.wavelet in _HAAR else _by_pywt
    # What has to be converted is so one layer of tiles at a time.
    ready = all(a.dtype == dtype and a.flags.c_contiguous for a in (x_ZYX, y_ZYX))
    step = tiles[0] if ready else 1
    for i in range(0, tiles[0], step):
        x, y = (np.ascontiguousarray(a[i * depth : (i + step) * depth], dtype) for a in (x_ZYX, y_ZYX))
        transform(x, y, decomposition, sums[i : i + step])
    if not np.isfinite(sums).all():
        worst = tuple(int(n) for n in np.argwhere(~np.isfinite(sums))[0][:3])
        raise InputError(
            f"tile {worst} (z, y, x) of {decomposition.tile_vox} voxels holds NaN, infinity or values beyond "
            "1e150: fill such voxels in both volumes, or leave the tile out"
        )
    return PairEnergies(sums)


def diagonal_histogram(x_ZYX: Array) -> Counts:
    """Return how often each ``|a - b - c + d|`` of 2 x 2 voxels of a section occurs.

    It is twice a coefficient of the finest diagonal Haar band, HH1. Histograms of parts add up, and hold the exact
    median of the whole; a last odd row or column is left out.

    Args:
        x_ZYX: integers of up to 16 bits, or booleans.

    Returns:
        int64 [2 (max - min of the type) + 1].

    Raises:
        InputError: other types, or not three-dimensional.
    """
    array = x_ZYX.view(np.uint8) if x_ZYX.dtype.kind == "b" else x_ZYX
    if array.dtype.kind not in "iu" or array.dtype.itemsize > 2 or array.ndim != 3:
        raise InputError(
            f"{array.dtype} {array.shape}: differences are counted in [Z, Y, X] integers of 8 or 16 bits only"
        )
    limits = np.iinfo(array.dtype)
    counts = np.zeros(2 * (int(limits.max) - int(limits.min)) + 1, np.int64)
    for section in array:
        count_diagonal(np.ascontiguousarray(section[None], array.dtype.newbyteorder("=")), counts)
    return counts


def _by_haar(x: Array, y: Array, decomposition: Decomposition, out: Array) -> None:
    """Write the sums of all tiles, [tiles z, y, x, bands, 5]."""
    factors = np.array([[2 if axis in level else 1 for axis in range(3)] for level in decomposition.axes])
    sums = np.zeros((*out.shape[:3], decomposition.n_levels, N_ORIENTATIONS, len(SUMS)), out.dtype)
    haar_sums(x, y, np.array(decomposition.tile_vox), factors, sums)
    for i, band in enumerate(decomposition.bands):
        out[..., i, :] = sums[..., band.level - 1, _number(band.orientation), :]
    if out.dtype.kind == "f":
        halvings = np.array([band.halvings for band in decomposition.bands])
        out[..., :3] = np.ldexp(out[..., :3], -halvings[:, None])
        out[..., 3:] /= np.sqrt(np.exp2(halvings))[:, None]


def _by_pywt(x: Array, y: Array, decomposition: Decomposition, out: Array) -> None:
    """Write the sums of all tiles, [tiles z, y, x, bands, 5]."""
    tile = decomposition.tile_vox
    for place in np.ndindex(out.shape[:3]):
        where = tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, tile, strict=True))
        of_x, of_y = (_coefficients(a[where], decomposition) for a in (x, y))
        with np.errstate(all="ignore"):  # what is not finite is told, with its tile, by the caller
            for b, (u, v) in enumerate(zip(of_x, of_y, strict=True)):
                # Not u @ v, which BLAS sums in an order that depends on its threads, and is late to start.
                out[(*place, b)] = [w.sum() for w in (u * u, v * v, u * v, np.abs(u), np.abs(v))]


def _coefficients(tile: Array, decomposition: Decomposition) -> list[Array]:
    """Return the coefficients of every band, flat."""
    out, means = [], tile
    for axes in decomposition.axes:
        parts = pywt.dwtn(means, decomposition.wavelet, mode="periodization", axes=axes)
        keys = {"".join(AXES[a] for a, c in zip(axes, key, strict=True) if c == "d"): key for key in parts}
        out += [parts[keys[name]].ravel() for name in map(_name, range(1, 8)) if name in keys]
        means = parts["a" * len(axes)]
    return [*out, means.ravel()]


def _tiles(x: Array, y: Array, decomposition: Decomposition) -> Vec:
    """Return the number of tiles along each axis, once the arrays were found in order."""
    if x.shape != y.shape or x.ndim != 3:
        raise InputError(
            f"the reference is {x.shape} and the output {y.shape}: give two [Z, Y, X] arrays on one grid; crop "
            "the larger, or resample one to the other's voxels"
        )
    if x.dtype.kind == "c" or y.dtype.kind == "c" or x.dtype.kind not in "biuf" or y.dtype.kind not in "biuf":
        raise InputError(f"{x.dtype} and {y.dtype}: give real numbers")
    for axis, (n, tile) in enumerate(zip(x.shape, decomposition.tile_vox, strict=True)):
        if n % tile or not n:
            crop = f"crop to {n // tile * tile} or " if n >= tile else ""
            raise InputError(
                f"{n} voxels along {AXES[axis]} are no whole number of tiles of {tile}: {crop}pad to "
                f"{_next(n, tile)}; {n} voxels can be halved {_twos(n)} times, the largest number of levels "
                "without either"
            )
    z, y_, x_ = (n // tile for n, tile in zip(x.shape, decomposition.tile_vox, strict=True))
    return (z, y_, x_)


def _work_type(x: Array, y: Array, decomposition: Decomposition) -> np.dtype[Any]:
    """Return the integer type in which sums are exact, or float64."""
    kinds = [np.dtype(np.uint8) if a.dtype.kind == "b" else a.dtype for a in (x, y)]
    common = np.result_type(*kinds).newbyteorder("=")
    halvings = sum(decomposition.halvings)
    exact = decomposition.wavelet in _HAAR and fits_int64(common, decomposition.tile_vox, halvings)
    return common if exact else np.dtype(np.float64)


def _require_orthogonal(name: str) -> None:
    known = pywt.wavelist(kind="discrete")
    if name not in known and name not in _HAAR:
        near = did_you_mean(name, known)
        raise InputError(f"wavelet {name!r} is not known to PyWavelets{near}; 'db1', 'db2' and 'sym4' are")
    # dmey calls itself orthogonal, but is cut off: six levels of it miss the energy by 0.6 % (measured).
    if not pywt.Wavelet(name).orthogonal or name == "dmey":
        raise InputError(
            f"wavelet {name!r} is not orthogonal, so energies do not add up: use 'db1', 'db2' or 'sym4'"
        )


def _name(number: int) -> str:
    return "".join(axis for axis, bit in zip(AXES, (4, 2, 1), strict=True) if number & bit)


def _number(name: str) -> int:
    return sum({"z": 4, "y": 2, "x": 1}[axis] for axis in name)


def _within(name: str, axes: Sequence[int]) -> bool:
    return {AXES.index(axis) for axis in name} <= set(axes)


def _twos(n: int) -> int:
    """Return how often a number can be halved."""
    return (n & -n).bit_length() - 1 if n > 0 else 0


def _next(n: int, multiple: int) -> int:
    return max(1, -(-n // multiple)) * multiple
