"""How a network's answer becomes what is stored: per head, from float to a number of a stated type.

Probabilities become bytes, each by itself or as shares of classes that exclude each other; grey values become the
type of the raw. So everything after the network is exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emloom.errors import InputError


class Coding(Protocol):
    """Maps an answer to what is stored."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is stored."""

    def __call__(self, answer: Tensor, name: str) -> NDArray[Any]:
        """Return what is stored of float ``[C, Z, Y, X]``, which may be overwritten.

        Raises:
            InputError: a value is NaN; `name` is the head.
        """


@dataclass(frozen=True)
class Probability:
    """``round(255 * sigmoid(answer))`` as uint8: 0..255 stands for a probability of 0..1."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Unsigned bytes."""
        return np.dtype(np.uint8)

    def __call__(self, answer: Tensor, name: str) -> NDArray[np.uint8]:
        """Return what is stored."""
        probability = answer.float().sigmoid_()  # in place: fresh memory costs more than the sigmoid
        if not torch.isfinite(probability.sum()):  # values are 0..1, so only a NaN can spoil the sum
            raise _diverged(name)
        out: NDArray[np.uint8] = probability.mul_(255).round_().to(torch.uint8).cpu().numpy()
        return out


@dataclass(frozen=True)
class Shares:
    """``round(255 * softmax(answer))`` as uint8, the softmax over channels: of classes that exclude each other."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Unsigned bytes."""
        return np.dtype(np.uint8)

    def __call__(self, answer: Tensor, name: str) -> NDArray[np.uint8]:
        """Return what is stored."""
        shares = answer.float().softmax(dim=0)
        if not torch.isfinite(shares.sum()):  # of an infinite answer, too: no share is defined there
            raise _diverged(name)
        out: NDArray[np.uint8] = shares.mul_(255).round_().to(torch.uint8).cpu().numpy()
        return out


@dataclass(frozen=True)
class GreyValue:
    """The inverse of `emloom.nn.preprocess.Preprocessing`: -1 becomes `low`, +1 `high`.

    Whole numbers are rounded, and cut at the ends of their type.

    Attributes:
        low: grey value of -1.
        high: grey value of +1.
        raw_dtype: type of the raw; floats are stored as float32.
    """

    low: float
    high: float
    raw_dtype: np.dtype[Any]

    @property
    def dtype(self) -> np.dtype[Any]:
        """That of the raw."""
        return np.dtype(np.float32) if self.raw_dtype.kind == "f" else self.raw_dtype

    def __call__(self, answer: Tensor, name: str) -> NDArray[Any]:
        """Return what is stored."""
        values = answer.float().cpu().numpy().astype(np.float64)
        values += 1.0
        values *= (self.high - self.low) / 2
        values += self.low
        if not np.isfinite(values).all():
            raise _diverged(name)
        if self.dtype.kind == "f":
            return values.astype(self.dtype)
        span = np.iinfo(self.dtype)
        return np.clip(np.rint(values), span.min, span.max).astype(self.dtype)


Codings = Mapping[str, Coding]
"""By head; a head that is not named stores probabilities."""

PROBABILITIES: Codings = {}
"""Of all heads."""


def coding_of(codings: Codings, name: str) -> Coding:
    """Return the coding of a head."""
    return codings.get(name, Probability())


def _diverged(name: str) -> InputError:
    return InputError(f"the network answers {name!r} with NaN: its weights diverged; use an earlier checkpoint")
