"""VOI and adapted Rand error of 256^3 and 512^3 uint64 labels: emloom against scikit-image.

    python benchmarks/overlap.py

Truth: the real segmentation of `labels_pinky40` (661 ids), else a synthetic mosaic; the larger volume is eight of
it with ids of their own. Segmentation: the truth moved
by a few voxels, with some objects merged and all of them cut into blocks. Both libraries give VOI split, VOI
merge and the adapted Rand error (scikit-image's definition over pairs), equal to 1e-9. emloom takes the raw 64-bit
ids; scikit-image builds a matrix as large as the largest id, so it is given densely renumbered ones, and
renumbering (fastremap, the fastest at hand) does not count in the ratio. The runs alternate; medians of 3. The
ratio is the smaller of the two sizes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import fastremap
import h5py
import numpy as np
import skimage.metrics
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from skimage.metrics._contingency_table import contingency_table

from emloom.metrics.contingency import contingency
from emloom.metrics.overlap import overlap_scores

Labels = NDArray[np.uint64]
Scores = tuple[float, float, float]

SIDE = 256
ROUNDS = 3


def truth_labels() -> tuple[Labels, str]:
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    path = Path(os.environ.get("EMLOOM_DATA", default)) / "labels_pinky40" / "labels_256.h5"
    if path.is_file():
        with h5py.File(path) as file:
            return file["labels"][:].astype(np.uint64), "labels_pinky40"
    rng = np.random.default_rng(0)
    seeds = rng.random((600, 3)) * SIDE
    places = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), -1).reshape(-1, 3)
    nearest = cKDTree(seeds).query(places)[1]
    ids = rng.choice(2**40, 600, replace=False).astype(np.uint64) + np.uint64(1)
    return ids[nearest].reshape(SIDE, SIDE, SIDE), "synthetic mosaic (real labels not found)"


def derived_segmentation(truth: Labels) -> Labels:
    """Return labels with boundary noise, merges (every fourth id joins its neighbour in rank) and splits."""
    ids, rank = np.unique(np.roll(truth, (1, -2, 3), axis=(0, 1, 2)), return_inverse=True)
    joined = ids[np.where(np.arange(ids.size) % 4 == 3, np.arange(ids.size) - 1, np.arange(ids.size))]
    place = np.arange(SIDE) // 96
    block = np.add.outer(np.add.outer(place * 9, place * 3), place)
    return joined[rank].reshape(truth.shape) * np.uint64(27) + block.astype(np.uint64)


def eight_of(ids: Labels) -> Labels:
    """Return a volume twice as long along every axis, with other ids in each eighth."""
    corners = np.arange(8, dtype=np.uint64).reshape(2, 2, 2) * (ids.max() + np.uint64(1))
    return np.concatenate(
        [
            np.concatenate([np.concatenate([np.where(ids, ids + c, ids) for c in row], 2) for row in plane], 1)
            for plane in corners
        ]
    )


def emloom(truth: Labels, segmentation: Labels) -> Scores:
    scores = overlap_scores(contingency(truth, segmentation))
    return scores.voi_split, scores.voi_merge, scores.adapted_rand_error_pairs


def scikit_image(truth: NDArray[np.uint32], segmentation: NDArray[np.uint32]) -> Scores:
    split, merge = skimage.metrics.variation_of_information(truth, segmentation, ignore_labels=(0,))
    error, _, _ = skimage.metrics.adapted_rand_error(truth, segmentation, ignore_labels=(0,))
    return float(split), float(merge), float(error)


def scikit_image_one_table(truth: NDArray[np.uint32], segmentation: NDArray[np.uint32]) -> Scores:
    """Both scores from one table; scikit-image builds tables with a private function."""
    table = contingency_table(truth, segmentation, ignore_labels=(0,), sparse_type="array")
    split, merge = skimage.metrics.variation_of_information(truth, segmentation, table=table / table.sum())
    error, _, _ = skimage.metrics.adapted_rand_error(table=table)
    return float(split), float(merge), float(error)


def timed(call: Callable[[], Scores]) -> tuple[float, Scores]:
    start = time.perf_counter()
    scores = call()
    return time.perf_counter() - start, scores


def ratio_of(truth: Labels, segmentation: Labels) -> float:
    """Time both on one pair of volumes, and print a table."""
    renumber_start = time.perf_counter()
    dense_truth, dense_segmentation = (fastremap.renumber(a, preserve_zero=True)[0] for a in (truth, segmentation))
    renumber = time.perf_counter() - renumber_start
    calls: dict[str, Callable[[], Scores]] = {
        "emloom, raw ids": lambda: emloom(truth, segmentation),
        "scikit-image": lambda: scikit_image(dense_truth, dense_segmentation),
        "scikit-image, one table": lambda: scikit_image_one_table(dense_truth, dense_segmentation),
    }
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    scores: dict[str, Scores] = {}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            took, scores[name] = timed(call)
            seconds[name].append(took)

    pairs = contingency(truth, segmentation).counts.size
    load = os.getloadavg()[0]
    print(f"{truth.shape} {truth.dtype}, {pairs} overlapping pairs, medians of {ROUNDS}, load {load:.1f}")
    ours = median(seconds["emloom, raw ids"])
    for name, values in seconds.items():
        split, merge, error = scores[name]
        print(
            f"{name:<26}{median(values):8.3f} s   {median(values) / ours:6.1f}x   "
            f"VOI split {split:.9f} merge {merge:.9f} bits, adapted Rand error (pairs) {error:.9f}"
        )
        np.testing.assert_allclose(scores[name], scores["emloom, raw ids"], rtol=0, atol=1e-9)
    theirs = median(seconds["scikit-image"])
    print(
        f"renumbering for scikit-image (fastremap): {renumber:.3f} s; counted, {(theirs + renumber) / ours:.1f}x"
    )
    return theirs / ours


def main() -> None:
    truth, source = truth_labels()
    segmentation = derived_segmentation(truth)
    emloom(truth[:2], segmentation[:2])  # compiles
    print(source)
    ratios = [ratio_of(truth, segmentation), ratio_of(eight_of(truth), eight_of(segmentation))]
    print(f"RATIO overlap {min(ratios):.1f}")


if __name__ == "__main__":
    main()
