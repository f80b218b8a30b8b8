"""How far a net of levels looks: which voxels around a tile its answer inside depends on, along one axis.

Counted from the answer back, in voxels of the level, for a tile that starts and ends on the lattice. Where a
tensor is needed from ``a - below`` to ``b + above``, the one it is computed from is needed::

    kernel of k voxels          k // 2 more on both sides
    lift by f                   from (a - below) / f to (b + above) / f, rounded outwards
    pooling of windows of f     f * below,              f * above
    blurpool                    f * below + f - 1,      f * above + f - 1
    steps of f, kernel k        f * below + k // 2,     f * above + k // 2 - (f - 1)

The last one can end before the tile does: steps need not look at the last voxels. Without pooling, all kernels are
spread over the scale of their level and look as far as their taps; that which stands for a lift has an even number
of taps, or an odd one, and looks one half-span down, rounded down, and the rest up.
"""

from __future__ import annotations

from collections.abc import Sequence

from emloom.nn.pooling import Pooling

Reach = tuple[int, int]
"""Voxels (below, above) a tile."""


def pooled_reach(
    kernels: Sequence[Sequence[int]], factors: Sequence[int], pooling: Pooling, skips: Sequence[bool]
) -> Reach:
    """Return the reach of a net with pooling around a tile on its lattice.

    Args:
        kernels: sizes along the axis, by level, the same on the way down and up.
        factors: of the pooling between a level and the next.
        pooling: how.
        skips: for every level but the last, whether the way up sees the maps of the way down.
    """
    below = above = 0
    wanted: list[Reach] = []  # by the way up, of every level
    for sizes, factor in zip(kernels, factors, strict=False):
        margin = _margin(sizes)
        below, above = below + margin, above + margin
        wanted.append((below, above))
        below, above = -(-below // factor), -(-above // factor)
    for level in reversed(range(len(kernels))):
        factor = factors[level - 1] if level else 1
        step = factor if pooling == "stride" else 1
        margin = _margin(kernels[level][1:])
        first = kernels[level][0] // 2
        below, above = (below + margin) * step + first, (above + margin) * step + first - (step - 1)
        if level:
            below, above = _before_pooling(below, above, factor, pooling)
            if skips[level - 1]:
                below, above = max(below, wanted[level - 1][0]), max(above, wanted[level - 1][1])
    return max(below, 0), max(above, 0)


def spread_reach(kernels: Sequence[Sequence[int]], factors: Sequence[int]) -> Reach:
    """Return the reach of a net without pooling, whose kernels are spread, around any tile.

    Args:
        kernels: taps along the axis, by level, the same on the way down and up.
        factors: of the spreading between a level and the next, and taps of what stands for a lift.
    """
    below = above = 0
    scale = 1
    for level, sizes in enumerate(kernels):
        last = level == len(factors)
        margin = _margin(sizes) * scale * (1 if last else 2)
        span = 0 if last else (factors[level] - 1) * scale
        below, above = below + margin + span // 2, above + margin + span - span // 2
        scale *= 1 if last else factors[level]
    return below, above


def _margin(sizes: Sequence[int]) -> int:
    return sum(size // 2 for size in sizes)


def _before_pooling(below: int, above: int, factor: int, pooling: Pooling) -> Reach:
    if pooling == "stride":
        return below, above
    more = factor - 1 if pooling == "blurpool" else 0
    return factor * below + more, factor * above + more
