"""What a network costs: multiply-adds of every layer, counted while it is shown something.

On torch's ``meta`` device nothing is computed and nothing stored, so nets of any size can be counted at once::

    with torch.device("meta"):
        net, x = autoencoder(spec), torch.empty(1, 1, 1, 140, 140)
    multiply_adds(net, x)
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def multiply_adds(net: nn.Module, *shown: Any) -> dict[str, int]:
    """Return the multiplications with weights of every convolution and linear layer, by its name in the net.

    Kernels count in full at the faces, too. Norms, activations and poolings, which do next to nothing, are left
    out. A layer that is used twice counts twice; batch statistics may move, as in any forward pass.

    Args:
        net: any network.
        shown: what it is called with.
    """
    counts: dict[str, int] = {}
    hooks = [
        part.register_forward_hook(_counting(counts, name))
        for name, part in net.named_modules()
        if isinstance(part, nn.modules.conv._ConvNd | nn.Linear)
    ]
    try:
        net(*shown)
    finally:
        for hook in hooks:
            hook.remove()
    return counts


def _counting(counts: dict[str, int], name: str) -> Any:
    def count(part: nn.Module, shown: tuple[Tensor, ...], answer: Tensor) -> None:
        counts[name] = counts.get(name, 0) + _multiply_adds(part, shown[0], answer)

    return count


def _multiply_adds(part: nn.Module, shown: Tensor, answer: Tensor) -> int:
    if isinstance(part, nn.Linear):
        return answer.numel() * part.in_features
    assert isinstance(part, nn.modules.conv._ConvNd)
    if part.transposed:  # every voxel shown is multiplied with the whole kernel
        return shown.numel() * part.out_channels // part.groups * prod(part.kernel_size)
    return answer.numel() * part.in_channels // part.groups * prod(part.kernel_size)
