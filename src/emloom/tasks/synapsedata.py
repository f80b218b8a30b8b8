"""Stacks with annotated synapses: balls around sites as a volume of labels, drawn where they are read.

::

    table of synapses + neurons  ──  SiteLabels.read(box)  ──  polyad * 256 + side (`emloom.ops.polyads`)

Every site is a ball, clipped to the neuron that holds it; a site in the background of the neurons, or with none
given, is not clipped. Where balls meet, the nearest site decides. Whatever box is read, a voxel has the same
label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.skeletons import voxels_containing
from emloom.geometry.synapses import SynapseTable
from emloom.io.checks import require_labels
from emloom.io.open import open_volume
from emloom.io.volume import Array, Volume, VolumeInfo, borrow, cached, check_box
from emloom.nn.crops import TrainingVolume, check_same_grid
from emloom.nn.objectives.partners import PartnersObjective
from emloom.ops.polyads import encode, post_sides
from emloom.ops.synapse_targets import draw_balls
from emloom.tasks.data import MarksSpec, SplitSpec, avoided, check_boxes
from emloom.tasks.qcmask import open_usable
from emloom.tasks.synapsesource import first_rows, read_any_sites, read_any_synapses, segments_at

Ids = NDArray[np.uint64]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


class SynapseStackSpec(SplitSpec):
    """A raw stack with annotated synapses, and its split."""

    synapses: str
    """A table of synapses, a CREMI file or a tracing; see `emloom.tasks.synapsesource`."""
    neurons: str | None = None
    """Path of neurons on the same grid, to which balls around sites are clipped; default: they are not."""
    marks: MarksSpec = MarksSpec()
    """Where synapses are known, and where crops are wanted."""
    outside: Literal["error", "omit"] = "error"
    """What becomes of synapses with a site outside the raw."""

    @property
    def paths(self) -> list[str]:
        """Every file the stack refers to."""
        neurons = [] if self.neurons is None else [self.neurons]
        return [self.raw, self.synapses, *neurons, *self.marks.paths]


@dataclass(frozen=True, eq=False)
class SiteLabels:
    """Polyads and their sides as a volume that is drawn when it is read; `site_labels` makes it.

    Attributes:
        info: of the labels: those of the raw, uint64.
        values: uint64 [n], label of each site.
        voxels: int64 [n, 3], the voxel each lies in.
        owners: uint64 [n], the neuron that holds it, 0 where none does.
        radii_nm: float64 [n].
        neurons: what balls are clipped to.
    """

    info: VolumeInfo
    values: Ids
    voxels: I64
    owners: Ids
    radii_nm: F64
    neurons: Volume | None = None

    def read(self, box: Box) -> Array:
        """Return the labels of `box`; raises `InputError` where it leaves the volume."""
        check_box(self.info, box)
        if box.is_empty:
            return np.zeros(box.shape, np.uint64)
        reach = np.array(self.info.grid.voxels(float(self.radii_nm.max(initial=0.0))))
        near = ((self.voxels >= np.array(box.start) - reach) & (self.voxels < np.array(box.stop) + reach)).all(
            axis=1
        )
        return draw_balls(
            self.values[near],
            self.voxels[near] - np.array(box.start),
            self.owners[near],
            self.radii_nm[near],
            self.info.grid.voxel_size_nm,
            None if self.neurons is None else borrow(self.neurons, box),
            box.shape,
        )

    def write(self, box: Box, array: Array) -> None:
        """Refuse: the labels follow from the table."""
        raise InputError(f"{self.info.source} is drawn from a table of synapses: change the table")


def site_labels(
    table: SynapseTable, like: VolumeInfo, neurons: Volume | None, pre_radius_nm: float, post_radius_nm: float
) -> SiteLabels:
    """Return the labels of a table's polyads on the voxels of a raw volume.

    Args:
        table: its segments play no part: sites are looked up in the neurons.
        like: whose voxels.
        neurons: labels on the same grid, to which balls are clipped; None: none is.
        pre_radius_nm: of the balls around pre sites.
        post_radius_nm: of the balls around post sites.

    Raises:
        InputError: a site lies outside, a ball would be a single voxel, there are no synapses, or as
            `emloom.ops.polyads.encode` and `post_sides`.
    """
    if not len(table):
        raise InputError(f"{table.source} holds no synapse: there is nothing to learn from it")
    half = min(like.grid.voxel_size_nm) / 2
    for side, radius in (("pre", pre_radius_nm), ("post", post_radius_nm)):
        if radius < half:
            raise InputError(
                f"{side}_radius_nm {radius:g} is less than half a voxel ({2 * half:g} nm): a ball would be one "
                "voxel; choose a radius of several voxels"
            )
    head = first_rows(table.polyads)
    points = np.concatenate([table.pre_nm[head], table.post_nm])
    sides = np.concatenate([np.zeros(len(head), np.int64), post_sides(table.polyads, table.ids)])
    values = encode(np.concatenate([table.polyads[head], table.polyads]), sides)
    order = np.argsort(values)
    radii = np.where(sides == 0, pre_radius_nm, post_radius_nm)[order]
    owners = np.zeros(len(points), np.uint64) if neurons is None else segments_at(neurons, points)
    info = VolumeInfo(like.shape, np.dtype(np.uint64), like.grid, kind="labels", source=f"sites of {table.source}")
    voxels = voxels_containing(like.grid, points)[order]
    outside = ~((voxels >= 0) & (voxels < np.array(like.shape))).all(axis=1)
    if outside.any():
        raise InputError(
            f"{table.source}: {int(outside.sum())} of {len(points)} sites lie outside {like.source}, e.g. at "
            f"{points[order][outside][0].tolist()} nm (z, y, x), voxel {voxels[outside][0].tolist()} of "
            f"{like.shape}: check units and offsets, or set outside to omit"
        )
    return SiteLabels(info, values[order], voxels, owners[order], radii, neurons)


def within(table: SynapseTable, info: VolumeInfo) -> SynapseTable:
    """Return the contacts whose two sites lie in a volume."""
    keep = np.ones(len(table), bool)
    for points in (table.pre_nm, table.post_nm):
        voxels = voxels_containing(info.grid, points)
        keep &= ((voxels >= 0) & (voxels < np.array(info.shape))).all(axis=1)
    return table.rows(keep)


@dataclass(frozen=True)
class SynapseStack:
    """An opened `SynapseStackSpec`.

    Attributes:
        spec: what was opened.
        raw: grey values.
        neurons: labels, if there are any.
        table: the synapses, with the segments under their sites where there are neurons.
        labels: balls around their sites.
        mask: where synapses are known.
        avoid: where crops are not wanted.
        foreground: where they are.
        sites_nm: sites to draw crops around: those of the table, or those that the marks name.
    """

    spec: SynapseStackSpec
    raw: Volume
    neurons: Volume | None
    table: SynapseTable
    labels: Volume
    mask: Volume | None
    avoid: Volume | None
    foreground: Volume | None
    sites_nm: F64

    @property
    def labelled(self) -> TrainingVolume:
        """What training may draw from."""
        spec = self.spec
        region, held_out = spec.room(self.raw.info.box, self.raw.info.grid.voxel_size_nm)
        return TrainingVolume(
            self.raw,
            self.labels,
            region,
            held_out,
            self.mask,
            background_vox=spec.marks.background_vox,
            hidden=(*spec.boxes("validation"), *spec.boxes("test")),
            avoid=self.avoid,
            foreground=self.foreground,
            sites_nm=self.sites_nm,
        )


def open_synapse_stack(spec: SynapseStackSpec, objective: PartnersObjective) -> SynapseStack:
    """Open and check a stack with synapses; volumes of moderate size are read into memory.

    Raises:
        InputError: a file is missing or damaged, grids differ, neurons are no labels, a site lies outside, there
            is no synapse, or the boxes of the split leave the volume or come too close to each other.
    """
    size = spec.voxel_size_nm
    raw = open_volume(spec.raw, voxel_size_nm=size, kind="raw")
    neurons = None if spec.neurons is None else _open_labels(spec.neurons, spec)
    marks = spec.marks
    mask = None if marks.mask is None else open_usable(marks.mask, size)
    avoid = avoided(marks.avoid, spec)
    foreground = None if marks.foreground is None else _open_labels(marks.foreground, spec)
    for other in (neurons, mask, avoid, foreground):
        if other is not None:
            check_same_grid(raw, other)
    check_boxes(spec, raw.info.box, raw.info.grid.voxel_size_nm)
    neurons = None if neurons is None else cached(neurons)
    table = read_any_synapses(spec.synapses, neurons, voxel_size_nm=raw.info.grid.voxel_size_nm)
    if spec.outside == "omit":
        table = within(table, raw.info)
    labels = site_labels(table, raw.info, neurons, objective.pre_radius_nm, objective.post_radius_nm)
    if marks.sites is None:
        sites = np.concatenate([table.pre_nm[first_rows(table.polyads)], table.post_nm])
    else:
        sites = read_any_sites(marks.sites, raw.info.grid.voxel_size_nm)
    return SynapseStack(
        spec,
        cached(raw),
        neurons,
        table,
        cached(labels),
        None if mask is None else cached(mask),
        None if avoid is None else cached(avoid),
        None if foreground is None else cached(foreground),
        sites,
    )


def _open_labels(path: str, spec: SplitSpec) -> Volume:
    volume = open_volume(path, voxel_size_nm=spec.voxel_size_nm, kind="labels")
    require_labels(volume)
    return volume
