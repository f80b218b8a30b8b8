"""Where a model trains and predicts: not part of a spec, which is about the science.

One setting follows the hardware where the user leaves it open, the precision of training; the checkpoint records
what it became.

Brain floats (bf16) halve the bytes of every product. They pay only where the processor multiplies them natively;
elsewhere they are emulated, many times slower than float32.

Where they must not be used: on processors with AMX, the backward pass of a bf16 convolution with at most 16 maps
on both sides (and a kernel of more than one voxel) writes beyond its memory, and the process dies sooner or later
(seen with torch 2.13, oneDNN's kernels; not with ``ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16``). There, such a network
trains in float32.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from emloom.errors import InputError

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86 (two) and Arm
_AMX = "amx_bf16"
_PROCESSOR = Path("/proc/cpuinfo")
_NARROW = 16  # maps; see the module
_WITHOUT_AMX = "AVX512_CORE_BF16"


@dataclass(frozen=True)
class Hardware:
    """Device and processes of a run."""

    accelerator: str = "auto"
    devices: int = 1
    workers: int = 1
    """Loader processes; 0 loads in the training process."""

    @property
    def torch_device(self) -> str:
        """The torch device meant: `cuda` where asked for or available, else `cpu`."""
        if self.accelerator == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return {"gpu": "cuda"}.get(self.accelerator, self.accelerator)

    def precision(self, asked: Precision | Literal["auto"], network: nn.Module) -> Precision:
        """Return the precision to train a network in: `auto` is bf16 where the device multiplies it natively.

        Raises:
            InputError: bf16 is asked for where training this network in it would damage memory; see the module.
        """
        deadly = self.torch_device == "cpu" and _processor_has_amx() and is_narrow(network)
        if asked == "bf16-mixed" and deadly:
            raise InputError(
                f"precision bf16-mixed: a convolution of this network has at most {_NARROW} maps on both sides, "
                "whose training in bf16 damages memory on processors with AMX: use precision 32-true (or auto), "
                f"wider levels, or set ONEDNN_MAX_CPU_ISA={_WITHOUT_AMX} in the environment"
            )
        if asked != "auto":
            return asked
        return "bf16-mixed" if native_bf16(self.torch_device) and not deadly else "32-true"


def is_narrow(network: nn.Module) -> bool:
    """Whether a convolution has at most 16 maps on both sides, and a kernel of more than one voxel."""
    convolutions = (part for part in network.modules() if isinstance(part, nn.Conv3d))
    return any(
        max(each.in_channels, each.out_channels) <= _NARROW and prod(each.kernel_size) > 1 for each in convolutions
    )


def native_bf16(device: str) -> bool:
    """Whether a torch device multiplies brain floats in hardware (of processors, known on Linux only)."""
    if device.startswith("cuda"):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and _processor_has_bf16()


def _processor_has_bf16() -> bool:
    return not _BF16_FLAGS.isdisjoint(_flags())


def _processor_has_amx() -> bool:
    """Whether bf16 is multiplied by AMX here: the processor has it, and oneDNN was not told to leave it."""
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
    return _AMX in _flags() and (limit in ("", "ALL", "DEFAULT") or "AMX" in limit)


@cache
def _flags() -> frozenset[str]:
    try:
        text = _PROCESSOR.read_text()
    except OSError:
        return frozenset()
    lines = (line.partition(":") for line in text.splitlines())
    return frozenset(
        next((value for name, _, value in lines if name.strip().lower() in ("flags", "features")), "").split()
    )
