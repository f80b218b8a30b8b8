"""Region graph, mean-linkage agglomeration and segmentations at five thresholds: emloom against waterz.

    python benchmarks/agglomerate.py

Affinities: smoothed raw of the real `fib25` (15.6 Mvoxel; dark membranes, so intensity stands for affinity), else
smoothed noise of the same size. Fragments: emloom's seeded watershed, in 3D (few, large) and per section (many,
small). Both get the same fragments and affinities; waterz's float32 copy of them and its dense renumbering of the
fragments are made for it and not timed, numba is warmed up. One thread, CPU seconds, interleaved, medians of 3.
The partitions should agree one to one; where they do not, the voxels outside the best match are counted: waterz
leaves the order of equal scores open and rounds its running means to float32; emloom's tree is the exact one (the
tests compare it with a reference in rational numbers).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import fastremap
import h5py
import numpy as np
import waterz
from numpy.typing import NDArray
from peers import silence
from scipy import ndimage

from emloom.ops.agglomerate import agglomerate
from emloom.ops.fragments import Seeding, seeded_fragments
from emloom.ops.labels import apply_lut
from emloom.ops.regions import region_graph

NEIGHBORHOOD = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
THRESHOLDS = [0.9001, 0.8001, 0.7001, 0.6001, 0.5001]
ROUNDS = 3
Labels = NDArray[np.uint64]


def volume() -> tuple[NDArray[np.float32], str]:
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    path = Path(os.environ.get("EMLOOM_DATA", default)) / "fib25" / "trvol2_250.h5"
    if path.is_file():
        with h5py.File(path) as file:
            return ndimage.gaussian_filter(file["volumes/raw"][:].astype(np.float32), 1.0), "fib25"
    noise = np.random.default_rng(0).random((250, 250, 250), dtype=np.float32)
    return ndimage.gaussian_filter(noise, 4.0), "smoothed noise (real data not found)"


def affinities_of(smooth: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return uint8 [3, Z, Y, X]: the darker voxel of each pair, from dark membrane (0) to cytoplasm (255)."""
    low, high = np.percentile(smooth, (10, 75))
    inside = np.clip((smooth - low) / (high - low), 0, 1)
    pairs = [np.minimum(inside, np.roll(inside, 1, axis)) for axis in range(3)]
    return np.rint(255 * np.stack(pairs)).astype(np.uint8)


def ours(fragments: Labels, affinities: NDArray[np.uint8]) -> Iterator[Labels]:
    # Like waterz, overwrites `fragments` and yields that same array every time.
    tree = agglomerate(region_graph(fragments, affinities, NEIGHBORHOOD), threshold=min(THRESHOLDS))
    for threshold in THRESHOLDS:
        # A segment's id is one of its fragments' ids, so the table of a lower threshold maps segments too.
        yield apply_lut(fragments, *tree.table(threshold), out=fragments)


def theirs(fragments: Labels, affinities: NDArray[np.float32]) -> Iterator[Labels]:
    # waterz overwrites `fragments` and yields that same array every time; scores are 1 - mean.
    yield from waterz.agglomerate(affinities, [1 - t for t in THRESHOLDS], fragments=fragments)


def seconds(run: Callable[[], Iterator[Labels]]) -> float:
    start = time.process_time()
    for _ in run():
        pass
    return time.process_time() - start


def outside_best_match(a: Labels, b: Labels) -> tuple[int, int]:
    """Return (voxels outside the one-to-one best match of two partitions, segments of the first)."""
    pairs = np.stack([fastremap.renumber(a)[0].ravel(), fastremap.renumber(b)[0].ravel()]).astype(np.uint64)
    joint, counts = np.unique(pairs[0] << np.uint64(32) | pairs[1], return_counts=True)
    left, right = joint >> np.uint64(32), joint & np.uint64(2**32 - 1)
    order = np.argsort(-counts, kind="stable")
    first_left = np.unique(left[order], return_index=True)[1]
    first_right = np.unique(right[order], return_index=True)[1]
    matched = np.intersect1d(first_left, first_right)
    return int(counts.sum() - counts[order][matched].sum()), len(first_left)


def compare(name: str, fragments: Labels, affinities: NDArray[np.uint8]) -> tuple[float, float]:
    as_float = affinities.astype(np.float32) / np.float32(255)
    dense = fastremap.renumber(fragments)[0].astype(np.uint64)
    with silence():
        other = [segmentation.copy() for segmentation in theirs(dense.copy(), as_float)]
    misses = [outside_best_match(a, b) for a, b in zip(ours(fragments.copy(), affinities), other, strict=True)]
    del other
    times: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        copy = fragments.copy()
        mine = seconds(lambda copy=copy: ours(copy, affinities))
        copy = dense.copy()
        with silence():
            waterz_s = seconds(lambda copy=copy: theirs(copy, as_float))
        times.append((mine, waterz_s))
    mine, waterz_s = (median(column) for column in zip(*times, strict=True))
    print(f"{name}: {len(fastremap.unique(fragments))} fragments, {fragments.size / 1e6:.1f} Mvoxel")
    for threshold, (voxels, segments) in zip(THRESHOLDS, misses, strict=True):
        same = "same partition" if voxels == 0 else f"{voxels} voxels differ ({voxels / fragments.size:.2e})"
        print(f"  threshold {threshold}: {segments:6d} segments, {same}")
    print(f"  emloom {mine:.2f} s, waterz {waterz_s:.2f} s, {waterz_s / mine:.1f} times faster")
    return mine, waterz_s


def main() -> None:
    smooth, source = volume()
    affinities = affinities_of(smooth)
    print(f"affinities of {source}; mean linkage, {len(THRESHOLDS)} thresholds; CPU seconds, medians of {ROUNDS}")
    crop = np.ascontiguousarray(affinities[:, :20, :40, :40])
    list(ours(seeded_fragments(crop, NEIGHBORHOOD, (10, 10, 10)), crop))  # compile
    totals = [
        compare(name, seeded_fragments(affinities, NEIGHBORHOOD, (10, 10, 10), seeding), affinities)
        for name, seeding in (("3D fragments", Seeding()), ("fragments per section", Seeding(per_section=True)))
    ]
    mine, waterz_s = (sum(column) for column in zip(*totals, strict=True))
    print(f"RATIO agglomerate {waterz_s / mine:.2f}")


if __name__ == "__main__":
    main()
