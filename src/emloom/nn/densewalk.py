"""Walking a network of patches so that it answers at every voxel: the arithmetic behind `emloom.nn.dense`.

A layer with stride t makes every later one look at each t-th position. Asked at *every* position, it runs with
stride 1, and what comes later keeps its weights and leaves gaps between its taps: the *rate*, which starts at 1
and is multiplied by t (Giusti et al. 2013, arXiv:1302.1700; Li et al. 2014, arXiv:1412.4526)::

    patch      conv k, stride t, dilation d    ->  rate s * t
    à trous    conv k, stride 1, dilation d*s      answer p == answer for the patch that starts at p

*Fragments* do the same without gaps: after a stride, the t^3 shifted lattices are stacked in the batch, and woven
together again at the end. An axis along which one answer is wanted is *native*: its strides stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from emloom.geometry import Vec
from emloom.nn.flat import as_images, as_volumes
from emloom.nn.voxelparts import Concat, Residual

Mode = Literal["atrous", "fragments"]


@dataclass(frozen=True)
class Reach:
    """What one position of an answer sees along (z, y, x).

    Attributes:
        margin: voxels after the first; the window is one more.
        stride: voxels between neighbouring answers of the network of patches.
    """

    margin: Vec = (0, 0, 0)
    stride: Vec = (1, 1, 1)

    @property
    def window(self) -> Vec:
        """Voxels that one answer is made of."""
        return vec(n + 1 for n in self.margin)

    def then(self, other: Reach) -> Reach:
        """Return the reach of two layers in a row."""
        parts = zip(self.margin, self.stride, other.margin, strict=True)
        return Reach(
            vec(m + s * o for m, s, o in parts), vec(map(prod, zip(self.stride, other.stride, strict=True)))
        )


def reach_of(module: nn.Module) -> Reach:
    """Return what one answer of a network without problems sees (see `emloom.nn.dense.problems`)."""
    if isinstance(module, nn.Sequential):
        return reduce(Reach.then, map(reach_of, module), Reach())
    if isinstance(module, Residual):
        return reach_of(module.body)
    if isinstance(module, Concat):
        margins = [reach_of(branch).margin for branch in module.branches]
        return Reach(vec(map(max, zip(*margins, strict=True))))
    layer = layer_of(module)
    return Reach() if layer is None else layer.reach


@dataclass(frozen=True)
class Layer:
    """A convolution or pooling, as far as positions are concerned; all along (z, y, x)."""

    kernel: Vec
    stride: Vec
    dilation: Vec = (1, 1, 1)
    padding: Vec = (0, 0, 0)

    @property
    def of_sections(self) -> bool:
        """Whether it looks around within every section, and at no other."""
        return self.kernel[0] == 1 < max(self.kernel) and self.stride[0] == 1 and self.padding[0] == 0

    @property
    def reach(self) -> Reach:
        """What one of its answers sees; zeros of a padding are seen for nothing."""
        parts = zip(self.kernel, self.dilation, self.padding, strict=True)
        return Reach(vec((k - 1) * d - 2 * p for k, d, p in parts), self.stride)


def layer_of(module: nn.Module) -> Layer | None:
    """Return the geometry of a convolution or pooling; None: the module looks at single positions."""
    if isinstance(module, nn.Conv3d):
        padding = (0, 0, 0) if isinstance(module.padding, str) else triple(module.padding)
        return Layer(triple(module.kernel_size), triple(module.stride), triple(module.dilation), padding)
    if isinstance(module, nn.MaxPool3d):
        return Layer(triple(module.kernel_size), triple(module.stride), triple(module.dilation))
    if isinstance(module, nn.AvgPool3d):
        return Layer(triple(module.kernel_size), triple(module.stride))
    return None


def answers(
    trunk: nn.Module, heads: Mapping[str, nn.Module], x: Tensor, mode: Mode = "atrous"
) -> dict[str, Tensor]:
    """Return what each head says about the trunk's features at every position: ``[N, C, Z', Y', X']``.

    Args:
        trunk: of parts without problems.
        heads: the same; all with one reach.
        x: ``[N, channels, Z, Y, X]``, at least one window.
        mode: how strides are undone.
    """
    reach = reach_of(trunk).then(reach_of(next(iter(heads.values()))))
    wanted = vec(n - m for n, m in zip(x.shape[2:], reach.margin, strict=True))
    at = _At(dense=(wanted[0] > 1, wanted[1] > 1, wanted[2] > 1), fragments=mode == "fragments")
    if at.fragments:
        x = _whole_fragments(x, wanted, reach, at)
    features, at = _walk(trunk, x, at)
    out = {}
    for name, head in heads.items():
        answer = _woven(*_walk(head, features, at))
        out[name] = answer[:, :, : wanted[0], : wanted[1], : wanted[2]]
    return out


@dataclass(frozen=True)
class _At:
    """Where a walk stands.

    Attributes:
        dense: whether (z, y, x) is asked at every position.
        fragments: whether strides make fragments instead of gaps.
        rate: gap between neighbouring positions of the network of patches.
        splits: factors of the fragments so far.
    """

    dense: tuple[bool, bool, bool]
    fragments: bool
    rate: Vec = (1, 1, 1)
    splits: tuple[Vec, ...] = ()

    def ran(self, layer: Layer) -> Layer:
        """Return the layer as it runs here."""
        axes = list(zip(self.dense, self.rate, layer.stride, layer.dilation, layer.padding, strict=True))
        return Layer(
            layer.kernel,
            vec(1 if dense else t for dense, _, t, _, _ in axes),
            vec(d * s for _, s, _, d, _ in axes),
            vec(p * s for _, s, _, _, p in axes),
        )

    def after(self, x: Tensor, stride: Vec) -> tuple[Tensor, _At]:
        """Return the answer of a layer, and where the walk then stands."""
        undone = vec(t if dense else 1 for dense, t in zip(self.dense, stride, strict=True))
        if undone == (1, 1, 1):
            return x, self
        if self.fragments:
            return _split(x, undone), replace(self, splits=(*self.splits, undone))
        return x, replace(self, rate=vec(s * t for s, t in zip(self.rate, undone, strict=True)))


def _walk(module: nn.Module, x: Tensor, at: _At) -> tuple[Tensor, _At]:
    if isinstance(module, nn.Sequential):
        for part in module:
            x, at = _walk(part, x, at)
        return x, at
    if isinstance(module, Residual):
        return _common([reach_of(module.body).margin, (0, 0, 0)], [_walk(module.body, x, at)[0], x], at, _sum), at
    if isinstance(module, Concat):
        margins = [reach_of(branch).margin for branch in module.branches]
        return _common(margins, [_walk(branch, x, at)[0] for branch in module.branches], at, torch.cat), at
    layer = layer_of(module)
    if layer is None:
        return module(x), at
    return at.after(_run(module, x, at.ran(layer)), layer.stride)


def _run(module: nn.Module, x: Tensor, how: Layer) -> Tensor:
    if isinstance(module, nn.Conv3d):
        if how.of_sections:  # measured: large ones, and their gradients, in a fifth to a third of the time
            weight, along = module.weight[:, :, 0], (how.stride[1:], how.padding[1:], how.dilation[1:])
            return as_volumes(
                functional.conv2d(as_images(x), weight, module.bias, *along, groups=module.groups), x.shape[2]
            )
        return functional.conv3d(
            x, module.weight, module.bias, how.stride, how.padding, how.dilation, groups=module.groups
        )
    if isinstance(module, nn.MaxPool3d):
        if x.requires_grad:  # of equals, the gradient goes to the first, as for patches
            return functional.max_pool3d(x, how.kernel, how.stride, dilation=how.dilation)
        return _pooled(x, how, torch.maximum)
    return _pooled(x, how, torch.add) / prod(how.kernel)


def _pooled(x: Tensor, how: Layer, pair: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return taps taken together, axis by axis: torch has no mean with gaps, and its maximum is slower."""
    for axis, (k, t, d) in enumerate(zip(how.kernel, how.stride, how.dilation, strict=True), start=2):
        if k == 1 and t == 1:
            continue
        count = (x.shape[axis] - (k - 1) * d - 1) // t + 1
        taps = [_strided(x, axis, i * d, t, count) for i in range(k)]
        x = reduce(pair, taps)
    return x


def _strided(x: Tensor, axis: int, first: int, step: int, count: int) -> Tensor:
    x = x.narrow(axis, first, (count - 1) * step + 1)
    return x if step == 1 else x[(slice(None),) * axis + (slice(None, None, step),)]


def _sum(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] + parts[1]


def _common(margins: list[Vec], outs: list[Tensor], at: _At, join: Callable[..., Tensor]) -> Tensor:
    """Join what branches of different reach say, each cropped to what all answer for.

    The crop in front is that of the network of patches, half the difference rounded down, times the rate.
    """
    widest = vec(map(max, zip(*margins, strict=True)))
    shape = [min(sizes) for sizes in zip(*(out.shape[2:] for out in outs), strict=True)]
    cropped = []
    for margin, out in zip(margins, outs, strict=True):
        for axis, (wide, own, rate) in enumerate(zip(widest, margin, at.rate, strict=True)):
            out = out.narrow(axis + 2, (wide - own) // 2 * rate, shape[axis])
        cropped.append(out)
    return join(cropped, dim=1)


# ---- fragments ---------------------------------------------------------------------------------------------


def _whole_fragments(x: Tensor, wanted: Vec, reach: Reach, at: _At) -> Tensor:
    """Return x with zeros behind it, so that every fragment has as many answers; they are cut off in the end."""
    more = [-n % t if dense else 0 for n, t, dense in zip(wanted, reach.stride, at.dense, strict=True)]
    return functional.pad(x, (0, more[2], 0, more[1], 0, more[0])) if any(more) else x


def _split(x: Tensor, factor: Vec) -> Tensor:
    """Return the shifted lattices of x, stacked in the batch, the shift being the slower index."""
    n, c, *zyx = x.shape
    (a, b, d), (z, y, w) = factor, (size // f for size, f in zip(zyx, factor, strict=True))
    x = x[:, :, : z * a, : y * b, : w * d].reshape(n, c, z, a, y, b, w, d)
    return x.permute(3, 5, 7, 0, 1, 2, 4, 6).reshape(a * b * d * n, c, z, y, w)


def _woven(x: Tensor, at: _At) -> Tensor:
    for a, b, d in reversed(at.splits):
        n, c, z, y, w = x.shape
        x = x.reshape(a, b, d, n // (a * b * d), c, z, y, w).permute(3, 4, 5, 0, 6, 1, 7, 2)
        x = x.reshape(n // (a * b * d), c, z * a, y * b, w * d)
    return x


def vec(values: Iterable[int]) -> Vec:
    """Return three integers as a vector (z, y, x)."""
    z, y, x = (int(v) for v in values)
    return (z, y, x)


def triple(value: Any) -> Vec:
    """Return what torch takes for three axes, a number or three, as a vector (z, y, x)."""
    return (value, value, value) if isinstance(value, int) else vec(value)
