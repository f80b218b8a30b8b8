"""Mean field of a fully connected CRF: emloom against pydensecrf2, speed and error.

    make peers
    python benchmarks/crf.py

Speed: 128^3 voxels of a textured grey volume, 7 classes, a spatial kernel of 3 voxels and a bilateral one of 10
voxels and 20 grey levels (and a second pair, 1 and 3 voxels, 10 grey levels), Potts penalties. Seconds of one
iteration, building lattices and grids not counted; medians of interleaved rounds. pydensecrf2 has one thread. The
ratio at the end is of wall time with emloom on two cores, as either is used on such a machine; above it stands
that of CPU seconds on one thread each. emloom's iteration includes the free energy, theirs does not.

Error: one update of a small volume from independent random probabilities, the hard case, against all pairs of
voxels in float64: what the update changed in log Q, centred over the classes, mean error relative to its mean.
pydensecrf2's kernels include the voxel itself, emloom's do not; each is compared with its own definition.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peers import Peer
from scipy.ndimage import gaussian_filter

from emloom.ops.crf import Field, mean_field
from emloom.ops.pairsums import Kernel

F64 = NDArray[np.float64]
SIDE, SMALL, CLASSES = 128, 18, 7
ROUNDS, ITERATIONS, OUR_ITERATIONS = 3, 2, 6
PAIRS = {
    "spatial 3, bilateral 10 and 20 grey": (Kernel((3, 3, 3)), Kernel((10, 10, 10), 1, 20)),
    "spatial 1, bilateral 3 and 10 grey": (Kernel((1, 1, 1)), Kernel((3, 3, 3), 1, 10)),
}
POTTS = tuple(tuple(float(i != j) for j in range(CLASSES)) for i in range(CLASSES))


def texture(side: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng(0)
    raw = gaussian_filter(rng.random((side,) * 3), 2)
    raw = (raw - raw.min()) / np.ptp(raw) * 200 + rng.normal(0, 8, raw.shape)
    return raw.clip(0, 255).astype(np.uint8)


def guesses(side: int) -> NDArray[np.float32]:
    drawn = np.random.default_rng(1).dirichlet(np.ones(CLASSES), (side,) * 3)
    return np.ascontiguousarray(np.moveaxis(drawn, -1, 0), np.float32)


def plain(kernels: tuple[Kernel, ...]) -> list[dict[str, Any]]:
    return [{"sigma": k.sigma_vox[0], "sigma_intensity": k.sigma_intensity, "weight": k.weight} for k in kernels]


def ours(
    shares: NDArray[np.float32], raw: NDArray[np.uint8], kernels: tuple[Kernel, ...], n: int, threads: int = 1
) -> tuple[float, float]:
    """Return CPU and wall seconds of one iteration: those of 1 + n less those of 1."""
    cpu, wall = [], []
    for count in (1, 1 + n):
        began = time.process_time(), time.perf_counter()
        mean_field(shares, raw, Field(kernels, POTTS, iterations=count, damping=0, tolerance=0), threads=threads)
        cpu.append(time.process_time() - began[0])
        wall.append(time.perf_counter() - began[1])
    return (cpu[1] - cpu[0]) / n, (wall[1] - wall[0]) / n


def message(shares: NDArray[np.float32], raw: NDArray[np.uint8], kernels: tuple[Kernel, ...], own: bool) -> F64:
    """Return what all pairs say, centred over the classes, [classes, voxels]; with the voxel itself if `own`."""
    at = np.stack(np.meshgrid(*map(np.arange, raw.shape), indexing="ij"), -1).reshape(-1, 3)
    q, total = shares.reshape(CLASSES, -1).astype(np.float64), 0.0
    for kernel in kernels:
        places = at / np.array(kernel.sigma_vox)
        square = (places**2).sum(-1)
        apart = square[:, None] + square - 2 * places @ places.T
        if kernel.sigma_intensity is not None:
            grey = raw.reshape(-1) / kernel.sigma_intensity
            apart += (grey[:, None] - grey) ** 2
        k = np.exp(-0.5 * apart)
        root = 1 / np.sqrt(k.sum(1))
        if not own:
            np.fill_diagonal(k, 0)
        total = total + kernel.weight * (root * ((q * root) @ k))
    return total - total.mean(0)


def said(before: NDArray[np.float32], after: NDArray[np.float32]) -> F64:
    """Return the message of an undamped Potts update, centred: log Q after less log Q before."""
    change = np.log(after.astype(np.float64)) - np.log(before.astype(np.float64))
    change = change.reshape(CLASSES, -1)
    return change - change.mean(0)


def errors(kernels: tuple[Kernel, ...]) -> tuple[float, float]:
    """Return the relative mean error of (emloom, pydensecrf2)."""
    raw, shares = texture(SMALL), np.maximum(guesses(SMALL), 1e-3)
    shares /= shares.sum(0)
    field = Field(kernels, POTTS, iterations=1, damping=0, tolerance=0)
    found = said(shares, mean_field(shares, raw, field).probabilities)
    with Peer(
        "densecrf_meanfield.py", {"shares": shares, "raw": raw}, home="", kernels=plain(kernels), iterations=1
    ) as p:
        p.seconds()
        theirs = said(shares, p.results()["q"])
    out = []
    for answer, own in ((found, False), (theirs, True)):
        true = message(shares, raw, kernels, own)
        out.append(float(np.abs(answer - true).mean() / np.abs(true).mean()))
    return out[0], out[1]


def main() -> None:
    raw, shares = texture(SIDE), guesses(SIDE)
    alone, ratios = [], []
    for name, kernels in PAIRS.items():
        ours(shares[:, :8].copy(), raw[:8], kernels, 1)  # compiles
        mine, both, theirs = [], [], []
        with Peer("densecrf_meanfield.py", {"shares": shares, "raw": raw}, home="", kernels=plain(kernels),
                  iterations=ITERATIONS) as peer:  # fmt: skip
            for _ in range(ROUNDS):
                theirs.append(peer.seconds() / ITERATIONS)
                mine.append(ours(shares, raw, kernels, OUR_ITERATIONS)[0])
                both.append(ours(shares, raw, kernels, OUR_ITERATIONS, threads=2)[1])
        alone.append(median(theirs) / median(mine))
        ratios.append(median(theirs) / median(both))
        found = errors(kernels)
        print(f"{name}: one iteration emloom {median(mine):.3f} s, pydensecrf2 {median(theirs):.3f} s CPU", end="")
        print(f", ratio {alone[-1]:.2f}; emloom on two threads {median(both):.3f} s wall, ratio {ratios[-1]:.2f}")
        print(
            f"  error against all pairs: emloom {100 * found[0]:.1f} %, pydensecrf2 {100 * found[1]:.1f} %",
            flush=True,
        )
        if not found[0] < found[1]:
            sys.exit("emloom's error is not the lower one")
    print(f"one thread each, CPU: {float(np.exp(np.mean(np.log(alone)))):.3g}")
    print(f"RATIO crf {float(np.exp(np.mean(np.log(ratios)))):.3g}")


if __name__ == "__main__":
    main()
