"""Affinities of 12 offsets on 128^3 labels: emloom against gunpowder's AddAffinities and torch.

    make peers
    python benchmarks/affinities.py

Labels: a crop of the real `labels_pinky40`, else a mosaic; uint64. Offsets: the nearest neighbours and 3, 9 and 27
voxels. All give affinities and the mask of valid pairs. gunpowder computes whole planes of the array and crops to
the voxels whose every partner lies inside; there its affinities must equal ours. torch rolls the labels and sets
what came in from the other side to 0 (int64 labels, uint8 results); all its voxels must equal ours. One thread,
CPU seconds, interleaved, medians. The ratio is to the faster of the two.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import time
from pathlib import Path
from statistics import median

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from peers import Peer
from scipy.spatial import cKDTree

from emloom.ops.affinities import affinities, neighborhood

SIDE = 128
ROUNDS = 15
OFFSETS = neighborhood(1, 3, 9, 27)
Bits = NDArray[np.uint8]


def labels_of_tissue() -> tuple[NDArray[np.uint64], str]:
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    path = Path(os.environ.get("EMLOOM_DATA", default)) / "labels_pinky40" / "labels_256.h5"
    if path.is_file():
        with h5py.File(path) as file:
            return file["labels"][64 : 64 + SIDE, 64 : 64 + SIDE, 64 : 64 + SIDE].astype(
                np.uint64
            ), "labels_pinky40"
    rng = np.random.default_rng(0)
    seeds = rng.random((200, 3)) * SIDE
    places = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), -1).reshape(-1, 3)
    nearest = cKDTree(seeds).query(places)[1].reshape(SIDE, SIDE, SIDE)
    return nearest.astype(np.uint64), "synthetic mosaic (real labels not found)"


def by_rolling(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    same = torch.empty((len(OFFSETS), *labels.shape), dtype=torch.uint8)
    valid = torch.ones_like(same)
    foreground = labels != 0
    for channel, offset in enumerate(OFFSETS):
        rolled = torch.roll(labels, [-o for o in offset], (0, 1, 2))
        same[channel] = (labels == rolled) & foreground
        for axis, o in enumerate(offset):
            if o:
                edge = (slice(None),) * axis + ((slice(0, -o) if o < 0 else slice(-o, None)),)
                same[channel][edge] = 0
                valid[channel][edge] = 0
    return same, valid


def main() -> None:
    labels, source = labels_of_tissue()
    tensor = torch.from_numpy(labels.astype(np.int64))
    torch.set_num_threads(1)
    affinities(labels[:32, :32, :32], OFFSETS)  # compiles
    seconds: dict[str, list[float]] = {"emloom": [], "gunpowder": [], "torch": []}
    with Peer("gunpowder_affinities.py", {"labels": labels}, neighborhood=OFFSETS) as peer:
        peer.seconds()
        by_rolling(tensor)
        for _ in range(ROUNDS):
            start = time.process_time()
            same, valid = affinities(labels, OFFSETS)
            seconds["emloom"].append(time.process_time() - start)
            seconds["gunpowder"].append(peer.seconds())
            start = time.process_time()
            rolled = by_rolling(tensor)
            seconds["torch"].append(time.process_time() - start)
        theirs = peer.results()
    margin = max(-o for offset in OFFSETS for o in offset)
    inner = (slice(None), *[slice(margin, None)] * 3)
    np.testing.assert_array_equal(same[inner], theirs["affinities"])
    np.testing.assert_array_equal(valid[inner], theirs["valid"])
    np.testing.assert_array_equal(same, rolled[0].numpy())
    np.testing.assert_array_equal(valid, rolled[1].numpy())

    ids = np.unique(labels).size
    print(f"{source}: {labels.shape} {labels.dtype}, {ids} ids, {len(OFFSETS)} offsets; all results agree")
    ours = median(seconds["emloom"])
    for name, values in seconds.items():
        print(f"{name:<10}{1e3 * median(values):8.1f} ms   {median(values) / ours:6.1f}x")
    print(f"RATIO affinities {min(median(seconds['gunpowder']), median(seconds['torch'])) / ours:.1f}")


if __name__ == "__main__":
    main()
