"""Plant synthetic artifacts on clean sections: training data for a detector where nobody has labelled any.

Draw, then apply: `draw` turns a spec and a random generator into artifacts (`emloom.ops.artifacts`), values that
say everything; `plant` draws and applies. The question a detector answers is about the *middle* section of a
sample, so neighbours get artifacts of their own: what stands in a neighbour alone must not be called.

Simulated defects as training data: Lee et al. 2017 (arXiv:1706.00120); on film folds, cracks and stains of serial
sections: Deng et al. 2022 (doi:10.1109/TMI.2022.3194984).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.nn.plantdraws import DRAWS, Ranges
from emloom.ops.artifacts import KINDS, Artifact, Kind, apply
from emloom.ops.section_effects import add_noise
from emloom.ops.textures import F32
from emloom.spec import Spec

Probability = Annotated[float, Field(ge=0, le=1)]
Pair = tuple[float, float]


class PlantSpec(Spec):
    """Which synthetic artifacts are put on clean sections, how often and how large."""

    probability: Probability = 0.5
    """Chance that the middle section of a sample gets an artifact."""
    neighbours: Probability = 0.15
    """Chance that a section beside it gets one, each for itself."""
    kinds: tuple[Kind, ...] = KINDS
    """What may happen, equally often; name a kind twice to get it twice as often."""
    size_nm: Pair = (200.0, 8000.0)
    """Length of lines, diameter of spots and grains' clouds."""
    width_nm: Pair = (30.0, 800.0)
    """Width of folds and of the gaps of cracks; scratches take its lower third."""
    shift_nm: Pair = (80.0, 400.0)
    """Displacement of shifted sections, at least a voxel."""
    blur_nm: Pair = (15.0, 120.0)
    """Standard deviation of a blur, at least one voxel."""
    strength: Pair = (0.3, 1.0)
    """How strongly grey values change, as a share of the most each kind does."""
    noise: float = Field(default=0.05, ge=0)
    """Largest standard deviation of the noise that all sections get at the end, clean and planted alike."""

    @property
    def margin_nm(self) -> float:
        """Margin in nm to give a sample within sections, and to crop after planting: nothing mirrored stays then.

        What a shift brings in from outside is mirrored at the section's borders: real enough to the eye, not to a
        network. 0 where no section is shifted.
        """
        return self.shift_nm[1] if "shift" in self.kinds else 0.0

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.kinds:
            raise ValueError(
                f"kinds is empty: name at least one of {', '.join(KINDS)}, or give a probability of 0"
            )
        for name in ("size_nm", "width_nm", "shift_nm", "blur_nm", "strength"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} ({low}, {high}) is a range above 0: give the smaller value first")
        return self


@dataclass(frozen=True, eq=False)
class Planted:
    """An artifact that was put on a section.

    Attributes:
        kind: of the artifact.
        section: number of the section.
        mask: bool ``[Y, X]``, where it can be seen (`emloom.ops.visibility`); empty where, say, tissue as black as
            the artifact hides it.
        moved: bool ``[Y, X]``, sound tissue that a fold or crack beside it moved noticeably: neither clean nor
            damaged, best left out of a loss and of a score. Apart from the mask.
        artifact: the value that was applied.
    """

    kind: Kind
    section: int
    mask: NDArray[np.bool_]
    moved: NDArray[np.bool_]
    artifact: Artifact


@dataclass(frozen=True)
class Planting:
    """What was drawn for a sample.

    Attributes:
        artifacts: each with the number of its section, in order.
        noise: standard deviation of the noise.
        seed: of the noise.
    """

    artifacts: tuple[tuple[int, Artifact], ...]
    noise: float
    seed: int


def draw(
    spec: PlantSpec, shape: tuple[int, int, int], middle: int, voxel_size_nm: Vec3, rng: np.random.Generator
) -> Planting:
    """Draw what befalls the sections of a sample.

    Args:
        spec: what may.
        shape: of the sample (z, y, x).
        middle: number of the section that the sample is about.
        voxel_size_nm: (z, y, x).
        rng: all randomness comes from it.

    Raises:
        InputError: there is no such section, or a voxel has no size.
    """
    if not 0 <= middle < shape[0]:
        raise InputError(f"section {middle} is not one of the sample's {shape[0]}: give 0 to {shape[0] - 1}")
    if min(voxel_size_nm) <= 0:
        raise InputError(
            f"voxels of {tuple(voxel_size_nm)} nm (z, y, x) have no size: give the volume's voxel size"
        )
    ranges = Ranges(spec.size_nm, spec.width_nm, spec.shift_nm, spec.blur_nm, spec.strength)
    frame = (shape[1], shape[2]), (voxel_size_nm[1], voxel_size_nm[2])
    chance = rng.random(shape[0])
    drawn: list[tuple[int, Artifact]] = []
    for section in range(shape[0]):
        if chance[section] < (spec.probability if section == middle else spec.neighbours):
            kind = spec.kinds[int(rng.integers(len(spec.kinds)))]
            drawn.append((section, DRAWS[kind](ranges, *frame, rng)))
    return Planting(tuple(drawn), float(rng.uniform(0.0, spec.noise)), int(rng.integers(2**63)))


def carry_out(planting: Planting, sections_ZYX: F32, voxel_size_nm: Vec3) -> tuple[Planted, ...]:
    """Apply what was drawn, in place; see `plant`."""
    spacing = (voxel_size_nm[1], voxel_size_nm[2])
    planted = []
    for section, artifact in planting.artifacts:
        seen = apply(artifact, sections_ZYX[section], spacing, planting.noise)
        planted.append(Planted(artifact.kind, section, seen.damage, seen.moved, artifact))
    if planting.noise > 0:
        add_noise(sections_ZYX, planting.noise, planting.seed)
    return tuple(planted)


def plant(
    spec: PlantSpec, sections_ZYX: F32, middle: int, voxel_size_nm: Vec3, rng: np.random.Generator
) -> tuple[Planted, ...]:
    """Put artifacts on a sample, in place, and return which: at most one per section.

    Args:
        spec: which may be put on.
        sections_ZYX: float32, contiguous, about [-1, 1], clean; changed in place.
        middle: number of the section that the sample is about.
        voxel_size_nm: (z, y, x).
        rng: all randomness comes from it: the same state gives the same bytes.

    Raises:
        InputError: the array is not a contiguous float32 one that can be written, or see `draw`.
    """
    array = sections_ZYX
    if array.dtype != np.float32 or array.ndim != 3 or not array.flags.c_contiguous or not array.flags.writeable:
        raise InputError(
            f"sections of type {array.dtype} and shape {array.shape} cannot be planted on in place: give a "
            "contiguous, writeable float32 array [Z, Y, X]"
        )
    z, y, x = array.shape
    return carry_out(draw(spec, (z, y, x), middle, voxel_size_nm, rng), array, voxel_size_nm)
