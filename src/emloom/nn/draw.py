"""Draw: from an `AugmentSpec` and the coordinates of a sample to its plan.

Every kind of effect has a random stream of its own, keyed by (seed, epoch, index, name of the effect): changing
the noise does not change which sections are lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import ceil, cos, log, radians, sin, tan
from zlib import crc32

import numpy as np

from emloom.geometry import Vec
from emloom.geometry.grid import Vec3
from emloom.nn.augment import (
    ELASTIC_REACH_SIGMAS,
    AugmentSpec,
    BoxesSpec,
    DefectSpec,
    ElasticSpec,
    IntensitySpec,
    Pair,
    SectionsSpec,
)
from emloom.nn.library import Library, turned
from emloom.nn.plan import (
    Area,
    Artifact,
    Blur,
    Defect,
    Fold,
    Hidden,
    LowContrast,
    Missing,
    Motion,
    Noise,
    SamplePlan,
    SectionMoves,
    Tone,
    Warp,
)
from emloom.ops.deformation import control_shape

_ARTIFACT_CONTRAST: Pair = (0.9, 1.1)
_ARTIFACT_BRIGHTNESS: Pair = (-0.2, 0.2)
_MOST_BOXES = 64
_PLACES = 20
_COVERED = 0.05

Rng = np.random.Generator


@dataclass(frozen=True)
class Streams:
    """The random streams of one sample: independent, and a function of its coordinates alone."""

    seed: int
    epoch: int
    index: int

    def of(self, name: str) -> Rng:
        """Return the stream of an effect, at its beginning."""
        key = np.random.SeedSequence([self.seed, self.epoch, self.index, crc32(name.encode())])
        return np.random.Generator(np.random.Philox(key))


@dataclass(frozen=True)
class Frame:
    """The box of voxels a sample is made of: its output, and what raw and targets need around it.

    Attributes:
        output: voxels (z, y, x) of the output.
        reach: voxels around it on each side.
        spacing_nm: voxel size.
    """

    output: Vec
    reach: Vec
    spacing_nm: Vec3

    @property
    def shape(self) -> Vec:
        """Voxels of the frame."""
        z, y, x = (n + 2 * r for n, r in zip(self.output, self.reach, strict=True))
        return (z, y, x)

    @property
    def orders(self) -> list[Vec]:
        """The axis permutations that change neither extents nor voxel size."""
        properties = (self.output, self.reach, self.spacing_nm)
        return [
            (z, y, x)
            for z, y, x in permutations(range(3))
            if all((p[z], p[y], p[x]) == (p[0], p[1], p[2]) for p in properties)
        ]


def draw_plan(
    spec: AugmentSpec,
    streams: Streams,
    source: int,
    start: Vec,
    frame: Frame,
    library: Library | None = None,
) -> SamplePlan:
    """Draw every decision of one sample.

    Args:
        spec: what may happen.
        streams: the sample's randomness.
        source: which volume, already drawn.
        start: first voxel of the output in it, already drawn.
        frame: the sample's extents.
        library: where artifacts come from; needed where they may happen.
    """
    rng = streams.of("orientation")
    flips = tuple(bool(v) for v in rng.random(3) < 0.5) if spec.flip else (False, False, False)
    orders = frame.orders if spec.transpose else [(0, 1, 2)]
    folds, faults = draw_defects(spec.defects, streams.of("defects"), frame, library)
    sigma = streams.of("noise").uniform(0.0, spec.noise)
    return SamplePlan(
        source=source,
        start=start,
        flips=flips,
        order=orders[int(rng.integers(len(orders)))],
        warp=draw_warp(spec, streams, frame),
        moves=draw_moves(spec.sections, streams.of("sections"), frame),
        folds=folds,
        tone=draw_tone(spec.intensity, streams.of("intensity"), frame.shape[0]),
        defects=(
            *draw_blurs(spec, streams.of("blur"), frame),
            *faults,
            *draw_boxes(spec.boxes, streams.of("boxes"), frame),
        ),
        noise=Noise(sigma=sigma, seed=int(streams.of("noise seed").integers(2**63))) if sigma > 0 else None,
    )


def draw_warp(spec: AugmentSpec, streams: Streams, frame: Frame) -> Warp | None:
    """Draw the affine and elastic deformation; None where neither may happen."""
    if spec.affine is None and spec.elastic is None:
        return None
    drawn = {}
    if spec.affine is not None:
        rng = streams.of("affine")
        drawn = {
            "rotation_deg": rng.uniform(*spec.affine.rotation_deg),
            "scale": rng.uniform(*spec.affine.scale),
            "shear_deg": rng.uniform(*spec.affine.shear_deg),
        }
    if spec.elastic is None:
        return Warp(**drawn)
    spacing, sigma = _in_vox(spec.elastic, frame)
    control = control_shape(frame.shape, spacing)
    moving = sum(s > 0 for s in sigma)
    normals = streams.of("elastic").standard_normal((moving, *control))
    return Warp(
        **drawn, spacing_vox=spacing, sigma_vox=sigma, control=control, normals=tuple(normals.ravel().tolist())
    )


def _in_vox(spec: ElasticSpec, frame: Frame) -> tuple[Vec3, Vec3]:
    z, y, x = (nm / size for nm, size in zip(spec.spacing_nm, frame.spacing_nm, strict=True))
    a, b, c = (nm / size for nm, size in zip(spec.sigma_nm, frame.spacing_nm, strict=True))
    return (z, y, x), (a, b, c)


def draw_moves(spec: SectionsSpec, rng: Rng, frame: Frame) -> SectionMoves | None:
    """Draw slips and shifts; None where neither may happen."""
    if spec.slip + spec.shift == 0:
        return None
    n = frame.shape[0]
    what = rng.random(n)
    largest = [int(spec.largest_nm / size) for size in frame.spacing_nm[1:]]
    steps = np.stack([rng.integers(-m, m + 1, n) for m in largest], axis=1)
    slips = np.where((what < spec.slip)[:, None], steps, 0)
    shifts = np.where(((what >= spec.slip) & (what < spec.slip + spec.shift))[:, None], steps, 0).cumsum(axis=0)
    shifts -= shifts[n // 2]
    raw = shifts + slips - slips[n // 2]
    labels = raw if spec.slip_moves_labels else shifts
    return SectionMoves(raw=_pairs(raw), labels=_pairs(labels))


def _pairs(array: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> tuple[tuple[int, int], ...]:
    return tuple((int(y), int(x)) for y, x in array)


def draw_tone(spec: IntensitySpec, rng: Rng, sections: int) -> Tone | None:
    """Draw contrast, brightness and gamma of every section; None where nothing is to be done."""
    skipped = rng.random() < spec.skip
    once = {"volume": True, "section": False, "mix": rng.random() < 0.5}[spec.scope]
    n = 1 if once else sections
    contrast = np.broadcast_to(rng.uniform(*spec.contrast, n), sections)
    brightness = np.broadcast_to(rng.uniform(*spec.brightness, n), sections)
    gamma = np.broadcast_to(np.exp(rng.uniform(log(spec.gamma[0]), log(spec.gamma[1]), n)), sections)
    brightness = brightness + rng.normal(0.0, 1.0, sections) * spec.section_jitter
    if skipped or ((contrast == 1).all() and (brightness == 0).all() and (gamma == 1).all()):
        return None
    return Tone(
        contrast=tuple(contrast.tolist()), brightness=tuple(brightness.tolist()), gamma=tuple(gamma.tolist())
    )


def draw_blurs(spec: AugmentSpec, rng: Rng, frame: Frame) -> list[Defect]:
    """Draw the blurred sections."""
    chance = spec.blur
    out: list[Defect] = []
    nm_y, nm_x = frame.spacing_nm[1:]
    for section, what in enumerate(rng.random(frame.shape[0])):
        if what < chance.gaussian:
            sigma = rng.uniform(*chance.sigma_nm)
            size = (sigma / nm_y, sigma / nm_x)
            out += [Blur(section=section, area=a, sigma_vox=size) for a in draw_areas(rng, frame, chance.partial)]
        elif what < chance.gaussian + chance.motion:
            length, angle = rng.uniform(*chance.length_nm), rng.uniform(0, np.pi)
            step = (length * sin(angle) / nm_y, length * cos(angle) / nm_x)
            out += [Motion(section=section, area=a, step_vox=step) for a in draw_areas(rng, frame, chance.partial)]
    return out


def draw_areas(rng: Rng, frame: Frame, partial: float) -> list[Area]:
    """Draw what a defect affects: the whole section, or one to three quadrants around a point of the output."""
    _, height, width = frame.shape
    if rng.random() >= partial:
        return [(0, height, 0, width)]
    y, x = (r + int(rng.integers(1, max(2, n))) for r, n in zip(frame.reach[1:], frame.output[1:], strict=True))
    quadrants = [(0, y, 0, x), (0, y, x, width), (y, height, 0, x), (y, height, x, width)]
    chosen = rng.permutation(4)[: int(rng.integers(1, 4))]
    return [q for q in (quadrants[i] for i in sorted(chosen)) if q[0] < q[1] and q[2] < q[3]]


def draw_defects(
    spec: DefectSpec, rng: Rng, frame: Frame, library: Library | None = None
) -> tuple[tuple[Fold, ...], list[Defect]]:
    """Draw folds, and what else befalls sections: at most one thing each."""
    folds: list[Fold] = []
    faults: list[Defect] = []
    spared = 0
    for section, what in enumerate(rng.random(frame.shape[0])):
        if spared > 0:
            spared -= 1
            continue
        kind = _kind(spec, what)
        if kind is None:
            continue
        spared = spec.apart_sections
        if kind == "fold":
            folds.append(_fold(spec, rng, frame, section))
        elif kind == "artifact":
            if library is None:
                raise ValueError("artifacts may happen, and no library was given")  # a caller's mistake
            faults.append(_artifact(rng, frame, section, library))
        else:
            value = {"mean": None, "black": -1.0, "random": rng.uniform(-1, 1)}[spec.fill]
            for area in draw_areas(rng, frame, spec.partial):
                if kind == "missing":
                    faults.append(Missing(section=section, area=area, value=value))
                else:
                    faults.append(LowContrast(section=section, area=area, scale=spec.contrast_scale))
    return tuple(folds), faults


def _kind(spec: DefectSpec, what: float) -> str | None:
    """Return the defect whose share of [0, 1) a draw falls into."""
    start = 0.0
    for kind in ("missing", "low_contrast", "artifact", "fold"):
        start += getattr(spec, kind)
        if what < start:
            return kind
    return None


def _fold(spec: DefectSpec, rng: Rng, frame: Frame, section: int) -> Fold:
    """Draw a line from one edge of the output's section to the opposite one: a fold nobody sees only misleads."""
    _, height, width = frame.output
    a, b = rng.uniform(0, 1, 2)
    if rng.random() < 0.5:
        first, last = (0.0, a * (width - 1)), (height - 1.0, b * (width - 1))
    else:
        first, last = (a * (height - 1), 0.0), (b * (height - 1), width - 1.0)
    along = np.array(last) - np.array(first)
    normal = np.array([along[1], -along[0]]) / max(float(np.hypot(*along)), 1e-9)
    size = frame.spacing_nm[2]
    return Fold(
        section=section,
        normal=(float(normal[0]), float(normal[1])),
        c=float(normal @ (np.array(first) + frame.reach[1:])),
        strength_vox=spec.folds.strength_nm / size,
        width_vox=spec.folds.width_nm / size,
        moves_labels=spec.folds.moves_labels,
    )


def _artifact(rng: Rng, frame: Frame, section: int, library: Library) -> Artifact:
    """Draw an artifact, its orientation, and where it and the section lie over each other.

    Of up to 20 places the first is taken at which the mask covers 5 % of what is blended, else the best of them.
    """
    number = int(rng.integers(len(library.images)))
    flips, transposed = rng.random(2) < 0.5, bool(rng.random() < 0.5)
    mask = turned(library.masks[number], (bool(flips[0]), bool(flips[1])), transposed)
    best = -1.0
    source, area = (0, 0), (0, 0, 0, 0)
    for _ in range(_PLACES):
        (sy, y, ny), (sx, x, nx) = (_overlay(rng, a, n) for a, n in zip(mask.shape, frame.shape[1:], strict=True))
        covered = float(mask[sy : sy + ny, sx : sx + nx].mean())
        if covered > best:
            best, source, area = covered, (sy, sx), (y, y + ny, x, x + nx)
        if best >= _COVERED:
            break
    return Artifact(
        section=section,
        number=number,
        source=source,
        area=area,
        flips=(bool(flips[0]), bool(flips[1])),
        transposed=transposed,
        contrast=float(rng.uniform(*_ARTIFACT_CONTRAST)),
        brightness=float(rng.uniform(*_ARTIFACT_BRIGHTNESS)),
    )


def _overlay(rng: Rng, artifact: int, section: int) -> tuple[int, int, int]:
    """Return (first voxel used of the artifact, where it goes, how many): the smaller lies within the larger."""
    free = abs(artifact - section)
    at = int(rng.integers(free + 1))
    return (at, 0, section) if artifact >= section else (0, at, artifact)


def draw_boxes(spec: BoxesSpec, rng: Rng, frame: Frame) -> list[Defect]:
    """Draw hidden cuboids until the drawn share of the sample is hidden."""
    if rng.random() >= spec.probability:
        return []
    wanted = rng.uniform(0, spec.share) * np.prod(frame.shape)
    out: list[Defect] = []
    while wanted > 0 and len(out) < _MOST_BOXES:
        shape = [
            min(n, max(1, round(rng.uniform(*spec.size_nm) / size)))
            for n, size in zip(frame.shape, frame.spacing_nm, strict=True)
        ]
        start = [int(rng.integers(n - m + 1)) for n, m in zip(frame.shape, shape, strict=True)]
        value = -1.0 if spec.fill == "black" else float(rng.uniform(-1, 1))
        out.append(Hidden(start=(start[0], start[1], start[2]), shape=(shape[0], shape[1], shape[2]), value=value))
        wanted -= np.prod(shape)
    return out


def widest_read(spec: AugmentSpec, frame: Frame) -> tuple[int, int]:
    """Return how many voxels (y, x) of the source a sample may need, elastic displacement up to four sigma."""
    height, width = ((n - 1) * size for n, size in zip(frame.shape[1:], frame.spacing_nm[1:], strict=True))
    y = x = 0.0
    affine = spec.affine
    low, high = (0.0, 0.0) if affine is None else affine.rotation_deg
    shear = 0.0 if affine is None else tan(radians(max(map(abs, affine.shear_deg))))
    smallest = 1.0 if affine is None else affine.scale[0]
    for degrees in np.append(np.arange(low, min(high, low + 360), 1.0), high):
        a = radians(degrees)
        y = max(y, abs(cos(a)) * height + abs(sin(a)) * width)
        x = max(x, abs(sin(a)) * height + abs(cos(a)) * width)
    y, x = (y / smallest, (x + shear * y) / smallest)
    sigma = (0.0, 0.0, 0.0) if spec.elastic is None else spec.elastic.sigma_nm
    moves = spec.sections.largest_nm if spec.sections.slip + spec.sections.shift > 0 else 0.0
    out = [
        ceil((extent + 2 * (ELASTIC_REACH_SIGMAS * s + moves)) / size - 1e-9) + 1
        for extent, s, size in zip((y, x), sigma[1:], frame.spacing_nm[1:], strict=True)
    ]
    return (out[0], out[1])
