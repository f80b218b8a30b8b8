"""What one block of a segmentation does, stage by stage; `emloom.tasks.segmenting` puts the stages in order.

::

    exits      (ascent only)  affinities      -> graph/exits/z_y_x.parquet      what other cells may ask
                                                 graph/points/z_y_x.zst         where voxels point, while needed
    fragments                 affinities      -> fragments/                     voxels of the cell
    graph                     both            -> graph/{edges,nodes,faces[,repulsion]}/z_y_x.parquet
    merge-k    (octree only)  graphs          -> graph/octree/k/z_y_x.{merges,residual}.parquet
    tree                      graphs          -> graph/merges.parquet, graph/luts/<linkage>/<threshold>.parquet
    segmentation              fragments, LUT  -> segmentation/                  voxels of the cell

Every class here is a small value that travels to a worker, with a function from a block to its outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Box, Vec
from emloom.io import graphstore
from emloom.io.graphstore import GraphInfo
from emloom.io.open import open_volume
from emloom.io.scratch import Scratch
from emloom.io.tables import read_table, write_table
from emloom.io.volume import Volume
from emloom.ops.ascent import Paths
from emloom.ops.exits import labels_on_faces, resolve
from emloom.ops.labels import apply_lut
from emloom.ops.nodes import node_table
from emloom.ops.octree import face_ids
from emloom.ops.places import voxels_of
from emloom.ops.regions import region_graph
from emloom.run.blockjournal import name_of
from emloom.run.perworker import once
from emloom.run.stage import Output
from emloom.tasks.fragmenting import ascent_cell, cut_cell, offsets_of
from emloom.tasks.graphfiles import edge_columns, save_cell
from emloom.tasks.lattice import on_grid_of
from emloom.tasks.segmentspec import AscentSpec, SegmentJob

Ids = NDArray[np.uint64]


@dataclass(frozen=True)
class Site:
    """A segmentation in the making.

    Attributes:
        job: what is made.
        folder: container in which it grows.
    """

    job: SegmentJob
    folder: Path

    def affinities(self) -> Volume:
        """Open the affinities."""
        return open_volume(self.job.affinities)

    def mask(self) -> Volume | None:
        """Open the mask, if there is one."""
        return None if self.job.mask is None else on_grid_of(self.affinities(), self.job.mask)

    def ids(self, name: str, writable: bool = False) -> Volume:
        """Open `fragments` or `segmentation`."""
        return open_volume(self.folder / name, writable=writable)

    def write_ids(self, name: str, box: Box, ids_ZYX: Ids) -> Output:
        """Write ids to a volume and say so."""
        self.ids(name, writable=True).write(box, ids_ZYX)
        return Output.voxels(name, box, ids_ZYX)

    def table(self, part: str, index: Vec) -> Path:
        """Return the file of a cell's table that belongs to no other part of the graph's layout."""
        return graphstore.graph_folder(self.folder) / part / f"{name_of(index)}.parquet"

    @property
    def points(self) -> Path:
        """Folder of where voxels point, which is there until their fragments are."""
        return graphstore.graph_folder(self.folder) / "points"

    def told(self, *paths: Path) -> list[Output]:
        """Describe files that were written."""
        return [Output.file(self.folder, str(path.relative_to(self.folder))) for path in paths]

    def graph_info(self) -> GraphInfo:
        """Return what tables of the graph say about themselves."""
        spec = self.job.segmentation
        return GraphInfo(self.affinities().info.grid, spec.cell, spec.bins)


@dataclass(frozen=True)
class CutExits:
    """Notes, for the cells around, where the paths of a cell lead.

    Where its voxels point is kept as well, as scratch, so that `CutFragments` need not read and ascend again.
    """

    site: Site
    key: str

    def __call__(self, block: Block) -> list[Output]:
        """Write the labels on the faces of the cell."""
        site, path = self.site, self.site.table("exits", block.index)
        paths = ascent_cell(site.affinities(), site.mask(), block.write, _ascent(site))
        write_table(path, {"label": paths.on_faces()})
        _points(site, self.key, block).keep(paths.points)
        return site.told(path)


@dataclass(frozen=True)
class CutFragments:
    """Cuts a cell into fragments."""

    site: Site
    key: str

    def __call__(self, block: Block) -> list[Output]:
        """Write the fragments of the cell."""
        site, spec = self.site, self.site.job.segmentation.fragments
        if isinstance(spec, AscentSpec):
            ids = self._follow(block, spec)
        else:
            ids = cut_cell(site.affinities(), site.mask(), block.write, spec)
        outputs = [site.write_ids("fragments", block.write, ids)]
        _points(site, self.key, block).drop()
        return outputs

    def _follow(self, block: Block, spec: AscentSpec) -> Ids:
        site, write, source = self.site, block.write, self.site.affinities()
        points = _points(site, self.key, block).recall(write.shape, np.uint8)
        if points is None:
            paths = ascent_cell(source, site.mask(), write, spec)
        else:
            paths = Paths(points, write, source.info.shape)
        known = _Exits(site, paths.total_shape)
        exits, tops = resolve(known.of_cell(block.index), write, paths.total_shape, known)
        return paths.follow(exits, tops)


@dataclass(frozen=True)
class _Exits:
    """Answers for voxels of other cells, from the tables that `CutExits` wrote."""

    site: Site
    shape: Vec
    known: dict[Vec, Ids] = field(default_factory=dict)
    """Tables read so far: a path comes by the same cells again and again."""

    def __call__(self, ids: Ids) -> Ids:
        cell = self.site.job.segmentation.cell
        owners = voxels_of(ids, self.shape) // np.array(cell)
        labels = np.empty_like(ids)
        for owner in np.unique(owners, axis=0):
            mine = (owners == owner).all(axis=1)
            z, y, x = owner.tolist()
            box = Box((z * cell[0], y * cell[1], x * cell[2]), cell).intersect(Box.whole(self.shape))
            labels[mine] = labels_on_faces(self.of_cell((z, y, x)), box, self.shape, ids[mine])
        return labels

    def of_cell(self, owner: Vec) -> Ids:
        """Return the labels on the faces of a cell."""
        if owner not in self.known:
            self.known[owner] = read_table(self.site.table("exits", owner))["label"]
        return self.known[owner]


@dataclass(frozen=True)
class BuildGraph:
    """Counts what the affinities say about the contacts that a cell owns, and measures its fragments."""

    site: Site

    def __call__(self, block: Block) -> list[Output]:
        """Write edges, nodes and faces of the cell."""
        site, source, ids = self.site, self.site.affinities(), self.site.ids("fragments")
        offsets = offsets_of(source.info)
        read = with_neighbours(block.write, offsets).intersect(source.info.box)
        owned = block.write.shift([-v for v in read.start])
        fragments = ids.read(read)
        # A pair's affinity stands at the voxel that owns it: around the cell none is looked at, and none is read.
        affinities = np.zeros(source.info.shape_of(read), np.uint8)
        affinities[(slice(None), *owned.slices())] = source.read(block.write)
        graph = region_graph(fragments, affinities, offsets, owned=owned, bins=site.job.segmentation.bins)
        nodes = node_table(fragments[owned.slices()], block.write.start)
        paths = save_cell(site.folder, block.index, graph, nodes, site.graph_info())
        at_faces = face_ids(fragments, owned)
        side = np.repeat(np.arange(6, dtype=np.uint8), [len(found) for found in at_faces])
        faces = site.table("faces", block.index)
        write_table(faces, {"side": side, "id": np.concatenate(at_faces)})
        against = [self._save_repulsion(block)] if site.job.segmentation.repels else []
        return site.told(*paths, faces, *against)

    def _save_repulsion(self, block: Block) -> Path:
        site, source = self.site, self.site.affinities()
        offsets = offsets_of(source.info)
        reach = [max(abs(offset[axis]) for offset in offsets) for axis in range(3)]
        read = block.write.grow(reach).intersect(source.info.box)
        owned = block.write.shift([-v for v in read.start])
        affinities = np.zeros(source.info.shape_of(read), np.uint8)
        affinities[(slice(None), *owned.slices())] = source.read(block.write)
        fragments = site.ids("fragments").read(read)
        graph = region_graph(fragments, affinities, offsets, owned=owned, long_range="only")
        path = site.table("repulsion", block.index)
        graphstore.write_edges(path, edge_columns(graph), replace(site.graph_info(), bins=0))
        return path


def with_neighbours(write: Box, offsets: Sequence[Vec]) -> Box:
    """Return a cell with the layers of face neighbours to which its voxels' pairs reach.

    No more: chunks end where cells do, so a layer on a side that no pair reaches costs a whole layer of chunks.
    """
    near = [offset for offset in offsets if sum(map(abs, offset)) == 1]
    low = [min((0, *steps)) for steps in zip(*near, strict=True)]
    high = [max((0, *steps)) for steps in zip(*near, strict=True)]
    start = [a + step for a, step in zip(write.start, low, strict=True)]
    return Box.of(start, [b + step for b, step in zip(write.stop, high, strict=True)])


def read_faces(site: Site, index: Vec) -> list[Ids]:
    """Return the ids on the six faces of a cell, as `BuildGraph` wrote them."""
    table = read_table(site.table("faces", index))
    return [table["id"][table["side"] == side] for side in range(6)]


@dataclass(frozen=True)
class Relabel:
    """Turns the fragments of a cell into segments."""

    site: Site
    threshold: float
    key: str

    def __call__(self, block: Block) -> list[Output]:
        """Write the segmentation of the cell."""
        site = self.site
        fragment, segment = once(("lut", str(site.folder), self.key), self._lut)
        ids = apply_lut(site.ids("fragments").read(block.write), fragment, segment)
        return [site.write_ids("segmentation", block.write, ids)]

    def _lut(self) -> tuple[Ids, Ids]:
        return read_final_lut(self.site, self.threshold)


def read_final_lut(site: Site, threshold: float) -> tuple[Ids, Ids]:
    """Return (fragments that change, their segments) at a threshold, with too small segments gone to 0."""
    linkage = site.job.segmentation.linkage.name
    fragment, segment = graphstore.read_lut(graphstore.lut_file(site.folder, linkage, threshold))
    if not site.job.min_segment_vox:
        return fragment, segment
    small = read_table(small_file(site.folder, threshold))["segment"]
    segment = np.where(np.isin(segment, small), np.uint64(0), segment)
    # A segment is named by its smallest fragment, which no LUT lists: those of small segments change as well.
    fragment, segment = np.concatenate([fragment, small]), np.concatenate([segment, np.zeros_like(small)])
    order = np.argsort(fragment)
    return fragment[order], segment[order]


def small_file(folder: Path, threshold: float) -> Path:
    """Return the file that lists the segments which are too small at a threshold."""
    return graphstore.graph_folder(folder) / "small" / f"{float(threshold)!r}.parquet"


def _points(site: Site, key: str, block: Block) -> Scratch:
    return Scratch(site.points / f"{name_of(block.index)}.zst", f"{key} {block.write}")


def _ascent(site: Site) -> AscentSpec:
    spec = site.job.segmentation.fragments
    assert isinstance(spec, AscentSpec)
    return spec
