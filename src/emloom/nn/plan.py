"""A sample plan: every random decision of one training sample, as a value.

Plans are frozen, compare equal, and go through YAML without loss, so a sample can be dumped, looked at and made
again: ``SamplePlan.from_yaml(plan.to_yaml()) == plan``. Positions are voxels of the *frame*, the box of voxels a
sample is made of (see `emloom.nn.render`); sections are its planes along z. A plan with nothing but a source and a
start is the sample as it lies in the volume.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.spec import Spec

Area = tuple[int, int, int, int]
"""Rectangle within a section: y start, y stop, x start, x stop."""


class Warp(Spec):
    """Affine and elastic deformation; see `emloom.ops.deformation`."""

    rotation_deg: float = 0.0
    scale: float = 1.0
    shear_deg: float = 0.0
    spacing_vox: Vec3 | None = None
    """Distance of control points; None: no elastic deformation."""
    sigma_vox: Vec3 = (0.0, 0.0, 0.0)
    control: Vec = (0, 0, 0)
    """How many control points there are."""
    normals: tuple[float, ...] = ()
    """Standard normal displacements, axis by axis of those with a sigma, then z, y, x."""


class SectionMoves(Spec):
    """Displacement (y, x) of every section, voxels."""

    raw: tuple[tuple[int, int], ...]
    labels: tuple[tuple[int, int], ...]


class Fold(Spec):
    """A fold of one section along the line ``n . p = c``."""

    section: int
    normal: tuple[float, float]
    c: float
    strength_vox: float
    width_vox: float
    moves_labels: bool


class Tone(Spec):
    """Contrast, brightness and gamma of every section."""

    contrast: tuple[float, ...]
    brightness: tuple[float, ...]
    gamma: tuple[float, ...]


class Blur(Spec):
    """A Gaussian blur of a part of a section."""

    kind: Literal["blur"] = "blur"
    section: int
    area: Area
    sigma_vox: tuple[float, float]


class Motion(Spec):
    """A blur along a line."""

    kind: Literal["motion"] = "motion"
    section: int
    area: Area
    step_vox: tuple[float, float]
    """From one end of the line to the other (y, x)."""


class LowContrast(Spec):
    """Grey values drawn towards their mean."""

    kind: Literal["low_contrast"] = "low_contrast"
    section: int
    area: Area
    scale: float


class Artifact(Spec):
    """An artifact of the library, blended in by its mask."""

    kind: Literal["artifact"] = "artifact"
    section: int
    number: int
    """Section of the library."""
    source: tuple[int, int]
    """First voxel (y, x) of the artifact that is used, after flips and transposition."""
    area: Area
    """Where it is put."""
    flips: tuple[bool, bool] = (False, False)
    transposed: bool = False
    contrast: float = 1.0
    brightness: float = 0.0


class Hidden(Spec):
    """A cuboid of constant grey."""

    kind: Literal["hidden"] = "hidden"
    start: Vec
    shape: Vec
    value: float


class Missing(Spec):
    """A section, or a part of it, that is lost."""

    kind: Literal["missing"] = "missing"
    section: int
    area: Area
    value: float | None
    """Grey value; None: mean of the sample."""


Defect = Annotated[Blur | Motion | LowContrast | Artifact | Hidden | Missing, Field(discriminator="kind")]


class Noise(Spec):
    """Gaussian noise."""

    sigma: float
    seed: int


class SamplePlan(Spec):
    """Every random decision of one training sample."""

    source: int
    """Which volume."""
    start: Vec
    """First voxel (z, y, x) of the output in that volume."""
    flips: tuple[bool, bool, bool] = (False, False, False)
    """Axes of the sample that run backwards in the volume."""
    order: Vec = (0, 1, 2)
    """Axis of the volume that each axis of the sample runs along."""
    warp: Warp | None = None
    moves: SectionMoves | None = None
    folds: tuple[Fold, ...] = ()
    tone: Tone | None = None
    defects: tuple[Defect, ...] = ()
    noise: Noise | None = None
