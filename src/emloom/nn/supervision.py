"""Several losses at once: at several resolutions of one output, and of several tasks.

**Deep supervision** asks a decoder for its answer at every level (Lee et al. 2015, arXiv:1409.5185)::

    L = sum over levels l of  decay^l * loss(logits_l, target_l, weight_l)        level 0 is full resolution

The target of a level is made from the full one by a rule (`coarser`), and so is the weight; a coarse voxel whose
cell holds nothing known is unknown.

**Tasks** are added with fixed weights (`FixedWeights`) or with weights that are learned (`LearnedWeights`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.class_losses import says_something
from emloom.nn.losses import Loss
from emloom.nn.masked import one_weight

Coarsening = Literal["nearest", "majority", "max", "mean", "classes"]

_LIMIT = 8.0  # of a learned log variance: weights stay between 1/3000 and 3000


def deep_supervision(
    loss: Loss,
    levels: Sequence[Tensor],
    target: Tensor,
    weight: Tensor,
    how: Coarsening = "majority",
    decay: float = 0.5,
) -> Tensor:
    """Return the sum of one loss over decoder levels, each weighing `decay` times the one before.

    Args:
        loss: any loss of `emloom.nn.losses`.
        levels: logits ``[N, C, Z / f_z, Y / f_y, X / f_x]`` of every level, full resolution first.
        target: ``[N, C, Z, Y, X]``.
        weight: not negative; broadcasts to the target.
        how: how targets are made coarser, see `coarser`.
        decay: weight of a level relative to the finer one.

    Raises:
        ValueError: a level's shape does not divide the target's.
    """
    weight = weight.expand(target.shape[0], -1, *target.shape[2:])
    values = []
    for level, logits in enumerate(levels):
        t, w = coarser(target, weight, _factor(target, logits), how)
        values.append(decay**level * loss(logits, t, w))
    return torch.stack(values).sum()


def coarser(target: Tensor, weight: Tensor, factor: Vec, how: Coarsening) -> tuple[Tensor, Tensor]:
    """Return target and weight at a lower resolution; each coarse voxel stands for a cell of `factor` voxels.

    Rules, all over the known voxels of a cell only:

    * ``nearest``: the voxel at the cell's centre (of the two in the middle the later one); any labels.
    * ``majority``: 1 where more than half are above 0.5, counted with their weights; binary targets.
    * ``max``: the largest; for rare foreground, which would otherwise vanish. Cells with unknown voxels and
      without foreground are unknown: they might have held some.
    * ``mean``: the weighted mean; distances, descriptors and other numbers.
    * ``classes``: channels exclude each other, and a voxel's target are its candidates (`nn.class_losses`). A
      class is a candidate of the cell if more than half of it may be of that class. Unless more than half is of
      one of these for sure, the cell is unknown. Of one-hot targets that is the class of more than half.

    The weight of a coarse voxel is the mean weight of its cell (``nearest``: of the voxel taken).

    Args:
        target: ``[N, C, Z, Y, X]``, each length a multiple of the factor.
        weight: ``[N, 1 or C, Z, Y, X]``, 0 is unknown.
        factor: voxels (z, y, x) per cell.
        how: the rule.
    """
    if factor == (1, 1, 1):
        return target, weight
    if how == "nearest":
        z, y, x = (slice(f // 2, None, f) for f in factor)
        return target[:, :, z, y, x], weight[:, :, z, y, x]
    if how == "classes":
        return _coarser_classes(target, weight, factor)
    weight = weight.float()
    known = weight > 0
    t = torch.where(known, (target > 0.5).float() if how == "majority" else target.float(), 0.0)
    mean_weight = functional.avg_pool3d(weight.clamp(min=0), factor)
    if how == "max":
        top = functional.max_pool3d(torch.where(known, t, -torch.inf), factor)
        unknown = functional.max_pool3d((~known).float(), factor) > 0
        sure = ~unknown | (top > 0.5)
        return torch.where(sure, top, 0.0), torch.where(sure, mean_weight, 0.0)
    share = functional.avg_pool3d(weight * t, factor) / torch.where(mean_weight > 0, mean_weight, 1.0)
    return (share if how == "mean" else (share > 0.5).float()), mean_weight


def _coarser_classes(target: Tensor, weight: Tensor, factor: Vec) -> tuple[Tensor, Tensor]:
    voxel = one_weight(weight).float()
    says = says_something(target, voxel)
    voxel = torch.where(says, voxel, 0.0)
    among = says & (target > 0.5)
    half = _sum(voxel, factor) / 2  # sums, not means: exact for weights of 0 and 1
    possible = _sum(voxel * among, factor) > half
    elsewhere = (among & ~functional.interpolate(possible.float(), target.shape[2:]).bool()).any(
        dim=1, keepdim=True
    )
    sure = _sum(voxel * ~elsewhere, factor) > half
    return (possible & sure).float(), torch.where(sure, functional.avg_pool3d(voxel, factor), 0.0)


def _sum(x: Tensor, factor: Vec) -> Tensor:
    return functional.avg_pool3d(x, factor, divisor_override=1)


def level_name(head: str, level: int) -> str:
    """Return the name under which a network answers at a decoder level; level 0 is the head itself."""
    return f"{head}@{level}" if level else head


def levels_of(logits: Mapping[str, Tensor], head: str) -> list[Tensor]:
    """Return the logits of every level at which a network answered, full resolution first."""
    names = (level_name(head, level) for level in range(len(logits)))
    return [logits[name] for name in names if name in logits]


class FixedWeights(nn.Module):
    """The sum of the tasks' losses, each times a number.

    Args:
        weights: by task, not negative.

    Raises:
        InputError: there is no task, or a weight is negative.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        if not weights or min(weights.values()) < 0:
            raise InputError(f"task weights {dict(weights)} must name at least one task, and none may be negative")
        self.weights = dict(weights)

    def forward(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of one loss per task."""
        _check_tasks(self.weights, parts)
        return torch.stack([k * parts[name] for name, k in self.weights.items()]).sum()


class LearnedWeights(nn.Module):
    """The sum of the tasks' losses, weighted by the noise the network finds in each.

    Kendall et al. 2018 (arXiv:1705.07115), with s = log variance, one learned number per task::

        L = sum over tasks of  k exp(-s) L_task + s / 2          k = 1/2 for regression, 1 for classification

    smallest where exp(s) = 2 k L_task. The optimizer must be given this module's parameters as well. A loss of
    exactly 0 comes from a crop where nothing was known: it teaches s nothing. s is kept within ±8, smoothly.

    Args:
        tasks: by name, what kind of loss it is.

    Raises:
        InputError: there is no task.
    """

    def __init__(self, tasks: Mapping[str, Literal["regression", "classification"]]) -> None:
        super().__init__()
        if not tasks:
            raise InputError("learned task weights need at least one task")
        self.factors = {name: 0.5 if kind == "regression" else 1.0 for name, kind in tasks.items()}
        self.raw = nn.ParameterDict({name: nn.Parameter(torch.zeros(())) for name in tasks})

    def log_variances(self) -> dict[str, Tensor]:
        """Return s of every task."""
        return {name: _LIMIT * torch.tanh(raw / _LIMIT) for name, raw in self.raw.items()}

    def forward(self, parts: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted sum of one loss per task."""
        _check_tasks(self.factors, parts)
        terms = []
        for name, s in self.log_variances().items():
            term = self.factors[name] * torch.exp(-s) * parts[name] + 0.5 * s
            terms.append(torch.where(parts[name].detach() > 0, term, 0.0))
        return torch.stack(terms).sum()


def _check_tasks(known: Mapping[str, float], parts: Mapping[str, Tensor]) -> None:
    if known.keys() != parts.keys():
        # Dropping a loss would train without it: a programming error.
        raise ValueError(f"losses of {sorted(parts)} for weights of {sorted(known)}: give one loss per task")


def _factor(target: Tensor, logits: Tensor) -> Vec:
    fine, coarse = target.shape[2:], logits.shape[2:]
    if any(a % b for a, b in zip(fine, coarse, strict=True)):
        raise ValueError(f"logits of {tuple(coarse)} voxels do not divide a target of {tuple(fine)}")
    z, y, x = (a // b for a, b in zip(fine, coarse, strict=True))
    return (z, y, x)
