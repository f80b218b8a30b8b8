"""Affinities to segments in memory, on one core: emloom against scikit-image + waterz, and against mwatershed.

    python benchmarks/segment.py [sections] [rounds]

Affinities: blurred and noisy ones of a phantom (`inputs`), uint8, 512 x 512 voxels in 128 sections. Everyone goes
from there to one segmentation:

* **emloom**: `tasks.segment.grow_tree` (fragments, region graph, merge tree) and `.at(threshold)`, with seeded
  fragments, and with ascent fragments, the default;
* **scikit-image + waterz**: the recipe of funkelab's lsd (mean affinity > 0.5, Euclidean distance, seeds at
  maxima in a window of 10, flooding), then mean linkage with exact queue. waterz's float32 copy is not timed;
* **mwatershed**: the mutex watershed with long-range affinities of 8 voxels at stride 3, on a crop; its float64
  copy is not timed.

Before a time counts: on the *same* fragments, those of scikit-image, emloom's segmentation and waterz's must be
the same partition: variation of information below 1e-6 bits.
Distances to the phantom's truth are shown, so that nobody is fast by being wrong. One thread, CPU seconds,
interleaved, best of the rounds; numba is warmed up. The ratio is that of seeded fragments.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import sys
import time
from collections.abc import Callable
from typing import Any

import mwatershed
import numpy as np
import waterz
from inputs import blurred_affinities, phantom_labels
from numpy.typing import NDArray
from peers import silence
from scipy import ndimage
from skimage.segmentation import watershed

from emloom.geometry import Grid
from emloom.metrics.contingency import contingency
from emloom.metrics.overlap import OverlapScores, overlap_scores
from emloom.ops.agglomerate import agglomerate
from emloom.ops.labels import apply_lut
from emloom.ops.regions import region_graph
from emloom.tasks.segment import grow_tree
from emloom.tasks.segmentspec import AscentSpec, FragmentSpec, SeededSpec, SegmentSpec

SECTIONS = int(sys.argv[1]) if len(sys.argv) > 1 else 128
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 2
SIDE = 512
NEAR = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
FAR = ((-8, 0, 0), (0, -8, 0), (0, 0, -8))
STRIDES = [[1, 1, 1]] * 3 + [[3, 3, 3]] * 3
CROP = (slice(0, 64), slice(0, 256), slice(0, 256))
GRID = Grid((8.0, 8.0, 8.0))
THRESHOLD = 0.5
SAME_BITS = 1e-6
Ids = NDArray[np.uint64]


def ours(affinities: NDArray[np.uint8], kind: FragmentSpec) -> tuple[Ids, int]:
    spec = SegmentSpec(fragments=kind, thresholds=(THRESHOLD,))
    grown = grow_tree(affinities, NEAR, GRID, spec)
    return grown.at(THRESHOLD), len(grown.ids)


def recipe(affinities: NDArray[np.uint8]) -> Ids:
    inside = affinities.mean(axis=0, dtype=np.float32) > 0.5 * 255
    distance = ndimage.distance_transform_edt(inside)
    seeds, _ = ndimage.label(ndimage.maximum_filter(distance, 10) == distance)
    fragments: Ids = watershed(distance.max() - distance, seeds).astype(np.uint64)
    return fragments


def merged_by_waterz(fragments: Ids, affinities: NDArray[np.float32]) -> Ids:
    """Return waterz's segmentation, in place of the fragments; its scores are 1 - mean."""
    with silence():
        (segmentation,) = waterz.agglomerate(affinities, [1 - THRESHOLD], fragments=fragments)
    return segmentation  # type: ignore[no-any-return]


def merged_by_us(fragments: Ids, affinities: NDArray[np.uint8]) -> Ids:
    tree = agglomerate(region_graph(fragments, affinities, NEAR), threshold=THRESHOLD)
    return apply_lut(fragments, *tree.table(THRESHOLD))


def mutex_watershed(affinities: NDArray[np.float64]) -> Ids:
    """Near pairs attract, far ones repel: what is above the bias joins, what is below parts."""
    return mwatershed.agglom(affinities, [*NEAR, *FAR], strides=STRIDES)  # type: ignore[no-any-return]


class Clock:
    """Best CPU seconds of each contestant."""

    def __init__(self) -> None:
        self.best: dict[str, float] = {}

    def __call__(self, name: str, action: Callable[[], Any]) -> Any:
        start = time.process_time()
        found = action()
        seconds = time.process_time() - start
        self.best[name] = min(seconds, self.best.get(name, seconds))
        return found


def to_truth(truth: Ids, segmentation: Ids) -> OverlapScores:
    return overlap_scores(contingency(truth, segmentation))


def require_same(fragments: Ids, affinities: NDArray[np.uint8], theirs: Ids) -> float:
    apart = to_truth(theirs, merged_by_us(fragments, affinities)).voi_sum
    if apart > SAME_BITS:
        raise SystemExit(f"waterz and emloom merge the same fragments otherwise: {apart:.2e} bits apart")
    return apart


def main() -> None:
    truth = phantom_labels((SECTIONS, SIDE, SIDE))
    affinities = blurred_affinities(truth, NEAR)
    as_float = affinities.astype(np.float32) / np.float32(255)
    crop = np.ascontiguousarray(blurred_affinities(truth[CROP], [*NEAR, *FAR]))
    signed = crop.astype(np.float64) / 255 - np.array([0.2] * 3 + [0.8] * 3)[:, None, None, None]
    kinds: tuple[FragmentSpec, ...] = (SeededSpec(), AscentSpec())
    for kind in kinds:  # compile
        ours(np.ascontiguousarray(affinities[:, :16, :32, :32]), kind)
    clock, rows = Clock(), {}
    for round_ in range(ROUNDS):
        for kind in kinds:
            segmentation, count = clock(kind.kind, lambda kind=kind: ours(affinities, kind))
            if not round_:
                rows[f"emloom, {kind.kind} fragments"] = (kind.kind, count, to_truth(truth, segmentation))
        fragments = clock("recipe", lambda: recipe(affinities))
        kept = fragments.copy()
        segmentation = clock("waterz", lambda fragments=fragments: merged_by_waterz(fragments, as_float))
        if not round_:
            apart = require_same(kept, affinities, segmentation)
            rows["scikit-image + waterz"] = ("peers", len(np.unique(kept)), to_truth(truth, segmentation))
        found = clock("mwatershed", lambda: mutex_watershed(signed))
        if not round_:
            rows["mwatershed (crop)"] = ("mwatershed", 0, to_truth(truth[CROP], found.astype(np.uint64)))
    clock.best["peers"] = clock.best["recipe"] + clock.best["waterz"]
    report(truth, clock.best, rows, apart)


def report(
    truth: Ids, best: dict[str, float], rows: dict[str, tuple[str, int, OverlapScores]], apart: float
) -> None:
    n_objects = len(np.unique(truth))
    print(f"{truth.shape}, {truth.size / 1e6:.1f} Mvoxel, {n_objects} neurites; threshold {THRESHOLD}")
    print(f"CPU seconds on one core, best of {ROUNDS}; on the same fragments {apart:.1e} bits from waterz")
    print(f"{'':26}{'fragments':>10}{'split':>8}{'merge':>8}{'seconds':>9}{'Mvoxel/s':>10}{'slower':>8}")
    ours_rate = truth.size / best["seeded"]
    for name, (key, fragments, scores) in rows.items():
        voxels = truth[CROP].size if key == "mwatershed" else truth.size
        rate = voxels / best[key]
        print(
            f"{name:26}{fragments or '-':>10}{scores.voi_split:8.3f}{scores.voi_merge:8.3f}"
            f"{best[key]:9.2f}{rate / 1e6:10.2f}{ours_rate / rate:7.2f}x"
        )
    print(f"of the peers: recipe {best['recipe']:.2f} s, waterz {best['waterz']:.2f} s")
    crop_rate = truth[CROP].size / best["mwatershed"]
    print(f"seconds of mwatershed / ours per voxel: {ours_rate / crop_rate:.1f}")
    print(f"with ascent fragments: {best['peers'] / best['ascent']:.2f} times as fast as the peers")
    print(f"RATIO segment {best['peers'] / best['seeded']:.2f}")


if __name__ == "__main__":
    main()
