"""Predictions to a table of synapses, on one core: emloom against scipy.ndimage and scipy.spatial.

    python benchmarks/synapses.py [synapses] [rounds]

1,000 synapses in 128 x 1024 x 1024 voxels: noisy balls of pre and post evidence, uint8, in the neurons of a
Voronoi diagram, with specks that are too small. Both make, from the same arrays, the same table: 6-connected
components of at least 20 voxels from half of the evidence on, in one neuron each; the site is the voxel nearest
the centroid; every post site is given to the nearest pre site of another neuron, within 400 nm; the score is the
smaller mean evidence.

* **emloom**: `tasks.synapsedecode.decode` in memory, as one cell, and in cells of 64 x 256 x 256;
* **scipy**: `ndimage.label`, `find_objects`, then every component in its bounding box with numpy (split by neuron,
  size, centroid, nearest voxel), and `cKDTree` for the partners. The obvious program, with boxes, not over the
  whole volume.

Before a time counts, both tables have to be equal: segments, voxels, sizes and scores. One thread, CPU seconds,
interleaved, best of the rounds; numba is warmed up. Memory is the most that a process of each holds beyond its
inputs. The ratio is that of cells, as the command works.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["NUMBA_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from emloom.geometry import Grid
from emloom.io.volume import ArrayVolume
from emloom.tasks.synapsedecode import decode
from emloom.tasks.synapsedecoders import EvidenceSpec, SitesDecoder
from emloom.tasks.synapsescene import Scene

SYNAPSES = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 2
SHAPE = (128, 1024, 1024)
CELL = (64, 256, 256)
GRID = Grid((40.0, 4.0, 4.0))
SPACING = np.array(GRID.voxel_size_nm)
MIN_VOX, MOST_NM = 20, 400.0
RULE = EvidenceSpec(threshold=0.5, min_size_vox=MIN_VOX)
DECODER = SitesDecoder(pre=RULE, post=RULE, max_distance_nm=MOST_NM)
Rows = NDArray[np.float64]
Inputs = tuple[NDArray[np.uint8], NDArray[np.uint64]]


def make_inputs(n: int, seed: int = 0) -> Inputs:
    """Return evidence [2, Z, Y, X] of n synapses, and neurons."""
    rng = np.random.default_rng(seed)
    coarse = tuple(s // f for s, f in zip(SHAPE, (2, 8, 8), strict=True))
    seeds = rng.random((3000, 3)) * coarse
    at = np.indices(coarse, dtype=np.float32).reshape(3, -1).T
    owner = cKDTree(seeds * (2, 1, 1)).query(at * (2, 1, 1))[1].astype(np.uint64) + 1
    neurons = owner.reshape(coarse).repeat(2, 0).repeat(8, 1).repeat(8, 2)
    evidence = np.zeros((2, *SHAPE), np.uint8)
    made = 0
    while made < n:
        pre = rng.integers((8, 60, 60), np.array(SHAPE) - (8, 60, 60))
        way = rng.normal(size=3)
        post = np.rint(pre + way / np.linalg.norm(way) * 120 / SPACING).astype(int)
        if neurons[tuple(pre)] != neurons[tuple(post)]:
            made += 1
            for channel, centre in enumerate((pre, post)):
                draw(evidence[channel], neurons, centre, 50.0, rng)
    for _ in range(2 * n):  # specks
        centre = rng.integers((8, 60, 60), np.array(SHAPE) - (8, 60, 60))
        draw(evidence[rng.integers(2)], neurons, centre, 6.0, rng)
    return evidence, neurons


def draw(
    channel: NDArray[np.uint8],
    neurons: NDArray[np.uint64],
    centre: NDArray[Any],
    radius_nm: float,
    rng: np.random.Generator,
) -> None:
    """Add a noisy ball, which is weak outside the neuron that holds its centre."""
    reach = np.ceil(radius_nm / SPACING).astype(int) + 1
    window = tuple(slice(c - r, c + r + 1) for c, r in zip(centre, reach, strict=True))
    steps = np.indices(tuple(2 * reach + 1)).transpose(1, 2, 3, 0) - reach
    away = np.sqrt(((steps * SPACING) ** 2).sum(-1))
    grey = 255 / (1 + np.exp((away - radius_nm) / 4)) + rng.normal(0, 8, away.shape)
    grey[neurons[window] != neurons[tuple(centre)]] *= 0.4
    channel[window] = np.maximum(channel[window], np.clip(grey, 0, 255).astype(np.uint8))


def ours(inputs: Inputs, cell: tuple[int, int, int] | None = None) -> Rows:
    evidence, neurons = inputs
    sites, segmentation = ArrayVolume(evidence, GRID), ArrayVolume(neurons, GRID, "labels")
    table = decode(Scene.of(DECODER, {"sites": sites}, segmentation), cell=cell).table
    columns = [table.pre_segments, table.post_segments, table.sizes_vox, table.scores]
    voxels = [points / SPACING - 0.5 for points in (table.pre_nm, table.post_nm)]
    return ordered(np.column_stack([*columns, *voxels]))


def theirs(inputs: Inputs) -> Rows:
    evidence, neurons = inputs
    pre, post = (components(channel, neurons) for channel in evidence)
    tree = cKDTree(pre[:, 3:] * SPACING)
    rows = []
    for site in post:
        near = sorted(tree.query_ball_point(site[3:] * SPACING, MOST_NM))
        others = [i for i in near if pre[i, 0] != site[0]]
        if others:
            away = np.linalg.norm((pre[others, 3:] - site[3:]) * SPACING, axis=1)
            best = pre[others[int(away.argmin())]]
            score = np.float32(min(best[2], site[2]))
            rows.append([best[0], site[0], site[1], score, *best[3:], *site[3:]])
    return ordered(np.array(rows))


def components(evidence: NDArray[np.uint8], neurons: NDArray[np.uint64]) -> Rows:
    """Return, per component: neuron, voxels, mean evidence, and the voxel nearest the centroid."""
    labels, _ = ndimage.label(evidence >= 128)
    rows = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        inside, owners = labels[box] == number, neurons[box]
        for neuron in np.unique(owners[inside]):
            parts, n_parts = ndimage.label(inside & (owners == neuron))
            for part in range(1, n_parts + 1):
                at = np.argwhere(parts == part)
                if len(at) < MIN_VOX:
                    continue
                grey = evidence[box][tuple(at.T)].sum(dtype=np.int64)
                at = at + [s.start for s in box]
                away = (((at - at.sum(axis=0) / len(at)) * SPACING) ** 2).sum(axis=1)
                rows.append([neuron, len(at), min(1.0, grey / (255 * len(at))), *at[int(away.argmin())]])
    return np.array(rows, np.float64).reshape(-1, 6)


def ordered(rows: Rows) -> Rows:
    return rows[np.lexsort(rows.T)]


def grown(action: Callable[[Inputs], Rows], inputs: Inputs) -> float:
    """Return by how many MiB a process that does it once grows."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()

    def measure() -> None:
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        action(inputs)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        there.send((peak - before) / 2**20)

    process = context.Process(target=measure)
    process.start()
    mib: float = here.recv()
    process.join()
    return mib


def main() -> None:
    contestants: dict[str, Callable[[Inputs], Rows]] = {
        "emloom, in cells": lambda inputs: ours(inputs, CELL),
        "emloom, one cell": ours,
        "scipy": theirs,
    }
    inputs = make_inputs(SYNAPSES)
    crop = np.ascontiguousarray(inputs[0][:, :9, :64, :64]), np.ascontiguousarray(inputs[1][:9, :64, :64])
    ours(crop, (4, 32, 32))  # compile
    ours(inputs)
    best: dict[str, float] = {}
    tables: dict[str, Rows] = {}
    for _ in range(ROUNDS):
        for name, action in contestants.items():
            start = time.process_time()
            tables[name] = action(inputs)
            seconds = time.process_time() - start
            best[name] = min(seconds, best.get(name, seconds))
    for name, table in tables.items():
        if not np.array_equal(table, tables["scipy"]):
            raise SystemExit(f"{name} and scipy find different synapses: {len(table)} and {len(tables['scipy'])}")
    voxels = np.prod(SHAPE)
    print(
        f"{SHAPE}, {voxels / 1e6:.0f} Mvoxel, {SYNAPSES} synapses drawn, {len(tables['scipy'])} found by all alike"
    )
    print(f"CPU seconds on one core, best of {ROUNDS}; memory beyond the inputs")
    print(f"{'':20}{'seconds':>9}{'Mvoxel/s':>10}{'MiB':>8}")
    for name, action in contestants.items():
        rate = voxels / best[name] / 1e6
        print(f"{name:20}{best[name]:9.2f}{rate:10.0f}{grown(action, inputs):8.0f}")
    print(f"RATIO synapses {best['scipy'] / best['emloom, in cells']:.2f}")


if __name__ == "__main__":
    main()
