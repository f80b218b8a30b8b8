"""Centre-voxel networks: the published sizes, and one answer however it is asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from emloom.nn.voxelbackbones import BackboneName, names
from emloom.nn.voxelnets import VoxelNet, VoxelNetSpec

SIZES = {  # parameters of backbone and head with 6 classes, edge of the window, stride
    "3_layer@8": (69_888, 390, 8, 2),
    "4_conv@32": (291_456, 774, 30, 8),
    "4_conv_ln@32": (291_456, 774, 30, 8),
    "4_conv_resnet@32": (1_454_016, 6_150, 32, 16),
    "4_conv_resnet@16": (1_454_016, 774, 16, 16),
    "4_conv_resnet_ln@32": (1_454_016, 6_150, 32, 16),
    "4_conv_resnet_ln@16": (1_454_016, 774, 16, 16),
    "4_conv_resnet_valid@32": (1_454_016, 6_150, 118, 16),
    "4_conv_resnet_valid@16": (1_454_016, 774, 102, 16),
    "4_conv_resnet_ln_valid@32": (1_454_016, 6_150, 118, 16),
    "4_conv_resnet_ln_valid@16": (1_454_016, 774, 102, 16),
    "res_valid": (191_296, 774, 30, 4),
    "dilated@32": (106_176, 390, 30, 4),
    "dilated@64": (106_176, 279_942, 62, 4),
    "dilated_16@16": (106_176, 390, 16, 2),
    "dilated_no_pool@32": (106_176, 4_088_838, 32, 1),
    "convnext@32": (31_315_872, 4_614, 32, 32),
    "convnext@16": (31_310_496, 4_614, 16, 16),
    "convnext_dilated@32": (95_343_520, 49_158, 32, 1),
}


def count(module: nn.Module) -> int:
    return sum(weights.numel() for weights in module.parameters())


@pytest.mark.parametrize("name", names())
def test_sizes_are_the_published_ones(name: BackboneName) -> None:
    with torch.device("meta"):
        net = VoxelNet(VoxelNetSpec(backbone=name), {"classes": 6})
    found = (count(net.backbone), count(net.heads), net.window[0], net.reach.stride[0])
    assert found == SIZES[name]
