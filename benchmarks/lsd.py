"""Local shape descriptors of a training crop: emloom against lsds.

    make peers
    python benchmarks/lsd.py

The crop of the original systems: 132^3 voxels of 8 nm, of which the inner 72^3 are described, sigma 80 nm, objects
seen on every second voxel. Labels: nearest of random points, 96 ids in the inner box. Both get the same labels and
box; descriptors must agree to 5e-4, and 99.9 % of the values to 1e-4 (lsds sums absolute coordinates in float32;
emloom is exact to 1e-6, as its tests show). One thread, CPU seconds, interleaved, medians. emloom in torch, which
is made for GPUs, runs on the processor here.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from peers import Peer
from scipy.spatial import cKDTree

from emloom.geometry import Box
from emloom.nn.descriptors import local_shape_descriptors as in_torch
from emloom.ops.descriptors import local_shape_descriptors

SIDE, INNER, OBJECTS = 132, 72, 96
POINTS = 217
SPACING, SIGMA, DOWNSAMPLE = (8, 8, 8), 80.0, 2
BOX = Box(((SIDE - INNER) // 2,) * 3, (INNER,) * 3)
OUR_ROUNDS, THEIR_ROUNDS = 15, 3
Lsds = NDArray[np.float32]


def labels_of_tissue() -> NDArray[np.uint64]:
    """Return a mosaic with exactly OBJECTS ids in the box; what is more becomes background."""
    places = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), -1).reshape(-1, 3)
    points = np.random.default_rng(0).random((POINTS, 3)) * SIDE
    labels = (cKDTree(points).query(places)[1] + 1).reshape(SIDE, SIDE, SIDE)
    inside = np.unique(labels[BOX.slices()])
    if inside.size < OBJECTS:
        raise SystemExit(f"the mosaic has {inside.size} ids in the box: raise POINTS")
    labels[np.isin(labels, inside[OBJECTS:])] = 0
    return labels.astype(np.uint64)


def ours(labels: NDArray[np.uint64], box: Box | None) -> Lsds:
    return local_shape_descriptors(labels, SPACING, SIGMA, downsample=DOWNSAMPLE, box=box)[0]


def seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    labels = labels_of_tissue()
    batch = torch.from_numpy(labels.astype(np.int64))[None]
    calls: dict[str, Callable[[], object]] = {
        "emloom": lambda: ours(labels, BOX),
        "emloom, torch": lambda: in_torch(batch, SPACING, SIGMA, downsample=DOWNSAMPLE, box=BOX),
    }
    options = {"spacing_nm": SPACING, "sigma_nm": SIGMA, "downsample": DOWNSAMPLE}
    times: dict[str, list[float]] = {name: [] for name in (*calls, "lsds")}
    for call in calls.values():
        call()  # compiles
    with Peer("lsds_targets.py", {"labels": labels}, start=BOX.start, shape=BOX.shape, **options) as peer:
        for k in range(OUR_ROUNDS):
            for name, call in calls.items():
                times[name].append(seconds(call))
            if k % (OUR_ROUNDS // THEIR_ROUNDS) == 0:
                times["lsds"].append(peer.seconds())
        theirs = peer.results()["lsds"]
    mine = ours(labels, BOX)
    difference = np.abs(mine - theirs)
    largest, usual = float(difference.max()), float(np.quantile(difference, 0.999))
    if largest > 5e-4 or usual > 1e-4:
        raise SystemExit(
            f"descriptors differ by {largest:.1e}, 99.9 % by up to {usual:.1e}: 5e-4 and 1e-4 are allowed"
        )
    in_torch_lsds = in_torch(batch, SPACING, SIGMA, downsample=DOWNSAMPLE, box=BOX)[0][0].numpy()
    np.testing.assert_allclose(in_torch_lsds, mine, rtol=0, atol=5e-6)

    crop = np.ascontiguousarray(labels[:96, :96, :96])
    whole = median(seconds(lambda: ours(crop, None)) for _ in range(OUR_ROUNDS))
    ground = np.mean(labels[BOX.slices()] == 0)
    print(f"{SIDE}^3 -> {INNER}^3, {OBJECTS} ids, {ground:.1%} background")
    print(f"largest difference {largest:.1e}, 99.9 % below {usual:.1e}")
    fastest = median(times["emloom"])
    for name, values in times.items():
        print(f"{name:<15}{1e3 * median(values):9.1f} ms   {median(values) / fastest:6.1f}x")
    print(f"emloom, 96^3 as a whole, {np.unique(crop).size} ids: {1e3 * whole:.1f} ms")
    print(f"RATIO lsd {median(times['lsds']) / fastest:.1f}")


if __name__ == "__main__":
    main()
