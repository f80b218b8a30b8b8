"""One level of a pyramid in memory: emloom's kernels against plain NumPy.

    python benchmarks/pyramid.py

256^3 voxels, factors 2,2,2 and 1,2,2. An image (uint8): NumPy reshapes into windows, sums in uint32 and rounds
half up. Labels (uint64; the real segmentation `labels_pinky40`, else a mosaic): NumPy counts, for each voxel of a
window, how many of the window equal it, and takes the most frequent, the smallest of a tie; that is the mode as
xarray-multiscale does it, without its fallback to Python loops. Results must be equal. One thread each (emloom's
task runs several cells at once); medians of 5.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from emloom.ops.downsample import downsample_majority, downsample_mean

Array = NDArray[Any]
SIDE = 256
ROUNDS = 5


def image() -> Array:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, SIDE), dtype=np.uint8)


def labels() -> tuple[Array, str]:
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    path = Path(os.environ.get("EMLOOM_DATA", default)) / "labels_pinky40" / "labels_256.h5"
    if path.is_file():
        with h5py.File(path) as file:
            return file["labels"][:].astype(np.uint64), "labels_pinky40"
    coarse = np.random.default_rng(1).choice(2**40, (SIDE // 16,) * 3).astype(np.uint64)
    mosaic = coarse.repeat(16, 0).repeat(16, 1).repeat(16, 2)
    return np.roll(mosaic, (1, 3, 5), (0, 1, 2)), "synthetic mosaic (real labels not found)"


def windows(array: Array, factors: tuple[int, int, int]) -> Array:
    """Return [Z', Y', X', fz, fy, fx]."""
    pairs = [part for n, f in zip(array.shape, factors, strict=True) for part in (n // f, f)]
    return array.reshape(pairs).transpose(0, 2, 4, 1, 3, 5)


def numpy_mean(array: Array, factors: tuple[int, int, int]) -> Array:
    n = int(np.prod(factors))
    total = windows(array, factors).sum(axis=(3, 4, 5), dtype=np.uint32)
    return ((total + n // 2) // n).astype(array.dtype)


def numpy_mode(array: Array, factors: tuple[int, int, int]) -> Array:
    parts = [array[z :: factors[0], y :: factors[1], x :: factors[2]] for z, y, x in np.ndindex(factors)]
    best, most = parts[0].copy(), np.zeros(parts[0].shape, np.uint8)
    for part in parts:
        count = np.zeros(part.shape, np.uint8)
        for other in parts:
            count += part == other
        better = (count > most) | ((count == most) & (part < best))
        best[better], most[better] = part[better], count[better]
    return best


def timed(call: Callable[[], Array]) -> tuple[float, Array]:
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main() -> None:
    ids, source = labels()
    print(f"{SIDE}^3 voxels; labels: {source}; seconds, medians of {ROUNDS}")
    print(f"{'':<24}{'emloom':>10}{'NumPy':>10}{'faster':>9}")
    jobs = [
        ("uint8 mean", image(), downsample_mean, numpy_mean),
        ("uint64 mode", ids, downsample_majority, numpy_mode),
    ]
    ratios = []
    for name, array, ours, theirs in jobs:
        for factors in ((2, 2, 2), (1, 2, 2)):
            ours(array[:4, :4, :4], factors)  # compiles
            seconds: dict[str, list[float]] = {"emloom": [], "NumPy": []}
            for _ in range(ROUNDS):
                took, got = timed(lambda a=array, f=factors, kernel=ours: kernel(a, f))
                seconds["emloom"].append(took)
                took, expected = timed(lambda a=array, f=factors, kernel=theirs: kernel(a, f))
                seconds["NumPy"].append(took)
                assert np.array_equal(got, expected)
            a, b = median(seconds["emloom"]), median(seconds["NumPy"])
            ratios.append(b / a)
            words = f"{name} {','.join(map(str, factors))}"
            print(f"{words:<24}{a:>10.4f}{b:>10.4f}{b / a:>8.1f}x")
    print(f"RATIO pyramid {exp(sum(map(log, ratios)) / len(ratios)):.1f}")


if __name__ == "__main__":
    main()
