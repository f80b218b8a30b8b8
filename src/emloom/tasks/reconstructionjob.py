"""A job on raw stacks: train an autoencoder, reconstruct what was held out, and say which frequencies are kept.

`ReconstructionJob` is what `emloom run` executes and what stands, resolved, beside every result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.io.open import open_volume
from emloom.io.volume import Volume, cached
from emloom.nn.autoencoders import AnyAutoencoderSpec
from emloom.nn.crops import TrainingVolume, check_same_grid
from emloom.nn.level_autoencoders import UNetAutoencoderSpec
from emloom.nn.networks import AnyBackboneSpec
from emloom.nn.objectives.reconstruction import HiddenCentre, ReconstructionObjective
from emloom.nn.samples import CropShape
from emloom.nn.starts import free_starts
from emloom.nn.voxelnets import VoxelNetSpec
from emloom.spec import Spec
from emloom.tasks.data import BoxSpec, RawStackSpec, avoided, check_boxes, held_out
from emloom.tasks.frequencyspec import WaveletSpec
from emloom.tasks.trainingjob import TrainingJob

LearnerSpec = Annotated[AnyAutoencoderSpec | AnyBackboneSpec | VoxelNetSpec, Field(discriminator="kind")]
"""What can learn from raw: autoencoders, and backbones that are to learn from labels later."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def require_file_name(name: str) -> None:
    """Raise `ValueError` unless a name can be that of a folder anywhere."""
    if not _FILE_NAME.fullmatch(name):
        raise ValueError(f"the name {name!r} must be made of letters, digits, _, - and .: choose another")


class ForeignSpec(Spec):
    """A volume that has nothing to do with the training data, to be reconstructed as it is."""

    name: str
    """Of its results; letters, digits, `_`, `-` and `.`."""
    raw: str
    box: BoxSpec | None = None
    """Only these voxels; default: all."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where the file does not state it."""

    @model_validator(mode="after")
    def _is_a_file_name(self) -> Self:
        require_file_name(self.name)
        return self


@dataclass(frozen=True)
class TestItem:
    """A box of voxels that is reconstructed and judged.

    Attributes:
        name: of its results.
        raw: path of the volume.
        box: of it; None: all.
        voxel_size_nm: where the file does not state it.
        foreign: whether its voxel size may be another than the model's.
    """

    __test__ = False  # no test, for pytest

    name: str
    raw: str
    box: BoxSpec | None
    voxel_size_nm: Vec3 | None
    foreign: bool


class ReconstructionJob(TrainingJob):
    """Learn to reconstruct raw stacks, and say which spatial frequencies come through."""

    kind: Literal["reconstruction"] = "reconstruction"
    data: tuple[RawStackSpec, ...] = Field(min_length=1)
    """One or more raw stacks of the same voxel size."""
    foreign: tuple[ForeignSpec, ...] = ()
    """Volumes of any voxel size that are reconstructed, too: how a network does elsewhere."""
    objective: ReconstructionObjective = ReconstructionObjective()
    network: LearnerSpec = UNetAutoencoderSpec()
    """An autoencoder, or a backbone that is to learn from raw before it learns from labels."""
    wavelet: WaveletSpec = WaveletSpec()
    """How results are compared with the raw, level by level."""
    weights: str | None = None
    """Checkpoint whose weights are used as they are, without training: for a network with skips switched off."""

    @model_validator(mode="after")
    def _asks_for_the_centre(self) -> Self:
        if isinstance(self.objective.corruption, HiddenCentre) and isinstance(self.network, VoxelNetSpec):
            self.objective.corruption.require((), self.training.crop_shape_vox)
        return self

    @model_validator(mode="after")
    def _has_tests(self) -> Self:
        names = [item.name for item in self.tests]
        if not names:
            raise ValueError("there is nothing to test on: give a stack `test` boxes, or name a `foreign` volume")
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"two tests are called {twice[0]!r}: give names that tell them apart")
        trained = {stack.raw for stack in self.data}
        known = [each.name for each in self.foreign if each.raw in trained]
        if known:
            raise ValueError(
                f"foreign {known[0]!r} is a volume that is trained on: hold out boxes of it as `test` instead"
            )
        return self

    @property
    def tests(self) -> list[TestItem]:
        """Everything that is reconstructed and judged."""
        own = [
            TestItem(
                item.name,
                self.data[item.stack].raw,
                BoxSpec(start=item.box.start, shape=item.box.shape),
                self.data[item.stack].voxel_size_nm,
                False,
            )
            for item in held_out(self.data, "test")
        ]
        return own + [TestItem(f.name, f.raw, f.box, f.voxel_size_nm, True) for f in self.foreign]

    @property
    def paths(self) -> list[str]:
        """Every file the job reads."""
        weights = [] if self.weights is None else [self.weights]
        return [*super().paths, *(each.raw for each in self.foreign), *weights]


@dataclass(frozen=True)
class RawStack:
    """An opened `RawStackSpec`."""

    spec: RawStackSpec
    raw: Volume
    avoid: Volume | None

    @property
    def unlabelled(self) -> TrainingVolume:
        """What training may draw from."""
        region, kept_off = self.spec.room(self.raw.info.box, self.raw.info.grid.voxel_size_nm)
        return TrainingVolume(self.raw, None, region, kept_off, avoid=self.avoid)


def require_unseen(stack: RawStack, crop: CropShape) -> None:
    """Raise `InputError` where the input of a training crop, which is larger than its output, meets a test box."""
    spec, info = stack.spec, stack.raw.info
    if spec.transductive:
        return
    volume = stack.unlabelled
    near = [box.grow(crop.margin) for box in spec.boxes("test")]
    allowed = free_starts(volume.region, volume.held_out, crop.output).count
    unseen = free_starts(volume.region, (*volume.held_out, *near), crop.output).count
    if unseen < allowed:
        wide = max(m * size for m, size in zip(crop.margin, info.grid.voxel_size_nm, strict=True))
        raise InputError(
            f"the network sees {crop.margin} voxels (z, y, x) around what it answers for, so training on "
            f"{spec.raw} would see test boxes: set gap_nm to {wide:g}, or say `transductive: true`"
        )


def open_raw_stack(spec: RawStackSpec) -> RawStack:
    """Open and check a raw stack; volumes of moderate size are read into memory.

    Raises:
        InputError: a file is missing or damaged, grids differ, or the boxes of the split leave the volume or come
            closer to each other than the gap.
    """
    raw = open_volume(spec.raw, voxel_size_nm=spec.voxel_size_nm, kind="raw")
    avoid = avoided(spec.avoid, spec)
    if avoid is not None:
        check_same_grid(raw, avoid)
    check_boxes(spec, raw.info.box, raw.info.grid.voxel_size_nm)
    return RawStack(spec, cached(raw), None if avoid is None else cached(avoid))
