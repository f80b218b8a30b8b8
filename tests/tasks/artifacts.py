"""An artifact library on disk for the stack of `cubes`, and a job that blends it in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from emloom.nn.augment import AugmentSpec, DefectSpec, LibrarySpec
from emloom.tasks.job import NeuronsJob
from tests.tasks.cubes import job

VOXEL_NM = (10.0, 10.0, 10.0)


def write_library(
    path: Path,
    images: Any = None,
    masks: Any = None,
    voxel_nm: tuple[float, float, float] = VOXEL_NM,
) -> LibrarySpec:
    """Three dark stains of 40 x 30 voxels, seen fully in their middle."""
    if images is None:
        images = np.stack([np.full((40, 30), v, np.uint8) for v in (0, 30, 60)])
    if masks is None:
        masks = np.zeros((3, 40, 30), np.uint8)
        masks[:, 5:35, 5:25] = 100
        masks[:, 10:30, 10:20] = 200
    with h5py.File(path, "w") as file:
        for name, array in (("images", images), ("masks", masks)):
            file[name] = array
            file[name].attrs["resolution"] = voxel_nm
    return LibrarySpec(images=f"{path}/images", masks=f"{path}/masks")


def augmented(stack: Path, augment: AugmentSpec, crop: tuple[int, int, int] = (16, 16, 16)) -> NeuronsJob:
    """The job of `cubes` with another augmentation."""
    made = job(stack)
    training = made.training.model_copy(update={"augment": augment, "crop_shape_vox": crop, "steps": 2})
    return made.model_copy(update={"training": training})


def stained(stack: Path, library: LibrarySpec) -> NeuronsJob:
    """A job where every section is stained and nothing else happens."""
    defects = DefectSpec(artifact=1.0, library=library)
    return augmented(stack, AugmentSpec.none().model_copy(update={"defects": defects}))
