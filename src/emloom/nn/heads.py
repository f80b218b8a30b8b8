"""Heads: what a network says about every voxel, by name.

Networks return *logits* at full resolution, one entry per head; losses and prediction apply the sigmoid. Whatever
the net, these properties hold and are what training crops and tiled prediction build on: `channels`, `lattice`,
`context`, `tile_dependent`, `output_shape`, `input_shape`, `forward`, `interior` (see `emloom.nn.unet`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import lcm, prod
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.networks import backbone
from emloom.nn.reshape import crop, depth_to_space, fitting_input, fitting_output
from emloom.nn.resunet import ResUNetSpec
from emloom.nn.supervision import level_name
from emloom.nn.unet import UNetSpec

Logits = dict[str, Tensor]


@runtime_checkable
class DenseNet(Protocol):
    """What prediction needs to know of a network; `MultiHead` and `AutoContext` are two."""

    @property
    def channels(self) -> Mapping[str, int]:
        """Channels of every head."""

    @property
    def lattice(self) -> Vec:
        """Voxels (z, y, x) between equivalent positions."""

    @property
    def context(self) -> Vec:
        """Voxels (z, y, x) per side that an answer needs to see around it."""

    @property
    def tile_dependent(self) -> bool:
        """Whether the answer at a voxel depends on the tile around it."""

    def peak_bytes(self, input_shape: Sequence[int]) -> int:
        """Return an estimate of the memory that one tile takes in prediction."""

    def interior(self, x: Tensor) -> Logits:
        """Return logits of the input without its outer `context` voxels."""


class MultiHead(nn.Module):
    """One net shared by several heads, each a single convolution, e.g. LSDs and affinities (MTLSD).

    ``forward`` maps float ``[N, in_channels, Z, Y, X]`` to logits ``{head: [N, channels, Z', Y', X']}``. A net
    with `supervision` also answers at coarser levels while it is in training mode; `levels_of` collects these.

    Args:
        unet_spec: the shape of the net.
        heads: channels of every head, by name.
        in_channels: channels of the input.

    Raises:
        InputError: there is no head, or one without channels.
    """

    def __init__(self, unet_spec: UNetSpec | ResUNetSpec, heads: Mapping[str, int], in_channels: int = 1) -> None:
        super().__init__()
        if not heads or min(heads.values()) < 1:
            raise InputError(f"heads {dict(heads)} must name at least one output, each with at least one channel")
        self.unet = backbone(unet_spec, in_channels)
        self.channels = dict(heads)
        cell = prod(unet_spec.stem)
        maps, kernel = unet_spec.features[0], unet_spec.head_kernel
        self.heads = nn.ModuleDict({name: nn.Conv3d(maps, n * cell, kernel) for name, n in heads.items()})
        coarse = unet_spec.features[1 : 1 + unet_spec.supervision] if isinstance(unet_spec, ResUNetSpec) else ()
        self.coarse_heads = nn.ModuleList(
            nn.ModuleDict({name: nn.Conv3d(maps, n, 1) for name, n in heads.items()}) for maps in coarse
        )
        for head in (*self.heads.values(), *(h for level in self.coarse_heads for h in level.children())):
            # Answers start near "don't know": the first steps need not fight a confident random net.
            weight = head.get_parameter("weight")
            nn.init.normal_(weight, std=0.1 / weight[0].numel() ** 0.5)
            nn.init.zeros_(head.get_parameter("bias"))

    @property
    def lattice(self) -> Vec:
        """Voxels (z, y, x) between equivalent positions."""
        return self.unet.lattice

    @property
    def context(self) -> Vec:
        """Voxels (z, y, x) per side that an answer needs to see around it."""
        return self.unet.context

    @property
    def tile_dependent(self) -> bool:
        """Whether the answer at a voxel depends on the tile around it."""
        return self.unet.tile_dependent

    @property
    def padding(self) -> str:
        """`same` or `valid`."""
        return self.unet.spec.padding

    def output_shape(self, input_shape: Sequence[int]) -> Vec:
        """Return the voxels ``forward`` answers for; raises `InputError` naming the next shape that fits."""
        return self.unet.output_shape(input_shape)

    def input_shape(self, min_output_shape: Sequence[int]) -> Vec:
        """Return the smallest input (z, y, x) whose output is at least this large."""
        return self.unet.input_shape(min_output_shape)

    def peak_bytes(self, input_shape: Sequence[int]) -> int:
        """Return an estimate of the memory that one float32 tile takes in prediction.

        What the backbone holds, then the logits and their unfolded copy.
        """
        answered = prod(n - 2 * c for n, c in zip(input_shape, self.context, strict=True))
        return 4 * (self.unet.peak_floats(input_shape) + 2 * answered * sum(self.channels.values()))

    def forward(self, x: Tensor) -> Logits:
        """Return logits; raises `InputError` where the input's shape does not fit."""
        if not (self.training and self.coarse_heads):
            return self._answer(self.unet(x), padded=True)
        first, *others = self.unet.decoded(x)
        out = self._answer(first, padded=True)
        for level, (features, heads) in enumerate(zip(others, self.coarse_heads, strict=False), start=1):
            out |= {level_name(name, level): heads.get_submodule(name)(features) for name in self.channels}
        return out

    def interior(self, x: Tensor) -> Logits:
        """Return logits of the input without its outer `context` voxels, as ``forward`` would, at less cost."""
        return self._answer(self.unet.interior(x), padded=False)

    def _answer(self, features: Tensor, padded: bool) -> Logits:
        z, y, x = (size // 2 if padded else 0 for size in self.unet.spec.head_kernel)
        padding = (x, x, y, y, z, z)
        if any(padding):
            features = functional.pad(features, padding)
        stem = self.unet.spec.stem
        return {name: depth_to_space(head(features), stem) for name, head in self.heads.items()}


class AutoContext(nn.Module):
    """Two nets in a row: the first one's LSDs are what the second one sees (ACLSD; with raw, ACRLSD).

    Sheridan et al., Nature Methods 2023 (doi:10.1038/s41592-022-01711-z). Both nets learn at the same time, each
    from its own loss: no gradient flows from the affinities back into the descriptors.

    Args:
        first: a net with the one head `lsds`.
        second: the affinity net; its input channels are the LSDs, then raw where included.
        include_raw: whether the second net also sees the first one's input.

    Raises:
        InputError: the two do not fit together.
    """

    def __init__(self, first: MultiHead, second: MultiHead, include_raw: bool = False) -> None:
        super().__init__()
        if "lsds" not in first.channels:
            raise InputError(
                f"the first net has heads {sorted(first.channels)}: auto-context needs one named 'lsds'"
            )
        if first.padding != second.padding:
            raise InputError(f"the first net is {first.padding!r}, the second {second.padding!r}: use one padding")
        seen = first.channels["lsds"] + (first.unet.in_channels if include_raw else 0)
        if second.unet.in_channels != seen:
            raise InputError(f"the second net takes {second.unet.in_channels} channels, but is shown {seen}")
        self.first = first
        self.second = second
        self.include_raw = include_raw

    @property
    def channels(self) -> dict[str, int]:
        """Channels of every head of both nets."""
        return {**self.second.channels, "lsds": self.first.channels["lsds"]}

    @property
    def lattice(self) -> Vec:
        """Voxels (z, y, x) between equivalent positions of both nets."""
        z, y, x = (lcm(a, b) for a, b in zip(self.first.lattice, self.second.lattice, strict=True))
        return (z, y, x)

    @property
    def context(self) -> Vec:
        """Voxels (z, y, x) per side that an answer needs to see around it."""
        parts = zip(self.first.context, self.second.context, self._bridge(predicting=True), strict=True)
        z, y, x = (a + b + c for a, b, c in parts)
        return (z, y, x)

    @property
    def tile_dependent(self) -> bool:
        """Whether the answer at a voxel depends on the tile around it."""
        return self.first.tile_dependent or self.second.tile_dependent

    @property
    def padding(self) -> str:
        """`same` or `valid`."""
        return self.second.padding

    def output_shape(self, input_shape: Sequence[int]) -> Vec:
        """Return the voxels ``forward`` answers for; raises `InputError` naming the next shape that fits."""
        return fitting_output(input_shape, self.lattice, self._shrink)

    def input_shape(self, min_output_shape: Sequence[int]) -> Vec:
        """Return the smallest input (z, y, x) whose output is at least this large."""
        return fitting_input(min_output_shape, self.lattice, self._shrink)

    def peak_bytes(self, input_shape: Sequence[int]) -> int:
        """Return an estimate of the memory that one float32 tile takes in prediction: the larger net's."""
        return max(self.first.peak_bytes(input_shape), self.second.peak_bytes(input_shape))

    def forward(self, x: Tensor) -> Logits:
        """Return the logits of both nets; raises `InputError` where the input's shape does not fit."""
        self.output_shape(x.shape[2:])
        first: Logits = self.first(x)
        lsds = first["lsds"]
        answer: Logits = self.second(self._shown(x, lsds, self._bridge(predicting=False)))
        return {**first, **self._both(lsds, answer)}

    def interior(self, x: Tensor) -> Logits:
        """Return logits of the input without its outer `context` voxels."""
        fitting_output(x.shape[2:], self.lattice, self.context)
        lsds = self.first.interior(x)["lsds"]
        return self._both(lsds, self.second.interior(self._shown(x, lsds, self._bridge(predicting=True))))

    def _both(self, lsds: Tensor, answer: Logits) -> Logits:
        """Add the first net's logits, cropped to the voxels the second answers for."""
        shape = next(iter(answer.values())).shape[2:]
        z, y, w = ((a - b) // 2 for a, b in zip(lsds.shape[2:], shape, strict=True))
        return {**answer, "lsds": crop(lsds, (z, y, w))}

    def _shown(self, x: Tensor, lsds: Tensor, bridge: Vec) -> Tensor:
        """Return what the second net sees: LSDs (and raw) of the voxels it asks for."""
        lsds = torch.sigmoid(crop(lsds.detach(), bridge))
        if not self.include_raw:
            return lsds
        z, y, w = ((a - b) // 2 for a, b in zip(x.shape[2:], lsds.shape[2:], strict=True))
        return torch.cat([lsds, crop(x, (z, y, w))], dim=1)

    def _bridge(self, predicting: bool) -> Vec:
        """Return the voxels per side that the first net answers for and the second does not ask for.

        Each net has its own lattice, so the first cannot answer for exactly what the second asks. Where the nets
        pad, prediction also keeps the first net's pooling windows where a training crop, which starts on the
        lattice, had them; a context that is a multiple of both lattices does.
        """
        first, second = self.first.context, self.second.context
        if self.padding == "valid":
            pairs = zip(second, self.first.lattice, strict=True)
            z, y, x = (next(b for b in range(n) if (2 * (c + b)) % n == 0) for c, n in pairs)
        else:
            sums = zip(first, second, self.lattice, strict=True)
            z, y, x = (-(a + b) % n if predicting else 0 for a, b, n in sums)
        return (z, y, x)

    @property
    def _shrink(self) -> Vec:
        return self.context if self.padding == "valid" else (0, 0, 0)
