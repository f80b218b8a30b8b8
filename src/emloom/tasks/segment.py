"""Affinities to segments: fragments, region graph, merge tree, and the segmentation at any threshold.

One function, `grow_tree`, does the work on arrays; whoever holds a whole volume in memory, or a cell of a large
one, calls the same code. Ids are positions in the whole volume, so they do not depend on who computed them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.io.files import staged
from emloom.io.open import create_volume, open_volume
from emloom.io.tables import read_table, write_table
from emloom.io.volume import VolumeInfo
from emloom.ops.agglomerate import MergeTree, agglomerate
from emloom.ops.fragments import Seeding, seeded_fragments
from emloom.ops.labels import apply_lut
from emloom.ops.regions import RegionGraph, region_graph
from emloom.run.provenance import fingerprint, write_provenance
from emloom.spec import Spec

Ids = NDArray[np.uint64]
Unit = Annotated[float, Field(ge=0.0, le=1.0)]


class SeededSpec(Spec):
    """Fragments by flooding from the centres of the spaces between boundaries."""

    kind: Literal["seeded"] = "seeded"
    threshold: Unit = 0.5
    """Mean nearest affinity above which a voxel counts as inside an object."""
    seed_distance_vox: int = Field(default=10, ge=1)
    """Window in which a distance maximum is one seed: larger windows give fewer, larger fragments."""
    per_section: bool = False
    """Flood each section on its own: for anisotropic stacks."""
    min_size_vox: int = Field(default=0, ge=0)
    """Smaller fragments become background."""


class MeanLinkage(Spec):
    """Merge by the mean affinity of all voxel pairs between two regions."""

    kind: Literal["mean"] = "mean"


class QuantileLinkage(Spec):
    """Merge by a quantile of the affinities between two regions."""

    kind: Literal["quantile"] = "quantile"
    quantile: int = Field(default=50, ge=0, le=99)


class SegmentSpec(Spec):
    """How affinities become segments."""

    fragments: SeededSpec = SeededSpec()
    linkage: Annotated[MeanLinkage | QuantileLinkage, Field(discriminator="kind")] = MeanLinkage()
    thresholds: tuple[Unit, ...] = Field(default=tuple(round(0.2 + 0.02 * i, 2) for i in range(39)), min_length=1)
    """Affinities at which merging may stop; the sweep that evaluation chooses from."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.thresholds)) != len(self.thresholds):
            raise ValueError("thresholds repeat a value")
        return self


@dataclass(frozen=True)
class Segmented:
    """Fragments and everything that follows from them.

    Attributes:
        fragments: uint64 ZYX, 0 is background.
        ids: uint64 [N], every fragment id, sorted.
        graph: contacts between fragments.
        tree: the merges, best first.
    """

    fragments: Ids
    ids: Ids
    graph: RegionGraph
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
    box: Box | None = None,
    total_shape: Vec | None = None,
    mask_ZYX: NDArray[Any] | None = None,
) -> Segmented:
    """Return fragments, region graph and merge tree of an affinity array.

    Args:
        affinities_CZYX: uint8; channel ``c`` at ``p`` is about ``(p, p + neighborhood[c])``.
        neighborhood: one ZYX offset per channel.
        grid: voxel size of the affinities.
        spec: the parameters.
        box: where the array lies in the whole volume (default: it is the whole volume).
        total_shape: shape of the whole volume, from which ids are counted.
        mask_ZYX: zero where nothing may be segmented.
    """
    seeded = spec.fragments
    fragments = seeded_fragments(
        affinities_CZYX,
        neighborhood,
        grid.voxel_size_nm,
        Seeding(seeded.threshold, seeded.seed_distance_vox, seeded.per_section, seeded.min_size_vox),
        mask_ZYX=mask_ZYX,
        origin=(0, 0, 0) if box is None else box.start,
        total_shape=total_shape,
    )
    lowest = min(spec.thresholds)
    if isinstance(spec.linkage, QuantileLinkage):
        graph = region_graph(fragments, affinities_CZYX, neighborhood, bins=256)
        tree = agglomerate(graph, linkage="quantile", quantile=spec.linkage.quantile, threshold=lowest)
    else:
        graph = region_graph(fragments, affinities_CZYX, neighborhood)
        tree = agglomerate(graph, linkage="mean", threshold=lowest)
    ids = np.unique(fragments)
    return Segmented(fragments, ids[ids > 0], graph, tree)


class SegmentJob(Spec):
    """Segment a volume of affinities (`emloom segment`)."""

    affinities: str
    """Path of a uint8 ``czyx`` volume with its neighborhood in the metadata."""
    output: str
    """Folder-like container (`.zarr`) to be made, with `fragments`, `segmentation` and the graph tables."""
    threshold: Unit
    """Affinity at which merging stops: take the one that validation chose."""
    segmentation: SegmentSpec = SegmentSpec()
    mask: str | None = None
    """Zero where nothing may be segmented; same grid."""


def segment(job: SegmentJob) -> Path:
    """Segment a whole volume in memory; write fragments, segmentation, region graph and merge tree.

    Returns:
        Path of the output container.

    Raises:
        InputError: the input holds no uint8 affinities, the mask has another grid, or the output exists.
    """
    started = time.perf_counter()
    source = open_volume(job.affinities)
    info = source.info
    if info.neighborhood is None or info.dtype != np.uint8:
        raise InputError(
            f"{job.affinities} holds {info.kind or 'values'} of dtype {info.dtype}: segmentation needs uint8 "
            "affinities with their neighborhood in the metadata, as `emloom predict` writes them"
        )
    mask = None
    if job.mask is not None:
        mask_volume = open_volume(job.mask, kind="mask")
        if not mask_volume.info.grid.matches(info.grid) or mask_volume.info.shape != info.shape:
            raise InputError(f"{job.mask} is not on the grid of {job.affinities}: crop or resample the mask")
        mask = mask_volume.read(info.box)
    thresholds = tuple(sorted({*job.segmentation.thresholds, job.threshold}))
    spec = job.segmentation.model_copy(update={"thresholds": thresholds})
    result = grow_tree(source.read(info.box), info.neighborhood, info.grid, spec, mask_ZYX=mask)
    with staged(job.output) as folder:
        save_segmented(folder, result, info.grid, job.threshold)
        seconds = {"segment": time.perf_counter() - started}
        inputs = {path: fingerprint(path) for path in (job.affinities, job.mask) if path}
        write_provenance(folder / "provenance.json", job.to_dict(), inputs, seconds)
    return Path(job.output)


def save_segmented(folder: Path, result: Segmented, grid: Grid, threshold: float) -> None:
    """Write the segmentation at a threshold, and everything `save_tree` writes, into a folder."""
    save_tree(folder, result, grid)
    _write_ids(folder / "segmentation", result.at(threshold), grid)


def save_tree(folder: Path, result: Segmented, grid: Grid) -> None:
    """Write the fragments, `edges.parquet` and `merges.parquet` (best first) into a folder."""
    _write_ids(folder / "fragments", result.fragments, grid)
    graph, tree = result.graph, result.tree
    columns = ("u", "v", "n", "total", "peak", "contacts")
    edges = {name: getattr(graph, name) for name in columns}
    write_table(folder / "edges.parquet", edges, {"total": "sum of the uint8 affinities of n voxel pairs"})
    merges = {"score_num": tree.score_num, "score_den": tree.score_den, "a": tree.a, "b": tree.b}
    write_table(folder / "merges.parquet", merges, {"floor": repr(tree.floor)})


def load_segmented(folder: Path) -> Segmented:
    """Read what `save_tree` wrote; of the graph only its ends and sums (the histogram is not kept)."""
    volume = open_volume(folder / "fragments")
    fragments = volume.read(volume.info.box)
    edges = read_table(folder / "edges.parquet").columns
    merges = read_table(folder / "merges.parquet")
    tree = MergeTree(**merges.columns, floor=float(merges.metadata["floor"]))
    ids = np.unique(fragments)
    return Segmented(fragments, ids[ids > 0], RegionGraph(**edges), tree)


def _write_ids(path: Path, ids_ZYX: Ids, grid: Grid) -> None:
    z, y, x = ids_ZYX.shape
    info = VolumeInfo((z, y, x), np.dtype(np.uint64), grid, kind="labels")
    create_volume(path, info).write(info.box, ids_ZYX)
