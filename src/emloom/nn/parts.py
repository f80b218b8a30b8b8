"""Parts of residual U-Nets: blocks, dilated centres, squeeze-and-excitation, smooth upsampling.

Every part says how far it looks (`margin`, voxels per side) and runs in two ways with the same weights: padded
with zeros, keeping the shape, or valid, losing the margin. Inside the margin both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from emloom.geometry import Vec
from emloom.nn.layers import Conv, Norm, norm_of
from emloom.nn.reshape import crop

Activation = Literal["relu", "elu"]
Upsampling = Literal["trilinear", "nearest"]
Branches = tuple[tuple[int, ...], ...]

PLAIN: Branches = ((1, 1),)
"""One branch of two convolutions."""
MULTI_DILATION: Branches = ((1,), (1, 2), (1, 2, 4), (1, 2, 4, 8))
"""Four branches side by side, each looking further: 1, 3, 7 and 15 voxels."""


class ConvNorm(nn.Module):
    """A convolution and its norm; a bias only where no norm would take it out again."""

    def __init__(self, n_in: int, n_out: int, kernel: Vec, norm: Norm, dilation: Vec = (1, 1, 1)) -> None:
        super().__init__()
        bare = norm in ("none", "weight")
        self.conv = Conv(n_in, n_out, kernel, norm == "weight", dilation=dilation, bias=bare)
        self.norm = norm_of(norm, n_out)

    @property
    def margin(self) -> Vec:
        """Voxels (z, y, x) per side that it looks beyond a voxel."""
        return self.conv.margin

    def forward(self, x: Tensor, padded: bool) -> Tensor:
        """Return the normalised maps."""
        out: Tensor = self.norm(self.conv(x, padded))
        return out


class ResidualBlock(nn.Module):
    """A convolution to the new width, then branches that add to what it found.

    ::

        r = act(norm(conv(x)))        out = act(r + sum of branches(r))
        branch with dilations (1, 2):  norm(conv_2(act(norm(conv_1(r)))))

    Args:
        n_in: maps of the input.
        n_out: maps of the output.
        entry: kernel of the first convolution.
        kernel: kernel of all others; axes of size 1 are not dilated.
        branches: dilations of the convolutions of every branch, `PLAIN` or `MULTI_DILATION`.
        norm: what is normalised.
        options: activation, and the reduction of squeeze-and-excitation, 0 for none.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        entry: Vec,
        kernel: Vec,
        branches: Branches,
        norm: Norm,
        options: tuple[Activation, int],
    ) -> None:
        super().__init__()
        activation, squeeze = options
        self.activation = activation
        self.entry = ConvNorm(n_in, n_out, entry, norm)
        self.branches = nn.ModuleList(
            nn.ModuleList(ConvNorm(n_out, n_out, kernel, norm, dilated(kernel, d)) for d in dilations)
            for dilations in branches
        )
        self.squeeze = SqueezeExcitation(n_out, squeeze, activation) if squeeze else None
        if norm == "weight":  # nothing later undoes the growth of a sum of several branches
            for branch in self.branches:
                gain = _layers(branch)[-1].conv.gain
                assert gain is not None
                nn.init.constant_(gain, len(branches) ** -0.5)
        self._reach = [sum_of([layer.margin for layer in _layers(branch)]) for branch in self.branches]
        self._widest = widest(self._reach)
        self.margin = sum_of([self.entry.margin, self._widest])

    def forward(self, x: Tensor, padded: bool) -> Tensor:
        """Return the maps, `margin` voxels smaller per side unless padded."""
        r = act(self.entry(x, padded), self.activation)
        total: Tensor | None = None
        for branch, reach in zip(self.branches, self._reach, strict=True):
            out = r if padded else crop(r, minus(self._widest, reach))
            for index, layer in enumerate(_layers(branch)):
                out = layer(act(out, self.activation) if index else out, padded)
            total = out if total is None else total + out
        assert total is not None  # a block has at least one branch
        if self.squeeze is not None:
            total = self.squeeze(total)
        return act(total + (r if padded else crop(r, self._widest)), self.activation)


class SqueezeExcitation(nn.Module):
    """Scale every map by a number in (0, 1) that depends on the means of all maps.

    Hu et al. 2018 (arXiv:1709.01507). The means are over the tile, so the answer at a voxel depends on the tile.

    Args:
        maps: maps of the input.
        reduction: the hidden layer has maps / reduction units, at least 4.
        activation: of the hidden layer.
    """

    def __init__(self, maps: int, reduction: int, activation: Activation) -> None:
        super().__init__()
        hidden = max(4, maps // reduction)
        self.activation = activation
        self.down, self.up = nn.Linear(maps, hidden), nn.Linear(hidden, maps)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled maps."""
        means = x.float().mean(dim=(2, 3, 4)).to(x.dtype)
        scale = torch.sigmoid(self.up(act(self.down(means), self.activation)))
        return x * scale[:, :, None, None, None]


class DilatedCentre(nn.Module):
    """A cascade of dilated convolutions whose stages all add up: ``x + d1 + d2 + d4 + ...``.

    A wide view at the coarsest level, no detail lost (D-LinkNet, Zhou et al. 2018, doi:10.1109/CVPRW.2018.00034).

    Args:
        maps: maps of input and output.
        kernel: of every stage; axes of size 1 are not dilated.
        dilations: of the stages, one after the other.
        norm: what is normalised; the original has no norm here.
        activation: after every stage.
    """

    def __init__(
        self, maps: int, kernel: Vec, dilations: Sequence[int], norm: Norm, activation: Activation
    ) -> None:
        super().__init__()
        self.activation = activation
        self.stages = nn.ModuleList(ConvNorm(maps, maps, kernel, norm, dilated(kernel, d)) for d in dilations)
        self.margin = sum_of([layer.margin for layer in _layers(self.stages)])

    def forward(self, x: Tensor, padded: bool) -> Tensor:
        """Return the maps, `margin` voxels smaller per side unless padded."""
        left = self.margin
        total = x if padded else crop(x, left)
        for layer in _layers(self.stages):
            x = act(layer(x, padded), self.activation)
            left = minus(left, layer.margin)
            total = total + (x if padded else crop(x, left))
        return total


class SmoothLift(nn.Module):
    """Upsampling by whole factors, linear or by repetition, without weights.

    Linear: fine voxel i lies at ``(i + 1/2) / f - 1/2`` in coarse voxels, so it looks at one coarse voxel more
    than repetition does. Beyond the face the last coarse voxel is repeated.
    """

    def __init__(self, factor: Vec, how: Upsampling) -> None:
        super().__init__()
        self.factor = factor
        self.how = how

    def margin_below(self, margin: Vec) -> Vec:
        """Return the coarse voxels per side that `margin` fine voxels beyond a tile need."""
        smooth = self.how == "trilinear"
        z, y, x = (
            -(-(2 * m + (f - 1 if smooth else 0)) // (2 * f)) for m, f in zip(margin, self.factor, strict=True)
        )
        return (z, y, x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps, larger by the factor."""
        size = [n * f for n, f in zip(x.shape[2:], self.factor, strict=True)]
        if self.how == "nearest":
            return functional.interpolate(x, size=size, mode="nearest")
        return functional.interpolate(x, size=size, mode="trilinear", align_corners=False)


def act(x: Tensor, activation: Activation) -> Tensor:
    """Return the activation of maps that nobody else needs any more."""
    return functional.relu(x, inplace=True) if activation == "relu" else functional.elu(x, inplace=True)


def dilated(kernel: Vec, dilation: int) -> Vec:
    """Return the dilation of every axis: none along axes on which the kernel is a single voxel."""
    z, y, x = (dilation if size > 1 else 1 for size in kernel)
    return (z, y, x)


def sum_of(margins: Sequence[Vec]) -> Vec:
    """Return the sum of margins."""
    z, y, x = (sum(m[axis] for m in margins) for axis in range(3))
    return (z, y, x)


def widest(margins: Sequence[Vec]) -> Vec:
    """Return the largest margin along every axis."""
    z, y, x = (max(m[axis] for m in margins) for axis in range(3))
    return (z, y, x)


def minus(a: Vec, b: Vec) -> Vec:
    """Return the difference of two margins."""
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


def _layers(modules: nn.Module) -> list[ConvNorm]:
    return [layer for layer in modules.children() if isinstance(layer, ConvNorm)]
