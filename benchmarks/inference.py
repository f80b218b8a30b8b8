"""Prediction on a processor: every backend against torch in float32, run eagerly.

A lean U-Net learns FIB-25 (or a phantom, where that is absent) for a short while, because a random net says "don't
know" everywhere and hides what rounding does. Then each backend answers whole tiles of raw: normalised float32 in,
stored uint8 out. Nothing is timed before its answers are within the stated tolerance of torch in float32. Rounds
are interleaved, the machine may be shared; medians of wall time, and CPU time beside it.

The baseline of the ratio is emloom's own eager torch, which computes only what the tile's answer needs; calling
the module plainly, and cutting the tile out of its answer, is shown as well.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.io.open import open_volume
from emloom.io.volume import read_padded
from emloom.nn.backends import Backend, Stored, TorchBackend, evaluating
from emloom.nn.coding import Probability
from emloom.nn.contest import close_enough, difference
from emloom.nn.hardware import Hardware, native_bf16
from emloom.nn.heads import MultiHead
from emloom.nn.model import load
from emloom.nn.openvino_backend import OpenVinoBackend
from emloom.nn.reshape import crop
from emloom.recipes import fib25, phantom
from emloom.tasks.job import NeuronsJob
from emloom.tasks.neurons import run
from emloom.testing.phantom import write_phantom

STEPS = 100
TILE: Vec = (64, 128, 128)
THREADS = 2
ROUNDS = 5


class Plain:
    """What one writes without reading on: the whole module, the middle of its answer."""

    name = "torch 32, plain module call"

    def __init__(self, module: MultiHead) -> None:
        self.module = module

    def __call__(self, x: Tensor) -> dict[str, Stored]:
        with evaluating(self.module), torch.inference_mode():
            logits = self.module(x)
            return {
                name: Probability()(crop(v, self.module.context)[0].clone(), name) for name, v in logits.items()
            }


def learned(folder: Path) -> tuple[NeuronsJob, Path]:
    """Return a job and its checkpoint after a short training."""
    try:
        job = fib25.quick(steps=STEPS)
    except InputError:
        tissue = folder / "phantom"
        tissue.mkdir()
        write_phantom(phantom.PHANTOM, tissue)
        job = phantom.demo(str(tissue), steps=STEPS)
    run(job, folder / "run", Hardware("cpu", workers=0), until="train")
    return job, folder / "run" / "train" / "model.safetensors"


def timed(backend: Callable[[Tensor], object], x: Tensor) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    backend(x)
    return time.perf_counter() - wall, time.process_time() - cpu


def runners(module: nn.Module) -> list[Backend]:
    """Return the backends, the baseline first."""
    assert isinstance(module, MultiHead)
    cpu = torch.device("cpu")
    found: list[Backend] = [TorchBackend(module, cpu, "32"), Plain(module), OpenVinoBackend(module, "32", THREADS)]
    if native_bf16("cpu"):
        found += [TorchBackend(module, cpu, "bf16"), OpenVinoBackend(module, "bf16", THREADS)]
    return found


def main() -> None:
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        job, checkpoint = learned(Path(folder))
        spec, module, _ = load(checkpoint)
        raw = open_volume(job.data[0].raw)
        seen = Box((0, 0, 0), TILE).grow(module.context)
        x = torch.from_numpy(spec.preprocessing(read_padded(raw, seen)))[None, None]
    print(f"{job.name}, {STEPS} steps; tile {TILE}, seen {seen.shape}; {THREADS} threads, medians of {ROUNDS}")
    backends = runners(module)
    reference = backends[0](x)
    differences = {}
    for backend in backends:
        differences[backend.name] = worst, mean = difference(backend(x), reference)
        if not close_enough(backend.name, worst, mean):
            sys.exit(f"{backend.name} differs by {worst} of 255, on average {mean:.3f}: not timed")
    times: dict[str, list[tuple[float, float]]] = {backend.name: [] for backend in backends}
    for _ in range(ROUNDS):
        for backend in backends:
            times[backend.name].append(timed(backend, x))
    medians = {name: [median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()}
    base = medians[backends[0].name][0]
    megavoxels = TILE[0] * TILE[1] * TILE[2] / 1e6
    header = f"{'backend':30s} {'s/tile':>7s} {'Mvx/s':>6s} {'CPU s':>6s} {'times faster':>12s}"
    print(f"{header}   largest, mean difference")
    for name, (wall, cpu) in medians.items():
        worst, mean = differences[name]
        speed = f"{name:30s} {wall:7.2f} {megavoxels / wall:6.2f} {cpu:6.2f} {base / wall:12.2f}"
        print(f"{speed}   {worst} of 255, {mean:.4f}")
    print(f"RATIO inference {base / min(wall for wall, _ in medians.values()):.2f}")


if __name__ == "__main__":
    main()
