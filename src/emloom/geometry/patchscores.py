"""Scores of patches: what a detector says about boxes of one shape, beside what people say (`PatchLabels`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emloom.errors import InputError
from emloom.geometry.box import Vec, as_vec
from emloom.geometry.grid import Grid
from emloom.geometry.skeletons import Floats, Rows


@dataclass(frozen=True, eq=False)
class PatchScores:
    """How likely each patch is what is looked for.

    Attributes:
        grid: voxel size and offset of the volume.
        shape: voxels (z, y, x) of every patch.
        starts: int64 [N, 3], first voxel (z, y, x) of every patch, each once.
        scores: float64 [N], finite, higher is more likely; within 0 and 1 where they are to be calibrated.
        source: path shown in messages.

    Raises:
        InputError: lengths or types disagree, a score is not finite, or a patch stands twice.
    """

    grid: Grid
    shape: Vec
    starts: Rows
    scores: Floats
    source: str = "scores"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", as_vec(self.shape))
        n = len(self.starts)
        for name, dtype, shape in (("starts", np.int64, (n, 3)), ("scores", np.float64, (n,))):
            array = np.asarray(getattr(self, name))
            if array.dtype != dtype or array.shape != shape:
                raise InputError(
                    f"{self.source}: {name} is {array.dtype} {array.shape}: give {np.dtype(dtype)} {shape}"
                )
            frozen = array.view()
            frozen.flags.writeable = False
            object.__setattr__(self, name, frozen)
        infinite = np.flatnonzero(~np.isfinite(self.scores))
        if infinite.size:
            raise InputError(
                f"{self.source}: the patch at {self.starts[infinite[0]].tolist()} (z, y, x) has the score "
                f"{self.scores[infinite[0]]}: leave out patches without a score"
            )
        distinct, counts = np.unique(self.starts, axis=0, return_counts=True)
        if len(distinct) < n:
            raise InputError(
                f"{self.source}: the patch at {distinct[counts > 1][0].tolist()} (z, y, x) has two scores: keep "
                "one"
            )

    def __len__(self) -> int:
        return len(self.starts)
