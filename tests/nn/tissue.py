"""A tiny labelled volume, cheap enough for every test of training."""

from __future__ import annotations

import numpy as np

from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn.crops import TrainingVolume
from emloom.nn.model import ModelSpec
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.unet import UNetSpec
from emloom.ops.affinities import neighborhood

GRID = Grid((10.0, 10.0, 10.0))


def cubes(shape: tuple[int, int, int] = (32, 40, 40), cell: int = 8) -> TrainingVolume:
    """Bright cubes with dark walls; labels are the cubes."""
    z, y, x = np.indices(shape)
    labels = (1 + z // cell + 100 * (y // cell) + 10_000 * (x // cell)).astype(np.uint64)
    wall = (z % cell == 0) | (y % cell == 0) | (x % cell == 0)
    noise = np.random.default_rng(0).integers(0, 30, shape)
    raw = np.where(wall, 60, 190) + noise
    return TrainingVolume(
        ArrayVolume(raw.astype(np.uint8), GRID, "raw"),
        ArrayVolume(labels, GRID, "labels"),
        Box.whole(shape),
        held_out=(Box((8, 8, 8), (8, 8, 8)),),
    )


def tiny_model(**objective: object) -> ModelSpec:
    """A network of a few hundred weights."""
    given = {"neighborhood": neighborhood(1), "lsd_sigma_nm": 20.0, **objective}
    return ModelSpec(
        objective=NeuronsObjective.from_dict(given),
        network=UNetSpec(features=(4, 6), factors=((2, 2, 2),)),
        voxel_size_nm=GRID.voxel_size_nm,
    )
