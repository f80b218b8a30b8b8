"""Affinities on disk, and what a blockwise segmentation of them left there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Grid, Vec
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.ops.affinities import neighborhood
from emloom.tasks.graphfiles import load_tree

GRID = Grid((20.0, 10.0, 10.0), (200.0, 0.0, 50.0))
OFFSETS = neighborhood(1)


def few_values(shape: Vec, seed: int, values: int = 4) -> NDArray[np.uint8]:
    """Affinities of a blobby volume with few distinct values, so that ties abound."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((3, *(n // 6 + 2 for n in shape)))
    smooth = coarse.repeat(6, 1).repeat(6, 2).repeat(6, 3)[:, : shape[0], : shape[1], : shape[2]]
    noisy = np.clip(smooth + rng.normal(0, 0.15, smooth.shape), 0, 0.999)
    return (np.floor(noisy * values) * (255 // (values - 1))).astype(np.uint8)


def write_affinities(path: Path, affinities_CZYX: NDArray[np.uint8], offsets: tuple[Vec, ...] = OFFSETS) -> str:
    """Write affinities to a container; return the path of the volume."""
    z, y, x = affinities_CZYX.shape[1:]
    info = VolumeInfo((z, y, x), np.dtype(np.uint8), GRID, len(offsets), (16, 16, 16), "affinities", offsets)
    create_volume(path / "affinities", info).write(info.box, affinities_CZYX)
    return str(path / "affinities")


def write_mask(path: Path, mask_ZYX: NDArray[np.uint8], grid: Grid = GRID) -> str:
    """Write a mask; return its path."""
    z, y, x = mask_ZYX.shape
    info = VolumeInfo((z, y, x), np.dtype(np.uint8), grid, kind="mask")
    create_volume(path, info).write(info.box, mask_ZYX)
    return str(path)


def voxels(path: Path) -> NDArray[np.uint64]:
    """Read a whole volume."""
    volume = open_volume(path)
    return volume.read(volume.info.box)


def tree_of(folder: Path) -> list[NDArray[np.generic]]:
    """Return the columns of the merge tree of a segmentation."""
    tree = load_tree(folder)
    return [tree.score_num, tree.score_den, tree.a, tree.b]


def same(a: Path, b: Path, names: tuple[str, ...] = ("fragments", "segmentation")) -> bool:
    """Whether two segmentations have the same ids everywhere and the same tree."""
    trees = zip(tree_of(a), tree_of(b), strict=True)
    return all(np.array_equal(voxels(a / n), voxels(b / n)) for n in names) and all(
        np.array_equal(x, y) for x, y in trees
    )
