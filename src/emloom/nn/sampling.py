"""How training crops are chosen: uniformly, around foreground, balanced by class, or by refusing empty ones.

A crop is named by its first voxel. ``A`` is the set of allowed starts: the crop lies in the region of its volume
and meets no held-out box. ``A_v`` are those whose crop contains voxel v; v is *reachable* if A_v is not empty.
A draw first chooses a branch, then a volume of that branch by weight, then proposes starts until one is suitable
(enough known voxels, few enough to avoid)::

    uniform      one branch                                                  s uniform in A
    foreground   with probability p: an object and a voxel v of it           s uniform in A_v: v lies uniformly
                 (objects alike, or all their voxels alike); else uniform    in the crop, where there is room
    balanced     class c with probability share_c: a voxel v of class c,     s uniform in A_v
                 all reachable ones alike; what is left of 1 is uniform
    rejection    one branch; s is accepted if its crop holds enough          s uniform in A
                 foreground, otherwise with probability q (`tolerate`)

With `place: centre` s is instead the one in A_v nearest to that of the crop whose centre is v. The shares of
branches are exact, whatever is refused; within a branch and volume, the law is the proposal's law given that the
crop is suitable. Only volumes that have the class (or foreground at all) take part in its branch, and those of
which none of `tries` proposals around it was suitable at construction are left out with a warning.

After `tries` refused proposals, one of up to 64 crops that were found suitable at construction is used;
`Draw.reason` says "fallback", and the report counts them. So a draw always ends, and every crop obeys the rules.
What cannot be obeyed at all is an `InputError` at construction.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.box import as_vec
from emloom.io.volume import Volume
from emloom.nn.crops import TrainingVolume
from emloom.nn.painted import require_knowable
from emloom.nn.paintedindex import PaintedIndex, index_groups
from emloom.nn.rules import Marked, Rule, obey, suitable_starts
from emloom.nn.starts import Starts, Voxels, free_starts
from emloom.nn.strategies import (
    SHARE_SLACK,
    Balanced,
    CropRules,
    Foreground,
    Rejection,
    SamplingSpec,
)
from emloom.nn.voxelindex import Groups, SiteIndex, VoxelIndex
from emloom.ops.classsets import SETS

ClassIndex = VoxelIndex | PaintedIndex
Index = ClassIndex | SiteIndex

_WITNESSES = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draw:
    """One training crop.

    Attributes:
        source: number of its volume.
        start: first voxel (z, y, x).
        tries: proposals made, the accepted one included.
        reason: "uniform", "foreground", "class 3"; "suitable" or "tolerated" (rejection); "fallback".
    """

    source: int
    start: Vec
    tries: int
    reason: str


@dataclass(frozen=True, eq=False)
class _Way:
    """How one branch proposes crops of one volume."""

    source: int
    starts: Starts
    rules: tuple[Rule, ...]
    witnesses: Voxels
    index: Index | None = None
    group: int | None = None
    wanted: Rule | None = None
    centred: bool = False

    def propose(self, rng: np.random.Generator, shape: Vec) -> Vec:
        if self.index is None:
            return self.starts.draw(rng)
        voxel = np.array(self.index.draw(rng, self.group))
        around = self.starts.holding(voxel, shape)
        return around.nearest(voxel - np.array(shape) // 2) if self.centred else around.draw(rng)


@dataclass(frozen=True, eq=False)
class _Branch:
    name: str
    ways: tuple[_Way, ...]
    ends: NDArray[np.float64]
    number: int | None = None


class CropSampler:
    """Draws training crops; everything that takes long or can fail happens here, once.

    It holds the volumes and some arrays, and can be pickled: workers need not index anything.

    Args:
        volumes: where crops are drawn; `weight` says how often, relative to each other.
        spec: the strategy and its rules.
        crop_shape: voxels (z, y, x) of every crop.

    Raises:
        InputError: no crop can obey what is asked: the crop is larger than a region, the held-out boxes leave no
            room, masks exclude everything, a class or any foreground does not exist where crops can be, or labels
            are not integers.
    """

    def __init__(self, volumes: Sequence[TrainingVolume], spec: SamplingSpec, crop_shape: Vec) -> None:
        self.volumes = tuple(volumes)
        self.spec = spec
        self.crop_shape = as_vec(crop_shape)
        self._weights = _weights(self.volumes)
        self._free = tuple(_allowed(volume, self.crop_shape) for volume in self.volumes)
        self._rules = tuple(_rules(volume, spec, self.crop_shape) for volume in self.volumes)
        parts = [(share, branch) for share, branch in self._branches() if share > 0]
        self._parts = tuple(branch for _, branch in parts)
        self._ends = _ends([share for share, _ in parts])

    def draw(self, rng: np.random.Generator, at: float = 0.0) -> Draw:
        """Return a crop, the same in every process; `at`, how much of a training is done, changes nothing."""
        branch = self._parts[_pick(rng, self._ends)]
        way = branch.ways[_pick(rng, branch.ends)]
        for tries in range(1, self.spec.tries + 1):
            start = way.propose(rng, self.crop_shape)
            if obey(way.rules, start, self.crop_shape):
                reason = self._verdict(way, branch.name, start, rng)
                if reason is not None:
                    return Draw(way.source, start, tries, reason)
        z, y, x = way.witnesses[int(rng.integers(len(way.witnesses)))].tolist()
        return Draw(way.source, (z, y, x), self.spec.tries, "fallback")

    def _verdict(self, way: _Way, name: str, start: Vec, rng: np.random.Generator) -> str | None:
        if way.wanted is None:
            return name
        if way.wanted.obeyed(Box(start, self.crop_shape)):
            return "suitable"
        assert isinstance(self.spec, Rejection)
        return "tolerated" if rng.random() < self.spec.tolerate else None

    def allowed(self, source: int) -> Starts:
        """Return every start that the region and the held-out boxes of a volume allow."""
        return self._free[source]

    def foreground(self, source: int) -> Marked | None:
        """Return what counts as foreground in a volume; None where nothing says so."""
        volume = self.volumes[source]
        nothing = volume.labels is None and volume.foreground is None
        return None if nothing else _foreground(volume, _ids(self.spec))

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes that are drawn, () unless they are balanced."""
        return tuple(branch.number for branch in self._parts if branch.number is not None)

    # ---- the branches -------------------------------------------------------------------------------------

    def _branches(self) -> Iterator[tuple[float, _Branch]]:
        spec = self.spec
        left = 1.0
        if isinstance(spec, Foreground) and spec.probability > 0:
            left -= spec.probability
            yield spec.probability, self._around_foreground(spec)
        elif isinstance(spec, Balanced):
            indices = [(source, self._index_classes(spec, source)) for source in self._sources]
            found = sorted({int(i) for _, index in indices for i in index.ids})
            shares = spec.shares_of(found, _labels(self.volumes[0]).info.source)
            left = 0.0 if spec.shares is None else left - sum(shares.values())
            for number, share in shares.items():
                if share > 0:
                    yield share, self._around_class(number, indices)
        if left > SHARE_SLACK:
            yield left, self._branch("uniform", [self._anywhere(source) for source in self._sources])

    @property
    def _sources(self) -> list[int]:
        return [source for source, weight in enumerate(self._weights) if weight > 0]

    def _branch(self, name: str, ways: Sequence[_Way], number: int | None = None) -> _Branch:
        return _Branch(name, tuple(ways), _ends([self._weights[way.source] for way in ways]), number)

    def _anywhere(self, source: int) -> _Way:
        volume, rules = self.volumes[source], self._rules[source]
        starts = self._free[source]
        if not isinstance(self.spec, Rejection):
            found = suitable_starts(starts, rules, self.crop_shape, _probing())
            _require_some(found.witnesses, volume, rules, self.crop_shape)
            return _Way(source, found.starts, rules, found.witnesses)
        wanted = _wanted(_foreground(volume, self.spec.ids), self.spec, self.crop_shape)
        # Even where little foreground is tolerated, some crop must have enough: else nothing would be refused for
        # a reason. Where none is tolerated, starts that cannot have enough need not be proposed.
        found = suitable_starts(starts, (*rules, wanted), self.crop_shape, _probing())
        _require_some(found.witnesses, volume, (*rules, wanted), self.crop_shape)
        if self.spec.tolerate > 0:
            kept = suitable_starts(starts, rules, self.crop_shape, _probing()).starts
        else:
            kept = found.starts
        return _Way(source, kept, rules, found.witnesses, wanted=wanted)

    def _around_foreground(self, spec: Foreground) -> _Branch:
        ways, seen = [], False
        for source in self._sources:
            index = self._index_foreground(spec, source)
            seen |= index.count > 0
            way = self._around("foreground", source, index) if index.count else None
            ways += [] if way is None else [way]
        if not ways:
            what = "site" if spec.around == "sites" else "foreground voxel"
            raise InputError(_nothing(what, self.volumes, seen))
        return self._branch("foreground", ways)

    def _index_foreground(self, spec: Foreground, source: int) -> Index:
        volume, starts = self.volumes[source], self._free[source]
        if spec.around == "sites":
            return SiteIndex.of(volume.site_voxels(), starts, self.crop_shape)
        groups = Groups(_marks(volume), spec.ids, volume.mask, merged=spec.choose == "voxel")
        return index_groups(groups, starts, self.crop_shape)

    def _index_classes(self, spec: Balanced, source: int) -> ClassIndex:
        volume = self.volumes[source]
        groups = Groups(_labels(volume), spec.classes, volume.mask, background=True)
        return index_groups(groups, self._free[source], self.crop_shape)

    def _around_class(self, number: int, indices: Sequence[tuple[int, ClassIndex]]) -> _Branch:
        ways, name = [], f"class {number}" if number < SETS else "a set of classes"
        for source, index in indices:
            for group in np.flatnonzero(index.ids == number).tolist():  # one, or none
                way = self._around(name, source, index, group)
                ways += [] if way is None else [way]
        if not ways:
            raise InputError(_nothing(f"voxel of {name}", self.volumes, True))
        return self._branch(name, ways, number if number < SETS else None)

    def _around(self, name: str, source: int, index: Index, group: int | None = None) -> _Way | None:
        """Return the way, or None where none of `tries` proposals is suitable."""
        rules, rng = self._rules[source], _probing()
        centred = isinstance(self.spec, Foreground | Balanced) and self.spec.place == "centre"
        way = _Way(source, self._free[source], rules, np.zeros((0, 3), np.int64), index, group, centred=centred)
        if not rules:
            return way
        found: list[Vec] = []
        for tried in range(max(_WITNESSES, self.spec.tries)):
            start = way.propose(rng, self.crop_shape)
            if obey(rules, start, self.crop_shape):
                found.append(start)
            if len(found) and tried + 1 >= _WITNESSES:
                return replace(way, witnesses=np.array(found, np.int64))
        log.warning(
            "%s: none of %d crops that were tried around %s is suitable, so none are drawn there",
            self.volumes[source].raw.info.source,
            self.spec.tries,
            name,
        )
        return None


# ---- what must hold before anything is drawn -------------------------------------------------------------


def _probing() -> np.random.Generator:
    """Return the generator of all trials at construction: the same for every job, so that validation repeats."""
    return np.random.Generator(np.random.Philox(0))


def _ends(shares: Sequence[float]) -> NDArray[np.float64]:
    ends = np.cumsum(np.asarray(shares, float) / sum(shares))
    ends[-1] = 1.0
    return ends


def _pick(rng: np.random.Generator, ends: NDArray[np.float64]) -> int:
    return int(np.searchsorted(ends, rng.random(), side="right"))


def _ids(spec: SamplingSpec) -> tuple[int, ...] | None:
    return spec.ids if isinstance(spec, Foreground | Rejection) else None


def _weights(volumes: Sequence[TrainingVolume]) -> list[float]:
    weights = [volume.weight for volume in volumes]
    if not all(0 <= weight < float("inf") for weight in weights) or not sum(weights) > 0:
        raise InputError(f"weights of volumes {weights} are finite, at least 0, and one is positive: correct them")
    return weights


def _allowed(volume: TrainingVolume, shape: Vec) -> Starts:
    source, region = volume.raw.info.source, volume.region
    if min(shape) < 1:
        raise InputError(f"crop {shape} has an extent below 1 voxel (z, y, x)")
    if not volume.raw.info.box.contains(region):
        raise InputError(f"the training region {region} leaves {source}, which is {volume.raw.info.box}")
    if any(s > n for s, n in zip(shape, region.shape, strict=True)):
        raise InputError(
            f"crop {shape} is larger than the training region {region.shape} of {source} (z, y, x): use a smaller "
            "crop_shape_vox"
        )
    starts = free_starts(region, volume.held_out, shape)
    if not starts.count:
        raise InputError(
            f"no crop of {shape} voxels in {source} avoids the held-out boxes and their gap: use a smaller crop, "
            "a smaller gap or fewer held-out boxes"
        )
    return starts


def _rules(volume: TrainingVolume, spec: CropRules, shape: Vec) -> tuple[Rule, ...]:
    rules = []
    if volume.mask is not None:
        require_knowable(volume.mask, spec.min_known, shape)
        text = f"has at least {spec.min_known:g} of its voxels known (min_known)"
        rules.append(Rule.at_least(Marked(volume.mask), spec.min_known, shape, text))
    if volume.avoid is not None:
        text = f"has at most {spec.max_avoided:g} of its voxels in artefacts (max_avoided)"
        rules.append(Rule.at_most(Marked(volume.avoid), spec.max_avoided, shape, text))
    return tuple(rule for rule in rules if rule.binds(shape))


def _foreground(volume: TrainingVolume, ids: tuple[int, ...] | None) -> Marked:
    return Marked(_marks(volume), ids, volume.mask)


def _marks(volume: TrainingVolume) -> Volume:
    return _labels(volume) if volume.foreground is None else volume.foreground


def _labels(volume: TrainingVolume) -> Volume:
    if volume.labels is None:
        raise InputError(
            f"{volume.raw.info.source} has no labels to choose crops by: use `uniform` sampling, or "
            "say where crops are wanted (`foreground`)"
        )
    return volume.labels


def _wanted(marked: Marked, spec: Rejection, shape: Vec) -> Rule:
    size = prod(shape)
    least = max(spec.least_vox, ceil(spec.least_share * size - 1e-6))
    if least > size:
        raise InputError(
            f"least_vox {least} is more than the {size} voxels of a crop {shape}: ask for less foreground or use "
            "larger crops"
        )
    return Rule(marked, least, size, f"holds at least {least} foreground voxels (least_vox, least_share)")


def _require_some(found: Voxels, volume: TrainingVolume, rules: Sequence[Rule], shape: Vec) -> None:
    if not len(found):
        raise InputError(
            f"no crop of {shape} voxels in {volume.region} of {volume.raw.info.source}, off its held-out boxes, "
            f"{' and '.join(rule.text for rule in rules)}: use smaller crops, ask for less, or "
            "leave this volume out"
        )


def _nothing(what: str, volumes: Sequence[TrainingVolume], exists: bool) -> str:
    names = ", ".join(volume.raw.info.source for volume in volumes)
    if exists:
        return (
            f"no crop around a {what} of {names} that was tried has enough known voxels and few enough artefacts: "
            "lower min_known, raise max_avoided, or use smaller crops"
        )
    return (
        f"{names}: no {what} can lie in a training crop: check the labels or sites, the region, the held-out "
        "boxes and the mask"
    )
