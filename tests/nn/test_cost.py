"""Multiply-adds, against counting them one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from emloom.nn.cost import multiply_adds


def touched(layer: nn.Module, x: Tensor) -> int:
    """Count products of one weight and one voxel: the sum of the answer where both are always 1."""
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.fill_(0.0 if name == "bias" else 1.0)
        return round(float(layer(torch.ones_like(x)).sum()))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(2, 4, (1, 3, 2)),
        nn.Conv3d(2, 4, 2, stride=2),
        nn.Conv3d(4, 6, 2, groups=2),
        nn.ConvTranspose3d(2, 3, (1, 3, 3)),
        nn.ConvTranspose3d(4, 6, 2, stride=2, groups=2),
        nn.Conv3d(2, 3, (1, 2, 2), dilation=(1, 2, 2)),
    ],
)
def test_every_product_is_counted_once(layer):
    x = torch.zeros(2, layer.in_channels, 2, 6, 6)
    assert multiply_adds(layer, x) == {"": touched(layer, x)}


def test_layers_are_named_and_repeated_use_is_counted():
    line = nn.Linear(3, 3)
    net = nn.Sequential(line, nn.ReLU(), line, nn.Linear(3, 2))
    assert multiply_adds(net, torch.zeros(5, 3)) == {"0": 2 * 45, "3": 30}
    assert not any(part._forward_hooks for part in net.modules())


def test_nothing_stays_behind_where_the_net_refuses():
    net = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(RuntimeError):
        multiply_adds(net, torch.zeros(5, 4))
    assert not any(part._forward_hooks for part in net.modules())
