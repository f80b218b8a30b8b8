"""What an objective is to the training engine, and what it is given.

An objective tells the whole story of one scientific problem. The engine asks it, in this order::

    context_vox   how far beyond a voxel its targets look            once per volume
    surround_vox  how far beyond the input it wants to see the raw   once per volume
    sample        input and targets of a rendered crop               in loader workers; pure
    loss          one number to go down, and its parts               every step
    look          pictures for TensorBoard                           every validation
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emloom.geometry import Box, Grid, Vec

Answers = dict[str, Tensor]
"""What a network says, by name, ``[N, C, Z, Y, X]``."""
Targets = dict[str, tuple[NDArray[Any], NDArray[Any]]]
"""Per head: target and weight, both ``CZYX``."""
TargetTensors = dict[str, tuple[Tensor, Tensor]]
"""The same as tensors, float32."""
Sample = tuple[Tensor, TargetTensors]
"""Input ``[C, Z, Y, X]``, and the targets by head."""


@dataclass(frozen=True)
class Rendered:
    """A crop before its targets are computed.

    Attributes:
        raw: float32 of the network's input, and of what the objective asked for around it, as the network is to
            see it.
        clean: the same before anything spoiled its grey values: blur, shadows of folds, artifacts, boxes, noise
            and missing sections are not in it; geometry, contrast and brightness are. May be `raw` itself.
        labels: ids of the output and of the context its targets need; 0 where the volume has no labels.
        known: uint8, where they are known.
        output: box of the output in `labels`.
        seed: of whatever else the objective draws.
    """

    raw: NDArray[np.float32]
    clean: NDArray[np.float32]
    labels: NDArray[Any]
    known: NDArray[np.uint8]
    output: Box
    seed: int = 0


@dataclass(frozen=True)
class Validated:
    """One sample of a validation: what the network was shown, what it said, and what it should have said."""

    raw: Tensor
    answers: Answers
    targets: TargetTensors


class Objective(Protocol):
    """What the engine asks of an objective; `NeuronsObjective` is one."""

    @property
    def heads(self) -> Mapping[str, int]:
        """Output name -> number of channels."""

    @property
    def needs_labels(self) -> bool:
        """Whether there is nothing to learn from a volume without labels."""

    def context_vox(self, grid: Grid) -> Vec:
        """Return how far (z, y, x) beyond a voxel its targets look."""

    def surround_vox(self, grid: Grid) -> Vec:
        """Return how far (z, y, x) beyond the network's input the raw it is given shall reach on each side."""

    def sample(self, made: Rendered, grid: Grid) -> Sample:
        """Return the input and the targets of a crop."""

    def loss(self, answers: Answers, targets: TargetTensors, step: int) -> tuple[Tensor, Answers]:
        """Return the total loss and its parts, for weights after so many steps."""

    def look(self, network: nn.Module, seen: Sequence[Validated]) -> dict[str, Tensor]:
        """Return pictures ``[C, Z, Y, X]``, values 0 to 1, of a validation; `network` is in ``eval`` mode."""


def to_tensors(targets: Targets) -> TargetTensors:
    """Return targets as float32 targets and float32 weights."""
    return {name: (_tensor(target), _tensor(weight)) for name, (target, weight) in targets.items()}


def grey(raw: Tensor) -> Tensor:
    """Return what a network sees, -1 to 1, as a picture's values, 0 to 1."""
    return (raw * 0.5 + 0.5).clamp(0, 1)


def _tensor(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
