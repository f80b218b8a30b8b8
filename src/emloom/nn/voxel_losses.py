"""Losses that compare voxel with voxel: cross entropies, focal loss, regression.

With l the loss of one entry and w its weight::

    L = sum(w l) / count(w > 0)          and L = 0, with zero gradient, where no entry has weight

the masked mean of Sheridan et al. 2023 (doi:10.1038/s41592-022-01711-z). See `emloom.nn.losses` for what holds of
every loss.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from emloom.errors import InputError
from emloom.nn.class_weights import Balance, balance_weights, mean_one, proximity_weights
from emloom.nn.masked import aligned, masked_mean, one_weight
from emloom.spec import Spec


def weighted_mse_sigmoid(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean squared error of ``sigmoid(logits)``.

    Args:
        logits: ``[N, C, Z, Y, X]``.
        target: in [0, 1], same shape.
        weight: not negative; broadcasts to the logits, e.g. ``[N, 1, Z, Y, X]``.
    """
    x, t, w = aligned(logits, target, weight)
    return masked_mean(w * (torch.sigmoid(x) - t) ** 2, w)


def balanced_bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Return the weighted mean binary cross entropy; `balance_weights` gives weights that balance the classes.

    Args:
        logits: ``[N, C, Z, Y, X]``.
        target: in [0, 1], same shape.
        weight: not negative; broadcasts to the logits.
    """
    x, t, w = aligned(logits, target, weight)
    return masked_mean(w * functional.binary_cross_entropy_with_logits(x, t, reduction="none"), w)


class Bce(Spec):
    """Binary cross entropy, ``-t log p - (1 - t) log(1 - p)``, optionally with both classes weighing the same.

    Balanced, positives weigh (1 - f) / f times a negative, f their fraction; the weights have mean 1 in each crop,
    so a crop with one positive voxel adds no more than any other.
    """

    kind: Literal["bce"] = "bce"
    balance: Balance | None = "crop"
    """Over what class fractions are counted; None weighs all voxels the same."""
    rarest: float = Field(default=0.01, gt=0, le=0.5)
    """A class is never taken for rarer than this: bounds the ratio of weights, here to 99."""

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss; target in [0, 1]."""
        if self.balance is not None:
            balance = balance_weights(target, weight, (self.rarest, 1 - self.rarest), self.balance)
            weight = weight * mean_one(balance, weight)
        return balanced_bce(logits, target, weight)


class Focal(Spec):
    """Focal loss, ``-t (1 - p)^g log p - (1 - t) p^g log(1 - p)``: easy voxels count little.

    Lin et al. 2017 (arXiv:1708.02002), from log-sigmoids, so finite for any logit; with g = 0 the cross entropy.
    """

    kind: Literal["focal"] = "focal"
    gamma: float = Field(default=2.0, ge=0)

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss; target in [0, 1]."""
        x, t, w = aligned(logits, target, weight)
        yes, no = functional.logsigmoid(x), functional.logsigmoid(-x)
        loss = -t * torch.exp(self.gamma * no) * yes - (1 - t) * torch.exp(self.gamma * yes) * no
        return masked_mean(w * loss, w)


class Regression(Spec):
    """Error of a number: squared, absolute, or squared below `beta` and absolute above.

    Classes may be balanced: by a threshold, e.g. inside and outside of a signed distance (0), after Heinrich et
    al. 2018 (arXiv:1805.02718); or as a signed proximity, see `proximity_weights`.
    """

    kind: Literal["regression"] = "regression"
    error: Literal["squared", "absolute", "smooth"] = "squared"
    output: Literal["sigmoid", "signed", "linear"] = "sigmoid"
    """What the network predicts: in [0, 1]; in [-1, 1], ``2 sigmoid(x) - 1 = tanh(x / 2)``; or the bare number.
    Predictions are stored as sigmoids, so signed is ``2 p - 1`` of what is stored."""
    balance: Literal["threshold", "proximity"] | None = None
    threshold: float = 0.0
    """Targets above it are one class, the rest the other."""
    rarest: float = Field(default=0.01, gt=0, le=0.5)
    """A class is never taken for rarer than this."""
    beta: float = Field(default=0.1, gt=0)
    """Where `smooth` turns from squared to absolute."""

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the loss; target within the range of the output."""
        if self.balance == "threshold":
            bounds = (self.rarest, 1 - self.rarest)
            balance = balance_weights(target, weight, bounds, "crop", self.threshold)
            weight = weight * mean_one(balance, weight)
        elif self.balance == "proximity":
            weight = weight * mean_one(proximity_weights(target, weight, self.rarest), weight)
        x, t, w = aligned(logits, target, weight)
        if self.output != "linear":
            x = torch.sigmoid(x) if self.output == "sigmoid" else torch.tanh(0.5 * x)
        return masked_mean(w * self._error(x, t), w)

    def _error(self, x: Tensor, t: Tensor) -> Tensor:
        if self.error == "squared":
            return (x - t) ** 2
        if self.error == "absolute":
            return (x - t).abs()
        return functional.smooth_l1_loss(x, t, reduction="none", beta=self.beta)


class Vectors(Spec):
    """Squared length of the error of a vector, e.g. from a post-synaptic voxel to its partner, inside a mask.

    Channels are the components; outputs are bare numbers in units of the target.
    """

    kind: Literal["vectors"] = "vectors"

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the mean over known voxels; a voxel is known if all its channels are."""
        voxel = one_weight(weight)
        x, t, _ = aligned(logits, target, voxel)
        return masked_mean(voxel * ((x - t) ** 2).sum(dim=1, keepdim=True), voxel)


def one_hot(labels: Tensor, classes: int, ignore: int = -1) -> tuple[Tensor, Tensor]:
    """Return a one-hot target and a weight for class ids.

    Args:
        labels: integer ``[N, Z, Y, X]`` class ids.
        classes: number of classes; ids are 0 to classes - 1.
        ignore: the id of unknown voxels.

    Returns:
        float32 target ``[N, classes, Z, Y, X]`` and weight ``[N, 1, Z, Y, X]``, both 0 where unknown.

    Raises:
        InputError: an id is neither a class nor the one to ignore.
    """
    known = labels != ignore
    wrong = labels[known & ((labels < 0) | (labels >= classes))]
    if wrong.numel():
        raise InputError(
            f"class id {int(wrong[0])} is none of the {classes} classes 0..{classes - 1}: "
            f"relabel it, or use the id to ignore, {ignore}"
        )
    target = functional.one_hot(torch.where(known, labels, 0).long(), classes).movedim(-1, 1).float()
    weight = known[:, None].float()
    return target * weight, weight


def check_classes(values: tuple[object, ...], channels: int) -> None:
    """Raise `InputError` unless there is one value per channel."""
    if len(values) != channels:
        raise InputError(f"{len(values)} class weights for {channels} channels: give one weight per channel")
