"""What to score of a detector of artifacts, and how."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from emloom.geometry.box import Vec
from emloom.io.patchopen import PatchReading
from emloom.spec import Spec

Part = Annotated[float, Field(gt=0, lt=1)]
Extent = Annotated[int, Field(ge=1)]
Extents = tuple[Extent, Extent, Extent]
Size = Annotated[float, Field(gt=0)]


class PatchReadingSpec(Spec):
    """What files of labels and scores may not say about themselves, and whose labels count."""

    voxel_size_nm: tuple[Size, Size, Size] | None = None
    """(z, y, x), where the truth does not state it."""
    patch_vox: Extents | None = None
    """Voxels (z, y, x) of a patch, where the truth does not state it."""
    stride_vox: Extents | None = None
    """Voxels between the patches of a larger box of a data source."""
    classes: tuple[str, ...] | None = None
    """Names of the classes, the one that is looked for first."""
    column: str = "prob"
    """Column of a table of scores."""
    final: str | None = None
    """Annotator whose word is the last; without one, a disagreement is unknown."""
    partial: bool = False
    """Leave out patches of known truth without a score, instead of refusing them."""

    def reading(self) -> PatchReading:
        """Return what the readers of labels want to know."""
        return PatchReading(self.voxel_size_nm, self.patch_vox, self.stride_vox, self.classes)


class ValidationSpec(Spec):
    """Data on which the threshold is chosen and probabilities are calibrated: neither training nor test."""

    found: str
    truth: str


class ThresholdSpec(Spec):
    """Which threshold is applied, and which others are reported."""

    value: float | None = None
    """The one applied; None: the highest whose recall on the validation data is at least `recall`."""
    recall: Annotated[float, Field(gt=0, le=1)] = 0.8
    """What is to be found."""
    false_positive_rates: tuple[Part, ...] = (0.001, 0.01, 0.1)
    """Also report the recall at these."""


class PatchBootstrapSpec(Spec):
    """Confidence intervals, from sections drawn with replacement."""

    resamples: Annotated[int, Field(ge=0, le=100_000)] = 2000
    """How many are drawn; 0 for no intervals."""
    level: Part = 0.95
    seed: Annotated[int, Field(ge=0)] = 0


class PatchSpec(Spec):
    """Score what a detector says about patches against what people say."""

    found: str
    """A table with a column of probabilities, or a map with a voxel for every patch."""
    truth: str
    """Labels of patches: CSV, JSON, an evaluation box."""
    output: str
    target: str | None = None
    """The class that is looked for; None: the first."""
    validation: ValidationSpec | None = None
    threshold: ThresholdSpec = ThresholdSpec()
    prevalence: Part | None = None
    """Also report what holds where positives are this frequent."""
    raw: str | None = None
    """Raw volume, for pictures of the worst mistakes."""
    reading: PatchReadingSpec = PatchReadingSpec()
    bootstrap: PatchBootstrapSpec = PatchBootstrapSpec()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.validation is not None and self.threshold.value is not None:
            raise ValueError("threshold.value is given, and validation to choose it on: leave out one")
        return self


def stride_of(spec: PatchSpec) -> tuple[int, int] | None:
    """Return the stride (y, x) that makes two patches neighbours, where it was stated."""
    stated: Vec | None = spec.reading.stride_vox
    return None if stated is None else (stated[1], stated[2])
