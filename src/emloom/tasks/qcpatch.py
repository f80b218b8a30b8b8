"""A stack under quality control, and what is measured of one patch of one section.

A *patch* is what bands, seams and shifts are looked for in: 1024 voxels along y and x, or a little more, in whole
tiles. Patches lie on one lattice, so no result depends on the blocks. *Cells* are bins of about 16 nm, in which
sections are compared: noise averages out in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block, Box, Grid, blocks
from emloom.geometry.grid import Vec3
from emloom.io.open import open_volume
from emloom.io.volume import Volume, VolumeInfo
from emloom.ops import bands, sections
from emloom.ops.registration import shift_between, spectrum

DEPTH, PATCH = 16, 1024
"""Voxels of a block along z; and along y and x, about."""
CHANNELS = ("void", "mean", "variance", "fine", "coarse", "own", "next", "next_but_one", "crack", "fold", "seam")
"""Of `tiles.zarr`: part that is void; mean and variance of voxels; V(2) - V(1) and V(8) - V(1); variance of cells,
and their covariances with the next section and the one after; parts that are cracks and folds; whether a seam
crosses."""
CELL_NM = 16.0
_LEAST_CELLS = 16
_LITTLE_VOID = 0.005  # saturated spots; more of it makes lines


@dataclass(frozen=True)
class Stack:
    """A stack, and how it is cut.

    Attributes:
        raw: path.
        voxel_size_nm: where the file does not state it.
        tile_vox: voxels along the side of a tile.
        band_nm: least length of cracks and folds.
    """

    raw: str
    voxel_size_nm: Vec3 | None
    tile_vox: int
    band_nm: float

    def __reduce__(self) -> tuple[Any, ...]:
        # What is open stays here: workers open it themselves.
        return Stack, (self.raw, self.voxel_size_nm, self.tile_vox, self.band_nm)

    @cached_property
    def volume(self) -> Volume:
        """Open it.

        Raises:
            InputError: channels, an empty stack, or voxels that are no integers of 8 or 16 bits.
        """
        volume = open_volume(self.raw, voxel_size_nm=self.voxel_size_nm, kind="raw")
        info = volume.info
        if info.channels is not None:
            raise InputError(
                f"{self.raw} has {info.channels} channels: quality control looks at one, export it first"
            )
        if info.box.is_empty:
            raise InputError(f"{self.raw} holds no voxel (shape {info.shape})")
        if info.dtype.kind not in "iu" or info.dtype.itemsize > 2:
            raise InputError(
                f"{self.raw} holds {info.dtype}: quality control counts grey values of 8 or 16 bits, as "
                "microscopes write them; give the stack as it was recorded, or scale it to uint16 first"
            )
        return volume

    @property
    def info(self) -> VolumeInfo:
        """What the stack says about itself."""
        return self.volume.info

    @property
    def patch_vox(self) -> int:
        """Voxels along the side of a patch: whole tiles."""
        return -(-PATCH // self.tile_vox) * self.tile_vox

    @property
    def factor(self) -> int:
        """Voxels along the side of a cell: 1, 2, 4, 8 or 16, whatever is nearest to 16 nm."""
        _, y, x = self.info.grid.voxel_size_nm
        return int(2 ** np.clip(np.rint(np.log2(CELL_NM / np.sqrt(y * x))), 0, 4))

    @property
    def cell_nm(self) -> float:
        """Length of a cell."""
        _, y, x = self.info.grid.voxel_size_nm
        return float(self.factor * np.sqrt(y * x))

    @property
    def line(self) -> int:
        """Least length of a fold, in pixels of two cells."""
        return max(8, round(self.band_nm / (2 * self.cell_nm)))

    def cells(self) -> list[Block]:
        """Return the blocks."""
        return blocks(self.info.box, (DEPTH, self.patch_vox, self.patch_vox))

    def lattice(self, box: Box) -> Box:
        """Return the tiles that a box of voxels meets."""
        return box.coarsen((1, self.tile_vox, self.tile_vox))

    def tile_info(self, dtype: Any, channels: int | None = None, kind: Any = None) -> VolumeInfo:
        """Return what a volume of one voxel per tile says about itself."""
        info, side = self.info, self.patch_vox // self.tile_vox
        z, y, x = info.grid.voxel_size_nm
        grid = Grid((z, y * self.tile_vox, x * self.tile_vox), info.grid.offset_nm)
        return VolumeInfo(
            self.lattice(info.box).shape, np.dtype(dtype), grid, channels, chunks=(DEPTH, side, side), kind=kind
        )


@dataclass(frozen=True)
class GreySection:
    """A section of a patch, and what several steps need of it.

    Attributes:
        grey: its voxels [Y, X].
        factor: voxels along the side of a cell.
        line: least length of a fold, in pixels of two cells.
    """

    grey: NDArray[Any]
    factor: int
    line: int

    @cached_property
    def void(self) -> NDArray[np.bool_]:
        """Windows of one value."""
        return sections.void_windows(self.grey)

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        """Sums of cells."""
        return sections.cells_of(self.grey, self.factor)

    @cached_property
    def void_cells(self) -> NDArray[np.bool_]:
        """Void on the lattice of cells."""
        return resized(self.void, sections.VOID_VOX, self.factor, self.cells.shape)

    @cached_property
    def standard(self) -> NDArray[np.float64]:
        """Cells with a median of 0 and a spread of 1."""
        return bands.standardised(self.cells, self.void_cells)

    @cached_property
    def scale(self) -> float:
        """Standard deviations per grey value of a cell; 0 where all are the same."""
        seen = self.cells[~self.void_cells]
        low, high = np.percentile(seen, (25, 75)) if seen.size else (0.0, 0.0)
        return 1.349 / float(high - low) if high > low else 0.0

    @cached_property
    def half(self) -> NDArray[np.float64]:
        """The same at half the resolution."""
        return bands.halved(self.standard)

    @cached_property
    def band_spectrum(self) -> NDArray[np.complex128]:
        """What bands are looked for in."""
        return bands.band_spectrum(self.half, self.line)

    @cached_property
    def spectrum(self) -> NDArray[np.complex128]:
        """What shifts are looked for in."""
        return spectrum(self.standard)


def resized(mask_YX: NDArray[np.bool_], own: int, other: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return a mask of squares of `own` voxels on a lattice of squares of `other`: what their first voxels say.

    A lattice that reaches a little further, because its last squares are partial, goes on as the mask ends.
    """
    y, x = (np.minimum(np.arange(n) * other // own, m - 1) for n, m in zip(shape, mask_YX.shape, strict=True))
    return mask_YX[np.ix_(y, x)]


@dataclass(frozen=True)
class Patch:
    """One section of a block, with those around it.

    Attributes:
        stack: what is measured.
        around: sections by z: the one before, itself, and two after, as far as there are any.
        z: of the section.
        box: of the block.
    """

    stack: Stack
    around: dict[int, GreySection]
    z: int
    box: Box

    @property
    def here(self) -> GreySection:
        """The section itself."""
        return self.around[self.z]

    def tiles(self, voxels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the channels of every tile, [C, Y, X]."""
        word = {name: voxels[..., k].astype(np.float64) for k, name in enumerate(sections.VOXEL_SUMS)}
        mean = word["sum"] / word["n"]
        lags = [_divided(word[f"steps_{k}"], word[f"pairs_{k}"]) for k in sections.LAGS]
        shape = voxels.shape[:2]
        out = [word["void"] / word["n"], mean, word["squares"] / word["n"] - mean**2]
        out += [lags[1] - lags[0], lags[2] - lags[0]]
        out += [_fitted(self._covariance(lag), shape) for lag in (0, 1, 2)]
        crack, fold = self._bands()
        out += [self._share(mask, own, shape) for mask, own in (crack, fold)]
        return np.stack([*out, self._seams(voxels, shape)])

    def _covariance(self, lag: int) -> NDArray[np.float64]:
        """Return the covariance of cells with a later section, NaN where either has void or there is none."""
        side = self.stack.tile_vox // self.stack.factor
        other = self.around.get(self.z + lag)
        here = self.here.cells
        shape = tuple(sections.tiles_along(n, side) for n in here.shape)
        if other is None or 0 in shape:
            return np.full(shape, np.nan)
        y, x = (np.minimum(side, n - np.arange(m) * side) for n, m in zip(here.shape, shape, strict=True))
        out = sections.covariances(here, other.cells, side) / np.square(np.outer(y, x).astype(np.float64))
        void = np.add.reduceat(
            np.add.reduceat(self.here.void_cells | other.void_cells, np.arange(0, here.shape[0], side), axis=0),
            np.arange(0, here.shape[1], side), axis=1,
        )  # fmt: skip
        out[void > 0] = np.nan
        return out

    def _bands(self) -> tuple[tuple[NDArray[np.bool_], int], tuple[NDArray[np.bool_], int]]:
        """Return cracks and folds, each with the voxels along the side of its squares."""
        stack, whole = self.stack, self.stack.info.shape
        edges = bands.Edges(
            self.box.start[1] == 0,
            self.box.stop[1] == whole[1],
            self.box.start[2] == 0,
            self.box.stop[2] == whole[2],
        )
        _, y, x = stack.info.grid.voxel_size_nm
        crack = bands.cracks(self.here.void, edges, stack.band_nm / (sections.VOID_VOX * float(np.sqrt(y * x))))
        crack = self._of_this_section(crack)
        before, after = self.around.get(self.z - 1), self.around.get(self.z + 1)
        fold = np.zeros(self.here.cells.shape, np.bool_)
        if before is not None and after is not None and min(fold.shape) >= _LEAST_CELLS:
            spectra = (self.here.band_spectrum, before.band_spectrum, after.band_spectrum)
            found = bands.lone_bands(self.here.half, spectra, self.here.line)
            lone, fold = (resized(mask, 2, 1, fold.shape) for mask in found)
            crack = crack | resized(lone, stack.factor, sections.VOID_VOX, crack.shape)
        return (crack, sections.VOID_VOX), (fold, stack.factor)

    def _of_this_section(self, crack: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return void bands but those where the tissue itself is black or white, in the neighbours as well."""
        cells = self.here.cells
        if not crack.any() or 0 in cells.shape:
            return crack
        band = resized(crack, sections.VOID_VOX, self.stack.factor, cells.shape)
        middle = [float(np.median(cells[mask])) if mask.any() else 0.0 for mask in (band, ~self.here.void_cells)]
        neighbours = [self.around[k].standard for k in (self.z - 1, self.z + 1) if k in self.around]
        kept = bands.strangers(band, (middle[0] - middle[1]) * self.here.scale, neighbours)
        return crack & resized(kept, self.stack.factor, sections.VOID_VOX, crack.shape)

    def _share(self, mask: NDArray[np.bool_], own: int, shape: tuple[int, ...]) -> NDArray[np.float64]:
        side = self.stack.tile_vox // own
        if not mask.any():
            return np.zeros(shape)
        sums = np.add.reduceat(np.add.reduceat(mask.astype(np.int64), np.arange(0, mask.shape[0], side), axis=0),
                               np.arange(0, mask.shape[1], side), axis=1)  # fmt: skip
        return _fitted(sums / side**2, shape, 0.0)

    def _seams(self, voxels: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.float64]:
        out = np.zeros(shape)
        n, total, squares = (int(voxels[..., k].sum()) for k in range(3))
        spread = float(np.sqrt(n * squares - total**2)) / n
        strips = sections.strip_means(self.here.grey, self.here.void, self.stack.tile_vox)
        for seam in bands.seams(strips, spread):
            at = seam.at // self.stack.tile_vox
            out[(at, slice(None)) if seam.axis == 0 else (slice(None), at)] = 1.0
        return out

    def sums(self, voxels: NDArray[np.int64]) -> dict[str, int]:
        """Return whole numbers that add up over patches."""
        clean = voxels[..., sections.VOXEL_SUMS.index("void")] == 0
        out = {name: int(voxels[..., k].sum()) for k, name in enumerate(sections.VOXEL_SUMS[:5])}
        for k, name in enumerate(sections.VOXEL_SUMS[5:], start=5):
            out[name] = int(voxels[..., k][clean].sum())
        after = self.around.get(self.z + 1)
        out["differing"] = -1 if after is None else int(np.count_nonzero(self.here.grey != after.grey))
        rows, columns = (0, 0) if self.here.void.mean() > _LITTLE_VOID else sections.line_steps(self.here.grey)
        return {**out, "row_steps": rows, "column_steps": columns}

    def shifts(self) -> list[dict[str, float]]:
        """Return how this section lies on the next two."""
        out = []
        for lag in (1, 2):
            other = self.around.get(self.z + lag)
            if other is None or min(self.here.cells.shape) < _LEAST_CELLS:
                continue
            spectra = (self.here.spectrum, other.spectrum)
            found = shift_between(self.here.standard, other.standard, spectra)
            out.append(
                {
                    "z": self.z, "lag": lag, "cells": self.here.cells.size, "y": found.y, "x": found.x,
                    "after": found.correlation, "before": found.before,
                }
            )  # fmt: skip
        return out


def _fitted(values: NDArray[Any], shape: tuple[int, ...], fill: float = np.nan) -> NDArray[np.float64]:
    """Return values on a lattice that may have one more row or column, of tiles without a whole cell."""
    out = np.full(shape, fill)
    out[: values.shape[0], : values.shape[1]] = values
    return out


def _divided(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)
    return out
