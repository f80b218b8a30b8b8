"""Which autoencoders there are, and the untrained net each spec stands for.

=================================  ===========================================  ==============================
kind (without ``_autoencoder``)    what                                         module of `emloom.nn`
=================================  ===========================================  ==============================
fcn, atrous, unet                  three shapes of one number of parameters     `level_autoencoders`
multi_resolution                   a patch as one vector, for artifacts         `multires_autoencoder`
variational                        the same with a distribution of vectors      `variational`
voxel                              a window around a centre-voxel backbone      `voxel_autoencoder`
=================================  ===========================================  ==============================

What they share: ``rule`` says which tiles fit, ``latent(x)`` is what a tile is reduced to, ``net(x)`` the
reconstruction (of a variational one, together with the distribution of its latents).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from emloom.nn.level_autoencoders import (
    AtrousAutoencoderSpec,
    FCNAutoencoderSpec,
    LevelAutoencoder,
    UNetAutoencoderSpec,
)
from emloom.nn.multires_autoencoder import MultiResolutionAutoencoder, MultiResolutionSpec
from emloom.nn.variational import VariationalAutoencoder, VariationalSpec
from emloom.nn.voxel_autoencoder import VoxelAutoencoder, VoxelAutoencoderSpec

Autoencoder = LevelAutoencoder | MultiResolutionAutoencoder | VariationalAutoencoder | VoxelAutoencoder
"""A net that gives back what it is shown, through a latent."""

AnyAutoencoderSpec = (
    FCNAutoencoderSpec
    | AtrousAutoencoderSpec
    | UNetAutoencoderSpec
    | MultiResolutionSpec
    | VariationalSpec
    | VoxelAutoencoderSpec
)
"""The shape of any autoencoder."""

AutoencoderSpec = Annotated[AnyAutoencoderSpec, Field(discriminator="kind")]
"""The same as a field of a job, told apart by `kind`."""


def autoencoder(spec: AnyAutoencoderSpec) -> Autoencoder:
    """Return the untrained net of a spec; weights come from torch's global generator."""
    if isinstance(spec, MultiResolutionSpec):
        return MultiResolutionAutoencoder(spec)
    if isinstance(spec, VariationalSpec):
        return VariationalAutoencoder(spec)
    if isinstance(spec, VoxelAutoencoderSpec):
        return VoxelAutoencoder(spec)
    return LevelAutoencoder(spec)
