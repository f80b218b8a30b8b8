"""What tests of sampling share: volumes that count their reads, and the exact law of every strategy, slowly."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from emloom.geometry import Box, Grid, Vec
from emloom.io.volume import Array, ArrayVolume, VolumeInfo, check_box
from emloom.nn.crops import TrainingVolume
from emloom.nn.sampling import CropSampler
from emloom.nn.strategies import Balanced, Foreground, Rejection, SamplingSpec

GRID = Grid((30.0, 10.0, 10.0), (90.0, -40.0, 0.0))
Law = dict[tuple[int, Vec], float]


@dataclass
class Counting:
    """A volume that counts reads and voxels read."""

    behind: Any
    reads: int = 0
    voxels: int = 0

    @property
    def info(self) -> VolumeInfo:
        return self.behind.info

    def read(self, box: Box) -> Array:
        self.reads += 1
        self.voxels += box.size
        return self.behind.read(box)

    def write(self, box: Box, array: Array) -> None:
        raise AssertionError("sources are read-only")


@dataclass(frozen=True)
class Virtual:
    """A volume of any size that is computed where it is read: balls of radius 6 on a lattice."""

    shape: Vec
    pitch: int = 50
    dtype: Any = np.uint32
    grid: Grid = field(default=GRID)

    @property
    def info(self) -> VolumeInfo:
        return VolumeInfo(self.shape, np.dtype(self.dtype), self.grid, kind="labels", source="virtual")

    def read(self, box: Box) -> Array:
        check_box(self.info, box)
        axes = [np.arange(a, b) for a, b in zip(box.start, box.stop, strict=True)]
        z, y, x = np.ix_(*((axis % self.pitch - self.pitch // 2) ** 2 for axis in axes))
        nz, ny, nx = np.ix_(*(axis // self.pitch for axis in axes))
        ids = 1 + nx + 100 * (ny + 100 * nz)
        return np.where(z + y + x < 36, ids, 0).astype(self.dtype)

    def write(self, box: Box, array: Array) -> None:
        raise AssertionError("sources are read-only")


def volume_of(labels: NDArray[Any], **more: Any) -> TrainingVolume:
    """A labelled volume; arrays among the keywords become volumes."""
    for name in ("mask", "avoid", "foreground"):
        if isinstance(more.get(name), np.ndarray):
            more[name] = ArrayVolume(more[name], GRID, source=name)
    region = more.pop("region", Box.whole(labels.shape))
    raw = ArrayVolume(np.zeros(labels.shape, np.uint8), GRID, source="raw")
    return TrainingVolume(raw, ArrayVolume(labels, GRID, source="labels"), region, **more)


def allowed(volume: TrainingVolume, shape: Vec) -> list[Vec]:
    """Every allowed start, one by one."""
    extent = [n - s + 1 for n, s in zip(volume.region.shape, shape, strict=True)]
    starts = [
        tuple(o + i for o, i in zip(volume.region.start, at, strict=True)) for at in product(*map(range, extent))
    ]
    return [s for s in starts if volume.allows(Box(s, shape))]  # type: ignore[arg-type, misc]


def law(sampler: CropSampler) -> Law:
    """The exact probability of every (source, start), from the definition in `emloom.nn.sampling`."""
    spec, volumes = sampler.spec, sampler.volumes
    weights = np.array([v.weight for v in volumes])
    total: Law = Counter()  # type: ignore[assignment]
    for share, proposals in _branches(spec, volumes, sampler.crop_shape):
        taking = [i for i, proposal in enumerate(proposals) if proposal and weights[i] > 0]
        for i in taking:
            good = {s: p for s, p in proposals[i].items() if _suitable(volumes[i], spec, s, sampler.crop_shape)}
            for s, p in _accepted(good, volumes[i], spec, sampler.crop_shape).items():
                total[i, s] += share * weights[i] / weights[taking].sum() * p
    return total


def _branches(
    spec: SamplingSpec, volumes: tuple[TrainingVolume, ...], shape: Vec
) -> list[tuple[float, list[dict[Vec, float]]]]:
    out = []
    left = 1.0
    if isinstance(spec, Foreground):
        left -= spec.probability
        out.append((spec.probability, [_around(_objects(spec, v), v, shape, spec.place) for v in volumes]))
    if isinstance(spec, Balanced):
        arrays = [_known(v, v.labels.read(v.labels.info.box).astype(int), -1) for v in volumes]
        arrays = [a if v.weight > 0 else a[:0] for a, v in zip(arrays, volumes, strict=True)]
        classes = spec.classes or sorted({int(i) for a in arrays for i in np.unique(a)} - {-1})
        shares = spec.shares or [1 / len(classes)] * len(classes)
        left -= sum(shares)
        for c, share in zip(classes, shares, strict=True):
            voxels = [[[*map(tuple, np.argwhere(a == c).tolist())]] for a in arrays]
            ways = zip(voxels, volumes, strict=True)
            out.append((share, [_around(w, v, shape, spec.place) for w, v in ways]))
    if left > 1e-9:
        everywhere = [allowed(v, shape) for v in volumes]
        out.append((left, [{s: 1 / len(starts) for s in starts} for starts in everywhere]))
    return out


def _known(volume: TrainingVolume, ids: NDArray[Any], unknown: int) -> NDArray[Any]:
    return ids if volume.mask is None else np.where(volume.mask.read(volume.mask.info.box) != 0, ids, unknown)


def foreground_ids(volume: TrainingVolume, ids: tuple[int, ...] | None) -> NDArray[Any]:
    source = volume.foreground or volume.labels
    array = _known(volume, source.read(source.info.box).astype(int), 0)
    return array if ids is None else np.where(np.isin(array, ids), array, 0)


def _objects(spec: Foreground, volume: TrainingVolume) -> list[list[Vec]]:
    if spec.around == "sites":
        sites = [] if volume.sites_nm is None else volume.sites_nm
        return [[volume.raw.info.grid.containing(site)] for site in sites]
    array = foreground_ids(volume, spec.ids)
    if spec.choose == "voxel":
        return [[*map(tuple, np.argwhere(array).tolist())]]
    return [[*map(tuple, np.argwhere(array == i).tolist())] for i in np.unique(array[array != 0])]


def _around(objects: list[list[Vec]], volume: TrainingVolume, shape: Vec, place: str) -> dict[Vec, float]:
    starts = allowed(volume, shape)
    holding = {
        v: [s for s in starts if all(a <= i < a + n for a, i, n in zip(s, v, shape, strict=True))]
        for voxels in objects
        for v in voxels
    }
    if place == "centre":
        holding = {
            v: found and [min(found, key=lambda s: _off_centre(s, v, shape))] for v, found in holding.items()
        }
    reachable = [[v for v in voxels if holding[v]] for voxels in objects]
    reachable = [voxels for voxels in reachable if voxels]
    out: Counter[Vec] = Counter()
    for voxels in reachable:
        for v in voxels:
            for s in holding[v]:
                out[s] += 1 / len(reachable) / len(voxels) / len(holding[v])  # type: ignore[assignment]
    return dict(out)


def _off_centre(start: Vec, voxel: Vec, shape: Vec) -> tuple[int, Vec]:
    """How far, squared, a crop's centre is from a voxel; and the start itself, to choose among equals."""
    return sum((s + n // 2 - v) ** 2 for s, v, n in zip(start, voxel, shape, strict=True)), start


def _suitable(volume: TrainingVolume, spec: SamplingSpec, start: Vec, shape: Vec) -> bool:
    box = Box(start, shape)
    known = 1.0 if volume.mask is None else (volume.mask.read(box) != 0).mean()
    avoided = 0.0 if volume.avoid is None else (volume.avoid.read(box) != 0).mean()
    return bool(known >= spec.min_known - 1e-9 and avoided <= spec.max_avoided + 1e-9)


def _accepted(good: dict[Vec, float], volume: TrainingVolume, spec: SamplingSpec, shape: Vec) -> dict[Vec, float]:
    if isinstance(spec, Rejection):
        fg = foreground_ids(volume, spec.ids) != 0
        least = max(spec.least_vox, spec.least_share * np.prod(shape) - 1e-9)
        enough = {s: fg[Box(s, shape).slices()].sum() >= least for s in good}
        good = {s: p * (1 if enough[s] else spec.tolerate) for s, p in good.items()}
    total = sum(good.values())
    return {s: p / total for s, p in good.items() if p}


def require_law(sampler: CropSampler, expected: Law, draws: int = 3000, seed: int = 0) -> None:
    """Draws fall where the law says and nowhere else, as often as it says (chi square, one error in 10^6)."""
    assert abs(sum(expected.values()) - 1) < 1e-9
    rng = np.random.default_rng(seed)
    seen = Counter((d.source, d.start) for d in (sampler.draw(rng) for _ in range(draws)))
    assert set(seen) <= set(expected), "a start that the law excludes was drawn"
    # Starts are pooled in a fixed order until a bin expects at least 10.
    bins: list[tuple[float, int]] = []
    mass, hits = 0.0, 0
    for key in sorted(expected, key=lambda k: expected[k]):
        mass, hits = mass + expected[key] * draws, hits + seen[key]
        if mass >= 10:
            bins.append((mass, hits))
            mass, hits = 0.0, 0
    if mass:
        last = bins.pop()
        bins.append((last[0] + mass, last[1] + hits))
    assert len(bins) > 3, "too few bins to tell anything"
    square = sum((hits - mass) ** 2 / mass for mass, hits in bins)
    assert chi2.sf(square, len(bins) - 1) > 1e-6, f"chi square {square:.0f} for {len(bins) - 1} degrees"


def rng_of(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return a stream of its own for every sample."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, index])))
