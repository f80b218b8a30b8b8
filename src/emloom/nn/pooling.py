"""Four ways for a level to become the next, coarser one, all without weights of their own.

=========  ================================================================================================
max        the largest value of every window
average    the mean of every window
stride     nothing here: the first convolution of the next level takes steps as large as the factor
blurpool   blurred, then every n-th value: fine detail cannot come back as coarse (Zhang 2019, arXiv:1904.11486)
=========  ================================================================================================
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from emloom.geometry import Vec

Pooling = Literal["max", "average", "stride", "blurpool"]


def pool(x: Tensor, factor: Vec, how: Pooling) -> Tensor:
    """Return ``[N, C, Z, Y, X]`` smaller by whole factors, which divide its size."""
    if how == "max":
        return functional.max_pool3d(x, factor)
    if how == "average":
        return functional.avg_pool3d(x, factor)
    return x if how == "stride" else _blurpool(x, factor)


def _blurpool(x: Tensor, factor: Vec) -> Tensor:
    """Blur with a box convolved with itself twice, 1 3 3 1 for a factor of 2: centred on the window it stands for.

    Beyond the faces the last value is repeated, so that an even image stays even.
    """
    z, y, w = (_window(f, x) for f in factor)
    kernel = z[:, None, None] * y[:, None] * w
    margins = [side for f in reversed(factor) for side in (f - 1, f - 1)]
    maps = x.shape[1]
    padded = functional.pad(x, margins, mode="replicate")
    return functional.conv3d(padded, kernel.expand(maps, 1, *kernel.shape), stride=factor, groups=maps)


def _window(factor: int, like: Tensor) -> Tensor:
    """Return the weights along an axis, ``3 * factor - 2`` of them."""
    box = torch.full((1, 1, factor), 1 / factor, dtype=like.dtype, device=like.device)
    twice = functional.conv1d(box, box, padding=factor - 1)
    return functional.conv1d(twice, box, padding=factor - 1)[0, 0]
