"""A small segmentation with a region graph, cut into cells as blockwise segmentation cuts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Grid, Vec, blocks
from emloom.io.graphstore import GraphInfo
from emloom.ops.agglomerate import MergeTree, agglomerate
from emloom.ops.nodes import node_table
from emloom.ops.regions import RegionGraph, region_graph
from emloom.tasks.graphfiles import save_cell, save_tree
from emloom.testing.phantom import Phantom, PhantomSpec

NEIGHBORHOOD = [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (0, 0, -9)]
GRID = Grid((40.0, 8.0, 8.0), (400.0, 0.0, 80.0))
FLOOR = 0.3


@dataclass(frozen=True)
class Whole:
    """The same segmentation in memory."""

    fragments: NDArray[np.uint64]
    graph: RegionGraph
    tree: MergeTree

    def segments(self, threshold: float | None) -> NDArray[np.uint64]:
        return self.fragments if threshold is None else self.tree.lut(self.fragments, threshold)


def whole() -> tuple[Whole, NDArray[np.uint8]]:
    """Return a phantom's neurites cut into blocks of 6 voxels, ids as voxel positions, with noisy affinities."""
    labels = Phantom(PhantomSpec(shape=(18, 30, 34), voxel_size_nm=GRID.voxel_size_nm)).labels
    neurites = labels.read(labels.info.box)
    where = np.indices(neurites.shape) // 6
    pieces = np.where(neurites > 0, neurites * 1000 + (where[0] * 10 + where[1]) * 10 + where[2], 0)
    ids, first, back = np.unique(pieces, return_index=True, return_inverse=True)
    fragments = np.where(ids > 0, first + 1, 0).astype(np.uint64)[back].reshape(neurites.shape)
    rng = np.random.default_rng(0)
    affinities = np.zeros((len(NEIGHBORHOOD), *neurites.shape), np.uint8)
    for channel, offset in enumerate(NEIGHBORHOOD):
        same = neurites == np.roll(neurites, [-step for step in offset], (0, 1, 2))
        affinities[channel] = np.clip(rng.normal(np.where(same, 170, 60), 60), 0, 255)
    graph = region_graph(fragments, affinities, NEIGHBORHOOD, bins=16, long_range=True)
    return Whole(fragments, graph, agglomerate(graph, threshold=FLOOR)), affinities


def write_graph(folder: Path, memory: Whole, affinities: NDArray[np.uint8], cell: Vec) -> Path:
    """Write the region graph cell by cell, and the merge tree."""
    info = GraphInfo(GRID, cell, 16)
    total = Box.whole(memory.fragments.shape)
    for block in reversed(blocks(total, cell, 9)):
        read = block.read.intersect(total)
        graph = region_graph(
            memory.fragments[read.slices()],
            affinities[:, *read.slices()],
            NEIGHBORHOOD,
            owned=block.write.shift([-start for start in read.start]),
            bins=16,
            long_range=True,
        )
        save_cell(
            folder, block.index, graph, node_table(memory.fragments[block.write.slices()], block.write.start), info
        )
    save_tree(folder, memory.tree)
    return folder
