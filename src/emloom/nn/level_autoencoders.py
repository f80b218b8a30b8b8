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

Everything is ``[N, C, Z, Y, X]``. A net of images is one whose kernels and factors are 1 along z: it sees every
section by itself. There is no normalisation inside, and scaling the voxels is the caller's business: ``(x - 0.5) /
0.15`` of values in [0, 1] trained, plain values with other starting weights did not always.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.layers import Kernels, check_kernels, draw_weights
from emloom.nn.pooling import Pooling, pool
from emloom.nn.tilesize import TileRule
from emloom.spec import Spec

_TWO_CUBES: Kernels = ((3, 3, 3), (3, 3, 3))
_TWO_PLANES: Kernels = ((1, 3, 3), (1, 3, 3))
_SLOPE = 0.1  # of the leaky ReLU, for negative values
_WITHIN = 0.01  # of the number of parameters that nets to be compared may differ by


class LevelAutoencoderSpec(Spec):
    """What the three shapes share; see the module."""

    features: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Feature maps per level, full resolution first."""
    factors: tuple[Vec, ...] = ((1, 2, 2),) * 4
    """Downsampling (z, y, x), or spreading of the kernels, between a level and the next: one fewer than levels."""
    kernels: tuple[Kernels, ...] = (_TWO_PLANES,) * 5
    """Convolution kernels (z, y, x) of every level, odd, the same on the way down and up."""
    in_channels: int = Field(default=1, ge=1)
    """Channels of the input, and of the answer."""
    padding: Literal["zeros", "reflect"] = "zeros"
    """What a convolution sees beyond the faces of a tile."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.features) < 2 or min(self.features) < 1:
            raise ValueError(f"features {self.features} must name at least two levels, each with at least 1 map")
        if len(self.factors) != len(self.features) - 1:
            raise ValueError(
                f"{len(self.features)} levels of features need {len(self.features) - 1} downsampling factors "
                f"between them, got {len(self.factors)}"
            )
        if min(min(factor) for factor in self.factors) < 1:
            raise ValueError("downsampling factors are at least 1 along every axis")
        check_kernels(self.kernels, len(self.features), "kernels")
        return self

    @classmethod
    def of(cls, width: int = 8, levels: int = 5, flat_levels: int | None = None, **options: Any) -> Self:
        """Return a net with ``width * 2^i`` maps in level i and two convolutions per level.

        Args:
            width: maps at full resolution.
            levels: how many there are.
            flat_levels: as many first levels look at single sections, kernels (1, 3, 3) and factors (1, 2, 2); the
                deeper ones at volumes, (3, 3, 3) and (2, 2, 2). None: all are flat, a net of images.
            options: further fields.

        Raises:
            InputError: a field is not valid.
        """
        flat = levels if flat_levels is None else flat_levels
        fields = {
            "features": tuple(width * 2**level for level in range(levels)),
            "factors": tuple((1, 2, 2) if level < flat else (2, 2, 2) for level in range(levels - 1)),
            "kernels": tuple(_TWO_PLANES if level < flat else _TWO_CUBES for level in range(levels)),
        }
        return cls.from_dict({**fields, **options}, source=cls.__name__)

    @property
    def scales(self) -> tuple[Vec, ...]:
        """Voxels (z, y, x) between neighbours of every level: the product of the factors above it."""
        return tuple(
            accumulate(self.factors, lambda a, b: (a[0] * b[0], a[1] * b[1], a[2] * b[2]), initial=(1, 1, 1))
        )

    @property
    def parameters(self) -> int:
        """Number of weights and biases."""
        total = _conv(self.features[0], self.in_channels, (1, 1, 1))
        for n_in, n_out, kernels in zip(
            (self.in_channels, *self.features), self.features, self.kernels, strict=False
        ):
            total += _convs(n_in, n_out, kernels)
        for level, (low, high) in enumerate(pairwise(self.features)):
            total += _conv(high, low, self.factors[level])
            total += _convs(low * self.joined(level), low, self.kernels[level])
        return total

    def joined(self, level: int) -> int:
        """Return how many times C_i maps the decoder of a level starts from: 1, or 2 with a concatenated skip."""
        return 1


class FCNAutoencoderSpec(LevelAutoencoderSpec):
    """Pooling and upsampling, without skips: a fully convolutional network with a bottleneck."""

    kind: Literal["fcn_autoencoder"] = "fcn_autoencoder"
    pooling: Pooling = "max"
    """How a level becomes the next, coarser one."""

    @model_validator(mode="after")
    def _nothing_is_left_out(self) -> Self:
        _check_strides(self, self.pooling)
        return self


class AtrousAutoencoderSpec(LevelAutoencoderSpec):
    """No pooling: kernels of level i are spread over the product of the factors above it.

    All levels work at full resolution, so with five of them it takes 47 times the multiply-adds of the others, and
    nine to twenty-five times the processor time of a step (4 and 8 maps, 96 x 96 voxels).
    """

    kind: Literal["atrous_autoencoder"] = "atrous_autoencoder"


class UNetAutoencoderSpec(LevelAutoencoderSpec):
    """The shape of `FCNAutoencoderSpec` with skips.

    With the skip of full resolution, autoencoding tests only whether a net can be the identity: it is no evidence
    that anything was represented.
    """

    kind: Literal["unet_autoencoder"] = "unet_autoencoder"
    pooling: Pooling = "max"
    """How a level becomes the next, coarser one."""
    skips: tuple[bool, ...] | None = None
    """For every level but the last, whether it has its skip; None: all have."""
    skip_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Probability that a skip of a sample is left out while training; those that stay are scaled to make up."""
    merge: Literal["add", "concatenate"] = "add"
    """What is done with a skip."""

    @model_validator(mode="after")
    def _one_switch_per_skip(self) -> Self:
        _check_strides(self, self.pooling)
        if self.skips is not None and len(self.skips) != len(self.factors):
            raise ValueError(
                f"{len(self.features)} levels have {len(self.factors)} skips, all but the last one: "
                f"skips {self.skips} must switch each of them on or off"
            )
        return self

    @property
    def has_skip(self) -> tuple[bool, ...]:
        """For every level but the last, whether it has its skip."""
        return (True,) * len(self.factors) if self.skips is None else self.skips

    def keeping(self, level: int) -> UNetAutoencoderSpec:
        """Return the net with the skip of one level only; raises `InputError` where there is none."""
        return self._with(level, others=False)

    def dropping(self, level: int) -> UNetAutoencoderSpec:
        """Return the net with all skips but that of one level; raises `InputError` where there is none."""
        return self._with(level, others=True)

    def concatenated(self) -> UNetAutoencoderSpec:
        """Return the net with concatenated skips, thinned to this net's number of parameters within 1 %.

        Raises:
            InputError: levels are so thin that no whole numbers of maps come that near.
        """
        fields = self.to_dict() | {"merge": "concatenate"}
        shares = (share / 2000 for share in range(1000, 2001))
        tried = {tuple(max(1, round(n * share)) for n in self.features) for share in shares}
        nets = [UNetAutoencoderSpec.from_dict(fields | {"features": features}) for features in sorted(tried)]
        best = min(nets, key=lambda net: abs(net.parameters - self.parameters))
        if abs(best.parameters - self.parameters) > _WITHIN * self.parameters:
            raise InputError(
                f"no net with concatenated skips has the {self.parameters:,} parameters of the one with features "
                f"{self.features} within 1 %; the nearest has {best.parameters:,}: give the levels more maps"
            )
        return best

    def joined(self, level: int) -> int:
        """Return how many times C_i maps the decoder of a level starts from."""
        return 2 if self.merge == "concatenate" and self.has_skip[level] else 1

    def _with(self, level: int, *, others: bool) -> UNetAutoencoderSpec:
        levels = range(len(self.factors))
        if level not in levels:
            raise InputError(
                f"level {level} has no skip: those of levels 0 to {len(self.factors) - 1} can be chosen"
            )
        return self.model_copy(update={"skips": tuple(others != (each == level) for each in levels)})


LevelSpec = FCNAutoencoderSpec | AtrousAutoencoderSpec | UNetAutoencoderSpec
"""Any of the three shapes."""


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
        step = (1, 1, 1) if self.dilated else self.spec.scales[-1]
        least = _mirrored(self.spec) if self.spec.padding == "reflect" else (1, 1, 1)
        return TileRule(TileRule(step, step).at_least(least), step)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction; raises `InputError` where the tile does not fit, see `rule`."""
        return self.decode(self.encode(x))

    def latent(self, x: Tensor) -> Tensor:
        """Return the maps of the deepest level; raises `InputError` where the tile does not fit."""
        return self.encode(x)[-1]

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the maps of every level on the way down, full resolution first."""
        self.rule.check(x.shape[2:])
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


def _conv(n_in: int, n_out: int, kernel: Vec) -> int:
    return (n_in * prod(kernel) + 1) * n_out


def _convs(n_in: int, n_out: int, kernels: Kernels) -> int:
    return sum(_conv(n_out if index else n_in, n_out, kernel) for index, kernel in enumerate(kernels))


def _check_strides(spec: LevelAutoencoderSpec, pooling: Pooling) -> None:
    if pooling != "stride":
        return
    for factor, kernels in zip(spec.factors, spec.kernels[1:], strict=True):
        if any(f > size for f, size in zip(factor, kernels[0], strict=True)):
            raise ValueError(
                f"a stride of {factor} with a kernel of {kernels[0]} would never look at some voxels: "
                "widen the first kernel of the level, or choose another pooling"
            )
