"""What to compare on frozen features of patches, and how."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from emloom.geometry.box import Vec
from emloom.geometry.grid import Vec3
from emloom.nn.anomaly import DeviationSpec, LinearProbeSpec, MemoryBankSpec, NeighboursSpec
from emloom.nn.model import ModelSpec
from emloom.nn.objectives.reconstruction import ReconstructionObjective
from emloom.nn.patchdetector import BaselineSpec
from emloom.nn.patchfeatures import ErrorFeatures, LatentFeatures, LevelFeatures, PixelFeatures
from emloom.ops.patchsplits import BlockSplit
from emloom.spec import Spec
from emloom.tasks.patchspec import PatchBootstrapSpec

Extent = Annotated[int, Field(ge=0)]

_GAP_SECTIONS = 5
_PATCHES_OF_BLOCK = 4


class BlocksSpec(Spec):
    """How patches become training, validation and test: see `emloom.ops.patchsplits`."""

    block_vox: tuple[Extent, Extent, Extent] | None = None
    """Voxels (z, y, x) of blocks that go to one part as a whole; default: four times a patch and the gap."""
    gap_vox: tuple[Extent, Extent, Extent] | None = None
    """Least distance of parts; default: 5 sections, a patch."""
    fractions: tuple[float, float, float] = (0.5, 0.25, 0.25)
    """Of training, validation, test."""
    seed: int = Field(default=0, ge=0)

    def split(self, patch: Vec) -> BlockSplit:
        """Return the split of patches of a shape."""
        gap = self.gap_vox or (_GAP_SECTIONS, *patch[1:])
        z, y, x = (_PATCHES_OF_BLOCK * (n + m) for n, m in zip(patch, gap, strict=True))
        return BlockSplit(self.block_vox or (z, y, x), gap, self.fractions, self.seed)


class ArtifactBaselinesJob(Spec):
    """Compare detectors of artifacts that need no training of a network (`emloom artifacts baselines`)."""

    raw: str
    labels: str
    """Labels of patches, which are split here; or a folder with train.csv, val.csv and test.csv."""
    output: str
    model: str | None = None
    """Checkpoint whose features are looked at: an autoencoder, or a classifier of patches. None: grey values."""
    target: str | None = None
    """The class that is looked for; None: the first."""
    baselines: tuple[BaselineSpec, ...] | None = Field(default=None, min_length=1)
    """What is compared; None: what suits the model."""
    split: BlocksSpec = BlocksSpec()
    recall: float = Field(default=0.8, gt=0, le=1)
    """Thresholds are chosen on the validation part so that as much is found."""
    bootstrap: PatchBootstrapSpec = PatchBootstrapSpec()
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where raw or labels do not state it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [each.name for each in self.baselines or ()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two baselines are a {twice[0]}: results are told apart by that; leave out one")
        return self


def default_baselines(model: ModelSpec | None) -> tuple[BaselineSpec, ...]:
    """Return what suits a model, or grey values alone: first what learns from yes and no."""
    probe, neighbours = LinearProbeSpec(), NeighboursSpec()
    found = [BaselineSpec(features=PixelFeatures(), scorer=scorer) for scorer in (probe, neighbours)]
    if model is None:
        return tuple(found)
    found += [BaselineSpec(features=LatentFeatures(), scorer=scorer) for scorer in (probe, neighbours)]
    found += [BaselineSpec(features=LevelFeatures(), scorer=scorer) for scorer in (probe, MemoryBankSpec())]
    if isinstance(model.objective, ReconstructionObjective):
        fine = 4 * model.voxel_size_nm[2]
        found += [
            BaselineSpec(features=ErrorFeatures(), scorer=DeviationSpec()),
            BaselineSpec(features=ErrorFeatures(), scorer=DeviationSpec(sides="both")),
            BaselineSpec(features=ErrorFeatures(high_pass_nm=fine), scorer=DeviationSpec(sides="both")),
        ]
    return tuple(found)
