"""Where a stack is bad: a low-resolution map of every tile, and a mask on the grid of the raw.

::

    map.zarr     measure/tiles.zarr, flags -> map.zarr/code, map.zarr/score     one voxel per tile
    mask.zarr    map.zarr/code             -> mask.zarr                         one voxel per voxel of the raw

A tile is compared with the same place in the two sections next to it. Defects are in one section, tissue goes on:
what matters is a difference from *both*. Tiles are judged together with the eight around them, because one alone
may hold nothing but cytoplasm.

Codes are those of `emloom.tasks.qcspec`; where several are found, the lowest. `score` is 128 at the limit of the
rule that is closest to it, or furthest beyond, and 255 at twice the limit and more; whole sections that are bad
score by their flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Block, Box, blocks
from emloom.io.open import create_volume, open_volume
from emloom.io.tables import read_table, write_table
from emloom.io.volume import VolumeInfo
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.qcmeasure import CHANNELS, DEPTH, Stack, tiles_path
from emloom.tasks.qcspec import CODES, ArtifactsSpec, Defect

MAP, MASK = "map.zarr", "mask.zarr"
COUNTS = "counts"
SECTIONS = "sections.parquet"
F64 = NDArray[np.float64]

_TILES = 64  # of a block of the map, along y and x
_VOID = 0.5  # part of a tile that is void, from which on it is blank
_SHARP = 0.4  # less than this part of the sharpness of the less sharp neighbour is blurred
_FAINT = 0.15  # the same of the variance of cells: low contrast
_BETWEEN = 0.35  # as in `qcrules`, of tiles, which vary more
_TONE = 1.75  # standard deviations of tissue


@dataclass(frozen=True)
class JudgeTiles:
    """Judges the tiles of one block of the map.

    Attributes:
        stack: what was measured.
        folder: of the result.
        artifacts: what a learned detector found.
    """

    stack: Stack
    folder: Path
    artifacts: ArtifactsSpec | None = None

    @property
    def whole(self) -> Box:
        """The lattice of tiles."""
        return self.stack.lattice(self.stack.info.box)

    def cells(self) -> list[Block]:
        """Return the blocks: a whole number of the patches that were measured."""
        return blocks(self.whole, (DEPTH, _TILES, _TILES), (1, 1, 1))

    def make(self) -> None:
        """Make the volumes, empty, where they are not there yet."""
        for name, kind in (("code", "labels"), ("score", "probabilities")):
            if not (self.folder / MAP / name).exists():
                create_volume(self.folder / MAP / name, self.stack.tile_info(np.uint8, kind=kind))

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the codes and scores of a block."""
        seen = block.read.intersect(self.whole)
        tiles = open_volume(tiles_path(self.folder)).read(seen).astype(np.float64)
        ratio = tile_ratios(dict(zip(CHANNELS, tiles, strict=True)))
        own = block.write.slices(seen.start)
        worst = {name: values[own] for name, values in ratio.items()}
        if self.artifacts is not None:
            worst["artifact"] = (
                probabilities_at(self.stack, self.artifacts, block.write) / self.artifacts.threshold
            )
        code, score = _coded(worst)
        self._add_sections(block.write, code, score)
        outputs = []
        for name, array in (("code", code), ("score", score)):
            open_volume(self.folder / MAP / name, writable=True).write(block.write, array)
            outputs.append(Output.voxels(f"{MAP}/{name}", block.write, array))
        path = self.folder / COUNTS / f"{name_of(block.index)}.parquet"
        write_table(path, self._counted(block.write, code))
        return [*outputs, Output.file(self.folder, str(path.relative_to(self.folder)))]

    def _counted(self, box: Box, code: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """Return how many tiles, and voxels, of every section have each code."""
        side, whole = self.stack.tile_vox, self.stack.info.shape
        tiles = [np.arange(a, b) for a, b in zip(box.start[1:], box.stop[1:], strict=True)]
        y, x = (np.minimum(side, n - at * side) for at, n in zip(tiles, whole[1:], strict=True))
        voxels, rows = np.outer(y, x), []
        for k, section in enumerate(code):
            for mark in np.flatnonzero(np.bincount(section.reshape(-1), minlength=256)).tolist():
                here = section == mark
                rows.append((box.start[0] + k, mark, int(here.sum()), int(voxels[here].sum())))
        columns = np.array(rows, np.int64).reshape(-1, 4).T
        return dict(zip(("z", "code", "tiles", "voxels"), columns, strict=True))

    def read(self) -> dict[str, NDArray[np.int64]]:
        """Return the counts of all blocks."""
        tables = [read_table(self.folder / COUNTS / f"{name_of(cell.index)}.parquet") for cell in self.cells()]
        return {name: np.concatenate([table[name] for table in tables]) for name in tables[0].columns}

    def _add_sections(self, box: Box, code: NDArray[np.uint8], score: NDArray[np.uint8]) -> None:
        """Give whole sections that are bad their code, where a tile has none that is worse."""
        table = read_table(self.folder / SECTIONS)
        for k in range(box.shape[0]):
            mark, severity = int(table["code"][box.start[0] + k]), float(table["severity"][box.start[0] + k])
            if mark:
                code[k] = np.where((code[k] == 0) | (code[k] > mark), mark, code[k])
                score[k] = np.maximum(score[k], _scored(np.array(severity)))


def tile_ratios(tiles: dict[str, F64]) -> dict[Defect, F64]:
    """Return by defect how close every tile [Z, Y, X] comes to its limit: 1 and more is beyond it.

    The first and last section given are compared with one neighbour less, that is, with none: rules need both.
    """
    void = tiles["void"]
    clean = np.where(void > 0, np.nan, 1.0)
    out: dict[Defect, F64] = {
        "blank": void / _VOID,
        "crack": (tiles["crack"] > 0) * 2.0,
        "fold": (tiles["fold"] > 0) * 2.0,
        "seam": (tiles["seam"] > 0) * 1.0,
    }
    fine, coarse = _pooled(tiles["fine"] * clean), _pooled(tiles["coarse"] * clean)
    own = _pooled(tiles["own"])
    sharp = np.divide(fine, coarse, out=np.full(fine.shape, np.nan), where=coarse > 0)
    out["blurred"] = _ratio(_SHARP * _least_beside(sharp), np.maximum(sharp, 1e-6))
    out["low_contrast"] = _ratio(_FAINT * _least_beside(own), np.maximum(own, 1e-12))
    out["unlike"] = _unlike(tiles, own)
    mean = _pooled(tiles["mean"] * clean)
    spread = np.sqrt(_pooled(tiles["variance"] * clean))
    below, above = _least_beside(mean) - mean, mean - _most_beside(mean)
    out["dark"], out["bright"] = (_ratio(away, _TONE * spread) for away in (below, above))
    return out


def _unlike(tiles: dict[str, F64], own: F64) -> F64:
    """Return how much less a tile resembles its neighbours than these each other."""
    next_one, across = _correlations(tiles, own)
    before = np.concatenate([np.full((1, *own.shape[1:]), np.nan), next_one[:-1]])
    beside = np.concatenate([np.full((1, *own.shape[1:]), np.nan), across[:-1]])
    return (beside - np.maximum(before, next_one)) / _BETWEEN


def _correlations(tiles: dict[str, F64], own: F64) -> tuple[F64, F64]:
    found = []
    for lag, name in ((1, "next"), (2, "next_but_one")):
        later = np.concatenate([own[lag:], np.full((min(lag, len(own)), *own.shape[1:]), np.nan)])[: len(own)]
        size = np.sqrt(own * later)
        found.append(np.divide(_pooled(tiles[name]), size, out=np.full(own.shape, np.nan), where=size > 0))
    return found[0], found[1]


def _pooled(values: F64) -> F64:
    """Return the mean of each tile and the eight around it in its section, of those that are known."""
    known = np.isfinite(values)
    window = (1, 3, 3)
    sums = ndimage.convolve(np.where(known, values, 0.0), np.ones(window), mode="constant")
    count = ndimage.convolve(known.astype(np.float64), np.ones(window), mode="constant")
    out: F64 = np.divide(sums, count, out=np.full(values.shape, np.nan), where=known & (count > 0.5))
    return out


def _least_beside(values: F64) -> F64:
    return _beside(values, np.minimum)


def _most_beside(values: F64) -> F64:
    return _beside(values, np.maximum)


def _beside(values: F64, choose: Any) -> F64:
    """Return the smaller (larger) of the values in the sections before and after; NaN at the ends."""
    edge = np.full((1, *values.shape[1:]), np.nan)
    out: F64 = choose(np.concatenate([edge, values[:-1]]), np.concatenate([values[1:], edge]))
    return out


def _ratio(value: F64, limit: F64) -> F64:
    out: F64 = np.divide(value, limit, out=np.zeros(value.shape), where=np.isfinite(value) & (limit > 0))
    return out


def _coded(ratios: dict[Defect, F64]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    first = next(iter(ratios.values()))
    code, score = np.zeros(first.shape, np.uint8), np.zeros(first.shape, np.uint8)
    for name in sorted(ratios, key=CODES.__getitem__, reverse=True):
        value = np.nan_to_num(ratios[name], nan=0.0)
        code[value >= 1] = CODES[name]
        score = np.maximum(score, _scored(value))
    return code, score


def _scored(ratio: F64) -> NDArray[np.uint8]:
    out: NDArray[np.uint8] = np.rint(np.clip(ratio, 0, 255 / 128) * 128).astype(np.uint8)
    return out


def probabilities_at(stack: Stack, artifacts: ArtifactsSpec, box: Box) -> F64:
    """Return what a learned detector says at the centre of every tile of a box; 0 where it says nothing.

    Raises:
        InputError: its map has channels, or is neither floating nor uint8.
    """
    volume = open_volume(artifacts.path, kind="probabilities")
    info = volume.info
    if info.channels is not None or not (info.dtype.kind == "f" or info.dtype == np.uint8):
        raise InputError(
            f"{artifacts.path} holds {info.dtype} {info.axes}: give one channel of probabilities, floats of 0 to 1 or "
            "uint8 of 0 to 255"
        )
    tiles = stack.tile_info(np.uint8).grid
    places, inside = [], []
    for axis in range(3):
        centres = (
            tiles.offset_nm[axis]
            + (np.arange(box.shape[axis]) + box.start[axis] + 0.5) * tiles.voxel_size_nm[axis]
        )
        at = np.floor((centres - info.grid.offset_nm[axis]) / info.grid.voxel_size_nm[axis] + 1e-6).astype(
            np.int64
        )
        inside.append((at >= 0) & (at < info.shape[axis]))
        places.append(np.clip(at, 0, info.shape[axis] - 1))
    low, high = [int(p.min()) for p in places], [int(p.max()) + 1 for p in places]
    values = volume.read(Box.of(low, high)).astype(np.float64) / (1 if info.dtype.kind == "f" else 255)
    out: F64 = values[np.ix_(*(p - a for p, a in zip(places, low, strict=True)))]
    return np.where(np.einsum("i,j,k->ijk", *inside) > 0, np.nan_to_num(out), 0.0)


@dataclass(frozen=True)
class PaintMask:
    """Paints one block of the mask.

    Attributes:
        stack: what was measured.
        folder: of the result.
        masked: defects that are painted.
        tissue: path of a mask that is 0 where nothing is looked at.
    """

    stack: Stack
    folder: Path
    masked: tuple[Defect, ...]
    tissue: str | None

    def cells(self) -> list[Block]:
        """Return the blocks."""
        return blocks(self.stack.info.box, (DEPTH, self.stack.patch_vox, self.stack.patch_vox))

    def make(self) -> None:
        """Make the mask, empty, where it is not there yet."""
        if not (self.folder / MASK).exists():
            info, side = self.stack.info, self.stack.patch_vox // 4
            words = VolumeInfo(info.shape, np.dtype(np.uint8), info.grid, kind="mask", chunks=(DEPTH, side, side))
            create_volume(self.folder / MASK, words)

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write a block of the mask."""
        box, side = block.write, self.stack.tile_vox
        code = open_volume(self.folder / MAP / "code").read(self.stack.lattice(box))
        kept = np.zeros(256, np.uint8)
        for name in self.masked:
            kept[CODES[name]] = CODES[name]
        array = kept[code].repeat(side, 1).repeat(side, 2)[:, : box.shape[1], : box.shape[2]]
        if self.tissue is not None:
            outside = open_volume(self.tissue, kind="mask").read(box) == 0
            array = np.where(outside, np.uint8(CODES["outside"]), array)
        array = np.ascontiguousarray(array)
        if array.any():
            open_volume(self.folder / MASK, writable=True).write(box, array)
        return [Output.voxels(MASK, box, array)]
