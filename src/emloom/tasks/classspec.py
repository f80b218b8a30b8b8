"""What to score of a semantic result, and how."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emloom.ops.enclosure import EnclosureRule
from emloom.spec import Spec

Extent = Annotated[int, Field(ge=1)]


class ClassesSpec(Spec):
    """The classes."""

    n: Annotated[int, Field(ge=2, le=255)] | None = None
    """How many there are, 0 to n - 1, background included; None: as many as there are names, or channels."""
    names: tuple[str, ...] = ()
    """What they are called, class 0 first."""
    averaged: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    """Classes that macro and micro means are over, say all but background; None: all."""
    ignore: tuple[int, ...] = (255,)
    """Values of the truth that mean that nobody knows."""
    enclosed: tuple[EnclosureRule, ...] = ()
    """What encloses what, by name: for `enclosure`."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.names and (len(self.names) < 2 or len(set(self.names)) < len(self.names)):
            raise ValueError(f"names {', '.join(self.names)}: name two classes or more, each differently")
        if self.names and self.n not in (None, len(self.names)):
            raise ValueError(f"{self.n} classes have {len(self.names)} names: name every class, background first")
        if self.enclosed and not self.names:
            raise ValueError("rules of enclosure name classes: give the names of all (names)")
        return self


class NearSpec(Spec):
    """What counts as near an interface, for `boundary` and `band`."""

    distance_nm: Annotated[float, Field(gt=0)]
    """nm between centres of voxels; as far as two people differ."""
    in_plane: bool = False
    """Look within sections only: for thick or badly aligned sections."""


class ReadingSpec(Spec):
    """How the prediction is read."""

    values: Literal["auto", "classes", "probabilities"] = "auto"
    """What it holds; `auto`: probabilities where it says so, has channels, or is floating, else classes."""
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Where there is one probability, of class 1: from here on a voxel is called 1. Chosen on other data."""
    levels: Literal[256, 65536] = 65536
    """Steps that floating probabilities are rounded to; stored integers are counted as they are."""
    recall: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Also report the highest threshold that finds this part of a class."""
    prevalence: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Also report the precision where a class is this frequent."""


class BootstrapSpec(Spec):
    """Confidence intervals: what is drawn, and how often."""

    by: Literal["block", "section"] = "block"
    """What varies together: blocks, or z sections."""
    block_vox: tuple[Extent, Extent, Extent] = (32, 256, 256)
    """Voxels (z, y, x) of a block: larger than the structures. Also what is counted at once."""
    resamples: Annotated[int, Field(ge=0, le=100_000)] = 1000
    """How many are drawn; 0 for no intervals."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 0


class ClassSpec(Spec):
    """Score predicted classes, or their probabilities, against the true classes."""

    predicted: str
    """Class ids, or probabilities: one channel (of class 1), or one per class."""
    truth: str
    """Class ids, of the box of the prediction or more."""
    output: str
    metrics: tuple[str, ...] = ("confusion", "f1", "iou", "kappa")
    """Names of `emloom.metrics.classbook`."""
    mask: str | None = None
    """Non-zero where voxels count; or a folder of `emloom qc`: they do where it found nothing."""
    raw: str | None = None
    """Raw volume, to be drawn below the errors."""
    classes: ClassesSpec = ClassesSpec()
    near: NearSpec | None = None
    """How near is near, for `boundary` and `band`."""
    reading: ReadingSpec = ReadingSpec()
    bootstrap: BootstrapSpec = BootstrapSpec()
