"""The multi-resolution autoencoder of artifact detection: a patch of 140 x 140 voxels as one vector.

By default, five levels of two valid convolutions (3 x 3, each with batch norm and leaky ReLU) and max pooling,
until one position is left; a kernel of one voxel makes the latent. Sizes in the plane, maps for f = 16::

    140  conv11, conv12 -> 136, pool          16 maps
     68  conv21, conv22 ->  64, pool          32
     32  conv31, conv32 ->  28, pool          64, and 32 that go straight to the latent ─┐
     14  conv41, conv42 ->  10, pool         128, and 64 that go straight to the latent ─┤
      5  conv51, conv52 ->   1               256 ────────────────────────────────────────┴─ latent 2048

The decoder mirrors it with transposed convolutions and repetition of voxels. The skips pass *through* the latent:
their maps are flattened, 64 * 10 * 10 + 32 * 28 * 28 numbers, and the latent weighs each of them. Unlike those of
a U-Net, they let nothing around it; but a weight belongs to a place within the patch, so that what is learned in
one corner must be learned again in every other.

The levels can be others. The deepest may have no convolution, it is then pooled and taken as is; and a latent may
see a window of it, place by place, as it sees the skips: a linear layer of flattened maps. Two that were used::

    convolutions (1, 1, 1, 1, 0)               46 -> 44, pool, 22 -> 20, pool, 10 -> 8, pool, 4 -> 2, pool, 1
    convolutions (1, 1, 1, 1, 0), window 17    302 -> 300, pool, 150 -> 148, pool, ... 36 -> 34, pool, 17

Sections are independent: all kernels are (1, 3, 3).

A patch and a tile give the same latents. All convolutions are valid and poolings lie on a lattice, so position
(j, i) of the latent of a larger tile is that of the patch that starts at (16 j, 16 i), with and without skips: the
windows of the flattened maps move with it, by 4 voxels of level 3 and 2 of level 4. (In ``eval`` mode, that is: in
training, batch norm looks at the whole batch.)

The decoder without skips answers for larger tiles, too. With skips, or a window of the deepest level, it would
give the whole window of every position, and neighbouring ones overlap: it takes one position, a patch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.flat import Conv
from emloom.nn.layers import draw_weights
from emloom.nn.tilesize import TileRule
from emloom.spec import Spec

_PLANE: Vec = (1, 3, 3)
_PIXEL: Vec = (1, 1, 1)
_HALVE: Vec = (1, 2, 2)
_MOST = 9  # levels, and convolutions of one: both are digits in the names of layers


@dataclass(frozen=True)
class Window:
    """Maps of a level that the latent sees, place by place.

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

    def flat(self, x: Tensor, every: int = 1) -> Tensor:
        """Return windows of ``[N, maps, Z, Y, X]``, flattened: ``[N, numbers, Z, Y', X']``, map by map.

        Of the windows along y and x, each `every`-th.
        """
        step = self.step * every
        if self.size == 1:
            return x[..., ::step, ::step]
        windows = x.unfold(3, self.size, step).unfold(4, self.size, step)
        return windows.permute(0, 1, 5, 6, 2, 3, 4).flatten(1, 3)

    def unflat(self, x: Tensor) -> Tensor:
        """Return one window unflattened: ``[N, numbers, Z, 1, 1]`` -> ``[N, maps, Z, size, size]``.

        Windows of one voxel are what they were, however many.
        """
        if self.size == 1:
            return x
        return x.reshape(x.shape[0], self.maps, self.size, self.size, x.shape[2]).permute(0, 1, 4, 2, 3)


class MultiResolutionSpec(Spec):
    """The shape of a multi-resolution autoencoder; see the module."""

    kind: Literal["multi_resolution_autoencoder"] = "multi_resolution_autoencoder"
    f: int = Field(default=16, ge=1)
    """Feature maps at full resolution; every level has twice those of the one above."""
    n_latent: int = Field(default=2048, ge=1)
    """Numbers that stand for a patch."""
    skip: bool = True
    """Show the latent maps of the two levels above the deepest, too; almost all weights are then in the latent."""
    batch_norm: bool = True
    """Normalise after every convolution but the last."""
    plain: tuple[Literal["first", "latent"], ...] = ()
    """Layers without norm where others have one: the first convolution; those to the latent and from it."""
    slope: float = Field(default=0.01, ge=0, lt=1)
    """Of the leaky ReLU, for negative values; 0 is ReLU."""
    convolutions: tuple[int, ...] = (2, 2, 2, 2, 2)
    """How many every level has, full resolution first; the deepest may have none."""
    window: int = Field(default=1, ge=1)
    """Voxels of the deepest level, along y and x, that one latent sees."""
    in_channels: int = Field(default=1, ge=1)
    """Channels of the input, and of the answer."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        counts = self.convolutions
        if not 2 <= len(counts) <= _MOST or max(counts) > _MOST or min(*counts[:-1], counts[-1] + 1) < 1:
            raise ValueError(
                f"convolutions {counts} must name 2 to {_MOST} levels, each with 1 to {_MOST}; "
                "only the deepest may have 0"
            )
        if self.skip and len(counts) < 4:
            raise ValueError(f"skips need at least 4 levels, got {len(counts)}: add levels, or set skip to false")
        return self

    @property
    def maps(self) -> tuple[int, ...]:
        """Maps of every level that pass on to the next; a deepest level without convolutions adds none."""
        levels = len(self.convolutions)
        deepest = levels - 1 if self.convolutions[-1] else levels - 2
        return tuple(self.f * 2 ** min(level, deepest) for level in range(levels))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Voxels along y and x of every level, after its convolutions, that one latent sees."""
        sizes = [self.window]
        for count in reversed(self.convolutions[1:]):
            sizes.append(2 * (sizes[-1] + 2 * count))
        return tuple(reversed(sizes))

    @property
    def patch(self) -> int:
        """Voxels along y and x that one latent sees."""
        return self.sizes[0] + 2 * self.convolutions[0]

    @property
    def stride(self) -> int:
        """Voxels between neighbouring latents of a larger tile."""
        return int(2 ** (len(self.convolutions) - 1))

    @property
    def windows(self) -> tuple[Window, ...]:
        """What the latent sees, in its order: the deepest level, then the skips, first the coarser level."""
        last = len(self.convolutions)
        above = (last - 1, last - 2) if self.skip else ()
        skips = (Window(n, self.maps[n - 1] // 2, self.sizes[n - 1], 2 ** (last - n)) for n in above)
        return (Window(last, self.maps[-1], self.window, 1), *skips)

    @property
    def n_flat(self) -> int:
        """Numbers that the latent is made of."""
        return sum(window.numbers for window in self.windows)

    @property
    def placed(self) -> bool:
        """Whether the latent weighs places within the patch, so that it is decoded one position at a time."""
        return self.skip or self.window > 1

    @property
    def needs_several(self) -> bool:
        """Whether batch norm cannot learn from a single patch: somewhere it sees one number per map."""
        one_voxel = self.window == 1 and self.convolutions[-1] > 0
        return self.batch_norm and (one_voxel or "latent" not in self.plain)


class MultiResolutionEncoder(nn.Module):
    """Patches, or whole tiles, to latents: ``[N, C, Z, Y, X]`` -> ``[N, n_latent, Z, Y', X']``.

    ``Y' = (Y - patch) / stride + 1``, and so along x; 140 and 16 by default.

    Args:
        spec: the shape of the net.
    """

    def __init__(self, spec: MultiResolutionSpec) -> None:
        super().__init__()
        self.spec = spec
        self.rule = TileRule((1, spec.patch, spec.patch), (1, spec.stride, spec.stride))
        aside = {window.level: window.maps for window in spec.windows[1:]}
        layers: dict[str, nn.Module] = {}
        n_in = spec.in_channels
        for level, (maps, count) in enumerate(zip(spec.maps, spec.convolutions, strict=True), start=1):
            for index in range(1, count + 1):
                n_out = maps + (aside.get(level, 0) if index == count else 0)
                conv = Conv(n_in, n_out, _PLANE)
                layers[f"conv{level}{index}"] = _Layer(conv, spec, None if layers else "first")
                n_in = maps
        layers["latent"] = _Layer(Conv(self.numbers(), spec.n_latent, _PIXEL), spec, "latent")
        self.layers = nn.ModuleDict(layers)

    def forward(self, x: Tensor, every: int = 1) -> Tensor:
        """Return the latents, or of every row and column of them each `every`-th.

        Raises:
            InputError: the tile does not fit, see `rule`; or batch norm is to learn from a single patch.
        """
        self.rule.check(x.shape[2:])
        if self.training and self.spec.needs_several and (*x.shape[:1], *x.shape[2:]) == (1, *self.rule.first):
            raise InputError(
                "a batch of 1 patch has no statistics for batch norm: train with more patches, or set batch_norm "
                "to false"
            )
        latent: Tensor = self.layers["latent"](self.seen(self.finish(x), every))
        return latent

    def finish(self, x: Tensor, level: int = 1) -> dict[int, Tensor]:
        """Return what the latent sees, by level: the maps of the deepest, and those that go straight to it.

        Args:
            x: what enters `level`: the tile, or what the level above passes on, pooled.
            level: first level to compute; those that the latent sees come after it.
        """
        aside: dict[int, Tensor] = {}
        for number in range(level, len(self.spec.maps) + 1):
            aside[number], x = self.one_level(x, number)
            if number < len(self.spec.maps):
                x = functional.max_pool3d(x, _HALVE)
        return aside | {len(self.spec.maps): x}

    def one_level(self, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Return what a level shows to the latent, and what it passes on, before pooling."""
        for index in range(1, self.spec.convolutions[level - 1] + 1):
            x = self.layers[f"conv{level}{index}"](x)
        maps = self.spec.maps[level - 1]
        return x[:, maps:], x[:, :maps]

    def numbers(self) -> int:
        """Return how many numbers each latent is made of."""
        return self.spec.n_flat

    def seen(self, maps: Mapping[int, Tensor], every: int) -> Tensor:
        """Return what each latent is made of, ``[N, numbers, Z, Y', X']``, from the maps of its levels."""
        return torch.cat([window.flat(maps[window.level], every) for window in self.spec.windows], dim=1)


class MultiResolutionDecoder(nn.Module):
    """Latents to patches: ``[N, n_latent, Z, 1, 1]`` -> ``[N, C, Z, patch, patch]``, linear.

    Without skips and windows, ``[N, n_latent, Z, Y', X']`` to a tile with ``Y = patch + stride (Y' - 1)``, and so
    along x.

    Args:
        spec: the shape of the net.
    """

    def __init__(self, spec: MultiResolutionSpec) -> None:
        super().__init__()
        self.spec = spec
        joined = {window.level: window.maps for window in spec.windows[1:]}
        unfold = nn.ConvTranspose3d(spec.n_latent, spec.n_flat, _PIXEL)
        layers: dict[str, nn.Module] = {"latent": _Layer(unfold, spec, "latent")}
        for level in range(len(spec.maps), 0, -1):
            maps, count = spec.maps[level - 1], spec.convolutions[level - 1]
            for index in range(count, 0, -1):
                n_in = maps + (joined.get(level, 0) if index == count else 0)
                if level == index == 1:
                    last = nn.ConvTranspose3d(n_in, spec.in_channels, _PLANE)
                    draw_weights(last, 1)
                    layers["convt11"] = last
                else:
                    n_out = maps if index > 1 else spec.maps[level - 2]
                    conv = nn.ConvTranspose3d(n_in, n_out, _PLANE)
                    layers[f"convt{level}{index}"] = _Layer(conv, spec, None)
        self.layers = nn.ModuleDict(layers)

    def forward(self, latent: Tensor) -> Tensor:
        """Return the reconstruction.

        Raises:
            InputError: a net with skips, or a window, is given the latents of more than one position.
        """
        if self.spec.placed and latent.shape[3:] != (1, 1):
            patch = self.spec.patch
            raise InputError(
                f"latents of {tuple(latent.shape[3:])} positions (y, x) cannot be decoded together by a net with "
                f"skips or windows, which overlap: decode one position at a time, {patch} x {patch} voxels"
            )
        windows = self.spec.windows
        parts = self.layers["latent"](latent).split([window.numbers for window in windows], dim=1)
        x, *rest = (window.unflat(part) for window, part in zip(windows, parts, strict=True))
        aside = {window.level: maps for window, maps in zip(windows[1:], rest, strict=True)}
        last = len(self.spec.maps)
        for level in range(last, 0, -1):
            if level < last:
                x = x.repeat_interleave(2, dim=3).repeat_interleave(2, dim=4)
            if level in aside:
                x = torch.cat([x, aside[level]], dim=1)
            for index in range(self.spec.convolutions[level - 1], 0, -1):
                x = self.layers[f"convt{level}{index}"](x)
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
        """Which tiles can be reconstructed: with skips or windows, patches; the encoder alone takes more."""
        return TileRule(self.encoder.rule.first, (1, 0, 0)) if self.spec.placed else self.encoder.rule

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

    def __init__(
        self,
        conv: nn.Conv3d | nn.ConvTranspose3d,
        spec: MultiResolutionSpec,
        layer: Literal["first", "latent"] | None,
    ) -> None:
        draw_weights(conv, spec.slope)
        norm = [nn.BatchNorm3d(conv.out_channels)] if spec.batch_norm and layer not in spec.plain else []
        super().__init__(conv, *norm, nn.LeakyReLU(spec.slope))
