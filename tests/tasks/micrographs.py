"""Small raw stacks and jobs that learn to reconstruct them, cheap enough for every test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Grid
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo
from emloom.nn.augment import AugmentSpec
from emloom.nn.level_autoencoders import UNetAutoencoderSpec
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.tasks.data import BoxSpec, RawStackSpec
from emloom.tasks.frequencyspec import WaveletSpec
from emloom.tasks.reconstructionjob import ReconstructionJob

GRID = Grid((40.0, 4.0, 4.0))
NET = UNetAutoencoderSpec.of(width=2, levels=3)


def image(shape: tuple[int, int, int] = (5, 48, 64), seed: int = 0, dtype: Any = np.uint8) -> NDArray[Any]:
    """Blobs under noise; 16-bit values are spread over 0 to 4000."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (shape[0], shape[1] // 8, shape[2] // 8))
    values = np.clip(np.kron(coarse, np.ones((1, 8, 8))) + rng.normal(0, 8, shape), 0, 255)
    return (values * (16 if np.dtype(dtype).itemsize > 1 else 1)).astype(dtype)


def write(path: Path, values: NDArray[Any], grid: Grid = GRID) -> str:
    """Store an image; return its path."""
    info = VolumeInfo(values.shape, values.dtype, grid, kind="raw", chunks=(2, 16, 16))
    create_volume(path, info).write(info.box, values)
    return str(path)


def job(raw: str, **more: Any) -> ReconstructionJob:
    """Six steps on a stack of five sections, the last two held out."""
    stack = RawStackSpec(
        raw=raw,
        validation=(BoxSpec(start=(3, 0, 0), shape=(1, 48, 48)),),
        test=(BoxSpec(start=(4, 0, 0), shape=(1, 48, 64)),),
    )
    given: dict[str, Any] = {
        "name": "tiny",
        "data": (stack,),
        "network": NET,
        "training": TrainingSpec(
            steps=6,
            crop_shape_vox=(1, 32, 32),
            batch_size=2,
            validate_every=3,
            augment=AugmentSpec.none(),
            precision="32-true",
            optimizer=OptimizerSpec(learning_rate=1e-2),
        ),
        "wavelet": WaveletSpec(levels=3),
        **more,
    }
    return ReconstructionJob(**given)
