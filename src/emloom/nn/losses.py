"""Losses on logits, with a weight for every voxel and channel.

A loss is a frozen value that a job file can name and that is called like a function::

    loss = Dice(smooth=1.0)                     kind: dice
    value = loss(logits, target, weight)        [N, C, Z, Y, X], same shape, broadcasts to it

What holds of every one of them:

* A weight of 0 means *unknown*: such voxels add nothing, whatever stands there, NaN included.
* Where nothing is known the loss is 0, with zero gradient. No crop (empty, full, unknown) and no finite logit
  makes a NaN.
* Half precision is computed in float32. The order of the samples in a batch changes nothing.
* The loss is smallest at the truth, and its gradient points there.

To add one: write its class in `voxel_losses` (voxel against voxel), `overlap_losses` (set against set) or
`class_losses` (a softmax over classes), with a `kind` and ``__call__``, and add it to `SimpleLoss`; the tests then
hold it to the laws above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from emloom.nn.class_losses import ClassDice, CrossEntropy, FocalCrossEntropy, WassersteinDice
from emloom.nn.class_weights import balance_weights, distance_weights, proximity_weights
from emloom.nn.overlap_losses import (
    Dice,
    GeneralisedDice,
    SensitivitySpecificity,
    Tversky,
    TwoClassDice,
)
from emloom.nn.voxel_losses import (
    Bce,
    Focal,
    Regression,
    Vectors,
    balanced_bce,
    one_hot,
    weighted_mse_sigmoid,
)
from emloom.spec import Spec

__all__ = [
    "Bce",
    "ClassDice",
    "CrossEntropy",
    "Dice",
    "Focal",
    "FocalCrossEntropy",
    "GeneralisedDice",
    "Loss",
    "LossSpec",
    "LossSum",
    "Regression",
    "SensitivitySpecificity",
    "SimpleLoss",
    "Tversky",
    "TwoClassDice",
    "Vectors",
    "WassersteinDice",
    "balance_weights",
    "balanced_bce",
    "build_loss",
    "channels_of",
    "distance_weights",
    "one_hot",
    "proximity_weights",
    "reads_classes",
    "reads_probabilities",
    "weighted_mse_sigmoid",
]

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(logits, target, weight) -> one number."""

SimpleLoss = Annotated[
    Bce
    | Focal
    | Regression
    | Vectors
    | Dice
    | TwoClassDice
    | GeneralisedDice
    | Tversky
    | SensitivitySpecificity
    | CrossEntropy
    | FocalCrossEntropy
    | ClassDice
    | WassersteinDice,
    Field(discriminator="kind"),
]


class LossSum(Spec):
    """A weighted sum of losses, e.g. cross entropy for every voxel and Dice for the whole."""

    kind: Literal["sum"] = "sum"
    parts: tuple[SimpleLoss, ...] = Field(min_length=1)
    weights: tuple[float, ...] | None = None
    """One per part, not negative; None is 1 for all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.weights is not None and (len(self.weights) != len(self.parts) or min(self.weights) < 0):
            raise ValueError(f"{len(self.parts)} parts need as many weights, none negative, got {self.weights}")
        return self

    @classmethod
    def bce_dice(cls) -> LossSum:
        """Return cross entropy, every voxel weighing the same, plus soft Dice."""
        return cls(parts=(Bce(balance=None), Dice()))

    @classmethod
    def focal_dice(cls) -> LossSum:
        """Return focal loss plus soft Dice."""
        return cls(parts=(Focal(), Dice()))

    def __call__(self, logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
        """Return the sum."""
        weights = self.weights or (1.0,) * len(self.parts)
        first, *rest = (k * part(logits, target, weight) for k, part in zip(weights, self.parts, strict=True))
        return sum(rest, start=first)


LossSpec = Annotated[SimpleLoss | LossSum, Field(discriminator="kind")]
"""Any loss a job file can name by its `kind`."""


def reads_probabilities(loss: LossSpec) -> bool:
    """Return whether a loss takes each channel for a probability of its own, sigmoid(logit)."""
    if isinstance(loss, LossSum):
        return all(reads_probabilities(part) for part in loss.parts)
    if isinstance(loss, Regression):
        return loss.output == "sigmoid"
    return not reads_classes(loss) and not isinstance(loss, Vectors)


def reads_classes(loss: LossSpec) -> bool:
    """Return whether a loss takes the channels for classes that exclude each other, softmax(logits)."""
    if isinstance(loss, LossSum):
        return all(reads_classes(part) for part in loss.parts)
    return isinstance(loss, CrossEntropy | FocalCrossEntropy | ClassDice | WassersteinDice)


def channels_of(loss: LossSpec) -> set[int]:
    """Return the numbers of channels that a loss that reads classes is made for; none: any number."""
    if isinstance(loss, LossSum):
        return {number for part in loss.parts for number in channels_of(part)}
    if isinstance(loss, CrossEntropy | FocalCrossEntropy | ClassDice):
        return set() if loss.class_weights is None else {len(loss.class_weights)}
    return {len(loss.distances)} if isinstance(loss, WassersteinDice) else set()


class _Named(Spec):
    """A loss on its own, so that plain data are validated as inside a job."""

    loss: LossSpec


def build_loss(data: Mapping[str, Any]) -> Loss:
    """Return the loss that plain data describe, e.g. ``{"kind": "dice", "smooth": 1}``.

    Raises:
        InputError: the kind is unknown or a value is not valid; the message says what is.
    """
    return _Named.from_dict({"loss": dict(data)}, "the loss").loss
