"""What `emloom export-neurons` is asked for, as a value."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.spec import Spec

Extent = Annotated[int, Field(ge=1)]
MeshFormat = Literal["precomputed", "ply", "obj"]
SkeletonFormat = Literal["precomputed", "swc", "nml"]


class MeshSpec(Spec):
    """How surfaces are made."""

    formats: tuple[MeshFormat, ...] = ("precomputed",)
    """What is written of each neuron."""
    factors: tuple[Extent, Extent, Extent] = (1, 1, 1)
    """Voxels (z, y, x) that are taken together first, by majority: coarser meshes, in less time."""
    smooth: int = Field(default=5, ge=0, le=100)
    """Steps of smoothing; 0 leaves the staircase of voxels."""
    keep: float = Field(default=0.1, gt=0, le=1)
    """Fraction of the triangles that stays; 1 simplifies nothing."""


class CentreLineSpec(Spec):
    """How centre lines are made (TEASAR)."""

    formats: tuple[SkeletonFormat, ...] = ("precomputed", "swc")
    """What is written of each neuron; `nml` is one file of all."""
    scale: float = Field(default=1.5, ge=0)
    """A path clears what lies within `scale` times its radius, plus `constant_nm`; the next begins outside."""
    constant_nm: float = Field(default=150.0, ge=0)
    """See `scale`: larger values leave out short branches."""
    tolerance_nm: float | None = Field(default=None, ge=0)
    """How far a line may lie from the voxels walked through; default: half the longest edge of a voxel."""
    most_vox: int = Field(default=1 << 25, ge=1000)
    """Voxels of a neuron's box, at most: a larger one is skeletonised at a coarser size, and that is told."""


class ExportNeuronsJob(Spec):
    """Write the neurons of a segmentation as meshes and skeletons (`emloom export-neurons`)."""

    segmentation: str
    """Labels, or a container of `emloom segment`."""
    output: str
    """Folder to be made."""
    ids: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Which segments; default: all."""
    min_size_vox: int = Field(default=0, ge=0)
    """Segments of fewer voxels are left out."""
    meshes: MeshSpec | None = MeshSpec()
    skeletons: CentreLineSpec | None = CentreLineSpec()
    synapses: str | None = None
    """Table of synapses, attached to the nodes of the skeletons nearest to their sites."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm, only where the labels do not state it."""
    block_vox: tuple[Extent, Extent, Extent] = (128, 256, 256)
    """Voxels (z, y, x) that are read at once, a multiple of the factors of the meshes."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.meshes is None and self.skeletons is None:
            raise ValueError("neither meshes nor skeletons are asked for: ask for at least one")
        if self.synapses is not None and self.skeletons is None:
            raise ValueError("synapses are attached to skeletons: ask for skeletons, or leave synapses out")
        factors: Vec = (1, 1, 1) if self.meshes is None else self.meshes.factors
        if any(b % f for b, f in zip(self.block_vox, factors, strict=True)):
            raise ValueError(f"blocks of {self.block_vox} voxels are no multiple of the factors {factors}")
        for part in (self.meshes, self.skeletons):
            if part is not None and not part.formats:
                raise ValueError("formats: name at least one, or leave the part out")
        return self
