"""Held-out tissue with planted artifacts: a test where nobody has labelled any.

Every section of a box is, with the probability of the objective, given an artifact as a whole section has it, not
patch by patch: what is around an artifact, and what it moved, is tested, too. A function of (seed, section) alone;
several seeds plant the same box several times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from emloom.geometry import Box
from emloom.io.volume import ArrayVolume, Volume
from emloom.nn.coding import GreyValue
from emloom.nn.planting import PlantSpec, plant
from emloom.nn.preprocess import Preprocessing

DAMAGED, MOVED = 1, 2
"""In the volume of what was planted: where an artifact is seen, and sound tissue that it moved."""


def planted_box(
    spec: PlantSpec, preprocessing: Preprocessing, raw: Volume, box: Box, seed: Sequence[int]
) -> tuple[ArrayVolume, ArrayVolume]:
    """Return the raw of a box with planted artifacts, in its type, and uint8 where they are; both in memory.

    Args:
        spec: what is planted.
        preprocessing: that of the model, in whose grey values artifacts are drawn.
        raw: ``zyx`` volume of clean tissue.
        box: of it.
        seed: of everything that is drawn.
    """
    grid = raw.info.grid.crop(box)
    grey = raw.read(box)
    where = np.zeros(box.shape, np.uint8)
    stored = GreyValue(preprocessing.low, preprocessing.high, grey.dtype)
    for z in range(box.shape[0]):
        section = np.ascontiguousarray(preprocessing(grey[z : z + 1]))
        rng = np.random.default_rng([*seed, box.start[0] + z])
        for each in plant(spec, section, 0, grid.voxel_size_nm, rng):
            where[z][each.moved & (where[z] == 0)] = MOVED
            where[z][each.mask] = DAMAGED
        grey[z] = stored(torch.from_numpy(section), "planted")[0]
    return ArrayVolume(grey, grid, kind="raw"), ArrayVolume(where, grid, kind="labels")
