"""From sites to synapses: candidates for pairs, what the segmentation says of them, and the table in the end.

A decoder that needs no more than its sites is done after `candidates`; the others ask the segmentation about
points, cell by cell (`check`), before `table` decides::

    sites, proximity   do the two segments touch between the sites? (only with `contact_nm`)
    vectors            which segment lies where a post site points?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Grid, Vec
from emloom.geometry.synapses import SynapseTable
from emloom.ops.cellparts import Columns
from emloom.ops.labels import Ids
from emloom.ops.runs import I64
from emloom.ops.synapsededup import autapses, duplicates
from emloom.tasks.synapsedecoders import CleanSpec, ScoreSpec

F64 = NDArray[np.float64]
Notes = Counter[str]


@dataclass(frozen=True, eq=False)
class FoundSites:
    """Sites of one layer, in raster order of the first voxels of their components.

    Attributes:
        components: int64 [n], their components.
        voxels: int64 [n, 3], where they are.
        points_nm: float64 [n, 3], the centres of these voxels.
        segments: uint64 [n].
        sizes: int64 [n], voxels of the component.
        scores: float64 [n].
        more: columns of votes of the chosen segment.
    """

    components: I64
    voxels: I64
    points_nm: F64
    segments: Ids
    sizes: I64
    scores: F64
    more: Columns = field(default_factory=dict)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.components)

    def rows(self, keep: NDArray[Any]) -> FoundSites:
        """Return some of them."""
        return FoundSites(
            self.components[keep],
            self.voxels[keep],
            self.points_nm[keep],
            self.segments[keep],
            self.sizes[keep],
            self.scores[keep],
            {name: column[keep] for name, column in self.more.items()},
        )


def scores_of(components: Columns, spec: ScoreSpec) -> F64:
    """Return the scores of components, 0 to 1; see `ScoreSpec`."""
    if spec.measure == "max":
        return np.asarray(components["peak"] / 255)
    full = components["n"] if spec.measure == "mean" else spec.sum_full_vox
    return np.asarray(np.minimum(1.0, components["evidence_sum"] / (255 * np.maximum(full, 1))))


def voxels_at(places: I64, shape: Vec) -> I64:
    """Return the voxels, int64 [n, 3], of places."""
    return np.stack(np.unravel_index(places, shape), axis=1).astype(np.int64).reshape(-1, 3)


def centres(grid: Grid, voxels: NDArray[Any]) -> F64:
    """Return the world positions of the centres of voxels, float64 [n, 3]."""
    return np.asarray(np.array(grid.offset_nm) + (voxels + 0.5) * np.array(grid.voxel_size_nm))


def found_sites(votes: Columns, components: Columns, spec: ScoreSpec, grid: Grid, shape: Vec) -> FoundSites:
    """Return one site per component, in the segment that holds most of it.

    Args:
        votes: of a layer whose components are asked by themselves.
        components: all of them.
        spec: how they are scored.
        grid: where voxels lie.
        shape: of the volume.
    """
    # Where segments tie, the first in raster order: a rule that does not look at ids.
    order = np.lexsort((votes["first"], -votes["n"], votes["segment"] == 0, votes["component"]))
    which, first = np.unique(votes["component"][order], return_index=True)
    rows = order[first]
    voxels = voxels_at(votes["place"][rows], shape)
    scores = scores_of({name: column[which] for name, column in components.items()}, spec)
    more = {name: column[rows] for name, column in votes.items()}
    return FoundSites(
        which, voxels, centres(grid, voxels), votes["segment"][rows], components["n"][which], scores, more
    )


def believed(sites: FoundSites, notes: Notes, keep_background: bool) -> FoundSites:
    """Return the sites that are not masked and lie in a segment; the others are counted."""
    masked = sites.more["usable"] == 0
    background = (sites.segments == 0) & ~masked
    notes["sites in the mask"] += int(masked.sum())
    if keep_background:
        return sites.rows(~masked)
    notes["sites in no segment"] += int(background.sum())
    return sites.rows(~(masked | background))


@dataclass(frozen=True, eq=False)
class Contacts:
    """Contacts before they are cleaned: like a `SynapseTable`, polyads by any number.

    Attributes:
        polyads: int64 [n].
        pre_voxels, post_voxels: int64 [n, 3].
        pre_segments, post_segments: uint64 [n].
        sizes: int64 [n].
        scores: float64 [n].
        components: by layer, int64 [n], the components of the sites.
    """

    polyads: I64
    pre_voxels: I64
    post_voxels: I64
    pre_segments: Ids
    post_segments: Ids
    sizes: I64
    scores: F64
    components: Mapping[str, I64]


def contacts_of(pre: FoundSites, post: FoundSites, pairs: I64) -> Contacts:
    """Return the contacts of pairs (pre, post): as large as the post site, as sure as the less sure of the two."""
    a, b = pairs[:, 0], pairs[:, 1]
    scores = np.minimum(pre.scores[a], post.scores[b])
    return Contacts(
        a,
        pre.voxels[a],
        post.voxels[b],
        pre.segments[a],
        post.segments[b],
        post.sizes[b],
        scores,
        {"pre": pre.components[a], "post": post.components[b]},
    )


def finished(
    contacts: Contacts, clean: CleanSpec, grid: Grid, notes: Notes, source: str = "synapses"
) -> tuple[SynapseTable, I64]:
    """Return the table, cleaned and numbered in raster order of post sites (then pre sites), and its contacts.

    Args:
        contacts: in any order.
        clean: what is removed.
        grid: where voxels lie.
        notes: counts what is removed.
        source: name in messages.
    """
    order = np.lexsort((*contacts.pre_voxels.T[::-1], *contacts.post_voxels.T[::-1]))
    ids = np.arange(1, len(order) + 1, dtype=np.uint64)
    table = SynapseTable(
        ids,
        (contacts.polyads[order] + 1).astype(np.uint64),
        centres(grid, contacts.pre_voxels[order]),
        centres(grid, contacts.post_voxels[order]),
        contacts.pre_segments[order],
        contacts.post_segments[order],
        contacts.sizes[order],
        contacts.scores[order].astype(np.float32),
        source,
    )
    table = _without(table, table.scores < np.float32(clean.min_score), notes, "contacts of a lower score")
    if clean.autapses == "remove":
        table = _without(table, autapses(table), notes, "autapses")
    if clean.duplicates_nm is not None:
        table = _without(table, duplicates(table, clean.duplicates_nm), notes, "duplicates")
    return _renumbered(table), order[table.ids.astype(np.int64) - 1]


def _without(table: SynapseTable, gone: NDArray[np.bool_], notes: Notes, what: str) -> SynapseTable:
    notes[what] += int(gone.sum())
    return table.rows(~gone)


def _renumbered(table: SynapseTable) -> SynapseTable:
    _, first, which = np.unique(table.polyads, return_index=True, return_inverse=True)
    polyads = np.argsort(np.argsort(first))[which] + 1
    columns: Mapping[str, Any] = {
        name: getattr(table, name)
        for name in ("pre_nm", "post_nm", "pre_segments", "post_segments", "sizes_vox", "scores", "source")
    }
    ids = np.arange(1, len(table) + 1, dtype=np.uint64)
    return SynapseTable(ids=ids, polyads=polyads.astype(np.uint64), **columns)


def hull_of(a: I64, b: I64, margin: Vec, shape: Vec) -> Box:
    """Return the box that holds two voxels and a margin around them, inside a volume."""
    low, high = np.minimum(a, b), np.maximum(a, b) + 1
    return Box.of(low.tolist(), high.tolist()).grow(margin).intersect(Box.whole(shape))
