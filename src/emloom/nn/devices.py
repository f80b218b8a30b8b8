"""What torch sees of this machine: its build, GPUs and threads. Facts only; `tasks.doctor` judges them."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from emloom.nn.hardware import native_bf16

DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Gpu:
    """One CUDA device: its name and memory in bytes (free: None where it would not say)."""

    name: str
    memory: int
    free: int | None


@dataclass(frozen=True)
class Devices:
    """What torch can compute on.

    Attributes:
        torch: version of torch.
        cuda_build: CUDA version torch was built for, None for a CPU build.
        driver: version of the NVIDIA driver that is loaded, None where none is (known on Linux only).
        gpus: usable CUDA devices.
        why_not: what torch said when it refused to use CUDA; empty where it said nothing.
        threads: threads torch uses on the processor.
        bf16: whether the device emloom would choose multiplies brain floats in hardware.
    """

    torch: str
    cuda_build: str | None
    driver: str | None
    gpus: tuple[Gpu, ...]
    why_not: str
    threads: int
    bf16: bool


def devices() -> Devices:
    """Return what torch sees."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    gpus = tuple(_gpu(index) for index in range(torch.cuda.device_count())) if usable else ()
    return Devices(
        torch=torch.__version__,
        cuda_build=torch.version.cuda,
        driver=driver_version(),
        gpus=gpus,
        why_not=" ".join(str(warning.message) for warning in said),
        threads=torch.get_num_threads(),
        bf16=native_bf16("cuda" if gpus else "cpu"),
    )


def driver_version(path: Path = DRIVER) -> str | None:
    """Return the version of the NVIDIA driver that is loaded, None where there is none."""
    try:
        found = re.search(r"\b(\d{3}\.[\d.]+)\b", path.read_text())
    except OSError:
        return None
    return found.group(1) if found else None


def _gpu(index: int) -> Gpu:
    try:
        free: int | None = torch.cuda.mem_get_info(index)[0]
    except RuntimeError:  # a full or exclusive device refuses even the question
        free = None
    return Gpu(torch.cuda.get_device_name(index), torch.cuda.get_device_properties(index).total_memory, free)
