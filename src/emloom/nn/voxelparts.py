"""The parts that centre-voxel networks are built of, beside torch's own: see `emloom.nn.dense`.

Each says something about single positions, or about positions relative to each other: so a network of them can be
asked at every voxel at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class ChannelNorm(nn.Module):
    """Layer norm over the channels of every voxel by itself: ``[N, C, Z, Y, X]``, nothing is averaged over space.

    Ba et al. 2016 (arXiv:1607.06450), as in ConvNeXt (Liu et al. 2022, arXiv:2201.03545).
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps, of mean 0 and variance 1 over channels, then scaled and shifted per channel."""
        last = x.movedim(1, -1)
        return functional.layer_norm(last, self.weight.shape, self.weight, self.bias, self.eps).movedim(-1, 1)


class Scale(nn.Module):
    """A learned factor per channel, small at first (Touvron et al. 2021, arXiv:2103.17239)."""

    def __init__(self, channels: int, start: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels, 1, 1, 1), start))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled maps."""
        return x * self.weight


class Residual(nn.Module):
    """``x + body(x)``; where the body answers for fewer positions, x is cropped to them, evenly on both sides."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        out: Tensor = self.body(x)
        return out + middle(x, out.shape[2:])


class Concat(nn.Module):
    """Channels of several branches that see the same, each cropped evenly to the positions that all answer for."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Return the channels of all branches, in their order."""
        outs = [branch(x) for branch in self.branches]
        common = [min(sizes) for sizes in zip(*(out.shape[2:] for out in outs), strict=True)]
        return torch.cat([middle(out, common) for out in outs], dim=1)


def middle(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the middle of ``[N, C, Z, Y, X]``; of an odd excess, one more is cut at the end."""
    for axis, (size, wanted) in enumerate(zip(x.shape[2:], shape, strict=True), start=2):
        if size != wanted:
            x = x.narrow(axis, (size - wanted) // 2, wanted)
    return x
