"""Augmentation: what may happen to a training sample.

An `AugmentSpec` says with which probability and how strongly; `emloom.nn.draw` draws a `SamplePlan` from it, and
`emloom.nn.render` carries the plan out. Draw, then apply, then record: the same plan gives the same bytes in any
worker, in any order, after any resume.

Order of events, as in a microscope::

    tissue -> affine -> elastic -> cut into sections: shift, slip, fold -> orientation        raw and labels
           -> contrast, brightness, gamma -> blur -> fold's shadow, low contrast, artifacts,
              boxes -> noise -> missing sections                                              raw only

Sections are the planes along z of the *sample*. Lengths are nm, grey values are those of the network's [-1, 1].
The effects and their defaults follow Funke et al. 2019 (doi:10.1109/TPAMI.2018.2835450), Lee et al. 2017
(arXiv:1706.00120) and gunpowder; where these disagree, the field's docstring says what is done here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emloom.geometry.grid import Vec3
from emloom.spec import Spec

Probability = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[float, float]

#: Volumes smaller than this many standard deviations of an elastic displacement beyond the crop are refused.
ELASTIC_REACH_SIGMAS = 4.0


def _ordered(spec: Spec, *names: str) -> None:
    for name in names:
        low, high = getattr(spec, name)
        if low > high:
            raise ValueError(f"{name} ({low}, {high}) is a range: give the smaller value first")


def _sum_to_one(**probabilities: float) -> None:
    total = sum(probabilities.values())
    if total > 1:
        listed = " + ".join(f"{name} {p}" for name, p in probabilities.items())
        raise ValueError(f"{listed} = {total:g} is above 1: at most one of them befalls a section, lower them")


class AffineSpec(Spec):
    """Rotation, scale and shear within sections, drawn uniformly from ranges."""

    rotation_deg: Pair = (0.0, 0.0)
    """Angle from y to x; (0, 360) is every direction."""
    scale: Pair = (1.0, 1.0)
    """Content becomes this many times larger."""
    shear_deg: Pair = (0.0, 0.0)
    """Shear along x."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _ordered(self, "rotation_deg", "scale", "shear_deg")
        if self.scale[0] <= 0 or max(map(abs, self.shear_deg)) >= 90:
            raise ValueError(f"scale {self.scale} must be above 0 and shear {self.shear_deg} below 90 deg")
        return self


class ElasticSpec(Spec):
    """Smooth random displacement: a cubic B-spline through independent normal control points.

    Unlike gunpowder's, the field has the standard deviation asked for at *every* voxel.
    """

    spacing_nm: Vec3 = (160.0, 160.0, 160.0)
    """Distance (z, y, x) of control points; CREMI's 4, 40, 40 voxels."""
    sigma_nm: Vec3 = (0.0, 8.0, 8.0)
    """Standard deviation (z, y, x) of the displacement; 0 along z keeps voxels in their section, which is
    faster."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if min(self.spacing_nm) <= 0 or min(self.sigma_nm) < 0 or max(self.sigma_nm) == 0:
            raise ValueError(f"spacing {self.spacing_nm} must be positive, sigma {self.sigma_nm} not negative")
        return self


class SectionsSpec(Spec):
    """Misalignment of sections by whole voxels, drawn uniformly from a square.

    A *slip* moves one section; a *shift* moves it and all that follow. A slip adds to the shifts before it (in
    gunpowder it replaces them). Displacements are relative to the middle section, which stays in its place.
    """

    slip: Probability = 0.0
    """Probability, for every section, that it slips."""
    shift: Probability = 0.0
    """Probability, for every section, that the stack shifts there."""
    largest_nm: float = Field(default=40.0, gt=0)
    """Largest displacement along y and along x."""
    slip_moves_labels: bool = True
    """Whether labels follow a slip; they always follow a shift."""

    @model_validator(mode="after")
    def _exclusive(self) -> Self:
        _sum_to_one(slip=self.slip, shift=self.shift)
        return self


class IntensitySpec(Spec):
    """Contrast, brightness and gamma: ``clip((n - mean) * contrast + mean + brightness) ^ gamma``.

    `mean` is that of the sample; the power acts on the range [0, 1]. GreyAugment of Lee et al. is contrast (0.85,
    1.15), brightness (-0.3, 0.3), gamma (0.5, 2), scope `mix`, skip 0.3.
    """

    contrast: Pair = (0.75, 1.3)
    """Factor around the mean, drawn uniformly."""
    brightness: Pair = (-0.2, 0.2)
    """Added, drawn uniformly."""
    gamma: Pair = (0.75, 1.35)
    """Exponent; its logarithm is drawn uniformly."""
    scope: Literal["volume", "section", "mix"] = "volume"
    """One draw per sample, one per section, or either with equal chance."""
    skip: Probability = 0.0
    """Probability that nothing is done."""
    section_jitter: float = Field(default=0.0, ge=0)
    """Standard deviation of brightness from section to section, on top of everything."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _ordered(self, "contrast", "brightness", "gamma")
        if self.gamma[0] <= 0 or self.contrast[0] < 0:
            raise ValueError(f"gamma {self.gamma} must be above 0, contrast {self.contrast} not negative")
        return self


class BlurSpec(Spec):
    """Sections out of focus, or blurred by drift of the stage."""

    gaussian: Probability = 0.0
    """Probability, for every section, of a Gaussian blur."""
    sigma_nm: Pair = (0.0, 20.0)
    """Its standard deviation, drawn uniformly."""
    motion: Probability = 0.0
    """Probability, for every section, of a blur along a random line."""
    length_nm: Pair = (12.0, 60.0)
    """Length of that line, drawn uniformly."""
    partial: Probability = 0.0
    """Share of blurs that spare some of the four quadrants around a random point."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _ordered(self, "sigma_nm", "length_nm")
        _sum_to_one(gaussian=self.gaussian, motion=self.motion)
        if self.sigma_nm[0] < 0 or self.length_nm[0] <= 0:
            raise ValueError(f"sigma {self.sigma_nm} must not be negative, length {self.length_nm} above 0")
        return self


class LibrarySpec(Spec):
    """Real artifacts to blend in: a stack of images, one artifact per section, and a stack of masks."""

    images: str
    """Path of a raw volume, e.g. `defects.h5/defect_sections/raw` of CREMI."""
    masks: str
    """Path of a volume of the same shape: how much of the artifact is seen, from 0 to its largest value."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where the files do not state it; y and x must be those of the data."""

    @property
    def paths(self) -> list[str]:
        """Every file the library refers to."""
        return [self.images, self.masks]


class FoldSpec(Spec):
    """Folds: along a line across the section tissue disappears, and a dark band is seen."""

    strength_nm: float = Field(default=80.0, ge=0)
    """How far both sides are pulled towards the line: a stripe of twice this width is hidden."""
    width_nm: float = Field(default=80.0, ge=0)
    """Width of the dark band."""
    moves_labels: bool = False
    """Whether labels are pulled too. Without it, the network learns to see through the fold."""


class DefectSpec(Spec):
    """What may befall a single section; at most one of these, by one draw."""

    missing: Probability = 0.0
    """Probability, for every section, that it is lost."""
    low_contrast: Probability = 0.0
    """Probability, for every section, of low contrast."""
    artifact: Probability = 0.0
    """Probability, for every section, that an artifact of the library is blended in."""
    fold: Probability = 0.0
    """Probability, for every section, of a fold."""
    partial: Probability = 0.0
    """Share of missing and low-contrast sections that spare some of the four quadrants around a random point."""
    fill: Literal["mean", "black", "random"] = "mean"
    """Grey value of what is missing: mean of the sample, -1, or random."""
    contrast_scale: float = Field(default=0.1, ge=0, le=1)
    """What remains of the contrast of a low-contrast section."""
    folds: FoldSpec = FoldSpec()
    library: LibrarySpec | None = None
    """Where artifacts come from."""
    apart_sections: int = Field(default=0, ge=0)
    """Sections after a defect that are spared, so that the network can look at a sound neighbour."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _sum_to_one(missing=self.missing, low_contrast=self.low_contrast, artifact=self.artifact, fold=self.fold)
        if self.artifact > 0 and self.library is None:
            raise ValueError(f"artifact {self.artifact} needs a library of artifacts: name one, or set it to 0")
        return self


class BoxesSpec(Spec):
    """Cuboids of constant grey that hide parts of the raw."""

    probability: Probability = 0.0
    """Probability, for every sample, of hiding something."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Largest share of the sample that is hidden; the share is drawn uniformly."""
    size_nm: Pair = (40.0, 400.0)
    """Extent of a cuboid along each axis, drawn uniformly."""
    fill: Literal["black", "random"] = "random"

    @model_validator(mode="after")
    def _possible(self) -> Self:
        _ordered(self, "size_nm")
        if self.size_nm[0] <= 0:
            raise ValueError(f"size {self.size_nm} must be above 0")
        return self


class AugmentSpec(Spec):
    """What may happen to a training sample."""

    flip: bool = True
    """Mirror each axis with probability one half."""
    transpose: bool = True
    """Permute the axes that share voxel size and extent."""
    affine: AffineSpec | None = None
    """Rotation, scale and shear within sections."""
    elastic: ElasticSpec | None = None
    """Smooth deformation."""
    sections: SectionsSpec = SectionsSpec()
    """Misaligned sections."""
    intensity: IntensitySpec = IntensitySpec()
    """Contrast, brightness, gamma."""
    defects: DefectSpec = DefectSpec()
    """Missing, faint, dirty and folded sections."""
    blur: BlurSpec = BlurSpec()
    """Sections out of focus."""
    boxes: BoxesSpec = BoxesSpec()
    """Hidden cuboids."""
    noise: float = Field(default=0.05, ge=0)
    """Largest standard deviation of added Gaussian noise; that of a sample is drawn uniformly."""

    @classmethod
    def none(cls) -> Self:
        """Return the augmentation that changes nothing."""
        still = IntensitySpec(contrast=(1, 1), brightness=(0, 0), gamma=(1, 1))
        return cls(flip=False, transpose=False, intensity=still, noise=0.0)

    @classmethod
    def serial_sections(cls, library: LibrarySpec | None = None) -> Self:
        """Return the full chain for serial-section stacks such as CREMI (40, 4, 4 nm)."""
        return cls(
            affine=AffineSpec(rotation_deg=(0.0, 360.0), scale=(0.9, 1.1)),
            elastic=ElasticSpec(),
            sections=SectionsSpec(slip=0.05, shift=0.05, largest_nm=40.0),
            intensity=IntensitySpec(
                contrast=(0.85, 1.15), brightness=(-0.2, 0.2), gamma=(0.7, 1.4), scope="mix", section_jitter=0.05
            ),
            defects=DefectSpec(
                missing=0.03,
                low_contrast=0.01,
                fold=0.01,
                artifact=0.0 if library is None else 0.03,
                partial=0.3,
                library=library,
            ),
            blur=BlurSpec(gaussian=0.03, motion=0.01, partial=0.3),
        )

    @classmethod
    def isotropic(cls) -> Self:
        """Return the full chain for isotropic stacks such as FIB-SEM (8 nm)."""
        return cls(
            affine=AffineSpec(rotation_deg=(0.0, 360.0), scale=(0.9, 1.1)),
            elastic=ElasticSpec(spacing_nm=(320.0, 320.0, 320.0), sigma_nm=(16.0, 16.0, 16.0)),
            blur=BlurSpec(gaussian=0.03, sigma_nm=(0.0, 12.0)),
        )
