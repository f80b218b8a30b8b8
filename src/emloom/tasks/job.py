"""A complete job on labelled stacks: train, predict, segment, evaluate, report.

`NeuronsJob` is what `emloom run` executes and what stands, resolved, beside every result.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from emloom.nn.networks import BackboneSpec
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.unet import UNetSpec
from emloom.tasks.data import StackSpec
from emloom.tasks.evaluate import EvaluationSpec
from emloom.tasks.predict import Orientations
from emloom.tasks.segmentspec import SegmentSpec
from emloom.tasks.trainingjob import TrainingJob


class NeuronsJob(TrainingJob):
    """Learn to segment neurons on labelled stacks, and say how good the result is on held-out boxes."""

    kind: Literal["neurons"] = "neurons"
    data: tuple[StackSpec, ...] = Field(min_length=1)
    """One or more labelled stacks of the same voxel size."""
    objective: NeuronsObjective = NeuronsObjective()
    network: BackboneSpec = UNetSpec.lean()
    orientations: Orientations = 1
    """Predictions averaged (test-time augmentation): 4 mirrors in the section, 8 all, 16 and transposed."""
    segmentation: SegmentSpec = SegmentSpec()
    evaluation: EvaluationSpec = EvaluationSpec()
