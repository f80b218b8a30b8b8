"""Affinities of 12 offsets on 128^3 labels: emloom against gunpowder's AddAffinities and torch.

    make peers
    python benchmarks/affinities.py

Labels: a crop of the real `labels_pinky40`, else a mosaic; uint64; 128^3 voxels are described, with context below
them so that every partner exists. Offsets: the nearest neighbours, and 3, 9 and 27 voxels along each axis. All
results, affinities and masks of valid pairs, must be equal at every voxel. gunpowder compares int32 labels, and
torch, which rolls them, int64; neither conversion is timed. One thread, CPU seconds, interleaved, medians. The
ratio is to the faster of the two.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import time
from pathlib import Path
from statistics import median

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from peers import Peer
from scipy.spatial import cKDTree

from emloom.geometry import Box
from emloom.ops.affinities import affinities, neighborhood

SIDE = 128
ROUNDS = 15
CONTEXT = 27
OFFSETS = neighborhood(1, 3, 9, CONTEXT)
BOX = Box((CONTEXT,) * 3, (SIDE,) * 3)
Bits = NDArray[np.uint8]


def labels_of_tissue() -> tuple[NDArray[np.uint64], str]:
    default = Path(__file__).parents[1] / ".." / "shared" / "data"
    path = Path(os.environ.get("EMLOOM_DATA", default)) / "labels_pinky40" / "labels_256.h5"
    side = SIDE + CONTEXT
    if path.is_file():
        with h5py.File(path) as file:
            return file["labels"][40 : 40 + side, 40 : 40 + side, 40 : 40 + side].astype(
                np.uint64
            ), "labels_pinky40"
    rng = np.random.default_rng(0)
    seeds = rng.random((200, 3)) * side
    places = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    nearest = cKDTree(seeds).query(places)[1].reshape(side, side, side)
    return nearest.astype(np.uint64), "synthetic mosaic (real labels not found)"


def by_rolling(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    inner = BOX.slices()
    same = torch.empty((len(OFFSETS), *BOX.shape), dtype=torch.uint8)
    foreground = labels != 0
    for channel, offset in enumerate(OFFSETS):
        rolled = torch.roll(labels, [-o for o in offset], (0, 1, 2))
        same[channel] = ((labels == rolled) & foreground)[inner]
    # Nothing that came in from the other side is left.
    return same, torch.ones_like(same)


def main() -> None:
    labels, source = labels_of_tissue()
    tensor = torch.from_numpy(labels.astype(np.int64))
    torch.set_num_threads(1)
    affinities(labels, OFFSETS, box=BOX)  # compiles
    seconds: dict[str, list[float]] = {"emloom": [], "gunpowder": [], "torch": []}
    with Peer("gunpowder_affinities.py", {"labels": labels}, neighborhood=OFFSETS) as peer:
        peer.seconds()
        by_rolling(tensor)
        for _ in range(ROUNDS):
            same = valid = rolled = None  # or the next round would have to find other memory
            start = time.process_time()
            same, valid = affinities(labels, OFFSETS, box=BOX)
            seconds["emloom"].append(time.process_time() - start)
            seconds["gunpowder"].append(peer.seconds())
            start = time.process_time()
            rolled = by_rolling(tensor)
            seconds["torch"].append(time.process_time() - start)
        theirs = peer.results()
    for other in ((theirs["affinities"], theirs["valid"]), tuple(result.numpy() for result in rolled)):
        np.testing.assert_array_equal(same, other[0])
        np.testing.assert_array_equal(valid, other[1])

    ids = np.unique(labels).size
    print(f"{source}: {BOX.shape} of {labels.shape} {labels.dtype}, {ids} ids, {len(OFFSETS)} offsets; all agree")
    ours = median(seconds["emloom"])
    for name, values in seconds.items():
        print(f"{name:<10}{1e3 * median(values):8.1f} ms   {median(values) / ours:6.1f}x")
    print(f"RATIO affinities {min(median(seconds['gunpowder']), median(seconds['torch'])) / ours:.1f}")


if __name__ == "__main__":
    main()
