"""Measuring a stack for quality control, block by block.

::

    measure    raw -> measure/tiles.zarr              one voxel per tile of a section: `CHANNELS`
                      measure/z_y_x.parquet           per section: sums over the block
                      measure/z_y_x.levels.parquet    per section: how often each grey level occurs
                      measure/z_y_x.patches.parquet   per section: how it lies on the next two

A block is one *patch* of some sections: 1024 voxels along y and x, or a little more, and 16 along z. Bands, seams
and shifts are looked for inside patches; patches lie on one lattice, so no result depends on the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block, Box, Grid, Vec, blocks
from emloom.geometry.grid import Vec3
from emloom.io.open import create_volume, open_volume
from emloom.io.tables import Column, write_table
from emloom.io.volume import Volume, VolumeInfo
from emloom.ops import bands, sections
from emloom.ops.registration import shift_between, spectrum
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output

STAGE = "measure"
DEPTH, PATCH = 16, 1024
CHANNELS = ("void", "mean", "variance", "fine", "coarse", "own", "next", "next_but_one", "crack", "fold", "seam")
"""Of `tiles.zarr`: part that is void; mean and variance of voxels; V(2) - V(1) and V(8) - V(1); variance of cells,
and their covariances with the next section and the one after; parts that are cracks and folds; whether a seam
crosses."""
CELL_NM = 16.0


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
class _Section:
    """A section of a patch, and what several steps need of it."""

    grey: NDArray[Any]
    factor: int
    line: int
    """Pixels of half the resolution of cells that a band is long."""

    @cached_property
    def void(self) -> NDArray[np.bool_]:
        return sections.void_windows(self.grey)

    @cached_property
    def cells(self) -> NDArray[np.int64]:
        return sections.cells_of(self.grey, self.factor)

    @cached_property
    def void_cells(self) -> NDArray[np.bool_]:
        """Void on the lattice of cells."""
        return resized(self.void, sections.VOID_VOX, self.factor, self.cells.shape)

    @cached_property
    def standard(self) -> NDArray[np.float64]:
        return bands.standardised(self.cells, self.void_cells)

    @cached_property
    def scale(self) -> float:
        """Standard deviations per grey value of a cell; 0 where all are the same."""
        seen = self.cells[~self.void_cells]
        low, high = np.percentile(seen, (25, 75)) if seen.size else (0.0, 0.0)
        return 1.349 / float(high - low) if high > low else 0.0

    @cached_property
    def half(self) -> NDArray[np.float64]:
        return bands.halved(self.standard)

    @cached_property
    def band_spectrum(self) -> NDArray[np.complex128]:
        return bands.band_spectrum(self.half, self.line)

    @cached_property
    def spectrum(self) -> NDArray[np.complex128]:
        return spectrum(self.standard)


def resized(mask_YX: NDArray[np.bool_], own: int, other: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return a mask of squares of `own` voxels on a lattice of squares of `other`: what their first voxels say.

    A lattice that reaches a little further, because its last squares are partial, goes on as the mask ends.
    """
    y, x = (np.minimum(np.arange(n) * other // own, m - 1) for n, m in zip(shape, mask_YX.shape, strict=True))
    return mask_YX[np.ix_(y, x)]


@dataclass(frozen=True)
class Measure:
    """Measures one block.

    Attributes:
        stack: what.
        folder: of the result.
    """

    stack: Stack
    folder: Path

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the tiles and the tables of a block."""
        stack, box = self.stack, block.write
        seen = box.grow((1, 0, 0), (2, 0, 0)).intersect(stack.info.box)
        raw = stack.volume.read(seen)
        around = {seen.start[0] + k: _Section(section, stack.factor, stack.line) for k, section in enumerate(raw)}
        rows, levels, patches, tiles = [], [], [], []
        for z in range(box.start[0], box.stop[0]):
            patch = _Patch(stack, around, z, box)
            voxels = sections.voxel_sums(patch.here.grey, patch.here.void, stack.tile_vox)
            tiles.append(patch.tiles(voxels))
            rows.append({"z": z, **patch.sums(voxels)})
            levels.append(sections.count_levels(patch.here.grey, patch.here.void))
            patches += patch.shifts()
        array = np.ascontiguousarray(np.stack(tiles, axis=1).astype(np.float32))
        where = stack.lattice(box)
        open_volume(tiles_path(self.folder), writable=True).write(where, array)
        tables = {
            "": _columns(rows),
            "levels": _sparse(box.start[0], levels),
            "patches": _columns(patches, _PATCH),
        }
        outputs = [Output.voxels(f"{STAGE}/tiles.zarr", where, array)]
        for part, table in tables.items():
            path = table_path(self.folder, block.index, part)
            write_table(path, table)
            outputs.append(Output.file(self.folder, str(path.relative_to(self.folder))))
        return outputs


_PATCH = {
    "z": np.int64,
    "lag": np.int64,
    "cells": np.int64,
    **dict.fromkeys(("y", "x", "after", "before"), np.float64),
}


@dataclass(frozen=True)
class _Patch:
    """One section of a block, with those around it."""

    stack: Stack
    around: dict[int, _Section]
    z: int
    box: Box

    @property
    def here(self) -> _Section:
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
        grey, void = self.here.grey.astype(np.float64), self.here.void
        if void.all():
            return out
        if void.any():
            y, x = (np.arange(n) // sections.VOID_VOX for n in grey.shape)
            hidden = void[np.ix_(y, x)]
            grey[hidden] = np.median(grey[~hidden])
        for seam in bands.seams(grey, self.stack.tile_vox, float(grey.std())):
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


_LEAST_CELLS = 16
_LITTLE_VOID = 0.005  # saturated spots; more of it makes lines


def _fitted(values: NDArray[Any], shape: tuple[int, ...], fill: float = np.nan) -> NDArray[np.float64]:
    """Return values on a lattice that may have one more row or column, of tiles without a whole cell."""
    out = np.full(shape, fill)
    out[: values.shape[0], : values.shape[1]] = values
    return out


def _divided(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    out: NDArray[np.float64] = np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0)
    return out


def _columns(rows: list[dict[str, Any]], types: dict[str, Any] | None = None) -> dict[str, Column]:
    names = types or dict.fromkeys(rows[0], np.int64)
    return {name: np.array([row[name] for row in rows], dtype) for name, dtype in names.items()}


def _sparse(first: int, levels: list[NDArray[np.int64]]) -> dict[str, Column]:
    found = [np.flatnonzero(counts) for counts in levels]
    return {
        "z": np.repeat(np.arange(len(found)) + first, [len(f) for f in found]),
        "level": np.concatenate(found),
        "count": np.concatenate([counts[f] for counts, f in zip(levels, found, strict=True)]),
    }


def tiles_path(folder: Path) -> Path:
    """Return the volume of the tiles."""
    return folder / STAGE / "tiles.zarr"


def table_path(folder: Path, index: Vec, part: str = "") -> Path:
    """Return a table of a block."""
    return folder / STAGE / f"{name_of(index)}{'.' + part if part else ''}.parquet"


def make_tiles(stack: Stack, folder: Path) -> None:
    """Make the volume of the tiles, empty, where it is not there yet."""
    if not tiles_path(folder).exists():
        create_volume(tiles_path(folder), stack.tile_info(np.float32, len(CHANNELS)))
