"""A light encoder of patches: that of the multi-resolution autoencoder, whose latent sees its skips pooled.

Flattened, the two skips are 31,488 numbers of a patch of 140 x 140 voxels, and the layer that weighs each of them
65 of 66 million weights and four fifths of the work of a dense map. Whether there is dirt in a patch does not
depend on where: here every map of a skip is seen as the mean and the largest of each of a few cells::

    level 3   32 maps of 28 x 28  ┐  cells of 14 x 14 (2 x 2 of them)  mean, largest      256 numbers
    level 4   64 maps of 10 x 10  ┘  cells of  5 x  5                  mean, largest      512
    level 5  256 maps of  1 x  1                                       as they are        256   -> latent 256

A tile gives the latents of its patches: cells move with the patch, as windows do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional

from emloom.nn.multires_autoencoder import MultiResolutionEncoder, MultiResolutionSpec, Window
from emloom.spec import Spec


def _light() -> MultiResolutionSpec:
    return MultiResolutionSpec(n_latent=256, batch_norm=False)


class PooledEncoderSpec(Spec):
    """The shape of a light encoder; see the module."""

    kind: Literal["pooled_encoder"] = "pooled_encoder"
    levels: MultiResolutionSpec = Field(default_factory=_light)
    """The encoder that is made light; it has skips."""
    cells: int = Field(default=2, ge=1)
    """Cells along y and x of every pooled window."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.levels.skip:
            raise ValueError("an encoder without skips has nothing to pool: use it as it is, or set skip to true")
        for window in self.levels.windows:
            if window.size > 1 and window.size % self.cells:
                raise ValueError(
                    f"cells {self.cells} do not divide the {window.size} voxels of level {window.level}: choose a "
                    "divisor of " + ", ".join(str(w.size) for w in self.levels.windows if w.size > 1)
                )
        return self

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.levels.in_channels

    @property
    def n_latent(self) -> int:
        """Numbers that stand for a patch."""
        return self.levels.n_latent

    @property
    def patch(self) -> int:
        """Voxels along y and x that one latent sees."""
        return self.levels.patch

    @property
    def stride(self) -> int:
        """Voxels between neighbouring latents of a larger tile."""
        return self.levels.stride


class PooledEncoder(MultiResolutionEncoder):
    """Patches, or whole tiles, to latents: as `MultiResolutionEncoder`.

    Args:
        spec: the shape of the net.
    """

    def __init__(self, spec: PooledEncoderSpec) -> None:
        self.cells = spec.cells
        super().__init__(spec.levels)

    def numbers(self) -> int:
        """Return how many numbers each latent is made of."""
        return sum(window.maps * (2 * self.cells**2 if window.size > 1 else 1) for window in self.spec.windows)

    def seen(self, maps: Mapping[int, Tensor], every: int) -> Tensor:
        """Return what each latent is made of, ``[N, numbers, Z, Y', X']``."""
        parts = []
        for window in self.spec.windows:
            shown = maps[window.level]
            parts += [window.flat(shown, every)] if window.size == 1 else self._pooled(shown, window, every)
        return torch.cat(parts, dim=1)

    def _pooled(self, maps: Tensor, window: Window, every: int) -> list[Tensor]:
        """Return mean and largest of every cell, each ``[N, maps, Z, Y', X']``."""
        cell, step = window.size // self.cells, window.step * every
        out = []
        for top in range(0, window.size, cell):
            for left in range(0, window.size, cell):
                # The last cell of a row ends with the maps; what others have beyond theirs makes no whole step.
                bottom = maps.shape[3] - (window.size - cell - top)
                right = maps.shape[4] - (window.size - cell - left)
                part = maps[..., top:bottom, left:right]
                out += [
                    functional.avg_pool3d(part, (1, cell, cell), (1, step, step)),
                    functional.max_pool3d(part, (1, cell, cell), (1, step, step)),
                ]
        return out
