"""A phantom: synthetic neuropil of any size with known neurites and skeletons.

Tortuous neurites of many calibres fill space: thick dendrites with spines, thin axons with boutons. The raw volume
looks like electron microscopy; the labels are the truth, the skeletons run inside them. Everything is a function
of (spec, voxel): volumes compute what is read, and a voxel has the same value whichever box asks for it. ::

    phantom = Phantom(PhantomSpec(shape=(128, 256, 256), seed=1))
    raw, labels = phantom.raw.read(box), phantom.labels.read(box)

Space is cut into lattice cells of about `neurite_nm`, each owned by one neurite (`emloom.testing.neurites`); the
nearest owner, in bent space, fills a voxel (`emloom.testing.tissue`); `emloom.testing.micrograph` draws it. Only
the lattice is held in memory: about a byte per thousand voxels at 8 nm. A neurite is one 6-connected piece, but
for a stray voxel now and then where three of them meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry import Box, Grid, cells
from emloom.geometry.box import Vec
from emloom.geometry.synapses import SynapseTable
from emloom.io.open import create_volume
from emloom.io.synapsetable import SYNAPSES, write_synapse_table
from emloom.io.volume import Volume, VolumeInfo, check_box
from emloom.spec import Spec
from emloom.testing import micrograph
from emloom.testing.neurites import FLESH, ROOT, Links, Owner, grow_neurites
from emloom.testing.synapses import Synapses, SynapsesSpec, grow_synapses
from emloom.testing.synapticzones import no_zones
from emloom.testing.tissue import Tissue, site, unbend

Array = NDArray[Any]
# A skeleton: neurite, nodes [N, 3] in nm (z, y, x), edges [M, 2] of node numbers.
Skeleton = tuple[int, NDArray[np.float64], NDArray[np.int64]]

SUBTILE_NM = 32.0


class NoiseSpec(Spec):
    """What the microscope adds to the picture."""

    sensor: float = Field(default=7.0, ge=0)
    """Standard deviation of the sensor noise, grey levels."""
    sections: float = Field(default=0.0, ge=0)
    """Standard deviation of the brightness of sections, grey levels."""


class PhantomSpec(Spec):
    """What a phantom holds and how its microscope sees it."""

    shape: tuple[int, int, int] = (128, 128, 128)
    """Voxels (z, y, x)."""
    voxel_size_nm: tuple[float, float, float] = (8.0, 8.0, 8.0)
    """Voxel size (z, y, x) in nm; (40, 4, 4) looks like serial sections."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Another seed, another tissue."""
    neurite_nm: float = Field(default=170.0, gt=0)
    """Typical width of a thin axon in nm; thick neurites are several times that."""
    thick_fraction: float = Field(default=0.35, ge=0, le=0.7)
    """Part of the volume that thick neurites try to fill."""
    tortuosity: float = Field(default=1.0, ge=0, le=1)
    """How far space is bent: 0 leaves polygons."""
    membrane_nm: float = Field(default=8.0, gt=0)
    """Thickness of one membrane in nm."""
    organelles: float = Field(default=1.0, ge=0, le=2)
    """How many mitochondria, vesicles and cisterns; 0: none."""
    noise: NoiseSpec = NoiseSpec()
    """Noise; a number is that of the sensor (and `section_jitter`, beside it, that of sections)."""
    synapses: SynapsesSpec = SynapsesSpec()
    """Synapses; a number is how many pre sites there are per cubic micrometre. 0: none."""

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, data: Any) -> Any:
        """Take plain numbers for what is nested."""
        if not isinstance(data, dict):
            return data
        out = dict(data)
        if _is_number(out.get("noise", 7.0)) and {"noise", "section_jitter"} & set(out):
            out["noise"] = {"sensor": out.get("noise", 7.0), "sections": out.pop("section_jitter", 0.0)}
        if _is_number(out.get("synapses")):
            out["synapses"] = {"per_um3": out["synapses"]}
        return out

    @model_validator(mode="after")
    def _check(self) -> PhantomSpec:
        if min(self.shape) < 1:
            raise ValueError(f"shape {self.shape} has an extent below 1 voxel")
        if not 0 < min(self.voxel_size_nm) <= max(self.voxel_size_nm) <= self.neurite_nm / 3:
            raise ValueError(
                f"voxel size {self.voxel_size_nm} nm must be positive and at most a third of neurite_nm "
                f"({self.neurite_nm}), or thin neurites would fall apart"
            )
        return self

    @classmethod
    def isotropic(cls, shape: Vec = (128, 128, 128), seed: int = 0) -> PhantomSpec:
        """Return tissue as FIB-SEM sees it: 8 nm in every direction."""
        return cls(shape=shape, seed=seed)

    @classmethod
    def sections(cls, shape: Vec = (32, 256, 256), seed: int = 0) -> PhantomSpec:
        """Return tissue as serial-section TEM sees it: 40 nm sections of uneven brightness, 4 nm pixels."""
        noise = NoiseSpec(sensor=9.0, sections=7.0)
        return cls(shape=shape, voxel_size_nm=(40.0, 4.0, 4.0), seed=seed, noise=noise)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


class Phantom:
    """Synthetic neuropil: raw, labels and skeletons of one `PhantomSpec`.

    Attributes:
        spec: what it was made from.
        raw: uint8 volume.
        labels: uint64 volume; neurites are 1, 2, ... and fill space.
        clefts: uint64 volume; polyads (`SynapseTable.polyads`) are 1, 2, ..., the rest is 0. A cleft is a disc of
            membrane between pre and post neurite, with what lies within 20 nm (more where voxels are coarse) of
            the middle between the two on either side.
    """

    def __init__(self, spec: PhantomSpec) -> None:
        self.spec = spec
        grid = Grid(spec.voxel_size_nm)
        self.raw: Volume = _PhantomVolume(
            self, VolumeInfo(spec.shape, np.dtype(np.uint8), grid, kind="raw", source="phantom raw")
        )
        self.labels: Volume = _PhantomVolume(
            self, VolumeInfo(spec.shape, np.dtype(np.uint64), grid, kind="labels", source="phantom labels")
        )
        self.clefts: Volume = _PhantomVolume(
            self, VolumeInfo(spec.shape, np.dtype(np.uint64), grid, kind="labels", source="phantom clefts")
        )

    def synapses(self) -> SynapseTable:
        """Return the true table of synapses: segments are neurites, polyads are those of `clefts`, scores 1.

        A site lies in a voxel of its neurite, 20 to 50 nm from the membrane; sizes are voxels of a polyad's cleft.
        """
        return self._synapses.table(self._sizes())

    def _sizes(self) -> NDArray[np.int64]:
        grown, whole = self._synapses, Box.whole(self.spec.shape)
        sizes = np.zeros(grown.n_polyads + 1, np.int64)
        for polyad in range(1, grown.n_polyads + 1):
            box = grown.box(polyad, self.spec.voxel_size_nm).intersect(whole)
            sizes[polyad] = np.count_nonzero(self._clefts(box) == polyad)
        return sizes

    def skeletons(self) -> list[Skeleton]:
        """Return the tree of every neurite that has an edge: (id, nodes [N, 3] nm, edges [M, 2]).

        Nodes are the centres of the neurite's core cells and, between linked ones, one point half way.
        """
        owner, link = self._lattice
        core = np.argwhere(link != FLESH)
        child = core[link[tuple(core.T)] != ROOT]
        steps = np.array([(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)])
        parent = child + steps[link[tuple(child.T)]]
        number = np.full(owner.shape, -1, np.int64)
        number[tuple(core.T)] = np.arange(len(core))
        sites = np.array([self._site(cell) for cell in core])
        first, second = number[tuple(child.T)], number[tuple(parent.T)]
        middle = len(core) + np.arange(len(child))
        nodes = unbend(self._tissue, np.concatenate([sites, (sites[first] + sites[second]) / 2]))
        edges = np.concatenate([np.stack([first, middle], 1), np.stack([middle, second], 1)])
        return _by_neurite(owner[tuple(child.T)], nodes, edges)

    def _site(self, cell: NDArray[np.int64]) -> NDArray[np.float64]:
        out = np.empty(3)
        site(self._tissue, int(cell[0]), int(cell[1]), int(cell[2]), out)
        return out

    @cached_property
    def _lattice(self) -> tuple[Owner, Links]:
        spec = self.spec
        extent = np.multiply(spec.shape, spec.voxel_size_nm)
        z, y, x = (max(1, round(e / spec.neurite_nm)) for e in extent)
        return grow_neurites((z, y, x), spec.seed, spec.thick_fraction)

    @cached_property
    def _tissue(self) -> Tissue:
        spec = self.spec
        owner = self._lattice[0]
        voxel = np.array(spec.voxel_size_nm)
        cell = np.multiply(spec.shape, voxel) / owner.shape
        return Tissue(
            owner=owner,
            cell_nm=cell,
            voxel_nm=voxel,
            subtile=np.maximum(1, np.round(SUBTILE_NM / voxel)).astype(np.int64),
            seed=spec.seed,
            bend_nm=np.array([0.4, 1.4]) * spec.tortuosity * spec.neurite_nm,
            membrane_nm=spec.membrane_nm,
            organelles=spec.organelles,
            # With synapses, what looks like one is one.
            lookalikes=spec.synapses.per_um3 == 0,
        )

    @cached_property
    def _synapses(self) -> Synapses:
        return grow_synapses(self._tissue, self.spec.synapses)

    def _labels(self, box: Box) -> NDArray[np.uint64]:
        out = np.empty(box.shape, np.uint64)
        if not box.is_empty:
            micrograph.fill(
                self._tissue, no_zones(), np.array(box.start), (out, micrograph.NO_GREY, micrograph.NO_IDS)
            )
        return out

    def _clefts(self, box: Box) -> NDArray[np.uint64]:
        out = np.zeros(box.shape, np.uint64)
        zones = self._synapses.near(box, self.spec.voxel_size_nm)
        if not box.is_empty and len(zones.contacts):
            micrograph.fill(self._tissue, zones, np.array(box.start), (micrograph.NO_IDS, micrograph.NO_GREY, out))
        return out

    def _raw(self, box: Box) -> NDArray[np.uint8]:
        out = np.empty(box.shape, np.uint8)
        if box.is_empty:
            return out
        # Optics blur by a voxel, but not from one section to the next.
        voxel = np.array(self.spec.voxel_size_nm)
        halo = [int(v <= 1.5 * voxel.min()) for v in voxel]
        wide = box.grow(halo)
        inside = wide.intersect(Box.whole(self.spec.shape))
        grey = np.empty(inside.shape, np.float32)
        zones = self._synapses.near(inside, self.spec.voxel_size_nm)
        micrograph.fill(self._tissue, zones, np.array(inside.start), (micrograph.NO_IDS, grey, micrograph.NO_IDS))
        margins = [
            (a - b, d - c) for a, b, c, d in zip(inside.start, wide.start, inside.stop, wide.stop, strict=True)
        ]
        grey = _blur(np.pad(grey, margins, mode="edge"), halo)
        noise = self.spec.noise
        micrograph.develop(grey, np.array(box.start), self.spec.seed, noise.sensor, noise.sections, out)
        return out


@dataclass(frozen=True)
class _PhantomVolume:
    """One face of a phantom as a read-only volume."""

    phantom: Phantom
    info: VolumeInfo

    def read(self, box: Box) -> Array:
        """Compute the voxels of `box`; raises `InputError` where it leaves the volume."""
        check_box(self.info, box)
        phantom = self.phantom
        match self.info.source.split()[-1]:
            case "raw":
                return phantom._raw(box)
            case "labels":
                return phantom._labels(box)
            case _:
                return phantom._clefts(box)

    def write(self, box: Box, array: Array) -> None:
        """Raise `InputError`: a phantom is computed, not stored."""
        raise InputError(f"{self.info.source} is computed and read-only: store it with write_phantom")


def _blur(grey: NDArray[np.float32], halo: list[int]) -> NDArray[np.float32]:
    """Smooth by (1, 2, 1) / 4 along the axes that have a halo, which is used up."""
    for axis, width in enumerate(halo):
        if width:
            moved = np.moveaxis(grey, axis, 0)
            sums = moved[:-2] + moved[2:] + np.float32(2) * moved[1:-1]
            grey = np.moveaxis(sums * np.float32(0.25), 0, axis)
    return np.ascontiguousarray(grey)


def _by_neurite(
    neurite: NDArray[np.int32], nodes: NDArray[np.float64], edges: NDArray[np.int64]
) -> list[Skeleton]:
    """Split a forest into trees; edge i and edge i + n belong to neurite[i]."""
    whose = np.concatenate([neurite, neurite])
    order = np.argsort(whose, kind="stable")
    ids, first = np.unique(whose[order], return_index=True)
    out: list[Skeleton] = []
    for label, part in zip(ids, np.split(edges[order], first[1:]), strict=True):
        used, local = np.unique(part, return_inverse=True)
        out.append((int(label), nodes[used], local.reshape(-1, 2).astype(np.int64)))
    return out


def write_phantom(spec: PhantomSpec, folder: str | Path, *, block: Vec = (64, 256, 256)) -> tuple[Volume, Volume]:
    """Store a phantom's raw and labels, and its spec, in a folder.

    Args:
        spec: what to grow.
        folder: receives `raw.zarr`, `labels.zarr` and `phantom.yaml`, and `clefts.zarr` and `synapses.parquet`
            where synapses are asked for; created.
        block: voxels computed at once.

    Returns:
        the stored raw and labels.

    Raises:
        InputError: something of that name is there already.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    phantom = Phantom(spec)
    stored: list[Volume] = []
    volumes = {"raw": phantom.raw, "labels": phantom.labels}
    if spec.synapses.per_um3 > 0:
        volumes["clefts"] = phantom.clefts
        write_synapse_table(folder / SYNAPSES, phantom.synapses(), {"segments": "labels.zarr"}, overwrite=False)
    for name, volume in volumes.items():
        out = create_volume(folder / f"{name}.zarr", volume.info)
        for _, box in cells(volume.info.box, block):
            out.write(box, volume.read(box))
        stored.append(out)
    spec.dump(folder / "phantom.yaml")
    return stored[0], stored[1]


__all__ = ["NoiseSpec", "Phantom", "PhantomSpec", "Skeleton", "SynapsesSpec", "write_phantom"]
