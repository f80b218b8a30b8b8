"""Losses that compare sets of voxels: the Dice family.

Sums run over the voxels of each channel, over the whole batch or sample by sample (`per`), weighted by w::

    I = sum(w p t)      P = sum(w p)      T = sum(w t)            p = sigmoid(logits), t in {0, 1}

A loss is the mean over the channels (and samples) that hold any known voxel. With targets between 0 and 1 these
losses are defined, but their minimum is not at p = t. The smoothing s, never 0, decides what an empty crop says:
each false positive costs, and a correct empty answer costs nothing (with s = 0 that would be 0 / 0).
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from emloom.nn.masked import Per, Smooth, aligned, group_axes, known_groups, mean_over
from emloom.nn.voxel_losses import check_classes
from emloom.spec import Spec


class Dice(Spec):
    """Soft Dice, ``1 - (2 I + s) / (P + T + s)``, or with squares below: ``sum(w p²) + sum(w t²)``.

    Squared denominators after Milletari et al. 2016 (V-Net, arXiv:1606.04797).
    """

    kind: Literal["dice"] = "dice"
    smooth: Smooth = 1.0
    per: Per = "batch"
    squared: bool = False
    """Square predictions and targets in the denominator."""
    class_weights: tuple[float, ...] | None = None
    """Importance of each channel, not negative; None weighs all the same."""

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss; raises `InputError` where class weights do not match the channels."""
        x, t, w = aligned(logits, target, weight)
        if self.class_weights is not None:
            check_classes(self.class_weights, x.shape[1])
        p = torch.sigmoid(x)
        below = p * p + t * t if self.squared else p + t
        axes = group_axes(x.ndim, self.per)
        overlap = _ratio(2 * _sum(w * p * t, axes), _sum(w * below, axes), self.smooth)
        return mean_over(1 - overlap, known_groups(w, self.per), self.class_weights)


class TwoClassDice(Spec):
    """Mean of the soft Dice of foreground and of background, ``(D(p, t) + D(1 - p, 1 - t)) / 2``.

    The background term makes crops without any foreground teach.
    """

    kind: Literal["two_class_dice"] = "two_class_dice"
    smooth: Smooth = 1.0
    per: Per = "batch"

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss."""
        x, t, w = aligned(logits, target, weight)
        axes = group_axes(x.ndim, self.per)
        terms = []
        # 1 - sigmoid(x) of a large x is 0 in floats; sigmoid(-x) is not.
        for p, truth in ((torch.sigmoid(x), t), (torch.sigmoid(-x), 1 - t)):
            terms.append(1 - _ratio(2 * _sum(w * p * truth, axes), _sum(w * (p + truth), axes), self.smooth))
        return mean_over((terms[0] + terms[1]) / 2, known_groups(w, self.per))


class GeneralisedDice(Spec):
    """Dice over all channels at once, rare ones weighing more: ``1 - (2 sum(k I) + s) / (sum(k (P + T)) + s)``.

    Sudre et al. 2017 (arXiv:1707.03237): k = 1 / T² for each channel, here relative to the rarest, (T_min / T)²,
    which changes nothing but that s means the same for any crop. A channel without positives, whose weight would
    be infinite, counts like the rarest one.
    """

    kind: Literal["generalised_dice"] = "generalised_dice"
    smooth: Smooth = 1.0
    per: Per = "sample"

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss."""
        x, t, w = aligned(logits, target, weight)
        p = torch.sigmoid(x)
        axes = group_axes(x.ndim, self.per)
        size = _sum(w * t, axes)
        present = size > 0
        rarest = torch.where(present, size, torch.inf).amin(dim=1, keepdim=True)
        k = torch.where(present, (rarest / torch.where(present, size, 1.0)) ** 2, 1.0)
        above = (k * 2 * _sum(w * p * t, axes)).sum(dim=1, keepdim=True)
        below = (k * (_sum(w * p, axes) + size)).sum(dim=1, keepdim=True)
        known = known_groups(w, self.per).any(dim=1, keepdim=True)
        return mean_over(1 - _ratio(above, below, self.smooth), known)


class Tversky(Spec):
    """Dice with a price for each kind of mistake: ``1 - (I + s) / (I + a FP + b FN + s)``.

    Salehi et al. 2017 (arXiv:1706.05721); FP = sum(w p (1 - t)), FN = sum(w (1 - p) t). a = b = 1/2 is Dice.
    """

    kind: Literal["tversky"] = "tversky"
    false_positive: float = Field(default=0.3, gt=0)
    """Price a of a false positive."""
    false_negative: float = Field(default=0.7, gt=0)
    """Price b of a false negative; above a for structures that must not be missed."""
    smooth: Smooth = 1.0
    per: Per = "batch"

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss."""
        x, t, w = aligned(logits, target, weight)
        axes = group_axes(x.ndim, self.per)
        p = torch.sigmoid(x)
        hit = _sum(w * p * t, axes)
        wrong = self.false_positive * _sum(w * p * (1 - t), axes)
        missed = self.false_negative * _sum(w * torch.sigmoid(-x) * t, axes)
        return mean_over(1 - _ratio(hit, hit + wrong + missed, self.smooth), known_groups(w, self.per))


class SensitivitySpecificity(Spec):
    """Mean squared error within each class, ``r mean_t((t - p)²) + (1 - r) mean_1-t((t - p)²)``.

    Brosch et al. 2015 (doi:10.1007/978-3-319-24574-4_1). A class without voxels adds nothing.
    """

    kind: Literal["sensitivity_specificity"] = "sensitivity_specificity"
    sensitivity: float = Field(default=0.05, gt=0, lt=1)
    """Share r of the sensitivity; small, for the mean over rare positives is the steeper of the two."""
    per: Per = "batch"

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss."""
        x, t, w = aligned(logits, target, weight)
        axes = group_axes(x.ndim, self.per)
        error = (t - torch.sigmoid(x)) ** 2
        terms = [
            share * _mean_where(w * truth, error, axes)
            for share, truth in ((self.sensitivity, t), (1 - self.sensitivity, 1 - t))
        ]
        return mean_over(terms[0] + terms[1], known_groups(w, self.per))


def _sum(x: Tensor, axes: list[int]) -> Tensor:
    return x.sum(dim=axes, keepdim=True)


def _ratio(above: Tensor, below: Tensor, smooth: float) -> Tensor:
    return (above + smooth) / (below + smooth)


def _mean_where(weight: Tensor, values: Tensor, axes: list[int]) -> Tensor:
    """Return the weighted mean, 0 where there is no weight."""
    total = _sum(weight, axes)
    return _sum(weight * values, axes) / torch.where(total > 0, total, 1.0)
