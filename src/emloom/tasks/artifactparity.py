"""Prove on a checkpoint and a volume that training and prediction say the same of a patch."""

from __future__ import annotations

from pathlib import Path

from emloom.geometry.grid import Vec3
from emloom.io.open import open_volume
from emloom.nn.patchparity import Parity, check_patches
from emloom.tasks.artifactmap import patch_predictor


def parity_of(
    model: str | Path, raw: str, *, samples: int = 32, step: int = 32, voxel_size_nm: Vec3 | None = None
) -> Parity:
    """Compare the training loader and prediction; see `emloom.nn.patchparity`.

    Args:
        model: checkpoint of a classifier of patches.
        raw: path of a volume of the model's voxel size.
        samples: patches to ask about.
        step: of the map, voxels.
        voxel_size_nm: (z, y, x), only where the raw does not state it.

    Raises:
        InputError: the checkpoint is damaged or no classifier of patches, the volume cannot be opened, has another
            voxel size, or is smaller than a patch.
    """
    spec, predictor = patch_predictor(model, step)
    volume = open_volume(raw, voxel_size_nm=voxel_size_nm, kind="raw")
    return check_patches(spec, predictor.net, volume, samples=samples, step=step)
