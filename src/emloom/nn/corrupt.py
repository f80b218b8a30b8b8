"""Inputs made harder, so that an autoencoder must do more than copy: hidden voxels, and noise.

Everything is a pure function of a batch ``[N, C, Z, Y, X]`` and a seeded `torch.Generator`. Draws are made on the
generator's device and moved: one on the processor gives the same draws for a batch that lives elsewhere.

Each returns the input *and* the weight of every voxel in the loss: with blocks hidden, only what was hidden counts
(He et al. 2022, arXiv:2111.06377), for the rest could be copied; with noise, every voxel counts, against the clean
batch (Vincent et al. 2008, doi:10.1145/1390156.1390294).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.masked import aligned, masked_mean


class Corrupted(NamedTuple):
    """A harder batch.

    Attributes:
        x: what the network is shown, of the batch's shape and type.
        weight: float32 ``[N, 1, Z, Y, X]``: 1 where the reconstruction is compared with the clean batch, else 0.
    """

    x: Tensor
    weight: Tensor


def block_mask(shape: Sequence[int], fraction: float, block: Vec, generator: torch.Generator) -> Tensor:
    """Return bool ``[N, 1, Z, Y, X]``, true in random cells of a lattice, as many in every sample.

    Args:
        shape: of the batch, ``[N, C, Z, Y, X]``.
        fraction: share of the cells that are hidden, rounded to whole cells. Cells are cut at the faces of a tile
            that is no multiple of the block, where the share of voxels varies around that of the cells.
        block: shape (z, y, x) of a cell.
        generator: chooses the cells.

    Raises:
        InputError: the fraction is not in [0, 1], or a side of the block is less than 1.
    """
    if not 0 <= fraction <= 1:
        raise InputError(f"the fraction {fraction} of hidden blocks must lie between 0 and 1")
    if min(block) < 1:
        raise InputError(
            f"a block of {tuple(block)} voxels (z, y, x) is empty: give it at least 1 along every axis"
        )
    n, _, *zyx = shape
    cells = [-(-size // side) for size, side in zip(zyx, block, strict=True)]
    total = cells[0] * cells[1] * cells[2]
    order = torch.rand(n, total, generator=generator, device=generator.device).argsort(dim=1)
    hidden = torch.zeros(n, total, dtype=torch.bool, device=order.device)
    hidden.scatter_(1, order[:, : round(fraction * total)], True)
    mask = hidden.reshape(n, 1, *cells)
    for axis, side in enumerate(block, start=2):
        mask = mask.repeat_interleave(side, dim=axis)
    return mask[:, :, : zyx[0], : zyx[1], : zyx[2]].contiguous()


def centre_mask(shape: Sequence[int], side: int) -> Tensor:
    """Return bool ``[N, 1, Z, Y, X]``, true in the cube of `side` voxels in the very middle of every sample.

    As many voxels lie before it as behind it, along every axis. Of a single section, it is a square.

    Args:
        shape: of the batch, ``[N, C, Z, Y, X]``.
        side: of the cube.

    Raises:
        InputError: no cube of this side is in the middle, for the one is even and the tile odd or the other way
            round, or it hides the whole tile along an axis.
    """
    n, _, *zyx = shape
    sides = (1 if zyx[0] == 1 else side, side, side)
    if side < 1 or side >= min(zyx[1:]) or side >= zyx[0] > 1:
        raise InputError(
            f"a hidden cube of {side} voxels must be at least 1 and leave some of the tile of {tuple(zyx)} voxels "
            "(z, y, x) to be seen: hide less, or show more"
        )
    if any((size - s) % 2 for size, s in zip(zyx, sides, strict=True)):
        raise InputError(
            f"a cube of {side} voxels cannot lie in the very middle of a tile of {tuple(zyx)} voxels (z, y, x): "
            f"hide {side + 1}{f' or {side - 1}' if side > 1 else ''}, so that as many lie before it as behind it"
        )
    mask = torch.zeros(n, 1, *zyx, dtype=torch.bool)
    mask[:, :, *(slice((size - s) // 2, (size + s) // 2) for size, s in zip(zyx, sides, strict=True))] = True
    return mask


def drop_out(x: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return the batch with every number 0 with probability `share`, the others divided by ``1 - share``.

    The expectation of every number stays what it was (Srivastava et al. 2014, JMLR 15:1929).

    Raises:
        InputError: the share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise InputError(f"the share {share} of dropped voxels must be at least 0 and less than 1")
    kept = torch.rand(x.shape, generator=generator, device=generator.device) >= share
    return x * kept.to(x.device) / (1 - share)


def hide(x: Tensor, mask: Tensor, fill: float = 0.0) -> Corrupted:
    """Return the batch with `fill` wherever the mask is true; only these voxels count.

    Args:
        x: ``[N, C, Z, Y, X]``.
        mask: bool ``[N, 1, Z, Y, X]``, see `block_mask`.
        fill: what the network sees there; the mean of the scaled voxels gives the least away.
    """
    mask = mask.to(x.device)
    return Corrupted(x.masked_fill(mask, fill), mask.float())


def add_gaussian(x: Tensor, sigma: float, generator: torch.Generator) -> Corrupted:
    """Return the batch with independent normal noise of standard deviation `sigma`; all voxels count.

    Raises:
        InputError: `sigma` is negative.
    """
    if sigma < 0:
        raise InputError(f"noise cannot have a standard deviation of {sigma}: give 0 or more")
    noise = torch.randn(x.shape, dtype=x.dtype, device=generator.device, generator=generator)
    return Corrupted(x + sigma * noise.to(x.device), _all_count(x))


def add_poisson(x: Tensor, quanta: float, generator: torch.Generator) -> Corrupted:
    """Return the batch as `quanta` electrons per voxel of value 1 would show it; all voxels count.

    Mean x, variance x / quanta, so bright voxels are noisier: add it before voxels are scaled around 0.

    Args:
        x: not negative.
        quanta: expected counts of a voxel of value 1.
        generator: of the counts.

    Raises:
        InputError: a voxel is negative or not a number, or `quanta` is not positive.
    """
    if not quanta > 0:
        raise InputError(f"{quanta} counts per voxel of value 1 must be positive")
    least = float(x.min()) if x.numel() else 0.0
    if not least >= 0:
        raise InputError(f"the batch holds {least}, and counts cannot be negative: add the noise before scaling")
    counts = torch.poisson(x.to(generator.device, torch.float32) * quanta, generator=generator)
    return Corrupted((counts / quanta).to(x.device, x.dtype), _all_count(x))


def masked_error(reconstruction: Tensor, clean: Tensor, weight: Tensor) -> Tensor:
    """Return the mean squared error over the voxels with weight, all channels alike; 0 where there are none."""
    y, x, w = aligned(reconstruction, clean, weight)
    return masked_mean(w * (y - x).square(), w)


def _all_count(x: Tensor) -> Tensor:
    return torch.ones(x.shape[0], 1, *x.shape[2:], device=x.device)
