"""The files of `emloom export-neurons`: each neuron's surface and centre line, in every format asked for.

A neuron is made whole by one worker: its triangles are welded, smoothed and simplified together, and its centre
line is found in all its voxels. So no seam and no cut is left, and nothing depends on blocks. A neuron whose box
has more voxels than `most_vox` is skeletonised at a coarser size, in which a coarse voxel belongs to the neuron
where any fine one does: thin necks stay joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Grid, Vec
from emloom.geometry.synapses import SynapseTable
from emloom.geometry.tracings import Tracing
from emloom.io.meshfiles import write_obj, write_ply, write_precomputed_mesh
from emloom.io.precomputedskeletons import write_precomputed_skeleton
from emloom.io.swcwriter import write_swc
from emloom.io.synapsetable import read_synapse_table
from emloom.io.tables import read_table, write_table
from emloom.io.volume import Volume, borrow
from emloom.ops.centrelines import NO_SITES, centre_line, sites_of
from emloom.ops.downsample import coarse_shape
from emloom.ops.meshes import Mesh, simplified, smoothed, welded
from emloom.run.blockjournal import name_of
from emloom.run.stage import Output
from emloom.tasks.exportneuronsspec import CentreLineSpec, ExportNeuronsJob, MeshSpec
from emloom.tasks.neuronblocks import Labels, surface_part

MESHES, SKELETONS = "mesh", "skeletons"
NODES = ("id", "node", "parent", "z_nm", "y_nm", "x_nm", "radius_nm", "type", "comment")


@dataclass(frozen=True)
class Neurons:
    """Some neurons that are written together.

    Attributes:
        index: (k, 0, 0), the name of the group.
        ids: of the neurons.
        boxes: in voxels, of each.
        homes: blocks that hold each.
        surfaces: blocks that hold triangles of any.
    """

    index: Vec
    ids: tuple[int, ...]
    boxes: tuple[Box, ...]
    homes: tuple[tuple[Vec, ...], ...]
    surfaces: tuple[Vec, ...]


def row_part(index: Vec) -> Path:
    """Return where the rows of a group are, below the output folder."""
    return Path("run") / "rows" / f"{name_of(index)}.parquet"


@dataclass(frozen=True)
class WriteNeurons:
    """Writes the files of a group of neurons.

    Attributes:
        job: what is asked for.
        labels: that are read.
        folder: of the result.
        synapses: table below the folder, whose segments are these neurons; None: no synapses.
    """

    job: ExportNeuronsJob
    labels: Labels
    folder: Path
    synapses: str | None

    def __call__(self, group: Neurons) -> Sequence[Output]:
        """Write meshes, skeletons, and a row about each neuron."""
        places: list[str] = []
        rows: dict[str, list[Any]] = {"id": list(group.ids)}
        if self.job.meshes is not None:
            self._meshes(group, self.job.meshes, rows, places)
        if self.job.skeletons is not None:
            self._skeletons(group, self.job.skeletons, rows, places)
        columns = {name: np.array(values, _DTYPES[name]) for name, values in rows.items()}
        write_table(self.folder / row_part(group.index), columns)
        return [Output.file(self.folder, place) for place in (*places, str(row_part(group.index)))]

    @cached_property
    def _volume(self) -> Volume:
        return self.labels.open()

    def _meshes(self, group: Neurons, spec: MeshSpec, rows: dict[str, list[Any]], places: list[str]) -> None:
        grid = coarser(self._volume.info.grid, spec.factors)
        found = _triangles(self.folder, group)
        for segment in group.ids:
            mesh = simplified(smoothed(welded(found[segment], grid), spec.smooth), spec.keep)
            places += write_mesh(self.folder, segment, mesh, spec)
            rows.setdefault("triangles", []).append(len(mesh.faces))
            rows.setdefault("area_um2", []).append(mesh.area_nm2 / 1e6)

    def _skeletons(
        self, group: Neurons, spec: CentreLineSpec, rows: dict[str, list[Any]], places: list[str]
    ) -> None:
        table = None if self.synapses is None else read_synapse_table(self.folder / self.synapses)
        for segment, box, homes in zip(group.ids, group.boxes, group.homes, strict=True):
            tracing, factors = self._line(segment, box, homes, spec, table)
            places += write_skeleton(self.folder, segment, tracing, spec)
            rows.setdefault("nodes", []).append(len(tracing.skeletons.node_ids))
            rows.setdefault("length_um", []).append(float(tracing.skeletons.lengths_nm.sum()) / 1000)
            rows.setdefault("coarser", []).append(",".join(map(str, factors)))

    def _line(
        self, segment: int, box: Box, homes: Sequence[Vec], spec: CentreLineSpec, table: SynapseTable | None
    ) -> tuple[Tracing, Vec]:
        info = self._volume.info
        factors = factors_for(box.shape, info.grid, spec.most_vox)
        mask, first = mask_of(self._volume, segment, box, homes, (self.job.block_vox, factors))
        grid = coarser(info.grid, factors)
        here = Grid(grid.voxel_size_nm, grid.to_world(first))
        tolerance = spec.tolerance_nm
        if tolerance is None:
            tolerance = max(grid.voxel_size_nm) / 2
        sites = NO_SITES if table is None else sites_of(table, segment)
        return centre_line(mask, here, segment, (spec.scale, spec.constant_nm), tolerance, sites), factors


_DTYPES = {
    "id": np.uint64,
    "triangles": np.int64,
    "area_um2": np.float64,
    "nodes": np.int64,
    "length_um": np.float64,
    "coarser": object,
}


def coarser(grid: Grid, factors: Vec) -> Grid:
    """Return the grid of voxels that are `factors` of the others, from the same corner."""
    z, y, x = (s * f for s, f in zip(grid.voxel_size_nm, factors, strict=True))
    return Grid((z, y, x), grid.offset_nm)


def factors_for(shape: Vec, grid: Grid, most_vox: int) -> Vec:
    """Return the factors (powers of 2) that bring a box below a number of voxels, the shortest edges first."""
    factors = np.ones(3, np.int64)
    while prod(coarse_shape(shape, factors.tolist())) > most_vox:
        factors[int(np.argmin(np.array(grid.voxel_size_nm) * factors))] *= 2
    return (int(factors[0]), int(factors[1]), int(factors[2]))


def mask_of(
    volume: Volume, segment: int, box: Box, homes: Sequence[Vec], cut: tuple[Vec, Vec]
) -> tuple[NDArray[np.bool_], Vec]:
    """Return where a segment is, in coarse voxels, and the first of them.

    Args:
        volume: labels.
        segment: id.
        box: around it, in voxels.
        homes: indices of the blocks that hold it; no others are read.
        cut: (voxels of a block, fine voxels per coarse voxel).

    Returns:
        (bool [Z, Y, X], True where any fine voxel is of the segment; coarse voxel (z, y, x) of its corner).
    """
    block, factors = cut
    around = box.coarsen(factors)
    mask = np.zeros(around.shape, np.bool_)
    for home in homes:
        cell = Box(tuple(i * n for i, n in zip(home, block, strict=True)), block).intersect(box)  # type: ignore[arg-type]
        found = np.argwhere(borrow(volume, cell) == segment) + np.array(cell.start)
        mask[tuple((found // np.array(factors) - np.array(around.start)).T)] = True
    return mask, around.start


def _triangles(folder: Path, group: Neurons) -> dict[int, NDArray[np.int64]]:
    """Return the packed corners of every neuron of a group."""
    wanted = np.array(group.ids, np.uint64)
    ids, corners = [np.zeros(0, np.uint64)], [np.zeros((0, 3), np.int64)]
    for index in group.surfaces:
        table = read_table(folder / surface_part(index))
        keep = np.isin(table["id"], wanted)
        ids.append(table["id"][keep])
        corners.append(np.stack([table[name][keep] for name in "abc"], axis=1))
    whose, every = np.concatenate(ids), np.concatenate(corners)
    order = np.argsort(whose, kind="stable")
    ends = np.searchsorted(whose[order], wanted, side="right")
    starts = np.searchsorted(whose[order], wanted, side="left")
    spans = zip(group.ids, starts.tolist(), ends.tolist(), strict=True)
    return {segment: every[order[a:b]] for segment, a, b in spans}


def write_mesh(folder: Path, segment: int, mesh: Mesh, spec: MeshSpec) -> list[str]:
    """Write a mesh in every format; return the files, below the folder."""
    places: list[str] = []
    for form in spec.formats:
        if form == "precomputed":
            names = write_precomputed_mesh(folder / MESHES, segment, mesh.vertices_nm, mesh.faces)
            places += [f"{MESHES}/{name}" for name in names]
        else:
            write = write_ply if form == "ply" else write_obj
            (folder / form).mkdir(exist_ok=True)
            write(folder / form / f"{segment}.{form}", mesh.vertices_nm, mesh.faces)
            places.append(f"{form}/{segment}.{form}")
    return places


def write_skeleton(folder: Path, segment: int, tracing: Tracing, spec: CentreLineSpec) -> list[str]:
    """Write a skeleton in every format that is a file of its own, and its nodes where one of all is asked for."""
    places: list[str] = []
    skeletons = tracing.skeletons
    if "precomputed" in spec.formats:
        write_precomputed_skeleton(
            folder / SKELETONS, segment, skeletons.positions_nm, skeletons.links, tracing.radii_nm
        )
        places.append(f"{SKELETONS}/{segment}")
    if {"swc", "nml"} & set(spec.formats) and len(skeletons.node_ids):
        # Of all neurons' NML, too: it is joined from these at the end.
        where = "swc" if "swc" in spec.formats else "run/swc"
        (folder / where).mkdir(parents=True, exist_ok=True)
        write_swc(folder / where / f"{segment}.swc", tracing, unit_nm=1.0, overwrite=True)
        places.append(f"{where}/{segment}.swc")
    return places
