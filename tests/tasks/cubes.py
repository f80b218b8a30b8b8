"""A labelled stack on disk that a tiny network learns in seconds, and a job on it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from emloom.nn.augment import AugmentSpec, IntensitySpec
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.nn.unet import UNetSpec
from emloom.ops.affinities import neighborhood
from emloom.tasks.data import BoxSpec, StackSpec
from emloom.tasks.job import NeuronsJob
from emloom.tasks.segmentspec import SeededSpec, SegmentSpec

SHAPE = (24, 48, 48)
CELL = 12


def write_stack(path: Path) -> Path:
    """Bright cells of 12 voxels with dark walls two voxels thick; two ids share no face."""
    z, y, x = np.indices(SHAPE)
    labels = 1 + z // CELL + 10 * (y // CELL) + 100 * (x // CELL)
    rest = [(axis % CELL) for axis in (z, y, x)]
    wall = np.zeros(SHAPE, bool)
    for r in rest:
        wall |= (r == 0) | (r == CELL - 1)
    raw = np.where(wall, 50, 200) + np.random.default_rng(0).integers(0, 20, SHAPE)
    with h5py.File(path, "w") as file:
        for name, array in (("raw", raw.astype(np.uint8)), ("labels", labels.astype(np.uint32))):
            file[name] = array
            file[name].attrs["resolution"] = (10.0, 10.0, 10.0)
    return path


def job(path: Path, **changes: object) -> NeuronsJob:
    """A job that takes seconds."""
    made = NeuronsJob(
        name="cubes",
        data=(
            StackSpec(
                raw=f"{path}/raw",
                labels=f"{path}/labels",
                validation=(BoxSpec(start=(0, 0, 24), shape=(24, 24, 24)),),
                test=(BoxSpec(start=(0, 24, 0), shape=(24, 24, 24)),),
                references={"itself": f"{path}/labels"},
            ),
        ),
        objective=NeuronsObjective(variant="affinities", neighborhood=neighborhood(1)),
        network=UNetSpec(features=(8, 8), factors=((2, 2, 2),)),
        training=TrainingSpec(
            steps=40,
            crop_shape_vox=(16, 16, 16),
            optimizer=OptimizerSpec(learning_rate=0.02),
            validate_every=20,
            augment=AugmentSpec(noise=0.0, intensity=IntensitySpec(gamma=(1.0, 1.0))),
        ),
        segmentation=SegmentSpec(fragments=SeededSpec(seed_distance_vox=5), thresholds=(0.3, 0.5, 0.7)),
    )
    return made.model_copy(update=changes)
