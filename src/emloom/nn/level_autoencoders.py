"""Three autoencoders with the same number of parameters, to compare what their shapes let through.

Level i has C_i maps, full resolution first. Going down, every level convolves (twice, by default); going up, a
small kernel as large as the pooling window brings C_(i+1) maps to C_i, then the level convolves again; a kernel of
one voxel makes the answer, without an activation::

    fcn      pool ── pool ── ... ── lift ── lift       all detail passes the deepest level
    unet     pool ── pool ── ... ── lift+ ── lift+     + adds what the level saw on the way down, its skip
    atrous   no pooling: level i spreads its kernels to every 2^i-th voxel (Chen et al. 2017, arXiv:1606.00915)

A skip that is *added* costs no weights, and a dilated kernel as many as a dense one, so the three differ in shape
and nothing else: 109,413, 436,713, 1,744,977 and 6,976,161 parameters for five levels from 4, 8, 16 and 32 maps.
With skips that are concatenated, the decoder has more weights: `UNetAutoencoderSpec.concatenated` thins the levels
until the number is the same within 1 %.

Tiles agree with the whole: around a tile that lies on the `lattice`, an answer depends on `context` voxels per
side and on none further out, so that a tile grown by them and cropped is exact away from the faces.

Everything is ``[N, C, Z, Y, X]``. A net of images is one whose kernels and factors are 1 along z: it sees every
section by itself. There is no normalisation inside, and scaling the voxels is the caller's business: ``(x - 0.5) /
0.15`` of values in [0, 1] trained, plain values with other starting weights did not always.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from emloom.geometry import Vec
from emloom.nn.layers import draw_weights
from emloom.nn.level_memory import peak_floats
from emloom.nn.level_specs import (
    AtrousAutoencoderSpec,
    FCNAutoencoderSpec,
    LevelAutoencoderSpec,
    LevelSpec,
    UNetAutoencoderSpec,
)
from emloom.nn.pooling import Pooling, pool
from emloom.nn.tilesize import TileRule

__all__ = [
    "AtrousAutoencoderSpec",
    "FCNAutoencoderSpec",
    "LevelAutoencoder",
    "LevelAutoencoderSpec",
    "LevelSpec",
    "UNetAutoencoderSpec",
]

_SLOPE = 0.1  # of the leaky ReLU, for negative values


class LevelAutoencoder(nn.Module):
    """An autoencoder of levels: float ``[N, C, Z, Y, X]`` to the same shape, linear.

    Weights are drawn from torch's global generator (`draw_weights`), biases start at 0.

    Args:
        spec: the shape of the net.
        out_channels: of the answer, where that is no reconstruction; None: as many as the input has.
    """

    def __init__(self, spec: LevelSpec, out_channels: int | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.dilated = isinstance(spec, AtrousAutoencoderSpec)
        self.pooling: Pooling = "max" if isinstance(spec, AtrousAutoencoderSpec) else spec.pooling
        maps = spec.features
        self.left = nn.ModuleList(
            self._block(level, n_in, n_out, strided=level > 0 and self.pooling == "stride")
            for level, (n_in, n_out) in enumerate(zip((spec.in_channels, *maps[:-1]), maps, strict=True))
        )
        self.lift = nn.ModuleList(self._lift(level, low, high) for level, (low, high) in enumerate(pairwise(maps)))
        self.right = nn.ModuleList(
            self._block(level, n * spec.joined(level), n) for level, n in enumerate(maps[:-1])
        )
        self.out = nn.Conv3d(maps[0], out_channels or spec.in_channels, 1)
        draw_weights(self.out, 1)

    @property
    def rule(self) -> TileRule:
        """Which tiles fit: multiples of the pooling; mirrored padding needs voxels enough to be mirrored, too."""
        step = self.lattice
        least = _mirrored(self.spec) if self.spec.padding == "reflect" else (1, 1, 1)
        return TileRule(TileRule(step, step).at_least(least), step)

    @property
    def lattice(self) -> Vec:
        """Voxels (z, y, x) between equivalent positions."""
        return self.spec.lattice

    @property
    def context(self) -> Vec:
        """Voxels (z, y, x) per side that an answer needs to see around a tile on the lattice, a multiple of it."""
        return self.spec.context

    def peak_floats(self, input_shape: Sequence[int]) -> int:
        """Return the numbers held at once while a tile of voxels (z, y, x) is reconstructed in ``eval`` mode.

        Raises:
            InputError: the tile does not fit, see `rule`.
        """
        self.rule.check(input_shape)
        z, y, x = input_shape
        return peak_floats(self.spec, (z, y, x))

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction; raises `InputError` where the tile does not fit, see `rule`."""
        return self.decode(self.encode(x))

    def latent(self, x: Tensor) -> Tensor:
        """Return the maps of the deepest level; raises `InputError` where the tile does not fit."""
        return self.encode(x)[-1]

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the maps of every level on the way down, full resolution first."""
        self.rule.check(x.shape[2:])
        if x.device.type == "cpu":  # measured: with so few maps, steps take 0.6 of the time of the usual order
            x = x.contiguous(memory_format=torch.channels_last_3d)
        levels = [self.left[0](x)]
        for level, block in enumerate(self.left[1:]):
            pooled = levels[-1] if self.dilated else pool(levels[-1], self.spec.factors[level], self.pooling)
            levels.append(block(pooled))
        return levels

    def decode(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the reconstruction from the maps of every level, of which only skips and the last count."""
        x = levels[-1]
        for level in reversed(range(len(self.spec.factors))):
            x = self.right[level](self._merged(level, self.lift[level](x), levels[level]))
        out: Tensor = self.out(x)
        return out

    def _merged(self, level: int, x: Tensor, skip: Tensor) -> Tensor:
        spec = self.spec
        if not isinstance(spec, UNetAutoencoderSpec) or not spec.has_skip[level]:
            return x
        if self.training and spec.skip_dropout:
            kept = skip.new_ones(skip.shape[0], 1, 1, 1, 1)
            skip = skip * functional.dropout(kept, spec.skip_dropout)
        return x + skip if spec.merge == "add" else torch.cat([x, skip], dim=1)

    def _block(self, level: int, n_in: int, n_out: int, strided: bool = False) -> nn.Sequential:
        spec = self.spec
        parts: list[nn.Module] = []
        for kernel in spec.kernels[level]:
            spread = spec.scales[level] if self.dilated else (1, 1, 1)
            stride = spec.factors[level - 1] if strided and not parts else (1, 1, 1)
            z, y, x = (size // 2 * step for size, step in zip(kernel, spread, strict=True))
            conv = nn.Conv3d(
                n_in, n_out, kernel, stride=stride, padding=(z, y, x), dilation=spread, padding_mode=spec.padding
            )
            draw_weights(conv, _SLOPE)
            parts += [conv, nn.LeakyReLU(_SLOPE)]
            n_in = n_out
        return nn.Sequential(*parts)

    def _lift(self, level: int, low: int, high: int) -> nn.Module:
        factor = self.spec.factors[level]
        if self.dilated:
            return _SpreadLift(high, low, factor, self.spec.scales[level], self.spec.padding)
        lift = nn.ConvTranspose3d(high, low, factor, stride=factor)
        draw_weights(lift, 1)
        return lift


class _SpreadLift(nn.Conv3d):
    """What a transposed convolution is to a pooled level: as many weights, its taps spread, no change of size.

    An even kernel has no centre voxel: of the voxels it needs beyond the tile, the odd one lies above.
    """

    def __init__(self, n_in: int, n_out: int, kernel: Vec, spread: Vec, padding: str) -> None:
        super().__init__(n_in, n_out, kernel, dilation=spread)
        self.beyond = "constant" if padding == "zeros" else padding
        spans = [(size - 1) * step for size, step in zip(kernel, spread, strict=True)]
        self.margins = [side for span in reversed(spans) for side in (span // 2, span - span // 2)]
        draw_weights(self, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return as many voxels as there were."""
        return super().forward(functional.pad(x, self.margins, mode=self.beyond))


def _mirrored(spec: LevelSpec) -> Vec:
    """Return the least size (z, y, x) of a tile: mirroring n voxels takes n + 1 of them, in every level."""
    dilated = isinstance(spec, AtrousAutoencoderSpec)
    sizes: list[list[int]] = []
    for kernels, scale in zip(spec.kernels, spec.scales, strict=True):
        for kernel in kernels:
            pairs = zip(kernel, scale, strict=True)
            sizes.append([size // 2 * unit + 1 if dilated else (size // 2 + 1) * unit for size, unit in pairs])
    if dilated:
        for factor, scale in zip(spec.factors, spec.scales, strict=False):
            sizes.append([((f - 1) * unit + 1) // 2 + 1 for f, unit in zip(factor, scale, strict=True)])
    z, y, x = (max(size[axis] for size in sizes) for axis in range(3))
    return (z, y, x)
