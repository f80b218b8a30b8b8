"""Maps of artifacts over sections of 1024 x 1024: patch by patch against fully convolutional.

    python benchmarks/artifacts.py [sections]

Network: the original encoder (flattened skips, 66 M weights) with three layers, and the light one (pooled skips),
both untrained, in eval. Data: sections of `vnc_sstem` (4.6 nm), else noise; 16 by default.

* patch by patch: every patch of the lattice through the network, in batches of 4, 16 and 32; the best counts.
  One section is timed, the others would take as long each.
* fully convolutional: the same lattice, step 32; and step 16, for which there are four times the answers.
* shared: step 35, as the original had it, bit for bit the numbers of single patches.

Probabilities have to agree to 1e-6. `artifacts` is the time per answer of patch by patch (step 32, best batch)
over that of the dense map at step 32, original encoder. `light` is the time per area of the original, patch by
patch at its step of 35, over that of the light encoder's dense map at step 32.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from emloom.nn.patchnet import PatchNet, PatchNetSpec

SIZE = 1024
BATCHES = (4, 16, 32)


def sections(count: int) -> tuple[Tensor, str]:
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    folder = Path(os.environ.get("EMLOOM_DATA", default)) / "vnc_sstem"
    files = sorted(folder.glob("*.h5"))
    if not files:
        raw, what = (
            np.random.default_rng(0).integers(0, 256, (count, SIZE, SIZE), np.uint8),
            "noise (no real data)",
        )
    else:
        with h5py.File(files[0]) as file:
            raw, what = file["volumes/raw"][:count, :SIZE, :SIZE], "vnc_sstem"
    raw = np.resize(raw, (count, SIZE, SIZE))
    return torch.from_numpy(raw.astype(np.float32) / 127.5 - 1), what


def net_of(spec: PatchNetSpec) -> PatchNet:
    torch.manual_seed(0)
    return PatchNet(spec, "artifacts", 1).eval()


def patchwise(net: PatchNet, section: Tensor, step: int, batch: int) -> Tensor:
    patch = net.spec.encoder.patch
    windows = section.unfold(1, patch, step).unfold(2, patch, step)
    rows, columns = windows.shape[1:3]
    patches = windows.flatten(1, 2)[0][:, None, None]
    answers = [net(part)[net.head] for part in patches.split(batch)]
    return torch.cat(answers).reshape(1, 1, rows, columns)


def timed(work: Callable[[], Tensor], times: int = 1) -> tuple[float, Tensor]:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        out = work()
        taken.append(time.perf_counter() - began)
    return min(taken), out


def agreement(a: Tensor, b: Tensor) -> float:
    return float((a.sigmoid() - b.sigmoid()).abs().max())


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    stack, what = sections(count)
    one = stack[:1]
    original, light = net_of(PatchNetSpec.original()), net_of(PatchNetSpec.light(sections=1))
    print(f"{count} sections of {SIZE}^2, {what}; {torch.get_num_threads()} threads\n")
    print(f"{'':<34}{'s per section':>14}{'answers':>9}{'ms each':>9}{'differs':>10}")

    def row(name: str, seconds: float, answer: Tensor, differs: float | None) -> tuple[float, int]:
        answers = answer[0, 0].numel()
        text = "" if differs is None else f"{differs:.1e}"
        print(f"{name:<34}{seconds:>14.2f}{answers:>9}{1e3 * seconds / answers:>9.2f}{text:>10}", flush=True)
        if differs is not None and differs > 1e-6:
            sys.exit(f"{name} differs from single patches by {differs}")
        return seconds, answers

    with torch.inference_mode():
        original.dense(one[:, :300, :300], 32)  # warm up
        best: dict[int, tuple[float, Tensor]] = {}
        for step in (32, 35):
            tried = {batch: timed(lambda s=step, b=batch: patchwise(original, one, s, b)) for batch in BATCHES}
            batch = min(tried, key=lambda b: tried[b][0])
            best[step] = tried[batch]
            row(f"original, patch by patch, step {step}", *tried[batch], None)
        # As many sections as asked for, one after the other, as prediction does.
        dense = {}
        slowly = {(original, step): answer for step, (_, answer) in best.items()}
        for name, net, step in (
            ("original, dense, step 32", original, 32),
            ("original, dense, step 16", original, 16),
            ("original, shared, step 35", original, 35),
            ("light, dense, step 32", light, 32),
            ("light, dense, step 16", light, 16),
        ):
            used = stack if "dense, step 32" in name else one
            taken = [timed(lambda n=net, z=z, s=step, u=used: n.dense(u[z : z + 1], s)) for z in range(len(used))]
            seconds = float(np.median([seconds for seconds, _ in taken]))
            if (net, step) not in slowly:  # of step 32, each patch is also one of step 16
                slowly[net, step] = patchwise(net, one, 32, 32) if step != 16 else slowly[net, 32]
            every = slice(None, None, 2 if step == 16 else 1)
            differs = agreement(taken[0][1][..., every, every], slowly[net, step])
            dense[name] = row(name, seconds, taken[0][1], differs)
    per_answer = (
        best[32][0]
        / best[32][1].numel()
        / (dense["original, dense, step 32"][0] / dense["original, dense, step 32"][1])
    )
    area35 = ((SIZE - 140) // 35 * 35 + 35) ** 2
    area32 = ((SIZE - 140) // 32 * 32 + 32) ** 2
    per_area = (best[35][0] / area35) / (dense["light, dense, step 32"][0] / area32)
    print(f"\nlight encoder, per area: {per_area:.1f} times the original patch by patch at step 35")
    print(f"RATIO light {per_area:.2f}")
    print(f"RATIO artifacts {per_answer:.2f}")


if __name__ == "__main__":
    main()
