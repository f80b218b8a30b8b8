"""Where a model trains and predicts: not part of a spec, which is about the science.

One setting follows the hardware where the user leaves it open, the precision of training; the checkpoint records
what it became.

Brain floats (bf16) halve the bytes of every product. They pay only where the processor multiplies them natively;
elsewhere they are emulated, many times slower than float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import torch

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86 (two) and Arm
_PROCESSOR = Path("/proc/cpuinfo")


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

    def precision(self, asked: Precision | Literal["auto"]) -> Precision:
        """Return the precision to train in: `auto` is bf16 where the device multiplies it natively."""
        if asked != "auto":
            return asked
        return "bf16-mixed" if native_bf16(self.torch_device) else "32-true"


def native_bf16(device: str) -> bool:
    """Whether a torch device multiplies brain floats in hardware (of processors, known on Linux only)."""
    if device.startswith("cuda"):
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and _processor_has_bf16()


@cache
def _processor_has_bf16() -> bool:
    try:
        text = _PROCESSOR.read_text()
    except OSError:
        return False
    lines = (line.partition(":") for line in text.splitlines())
    flags = next((value for name, _, value in lines if name.strip().lower() in ("flags", "features")), "")
    return not _BF16_FLAGS.isdisjoint(flags.split())
