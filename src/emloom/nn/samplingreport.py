"""What was drawn: a running account of training crops.

A draw is a function of (seed, index), so nobody needs to watch the workers: any process can draw the same crops
again and count them. Reports add up, so the counting may be shared out too::

    survey(sampler, draw, range(0, 500)) + survey(sampler, draw, range(500, 1000))
        == survey(sampler, draw, range(1000))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec
from emloom.nn.sampling import CropSampler, Draw

_CELLS = 16  # of the lattice of coverage, per axis


@dataclass(frozen=True)
class Seen:
    """What one crop held.

    Attributes:
        known: known voxels.
        foreground: known voxels that are foreground.
        classes: known voxels of each class that is drawn (`balanced`).
    """

    known: int
    foreground: int
    classes: dict[int, int]


def look(sampler: CropSampler, draw: Draw) -> Seen:
    """Read the labels of a crop and count them."""
    volume = sampler.volumes[draw.source]
    box = Box(draw.start, sampler.crop_shape)
    known = np.ones(box.shape, bool) if volume.mask is None else volume.mask.read(box) != 0
    marked = sampler.foreground(draw.source)
    foreground = 0 if marked is None else int(np.count_nonzero(marked.read(box)))
    classes = {}
    if sampler.classes and volume.labels is not None:
        values = volume.labels.read(box)
        classes = {number: int(np.count_nonzero((values == number) & known)) for number in sampler.classes}
    return Seen(int(np.count_nonzero(known)), foreground, classes)


class SamplingReport:
    """Counts of draws; `a + b` is the report of both.

    Args:
        sampler: whose draws are counted.
    """

    def __init__(self, sampler: CropSampler) -> None:
        self.sources = tuple(volume.raw.info.source for volume in sampler.volumes)
        self.tries = 0
        self.looked = 0
        self.known = 0
        self.draws: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self.classes: Counter[int] = Counter()
        self.foreground = 0
        self._shape = sampler.crop_shape
        self._lattices = tuple(_Lattice.of(volume.region) for volume in sampler.volumes)
        self._visits = tuple(np.zeros(lattice.count, np.int64) for lattice in self._lattices)
        self._within_reach = tuple(
            _reach(sampler, source, lattice) for source, lattice in enumerate(self._lattices)
        )

    def add(self, draw: Draw, seen: Seen | None = None) -> None:
        """Count a draw, and what its crop held if somebody looked."""
        self.draws[draw.source] += 1
        self.reasons[draw.reason] += 1
        self.tries += draw.tries
        self._visits[draw.source][self._lattices[draw.source].cells(Box(draw.start, self._shape))] += 1
        if seen is not None:
            self.looked += 1
            self.known += seen.known
            self.foreground += seen.foreground
            self.classes.update(seen.classes)

    def __add__(self, other: SamplingReport) -> SamplingReport:
        """Return the report of the draws of both.

        Raises:
            ValueError: they are about different volumes.
        """
        if (self.sources, self._lattices, self._shape) != (other.sources, other._lattices, other._shape):
            raise ValueError("reports of different volumes or crops do not add up")
        out = SamplingReport.__new__(SamplingReport)
        out.__dict__ |= self.__dict__
        for name in ("tries", "looked", "known", "foreground", "draws", "reasons", "classes"):
            setattr(out, name, getattr(self, name) + getattr(other, name))
        out._visits = tuple(a + b for a, b in zip(self._visits, other._visits, strict=True))
        return out

    @property
    def count(self) -> int:
        """Number of draws."""
        return self.draws.total()

    def coverage(self, source: int) -> float:
        """Return the share of a volume's lattice that crops have touched, of what allowed crops can touch.

        The lattice has at most 16 cells along each axis of the region.
        """
        reach = self._within_reach[source]
        return float(np.count_nonzero(self._visits[source][reach]) / np.count_nonzero(reach))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values: counts, and shares in [0, 1]; shares of nothing are None."""
        count = self.count
        return {
            "draws": count,
            "mean_tries": _share(self.tries, count),
            "volumes": [
                {"source": source, "draws": self.draws[number], "coverage": self.coverage(number)}
                for number, source in enumerate(self.sources)
            ],
            "reasons": {name: _share(n, count) for name, n in sorted(self.reasons.items())},
            "looked_at": self.looked,
            "foreground_share": _share(self.foreground, self.known),
            "class_shares": {str(c): _share(n, self.known) for c, n in sorted(self.classes.items())},
        }

    def line(self) -> str:
        """Return the report in one line."""
        row = self.to_dict()
        reasons = ", ".join(f"{name} {share:.0%}" for name, share in row["reasons"].items())
        volumes = "/".join(str(volume["draws"]) for volume in row["volumes"])
        parts = [f"{row['draws']} crops ({reasons or 'none'})", f"by volume {volumes}"]
        if row["draws"]:
            covered = "/".join(f"{volume['coverage']:.0%}" for volume in row["volumes"])
            parts += [f"{row['mean_tries']:.1f} tries each", f"covering {covered}"]
        if row["foreground_share"] is not None:
            parts.append(f"{row['foreground_share']:.1%} foreground")
        if row["class_shares"]:
            parts.append("classes " + ", ".join(f"{c}: {s:.1%}" for c, s in row["class_shares"].items()))
        return "; ".join(parts)


def survey(
    sampler: CropSampler,
    draw_of: Callable[[int], Draw],
    indices: Iterable[int],
    look_every: int = 0,
) -> SamplingReport:
    """Draw samples again and count them.

    Args:
        sampler: whose crops they are.
        draw_of: draws a sample, as the training loader does.
        indices: of the samples.
        look_every: read the labels of every sample whose index is a multiple of this; 0: read none.
    """
    report = SamplingReport(sampler)
    for index in indices:
        draw = draw_of(index)
        looks = look_every > 0 and index % look_every == 0
        report.add(draw, look(sampler, draw) if looks else None)
    return report


@dataclass(frozen=True)
class _Lattice:
    origin: Vec
    cell: Vec
    count: Vec

    @classmethod
    def of(cls, region: Box) -> _Lattice:
        cell = [max(1, ceil(n / _CELLS)) for n in region.shape]
        count = [ceil(n / c) for n, c in zip(region.shape, cell, strict=True)]
        return cls(region.start, (cell[0], cell[1], cell[2]), (count[0], count[1], count[2]))

    def cells(self, box: Box) -> tuple[slice, ...]:
        """Return the cells that a box of the region touches."""
        axes = zip(box.start, box.stop, self.origin, self.cell, strict=True)
        return tuple(slice((a - o) // c, (b - 1 - o) // c + 1) for a, b, o, c in axes)


def _reach(sampler: CropSampler, source: int, lattice: _Lattice) -> NDArray[np.bool_]:
    reach = np.zeros(lattice.count, bool)
    for starts in sampler.allowed(source).boxes():
        # Crops of neighbouring starts overlap or touch, so together they fill one box.
        reach[lattice.cells(Box.of(starts.start, _plus(starts.stop, sampler.crop_shape)))] = True
    return reach


def _plus(stop: Sequence[int], shape: Vec) -> Vec:
    z, y, x = (b + n - 1 for b, n in zip(stop, shape, strict=True))
    return (z, y, x)


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
