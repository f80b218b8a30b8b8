"""Dense conversion: a network of patches, asked at every voxel at once, with exactly the numbers of its patches.

::

    net = nn.Sequential(nn.Conv3d(1, 16, 3), nn.ReLU(), nn.MaxPool3d(2), nn.Conv3d(16, 2, 4)).eval()
    dense = densify(net)
    dense.window                    # (10, 10, 10): voxels that one answer is made of
    dense(x)[..., z, y, x] == net(patch of x that starts at (z, y, x))

A network of patches computes the same features over and over, 50 to 300 times for typical ones; dense, each
once. It is exact for any network made of the parts below, in which an answer depends on its window and on nothing
else; others are refused, with every reason at once: zeros at the faces of a patch are not there in the middle of a
volume, and a norm over the patch knows the patch.

* torch: `Sequential`, `Conv3d`, `MaxPool3d`, `AvgPool3d`, `BatchNorm3d` in ``eval``, activations, dropout;
* `emloom.nn.voxelparts`: `ChannelNorm`, `Scale`, `Residual`, `Concat`.

See `emloom.nn.densewalk` for how.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt
from typing import Literal

import torch
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.nn.densewalk import Mode, answers, reach_of, triple
from emloom.nn.voxelparts import ChannelNorm, Concat, Residual, Scale

log = logging.getLogger(__name__)

_POINTWISE: tuple[type[nn.Module], ...] = (
    *(nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.Softplus, nn.Softsign, nn.Sigmoid, nn.LogSigmoid, nn.Tanh),
    *(nn.Dropout, ChannelNorm, Scale),
)

_WHY = {
    nn.GroupNorm: "normalises over the patch: use ChannelNorm, or BatchNorm3d",
    nn.InstanceNorm3d: "normalises over the patch: use ChannelNorm, or BatchNorm3d",
    nn.LayerNorm: "normalises over the last axes, which are not the channels: use ChannelNorm",
    nn.AdaptiveAvgPool3d: "pools to a fixed size, whatever the patch: use AvgPool3d with a kernel",
    nn.AdaptiveMaxPool3d: "pools to a fixed size, whatever the patch: use MaxPool3d with a kernel",
    nn.Flatten: "mixes positions and channels: use a Conv3d whose kernel is what is left of the patch",
    nn.Linear: "reads the last axis, which is not the channels: use a Conv3d",
}

WAY_OUT = (
    "predict it patch by patch, take a `valid` twin (no padding, the same weights), or ask "
    "emloom.nn.dense.agreement how far an approximate conversion is from the patches"
)


def problems(module: nn.Module, training: bool = False) -> list[str]:
    """Return why a network cannot be converted exactly, one line per part; none: it can.

    Args:
        module: the network.
        training: whether batch norm may be in training mode, and so follow whatever it is shown.
    """
    return [line for name, part in _parts(module, "") for line in _wrong(name or "the network", part, training)]


def densify(module: nn.Module, mode: Mode | Literal["approx"] = "atrous") -> Dense:
    """Return a network of patches as one that answers for every voxel; weights are shared, not copied.

    Args:
        module: maps ``[N, channels, *window]`` to ``[N, C, 1, 1, 1]``.
        mode: `atrous` leaves gaps between taps, `fragments` stacks shifted lattices: the same numbers, and the
            faster one depends on the machine. `approx` also takes a network that pads its convolutions with zeros,
            and lets these see the volume instead: other numbers than the patches', see `agreement`.

    Raises:
        InputError: it cannot be converted exactly; names every reason.
    """
    found = problems(module)
    pads = [line for line in found if line.endswith(_PADS)] if mode == "approx" else []
    found = [line for line in found if line not in pads]
    if found:
        lines = "\n".join(f"  {line}" for line in found)
        raise InputError(f"the network cannot be asked at every voxel with the same answers:\n{lines}\n{WAY_OUT}")
    if pads:
        log.warning(
            "an approximate conversion, with other answers than the patches': %d convolutions pad (measure it: "
            "emloom.nn.dense.agreement)",
            len(pads),
        )
    return Dense(module, "atrous" if mode == "approx" else mode, exact=not pads)


class Dense(nn.Module):
    """A network of patches that answers for every voxel; made by `densify`.

    ``forward`` maps ``[N, channels, Z, Y, X]`` to ``[N, C, Z - window + 1, ...]``. Along an axis with one answer
    the strides of the patch are kept, which costs least: so a section is cheaper than its share of a block.
    """

    def __init__(self, module: nn.Module, mode: Mode, exact: bool = True) -> None:
        super().__init__()
        self.module = module
        self.mode = mode
        self.exact = exact
        self._identity = nn.Identity()

    @property
    def window(self) -> Vec:
        """Voxels (z, y, x) that one answer is made of."""
        return reach_of(self.module).window

    @property
    def stride(self) -> Vec:
        """Voxels (z, y, x) between answers of the network of patches if it is shown more than a patch."""
        return reach_of(self.module).stride

    def forward(self, x: Tensor) -> Tensor:
        """Return the answers.

        Raises:
            InputError: x is smaller than one window, or a batch norm is in training mode.
        """
        if x.dim() != 5 or any(n < w for n, w in zip(x.shape[2:], self.window, strict=True)):
            raise InputError(
                f"an input of shape {tuple(x.shape)} does not fit: it is [N, channels, z, y, x] and holds at "
                f"least one window, {self.window} voxels"
            )
        training = [line for name, part in _parts(self.module, "") for line in _batch_norm(name, part, False)]
        if training:
            raise InputError(training[0])
        return answers(self.module, {"": self._identity}, x, self.mode)[""]


@dataclass(frozen=True)
class Agreement:
    """How often an approximate conversion and true patches answer with the same class.

    Attributes:
        share: of the patches.
        patches: how many were compared.
    """

    share: float
    patches: int

    @property
    def standard_error(self) -> float:
        """Of the share, for patches drawn at random."""
        return sqrt(self.share * (1 - self.share) / self.patches)


def agreement(module: nn.Module, x: Tensor, patches: int = 1000, seed: int = 0) -> Agreement:
    """Return how often a network, converted with ``mode="approx"``, has the likeliest class of its patches.

    Args:
        module: a network of patches in ``eval``, with classes as channels; it may pad its convolutions.
        x: ``[1, channels, Z, Y, X]``, answered for at once.
        patches: drawn from all without replacement; fewer if there are not so many.
        seed: of the draw.

    Raises:
        InputError: it cannot be converted even so, or x is smaller than a window.
    """
    dense = densify(module, "approx")
    with torch.inference_mode():
        likeliest = dense(x)[0].argmax(dim=0)
        count = min(patches, likeliest.numel())
        order = torch.randperm(prod(likeliest.shape), generator=torch.Generator().manual_seed(seed))[:count]
        same = 0
        for at in zip(*torch.unravel_index(order, likeliest.shape), strict=True):
            cut = (slice(int(i), int(i) + n) for i, n in zip(at, dense.window, strict=True))
            same += int(module(x[:, :, *cut]).argmax() == likeliest[at])
    return Agreement(same / count, count)


def _parts(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield every part with its name, the containers before what they hold."""
    yield name, module
    if isinstance(module, nn.Sequential | Residual | Concat):
        for child, part in module.named_children():
            inner = part.named_children() if isinstance(part, nn.ModuleList) else [("", part)]
            for below, each in inner:
                yield from _parts(each, ".".join(filter(None, (name, child, below))))


_PADS = "in the middle of a volume there are none"


def _wrong(name: str, part: nn.Module, training: bool) -> list[str]:
    kind = type(part)
    if _forward_of(kind) not in _FORWARDS:
        why = next((text for each, text in _WHY.items() if isinstance(part, each)), "")
        return [f"{name}: {kind.__name__} {why or 'is none of the parts that can be converted'}"]
    out = [*_hooks(name, part), *_batch_norm(name, part, training), *_strided_branches(name, part)]
    if isinstance(part, nn.Conv3d | nn.MaxPool3d | nn.AvgPool3d):
        out += _padding(name, part)
    if isinstance(part, nn.MaxPool3d | nn.AvgPool3d):
        out += _pooling(name, part)
    return out


def _hooks(name: str, part: nn.Module) -> list[str]:
    hooked = part._forward_hooks or part._forward_pre_hooks
    return [f"{name}: {type(part).__name__} has forward hooks, which would not run: remove them"] if hooked else []


def _batch_norm(name: str, part: nn.Module, training: bool) -> list[str]:
    if not isinstance(part, nn.BatchNorm3d):
        return []
    if part.running_mean is None:
        return [f"{name}: BatchNorm3d without running statistics normalises over the batch: use ChannelNorm"]
    if part.training and not training:
        return [f"{name}: BatchNorm3d is in training mode and normalises over the batch: call eval() first"]
    return []


def _strided_branches(name: str, part: nn.Module) -> list[str]:
    branches = [part.body] if isinstance(part, Residual) else list(getattr(part, "branches", ()))
    if any(problems(branch, True) for branch in branches):
        return []  # they are named themselves
    if any(reach_of(branch).stride != (1, 1, 1) for branch in branches):
        return [f"{name}: {type(part).__name__} has a stride inside: put it before or behind"]
    return []


def _padding(name: str, part: nn.Conv3d | nn.MaxPool3d | nn.AvgPool3d) -> list[str]:
    padding = part.padding
    if padding == "valid" or (not isinstance(padding, str) and not any(triple(padding))):
        return []
    if isinstance(part, nn.Conv3d) and padding == "same" and set(part.kernel_size) == {1}:
        return []
    ends = (
        _PADS
        if isinstance(part, nn.Conv3d) and not isinstance(padding, str)
        else "a patch has faces, a voxel none"
    )
    return [f"{name}: {type(part).__name__} pads the faces of a patch (padding {padding!r}), {ends}"]


def _pooling(name: str, part: nn.MaxPool3d | nn.AvgPool3d) -> list[str]:
    out = []
    if part.ceil_mode:
        out.append(
            f"{name}: {type(part).__name__} rounds up (ceil_mode) and pools less at the last face: turn it off"
        )
    if isinstance(part, nn.MaxPool3d) and part.return_indices:
        out.append(f"{name}: MaxPool3d returns indices: turn return_indices off")
    if isinstance(part, nn.AvgPool3d) and part.divisor_override is not None:
        out.append(f"{name}: AvgPool3d divides by {part.divisor_override}: turn divisor_override off")
    return out


def _forward_of(kind: type[nn.Module]) -> object:
    return vars(next(each for each in kind.__mro__ if "forward" in vars(each)))["forward"]


_FORWARDS = {
    _forward_of(each)
    for each in (
        *_POINTWISE,
        *(nn.Sequential, Residual, Concat, nn.Conv3d, nn.MaxPool3d, nn.AvgPool3d, nn.BatchNorm3d),
    )
}
"""Behaviour, not names, is what is known: a subclass that answers otherwise is not."""
