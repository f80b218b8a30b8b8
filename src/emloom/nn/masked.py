"""Sums and means over the voxels that are known: what all losses share.

A weight of 0 means *unknown*. Predictions and targets of unknown voxels are replaced by 0 before anything is
computed from them, so that neither a NaN there nor its gradient can reach the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

Per = Literal["batch", "sample"]
"""Over what an overlap is summed: each channel over the whole batch, or each channel of each sample."""
Smooth = Annotated[float, Field(gt=0)]
"""Added above and below an overlap; never 0, for an empty crop with an empty answer is 0 / 0."""


def aligned(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits, target and weight as floats of the logits' shape; logits and targets without weight are 0.

    Half precision becomes float32: sums over a crop overflow float16 and lose all digits in bfloat16.

    Raises:
        ValueError: target and logits differ in shape. Broadcasting a target would silently train on the wrong
            thing: a programming error, not the user's.
    """
    x = precise(logits, target)
    w = weight.to(x.dtype).expand_as(x)
    known = w > 0
    return torch.where(known, x, 0.0), torch.where(known, target.to(x.dtype), 0.0), w


def precise(logits: Tensor, target: Tensor) -> Tensor:
    """Return logits as float32 or float64; raises `ValueError` as `aligned`."""
    if target.shape != logits.shape:
        raise ValueError(f"target {tuple(target.shape)} and logits {tuple(logits.shape)} differ in shape")
    return logits if logits.dtype == torch.float64 else logits.float()


def one_weight(weight: Tensor) -> Tensor:
    """Return one weight for all channels of a voxel, ``[N, 1, ...]``: a voxel is known if all its channels are."""
    return weight.amin(dim=1, keepdim=True)


def masked_mean(weighted: Tensor, weight: Tensor) -> Tensor:
    """Return the sum of already weighted entries over the number of entries with weight; 0 where there is none."""
    return weighted.sum() / torch.count_nonzero(weight > 0).clamp(min=1)


def group_axes(ndim: int, per: Per) -> list[int]:
    """Return the axes that are summed so that one number is left for each channel (of each sample)."""
    return [*([0] if per == "batch" else []), *range(2, ndim)]


def known_groups(weight: Tensor, per: Per) -> Tensor:
    """Return which groups hold any known voxel: bool ``[1 or N, C, 1...]``."""
    return (weight > 0).sum(dim=group_axes(weight.ndim, per), keepdim=True) > 0


def mean_over(values: Tensor, known: Tensor, importance: Sequence[float] | None = None) -> Tensor:
    """Return the mean of per-group values over the known groups, channels weighted by `importance`; else 0."""
    share = known.to(values.dtype)
    if importance is not None:
        shape = [1, -1, *[1] * (values.ndim - 2)]
        share = share * torch.tensor(importance, dtype=values.dtype, device=values.device).reshape(shape)
    total = share.sum()
    return (torch.where(known, values, 0.0) * share).sum() / torch.where(total > 0, total, 1.0)


def count(mask: Tensor, axes: Sequence[int]) -> Tensor:
    """Return how many entries of a mask are true along some axes, which are kept."""
    # Measured on a processor: torch sums booleans sixty times slower than these bytes.
    return mask.contiguous().view(torch.uint8).sum(dim=list(axes), keepdim=True, dtype=torch.int32)
