"""Wavelet energies of volumes of any size, block by block: the tables that frequency fidelity is read from.

::

    pair-N        reference, output -> OUT/pair-N/z_y_x.parquet         one row per tile: sums of every band
                                       OUT/pair-N/z_y_x.rings.parquet   sums over the Fourier rings of some tiles
    reference-N   reference         -> OUT/reference-N/z_y_x.parquet    as pair: every section with the next
                                       OUT/reference-N/z_y_x.noise.parquet  how often each difference occurs

A block is a whole number of tiles, so the tables of any blocks make one and the same (`emloom.metrics.spectra`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, fsum, nan, prod, sqrt
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Block, Box, Vec, blocks
from emloom.io.open import open_volume
from emloom.io.tables import read_table, write_table
from emloom.io.volume import Volume
from emloom.metrics.fourier import RingSums, ring_sums
from emloom.metrics.noise import sigma_of_histogram
from emloom.metrics.spectra import Spectra, concatenate, spectra
from emloom.ops.wavelets import Decomposition, diagonal_histogram
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.lattice import common_box

_EDGE, _SECTIONS = 1024, 16  # voxels of a block along y and x, and along z, about
_SUMS = ("x", "y", "cross", "abs_x", "abs_y")
_RINGS = ("cross", "x", "y")


@dataclass(frozen=True)
class Compared:
    """A reference and an output of it.

    Attributes:
        reference: path.
        output: path of a volume on its grid, or a part of it.
        decomposition: of the tiles, the first of which begins where the output does.
        rings: how many tiles have their Fourier rings correlated.
    """

    reference: str
    output: str
    decomposition: Decomposition
    rings: int

    def volumes(self) -> tuple[Volume, Volume]:
        """Open both.

        Raises:
            InputError: one has channels, or the output is not on the grid of the reference.
        """
        pair = open_volume(self.reference, kind="raw"), open_volume(self.output, kind="raw")
        for volume in pair:
            if volume.info.channels is not None:
                raise InputError(
                    f"{volume.info.source} has {volume.info.channels} channels: compare volumes of one, say by "
                    "exporting a channel first"
                )
        common_box(pair[1], pair[0])
        return pair

    @cached_property
    def within(self) -> Box:
        """The output's box, in voxels of the reference."""
        reference, output = self.volumes()
        return common_box(output, reference)

    @cached_property
    def box(self) -> Box:
        """The whole tiles, in voxels of the output.

        Raises:
            InputError: not one tile fits.
        """
        shape = self.within.shape
        whole = self.decomposition.whole_tiles(shape)
        if whole.is_empty:
            tile, levels = self.decomposition.tile_vox, self.decomposition.n_levels
            raise InputError(
                f"{self.output} has {shape} voxels (z, y, x), less than a tile of {tile}, which {levels} levels "
                f"need: give fewer levels (at most {_most_levels(self.decomposition, shape)}), or smaller tiles"
            )
        return whole

    def cells(self) -> list[Block]:
        """Return the blocks."""
        tile = self.decomposition.tile_vox
        goal = (_SECTIONS, _EDGE, _EDGE)
        z, y, x = (t * max(1, g // t) for t, g in zip(tile, goal, strict=True))
        return blocks(self.box, (z, y, x))

    def tiles_with_rings(self, block: Block) -> list[Vec]:
        """Return the tiles of a block (z, y, x, in the lattice) whose rings are correlated, evenly spread."""
        lattice = [n // t for n, t in zip(self.box.shape, self.decomposition.tile_vox, strict=True)]
        step = ceil(prod(lattice) / self.rings) if self.rings else 0
        ranges = (
            range(a // t, b // t)
            for a, b, t in zip(block.write.start, block.write.stop, self.decomposition.tile_vox, strict=True)
        )
        places = np.stack(np.meshgrid(*ranges, indexing="ij"), axis=-1).reshape(-1, 3)
        chosen = (
            np.ravel_multi_index(tuple(places.T), lattice) % step == 0 if step else np.zeros(len(places), bool)
        )
        return [(int(z), int(y), int(x)) for z, y, x in places[chosen]]


@dataclass(frozen=True)
class CountPair:
    """Sums the coefficients of one block of a pair.

    Attributes:
        compared: what.
        name: of the stage, and the folder of its tables.
        folder: of the report.
    """

    compared: Compared
    name: str
    folder: Path

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the tables of a block."""
        reference, output = self.compared.volumes()
        x = reference.read(block.write.shift(self.compared.within.start))
        y = output.read(block.write)
        size, first = output.info.grid.voxel_size_nm, _first_tile(block, self.compared.decomposition)
        table = spectra(x, y, self.compared.decomposition, size, first)
        paths = [table_file(self.folder, self.name, block), table_file(self.folder, self.name, block, "rings")]
        write_spectra(paths[0], table)
        rings = [self._rings(x, y, block, tile, size) for tile in self.compared.tiles_with_rings(block)]
        sums = np.concatenate([ring.sums for ring in rings]) if rings else np.zeros((0, 3, 0))
        write_table(paths[1], {name: sums[:, k].ravel() for k, name in enumerate(_RINGS)})
        return [Output.file(self.folder, str(path.relative_to(self.folder))) for path in paths]

    def _rings(
        self, x: NDArray[Any], y: NDArray[Any], block: Block, tile: Vec, size: tuple[float, float, float]
    ) -> RingSums:
        shape = self.compared.decomposition.tile_vox
        start = [i * n for i, n in zip(tile, shape, strict=True)]
        where = Box((start[0], start[1], start[2]), shape).slices(block.write.start)
        return ring_sums(x[where], y[where], size, ring_dimensions(self.compared.decomposition))

    def read(self) -> Spectra:
        """Return the table of all blocks."""
        _, output = self.compared.volumes()
        files = [table_file(self.folder, self.name, block) for block in self.compared.cells()]
        return concatenate(
            [read_spectra(path, self.compared.decomposition, output.info.grid.voxel_size_nm) for path in files]
        )

    def read_rings(self) -> RingSums | None:
        """Return the sums over rings of all blocks; None where no tile was chosen."""
        shape, size = self.compared.decomposition.tile_vox, self.compared.volumes()[1].info.grid.voxel_size_nm
        dimensions = ring_dimensions(self.compared.decomposition)
        if not self.compared.rings:
            return None
        empty = ring_sums(np.zeros(shape, np.uint8), np.zeros(shape, np.uint8), size, dimensions)
        tables = [
            read_table(table_file(self.folder, self.name, block, "rings")) for block in self.compared.cells()
        ]
        rings = len(empty.frequency_per_nm)
        columns = [np.concatenate([table[name] for table in tables]).reshape(-1, rings) for name in _RINGS]
        return RingSums(empty.frequency_per_nm, empty.n_coefficients, np.stack(columns, axis=1))


@dataclass(frozen=True)
class CountReference:
    """Sums the coefficients of adjacent sections of one block of the reference, and counts its differences.

    Attributes:
        compared: which part of the reference, and how.
        name: of the stage, and the folder of its tables.
        folder: of the report.
    """

    compared: Compared
    name: str
    folder: Path

    def __call__(self, block: Block) -> Sequence[Output]:
        """Write the tables of a block."""
        reference, output = self.compared.volumes()
        depth = min(block.write.stop[0] + 1, self.compared.box.stop[0]) - block.write.start[0]
        box = Box(block.write.start, (depth, *block.write.shape[1:]))
        x = reference.read(box.shift(self.compared.within.start))
        size, first = output.info.grid.voxel_size_nm, _first_tile(block, self.compared.decomposition)
        written = []
        if depth > 1 and self.adjacent:
            path = table_file(self.folder, self.name, block)
            write_spectra(path, spectra(x[:-1], x[1:], self.compared.decomposition, size, first))
            written.append(path)
        if self.noise:
            path = table_file(self.folder, self.name, block, "noise")
            write_table(path, _differences(x[: block.write.shape[0]], block.write.start[0]))
            written.append(path)
        return [Output.file(self.folder, str(path.relative_to(self.folder))) for path in written]

    @property
    def adjacent(self) -> bool:
        """Whether sections are decomposed each on its own, and so can be compared with the next."""
        return self.compared.decomposition.tile_vox[0] == 1 and self.compared.box.shape[0] > 1

    @property
    def noise(self) -> bool:
        """Whether values are whole numbers of so few bits that their differences can be counted."""
        dtype = self.compared.volumes()[0].info.dtype
        return dtype.kind in "biu" and dtype.itemsize <= 2

    def read(self) -> Spectra | None:
        """Return the table of all adjacent sections; None where there is none."""
        if not self.adjacent:
            return None
        size = self.compared.volumes()[1].info.grid.voxel_size_nm
        files = [table_file(self.folder, self.name, block) for block in self.compared.cells()]
        # The last section has no next one: a block of it alone has no table.
        return concatenate([read_spectra(f, self.compared.decomposition, size) for f in files if f.exists()])

    def read_noise(self) -> float:
        """Return the standard deviation of the reference's noise, in grey levels; NaN where it is not known.

        The root mean square of those of its sections: they may differ.
        """
        if not self.noise:
            return nan
        files = [table_file(self.folder, self.name, block, "noise") for block in self.compared.cells()]
        tables = [read_table(path) for path in files]
        z, difference, times = (np.concatenate([t[name] for t in tables]) for name in ("z", "difference", "times"))
        variances = []
        for section in range(self.compared.box.shape[0]):
            here = z == section
            counts = np.zeros(int(difference[here].max(initial=0)) + 1, np.int64)
            np.add.at(counts, difference[here], times[here])
            variances.append(sigma_of_histogram(counts) ** 2)
        return sqrt(fsum(variances) / len(variances))


def _differences(x_ZYX: NDArray[Any], first_section: int) -> dict[str, NDArray[Any]]:
    """Return how often each diagonal difference occurs in each section, as columns."""
    counts = [diagonal_histogram(section[None]) for section in x_ZYX]
    found = [np.flatnonzero(of_section) for of_section in counts]
    sections = np.repeat(np.arange(len(found)) + first_section, [len(values) for values in found])
    return {
        "z": sections,
        "difference": np.concatenate(found),
        "times": np.concatenate([of_section[values] for of_section, values in zip(counts, found, strict=True)]),
    }


def table_file(folder: Path, name: str, block: Block, part: str = "") -> Path:
    """Return the file of a block's table."""
    return folder / name / f"{name_of(block.index)}{'.' + part if part else ''}.parquet"


def write_spectra(path: Path, table: Spectra) -> None:
    """Write a table: the place of each tile, and a column for every sum of every band."""
    columns: dict[str, NDArray[Any]] = {axis: table.tiles[:, k] for k, axis in enumerate("zyx")}
    columns["tiles"] = table.n_tiles
    columns |= {name: table.sums[:, b, k] for (b, k), name in _columns(table.decomposition).items()}
    write_table(path, columns)


def read_spectra(path: Path, decomposition: Decomposition, voxel_size_nm: tuple[float, float, float]) -> Spectra:
    """Return the table in a file."""
    table, names = read_table(path), _columns(decomposition)
    n_bands = len(decomposition.bands)
    sums = np.stack(
        [np.stack([table[names[b, k]] for k in range(len(_SUMS))], axis=1) for b in range(n_bands)], axis=1
    )
    tiles = np.stack([table[axis] for axis in "zyx"], axis=1)
    return Spectra(decomposition, voxel_size_nm, tiles, table["tiles"], sums)


def ring_dimensions(decomposition: Decomposition) -> Literal[2, 3]:
    """Return whether tiles are compared by Fourier rings (2), or shells (3), for which tiles are 4 voxels deep."""
    return 3 if min(decomposition.tile_vox) >= 4 else 2


def _columns(decomposition: Decomposition) -> dict[tuple[int, int], str]:
    return {
        (b, k): f"{band.level}_{band.orientation or 'mean'}_{sums}"
        for b, band in enumerate(decomposition.bands)
        for k, sums in enumerate(_SUMS)
    }


def _first_tile(block: Block, decomposition: Decomposition) -> Vec:
    z, y, x = (a // t for a, t in zip(block.write.start, decomposition.tile_vox, strict=True))
    return (z, y, x)


def _most_levels(decomposition: Decomposition, shape: Vec) -> int:
    """Return how many levels the smallest tile that fits into a shape has."""
    return max(
        (
            level
            for level in range(decomposition.n_levels + 1)
            if all(2**n <= have for n, have in zip(decomposition.halvings_to(level), shape, strict=True))
        ),
        default=0,
    )
