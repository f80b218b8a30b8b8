"""The backbones of centre-voxel networks: what a patch is reduced to before a head says what its centre is.

A name is an architecture and the edge of its patch in voxels. Convolutions have kernel 3 unless said otherwise,
and are followed by a norm and an activation::

    3_layer@8           C16 C32 C64 Avg2                                               LeakyReLU, batch norm
    4_conv[_ln]         C16 Max2 C32 Max2 C64 C128 Avg2                                GELU, batch [channel] norm
    4_conv_resnet[_ln]  C16 Max2 C32 R32 Max2 C64 R64 Max2 C128 R128 Avg2, zero-padded GELU, batch [channel] norm
    ..._valid           the same weights, no padding
    res_valid           C16 Max2 C32 R32 Max2 C64 C128(kernel 2), no padding           GELU, batch norm
    dilated...          C16 Max2 [C32 C32 | Conv32(kernel 5)] Avg2, dilation 3         LeakyReLU, batch norm
    convnext...         ConvNeXt-T with kernels of 7^3 (Liu et al. 2022, arXiv:2201.03545), zero-padded

R is a residual block of two convolutions. The `odd` twin of a net gives its first pooling at full resolution a
kernel of 3 instead of 2 (stride 2 as before): the same weights see one voxel more, and the labelled voxel is
exactly in the middle. Without pooling, it is the kernel of the head that is odd.

A *planar* net looks at single sections: every kernel, stride, gap and padding of n voxels is one of (1, n, n).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

from torch import nn

from emloom.geometry import Vec
from emloom.nn.layers import draw_weights
from emloom.nn.voxelparts import ChannelNorm, Concat, Residual, Scale

BackboneName = Literal[
    "3_layer@8",
    "4_conv@32",
    "4_conv_ln@32",
    "4_conv_resnet@32",
    "4_conv_resnet@16",
    "4_conv_resnet_ln@32",
    "4_conv_resnet_ln@16",
    "4_conv_resnet_valid@32",
    "4_conv_resnet_valid@16",
    "4_conv_resnet_ln_valid@32",
    "4_conv_resnet_ln_valid@16",
    "res_valid",
    "dilated@32",
    "dilated@64",
    "dilated_16@16",
    "dilated_no_pool@32",
    "convnext@32",
    "convnext@16",
    "convnext_dilated@32",
]

_SLOPE = 0.01  # of LeakyReLU


@dataclass(frozen=True)
class Form:
    """What is left to choose when a backbone is built.

    Attributes:
        channels: of the input.
        odd: whether it is the odd twin.
        planar: whether it looks at single sections.
    """

    channels: int = 1
    odd: bool = False
    planar: bool = False

    def size(self, n: int) -> Vec:
        """Return a kernel, stride or dilation of n voxels, along (z, y, x)."""
        return (1 if self.planar else n, n, n)

    def padding(self, n: int) -> Vec:
        """Return a padding by n voxels, along (z, y, x)."""
        return (0 if self.planar else n, n, n)

    def conv(self, n_in: int, n_out: int, kernel: int = 3, dilation: int = 1, padding: int = 0) -> nn.Conv3d:
        """Return a convolution with bias, its weights drawn to keep a signal's power."""
        gaps = self.size(dilation)
        out = nn.Conv3d(n_in, n_out, self.size(kernel), padding=self.padding(padding), dilation=gaps)
        draw_weights(out, _SLOPE)
        return out

    def halving(self) -> nn.MaxPool3d:
        """Return a pooling by two; of the odd twin, the first one."""
        return nn.MaxPool3d(self.size(3 if self.odd else 2), stride=self.size(2))

    def averaging(self) -> nn.AvgPool3d:
        """Return a pooling by two that takes means; of the odd twin, the first one."""
        return nn.AvgPool3d(self.size(3 if self.odd else 2), stride=self.size(2))

    @property
    def even(self) -> Form:
        """Of a layer behind the one that is odd."""
        return replace(self, odd=False)


@dataclass(frozen=True)
class Plan:
    """How a backbone is built.

    Attributes:
        layers: returns its layers in a form.
        features: maps it ends in.
        head_kernel: edge of the kernel of a head, given whether it is the odd twin.
        odd: whether it has an odd twin.
    """

    layers: Callable[[Form], nn.Sequential]
    features: int
    head_kernel: Callable[[bool], int] = lambda odd: 1
    odd: bool = True


def plan_of(name: BackboneName) -> Plan:
    """Return how a backbone is built."""
    return _PLANS[name]


def names() -> tuple[BackboneName, ...]:
    """Return the names of all backbones."""
    found: tuple[BackboneName, ...] = get_args(BackboneName)
    return found


@dataclass(frozen=True)
class _Style:
    """What follows a convolution, and whether it pads."""

    gelu: bool = True
    channel_norm: bool = False
    padded: bool = False

    def unit(self, form: Form, n_in: int, n_out: int, kernel: int = 3, dilation: int = 1) -> list[nn.Module]:
        norm: nn.Module = ChannelNorm(n_out) if self.channel_norm else nn.BatchNorm3d(n_out)
        act: nn.Module = nn.GELU() if self.gelu else nn.LeakyReLU(_SLOPE)
        return [form.conv(n_in, n_out, kernel, dilation, padding=int(self.padded)), norm, act]

    def residual(self, form: Form, n: int) -> Residual:
        return Residual(*self.unit(form, n, n), *self.unit(form, n, n))


def _three_layer(form: Form) -> nn.Sequential:
    unit = partial(_Style(gelu=False).unit, form)
    return nn.Sequential(*unit(form.channels, 16), *unit(16, 32), *unit(32, 64), form.averaging())


def _four_conv(style: _Style, form: Form) -> nn.Sequential:
    unit, later = partial(style.unit, form), form.even
    return nn.Sequential(
        *(*unit(form.channels, 16), form.halving()),
        *(*unit(16, 32), later.halving()),
        *(*unit(32, 64), *unit(64, 128), later.averaging()),
    )


def _resnet(style: _Style, form: Form) -> nn.Sequential:
    unit, residual, later = partial(style.unit, form), partial(style.residual, form), form.even
    return nn.Sequential(
        *(*unit(form.channels, 16), form.halving()),
        *(*unit(16, 32), residual(32), later.halving()),
        *(*unit(32, 64), residual(64), later.halving()),
        *(*unit(64, 128), residual(128), later.averaging()),
    )


def _res_valid(form: Form) -> nn.Sequential:
    style = _Style()
    unit = partial(style.unit, form)
    return nn.Sequential(
        *(*unit(form.channels, 16), form.halving()),
        *(*unit(16, 32), style.residual(form, 32), form.even.halving()),
        *(*unit(32, 64), *unit(64, 128, kernel=2)),
    )


def _dilated(dilation: int, pools: bool, form: Form) -> nn.Sequential:
    unit = partial(_Style(gelu=False).unit, form)
    branches = Concat(
        nn.Sequential(*unit(16, 32, dilation=dilation), *unit(32, 32, dilation=dilation)),
        form.conv(16, 32, 5, dilation),  # linear
    )
    return nn.Sequential(*unit(form.channels, 16), *((form.halving(),) if pools else ()), branches)


def _dilated_pooled(first: bool, form: Form) -> nn.Sequential:
    last = form.even if first else form
    return nn.Sequential(*_dilated(3, first, form), last.averaging())


def _block(form: Form, n: int) -> Residual:
    return Residual(
        nn.Conv3d(n, n, form.size(7), padding=form.padding(3), groups=n),
        ChannelNorm(n, 1e-6),
        nn.Conv3d(n, 4 * n, 1),
        nn.GELU(),
        nn.Conv3d(4 * n, n, 1),
        Scale(n),
    )


def _convnext(
    form: Form, stem: nn.Conv3d, widths: tuple[int, ...], depths: tuple[int, ...], down: nn.Conv3d
) -> nn.Sequential:
    """Return stages of blocks, with convolutions like `down` between them."""
    layers: list[nn.Module] = [stem, ChannelNorm(widths[0], 1e-6)]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage:
            before = widths[stage - 1]
            step = nn.Conv3d(before, width, down.kernel_size, down.stride, dilation=down.dilation)  # type: ignore[arg-type]
            layers += [ChannelNorm(before, 1e-6), step]
        layers += [_block(form, width) for _ in range(depth)]
    for layer in nn.Sequential(*layers).modules():
        if isinstance(layer, nn.Conv3d):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.get_parameter("bias"))
    return nn.Sequential(*layers)


def _convnext_tiny(stem: int, form: Form) -> nn.Sequential:
    first = nn.Conv3d(form.channels, 96, form.size(stem), form.size(stem))
    down = nn.Conv3d(1, 1, form.size(2), form.size(2))
    return _convnext(form, first, (96, 192, 384, 768), (3, 3, 9, 3), down)


def _convnext_dilated(form: Form) -> nn.Sequential:
    widths = (96, 192, 384, 768, 768, 768, 1024)
    first = nn.Conv3d(form.channels, 96, form.size(4), dilation=form.size(4))
    down = nn.Conv3d(1, 1, form.size(2), dilation=form.size(3))
    return _convnext(form, first, widths, (3,) * 7, down)


def _resnet_plan(head: int, **style: bool) -> Plan:
    return Plan(partial(_resnet, _Style(**style)), 128, lambda odd: head)


_PLANS: dict[BackboneName, Plan] = {
    "3_layer@8": Plan(_three_layer, 64),
    "4_conv@32": Plan(partial(_four_conv, _Style()), 128),
    "4_conv_ln@32": Plan(partial(_four_conv, _Style(channel_norm=True)), 128),
    "4_conv_resnet@32": _resnet_plan(2, padded=True),
    "4_conv_resnet@16": _resnet_plan(1, padded=True),
    "4_conv_resnet_ln@32": _resnet_plan(2, padded=True, channel_norm=True),
    "4_conv_resnet_ln@16": _resnet_plan(1, padded=True, channel_norm=True),
    "4_conv_resnet_valid@32": _resnet_plan(2),
    "4_conv_resnet_valid@16": _resnet_plan(1),
    "4_conv_resnet_ln_valid@32": _resnet_plan(2, channel_norm=True),
    "4_conv_resnet_ln_valid@16": _resnet_plan(1, channel_norm=True),
    "res_valid": Plan(_res_valid, 128),
    "dilated@32": Plan(partial(_dilated_pooled, True), 64),
    "dilated@64": Plan(partial(_dilated_pooled, True), 64, lambda odd: 9),
    "dilated_16@16": Plan(partial(_dilated_pooled, False), 64),
    "dilated_no_pool@32": Plan(partial(_dilated, 2, False), 64, lambda odd: 21 if odd else 22),
    "convnext@32": Plan(partial(_convnext_tiny, 4), 768, odd=False),
    "convnext@16": Plan(partial(_convnext_tiny, 2), 768, odd=False),
    "convnext_dilated@32": Plan(_convnext_dilated, 1024, lambda odd: 2, odd=False),
}
