"""Affinities to segments, in memory: fragments, region graph, merge tree, and the segmentation at any threshold.

`grow_tree` works on arrays. A volume of any size goes block by block, in `emloom.tasks.segmenting`, through the
same functions on the same cells: the results are the same bits. Ids are places in the volume of affinities, so
they do not depend on who computed them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Grid, Vec
from emloom.io.open import open_volume
from emloom.io.volume import ArrayVolume
from emloom.ops.agglomerate import MergeTree, agglomerate
from emloom.ops.labels import apply_lut
from emloom.ops.mutexgraph import mutex_tree
from emloom.ops.regions import RegionGraph, region_graph
from emloom.tasks.fragmenting import fragments_whole
from emloom.tasks.graphfiles import load_tree
from emloom.tasks.segmentspec import LinkageSpec, MutexLinkage, QuantileLinkage, SegmentSpec

Ids = NDArray[np.uint64]


@dataclass(frozen=True)
class Segmented:
    """Fragments and the tree of their merges.

    Attributes:
        fragments: uint64 ZYX, 0 is background.
        ids: uint64 [N], every fragment id, sorted.
        tree: the merges, best first.
    """

    fragments: Ids
    ids: Ids
    tree: MergeTree

    def lut(self, threshold: float) -> Ids:
        """Return the segment of every fragment in `ids`, merging down to `threshold`."""
        return self.tree.lut(self.ids, threshold)

    def at(self, threshold: float) -> Ids:
        """Return the segmentation at a threshold, uint64 ZYX."""
        return apply_lut(self.fragments, *self.tree.table(threshold))


def grow_tree(
    affinities_CZYX: NDArray[np.uint8],
    neighborhood: Sequence[Vec],
    grid: Grid,
    spec: SegmentSpec,
    mask_ZYX: NDArray[Any] | None = None,
) -> Segmented:
    """Return fragments and merge tree of an affinity array.

    Args:
        affinities_CZYX: uint8; channel ``c`` at ``p`` is about ``(p, p + neighborhood[c])``.
        neighborhood: one ZYX offset per channel.
        grid: voxel size of the affinities.
        spec: the parameters.
        mask_ZYX: zero where nothing may be segmented.
    """
    source = ArrayVolume(affinities_CZYX, grid, "affinities", tuple(neighborhood))
    mask = None if mask_ZYX is None else ArrayVolume(mask_ZYX, grid, "mask")
    fragments = fragments_whole(source, mask, spec)
    graph = region_graph(fragments, affinities_CZYX, neighborhood, bins=spec.bins)
    against = None
    if spec.repels:
        against = region_graph(fragments, affinities_CZYX, neighborhood, long_range="only")
    ids = np.unique(fragments)
    return Segmented(fragments, ids[ids > 0], merged(graph, against, spec.linkage, min(spec.thresholds)))


def merged(graph: RegionGraph, against: RegionGraph | None, linkage: LinkageSpec, floor: float) -> MergeTree:
    """Return the merge tree of a whole region graph, down to `floor`.

    Args:
        graph: contacts.
        against: pairs further apart, of which the mutex linkage knows what repels; None for the others.
        linkage: how contacts are scored.
        floor: merges below this are not made.
    """
    if isinstance(linkage, MutexLinkage):
        assert against is not None
        return mutex_tree(graph, against, threshold=floor)
    quantile = linkage.quantile if isinstance(linkage, QuantileLinkage) else 50
    return agglomerate(graph, linkage=linkage.kind, quantile=quantile, threshold=floor)


def load_segmented(folder: Path) -> Segmented:
    """Read the fragments and the merge tree of a segmentation on disk into memory."""
    volume = open_volume(folder / "fragments")
    fragments = volume.read(volume.info.box)
    ids = np.unique(fragments)
    return Segmented(fragments, ids[ids > 0], load_tree(folder))
