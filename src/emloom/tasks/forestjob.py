"""A job of kind `forest`: a random forest learns classes from labelled voxels."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from emloom.geometry.grid import Vec3
from emloom.nn.forestspec import ForestSpec
from emloom.nn.model import ModelSpec
from emloom.nn.objectives.semantic import SemanticObjective
from emloom.nn.preprocess import Preprocessing
from emloom.tasks.data import StackSpec
from emloom.tasks.semantic import SemanticScoring
from emloom.tasks.trainingjob import StackJob


class ForestJob(StackJob):
    """Learn to tell classes apart voxel by voxel, in minutes and without a GPU, and say how well it works."""

    kind: Literal["forest"] = "forest"
    data: tuple[StackSpec, ...] = Field(min_length=1)
    """One or more labelled stacks of the same voxel size; on validation boxes the features are judged."""
    objective: SemanticObjective
    """The classes, as of a semantic job, and no loss."""
    forest: ForestSpec = ForestSpec()
    preprocessing: Preprocessing = Preprocessing()
    scoring: SemanticScoring = SemanticScoring()

    @model_validator(mode="after")
    def _no_loss(self) -> Self:
        if "class_loss" in self.objective.model_fields_set and self.objective.class_loss != _LOSS:
            raise ValueError("objective.class_loss: a forest learns without a loss, so leave it out")
        return self

    def model(self, voxel_size_nm: Vec3) -> ModelSpec:
        """Return what goes into the file of the model."""
        return ModelSpec(
            objective=self.objective,
            network=self.forest,
            preprocessing=self.preprocessing,
            voxel_size_nm=voxel_size_nm,
        )


_LOSS = SemanticObjective.model_fields["class_loss"].default
