"""A hundred thresholds of a merge tree: emloom's sweep against relabelling and counting once per threshold.

    python benchmarks/sweep.py [thresholds]

128 x 256 x 256 voxels of blurred and noisy affinities (`inputs`), ascent fragments, mean linkage; truth is the
phantom's. **sweep**: fragments are counted once, and every threshold merges columns of the table of the threshold
above it, as `emloom evaluate` does. **relabel**: per threshold the fragments are relabelled and counted again,
with emloom's own kernels, so that only the idea is compared. VOI and adapted Rand error must be the same bits. One
thread; the runs alternate; medians of 3 (the slow one: best of 1).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"

import sys
import time
from statistics import median

import numpy as np
from inputs import blurred_affinities, phantom_labels
from numpy.typing import NDArray

from emloom.geometry import Grid
from emloom.metrics.contingency import contingency
from emloom.metrics.overlap import OverlapScores, overlap_scores
from emloom.ops.agglomerate import MergeTree
from emloom.ops.labels import apply_lut
from emloom.tasks.segment import grow_tree
from emloom.tasks.segmentspec import SegmentSpec

THRESHOLDS = int(sys.argv[1]) if len(sys.argv) > 1 else 100
SHAPE = (128, 256, 256)
NEAR = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
Labels = NDArray[np.uint64]


def swept(truth: Labels, fragments: Labels, tree: MergeTree, thresholds: list[float]) -> list[OverlapScores]:
    table, scores, above = contingency(truth, fragments, threads=1), [], None
    for threshold in sorted(thresholds, reverse=True):
        table, above = table.relabelled(*tree.table(threshold, above)), threshold
        scores.append(overlap_scores(table))
    return scores[::-1]


def relabelled(truth: Labels, fragments: Labels, tree: MergeTree, thresholds: list[float]) -> list[OverlapScores]:
    return [
        overlap_scores(contingency(truth, apply_lut(fragments, *tree.table(t)), threads=1))
        for t in sorted(thresholds)
    ]


def timed(work, *given):  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    result = work(*given)
    return result, time.perf_counter() - start


def main() -> None:
    truth = phantom_labels(SHAPE).astype(np.uint64)
    grown = grow_tree(blurred_affinities(truth, NEAR), NEAR, Grid((8.0, 8.0, 8.0)), SegmentSpec(thresholds=(0.2,)))
    thresholds = np.linspace(0.2, 1.0, THRESHOLDS).round(6).tolist()
    given = (truth, grown.fragments, grown.tree, thresholds)
    for work in (swept, relabelled):  # compile
        work(*given[:3], thresholds[:1])
    theirs, slow = timed(relabelled, *given)
    runs = [timed(swept, *given) for _ in range(3)]
    if any(ours != theirs for ours, _ in runs):
        raise SystemExit("the sweep and the relabelled volumes have other scores")
    quick = median(seconds for _, seconds in runs)
    fragments = len(np.unique(grown.fragments))
    print(
        f"{SHAPE}, {fragments} fragments, {len(thresholds)} thresholds, load {os.getloadavg()[0]:.1f}; same bits"
    )
    print(f"{'sweep of the table':28}{quick:9.3f} s")
    print(f"{'relabel, count, per threshold':28}{slow:8.3f} s")
    print(f"RATIO sweep {slow / quick:.1f}")


if __name__ == "__main__":
    main()
