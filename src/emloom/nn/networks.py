"""Which networks a job may name, and the backbone each spec stands for.

A network's spec says its `kind`; where a job file or an old checkpoint does not, it is a `unet`. *Backbones* give
features, of which heads make answers; *autoencoders* answer by themselves (`emloom.nn.autoencoders`), and so do
*classifiers of patches* (`emloom.nn.patchnet`) and *centre-voxel networks* (`emloom.nn.voxelnets`).
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from emloom.nn.autoencoders import AnyAutoencoderSpec
from emloom.nn.forestspec import ForestSpec
from emloom.nn.patchnet import PatchNetSpec
from emloom.nn.resunet import ResUNet, ResUNetSpec
from emloom.nn.unet import UNet, UNetSpec
from emloom.nn.voxelnets import VoxelNetSpec

Backbone = UNet | ResUNet
"""A net that gives features; heads make answers of them."""

AnyBackboneSpec = UNetSpec | ResUNetSpec
"""The shape of any backbone."""


def _unet_unless_named(data: Any) -> Any:
    return {"kind": "unet", **data} if isinstance(data, dict) else data


BackboneSpec = Annotated[
    Annotated[AnyBackboneSpec, Field(discriminator="kind")], BeforeValidator(_unet_unless_named)
]
"""The same as a field of a job, told apart by `kind`."""

AnyNetworkSpec = AnyBackboneSpec | AnyAutoencoderSpec | PatchNetSpec | VoxelNetSpec
"""The shape of any network."""

NetworkSpec = Annotated[
    Annotated[AnyNetworkSpec, Field(discriminator="kind")], BeforeValidator(_unet_unless_named)
]
"""The same as a field of a job that trains a network, told apart by `kind`."""

LearnerSpec = Annotated[
    Annotated[AnyNetworkSpec | ForestSpec, Field(discriminator="kind")], BeforeValidator(_unet_unless_named)
]
"""Whatever can be in a model, as a field of it: a network, or a random forest, which no gradient trains."""


def backbone(spec: AnyBackboneSpec, in_channels: int) -> Backbone:
    """Return the untrained backbone of a spec."""
    return ResUNet(spec, in_channels) if isinstance(spec, ResUNetSpec) else UNet(spec, in_channels)
