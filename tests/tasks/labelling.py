"""Small volumes, tables and maps for tests of annotation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emloom.geometry import Grid
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels
from emloom.io.open import create_volume
from emloom.io.volume import ArrayVolume, VolumeInfo
from emloom.ops.logits import encode_logits

GRID = Grid((35, 32, 32), (70, 0, 320))
SHAPE = (1, 8, 8)
CLASSES = ("debris", "myelin")


def noise(shape: tuple[int, int, int] = (6, 40, 48), seed: int = 0) -> ArrayVolume:
    array = np.random.default_rng(seed).integers(20, 230, shape).astype(np.uint8)
    return ArrayVolume(array, GRID, "raw", source="noise.zarr")


def write_noise(path: Path, shape: tuple[int, int, int] = (6, 40, 48)) -> Path:
    volume = noise(shape)
    create_volume(path, volume.info).write(volume.info.box, volume.array)
    return path


def table(
    starts: list[tuple[int, int, int]],
    labels: list[list[int]] | None = None,
    annotator: str = "",
    classes: tuple[str, ...] = CLASSES,
    **columns: list[str],
) -> PatchLabels:
    said = [[-1] * len(classes) for _ in starts] if labels is None else labels
    return PatchLabels(
        GRID,
        SHAPE,
        np.array(starts, np.int64).reshape(-1, 3),
        classes,
        np.array(said, np.int8).reshape(-1, len(classes)),
        (annotator,),
        columns={name: np.array(values, np.str_) for name, values in columns.items()},
    )


def lattice(step: int = 4) -> Lattice:
    """Return a lattice whose map covers the volume, as detectors use it."""
    return Lattice(SHAPE, (1, step, step), (0, (step - 8) // 2, (step - 8) // 2))


def write_map(path: Path, logits_ZYX: np.ndarray, step: int = 4) -> Path:
    """Write a map, coded as `emloom artifacts predict` does."""
    info = VolumeInfo(logits_ZYX.shape, np.dtype(np.uint8), lattice(step).map_grid(GRID), kind="logits")
    create_volume(path, info).write(info.box, encode_logits(logits_ZYX))
    return path
