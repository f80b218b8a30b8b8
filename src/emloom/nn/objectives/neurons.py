"""Neurons: affinities and local shape descriptors.

The story of this objective, from ground truth to segmentation:

* **targets** — instance labels, with their boundary grown by one voxel so that touching neurites are separated by
  background, become affinities (channel ``c`` at ``p``: are ``p`` and ``p + neighborhood[c]`` the same object?)
  and local shape descriptors (size, offset and covariance of the object around each voxel; Sheridan et al., Nature
  Methods 2023, doi:10.1038/s41592-022-01711-z).
* **heads** — ``affinities``, one channel per offset, and ``lsds``, ten channels; both are logits.
* **loss** — affinities: class-balanced cross entropy (or any loss of `emloom.nn.losses` that reads each channel as
  a probability) over valid pairs; descriptors: squared error over labelled voxels. A network that answers at
  coarser levels too is asked there as well, by the majority of affinities and the mean of descriptors. The
  descriptors are an auxiliary task: they are predicted, and never decoded.
* **decode** — affinities to fragments, region graph and agglomeration, which is `emloom.tasks.segment`.

Variants: ``mtlsd`` learns both tasks with shared features; ``affinities`` learns only the first; ``aclsd`` and
``acrlsd`` (auto-context) predict descriptors first and feed them, alone or with the raw, to a second network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, TypeAdapter, model_validator
from torch import Tensor, nn

from emloom.geometry import Box, Grid, Vec
from emloom.nn.losses import (
    Loss,
    LossSpec,
    balance_weights,
    balanced_bce,
    reads_probabilities,
    weighted_mse_sigmoid,
)
from emloom.nn.objectives.base import (
    Answers,
    Rendered,
    Sample,
    Targets,
    TargetTensors,
    Validated,
    grey,
    to_tensors,
)
from emloom.nn.supervision import deep_supervision, levels_of
from emloom.ops.affinities import affinities, neighborhood
from emloom.ops.descriptors import local_shape_descriptors
from emloom.ops.labels import grow_boundary
from emloom.spec import Spec

LossName = Literal["bce", "mse"]
_NAME: TypeAdapter[str] = TypeAdapter(LossName)
_LOSS: TypeAdapter[Loss] = TypeAdapter(LossSpec)


def _named_or_described(data: Any) -> Any:
    """Validate as the one or the other, so that an error speaks of what was meant and not of both."""
    return _NAME.validate_python(data) if isinstance(data, str) else _LOSS.validate_python(data)


LSD_CHANNELS = 10
_TRUNCATE = 3.0  # the Gaussian window of the descriptors ends at three standard deviations


class NeuronsObjective(Spec):
    """Learn to tell whether two voxels belong to the same neuron."""

    needs_labels: ClassVar[bool] = True

    kind: Literal["neurons"] = "neurons"
    variant: Literal["mtlsd", "affinities", "aclsd", "acrlsd"] = "mtlsd"
    """Which tasks are learned, and how they are stacked."""
    neighborhood: tuple[Vec, ...] = Field(default=neighborhood(1, 4, 9), min_length=1)
    """One ZYX voxel offset per affinity channel; long ranges sharpen the short ones and bias to splits."""
    lsd_sigma_nm: Annotated[float, Field(gt=0)] = 80.0
    """Standard deviation of the descriptors' Gaussian window."""
    lsd_downsample: Vec = (1, 1, 1)
    """Descriptors are computed on every n-th voxel along z, y, x: faster, hardly different."""
    grow_boundary_vox: int = Field(default=1, ge=0)
    """Voxels of background grown between touching objects in the training labels."""
    grow_in_plane: bool = False
    """Grow the boundary within sections only: for anisotropic stacks."""
    affinity_loss: Annotated[LossName | LossSpec, BeforeValidator(_named_or_described)] = "bce"
    """`bce` and `mse` are balanced by channel; or any loss, e.g. `{kind: tversky, false_positive: 0.7}`."""
    lsd_weight: float = Field(default=1.0, ge=0)
    """Weight of the descriptor loss relative to the affinity loss."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not isinstance(self.affinity_loss, str) and not reads_probabilities(self.affinity_loss):
            raise ValueError(
                f"affinity_loss {self.affinity_loss.kind!r} does not read each channel as a probability "
                "of its own, which affinities are: use e.g. bce, focal, dice or tversky"
            )
        return self

    @property
    def has_lsds(self) -> bool:
        """Whether descriptors are learned."""
        return self.variant != "affinities"

    @property
    def heads(self) -> dict[str, int]:
        """Output name -> number of channels."""
        lsds = {"lsds": LSD_CHANNELS} if self.has_lsds else {}
        return {"affinities": len(self.neighborhood), **lsds}

    def context_vox(self, grid: Grid) -> Vec:
        """Return how far (z, y, x) beyond a voxel its targets look."""
        grown = self.grow_boundary_vox
        grow = (0 if self.grow_in_plane else grown, grown, grown)
        window = grid.voxels(_TRUNCATE * self.lsd_sigma_nm) if self.has_lsds else (0, 0, 0)
        stride = self.lsd_downsample if self.has_lsds else (1, 1, 1)
        reach = []
        for axis in range(3):
            longest = max(abs(offset[axis]) for offset in self.neighborhood)
            needed = max(longest, window[axis] + 1) + grow[axis]
            # Rounded up so that a crop and its context share the descriptors' sub-sampled lattice.
            reach.append(-(-needed // stride[axis]) * stride[axis])
        return (reach[0], reach[1], reach[2])

    def targets(
        self, labels_ZYX: NDArray[np.uint64], known_ZYX: NDArray[np.uint8], inner: Box, grid: Grid
    ) -> Targets:
        """Return the targets and weights of every head on the voxels of `inner`.

        Args:
            labels_ZYX: instance ids with context around `inner`, 0 is background.
            known_ZYX: non-zero where the labels are known.
            inner: the voxels to compute, in voxels of `labels_ZYX`.
            grid: voxel size of the labels.
        """
        # Beyond the volume labels are unknown, not background: objects must not be eroded from there.
        grown = grow_boundary(labels_ZYX, self.grow_boundary_vox, in_plane=self.grow_in_plane, mask_ZYX=known_ZYX)
        out: Targets = {"affinities": affinities(grown, self.neighborhood, mask_ZYX=known_ZYX, box=inner)}
        if self.has_lsds:
            lsds, weight = local_shape_descriptors(
                grown,
                grid.voxel_size_nm,
                self.lsd_sigma_nm,
                downsample=self.lsd_downsample,
                box=inner,
                mask_ZYX=known_ZYX,
            )
            out["lsds"] = (lsds, np.broadcast_to(weight, lsds.shape))
        return out

    def surround_vox(self, grid: Grid) -> Vec:
        """Return how far beyond the input it wants to see the raw: nowhere."""
        return (0, 0, 0)

    def sample(self, made: Rendered, grid: Grid) -> Sample:
        """Return (raw ``[1, Z, Y, X]``, targets by head) of a crop."""
        targets = self.targets(made.labels, made.known, made.output, grid)
        return torch.from_numpy(made.raw[None]), to_tensors(targets)

    def loss(self, answers: Answers, targets: TargetTensors, step: int = 0) -> tuple[Tensor, Answers]:
        """Return the total loss and its parts; logits and targets are ``[N, C, Z, Y, X]``."""
        levels = levels_of(answers, "affinities")
        parts = {"affinities": deep_supervision(self._affinity_loss, levels, *targets["affinities"], "majority")}
        total = parts["affinities"]
        if self.has_lsds:
            levels = levels_of(answers, "lsds")
            parts["lsds"] = deep_supervision(weighted_mse_sigmoid, levels, *targets["lsds"], "mean")
            total = total + self.lsd_weight * parts["lsds"]
        return total, {name: part.detach() for name, part in parts.items()}

    def look(self, network: nn.Module, seen: Sequence[Validated]) -> dict[str, Tensor]:
        """Return raw, truth and prediction of the first sample."""
        first = seen[0]
        panel = {"raw": grey(first.raw[0])}
        for name, (target, _) in first.targets.items():
            panel |= {f"{name}/truth": target[0], f"{name}/prediction": torch.sigmoid(first.answers[name][0])}
        return panel

    def _affinity_loss(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        if not isinstance(self.affinity_loss, str):
            return self.affinity_loss(logits, target, weight)
        loss = balanced_bce if self.affinity_loss == "bce" else weighted_mse_sigmoid
        return loss(logits, target, balance_weights(target, weight))
