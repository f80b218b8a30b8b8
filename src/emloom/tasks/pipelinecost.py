"""What networks of a pipeline cost on this machine: timed on a piece that takes about a second, for all the rest.

A training step takes about three times as long as looking at the same voxels; with loading, validation and scores
at the end, two trainings of minutes took five and six times as long. Tiles of a prediction overlap: `OVERLAP`
stands for that. What is timed is what `--device auto` would take: a card where there is one.
"""

from __future__ import annotations

import time
from functools import cache
from math import prod
from pathlib import Path

import torch

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.checkpoint import load_checkpoint
from emloom.nn.cost import multiply_adds
from emloom.nn.hardware import Hardware
from emloom.nn.model import ModelSpec, Network, build
from emloom.nn.train import TrainingSpec, crop_shape
from emloom.tasks.pipelinespec import TrainedHere, TrainedModel
from emloom.tasks.planmachine import PROCESS_GIB, weigh

OVERLAP = 1.7
_TRAINING = 5
_PIECES: tuple[Vec, ...] = ((32, 96, 96), (16, 64, 64), (8, 32, 32), (1, 1, 1))
_ADDS = 2e10  # of a piece, at most: a core does them in about a second
_UNTOLD = (InputError, RuntimeError, NotImplementedError, TypeError)  # a forest, or it cannot be shown this


def model_of(source: TrainedModel | TrainedHere, voxel_size_nm: tuple[float, float, float]) -> ModelSpec | None:
    """Return the network of a stage; None where its file cannot be read."""
    if isinstance(source, TrainedHere):
        return source.job.model(voxel_size_nm)
    try:
        return ModelSpec.from_yaml(load_checkpoint(Path(source.path))[1], source.model)
    except InputError:
        return None


def prediction_seconds(model: ModelSpec, voxels: int, orientations: int) -> float | None:
    """Return how long a prediction takes, about; None where the network cannot be timed."""
    each = _seconds_per_voxel(model)
    return None if each is None else each * voxels * OVERLAP * orientations


def training_seconds(model: ModelSpec, training: TrainingSpec) -> float | None:
    """Return how long a training takes, about; None where the network cannot be timed."""
    each = _seconds_per_voxel(model)
    if each is None:
        return None
    try:
        with torch.device("meta"):
            shown = prod(crop_shape(build(model), training.crop_shape_vox).input)
    except _UNTOLD:
        return None
    return _TRAINING * each * shown * training.batch_size * training.steps


def training_bytes(model: ModelSpec, training: TrainingSpec) -> int:
    """Return the memory that a training takes, about; 0 where that cannot be told."""
    try:
        crop_gib = weigh(model, training.crop_shape_vox).memory_gib - PROCESS_GIB
    except _UNTOLD:
        return 0
    return round((PROCESS_GIB + crop_gib * training.batch_size) * 2**30)


@cache
def _seconds_per_voxel(spec: ModelSpec) -> float | None:
    """Return the seconds per voxel that a network is shown; None for what is no network of volumes."""
    hardware = Hardware()
    try:
        with torch.random.fork_rng(devices=[]):
            network = build(spec).eval().to(hardware.torch_device)
        shape = _piece(spec)
        bf16 = hardware.precision("auto", network) == "bf16-mixed"
        with torch.no_grad(), torch.autocast(hardware.torch_device, torch.bfloat16, enabled=bf16):
            return min(_look(network, shape, hardware.torch_device) for _ in range(2)) / prod(shape)
    except _UNTOLD:
        return None


def _piece(spec: ModelSpec) -> Vec:
    """Return the largest piece that is seen within about a second."""
    with torch.device("meta"):
        network = build(spec).eval()
        for wanted in _PIECES:
            shape = network.input_shape(wanted)
            if sum(multiply_adds(network, torch.empty(1, 1, *shape)).values()) <= _ADDS:
                break
    return shape


def _look(network: Network, shape: Vec, device: str) -> float:
    raw = torch.zeros(1, 1, *shape, device=device)
    began = time.perf_counter()
    for answer in network(raw).values():
        answer.sum().item()  # waits for a card
    return time.perf_counter() - began
