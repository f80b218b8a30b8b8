"""Where a stack is bad: a low-resolution map of every tile.

::

    usual        measure/tiles.zarr -> usual/z_y_x.parquet                   how tiles differ in this stack
    map.zarr     measure/tiles.zarr, usual, flags -> map.zarr/code, score    one voxel per tile

Codes are those of `emloom.tasks.qcspec`; where several are found, the lowest. `score` is 128 at the limit of the
rule that is closest to it, or furthest beyond, and 255 at twice the limit and more; whole sections that are bad
score by their flag.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, log
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Box, blocks
from emloom.io.open import create_volume, open_volume
from emloom.io.tables import read_table, write_table
from emloom.ops.sectiontiles import STATISTICS, histogram, tile_differences, usual_of
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.qcartifacts import probabilities_at
from emloom.tasks.qcmeasure import tiles_path
from emloom.tasks.qcpatch import CHANNELS, DEPTH, Stack
from emloom.tasks.qcrules import SD_OF_CONTRAST
from emloom.tasks.qcspec import CODES, ArtifactsSpec, Defect, RulesSpec

MAP, USUAL, COUNTS = "map.zarr", "usual", "counts"
SECTIONS = "sections.parquet"
F64 = NDArray[np.float64]

_TILES = 64  # of a block of the map, along y and x
_VOID = 0.5  # part of a tile that is void, from which on it is blank
_UNLIKE = 0.2  # least effect of unlike tiles, in correlation
_SPREADS = 1.2  # tiles are many: their limit is this much further out than that of sections


@dataclass(frozen=True)
class Tiles:
    """The tiles of a stack, as they were measured.

    Attributes:
        stack: what was measured.
        folder: of the result.
    """

    stack: Stack
    folder: Path

    @property
    def whole(self) -> Box:
        """The lattice of tiles."""
        return self.stack.lattice(self.stack.info.box)

    def cells(self) -> list[Block]:
        """Return the blocks: a whole number of the patches that were measured, with a section on either side."""
        side = self.stack.patch_vox // self.stack.tile_vox
        edge = max(1, _TILES // side) * side
        return blocks(self.whole, (DEPTH, edge, edge), (2, 0, 0))

    def read(self, block: Block) -> tuple[dict[str, F64], dict[str, F64]]:
        """Return the channels, and the differences (`STATISTICS`), of the tiles of a block."""
        seen = block.read.intersect(self.whole)
        tiles = open_volume(tiles_path(self.folder)).read(seen).astype(np.float64)
        channels = dict(zip(CHANNELS, tiles, strict=True))
        table, here = read_table(self.folder / SECTIONS), slice(seen.start[0], seen.stop[0])
        differences = tile_differences(channels, table["median"][here], table["contrast"][here] / SD_OF_CONTRAST)
        own = block.write.slices(seen.start)
        return ({k: v[own] for k, v in channels.items()}, {k: v[own] for k, v in differences.items()})


@dataclass(frozen=True)
class CountTiles:
    """Counts how the tiles of a block differ from those beside them."""

    tiles: Tiles

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write one histogram per statistic."""
        _, differences = self.tiles.read(block)
        folder, path = self.tiles.folder, _file(self.tiles.folder, USUAL, block)
        write_table(path, {name: histogram(differences[name]) for name in STATISTICS})
        return [Output.file(folder, str(path.relative_to(folder)))]


def limits_of(tiles: Tiles, rules: RulesSpec) -> tuple[tuple[str, float], ...]:
    """Return by statistic how large it is where a tile is bad: not usual in this stack, and of some effect."""
    tables = [read_table(_file(tiles.folder, USUAL, cell)) for cell in tiles.cells()]
    lost = -log(rules.loss)
    effects = {"blurred": lost, "low_contrast": lost, "unlike": _UNLIKE, "dark": rules.tone, "bright": rules.tone}
    out = []
    for name in STATISTICS:
        median, spread = usual_of(np.sum([table[name] for table in tables], axis=0))
        usual = median + _SPREADS * rules.spreads * spread
        out.append((name, max(effects[name], usual) if isfinite(usual) else effects[name]))
    return tuple(out)


def _file(folder: Path, stage: str, block: Block) -> Path:
    return folder / stage / f"{name_of(block.index)}.parquet"


@dataclass(frozen=True)
class JudgeTiles:
    """Judges the tiles of one block of the map.

    Attributes:
        tiles: what was measured.
        limits: (statistic, limit) pairs.
        artifacts: what a learned detector found.
    """

    tiles: Tiles
    limits: tuple[tuple[str, float], ...]
    artifacts: ArtifactsSpec | None = None

    @property
    def folder(self) -> Path:
        """Of the result."""
        return self.tiles.folder

    def make(self) -> None:
        """Make the volumes, empty, where they are not there yet."""
        for name, kind in (("code", "labels"), ("score", "probabilities")):
            if not (self.folder / MAP / name).exists():
                create_volume(self.folder / MAP / name, self.tiles.stack.tile_info(np.uint8, kind=kind))

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the codes and scores of a block."""
        channels, differences = self.tiles.read(block)
        worst = tile_ratios(channels, differences, dict(self.limits))
        if self.artifacts is not None:
            grid = self.tiles.stack.tile_info(np.uint8).grid
            worst["artifact"] = probabilities_at(self.artifacts, grid, block.write) / self.artifacts.threshold
        code, score = _coded(worst)
        self._add_sections(block.write, code, score)
        outputs = []
        for name, array in (("code", code), ("score", score)):
            open_volume(self.folder / MAP / name, writable=True).write(block.write, array)
            outputs.append(Output.voxels(f"{MAP}/{name}", block.write, array))
        path = _file(self.folder, COUNTS, block)
        write_table(path, self._counted(block.write, code))
        return [*outputs, Output.file(self.folder, str(path.relative_to(self.folder)))]

    def _counted(self, box: Box, code: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
        """Return how many tiles, and voxels, of every section have each code."""
        side, whole = self.tiles.stack.tile_vox, self.tiles.stack.info.shape
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
        tables = [read_table(_file(self.folder, COUNTS, cell)) for cell in self.tiles.cells()]
        return {name: np.concatenate([table[name] for table in tables]) for name in tables[0].columns}

    def _add_sections(self, box: Box, code: NDArray[np.uint8], score: NDArray[np.uint8]) -> None:
        """Give whole sections that are bad their code, where a tile has none that is worse."""
        table = read_table(self.folder / SECTIONS)
        for k in range(box.shape[0]):
            mark, severity = int(table["code"][box.start[0] + k]), float(table["severity"][box.start[0] + k])
            if mark:
                code[k] = np.where((code[k] == 0) | (code[k] > mark), mark, code[k])
                score[k] = np.maximum(score[k], _scored(np.array(severity)))


def tile_ratios(
    channels: Mapping[str, F64], differences: Mapping[str, F64], limits: Mapping[str, float]
) -> dict[Defect, F64]:
    """Return by defect how close every tile comes to its limit: 1 and more is beyond it."""
    out: dict[Defect, F64] = {
        "blank": (channels["void"] - channels["crack"]) / _VOID,  # a crack is void, too
        "crack": np.where(channels["crack"] > 0, 2.0, 0.0),
        "fold": np.where(channels["fold"] > 0, 2.0, 0.0),
        "seam": np.where(channels["seam"] > 0, 1.0, 0.0),
    }
    for name in STATISTICS:
        out[name] = differences[name] / limits[name]  # type: ignore[index]
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
