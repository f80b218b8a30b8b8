"""The shapes of three autoencoders to compare; what they mean stands in `emloom.nn.level_autoencoders`."""

from __future__ import annotations

from itertools import accumulate, pairwise
from math import prod
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.layers import Kernels, check_kernels
from emloom.nn.level_reach import Reach, pooled_reach, spread_reach
from emloom.nn.pooling import Pooling
from emloom.spec import Spec

_TWO_CUBES: Kernels = ((3, 3, 3), (3, 3, 3))
_TWO_PLANES: Kernels = ((1, 3, 3), (1, 3, 3))
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

    @property
    def lattice(self) -> Vec:
        """Voxels (z, y, x) between equivalent positions: the net is equivariant to shifts by it and no other."""
        return self.scales[-1]

    @property
    def context(self) -> Vec:
        """Voxels (z, y, x) per side that an answer needs to see around a tile on the lattice, a multiple of it."""
        reach = map(self.reach, range(3))
        z, y, x = (-(-max(sides) // step) * step for sides, step in zip(reach, self.lattice, strict=True))
        return (z, y, x)

    def reach(self, axis: int) -> Reach:
        """Return the voxels (below, above) a tile on the lattice that its answer depends on, not rounded."""
        return pooled_reach(*self._along(axis), "max", (False,) * len(self.factors))

    def joined(self, level: int) -> int:
        """Return how many times C_i maps the decoder of a level starts from: 1, or 2 with a concatenated skip."""
        return 1

    def _along(self, axis: int) -> tuple[list[list[int]], list[int]]:
        kernels = [[kernel[axis] for kernel in level] for level in self.kernels]
        return kernels, [factor[axis] for factor in self.factors]


class FCNAutoencoderSpec(LevelAutoencoderSpec):
    """Pooling and upsampling, without skips: a fully convolutional network with a bottleneck."""

    kind: Literal["fcn_autoencoder"] = "fcn_autoencoder"
    pooling: Pooling = "max"
    """How a level becomes the next, coarser one."""

    @model_validator(mode="after")
    def _nothing_is_left_out(self) -> Self:
        _check_strides(self, self.pooling)
        return self

    def reach(self, axis: int) -> Reach:
        """Return the voxels (below, above) a tile on the lattice that its answer depends on, not rounded."""
        return pooled_reach(*self._along(axis), self.pooling, (False,) * len(self.factors))


class AtrousAutoencoderSpec(LevelAutoencoderSpec):
    """No pooling: kernels of level i are spread over the product of the factors above it.

    All levels work at full resolution, so with five of them it takes 47 times the multiply-adds of the others, and
    about seven times the processor time of a step (4 maps, 128 x 128 voxels).
    """

    kind: Literal["atrous_autoencoder"] = "atrous_autoencoder"

    @property
    def lattice(self) -> Vec:
        """Voxels (z, y, x) between equivalent positions: all are."""
        return (1, 1, 1)

    def reach(self, axis: int) -> Reach:
        """Return the voxels (below, above) any tile that its answer depends on."""
        return spread_reach(*self._along(axis))


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

    def reach(self, axis: int) -> Reach:
        """Return the voxels (below, above) a tile on the lattice that its answer depends on, not rounded."""
        return pooled_reach(*self._along(axis), self.pooling, self.has_skip)

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
