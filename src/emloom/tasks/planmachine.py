"""What a plan costs on a machine: reckoned from multiply-adds and measured rates, never timed, so that a plan is
the same each time it is made.

Rates of a core were measured with the lean network on two idle cores (`docs/results.md`, `docs/prediction.md`,
`docs/blockwise.md`): 0.6 s for a training step of 64^3 voxels in float32, 0.15 s with bf16 units; 0.45 and 0.82
Mvoxel/s of prediction; 260 core seconds to segment a Gvoxel. No GPU was measured: its rates are what a card of the
middle class should reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

from emloom.geometry import Vec
from emloom.nn.cost import multiply_adds
from emloom.nn.devices import devices
from emloom.nn.hardware import native_bf16
from emloom.nn.model import ModelSpec, Network, build
from emloom.nn.train import crop_shape
from emloom.run import machine

GPU_TRAIN, GPU_PREDICT = 2e12, 1e12
TRAIN = {False: 20e9, True: 75e9}
"""Multiply-adds of a training step per second and core: in float32, and with bf16 units."""
PREDICT = {False: 6.6e9, True: 12e9}
"""The same of prediction, counting the multiply-adds of what is answered for."""
SEGMENT_S_PER_MVOX = 0.26
STORED = 0.8
"""Bytes per voxel of fragments, segmentation and graph."""
LEAST_STEPS = 100
MOST_STEPS = {False: 4000, True: 40_000}
"""On a processor and on a GPU."""
CHECKS = 5
"""Validations of a training, about."""
_FORWARD_AND_BACK = 3
_KEPT = 3  # of every number a layer answers: itself, its activation, its gradient
_MEMORY = 0.6
PROCESS_GIB = 0.8
"""What a process takes before it trains."""


@dataclass(frozen=True)
class Machine:
    """What a plan may count on.

    Attributes:
        cores: that can really run at the same time.
        memory_gib: free main memory.
        gpu: name of a CUDA device; None: there is none.
        gpu_gib: its memory.
        bf16: whether the device multiplies brain floats in hardware.
    """

    cores: int
    memory_gib: float
    gpu: str | None = None
    gpu_gib: float = 0.0
    bf16: bool = False

    @classmethod
    def here(cls, device: str = "auto") -> Machine:
        """Return this machine; `device` may be `cpu`, to leave a GPU alone."""
        found = devices()
        gpu = found.gpus[0] if found.gpus and device != "cpu" else None
        free = machine.memory().available / 2**30
        if gpu is None:
            return cls(machine.cores().usable, free, bf16=native_bf16("cpu"))
        return cls(machine.cores().usable, free, gpu.name, gpu.memory / 2**30, found.bf16)

    @property
    def training_gib(self) -> float:
        """Memory that a training may take."""
        return _MEMORY * (self.memory_gib if self.gpu is None else self.gpu_gib)

    @property
    def text(self) -> str:
        """What it is, in words."""
        units = "with" if self.bf16 else "without"
        if self.gpu is None:
            cores = f"{self.cores} core{'s' if self.cores > 1 else ''}"
            return f"{cores} {units} bf16 units, no GPU, {self.memory_gib:.0f} GiB free"
        return f"{self.gpu} ({self.gpu_gib:.0f} GiB), {self.cores} cores, {self.memory_gib:.0f} GiB free"

    def step_seconds(self, multiplied: int) -> float:
        """Return how long a training step takes whose forward pass has so many multiply-adds."""
        rate = TRAIN[self.bf16] * self.cores if self.gpu is None else GPU_TRAIN
        return _FORWARD_AND_BACK * multiplied / rate

    def predict_seconds(self, multiplied_per_voxel: float, voxels: int) -> float:
        """Return how long a prediction takes."""
        rate = PREDICT[self.bf16] * self.cores if self.gpu is None else GPU_PREDICT
        return multiplied_per_voxel * voxels / rate

    def segment_seconds(self, voxels: int) -> float:
        """Return how long segmentation takes with one process per core."""
        return SEGMENT_S_PER_MVOX * voxels / 1e6 / self.cores


@dataclass(frozen=True)
class Weight:
    """What one crop weighs in a network.

    Attributes:
        parameters: of the network.
        multiplied: multiply-adds of the forward pass.
        memory_gib: of a training step.
        crop: voxels of the answer, as the network gives it.
    """

    parameters: int
    multiplied: int
    memory_gib: float
    crop: Vec

    @property
    def per_voxel(self) -> float:
        """Multiply-adds per voxel that is answered for."""
        return self.multiplied / prod(self.crop)


@torch.no_grad()
def weigh(model: ModelSpec, crop: Vec) -> Weight:
    """Return what a training crop weighs; nothing is computed (see `emloom.nn.cost`)."""
    with torch.device("meta"):
        network = build(model)
        shape = crop_shape(network, crop)
        shown = torch.empty(1, 1, *shape.input)
    answered = _answered(network, shown)
    parameters = sum(p.numel() for p in network.parameters())
    n_bytes = 4 * (_KEPT * answered + 5 * parameters)  # weights, gradients, two moments, the moving average
    return Weight(
        parameters, sum(multiply_adds(network, shown).values()), PROCESS_GIB + n_bytes / 2**30, shape.output
    )


def _answered(network: Network, shown: Tensor) -> int:
    """Return how many numbers the convolutions answer."""
    count = 0

    def add(_: nn.Module, __: object, answer: Tensor) -> None:
        nonlocal count
        count += answer.numel()

    hooks = [part.register_forward_hook(add) for part in network.modules() if isinstance(part, nn.Conv3d)]
    try:
        network(shown)
    finally:
        for hook in hooks:
            hook.remove()
    return count


def steps_within(machine: Machine, seconds: float, minutes: float) -> int:
    """Return how many steps fit into a budget, in whole fifties."""
    fit = int(60 * minutes / seconds) // 50 * 50
    return min(max(fit, LEAST_STEPS), MOST_STEPS[machine.gpu is not None])


def validate_every(steps: int) -> int:
    """Return the steps between validations."""
    return max(50, steps // CHECKS // 10 * 10)
