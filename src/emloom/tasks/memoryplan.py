"""How much memory a segmentation will take, said before it begins and kept while it runs.

Cells bound it: a worker holds one cell with its halo, whatever the size of the volume. After the cells, one worker
holds the region graph, or a part of it where the graph is larger than it may be (`emloom.tasks.segmenting`).

The figures are bytes per voxel that were measured, rounded up (`tests/tasks/test_segmenting.py` holds the stages
to them); the process itself, with its libraries, comes on top.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from emloom.errors import InputError
from emloom.geometry import Vec, cells
from emloom.run.machine import memory
from emloom.tasks.fragmenting import halo_of
from emloom.tasks.segmenting import open_affinities
from emloom.tasks.segmentspec import SegmentJob

PROCESS_BYTES = 384 * 2**20
"""A process with the libraries it needs and its compiled kernels, before it reads a voxel."""

_GIB = 2**30


@dataclass(frozen=True)
class MemoryPlan:
    """What a segmentation needs.

    Attributes:
        cells: how many there are.
        cell_shape: voxels (z, y, x) of one.
        worker_bytes: the most that one worker holds of cells, its libraries included.
        graph_bytes: the most that the region graph may take; a larger one is agglomerated in parts.
        available_bytes: free on this machine.
    """

    cells: int
    cell_shape: Vec
    worker_bytes: int
    graph_bytes: int
    available_bytes: int

    def to_text(self, workers: int | None) -> str:
        """Return a sentence about it; `workers` on this machine, None: elsewhere."""
        shape = "x".join(map(str, self.cell_shape))
        text = f"{self.cells} cells of {shape} voxels, {self.worker_bytes / _GIB:.1f} GiB per worker at most"
        graph = f"then up to {self.graph_bytes / _GIB:.1f} GiB for the region graph, in one of them"
        if workers is None:
            return f"{text}; {graph}"
        total = workers * self.worker_bytes / _GIB
        free = self.available_bytes / _GIB
        return f"{text} ({total:.1f} GiB with {workers}, of {free:.1f} GiB that are free); {graph}"

    def require(self, workers: int) -> None:
        """Raise `InputError` where so many workers do not fit into this machine."""
        if workers * self.worker_bytes > self.available_bytes:
            fitting = self.available_bytes // self.worker_bytes
            way_out = f"use --workers {fitting}" if fitting else "use smaller cells (segmentation.cell_shape_vox)"
            raise InputError(f"{self.to_text(workers)}: too little memory; {way_out}, or free some")


def memory_plan(job: SegmentJob) -> MemoryPlan:
    """Return what a job needs; raises `InputError` where its affinities cannot be opened."""
    info = open_affinities(job).info
    spec = job.segmentation
    shape = [min(n, c) for n, c in zip(info.shape, spec.cell, strict=True)]
    read = [min(n, c + 2 * h) for n, c, h in zip(info.shape, shape, halo_of(spec.fragments), strict=True)]
    channels, mask = info.channels or 1, int(job.mask is not None)
    # Reading decodes whole chunks, which stay in memory beside the array made of them.
    seen, own = {"ascent": (16, 16), "seeded": (34, 12), "mutex": (30 + channels, 12)}[spec.fragments.kind]
    cut = prod(read) * (2 * channels + 3 * mask + seen) + prod(shape) * own
    reach = [max(abs(o[k]) for o in info.neighborhood or ()) if spec.repels else 1 for k in range(3)]
    around = [min(n, c + 2 * r) for n, c, r in zip(info.shape, shape, reach, strict=True)]
    graph = prod(around) * (2 * channels + 24)
    relabel = prod(shape) * 28
    count = sum(1 for _ in cells(info.box, spec.cell))
    free = memory().available
    return MemoryPlan(count, spec.cell, PROCESS_BYTES + max(cut, graph, relabel), free // 2, free)
