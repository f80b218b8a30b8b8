"""`emloom segment`: affinities of any size to fragments, region graph, merge tree and segmentation, cell by cell.

Stages follow one another; the cells of a stage are independent, so they can run in any order on any machine::

    [exits] -> fragments -> graph -> [merge-0 .. merge-k] -> tree -> [segmentation]

What is promised (`docs/blockwise.md`): the same bits for any number of workers, any order, crash and resume; for
`ascent` fragments also for any cells; and the same as `emloom.tasks.segment.grow_tree` makes in memory.

The result grows in `<name>.unfinished<suffix>` and takes its name when it is whole.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Block, blocks
from emloom.io import graphstore
from emloom.io.open import create_volume, open_volume
from emloom.io.room import require_room
from emloom.io.tables import count_rows
from emloom.io.volume import Volume, VolumeInfo
from emloom.run.blockjournal import ROOT
from emloom.run.executor import Executor, Serial
from emloom.run.journal import key_of
from emloom.run.machine import memory
from emloom.run.provenance import write_provenance
from emloom.run.runner import run_stage
from emloom.run.stage import Stage
from emloom.run.workspace import RECORD, Workspace
from emloom.tasks.lattice import chunk_within, on_grid_of
from emloom.tasks.qcmask import source_of
from emloom.tasks.segmentblocks import BuildGraph, CutExits, CutFragments, Relabel, Site
from emloom.tasks.segmentspec import AscentSpec, SegmentJob
from emloom.tasks.treeblocks import GrowTree, MergeNode, node_blocks, octree_of

FORMAT = 1
"""Part of every key: counted up when a kernel changes, so that blocks of before are not taken for blocks of
now."""

OnBlock = Callable[[str, int, int], None]

_EDGE_BYTES = 250
_BIN_BYTES = 24
_EDGES_WORTH_PARTS = 100_000  # fewer are merged before other workers have begun


def segment(
    job: SegmentJob,
    executor: Executor | None = None,
    on_block: OnBlock | None = None,
    discard: bool = False,
    repair: bool = False,
    graph_bytes: int | None = None,
    revise: bool = False,
) -> Path:
    """Segment a volume of affinities, or go on where an earlier call stopped.

    Args:
        job: what to do.
        executor: where blocks run; default in this process.
        on_block: called with (stage, blocks done, blocks in all).
        discard: delete the unfinished or finished result of another job in the output's place.
        repair: go on with a finished result, too: blocks whose markers were removed are made again.
        graph_bytes: memory that the agglomeration of one graph may take; a larger graph is agglomerated in parts,
            with the same result, and so is one that many workers do faster. Default: half of what is free.
        revise: where the output is of the same affinities and the same fragments, keep these and their region
            graph, and make only what another linkage or threshold changes; otherwise as `discard` says.

    Returns:
        Path of the output container.

    Raises:
        InputError: the input holds no uint8 affinities, the mask has another grid, the output exists or belongs to
            another job, or blocks failed (they are listed).
    """
    started = time.perf_counter()
    source, executor = open_affinities(job), executor or Serial()
    space = Workspace(job.output)
    paths = {"affinities": job.affinities, "mask": source_of(job.mask)}
    if revise:
        take_back(space, job, paths)
    if not space.folder.exists():
        require_room(space.draft, volumes_of(job, source.info), "segment a part of it (emloom crop)")
    inputs = space.claim("segment", job, paths, discard)
    if space.finished and not repair:
        return space.output
    folder = space.folder.absolute()
    make_volumes(job, source.info, folder)
    most = memory().available // 2 if graph_bytes is None else graph_bytes
    line = _Line(Site(job, folder), source.info, inputs, most, executor.parallel)
    seconds: dict[str, float] = {}
    for stage in line.stages():

        def tell(done: int, total: int, name: str = stage.name) -> None:
            if on_block is not None:
                on_block(name, done, total)

        report = run_stage(stage, folder, executor, progress=tell)
        seconds[stage.name] = report.seconds
    seconds["all"] = time.perf_counter() - started
    write_provenance(folder / "provenance.json", job.to_dict(), inputs, seconds)
    space.finish()
    return space.output


def take_back(space: Workspace, job: SegmentJob, paths: Mapping[str, str | None]) -> None:
    """Make a result of other thresholds or another linkage an unfinished one of this job, if it has its graph.

    A crash in here leaves an unfinished result of one of the two jobs: both may go on with it.
    """
    if not (space.folder / RECORD).is_file():
        return
    before = SegmentJob.from_dict(space.record()["job"], f"the job of {space.folder}")
    if before == job or _graph_of(before) != _graph_of(job):
        return
    if space.finished:
        space.output.rename(space.draft)
    stale = ["tree", "segmentation"]
    if (before.segmentation.linkage, before.floor) != (job.segmentation.linkage, job.floor):
        stale += [path.name for path in (space.draft / ROOT).glob("merge-*")]
        shutil.rmtree(graphstore.graph_folder(space.draft) / "octree", ignore_errors=True)
    for name in stale:
        shutil.rmtree(space.draft / ROOT / name, ignore_errors=True)
    graph = graphstore.graph_folder(space.draft)
    for place in (space.draft / "segmentation", graph / "luts", graph / "small"):
        shutil.rmtree(place, ignore_errors=True)
    space.reassign("segment", job, paths)


def _graph_of(job: SegmentJob) -> tuple[Any, ...]:
    """Return what decides the fragments and their region graph."""
    spec = job.segmentation
    return job.affinities, job.mask, job.output, spec.fragments, spec.cell, spec.bins, spec.repels


def open_affinities(job: SegmentJob) -> Volume:
    """Open the affinities of a job; raises `InputError` where they are none, or the mask is on another grid."""
    source = open_volume(job.affinities)
    info = source.info
    if info.neighborhood is None or info.dtype != np.uint8:
        raise InputError(
            f"{job.affinities} holds {info.kind or 'values'} of dtype {info.dtype}: segmentation needs uint8 "
            "affinities with their neighborhood in the metadata, as `emloom predict` writes them"
        )
    if job.segmentation.repels and all(sum(map(abs, offset)) <= 1 for offset in info.neighborhood):
        raise InputError(
            f"{job.affinities} has no affinity between voxels further apart than face neighbours, which the mutex "
            "linkage needs: train a network that predicts some, or use another linkage"
        )
    if job.mask is not None:
        on_grid_of(source, job.mask)
    return source


def make_volumes(job: SegmentJob, info: VolumeInfo, folder: Path) -> None:
    """Make the volumes of ids, empty, where they are not there yet."""
    names = ("fragments", "segmentation")
    for name, ids in zip(names, volumes_of(job, info), strict=False):  # without a threshold there is but the first
        if not (folder / name).exists():
            create_volume(folder / name, ids)


def volumes_of(job: SegmentJob, info: VolumeInfo) -> list[VolumeInfo]:
    """Return the volumes that a job makes of affinities: fragments, and segments where there is a threshold."""
    chunks = chunk_within(job.segmentation.cell)
    ids = VolumeInfo(info.shape, np.dtype(np.uint64), info.grid, kind="labels", chunks=chunks)
    return [ids] * (1 if job.threshold is None else 2)


@dataclass
class _Line:
    """The stages of a job, one after the other; the later ones depend on what the earlier ones found."""

    site: Site
    info: VolumeInfo
    inputs: dict[str, str]
    graph_bytes: int
    parallel: bool
    cells: list[Block] = field(init=False)

    def __post_init__(self) -> None:
        self.cells = blocks(self.info.box, self.site.job.segmentation.cell)

    def stages(self) -> Iterator[Stage[Any]]:
        site, job = self.site, self.site.job
        spec = job.segmentation
        key = key_of(FORMAT, spec.fragments.to_dict(), spec.cell, self.inputs)
        if isinstance(spec.fragments, AscentSpec):
            yield Stage("exits", key, self.cells, CutExits(site, key))
        yield Stage("fragments", key, self.cells, CutFragments(site, key))
        shutil.rmtree(site.points, ignore_errors=True)  # of cells whose exits alone were made again
        key = key_of(key, spec.bins, spec.repels)
        yield Stage("graph", key, self.cells, BuildGraph(site))
        key = key_of(key, spec.linkage.to_dict(), job.floor)
        in_parts = self._in_parts()
        if in_parts:
            octree = octree_of(site)
            for level in range(octree.depth + 1):
                merge = MergeNode(site, level, self.graph_bytes // self._edge_bytes)
                yield Stage(f"merge-{level}", key, node_blocks(octree, level), merge, False)
        key = key_of(key, job.wanted, job.min_segment_vox)
        yield Stage("tree", key, [Block((0, 0, 0), self.info.box, self.info.box)], GrowTree(site, in_parts), False)
        if job.threshold is not None:
            key = key_of(key, job.threshold)
            yield Stage("segmentation", key, self.cells, Relabel(site, job.threshold, key))

    @property
    def _edge_bytes(self) -> int:
        return _EDGE_BYTES + _BIN_BYTES * self.site.job.segmentation.bins

    def _in_parts(self) -> bool:
        """Whether to agglomerate node by node of the octree; raises `InputError` where that must be but cannot."""
        spec = self.site.job.segmentation
        files = graphstore.block_files(self.site.folder, "edges").values()
        edges = sum(count_rows(path) for path in files)
        fits = edges * self._edge_bytes <= self.graph_bytes
        if not fits and spec.repels:
            raise InputError(
                f"the region graph of {self.site.job.affinities} takes more than "
                f"{self.graph_bytes / 2**30:.1f} GiB: the mutex linkage looks at all of it at once, so use a "
                "machine with more memory, or the mean linkage"
            )
        worth_it = self.parallel and len(self.cells) > 1 and edges >= _EDGES_WORTH_PARTS
        return not fits or (worth_it and not spec.repels)
