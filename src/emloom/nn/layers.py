"""The parts of a U-Net: blocks of convolutions, normalised or not, and upsampling by whole factors."""

from __future__ import annotations

from math import prod, sqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from emloom.geometry import Vec
from emloom.nn.reshape import crop

Kernels = tuple[Vec, ...]
Norm = Literal["none", "weight", "group", "instance", "batch"]

_SMALLEST_POWER = 1e-4  # of a filter, against division by zero (Brock et al. 2021)


def margin_of(kernels: Kernels) -> Vec:
    """Return the voxels (z, y, x) per side that convolutions in a row look beyond a voxel."""
    z, y, x = (sum(kernel[axis] // 2 for kernel in kernels) for axis in range(3))
    return (z, y, x)


def check_kernels(kernels: tuple[Kernels, ...] | None, levels: int, name: str) -> None:
    """Raise ValueError unless there is at least one kernel for every level, all odd; None means a default."""
    if kernels is None:
        return
    if len(kernels) != levels or not all(kernels):
        raise ValueError(f"{name} must list at least one kernel for each of {levels} levels")
    if any(size < 1 or size % 2 == 0 for level in kernels for kernel in level for size in kernel):
        raise ValueError(f"{name} must be odd along every axis: an even kernel has no centre voxel")


def draw_weights(conv: nn.Conv3d | nn.ConvTranspose3d, slope: float) -> None:
    """Draw the weights that keep a signal's power, He et al. 2015 (doi:10.1109/ICCV.2015.123); biases are 0.

    A value of the answer sums over fan-in weights: maps times kernel, of which a transposed convolution shows each
    voxel one part in stride.

    Args:
        conv: the convolution, changed in place; draws come from torch's global generator.
        slope: of the leaky ReLU that follows, for negative values; 1 where none follows.
    """
    fan_in = conv.in_channels * prod(conv.kernel_size)
    if isinstance(conv, nn.ConvTranspose3d):
        fan_in //= prod(conv.stride)
    nn.init.normal_(conv.weight, std=sqrt(2 / (1 + slope**2) / fan_in))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class Block(nn.Module):
    """Convolutions with ReLU, optionally normalised and bridged by a residual connection."""

    def __init__(self, n_in: int, n_out: int, kernels: Kernels, norm: Norm, residual: bool) -> None:
        super().__init__()
        maps = [n_in] + [n_out] * (len(kernels) - 1)
        self.convs = nn.ModuleList(
            Conv(n, n_out, kernel, norm == "weight") for n, kernel in zip(maps, kernels, strict=True)
        )
        self.norms = nn.ModuleList(norm_of(norm, n_out) for _ in kernels)
        self.bridge = nn.Conv3d(n_in, n_out, 1, bias=False) if residual else None
        self.margin = margin_of(kernels)
        if self.bridge is not None:
            nn.init.kaiming_normal_(self.bridge.weight, nonlinearity="linear")

    def forward(self, x: Tensor, padded: bool) -> Tensor:
        """Return the maps, `margin` voxels smaller per side unless padded with zeros."""
        out = x
        last = len(self.convs) - 1
        for index in range(last + 1):
            out = self.norms[index](self.convs[index](out, padded))
            if self.bridge is not None and index == last:
                out = out + self.bridge(x if padded else crop(x, self.margin))
            out = functional.relu(out, inplace=True)
        return out


class Conv(nn.Conv3d):
    """A convolution that is told, call by call, whether to pad with zeros.

    Standardised, every filter has mean 0 and the variance He et al. start from, 2 / fan-in, times a learned gain,
    however large its weights grow.

    Args:
        n_in: maps of the input.
        n_out: maps of the output.
        kernel: its size (z, y, x), odd.
        standardised: see above.
        dilation: voxels between the kernel's taps.
        bias: whether a number is added to each map; of no use before a norm that subtracts the mean.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        kernel: Vec,
        standardised: bool,
        *,
        dilation: Vec = (1, 1, 1),
        bias: bool = True,
    ) -> None:
        super().__init__(n_in, n_out, kernel, dilation=dilation, bias=bias)
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.gain = nn.Parameter(torch.ones(n_out, 1, 1, 1, 1)) if standardised else None

    def forward(self, x: Tensor, padded: bool = False) -> Tensor:
        """Return the convolved maps, of the input's shape if padded."""
        padding = self.margin if padded else 0
        return functional.conv3d(x, self._filters(), self.bias, padding=padding, dilation=self.dilation)

    @property
    def margin(self) -> Vec:
        """Voxels (z, y, x) per side that it looks beyond a voxel."""
        z, y, x = (size // 2 * step for size, step in zip(self.kernel_size, self.dilation, strict=True))
        return (z, y, x)

    def fold(self) -> None:
        """Keep the standardised filters as plain weights: the same answers, but no longer a network to train."""
        self.weight = nn.Parameter(self._filters().detach(), requires_grad=False)
        self.gain = None

    def _filters(self) -> Tensor:
        if self.gain is None:
            return self.weight
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3, 4), keepdim=True, correction=0)
        scale = torch.rsqrt(variance * self.weight[0].numel() + _SMALLEST_POWER) * sqrt(2.0)
        return (self.weight - mean) * (scale * self.gain)


class Lift(nn.Module):
    """Upsampling by whole factors."""

    def __init__(self, maps: int, factor: Vec, how: Literal["nearest", "transposed"]) -> None:
        super().__init__()
        self.factor = factor
        self.transposed = nn.ConvTranspose3d(maps, maps, factor, stride=factor) if how == "transposed" else None
        if self.transposed is not None:
            # Kernel = stride: every output voxel sums over the input maps of one voxel.
            nn.init.normal_(self.transposed.weight, std=sqrt(1 / maps))

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps, larger by the factor."""
        if self.transposed is not None:
            out: Tensor = self.transposed(x)
            return out
        size = [n * f for n, f in zip(x.shape[2:], self.factor, strict=True)]
        return functional.interpolate(x, size=size, mode="nearest")


def norm_of(kind: Norm, maps: int) -> nn.Module:
    """Return what normalises maps after a convolution; nothing where filters are, or nothing is.

    Group norm makes 8 groups, or the largest smaller number that divides the maps.
    """
    if kind in ("none", "weight"):
        return nn.Identity()
    if kind == "batch":
        return nn.BatchNorm3d(maps)
    groups = maps if kind == "instance" else max(g for g in range(1, 9) if maps % g == 0)
    return nn.GroupNorm(groups, maps)
