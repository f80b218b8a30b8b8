"""What computes a network's answer: one call, several engines, the same numbers within a stated tolerance.

A `Backend` maps normalised raw to stored values (`emloom.nn.coding`). `TorchBackend` runs the module
as it is, on any device; `emloom.nn.openvino_backend` compiles it for the processor; `emloom.nn.contest` times them
and takes the fastest.

Against torch in float32 on the same tile, stored values differ by

* float32 in OpenVINO: at most 1 of 255;
* bf16 in either: at most `BF16_STEPS`, on average `BF16_MEAN_STEPS` (measured on trained nets: see
  docs/prediction.md).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from emloom.nn.coding import PROBABILITIES, Codings, coding_of
from emloom.nn.heads import DenseNet
from emloom.nn.layers import Conv

Precision = Literal["32", "bf16"]
Stored = NDArray[Any]

BF16_STEPS = 8
"""Of 255: the largest difference to float32 at which bf16 counts as the same answer."""
BF16_MEAN_STEPS = 0.5
"""Of 255: the mean difference to float32 at which bf16 counts as the same answer."""


class Backend(Protocol):
    """Computes stored values of normalised raw."""

    @property
    def name(self) -> str:
        """What computes, and in which precision, e.g. `torch 32`."""

    def __call__(self, x: Tensor) -> dict[str, Stored]:
        """Return stored values ``[C, Z, Y, X]`` by head of float32 ``[1, 1, Z, Y, X]`` on the processor.

        Raises:
            InputError: the answer is not finite, or the shape does not fit.
        """


class TorchBackend:
    """The module itself, eagerly.

    Args:
        module: a network with the properties of `DenseNet`, already on `device`.
        device: where it is.
        precision: `32`, or `bf16` (autocast).
        codings: what is stored of the heads.
    """

    def __init__(
        self, module: nn.Module, device: torch.device, precision: Precision, codings: Codings = PROBABILITIES
    ) -> None:
        self.name = f"torch {precision}"
        self._module = module
        self._net = dense(module)
        self._device = device
        self._bf16 = precision == "bf16"
        self._codings = codings

    def __call__(self, x: Tensor) -> dict[str, Stored]:
        """Return stored values by head."""
        with (
            evaluating(self._module),
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._bf16),
        ):
            logits = self._net.interior(x.to(self._device))
            return {name: coding_of(self._codings, name)(answer[0], name) for name, answer in logits.items()}


def dense(module: nn.Module) -> DenseNet:
    """Return the module as a `DenseNet`; raises `TypeError` where it is none."""
    if not isinstance(module, DenseNet):
        raise TypeError(f"{type(module).__name__} lacks the properties of a DenseNet: see emloom.nn.heads")
    return module


def folded(module: nn.Module) -> nn.Module:
    """Return a copy in `eval` on the processor, in which standardised filters are constants."""
    out = copy.deepcopy(module).to("cpu").eval()
    with torch.no_grad():
        for part in out.modules():
            if isinstance(part, Conv):
                part.fold()
    return out


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Hold a module in ``eval``; afterwards every submodule is in the mode it was found in."""
    modes = [(part, part.training) for part in module.modules()]
    if not any(mode for _, mode in modes):
        yield  # nothing to change, so threads may share the module
        return
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
