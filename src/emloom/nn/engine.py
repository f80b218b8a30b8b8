"""What computes predictions: the device, the backend, the precision. Where, not what: never part of a spec.

The default, torch in float32, gives the same bits in every run on a machine. ``backend="auto"`` takes whatever is
fastest on the first tile, so two runs may differ by the tolerance of the backends (`emloom.nn.backends`); bf16 is
used only where it is asked for, or allowed with ``precision="auto"``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

import numpy as np
import torch
from torch import nn

from emloom.errors import InputError, did_you_mean
from emloom.nn import openvino_backend
from emloom.nn.backends import Backend, Precision, TorchBackend
from emloom.nn.coding import PROBABILITIES, Codings
from emloom.nn.contest import Contest
from emloom.nn.forest import Forest, ForestBackend
from emloom.nn.hardware import native_bf16
from emloom.nn.openvino_backend import OpenVinoBackend

log = logging.getLogger(__name__)

BackendChoice = Literal["torch", "openvino", "auto"]
PrecisionChoice = Literal["32", "bf16", "auto"]


@dataclass(frozen=True)
class Engine:
    """What computes predictions.

    Attributes:
        device: a torch device, e.g. `cpu` or `cuda:0`; OpenVINO computes on `cpu` only.
        backend: `torch`, `openvino`, or `auto`: the fastest on the first tile.
        precision: `32`; `bf16`, faster on a GPU and on processors with bf16 instructions, many times slower on
            others; or `auto`: bf16 where it is native, faster, and close enough on the first tile.
        threads: of the processor, at most; None is torch's own number.

    Raises:
        InputError: a choice is unknown.
    """

    device: str = "cpu"
    backend: BackendChoice = "torch"
    precision: PrecisionChoice = "32"
    threads: int | None = None

    def __post_init__(self) -> None:
        _require(self.backend, get_args(BackendChoice), "backend")
        _require(self.precision, get_args(PrecisionChoice), "precision")

    @classmethod
    def of(cls, device: str, backend: str, precision: str) -> Engine:
        """Return the engine of plain words; raises `InputError` where one is unknown."""
        return cls(device, cast(BackendChoice, backend), cast(PrecisionChoice, precision))

    def for_worker(self, number: int) -> Engine:
        """Return the engine of one of several workers on a machine: with several GPUs, each has one of its own."""
        gpus = torch.cuda.device_count() if self.device == "cuda" else 0
        return replace(self, device=f"cuda:{number % gpus}") if gpus > 1 else self

    def start(self, module: nn.Module, codings: Codings = PROBABILITIES) -> Backend:
        """Return the backend that runs a network; the network is moved to the device. A forest has its own, on
        the processor, whatever was chosen.

        Raises:
            InputError: OpenVINO is asked for and not installed, or not for this device; or backends are to compete
                on answers that are not stored as bytes, in which their tolerance is stated.
        """
        if isinstance(module, Forest):
            return ForestBackend(module, self.threads or torch.get_num_threads())
        if self.backend == "auto" and any(coding.dtype != np.uint8 for coding in codings.values()):
            raise InputError(
                "backend auto compares backends by bytes, and this network's answers are stored as "
                f"{', '.join(sorted({str(c.dtype) for c in codings.values()}))}: name a backend, torch or openvino"
            )
        device = torch.device(self.device)
        threads = torch.get_num_threads()
        if self.threads is not None and device.type == "cpu" and self.threads < threads:
            threads = self.threads
            torch.set_num_threads(threads)  # a container grants fewer cores than torch counts
        if self.backend == "openvino" and device.type != "cpu":
            raise InputError(f"OpenVINO computes on the processor, not on {device}: use --device cpu, or torch")
        module.to(device)
        return Contest(
            [
                OpenVinoBackend(module, precision, threads, codings)
                if backend == "openvino"
                else TorchBackend(module, device, precision, codings)
                for backend, precision in self._candidates(device)
            ]
        )

    def _candidates(self, device: torch.device) -> list[tuple[str, Precision]]:
        """Return what may compute; the first one is the reference."""
        backends = ["torch", "openvino"] if self.backend == "auto" else [self.backend]
        if self.backend == "auto" and device.type != "cpu":
            backends = ["torch"]
        elif self.backend == "auto" and not openvino_backend.available():
            log.warning("OpenVINO is not installed (%s): torch computes", openvino_backend.INSTALL)
            backends = ["torch"]
        if self.precision != "auto":
            return [(backend, self.precision) for backend in backends]
        precisions: list[Precision] = ["32", "bf16"] if native_bf16(device.type) else ["32"]
        return [(backend, precision) for precision in precisions for backend in backends]


def _require(value: str, valid: tuple[str, ...], what: str) -> None:
    if value not in valid:
        hint = did_you_mean(value, valid)
        raise InputError(f"{what} {value!r} is unknown{hint}: use {', '.join(valid[:-1])} or {valid[-1]}")
