"""An autoencoder as the engine sees it: one head, usually `reconstruction`, and tiles it can be shown.

*Level* nets answer for tiles of any size that pools, exactly: a tile sees as far around it as any of its voxels
look (`context`), so tiled prediction equals one large tile. *Patch* nets, multi-resolution and variational, know
one size: a tile is cut into patches on the lattice of absolute voxels, each is reconstructed by itself, and the
seams between them are what the net makes of the edges of a patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from emloom.geometry import Vec
from emloom.nn.autoencoders import Autoencoder
from emloom.nn.level_autoencoders import LevelAutoencoder
from emloom.nn.objectives.base import Answers
from emloom.nn.reshape import crop, fitting_output
from emloom.nn.variational import VariationalAnswer

RECONSTRUCTION = "reconstruction"
"""Name of the head."""

_FLOATS_PER_VOXEL = 64  # of a patch net's first levels, generously


class Reconstructor(nn.Module):
    """An autoencoder with the properties of `emloom.nn.heads.DenseNet`.

    ``forward`` maps float ``[N, 1, Z, Y, X]`` to ``{head: [N, channels, Z, Y, X]}``, linear; a variational net
    also answers ``mu`` and ``logvar``.

    Args:
        net: the autoencoder, or a level net that was given other channels to answer with.
        head: what its answer is called.
        channels: of the answer.
    """

    def __init__(self, net: Autoencoder, head: str = RECONSTRUCTION, channels: int = 1) -> None:
        super().__init__()
        # Channels last: with few maps, a training step takes half the time of the usual layout on a processor.
        self.net: Autoencoder = net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.head = head
        self.channels = {head: channels}

    @property
    def patch(self) -> Vec | None:
        """Voxels (z, y, x) of the patches that tiles are cut into; None: tiles are answered whole."""
        return None if isinstance(self.net, LevelAutoencoder) else self.net.rule.first

    @property
    def lattice(self) -> Vec:
        """Voxels (z, y, x) between equivalent positions."""
        return self.net.lattice if isinstance(self.net, LevelAutoencoder) else self.net.rule.first

    @property
    def context(self) -> Vec:
        """Voxels (z, y, x) per side that an answer needs to see around it."""
        return self.net.context if isinstance(self.net, LevelAutoencoder) else (0, 0, 0)

    @property
    def tile_dependent(self) -> bool:
        """Whether the answer at a voxel depends on the tile around it: never."""
        return False

    def input_shape(self, wanted: Sequence[int]) -> Vec:
        """Return the tile itself.

        Raises:
            InputError: it does not fit the network; the message names the next sizes that do.
        """
        self.net.rule.check(wanted)
        z, y, x = wanted
        return (z, y, x)

    def output_shape(self, input_shape: Sequence[int]) -> Vec:
        """Return the voxels ``forward`` answers for: all; raises `InputError` where the tile does not fit."""
        return self.input_shape(input_shape)

    def peak_bytes(self, input_shape: Sequence[int]) -> int:
        """Return an estimate of the memory that one float32 tile takes in prediction."""
        if isinstance(self.net, LevelAutoencoder):
            return 4 * (self.net.peak_floats(input_shape) + 2 * self.channels[self.head] * prod(input_shape))
        return 4 * (_FLOATS_PER_VOXEL * prod(self.net.rule.first) + 2 * prod(input_shape))

    def forward(self, x: Tensor) -> Answers:
        """Return the answers; raises `InputError` where the tile does not fit."""
        x = x.contiguous(memory_format=torch.channels_last_3d)
        answer = self.net(x)
        if isinstance(answer, VariationalAnswer):
            return {self.head: answer.reconstruction, **answer.posterior._asdict()}
        return {self.head: answer}

    def interior(self, x: Tensor) -> Answers:
        """Return the answer for the input without its outer `context` voxels.

        Raises:
            InputError: less its context, the input is no multiple of the lattice.
        """
        fitting_output(x.shape[2:], self.lattice, self.context)
        if self.patch is None:
            return {self.head: crop(self.forward(x)[self.head], self.context)}
        return {self.head: self._patchwise(x, self.patch)}

    def latent(self, x: Tensor) -> Tensor:
        """Return what a tile is reduced to, ``[N, C, Z', Y', X']``."""
        return self.net.latent(x)

    def _patchwise(self, x: Tensor, patch: Vec) -> Tensor:
        out = x.new_empty(x.shape)
        for sample in range(x.shape[0]):
            for y in range(0, x.shape[3], patch[1]):
                for z in range(0, x.shape[2], patch[0]):
                    at = (slice(z, z + patch[0]), slice(y, y + patch[1]))
                    row = x[sample, :, *at].unfold(3, patch[2], patch[2])
                    answer = self.forward(row.movedim(3, 0))[self.head]
                    out[sample, :, *at] = answer.movedim(0, 3).flatten(3)
        return out
