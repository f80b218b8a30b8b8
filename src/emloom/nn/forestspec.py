"""What a random forest looks at, and how it is grown."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.ops.voxelfeatures import FAMILIES, Family, FeatureSet, MultiScale, Original8
from emloom.spec import Spec

Sigma = Annotated[float, Field(gt=0)]


class MultiScaleSpec(Spec):
    """Smoothed image, edges, blobs, sheets and textures at several scales: `emloom.ops.voxelfeatures`."""

    kind: Literal["multiscale"] = "multiscale"
    sigmas_nm: tuple[Sigma, ...] | None = Field(default=None, min_length=1)
    """Scales, ascending; default: 0.7, 1, 1.6, 3.5, 5 and 10 voxels of the finest axis."""
    dimensions: Literal[2, 3] = 3
    """3: across sections, too, where a scale is coarse enough for that; 2: within sections only."""
    families: tuple[Family, ...] = Field(default=FAMILIES, min_length=1)
    """Which of intensity, gaussian, difference, laplacian, gradient, structure and hessian."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.families)) < len(self.families):
            raise ValueError(f"families {', '.join(self.families)}: name each once")
        return self

    def of(self, voxel_size_nm: Vec3) -> FeatureSet:
        """Return the features at a voxel size (z, y, x); raises `InputError` where a sigma is finer than it."""
        sigmas = MultiScale.default_sigmas_nm(voxel_size_nm) if self.sigmas_nm is None else self.sigmas_nm
        try:
            return MultiScale(sigmas, voxel_size_nm, self.dimensions, self.families)
        except ValueError as problem:
            raise InputError(f"features: {problem}") from None


class IntensitySpec(Spec):
    """The grey value alone: what a threshold could do."""

    kind: Literal["intensity"] = "intensity"

    def of(self, voxel_size_nm: Vec3) -> FeatureSet:
        """Return the features at a voxel size."""
        return MultiScale((), voxel_size_nm, wanted=("intensity",))


class Original8Spec(Spec):
    """Eight features of nearest neighbours within the section: intensity, Sobel, Laplace, Prewitt."""

    kind: Literal["original_8"] = "original_8"

    def of(self, voxel_size_nm: Vec3) -> FeatureSet:
        """Return the features at a voxel size."""
        return Original8()


AnyFeatures = Annotated[MultiScaleSpec | IntensitySpec | Original8Spec, Field(discriminator="kind")]
"""What is looked at, told apart by `kind`."""


class ForestSpec(Spec):
    """A random forest (Breiman 2001, doi:10.1023/A:1010933404324)."""

    kind: Literal["forest"] = "forest"
    features: AnyFeatures = MultiScaleSpec()
    trees: Annotated[int, Field(ge=1, le=10_000)] = 100
    """More vary less, and take longer."""
    leaf: Annotated[int, Field(ge=1)] = 10
    """Fewest training voxels in a leaf: more for smoother probabilities and a smaller file."""
    depth: Annotated[int, Field(ge=1)] | None = None
    """Most questions a tree may ask; default: as many as leaves allow."""
    per_class: Annotated[int, Field(ge=1)] = 10_000
    """Most labelled voxels that are drawn of each class; of a class with fewer all are taken, and weigh more."""
    seed: Annotated[int, Field(ge=0)] = 0
