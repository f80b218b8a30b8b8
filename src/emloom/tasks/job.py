"""A complete job on labelled stacks: train, predict, segment, evaluate, report.

`NeuronsJob` is what `emloom run` executes and what stands, resolved, beside every result.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from emloom.geometry.grid import Vec3
from emloom.nn.model import ModelSpec
from emloom.nn.networks import BackboneSpec
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.preprocess import Preprocessing
from emloom.nn.train import TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.spec import Spec
from emloom.tasks.data import StackSpec
from emloom.tasks.evaluate import EvaluationSpec
from emloom.tasks.predict import Orientations
from emloom.tasks.segmentspec import SegmentSpec


class NeuronsJob(Spec):
    """Learn to segment neurons on labelled stacks, and say how good the result is on held-out boxes."""

    kind: Literal["neurons"] = "neurons"
    name: str = Field(min_length=1)
    """Shown in the report."""
    data: tuple[StackSpec, ...] = Field(min_length=1)
    """One or more labelled stacks of the same voxel size."""
    objective: NeuronsObjective = NeuronsObjective()
    network: BackboneSpec = UNetSpec.lean()
    preprocessing: Preprocessing = Preprocessing()
    training: TrainingSpec
    orientations: Orientations = 1
    """Predictions averaged (test-time augmentation): 4 mirrors in the section, 8 all, 16 and transposed."""
    segmentation: SegmentSpec = SegmentSpec()
    evaluation: EvaluationSpec = EvaluationSpec()

    @property
    def paths(self) -> list[str]:
        """Every file the job reads."""
        library = self.training.augment.defects.library
        stacks = [path for stack in self.data for path in stack.paths]
        return [*stacks, *(library.paths if library else [])]

    def model(self, voxel_size_nm: Vec3) -> ModelSpec:
        """Return what goes into the checkpoint."""
        return ModelSpec(
            objective=self.objective,
            network=self.network,
            preprocessing=self.preprocessing,
            voxel_size_nm=voxel_size_nm,
        )
