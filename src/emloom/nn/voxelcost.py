"""What asking a centre-voxel network costs: numbers held at once, and multiplications, by arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from torch import nn

from emloom.geometry import Vec
from emloom.nn.densewalk import Reach, layer_of, reach_of
from emloom.nn.voxelparts import ChannelNorm, Concat, Residual


@dataclass(frozen=True)
class Stage:
    """One layer: what it holds while it runs.

    Attributes:
        floats: maps held per position of its answer: its input, its answer, and what waits beside it.
        maps: of its answer.
        work: multiply-accumulates per position of its answer.
        before: reach of everything up to and including this layer.
    """

    floats: int
    maps: int
    work: int
    before: Reach


@dataclass(frozen=True)
class Cost:
    """What a network of patches costs, layer by layer.

    Attributes:
        stages: in the order in which they run.
        whole: reach of all of it.
    """

    stages: tuple[Stage, ...]
    whole: Reach

    def peak_floats(self, wanted: Vec) -> int:
        """Return an estimate of the numbers held at once while it answers for so many voxels (z, y, x)."""
        return max(stage.floats * self._positions(stage, wanted) for stage in self.stages)

    def macs(self, wanted: Vec) -> int:
        """Return the multiply-accumulates of answering for so many voxels (z, y, x) at once."""
        return sum(stage.work * self._positions(stage, wanted) for stage in self.stages)

    def _positions(self, stage: Stage, wanted: Vec) -> int:
        rest = (a - b for a, b in zip(self.whole.margin, stage.before.margin, strict=True))
        axes = zip(wanted, rest, stage.before.stride, strict=True)
        # Along a native axis only every stride-th position is asked, and the layer before it sees more: a bound.
        return prod(n + m if n > 1 else m // s + 1 for n, m, s in axes)


def cost_of(trunk: nn.Module, in_channels: int, out_channels: int, head_kernel: Vec) -> Cost:
    """Return the cost of a backbone and its heads together."""
    stages, maps, reach = _stages(trunk, in_channels, Reach(), 0)
    head = nn.Conv3d(1, 1, head_kernel)
    whole = reach.then(reach_of(head))
    last = Stage(maps + out_channels, out_channels, maps * out_channels * prod(head_kernel), whole)
    return Cost((*stages, last), whole)


def _stages(module: nn.Module, maps: int, reach: Reach, beside: int) -> tuple[list[Stage], int, Reach]:
    """Return the stages of a part, the maps of its answer and the reach up to there.

    `beside` are the maps that wait while it runs: the input of a residual, the branches already done.
    """
    if isinstance(module, nn.Sequential):
        stages: list[Stage] = []
        for part in module:
            more, maps, reach = _stages(part, maps, reach, beside)
            stages += more
        return stages, maps, reach
    if isinstance(module, Residual):
        stages, _, after = _stages(module.body, maps, reach, beside + maps)
        return stages, maps, after
    if isinstance(module, Concat):
        stages, done = [], 0
        for branch in module.branches:
            more, own, _ = _stages(branch, maps, reach, beside + maps + done)
            stages, done = stages + more, done + own
        after = reach.then(reach_of(module))
        return [*stages, Stage(2 * done + beside, done, 0, after)], done, after
    return _leaf(module, maps, reach, beside)


def _leaf(module: nn.Module, maps: int, reach: Reach, beside: int) -> tuple[list[Stage], int, Reach]:
    layer = layer_of(module)
    if layer is None:
        copies = 2 if isinstance(module, ChannelNorm) else 1  # measured: of its input, with channels last
        return [Stage((2 + copies) * maps + beside, maps, 0, reach)], maps, reach
    out, work = maps, 0
    if isinstance(module, nn.Conv3d):
        out = module.out_channels
        work = out * maps // module.groups * prod(layer.kernel)
        held = maps + out + max(maps, out)  # the library works on a copy in an order of its own
    else:
        held = 3 * maps  # axis by axis: the input, what one axis gave and what the next one gives
    after = reach.then(layer.reach)
    return [Stage(held + beside, out, work, after)], out, after
