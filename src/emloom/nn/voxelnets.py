"""Centre-voxel networks: which class the voxel in the middle of a patch has, for every voxel at once.

They are what one trains with on a few labelled sections: a patch has one answer, so only labelled voxels are asked
about. One module does all of it, always with the numbers of its patches:

* trains on patches (``crop_shape_vox: [1, 1, 1]``), or on dense crops of which only labelled voxels count;
* answers for sections, at native stride along their normal, and for blocks (`emloom.nn.dense`).

A tile sees half a window more on both sides; a window of an even number of voxels has its labelled voxel at index
window // 2, and the tile's last voxel is then not looked at. So the voxel that an answer is about is the same
however a crop was mirrored or turned. Nets that pad with zeros cannot be asked densely: they answer patch by
patch, with the same interface, 100 times slower. Their `valid` twins have the same weights and no padding.
*Planar* nets see their own section only.

While batch norm is in training, a dense crop is normalised by its own statistics, those of all its voxels, not by
those of patches around labelled ones: for dense crops the nets with channel norm (`_ln`) are the better choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.dense import problems
from emloom.nn.densewalk import Mode, Reach, answers, reach_of, vec
from emloom.nn.reshape import fitting_input, fitting_output
from emloom.nn.voxelbackbones import BackboneName, Form, plan_of
from emloom.nn.voxelcost import Cost, cost_of
from emloom.spec import Spec

_PATCH_FLOATS = 1 << 26  # of the maps of a batch of patches: 256 MiB


class VoxelNetSpec(Spec):
    """The shape of a centre-voxel network."""

    kind: Literal["voxel_net"] = "voxel_net"
    backbone: BackboneName = "4_conv_ln@32"
    """Architecture and edge of the patch; see docs/voxel-networks.md."""
    odd: bool = False
    """The twin with an odd window, whose labelled voxel is exactly in the middle."""
    planar: bool = False
    """Look at single sections, a window of (1, w, w): for thick sections, unlike their neighbours."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.odd and not plan_of(self.backbone).odd:
            raise ValueError(f"{self.backbone} has no pooling at full resolution to make odd: leave `odd` out")
        return self

    @property
    def features(self) -> int:
        """Maps that the backbone ends in."""
        return plan_of(self.backbone).features

    @property
    def head_kernel(self) -> Vec:
        """Kernel (z, y, x) of a head."""
        return self._form(1).size(plan_of(self.backbone).head_kernel(self.odd))

    def build_backbone(self, in_channels: int = 1) -> nn.Sequential:
        """Return the untrained backbone, ``[N, in_channels, *window]`` to ``[N, features, *head_kernel]``."""
        return plan_of(self.backbone).layers(self._form(in_channels))

    def _form(self, channels: int) -> Form:
        return Form(channels, self.odd, self.planar)


class VoxelNet(nn.Module):
    """A backbone, and heads that say something about the voxel in the middle of its window.

    ``forward`` maps float ``[N, in_channels, Z, Y, X]`` to logits ``{head: [N, C, Z', Y', X']}``, each axis
    shorter by the `context` on both sides. It has the properties of `emloom.nn.heads.DenseNet`.

    Args:
        spec: the shape.
        heads: channels of every head, by name.
        in_channels: channels of the input.

    Raises:
        InputError: there is no head, or one without channels.
    """

    def __init__(self, spec: VoxelNetSpec, heads: Mapping[str, int], in_channels: int = 1) -> None:
        super().__init__()
        if not heads or min(heads.values()) < 1:
            raise InputError(f"heads {dict(heads)} must name at least one output, each with at least one channel")
        self.spec = spec
        self.in_channels = in_channels
        self.channels = dict(heads)
        self.mode: Mode = "atrous"
        self.backbone = spec.build_backbone(in_channels)
        self.heads = nn.ModuleDict(
            {name: nn.Conv3d(spec.features, n, spec.head_kernel) for name, n in heads.items()}
        )
        for head in self.heads.values():
            # Answers start near "don't know": the first steps need not fight a confident random net.
            weight = head.get_parameter("weight")
            nn.init.normal_(weight, std=0.1 / weight[0].numel() ** 0.5)
            nn.init.zeros_(head.get_parameter("bias"))
        self.reach: Reach = reach_of(self.backbone).then(reach_of(next(iter(self.heads.values()))))
        self.reasons = tuple(problems(self.backbone, training=True))
        self._cost: Cost = cost_of(self.backbone, in_channels, sum(heads.values()), spec.head_kernel)

    @property
    def features(self) -> int:
        """Maps that the backbone ends in."""
        return self.spec.features

    @property
    def window(self) -> Vec:
        """Voxels (z, y, x) that an answer is made of; its voxel is at index window // 2."""
        return self.reach.window

    @property
    def convertible(self) -> bool:
        """Whether it answers for many voxels at once; otherwise patch by patch, for the `reasons`."""
        return not self.reasons

    @property
    def lattice(self) -> Vec:
        """Voxels (z, y, x) between equivalent positions: it answers for any number."""
        return (1, 1, 1)

    @property
    def context(self) -> Vec:
        """Voxels (z, y, x) per side that an answer needs to see around it."""
        return vec(n // 2 for n in self.window)

    @property
    def tile_dependent(self) -> bool:
        """Whether the answer at a voxel depends on the tile around it: never."""
        return False

    def output_shape(self, input_shape: Sequence[int]) -> Vec:
        """Return the voxels ``forward`` answers for; raises `InputError` where there is not one."""
        return fitting_output(input_shape, self.lattice, self.context)

    def input_shape(self, min_output_shape: Sequence[int]) -> Vec:
        """Return the smallest input (z, y, x) whose output is at least this large."""
        return fitting_input(min_output_shape, self.lattice, self.context)

    def peak_bytes(self, input_shape: Sequence[int]) -> int:
        """Return an estimate of the memory that one float32 tile takes in prediction."""
        wanted = vec(n - 2 * c for n, c in zip(input_shape, self.context, strict=True))
        kept = 2 * sum(self.channels.values()) * prod(wanted) + self.in_channels * prod(input_shape)
        if self.convertible:
            return 4 * (kept + self._cost.peak_floats(wanted))
        return 4 * (kept + max(_PATCH_FLOATS, self._cost.peak_floats((1, 1, 1))))

    def macs(self, wanted: Sequence[int]) -> int:
        """Return the multiply-accumulates of answering for voxels (z, y, x), if padded patch by patch."""
        if self.convertible:
            return self._cost.macs(vec(wanted))
        return prod(wanted) * self._cost.macs((1, 1, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return logits; raises `InputError` where the input is smaller than a window."""
        wanted = self.output_shape(x.shape[2:])
        z, y, w = (n + m for n, m in zip(wanted, self.reach.margin, strict=True))
        x = x[:, :, :z, :y, :w]
        if self.convertible or wanted == (1, 1, 1):
            return answers(self.backbone, self._named_heads(), x, self.mode)
        return self._patchwise(x, wanted)

    def interior(self, x: Tensor) -> dict[str, Tensor]:
        """Return logits of the input without its outer `context` voxels: the same as ``forward``."""
        if x.device.type == "cpu":  # measured: up to a third less time
            x = x.contiguous(memory_format=torch.channels_last_3d)
        return self.forward(x)

    def patches(self, x: Tensor) -> Tensor:
        """Return the patches of ``[1, C, Z, Y, X]`` at every position: a view ``[Z', Y', X', C, *window]``."""
        out = x[0]
        for axis, size in enumerate(self.window, start=1):
            out = out.unfold(axis, size, 1)
        return out.movedim(0, 3)

    def patch_network(self, head: str) -> nn.Sequential:
        """Return backbone and one head in a row, which map a window to one answer; weights are shared."""
        return nn.Sequential(self.backbone, self.heads.get_submodule(head))

    def _named_heads(self) -> dict[str, nn.Module]:
        return dict(self.heads.items())

    def _patchwise(self, x: Tensor, wanted: Vec) -> dict[str, Tensor]:
        """Return logits patch by patch, in batches of bounded memory."""
        if torch.compiler.is_compiling():  # every batch would become code of its own
            raise RuntimeError("a centre-voxel network that pads answers patch by patch, which cannot be compiled")
        size = max(1, _PATCH_FLOATS // self._cost.peak_floats((1, 1, 1)))
        found: dict[str, list[Tensor]] = {name: [] for name in self.channels}
        for sample in x[:, None]:
            patches = self.patches(sample)
            for some in _batches(torch.arange(prod(wanted), device=x.device), size):
                z, y, w = torch.unravel_index(some, wanted)
                for name, answer in answers(self.backbone, self._named_heads(), patches[z, y, w]).items():
                    found[name].append(answer.flatten(1))
        return {
            name: torch.cat(parts).reshape(len(x), *wanted, -1).movedim(-1, 1) for name, parts in found.items()
        }


def _batches(numbers: Tensor, size: int) -> tuple[Tensor, ...]:
    return torch.split(numbers, size)
