"""How affinities become segments, as values: kinds of fragments, linkages, cells, thresholds.

The result of every kind depends on these parameters alone, never on who computes which cell (`docs/blockwise.md`
says what is promised): `seeded` and `mutex` fragments depend on the lattice of cells, `ascent` fragments do not.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emloom.geometry import Vec
from emloom.spec import Spec

Unit = Annotated[float, Field(ge=0.0, le=1.0)]
Extent = Annotated[int, Field(ge=1)]


class SeededSpec(Spec):
    """Fragments by flooding from the centres of the spaces between boundaries, cell by cell."""

    kind: Literal["seeded"] = "seeded"
    threshold: Unit = 0.5
    """Mean nearest affinity above which a voxel counts as inside an object."""
    seed_distance_vox: int = Field(default=10, ge=1)
    """Window in which a distance maximum is one seed: larger windows give fewer, larger fragments."""
    per_section: bool = False
    """Flood each section on its own: for anisotropic stacks."""
    min_size_vox: int = Field(default=0, ge=0)
    """Smaller fragments become background; the parts in two cells are two fragments."""
    halo_vox: int = Field(default=32, ge=1)
    """Voxels that a cell sees around itself; within sections only, where these are flooded alone."""


class AscentSpec(Spec):
    """Fragments by steepest ascent of the affinities: the same for any cells, fast, and finer than seeded ones."""

    kind: Literal["ascent"] = "ascent"
    smoothing_vox: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Standard deviation (z, y, x) of the Gaussian that smooths the mean affinity before the ascent."""
    least_affinity: Unit = 0.0
    """Voxels climb only along affinities of at least this."""
    background: Unit = 0.0
    """Voxels of a lower mean affinity become background."""
    per_section: bool = False
    """Climb within sections only: for anisotropic stacks."""


class MutexSpec(Spec):
    """Fragments by the mutex watershed, cell by cell: long affinities keep apart what near ones would merge."""

    kind: Literal["mutex"] = "mutex"
    bias: float = Field(default=0.0, ge=-1.0, le=1.0)
    """Added to the nearest affinities, to the closest 1/255: more merges more; one below zero also drops
    affinities of less than its size."""
    repulsive_stride_vox: tuple[Extent, Extent, Extent] = (1, 1, 1)
    """Voxels (z, y, x) between those whose long affinities count: larger ones split less, and take less time."""
    per_section: bool = False
    """Work in each section alone, with the affinities in its plane: for anisotropic stacks."""
    min_size_vox: int = Field(default=0, ge=0)
    """Smaller fragments become background; the parts in two cells are two fragments."""
    halo_vox: int = Field(default=32, ge=1)
    """Voxels that a cell sees around itself; within sections only, where these are cut alone."""


class MeanLinkage(Spec):
    """Merge by the mean affinity of all voxel pairs between two regions."""

    kind: Literal["mean"] = "mean"

    @property
    def name(self) -> str:
        """Name of the folder of its look-up tables."""
        return "mean"


class QuantileLinkage(Spec):
    """Merge by a quantile of the affinities between two regions."""

    kind: Literal["quantile"] = "quantile"
    quantile: int = Field(default=50, ge=0, le=99)

    @property
    def name(self) -> str:
        """Name of the folder of its look-up tables."""
        return f"quantile-{self.quantile}"


class MaxLinkage(Spec):
    """Merge by the largest affinity between two regions."""

    kind: Literal["max"] = "max"

    @property
    def name(self) -> str:
        """Name of the folder of its look-up tables."""
        return "max"


class MutexLinkage(Spec):
    """Merge by the mutex watershed of the region graph: mean long affinities forbid what near ones would merge.

    A threshold stops it at that mean near affinity; 0 lets it end by itself.
    """

    kind: Literal["mutex"] = "mutex"

    @property
    def name(self) -> str:
        """Name of the folder of its look-up tables."""
        return "mutex"


FragmentSpec = Annotated[SeededSpec | AscentSpec | MutexSpec, Field(discriminator="kind")]
LinkageSpec = Annotated[MeanLinkage | QuantileLinkage | MaxLinkage | MutexLinkage, Field(discriminator="kind")]


class SegmentSpec(Spec):
    """How affinities become segments."""

    fragments: FragmentSpec = AscentSpec()
    linkage: LinkageSpec = MeanLinkage()
    thresholds: tuple[Unit, ...] = Field(default=tuple(round(0.2 + 0.02 * i, 2) for i in range(39)), min_length=1)
    """Affinities at which merging may stop; the sweep that evaluation chooses from."""
    cell_shape_vox: tuple[Extent, Extent, Extent] = (256, 256, 256)
    """Voxels (z, y, x) per cell, the unit of work; cells begin at multiples of it."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if len(set(self.thresholds)) != len(self.thresholds):
            raise ValueError("thresholds repeat a value")
        return self

    @property
    def bins(self) -> int:
        """Histogram bins that the linkage needs in the region graph."""
        return 256 if isinstance(self.linkage, QuantileLinkage) else 0

    @property
    def repels(self) -> bool:
        """Whether the linkage needs to know how much fragments repel each other."""
        return isinstance(self.linkage, MutexLinkage)

    @property
    def cell(self) -> Vec:
        """The cell as a vector."""
        return self.cell_shape_vox


class SegmentJob(Spec):
    """Segment a volume of affinities (`emloom segment`)."""

    affinities: str
    """Path of a uint8 ``czyx`` volume with its neighborhood in the metadata."""
    output: str
    """Container (`.zarr`) to be made, with `fragments`, `segmentation` and the graph tables."""
    threshold: Unit | None = None
    """Affinity at which merging stops: take the one that validation chose. None: no segmentation, but the tree."""
    segmentation: SegmentSpec = SegmentSpec()
    mask: str | None = None
    """Zero where nothing may be segmented, same grid; or a folder of `emloom qc`: nothing is where it found
    something."""
    luts: tuple[Unit, ...] = ()
    """Thresholds of which look-up tables are written as well."""
    min_segment_vox: int = Field(default=0, ge=0)
    """Segments of fewer voxels become background in `segmentation`."""

    @property
    def floor(self) -> float:
        """The lowest threshold that the merge tree answers for."""
        return min(self.wanted + self.segmentation.thresholds)

    @property
    def wanted(self) -> tuple[float, ...]:
        """The thresholds of which look-up tables are written, ascending."""
        return tuple(sorted({*self.luts, *(() if self.threshold is None else (self.threshold,))}))
