"""Tables of synapses for tests: drawn at random, or written down by their segments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emloom.geometry import Grid
from emloom.geometry.synapses import SynapseTable
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo

GRID = Grid((40.0, 4.0, 4.0), (400.0, 40.0, 80.0))
SHAPE = (8, 24, 24)


def drawn(seed: int, n: int = 60, segments: int = 9, grid: Grid = GRID, shape=SHAPE) -> SynapseTable:
    """Return contacts at random places, a little beyond the volume, of segments 0 .. `segments` at random."""
    rng = np.random.default_rng(seed)
    polyads = rng.integers(1, max(2, n // 2), n)
    size = np.array(grid.voxel_size_nm)
    low, high = np.array(grid.offset_nm) - size, np.array(grid.offset_nm) + size * (np.array(shape) + 1)
    pre = rng.uniform(low, high, (n + 1, 3))[polyads]
    return SynapseTable(
        ids=rng.permutation(np.arange(1, n + 1)).astype(np.uint64),
        polyads=polyads.astype(np.uint64),
        pre_nm=pre,
        post_nm=rng.uniform(low, high, (n, 3)),
        pre_segments=rng.integers(0, segments + 1, n + 1)[polyads].astype(np.uint64),
        post_segments=rng.integers(0, segments + 1, n).astype(np.uint64),
        sizes_vox=rng.integers(0, 500, n),
        scores=rng.random(n).astype(np.float32),
        source=f"drawn {seed}",
    )


def between(pairs: Sequence[tuple[int, int]], scores: Sequence[float] | None = None) -> SynapseTable:
    """Return one contact, a polyad of its own, for each pair of segments."""
    n = len(pairs)
    pre, post = np.array(pairs, np.uint64).reshape(-1, 2).T
    ids = np.arange(1, n + 1, dtype=np.uint64)
    places = np.arange(3.0 * n).reshape(n, 3)
    given = np.ones(n, np.float32) if scores is None else np.array(scores, np.float32)
    return SynapseTable(ids, ids, places, places + 1, pre, post, np.full(n, 10), given, "pairs")


def labels(seed: int, segments: int = 9, shape=SHAPE) -> np.ndarray:
    """Return blocky labels at random, background included."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, segments + 1, (2, 4, 4)).astype(np.uint64)
    return np.kron(coarse, np.ones([s // c for s, c in zip(shape, coarse.shape, strict=True)], np.uint64))


def stored(path: Path, array: np.ndarray, grid: Grid = GRID) -> str:
    """Write labels as a volume; return its path."""
    info = VolumeInfo(array.shape, array.dtype, grid, kind="labels", chunks=(4, 8, 8))
    create_volume(path, info).write(info.box, array)
    return str(path)
