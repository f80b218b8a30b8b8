"""A classifier of patches: an encoder, and a classifier of its latents; dense over sections of any size.

A patch is a square of one section; neighbouring sections, if it is shown any, are further channels of the same
image, so that a network can see that an artifact is in one section and biology goes on::

    sections z - 1, z, z + 1  ->  channels  ->  encoder  ->  latent  ->  classifier  ->  logits about z

It is trained on patches and answers for sections (law 9): a tile on a lattice whose step is a multiple of the
encoder's stride is encoded once, fully convolutionally. For other steps, whose patches meet the poolings in
different phases, the first two levels are shared and the rest is computed patch by patch::

    level 1   whole tile                                  every patch is a window of it
    pooling   two phases along each axis, if the step is odd
    level 2   the whole of each phase                     every patch is a window of one of them
    level 3.. patch by patch

Both give the numbers of single patches: the first up to rounding, the second bit for bit (where the convolutions
of the machine add in an order that does not depend on the size of the image).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.latent_classifier import LatentClassifier, LatentClassifierSpec
from emloom.nn.multires_autoencoder import MultiResolutionEncoder, MultiResolutionSpec
from emloom.nn.objectives.base import Answers
from emloom.nn.pooled_encoder import PooledEncoder, PooledEncoderSpec
from emloom.spec import Spec

_HALVE = (1, 2, 2)
_SHARED = 2  # levels that patches share whatever their step

EncoderSpec = Annotated[MultiResolutionSpec | PooledEncoderSpec, Field(discriminator="kind")]


class PatchNetSpec(Spec):
    """The shape of a classifier of patches."""

    kind: Literal["patch_net"] = "patch_net"
    encoder: EncoderSpec = Field(default_factory=PooledEncoderSpec)
    """`pooled_encoder`, or `multi_resolution_autoencoder` for the encoder of such a net as it is."""
    hidden: tuple[int, ...] = (256, 24)
    """Units of the layers between latent and classes; none: a linear classifier."""
    sections: int = Field(default=1, ge=1)
    """Sections that a patch is shown, an odd number; the answer is about the middle one."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.sections % 2 == 0:
            raise ValueError(f"sections {self.sections} have no middle one: give an odd number")
        if self.encoder.in_channels != self.sections:
            raise ValueError(
                f"the encoder takes {self.encoder.in_channels} channels, and {self.sections} sections are shown: "
                "give it as many in_channels"
            )
        LatentClassifierSpec(n_latent=self.encoder.n_latent, hidden=self.hidden, n_out=1)
        return self

    @property
    def patch(self) -> Vec:
        """Voxels (z, y, x) that an answer is about."""
        return (1, self.encoder.patch, self.encoder.patch)

    @classmethod
    def light(cls, sections: int = 3, f: int = 16) -> Self:
        """Return the light classifier: pooled skips, no norm, 1.6 M weights for f = 16."""
        levels = MultiResolutionSpec(f=f, n_latent=256, batch_norm=False, in_channels=sections)
        return cls(encoder=PooledEncoderSpec(levels=levels), hidden=(24,), sections=sections)

    @classmethod
    def original(cls) -> Self:
        """Return the encoder with flattened skips and three layers, 66.8 M weights."""
        return cls(encoder=MultiResolutionSpec(), hidden=(256, 24))


class PatchNet(nn.Module):
    """A classifier of patches; see the module.

    ``forward`` maps float ``[N, 1, sections, patch, patch]`` to ``{head: [N, C, 1, 1, 1]}``, logits.

    Args:
        spec: its shape.
        head: what its answer is called.
        classes: C.
    """

    def __init__(self, spec: PatchNetSpec, head: str, classes: int) -> None:
        super().__init__()
        self.spec = spec
        self.head = head
        self.channels = {head: classes}
        encoder = spec.encoder
        self.encoder: MultiResolutionEncoder = (
            PooledEncoder(encoder) if isinstance(encoder, PooledEncoderSpec) else MultiResolutionEncoder(encoder)
        )
        shape = LatentClassifierSpec(n_latent=encoder.n_latent, hidden=spec.hidden, n_out=classes)
        self.classifier = LatentClassifier(shape)

    @property
    def stride(self) -> int:
        """Steps of a lattice that are multiples of it are answered fully convolutionally."""
        return self.spec.encoder.stride

    def input_shape(self, wanted: Sequence[int]) -> Vec:
        """Return the voxels that an answer about a patch needs.

        Raises:
            InputError: `wanted` is not the patch.
        """
        if tuple(wanted) != self.spec.patch:
            raise InputError(
                f"a crop of {tuple(wanted)} voxels is no patch: the network answers for {self.spec.patch}"
            )
        return (self.spec.sections, *self.spec.patch[1:])

    def output_shape(self, input_shape: Sequence[int]) -> Vec:
        """Return the voxels that an answer is about."""
        return self.spec.patch

    def forward(self, x: Tensor) -> Answers:
        """Return the logits of patches."""
        return {self.head: self.classifier(self.encoder(x.transpose(1, 2)))}

    def latents(self, x: Tensor) -> Tensor:
        """Return the latents of patches, ``[N, n_latent]``."""
        latents: Tensor = self.encoder(x.transpose(1, 2)).flatten(1)
        return latents

    def dense(self, sections_ZYX: Tensor, step: int) -> Tensor:
        """Return the logits of every patch of a lattice, ``[C, Z', Y', X']``.

        Args:
            sections_ZYX: as the network sees them; the first and last (sections - 1) / 2 are only neighbours.
            step: voxels along y and x from patch to patch, the first starting at voxel (0, 0).

        Raises:
            InputError: there are too few voxels for one patch.
        """
        self._check(sections_ZYX.shape, step)
        stacks = sections_ZYX.unfold(0, self.spec.sections, 1).permute(0, 3, 1, 2)[:, :, None]
        stacks = _trimmed(stacks, self.spec.encoder.patch, step)
        if step % self.stride == 0:
            logits = self.classifier(self.encoder(stacks, step // self.stride))
        else:
            rows, columns = ((n - self.spec.encoder.patch) // step + 1 for n in stacks.shape[3:])
            of_patches = self.classifier(self._latents(stacks, step, rows, columns))
            logits = of_patches.reshape(rows, columns, len(stacks), -1).permute(2, 3, 0, 1)[:, :, None]
        out: Tensor = logits[:, :, 0].transpose(0, 1)
        return out

    def _check(self, shape: Sequence[int], step: int) -> None:
        least = self.input_shape(self.spec.patch)
        if step < 1 or any(n < m for n, m in zip(shape, least, strict=True)):
            raise InputError(
                f"sections of {tuple(shape)} voxels with a patch every {step}: a patch needs {least}, and a step "
                "is at least 1"
            )

    def _latents(self, stacks: Tensor, step: int, rows: int, columns: int) -> Tensor:
        """Return latents ``[N, n_latent, 1, 1, 1]`` of patches, by row, column, then section."""
        patch, encoder = self.spec.encoder.patch, self.encoder
        if len(encoder.spec.maps) < _SHARED + 2:
            windows = stacks.unfold(3, patch, step).unfold(4, patch, step)
            one_by_one: Tensor = encoder(windows.permute(3, 4, 0, 1, 2, 5, 6).flatten(0, 2))
            return one_by_one
        _, first = encoder.one_level(stacks, 1)
        size = encoder.spec.sizes[_SHARED - 1]
        levels: dict[tuple[int, int], Tensor] = {}
        cut = []
        for row, column in product(range(rows), range(columns)):
            at = (step * row, step * column)
            phase = (at[0] % 2, at[1] % 2)
            if phase not in levels:
                pooled = functional.max_pool3d(first[..., phase[0] :, phase[1] :], _HALVE)
                levels[phase] = encoder.one_level(pooled, _SHARED)[1]
            y, x = at[0] // 2, at[1] // 2
            cut.append(levels[phase][..., y : y + size, x : x + size])
        windows = functional.max_pool3d(torch.cat(cut), _HALVE)
        latents: Tensor = encoder.layers["latent"](encoder.seen(encoder.finish(windows, _SHARED + 1), 1))
        return latents


def _trimmed(stacks: Tensor, patch: int, step: int) -> Tensor:
    """Return tiles without the rows and columns that no patch sees."""
    y, x = ((n - patch) // step * step + patch for n in stacks.shape[3:])
    return stacks[..., :y, :x]
