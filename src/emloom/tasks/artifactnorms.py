"""A detector with batch norm, for the images of another data set: `emloom artifacts recalibrate`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.grid import Vec3
from emloom.io.files import refuse_existing
from emloom.io.open import open_volume
from emloom.io.volume import read_padded
from emloom.nn.checkpoint import load_checkpoint
from emloom.nn.model import save
from emloom.nn.normstatistics import measure_again
from emloom.tasks.artifactmap import patch_predictor

_BATCH = 32


def recalibrate(
    model: str | Path,
    raw: str,
    output: str | Path,
    *,
    samples: int = 1024,
    seed: int = 0,
    voxel_size_nm: Vec3 | None = None,
) -> int:
    """Write a checkpoint whose batch norms have the statistics of a volume; return how many norms there are.

    Args:
        model: checkpoint of a classifier of patches.
        raw: path of a volume, of which nothing need be labelled.
        output: checkpoint to be written.
        samples: patches to look at, anywhere in the volume.
        seed: of where.
        voxel_size_nm: (z, y, x), only where the raw does not state it.

    Raises:
        InputError: the output exists, the checkpoint is no classifier of patches or has no batch norm, or the
            volume is smaller than a patch.
    """
    refuse_existing(Path(output))
    spec, predictor = patch_predictor(model, 32)
    volume = open_volume(raw, voxel_size_nm=voxel_size_nm, kind="raw")
    patch, reach = predictor.net.spec.patch, predictor.net.spec.sections // 2
    room = [n - m + 1 for n, m in zip(volume.info.shape, patch, strict=True)]
    if min(room) < 1 or samples < 1:
        raise InputError(
            f"{samples} patches of {patch} voxels in {raw}, {volume.info.shape}: give a larger volume, or at "
            "least 1"
        )
    starts = np.random.default_rng(seed).integers(0, room, (samples, 3))

    def batch(rows: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> torch.Tensor:
        boxes = [Box((z, y, x), patch).grow((reach, 0, 0)) for z, y, x in rows.tolist()]
        seen = [spec.preprocessing(read_padded(volume, box)) for box in boxes]
        return torch.from_numpy(np.stack(seen))[:, None]

    parts = (batch(starts[at : at + _BATCH]) for at in range(0, samples, _BATCH))
    norms = measure_again(predictor.net, parts)
    _, _, info = load_checkpoint(Path(model))
    save(Path(output), spec, predictor.net.state_dict(), {**info, "norms_measured_on": raw})
    return norms
