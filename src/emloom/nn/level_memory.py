"""The numbers that a net of levels holds at once, followed through its layers without computing anything.

Counted is what the net allocates: its input, maps, padded copies, places of maxima. What libraries use inside a
convolution comes on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from emloom.geometry import Vec
from emloom.nn.level_specs import AtrousAutoencoderSpec, LevelSpec, UNetAutoencoderSpec


@dataclass(frozen=True)
class _Maps:
    """A tensor: how many maps, and their voxels (z, y, x)."""

    count: int
    shape: Sequence[int]

    @property
    def floats(self) -> int:
        return self.count * prod(self.shape)

    def grown(self, margins: Sequence[int]) -> int:
        """Return the numbers of a copy with so many more voxels (z, y, x), both sides together."""
        return self.count * prod(n + m for n, m in zip(self.shape, margins, strict=True))


def peak_floats(spec: LevelSpec, input_shape: Vec) -> int:
    """Return the most numbers held at once while a tile of voxels (z, y, x) is reconstructed in ``eval`` mode.

    The tile fits. Maps of all levels are kept from the way down to the end.
    """
    walk = _Walk(spec)
    levels = walk.encode(_Maps(spec.in_channels, input_shape))
    walk.decode(levels)
    return walk.peak


class _Walk:
    """`LevelAutoencoder.encode` and `decode`, counting.

    Attributes:
        held: numbers that are held by the callers of the layer that is next.
        peak: the most, so far.
    """

    def __init__(self, spec: LevelSpec) -> None:
        self.spec, self.scales = spec, spec.scales
        self.dilated = isinstance(spec, AtrousAutoencoderSpec)
        self.pooling = "none" if isinstance(spec, AtrousAutoencoderSpec) else spec.pooling
        self.held = self.peak = 0

    def encode(self, x: _Maps) -> list[_Maps]:
        self.held += x.floats
        levels: list[_Maps] = []
        before = 0  # pooled maps, which are let go when the next are there
        for level, maps in enumerate(self.spec.features):
            shown = self._pooled(level - 1, levels[-1]) if level else x
            new = 0 if not level or shown is levels[-1] else shown.floats
            self.held += new - before
            levels.append(self._block(level, shown, maps, down=True))
            self.held += levels[-1].floats
            before = new
        self.held -= before
        return levels

    def decode(self, levels: list[_Maps]) -> None:
        x, before = levels[-1], 0  # the deepest maps are held as those of a level
        for level in reversed(range(len(levels) - 1)):
            lifted, floats = self._lifted(level, x)
            merged = _Maps(lifted.count * self.spec.joined(level), lifted.shape)
            if isinstance(self.spec, UNetAutoencoderSpec) and self.spec.has_skip[level]:
                self._see(floats, merged.floats)
                floats = merged.floats
            self.held += floats
            x = self._block(level, merged, self.spec.features[level], down=False)
            self.held += x.floats - floats - before
            before = x.floats
        self._see(self.spec.in_channels * prod(x.shape))

    def _see(self, *floats: int) -> None:
        self.peak = max(self.peak, self.held + sum(floats))

    def _block(self, level: int, x: _Maps, maps: int, *, down: bool) -> _Maps:
        """Convolutions, each with its activation, of maps that are held."""
        spread = self.scales[level] if self.dilated else (1, 1, 1)
        inner = 0
        for index, kernel in enumerate(self.spec.kernels[level]):
            steps = self.spec.factors[level - 1] if self._strided(level, index, down) else (1, 1, 1)
            y = _Maps(maps, [n // step for n, step in zip(x.shape, steps, strict=True)])
            margins = [size // 2 * 2 * step for size, step in zip(kernel, spread, strict=True)]
            padded = x.grown(margins) if self.spec.padding == "reflect" else 0
            self._see(inner, padded, y.floats)
            self._see(2 * y.floats)
            x, inner = y, y.floats
        return x

    def _strided(self, level: int, index: int, down: bool) -> bool:
        return self.pooling == "stride" and down and level > 0 and index == 0

    def _pooled(self, level: int, x: _Maps) -> _Maps:
        if self.pooling in ("none", "stride"):
            return x
        factor = self.spec.factors[level]
        out = _Maps(x.count, [n // f for n, f in zip(x.shape, factor, strict=True)])
        aside = {
            "max": 2 * out.floats,  # torch makes the places of the maxima, too, 8 bytes each
            "average": 0,
            "blurpool": x.grown([2 * (f - 1) for f in factor]),
        }
        self._see(out.floats, aside[self.pooling])
        return out

    def _lifted(self, level: int, x: _Maps) -> tuple[_Maps, int]:
        """Return the lifted maps and the numbers they hold."""
        factor, low = self.spec.factors[level], self.spec.features[level]
        if not self.dilated:
            out = _Maps(low, [n * f for n, f in zip(x.shape, factor, strict=True)])
            # Measured on the processor: along z, torch makes room for what it is shown; of images, it does not.
            held = out.floats if factor[0] == 1 else max(x.floats, out.floats)
            self._see(held)
            return out, held
        spans = [(f - 1) * scale for f, scale in zip(factor, self.scales[level], strict=True)]
        out = _Maps(low, x.shape)
        self._see(x.grown(spans), out.floats)
        return out, out.floats
