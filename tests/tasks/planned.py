"""Small stacks with dense labels, and what `emloom plan` needs to look at them."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from scipy.spatial import cKDTree

from emloom.geometry import Vec
from emloom.tasks.planmachine import Machine

MACHINE = Machine(cores=2, memory_gib=8.0)
GPU = Machine(cores=8, memory_gib=64.0, gpu="a card", gpu_gib=24.0, bf16=True)


def tissue(shape: Vec, size_nm: tuple[float, float, float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return (raw uint8, labels uint32) of polyhedra about 180 nm wide, dark where two of them meet."""
    rng = np.random.default_rng(seed)
    extent = np.multiply(shape, size_nm)
    seeds = rng.uniform(0, extent, (max(8, int(np.prod(extent) / 180.0**3)), 3))
    points = (np.indices(shape).reshape(3, -1).T + 0.5) * size_nm
    distance, nearest = cKDTree(seeds).query(points, k=2)
    labels = (nearest[:, 0] + 1).reshape(shape).astype(np.uint32)
    wall = ((distance[:, 1] - distance[:, 0]) < 25).reshape(shape)
    raw = np.where(wall, 60, 180) + rng.integers(-12, 12, shape)
    return raw.astype(np.uint8), labels


def write(path: Path, size_nm: tuple[float, float, float] | None, **arrays: np.ndarray) -> Path:
    """Write arrays of one voxel size into an HDF5 file."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
            if size_nm is not None:
                file[name].attrs["resolution"] = size_nm
    return path
