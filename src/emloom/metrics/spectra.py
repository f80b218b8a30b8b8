"""Tables of wavelet energies of a reference and an output: one row per tile, one column per level and orientation.

Rows of disjoint tiles go together (`concatenate`), rows of neighbouring tiles add up (`Spectra.coarsened`).
Integer tables (8-bit data under Haar, see `ops.wavelets`) stay integers, and their totals are Python's, which know
no limit: nothing is rounded before the last division. Rows of float tables are float64, and their totals correctly
rounded (`math.fsum`). Either way rows are kept in the order of their tiles: the table, and all that is read from
it, has the same bits whatever blocks of whole tiles it was made in, in whatever order.

A volume of 10^12 voxels has 15 million tiles of 256 x 256 voxels and its table 15 GB: coarsen the rows of a block
before they are put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.box import as_vec
from emloom.geometry.grid import Vec3, as_nm
from emloom.ops.wavelets import Band, Decomposition, pair_energies

Array = NDArray[Any]
F64 = NDArray[np.float64]
Rows = NDArray[np.int64]

_LOW = 32
_MASK = (1 << _LOW) - 1
ENERGY_X, ENERGY_Y, CROSS, ABS_X, ABS_Y = range(5)
"""Columns of `Spectra.sums`."""


@dataclass(frozen=True, eq=False)
class Spectra:
    """Sums of wavelet coefficients of a pair, per tile and band.

    Attributes:
        decomposition: what was done; `bands` are the columns.
        voxel_size_nm: (z, y, x).
        tiles: int64 [T, 3], place (z, y, x) of each tile in the lattice of tiles; increasing, no two alike.
        n_tiles: int64 [T], tiles in each row; 1 unless coarsened.
        sums: [T, B, 5]: E_x, E_y, C, sum |c_x|, sum |c_y|; int64 or float64, see `PairEnergies`.
    """

    decomposition: Decomposition
    voxel_size_nm: Vec3
    tiles: Rows
    n_tiles: Rows
    sums: Array

    @property
    def bands(self) -> tuple[Band, ...]:
        """The columns: finest level first, the approximation last."""
        return self.decomposition.bands

    @property
    def exact(self) -> bool:
        """Whether the sums are exact integers."""
        return bool(self.sums.dtype.kind == "i")

    def columns(self, level: int, orientation: str | None = None) -> list[int]:
        """Return the numbers of a level's bands, or of the one of an orientation.

        The orientation "" of the last level is the approximation, which belongs to no level otherwise.

        Raises:
            InputError: there is no such band.
        """
        found = [
            i
            for i, band in enumerate(self.bands)
            if band.level == level
            and (band.orientation == orientation or (orientation is None and band.orientation))
        ]
        if not found:
            names = sorted({band.orientation for band in self.bands[:-1]})
            raise InputError(
                f"there is no band of level {level} and orientation {orientation!r}: levels are 1 (finest) to "
                f"{self.decomposition.n_levels}, orientations {names}"
            )
        return found

    def energies(self, columns: Sequence[int]) -> F64:
        """Return E_x, E_y, C and sum (c_y - c_x)^2 of every row over some bands of one level, float64 [T, 4].

        The last is exact for integers, where it is small against the first two.
        """
        sums = self.sums[:, list(columns), : CROSS + 1].sum(axis=1)
        if self.exact:
            # It is below 2^64, while its parts may pass 2^63 on the way: unsigned arithmetic gives it all the
            # same.
            u = sums.view(np.uint64)
            residual = u[:, ENERGY_X] + u[:, ENERGY_Y] - (u[:, CROSS] << np.uint64(1))
        else:
            residual = np.maximum(sums[:, ENERGY_X] + sums[:, ENERGY_Y] - 2 * sums[:, CROSS], 0)
        out = np.column_stack([sums.astype(np.float64), residual.astype(np.float64)])
        scaled: F64 = np.ldexp(out, -self._halvings(columns))
        return scaled

    def totals(self, columns: Sequence[int]) -> tuple[float, float, float, float]:
        """Return E_x, E_y, C and sum (c_y - c_x)^2 of all rows over some bands of one level, each rounded once."""
        if not self.exact:
            x, y, c, residual = (fsum(column) for column in self.energies(columns).T.tolist())
            return x, y, c, residual
        scale = 1 << self._halvings(columns)
        x, y, c = (_total(self.sums[:, list(columns), k]) for k in (ENERGY_X, ENERGY_Y, CROSS))
        return x / scale, y / scale, c / scale, (x + y - 2 * c) / scale

    def normalised_sums(self, level: int, orientation: str | None = None) -> tuple[float, float]:
        """Return the mean of |c_x| and of |c_y| over a level's coefficients, all orientations or one.

        Raises:
            InputError: there is no such band.
        """
        columns = self.columns(level, orientation)
        count = sum(self.bands[i].n_coefficients for i in columns) * int(self.n_tiles.sum())
        x, y = (self._abs_total(columns, k) / count if count else float("nan") for k in (ABS_X, ABS_Y))
        return x, y

    def coarsened(self, factor: int | Sequence[int]) -> Spectra:
        """Return the table with the rows of `factor` (z, y, x) neighbouring tiles added up.

        For intervals, when tiles are smaller than what varies independently; and for large volumes. Blocks that
        are coarsened before they are put together have to be aligned to the factor.

        Raises:
            InputError: a factor is below 1, or integer sums would leave 64 bits.
        """
        by = as_vec(factor)
        if min(by) < 1:
            raise InputError(f"factor {by}: give how many tiles (z, y, x) become one, each at least 1")
        places, inverse = np.unique(self.tiles // np.array(by, np.int64), axis=0, return_inverse=True)
        group = inverse.reshape(-1)
        n_tiles = np.zeros(len(places), np.int64)
        np.add.at(n_tiles, group, self.n_tiles)
        if self.exact and len(places):
            of_tile = float(
                np.abs(self.sums).astype(np.float64).sum(axis=1).max()
            )  # all bands of a level, and more
            if of_tile * int(np.bincount(group).max()) > 1 << 61:
                raise InputError(f"sums over {by} tiles could leave 64 bits: coarsen by less")
        sums = np.zeros((len(places), *self.sums.shape[1:]), self.sums.dtype)
        np.add.at(sums, group, self.sums)
        return replace(self, tiles=places, n_tiles=n_tiles, sums=sums)

    def _halvings(self, columns: Sequence[int]) -> int:
        """Return the power of two that the sums of bands of one level are to be divided by."""
        levels = {self.bands[i].level for i in columns}
        if len(levels) != 1:
            raise ValueError(f"bands of levels {sorted(levels)} have different units")
        return self.bands[columns[0]].halvings if self.exact else 0

    def _abs_total(self, columns: Sequence[int], k: int) -> float:
        values = self.sums[:, list(columns), k]
        if not self.exact:
            return fsum(values.ravel().tolist())
        return _total(values) / sqrt(1 << self._halvings(columns))


def spectra(
    x_ZYX: Array,
    y_ZYX: Array,
    decomposition: Decomposition,
    voxel_size_nm: Sequence[float],
    first_tile: Sequence[int] = (0, 0, 0),
) -> Spectra:
    """Return the table of a pair of arrays, or of a block of them.

    Args:
        x_ZYX: the reference [Z, Y, X].
        y_ZYX: the output, on the same grid.
        decomposition: `ops.wavelets.of_sections()` or `of_volume(...)`.
        voxel_size_nm: (z, y, x).
        first_tile: place (z, y, x) of the arrays' first tile in the lattice of tiles, for a block of a volume.

    Raises:
        InputError: see `ops.wavelets.pair_energies`; or a voxel size is not positive.
    """
    size = as_nm(voxel_size_nm, "voxel size")
    if min(size) <= 0:
        raise InputError(f"voxel size {size} is not positive: give z, y, x in nm, each above 0")
    sums = pair_energies(x_ZYX, y_ZYX, decomposition).sums
    places = np.indices(sums.shape[:3]).reshape(3, -1).T + np.array(as_vec(first_tile))
    tiles = places.astype(np.int64)
    return Spectra(
        decomposition, size, tiles, np.ones(len(tiles), np.int64), sums.reshape(len(tiles), *sums.shape[3:])
    )


def concatenate(tables: Sequence[Spectra]) -> Spectra:
    """Return one table of all tiles of several, in the order of the tiles.

    Raises:
        InputError: no table; tables of different decompositions, voxel sizes or kinds of numbers; or two of them
            hold the same tile.
    """
    if not tables:
        raise InputError("there is no table: give one per block")
    first = tables[0]
    for table in tables:
        mine, its = ((t.decomposition, t.voxel_size_nm, str(t.sums.dtype)) for t in (first, table))
        if mine != its:
            raise InputError(
                f"tables differ in decomposition, voxel size or type: {mine} and {its}; make them alike, from "
                "volumes of one type"
            )
    tiles = np.concatenate([table.tiles for table in tables])
    order = np.lexsort(tiles.T[::-1])
    tiles = tiles[order]
    twice = np.flatnonzero((tiles[1:] == tiles[:-1]).all(axis=1))
    if twice.size:
        place = tuple(tiles[twice[0]].tolist())
        raise InputError(f"tile {place} (z, y, x) is in two tables: blocks may not overlap, nor be given twice")
    n_tiles = np.concatenate([table.n_tiles for table in tables])[order]
    return replace(first, tiles=tiles, n_tiles=n_tiles, sums=np.concatenate([t.sums for t in tables])[order])


def _total(values: Array) -> int:
    """Return the sum of up to 2^31 integers of 64 bits, exactly."""
    low = (values & _MASK).sum(dtype=np.int64)
    return (int((values >> _LOW).sum(dtype=np.int64)) << _LOW) + int(low)
