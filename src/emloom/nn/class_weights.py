"""Weights for voxels, from how rare their class is or how far they lie from it.

Every function takes a mask of known voxels and gives weight 0 outside it, so its result can be handed to any loss
as the weight, or multiplied with other weights.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from emloom.nn.masked import count

Balance = Literal["channel", "batch", "crop"]
"""Over what class fractions are counted: each channel over the batch, everything, or each channel of each crop."""


def balance_weights(
    target: Tensor,
    mask: Tensor,
    clip: tuple[float, float] = (0.05, 0.95),
    per: Balance = "channel",
    threshold: float = 0.5,
) -> Tensor:
    """Return weights under which both classes of a binary target count equally.

    Class c, a fraction f_c of the voxels inside the mask (clipped), gets weight 1 / (2 f_c); outside the mask 0.
    Positives thus weigh (1 - f) / f times a negative. With fractions inside `clip` the weights sum to the number
    of voxels in the mask; see `mean_one` for the rest.

    Args:
        target: ``[N, C, Z, Y, X]``; above `threshold` is the positive class.
        mask: where the target is known; broadcasts to the target.
        clip: bounds of a class fraction, so that a rare class cannot explode.
        per: fractions for each channel over the batch, one for all, or for each channel of each crop.
        threshold: what separates the classes; 0 for a signed distance.

    Returns:
        float32, shape of the target.
    """
    known = (mask > 0).expand_as(target)
    positive = known & (target > threshold)
    axes = _axes(target.ndim, per)
    fraction = (count(positive, axes) / count(known, axes).clamp(min=1)).clamp(*clip)
    rest = (1 - fraction).clamp(*clip)
    weight = torch.where(positive, 0.5 / fraction, 0.5 / rest)
    return torch.where(known, weight, 0.0).float()


def proximity_weights(target: Tensor, mask: Tensor, rarest: float = 0.01) -> Tensor:
    """Return weights that balance a signed proximity ``±exp(-d²)``, 0 far from any synapse, ±1 at one.

    The fraction f of *sites*, abs(t) >= 0.99, among sites and *background*, abs(t) < 0.01, is counted in each crop
    (after Parag et al. 2018, arXiv:1807.02739). Background weighs 1 / (2 (1 - f)), all other voxels 1 / (2 f).

    Args:
        target: ``[N, C, Z, Y, X]`` in [-1, 1].
        mask: where the target is known; broadcasts to the target.
        rarest: lower bound of f and of 1 - f.
    """
    known = (mask > 0).expand_as(target)
    size = target.float().abs()
    background = known & (size < 0.01)
    axes = _axes(target.ndim, "crop")
    sites = count(known & (size >= 0.99), axes)
    fraction = (sites / (sites + count(background, axes)).clamp(min=1)).clamp(rarest, 1 - rarest)
    return torch.where(known, torch.where(background, 0.5 / (1 - fraction), 0.5 / fraction), 0.0).float()


def distance_weights(target: Tensor, distance_nm: Tensor, scale_nm: float) -> Tensor:
    """Return 1 for positives and ``tanh(distance / scale)`` for negatives.

    The border of a hand-drawn synapse is uncertain; voxels beside it teach little.

    Args:
        target: above 0.5 is positive.
        distance_nm: to the nearest positive voxel, anisotropic; infinite where there is none. Same shape.
        scale_nm: distance at which a negative weighs 0.76.
    """
    return torch.where(target > 0.5, 1.0, torch.tanh(distance_nm.float() / scale_nm))


def mean_one(weight: Tensor, mask: Tensor) -> Tensor:
    """Return weights scaled to a mean of 1 over the masked voxels of each channel of each crop.

    Whatever the clipping did, a weighted mean of a loss then lies between its smallest and its largest voxel.
    """
    axes = _axes(weight.ndim, "crop")
    known = (mask > 0).expand_as(weight)
    total = torch.where(known, weight, 0.0).sum(dim=axes, keepdim=True)
    return weight * torch.where(total > 0, count(known, axes) / torch.where(total > 0, total, 1.0), 1.0)


def _axes(ndim: int, per: Balance) -> list[int]:
    return {"batch": list(range(ndim)), "channel": [0, *range(2, ndim)], "crop": list(range(2, ndim))}[per]
