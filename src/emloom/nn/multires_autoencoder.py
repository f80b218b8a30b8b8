"""The multi-resolution autoencoder of artifact detection: a patch of 140 x 140 voxels as one vector.

Five levels of two valid convolutions (3 x 3, each with batch norm and leaky ReLU) and max pooling, until one
position is left; a kernel of one voxel makes the latent. Sizes in the plane, maps for f = 16::

    140  conv11, conv12 -> 136, pool          16 maps
     68  conv21, conv22 ->  64, pool          32
     32  conv31, conv32 ->  28, pool          64, and 32 that go straight to the latent ─┐
     14  conv41, conv42 ->  10, pool         128, and 64 that go straight to the latent ─┤
      5  conv51, conv52 ->   1               256 ────────────────────────────────────────┴─ latent 2048

The decoder mirrors it with transposed convolutions and repetition of voxels. The skips pass *through* the latent:
their maps are flattened, 64 * 10 * 10 + 32 * 28 * 28 numbers, and the latent weighs each of them. Unlike those of
a U-Net, they let nothing around it; but a weight belongs to a place within the patch, so that what is learned in
one corner must be learned again in every other.

Sections are independent: all kernels are (1, 3, 3).

A patch and a tile give the same latents. All convolutions are valid and poolings lie on a lattice, so position
(j, i) of the latent of a larger tile is that of the patch that starts at (16 j, 16 i), with and without skips: the
windows of the flattened maps move with it, by 4 voxels of level 3 and 2 of level 4. (In ``eval`` mode, that is: in
training, batch norm looks at the whole batch.)

The decoder without skips answers for larger tiles, too. With skips, it would give the whole window of every
position, and neighbouring ones overlap: it takes one position, a patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.layers import draw_weights
from emloom.nn.tilesize import TileRule
from emloom.spec import Spec

PATCH = 140
"""Voxels along y and x that one latent sees."""
STRIDE = 16
"""Voxels between neighbouring latents of a larger tile."""

_PLANE: Vec = (1, 3, 3)
_PIXEL: Vec = (1, 1, 1)
_HALVE: Vec = (1, 2, 2)
_SLOPE = 0.01  # of the leaky ReLU
_LEVELS = 5


@dataclass(frozen=True)
class Window:
    """Maps of a level that go straight to the latent.

    Attributes:
        level: counted from 1.
        maps: how many.
        size: voxels of the level along y and x that one latent sees.
        step: voxels of the level between the windows of neighbouring latents.
    """

    level: int
    maps: int
    size: int
    step: int

    @property
    def numbers(self) -> int:
        """Numbers that one latent sees."""
        return self.maps * self.size**2

    def flat(self, x: Tensor) -> Tensor:
        """Return all windows of ``[N, maps, Z, Y, X]``, flattened: ``[N, numbers, Z, Y', X']``, map by map."""
        windows = x.unfold(3, self.size, self.step).unfold(4, self.size, self.step)
        return windows.permute(0, 1, 5, 6, 2, 3, 4).flatten(1, 3)

    def unflat(self, x: Tensor) -> Tensor:
        """Return one window unflattened: ``[N, numbers, Z, 1, 1]`` -> ``[N, maps, Z, size, size]``."""
        return x.reshape(x.shape[0], self.maps, self.size, self.size, x.shape[2]).permute(0, 1, 4, 2, 3)


class MultiResolutionSpec(Spec):
    """The shape of a multi-resolution autoencoder; see the module."""

    kind: Literal["multi_resolution_autoencoder"] = "multi_resolution_autoencoder"
    f: int = Field(default=16, ge=1)
    """Feature maps at full resolution; every level has twice those of the one above."""
    n_latent: int = Field(default=2048, ge=1)
    """Numbers that stand for a patch."""
    skip: bool = True
    """Show the latent maps of levels 3 and 4, too, place by place; almost all weights are then in the latent."""
    batch_norm: bool = True
    """Normalise after every convolution but the last."""
    in_channels: int = Field(default=1, ge=1)
    """Channels of the input, and of the answer."""

    @property
    def maps(self) -> tuple[int, ...]:
        """Maps of every level that pass on to the next."""
        return tuple(self.f * 2**level for level in range(_LEVELS))

    @property
    def windows(self) -> tuple[Window, ...]:
        """What goes straight to the latent, in its order: first the coarser level."""
        return (Window(4, 4 * self.f, 10, 2), Window(3, 2 * self.f, 28, 4)) if self.skip else ()

    @property
    def n_flat(self) -> int:
        """Numbers that the latent is made of."""
        return self.maps[-1] + sum(window.numbers for window in self.windows)


class MultiResolutionEncoder(nn.Module):
    """Patches, or whole tiles, to latents: ``[N, C, Z, Y, X]`` -> ``[N, n_latent, Z, Y', X']``.

    ``Y' = (Y - 140) / 16 + 1``, and so along x.

    Args:
        spec: the shape of the net.
    """

    def __init__(self, spec: MultiResolutionSpec) -> None:
        super().__init__()
        self.spec = spec
        self.rule = TileRule((1, PATCH, PATCH), (1, STRIDE, STRIDE))
        aside = {window.level: window.maps for window in spec.windows}
        layers: dict[str, nn.Module] = {}
        n_in = spec.in_channels
        for level, maps in enumerate(spec.maps, start=1):
            layers[f"conv{level}1"] = _Layer(nn.Conv3d(n_in, maps, _PLANE), spec.batch_norm)
            layers[f"conv{level}2"] = _Layer(nn.Conv3d(maps, maps + aside.get(level, 0), _PLANE), spec.batch_norm)
            n_in = maps
        layers["latent"] = _Layer(nn.Conv3d(spec.n_flat, spec.n_latent, _PIXEL), spec.batch_norm)
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the latents.

        Raises:
            InputError: the tile does not fit, see `rule`; or batch norm is to learn from a single patch.
        """
        self.rule.check(x.shape[2:])
        if self.training and self.spec.batch_norm and tuple(x.shape[:1] + x.shape[2:]) == (1, 1, PATCH, PATCH):
            raise InputError(
                "a batch of 1 patch has no statistics for batch norm: train with more patches, or set batch_norm "
                "to false"
            )
        aside: dict[int, Tensor] = {}
        for level, maps in enumerate(self.spec.maps, start=1):
            x = self.layers[f"conv{level}2"](self.layers[f"conv{level}1"](x))
            aside[level], x = x[:, maps:], x[:, :maps]
            if level < _LEVELS:
                x = functional.max_pool3d(x, _HALVE)
        flat = [window.flat(aside[window.level]) for window in self.spec.windows]
        latent: Tensor = self.layers["latent"](torch.cat([x, *flat], dim=1))
        return latent


class MultiResolutionDecoder(nn.Module):
    """Latents to patches: ``[N, n_latent, Z, 1, 1]`` -> ``[N, C, Z, 140, 140]``, linear.

    Without skips, ``[N, n_latent, Z, Y', X']`` to a tile with ``Y = 140 + 16 (Y' - 1)``, and so along x.

    Args:
        spec: the shape of the net.
    """

    def __init__(self, spec: MultiResolutionSpec) -> None:
        super().__init__()
        self.spec = spec
        joined = {window.level: window.maps for window in spec.windows}
        layers: dict[str, nn.Module] = {
            "latent": _Layer(nn.ConvTranspose3d(spec.n_latent, spec.n_flat, _PIXEL), spec.batch_norm)
        }
        for level in range(_LEVELS, 0, -1):
            maps, n_out = spec.maps[level - 1], spec.maps[level - 2]
            wide = maps + joined.get(level, 0)
            layers[f"convt{level}2"] = _Layer(nn.ConvTranspose3d(wide, maps, _PLANE), spec.batch_norm)
            if level > 1:
                layers[f"convt{level}1"] = _Layer(nn.ConvTranspose3d(maps, n_out, _PLANE), spec.batch_norm)
        last = nn.ConvTranspose3d(spec.maps[0], spec.in_channels, _PLANE)
        draw_weights(last, 1)
        layers["convt11"] = last
        self.layers = nn.ModuleDict(layers)

    def forward(self, latent: Tensor) -> Tensor:
        """Return the reconstruction.

        Raises:
            InputError: a net with skips is given the latents of more than one position.
        """
        if self.spec.skip and latent.shape[3:] != (1, 1):
            raise InputError(
                f"latents of {tuple(latent.shape[3:])} positions (y, x) cannot be decoded together by a net with "
                f"skips, whose windows overlap: decode one position at a time, a patch of {PATCH} x {PATCH} voxels"
            )
        flat = self.layers["latent"](latent)
        x, *rest = flat.split([self.spec.maps[-1], *(window.numbers for window in self.spec.windows)], dim=1)
        aside = {
            window.level: window.unflat(numbers) for window, numbers in zip(self.spec.windows, rest, strict=True)
        }
        for level in range(_LEVELS, 0, -1):
            if level < _LEVELS:
                x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
            if level in aside:
                x = torch.cat([x, aside[level]], dim=1)
            x = self.layers[f"convt{level}1"](self.layers[f"convt{level}2"](x))
        out: Tensor = x
        return out


class MultiResolutionAutoencoder(nn.Module):
    """A multi-resolution autoencoder: float ``[N, C, Z, Y, X]`` to the same shape.

    Weights are drawn from torch's global generator (`draw_weights`), biases start at 0.

    Args:
        spec: the shape of the net.
    """

    def __init__(self, spec: MultiResolutionSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = MultiResolutionEncoder(spec)
        self.decoder = MultiResolutionDecoder(spec)

    @property
    def rule(self) -> TileRule:
        """Which tiles can be reconstructed: with skips, patches; the encoder alone takes more, see its `rule`."""
        return TileRule((1, PATCH, PATCH), (1, 0, 0)) if self.spec.skip else self.encoder.rule

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction; raises `InputError` where the tile does not fit, see `rule`."""
        self.rule.check(x.shape[2:])
        out: Tensor = self.decoder(self.encoder(x))
        return out

    def latent(self, x: Tensor) -> Tensor:
        """Return the latents; raises `InputError` where the tile does not fit the encoder."""
        latent: Tensor = self.encoder(x)
        return latent

    def decode(self, latent: Tensor) -> Tensor:
        """Return the reconstruction from latents; raises `InputError` as `MultiResolutionDecoder` does."""
        out: Tensor = self.decoder(latent)
        return out


class _Layer(nn.Sequential):
    """A convolution, a norm if there is one, and leaky ReLU."""

    def __init__(self, conv: nn.Conv3d | nn.ConvTranspose3d, batch_norm: bool) -> None:
        draw_weights(conv, _SLOPE)
        norm = [nn.BatchNorm3d(conv.out_channels)] if batch_norm else []
        super().__init__(conv, *norm, nn.LeakyReLU(_SLOPE))
