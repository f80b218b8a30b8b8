"""What the encoder of a trained model shows of patches: its levels and its latent, for one patch or many at once.

Two families, told apart by what a patch is for them::

    windows    encoder of a patch net, multi-resolution or variational autoencoder: valid convolutions, one size of
               patch; on a tile, positions of a level move with the patches
    levels     fcn, atrous and unet autoencoders: any size of patch; a tile is grown by the context, so that
               positions do not feel its faces

In both, a tile of patches whose step is a multiple of the encoder's stride shows of each patch what the patch
alone shows (law 9), up to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Protocol

import torch
from torch import Tensor

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.nn.level_autoencoders import LevelAutoencoder
from emloom.nn.model import ModelSpec, Network
from emloom.nn.multires_autoencoder import MultiResolutionEncoder
from emloom.nn.patchnet import PatchNet
from emloom.nn.reconstruct import RECONSTRUCTION, Reconstructor
from emloom.nn.variational import VariationalAutoencoder
from emloom.nn.voxel_autoencoder import VoxelAutoencoder

Pair = tuple[int, int]


@dataclass(frozen=True)
class LevelMap:
    """A level of a tile.

    Attributes:
        values: ``[C, Z, Y, X]``.
        size: positions (y, x) that a patch has; its first is that of the tile for the tile's first patch.
        scale: voxels (y, x) between positions.
    """

    values: Tensor
    size: Pair
    scale: Pair

    def windows(self, step: Pair) -> Tensor:
        """Return the positions of every patch, ``[Y', X', C, Z, size, size]``, patches `step` voxels apart.

        What is left of the tile beyond its last whole patch is not looked at.
        """
        y, x = (s // scale for s, scale in zip(step, self.scale, strict=True))
        cut = self.values.unfold(2, self.size[0], y).unfold(3, self.size[1], x)
        return cut.permute(2, 3, 0, 1, 4, 5)


class PatchEncoder(Protocol):
    """The encoder of a model, for patches of one shape."""

    @property
    def n_levels(self) -> int:
        """Levels there are, the first at full resolution."""

    @property
    def stride(self) -> Pair:
        """Patches whose step (y, x) is a multiple of it can share a tile."""

    def to_read(self, tile: Box) -> Box:
        """Return the voxels that must be seen to encode a tile of patches."""

    def levels(self, seen_ZYX: Tensor, tile: Vec) -> list[LevelMap]:
        """Return all levels of a tile, full resolution first."""

    def latents(self, seen_ZYX: Tensor, tile: Vec, step: Pair) -> Tensor:
        """Return the latents of the patches of a tile, ``[Y', X', D]``."""

    def reconstruction(self, seen_ZYX: Tensor, tile: Vec) -> Tensor:
        """Return what is given back of a tile that is one patch, ``[Z, Y, X]``.

        Raises:
            InputError: the model does not reconstruct.
        """


def patch_encoder(model: ModelSpec, network: Network, patch: Vec) -> PatchEncoder:
    """Return the encoder of a network, for patches of a shape (z, y, x).

    Raises:
        InputError: the model is neither an autoencoder nor a classifier of patches, or knows another patch only.
    """
    if isinstance(network, PatchNet):
        return Windows(network.encoder, network.spec.sections, None, patch)
    if not isinstance(network, Reconstructor) or RECONSTRUCTION not in network.channels:
        raise InputError(
            f"the model learned {model.objective.kind!r}: features of patches are those of an autoencoder "
            "(reconstruction) or of a classifier of patches (artifacts)"
        )
    net = network.net
    if isinstance(net, LevelAutoencoder):
        return Levels(net, patch)
    if isinstance(net, VoxelAutoencoder):
        raise InputError(
            "a voxel_autoencoder trains the backbone of a centre-voxel network, and its window is a cube: "
            "features of patches are those of other autoencoders, e.g. multi_resolution_autoencoder"
        )
    inner = net.net if isinstance(net, VariationalAutoencoder) else net
    return Windows(inner.encoder, 1, network, patch)


class Windows:
    """Patches of an encoder of valid convolutions; see `PatchEncoder`.

    Args:
        encoder: the encoder.
        sections: that it is shown, the patch in the middle.
        network: the autoencoder it is of; None: it is of none.
        patch: voxels (z, y, x), which must be the encoder's own.
    """

    def __init__(
        self, encoder: MultiResolutionEncoder, sections: int, network: Reconstructor | None, patch: Vec
    ) -> None:
        own = (1, encoder.spec.patch, encoder.spec.patch)
        if patch != own:
            raise InputError(
                f"the labels are of patches of {patch} voxels (z, y, x), and the model knows {own} only: "
                "label patches of that size, or take a model that takes any: fcn_, atrous_ or unet_autoencoder"
            )
        self._encoder, self._sections, self._network = encoder, sections, network

    @property
    def n_levels(self) -> int:
        """Levels there are."""
        return len(self._encoder.spec.maps)

    @property
    def stride(self) -> Pair:
        """Voxels between neighbouring latents."""
        return (self._encoder.spec.stride, self._encoder.spec.stride)

    def to_read(self, tile: Box) -> Box:
        """Return the tile and its neighbouring sections."""
        return tile.grow((self._sections // 2, 0, 0))

    def levels(self, seen_ZYX: Tensor, tile: Vec) -> list[LevelMap]:
        """Return what every level shows, its own maps and those that go straight to the latent."""
        x, spec, found = self._shown(seen_ZYX), self._encoder.spec, []
        for level, size in enumerate(spec.sizes, start=1):
            aside, x = self._encoder.one_level(x, level)
            scale = 2 ** (level - 1)
            found.append(LevelMap(torch.cat([x, aside], dim=1)[0], (size, size), (scale, scale)))
            if level < len(spec.sizes):
                x = torch.nn.functional.max_pool3d(x, (1, 2, 2))
        return found

    def latents(self, seen_ZYX: Tensor, tile: Vec, step: Pair) -> Tensor:
        """Return the latents; of a variational autoencoder their means."""
        every = max(1, gcd(*step) // self.stride[0])
        latents = self._encoder(self._shown(seen_ZYX), every)
        net = None if self._network is None else self._network.net
        if isinstance(net, VariationalAutoencoder):
            latents = net.mu(latents)
        y, x = (max(1, n // (every * self.stride[0])) for n in step)
        out: Tensor = latents[0, :, 0, ::y, ::x].permute(1, 2, 0)
        return out

    def reconstruction(self, seen_ZYX: Tensor, tile: Vec) -> Tensor:
        """Return the reconstruction of one patch."""
        if self._network is None:
            raise InputError(
                "a classifier of patches gives nothing back: reconstruction errors need an autoencoder"
            )
        back: Tensor = self._network(seen_ZYX[None, None])[RECONSTRUCTION][0, 0]
        return back

    def _shown(self, seen: Tensor) -> Tensor:
        return seen[None, :, None] if self._sections > 1 else seen[None, None]


class Levels:
    """Patches of an autoencoder of levels; see `PatchEncoder`.

    The latent of a patch is the mean and the largest of every map of the deepest level.

    Args:
        net: the autoencoder.
        patch: voxels (z, y, x).
    """

    def __init__(self, net: LevelAutoencoder, patch: Vec) -> None:
        self._net, self._patch = net, patch
        one: Vec = (1, 1, 1)
        self._scales = [one] * len(net.spec.scales) if net.dilated else list(net.spec.scales)

    @property
    def n_levels(self) -> int:
        """Levels there are."""
        return len(self._scales)

    @property
    def stride(self) -> Pair:
        """Voxels between equivalent positions."""
        return self._net.lattice[1:]

    def to_read(self, tile: Box) -> Box:
        """Return the tile, filled up to the lattice, with its context."""
        z, y, x = (-(-n // step) * step for n, step in zip(tile.shape, self._net.lattice, strict=True))
        return Box(tile.start, (z, y, x)).grow(self._net.context)

    def levels(self, seen_ZYX: Tensor, tile: Vec) -> list[LevelMap]:
        """Return what every level shows on the way down."""
        found = []
        for values, scale in zip(self._net.encode(seen_ZYX[None, None]), self._scales, strict=True):
            size = tuple(-(-n // step) for n, step in zip(self._patch[1:], scale[1:], strict=True))
            inside = tuple(
                slice(c // step, c // step - (-n // step))
                for c, n, step in zip(self._net.context, (self._patch[0], *tile[1:]), scale, strict=True)
            )
            found.append(LevelMap(values[0][:, *inside], (size[0], size[1]), scale[1:]))
        return found

    def latents(self, seen_ZYX: Tensor, tile: Vec, step: Pair) -> Tensor:
        """Return mean and largest of the deepest level."""
        deepest = self.levels(seen_ZYX, tile)[-1].windows(step).flatten(3)
        return torch.cat([deepest.mean(dim=3), deepest.amax(dim=3)], dim=2)

    def reconstruction(self, seen_ZYX: Tensor, tile: Vec) -> Tensor:
        """Return the reconstruction of one patch, seen with its context."""
        z, y, x = (slice(c, c + n) for c, n in zip(self._net.context, tile, strict=True))
        back: Tensor = self._net(seen_ZYX[None, None])[0, 0, z, y, x]
        return back
