"""What networks of a pipeline cost: multiply-adds counted on a network without weights, times a measured rate.

`RATE` is what torch does per second on one core of this project's machine (2.3 GHz, no bf16), measured on U-Nets
of 4 to 6 thousand multiply-adds per voxel: 6.8, 8.0 and 8.1 thousand million. A step of training computes three
times what a prediction does. Tiles of a prediction overlap, which `OVERLAP` stands for. A graphics card is 30 to
300 times faster; nothing here knows yours.
"""

from __future__ import annotations

from functools import cache
from math import prod
from pathlib import Path

import torch

from emloom.errors import InputError
from emloom.nn.checkpoint import load_checkpoint
from emloom.nn.cost import multiply_adds
from emloom.nn.model import ModelSpec, build
from emloom.nn.train import TrainingSpec
from emloom.tasks.pipelinespec import TrainedHere, TrainedModel

RATE = 7e9
"""Multiply-adds per second of one core."""
OVERLAP = 1.7
_SHOWN = (64, 96, 96)


def per_voxel(source: TrainedModel | TrainedHere, voxel_size_nm: tuple[float, float, float]) -> float | None:
    """Return the multiply-adds of a network per voxel it is shown; None where that cannot be told."""
    try:
        if isinstance(source, TrainedModel):
            _, text, _ = load_checkpoint(Path(source.path))
            return _counted(ModelSpec.from_yaml(text, source.model))
        return _counted(source.job.model(voxel_size_nm))
    except (
        InputError,
        RuntimeError,
        NotImplementedError,
        TypeError,
    ):  # a forest, or a net that cannot be shown this
        return None


@cache
def _counted(spec: ModelSpec) -> float:
    with torch.device("meta"):
        network = build(spec).eval()
        return sum(multiply_adds(network, torch.empty(1, 1, *_SHOWN)).values()) / prod(_SHOWN)


def prediction_seconds(adds: float, voxels: int, orientations: int, cores: int) -> float:
    """Return how long a prediction takes, about."""
    return adds * voxels * OVERLAP * orientations / RATE / max(1, cores)


def training_seconds(adds: float, training: TrainingSpec, cores: int) -> float:
    """Return how long a training takes, about."""
    crop = training.crop_shape_vox
    voxels = prod(crop) if isinstance(crop, tuple) else 64**3
    return 3 * adds * voxels * training.batch_size * training.steps / RATE / max(1, cores)


__all__ = ["per_voxel", "prediction_seconds", "training_seconds"]
