"""How a job says which training crops it wants: a strategy, named by `kind`, and what every crop must obey.

`emloom.nn.sampling` carries the strategies out and states their laws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.ops.classsets import SETS
from emloom.spec import Spec

Place = Literal["anywhere", "centre"]
"""Where in a crop the voxel lies that it was drawn around: at any place alike; or at the crop's centre, voxel
``shape // 2``, as far as the region and the held-out boxes allow."""

_MANY_CLASSES = 256

SHARE_SLACK = 1e-9
"""By how much shares may sum to more than 1: 0.1 + 0.2 + 0.7 does, in floats."""


class CropRules(Spec):
    """What every crop must obey, whatever the strategy."""

    min_known: float = Field(default=0.5, ge=0, le=1)
    """Smallest share of a crop's voxels whose labels are known (volumes with a mask)."""
    max_avoided: float = Field(default=0.1, ge=0, le=1)
    """Largest share of a crop's voxels that quality control wants avoided (volumes with such a mask)."""
    tries: int = Field(default=1000, gt=0)
    """Proposals per draw before a crop known to be suitable is used instead."""


class Uniform(CropRules):
    """Every allowed crop has the same probability."""

    kind: Literal["uniform"] = "uniform"


class Foreground(CropRules):
    """Crops around objects: for things that are rare, such as synapses."""

    kind: Literal["foreground"] = "foreground"
    probability: float = Field(default=0.95, ge=0, le=1)
    """Share of crops around foreground; the others are uniform."""
    choose: Literal["object", "voxel"] = "object"
    """`object`: all objects alike, however small; `voxel`: all voxels alike, so large objects more often."""
    around: Literal["labels", "sites"] = "labels"
    """`sites`: the points given with the volume, each an object of one voxel."""
    ids: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Labels that are foreground; default: all but 0."""
    place: Place = "anywhere"
    """Where in its crop the drawn voxel lies."""


class Balanced(CropRules):
    """Crops around voxels of every class: for semantic labels with rare classes."""

    kind: Literal["balanced"] = "balanced"
    classes: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Classes to draw; default: every label that occurs where labels are known, 0 too. Sets of classes are drawn
    by default, too: all of them together as often as one class."""
    shares: tuple[float, ...] | None = None
    """Probability of each of `classes`; what is left of 1 goes to uniform crops. Default: all alike."""
    place: Place = "anywhere"
    """Where in its crop the drawn voxel lies."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes {self.classes} name a class twice: name each once")
        if self.shares is None:
            return self
        if self.classes is None or len(self.classes) != len(self.shares):
            raise ValueError(f"{len(self.shares)} shares need as many classes: give both, in the same order")
        if min(self.shares) < 0 or sum(self.shares) > 1 + SHARE_SLACK:
            raise ValueError(
                f"shares {self.shares} are probabilities: each is at least 0 and their sum, here "
                f"{sum(self.shares):g}, at most 1 (the rest goes to uniform crops)"
            )
        return self

    def shares_of(self, found: Sequence[int], source: str) -> dict[int, float]:
        """Return the share of every class; by default all that are found alike, and all sets like one class.

        Args:
            found: labels that a training crop can contain, ascending; sets of classes (`ops.classsets`) come last.
            source: of the labels, for messages.

        Raises:
            InputError: there are too many labels for classes, or a class is not there.
        """
        sets = [] if self.classes is not None else [number for number in found if number >= SETS]
        classes = self.classes or tuple(number for number in found if number < SETS)
        if len(classes) > _MANY_CLASSES:
            raise InputError(
                f"{source} has {len(classes)} different labels: `balanced` is for classes, at most "
                f"{_MANY_CLASSES}; use `foreground` for instance labels, or name the classes"
            )
        missing = [number for number in classes if number not in found]
        if missing or not (classes or sets):
            raise InputError(
                f"class {missing[0] if missing else '(any)'} has no known voxel that a training crop can "
                f"contain (found: {', '.join(map(str, found)) or 'none'}): correct `classes`, the region or the "
                "held-out boxes"
            )
        if self.shares is not None:
            return dict(zip(classes, self.shares, strict=True))
        each = 1.0 / (len(classes) + bool(sets))
        return dict.fromkeys(classes, each) | dict.fromkeys(sets, each / max(1, len(sets)))


class Rejection(CropRules):
    """Uniform crops, of which those with little foreground are mostly refused."""

    kind: Literal["rejection"] = "rejection"
    least_vox: int = Field(default=1000, ge=0)
    """Foreground voxels that a crop needs."""
    least_share: float = Field(default=0.0, ge=0, le=1)
    """Share of its voxels that must be foreground; the stricter of both counts."""
    tolerate: float = Field(default=0.05, ge=0, le=1)
    """Probability with which a proposal with less is used all the same."""
    ids: tuple[int, ...] | None = Field(default=None, min_length=1)
    """Labels that are foreground; default: all but 0."""


class Patches(CropRules):
    """Labelled patches, a little beside where they were labelled: for classifiers of patches."""

    kind: Literal["patches"] = "patches"
    positive: float = Field(default=0.5, ge=0, le=1)
    """Share of patches that hold what is looked for."""
    positive_at_end: float | None = Field(default=None, ge=0, le=1)
    """That share at the end of the training, reached linearly; default: it stays."""
    jitter_vox: Vec = (0, 35, 35)
    """Largest distance (z, y, x) from the labelled place; the label must still hold there."""

    def share_at(self, progress: float) -> float:
        """Return the share of positive patches when so much of the training is done, 0 to 1."""
        end = self.positive if self.positive_at_end is None else self.positive_at_end
        return self.positive + (end - self.positive) * progress


SamplingSpec = Annotated[Uniform | Foreground | Balanced | Rejection | Patches, Field(discriminator="kind")]
