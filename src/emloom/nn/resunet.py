"""The residual U-Net of synapse detection: sections first, volumes only where the voxels have become cubes.

Residual blocks after Lee et al. 2017 (arXiv:1706.00120) and the networks that led the CREMI cleft challenge. On
the way up, maps are upsampled linearly, convolved to the width of the skip and *added* to it::

    x ── block 0 ───────────────────────── + ── act ── block ── head
          │ pool (1, 2, 2)                 │ lift, conv
         block 1 ─────────────── + ── act ── block
          │          ...         │
         block n ── [dilated centre]

Levels below `flat_levels` have kernels (1, 3, 3) and pool (1, 2, 2); deeper ones (3, 3, 3) and (2, 2, 2). Presets:
``ResUNetSpec.published()`` with 5.94 M parameters, ``ResUNetSpec.plus()`` with 4.82 M, ``ResUNetSpec.linked()``
with squeeze-and-excitation and a dilated centre.

As in `emloom.nn.unet`, ``forward(x)`` pads with zeros and keeps the shape, for training; ``interior(x)`` answers
for all but the outer `context` voxels and equals ``forward``, cropped. Linear upsampling looks one coarse voxel
further at every level, which the context includes: these nets see far, 173 voxels in the plane for the published
one, so tiles must be large to be efficient.

What a tile is told depends on nothing but its context with the norms `none`, `weight` and, once trained, `batch`;
with `group`, `instance` or squeeze-and-excitation it depends on the tile (`tile_dependent`). Batch norm learns
badly from batches of one to three crops; `weight`, the default, does not look at the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from emloom.geometry import Vec
from emloom.nn.layers import Conv, Norm
from emloom.nn.parts import (
    MULTI_DILATION,
    PLAIN,
    Activation,
    DilatedCentre,
    ResidualBlock,
    SmoothLift,
    Upsampling,
    act,
    minus,
    sum_of,
    widest,
)
from emloom.nn.reshape import crop, fitting_input, fitting_output
from emloom.spec import Spec

_CUBE: Vec = (3, 3, 3)
_PLANE: Vec = (1, 3, 3)


class ResUNetSpec(Spec):
    """The shape of a residual U-Net; see the module for what the choices mean."""

    kind: Literal["res_unet"] = "res_unet"
    features: tuple[int, ...] = (32, 64, 96, 128, 160)
    """Feature maps per level, full resolution first."""
    flat_levels: int = Field(default=3, ge=0)
    """Levels that look at single sections: as many as it takes until voxels are cubes; 0 for isotropic stacks."""
    block: Literal["residual", "multi_dilation"] = "residual"
    """`multi_dilation`: flat levels get four branches with dilations up to 8, and all other kernels are cubes."""
    activation: Activation = "relu"
    norm: Norm = "weight"
    """What is normalised: nothing, each filter, or the maps after each convolution."""
    upsample: Upsampling = "trilinear"
    squeeze: int = Field(default=0, ge=0)
    """Reduction of squeeze-and-excitation in every block, e.g. 8; 0 is off."""
    centre: tuple[int, ...] = ()
    """Dilations of a dilated centre at the deepest level, e.g. (1, 2, 4, 8); none by default."""
    supervision: int = Field(default=0, ge=0)
    """Number of coarser decoder levels that answer too while training, see `emloom.nn.supervision`."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.features) < 2 or min(self.features) < 1:
            raise ValueError(f"features {self.features} must name at least two levels, each with at least 1 map")
        if self.flat_levels > len(self.features):
            raise ValueError(
                f"{self.flat_levels} flat levels of {len(self.features)} levels: have at most all flat"
            )
        if any(d < 1 for d in self.centre):
            raise ValueError(f"dilations of the centre {self.centre} must be at least 1")
        if self.supervision > len(self.features) - 2:
            raise ValueError(
                f"{len(self.features)} levels have {len(self.features) - 2} decoder levels below full resolution, "
                f"so supervision can be at most that, got {self.supervision}"
            )
        return self

    @classmethod
    def published(cls) -> ResUNetSpec:
        """Return the original net: batch norm, 5,940,801 parameters with one output channel."""
        return cls(norm="batch")

    @classmethod
    def plus(cls) -> ResUNetSpec:
        """Return the variant with ELU and multi-dilation blocks: 4.82 M parameters with one output channel."""
        features = (32, 64, 64, 96, 96)
        return cls(features=features, block="multi_dilation", activation="elu", norm="batch")

    @classmethod
    def linked(cls) -> ResUNetSpec:
        """Return the net of the published one's width with squeeze-and-excitation, 8 maps to 1, in every block and
        a centre dilated 1, 2, 4 and 8 times in the plane (D-LinkNet)."""
        return cls(squeeze=8, centre=(1, 2, 4, 8))

    @property
    def factors(self) -> tuple[Vec, ...]:
        """Downsampling (z, y, x) between a level and the next."""
        flat: Vec = (1, 2, 2)
        return tuple(flat if level < self.flat_levels else (2, 2, 2) for level in range(len(self.features) - 1))

    @property
    def stem(self) -> Vec:
        """There is none: the net works on voxels."""
        return (1, 1, 1)

    @property
    def padding(self) -> Literal["same"]:
        """Zeros at the faces while training."""
        return "same"

    @property
    def head_kernel(self) -> Vec:
        """Kernel of the last convolution."""
        return self.outer(0)

    @property
    def tile_dependent(self) -> bool:
        """Whether the answer at a voxel depends on the tile around it."""
        return self.norm in ("group", "instance") or self.squeeze > 0

    def inner(self, level: int) -> Vec:
        """Return the kernel inside the blocks of a level."""
        return _PLANE if level < self.flat_levels else _CUBE

    def outer(self, level: int) -> Vec:
        """Return the kernel of a level's first and of its upsampling convolution."""
        return _CUBE if self.block == "multi_dilation" else self.inner(level)


class ResUNet(nn.Module):
    """A residual U-Net without heads.

    ``forward`` maps float ``[N, in_channels, Z, Y, X]`` to ``[N, features[0], Z, Y, X]``. Weights are drawn from
    torch's global generator (He et al. 2015, doi:10.1109/ICCV.2015.123, by fan-out).

    Args:
        spec: the shape of the net.
        in_channels: channels of the input.
    """

    def __init__(self, spec: ResUNetSpec, in_channels: int = 1) -> None:
        super().__init__()
        self.spec = spec
        self.in_channels = in_channels
        maps = spec.features
        self.left = nn.ModuleList(
            _block(spec, level, n_in, n_out)
            for level, (n_in, n_out) in enumerate(zip((in_channels, *maps[:-1]), maps, strict=True))
        )
        self.lift = nn.ModuleList(SmoothLift(factor, spec.upsample) for factor in spec.factors)
        self.narrow = nn.ModuleList(
            Conv(high, low, spec.outer(level), spec.norm == "weight")
            for level, (low, high) in enumerate(pairwise(maps))
        )
        self.right = nn.ModuleList(_block(spec, level, n, n) for level, n in enumerate(maps[:-1]))
        kernel = _PLANE if spec.flat_levels else _CUBE
        self.centre = (
            DilatedCentre(maps[-1], kernel, spec.centre, spec.norm, spec.activation) if spec.centre else None
        )
        for part in self.modules():
            if isinstance(part, Conv):
                nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        self._margin, self._crops = self._plan()

    @property
    def lattice(self) -> Vec:
        """Voxels (z, y, x) between equivalent positions: the product of factors."""
        z, y, x = (prod(f) for f in zip(*self.spec.factors, strict=True))
        return (z, y, x)

    @property
    def context(self) -> Vec:
        """Voxels (z, y, x) per side that an answer needs to see: its reach, rounded up to the lattice."""
        z, y, x = (-(-m // n) * n for m, n in zip(self._margin, self.lattice, strict=True))
        return (z, y, x)

    @property
    def tile_dependent(self) -> bool:
        """Whether the answer at a voxel depends on the tile around it."""
        return self.spec.tile_dependent

    def output_shape(self, input_shape: Sequence[int]) -> Vec:
        """Return the voxels (z, y, x) that ``forward`` answers for; raises `InputError` where they do not fit."""
        return fitting_output(input_shape, self.lattice, (0, 0, 0))

    def input_shape(self, min_output_shape: Sequence[int]) -> Vec:
        """Return the smallest input (z, y, x) whose output is at least this large."""
        return fitting_input(min_output_shape, self.lattice, (0, 0, 0))

    def peak_floats(self, input_shape: Sequence[int]) -> int:
        """Return an estimate of the numbers held at once while a tile is predicted.

        In the first level's block: input, identity, the sum of branches and two ends of a convolution.
        """
        return (4 + (self.spec.block == "multi_dilation")) * self.spec.features[0] * prod(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return features; raises `InputError` where the input's shape does not fit."""
        return self.decoded(x)[0]

    def decoded(self, x: Tensor) -> list[Tensor]:
        """Return the features of every decoder level, full resolution first."""
        self.output_shape(x.shape[2:])
        out: list[Tensor] = []
        self._level(0, x, True, out)
        return out[::-1]

    def interior(self, x: Tensor) -> Tensor:
        """Return features of the input without its outer `context` voxels, but with what the head looks at.

        Raises:
            InputError: the input is not a multiple of the lattice plus the context on both sides.
        """
        fitting_output(x.shape[2:], self.lattice, self.context)
        head = _half(self.spec.head_kernel)
        if self.tile_dependent:  # statistics over the whole tile, as in training: nothing can be left out
            return crop(self._level(0, x, True, []), minus(self.context, head))
        return self._level(0, crop(x, minus(self.context, self._margin)), False, [])

    def _level(self, level: int, x: Tensor, padded: bool, out: list[Tensor]) -> Tensor:
        left: Tensor = self.left[level](x, padded)
        if level == len(self.spec.factors):
            return left if self.centre is None else self.centre(left, padded)
        pool, cut = ((0, 0, 0), (0, 0, 0)) if padded else self._crops[level]
        factor = self.spec.factors[level]
        below = self._level(level + 1, nn.functional.max_pool3d(crop(left, pool), factor), padded, out)
        lifted: Tensor = self.narrow[level](crop(self.lift[level](below), cut), padded)
        z, y, w = ((a - b) // 2 for a, b in zip(left.shape[2:], lifted.shape[2:], strict=True))
        merged = act(crop(left, (z, y, w)) + lifted, self.spec.activation)
        features: Tensor = self.right[level](merged, padded)
        out.append(features)
        return features

    def _plan(self) -> tuple[Vec, list[tuple[Vec, Vec]]]:
        """Return the margin around a tile that the net needs, and per level what is cropped: pooled, and lifted.

        Margins are voxels of the level beyond a tile that lies on the lattice, from the head down and back up.
        """
        outward = [_half(self.spec.head_kernel)]  # margin of each level's output
        lifted = []  # margin of what the narrowing convolution of each level sees
        for level in range(len(self.spec.factors)):
            lifted.append(sum_of([outward[-1], _margin(self.right[level]), _margin(self.narrow[level])]))
            lift = self.lift[level]
            assert isinstance(lift, SmoothLift)
            outward.append(lift.margin_below(lifted[-1]))
        margin = sum_of([outward[-1], _margin(self.left[-1])])
        if self.centre is not None:
            margin = sum_of([margin, self.centre.margin])
        crops = []
        for level in reversed(range(len(self.spec.factors))):
            factor = self.spec.factors[level]
            pooled = _times(margin, factor)
            skip = sum_of([outward[level], _margin(self.right[level])])
            left = widest([skip, pooled])
            crops.append((minus(left, pooled), minus(_times(outward[level + 1], factor), lifted[level])))
            margin = sum_of([left, _margin(self.left[level])])
        return margin, crops[::-1]


def _block(spec: ResUNetSpec, level: int, n_in: int, n_out: int) -> ResidualBlock:
    dilating = spec.block == "multi_dilation" and level < spec.flat_levels
    branches = MULTI_DILATION if dilating else PLAIN
    options = (spec.activation, spec.squeeze)
    return ResidualBlock(n_in, n_out, spec.outer(level), spec.inner(level), branches, spec.norm, options)


def _margin(part: nn.Module) -> Vec:
    assert isinstance(part, ResidualBlock | Conv)
    return part.margin


def _half(kernel: Vec) -> Vec:
    return (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)


def _times(a: Vec, b: Vec) -> Vec:
    return (a[0] * b[0], a[1] * b[1], a[2] * b[2])
