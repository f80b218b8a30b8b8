"""A tiny tissue with synapses: slabs of neurons, bright pre sites and dark post sites across their borders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Grid
from emloom.geometry.synapses import SynapseTable
from emloom.io.open import create_volume
from emloom.io.synapsetable import write_synapse_table
from emloom.io.volume import VolumeInfo

GRID = Grid((10.0, 10.0, 10.0), (100.0, 0.0, 50.0))
SLAB = 12  # sections of a neuron


@dataclass(frozen=True, eq=False)
class Tissue:
    """Raw, neurons (slabs along z), clefts, and the table of synapses."""

    raw: NDArray[np.uint8]
    neurons: NDArray[np.uint64]
    clefts: NDArray[np.uint64]
    table: SynapseTable


def tissue(shape: tuple[int, int, int] = (48, 64, 64), n: int = 40, seed: int = 0) -> Tissue:
    """Grow a tissue: every synapse lies on the border of two slabs, and every third has two post sites."""
    rng = np.random.default_rng(seed)
    z = np.arange(shape[0])[:, None, None]
    neurons = np.broadcast_to(1 + z // SLAB, shape).astype(np.uint64)
    raw = np.where(z % SLAB == 0, 90, 140) + rng.normal(0, 8, shape)
    clefts = np.zeros(shape, np.uint64)
    borders = np.arange(SLAB, shape[0] - SLAB // 2, SLAB)
    places = rng.permutation(
        [(b, y, x) for b in borders for y in range(7, shape[1] - 7, 10) for x in range(7, shape[2] - 7, 10)]
    )
    rows: list[tuple[int, tuple[int, int, int], tuple[int, int, int]]] = []
    grid = np.indices(shape)
    for number, (b, y, x) in enumerate(places[:n].tolist(), start=1):
        up = rng.random() < 0.5
        pre = (b - 4, y, x) if up else (b + 3, y, x)
        ends = [(b + 3, y, x) if up else (b - 4, y, x)]
        if number % 3 == 0:
            ends.append((ends[0][0], y, x + 4))
        for at, value in [(pre, 215), *((end, 35) for end in ends)]:
            ball = sum((g - a) ** 2 for g, a in zip(grid, at, strict=True)) <= 6
            raw[ball] = value + rng.normal(0, 8, int(ball.sum()))
        clefts[b - 1 : b + 1, y - 2 : y + 3, x - 2 : x + 3] = number
        raw[b - 1 : b + 1, y - 2 : y + 3, x - 2 : x + 3] -= 60
        rows += [(number, pre, end) for end in ends]
    m = len(rows)
    table = SynapseTable(
        ids=np.arange(1, m + 1, dtype=np.uint64),
        polyads=np.array([row[0] for row in rows], np.uint64),
        pre_nm=np.array([GRID.centre(row[1]) for row in rows]),
        post_nm=np.array([GRID.centre(row[2]) for row in rows]),
        pre_segments=np.array([neurons[row[1]] for row in rows], np.uint64),
        post_segments=np.array([neurons[row[2]] for row in rows], np.uint64),
        sizes_vox=np.full(m, 50),
        scores=np.ones(m, np.float32),
        source="tissue",
    )
    return Tissue(np.clip(raw, 0, 255).astype(np.uint8), neurons, clefts, table)


def write_tissue(folder: Path, grown: Tissue) -> Path:
    """Write `raw.zarr`, `neurons.zarr`, `clefts.zarr` and `synapses.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array, kind in (
        ("raw", grown.raw, "raw"),
        ("neurons", grown.neurons, "labels"),
        ("clefts", grown.clefts, "labels"),
    ):
        info = VolumeInfo(array.shape, array.dtype, GRID, kind=kind)
        create_volume(folder / f"{name}.zarr", info).write(Box.whole(array.shape), array)
    write_synapse_table(folder / "synapses.parquet", grown.table)
    return folder
