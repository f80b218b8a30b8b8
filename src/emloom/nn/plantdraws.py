"""One draw per kind of synthetic artifact: from ranges and a section's extent to a value that says everything.

Places are drawn where the section sees them; lengths are uniform in their logarithm, for small artifacts are as
many as there are large ones of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from emloom.ops.artifacts import Artifact, Kind
from emloom.ops.blemishes import Charging, Lumps, Stain
from emloom.ops.faults import Area, Blur, Faint, Missing, Shift
from emloom.ops.tears import Course, Crack, Fold, Scratch
from emloom.ops.textures import Spacing

Pair = tuple[float, float]
Rng = np.random.Generator


@dataclass(frozen=True)
class Ranges:
    """What is drawn from: the ranges of a `PlantSpec`."""

    size_nm: Pair
    width_nm: Pair
    shift_nm: Pair
    blur_nm: Pair
    strength: Pair


Draw = Callable[[Ranges, tuple[int, int], Spacing, Rng], Artifact]


def _ratio(rng: Rng, pair: Pair) -> float:
    """Draw uniformly in the logarithm."""
    return float(np.exp(rng.uniform(np.log(pair[0]), np.log(pair[1]))))


def _seed(rng: Rng) -> int:
    return int(rng.integers(2**62))


def _point(shape: tuple[int, int], spacing: Spacing, rng: Rng) -> Pair:
    y, x = rng.random(2) * np.array(shape) * spacing
    return (float(y), float(x))


def _course(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng, straight: float) -> Course:
    """Draw a line through a point of the section; `straight` 0 wanders freely, 1 hardly."""
    length = max(_ratio(rng, ranges.size_nm), _ratio(rng, ranges.size_nm))
    free = 1.0 - straight
    return Course(
        point_nm=_point(shape, spacing, rng),
        angle=float(rng.uniform(0.0, 2 * np.pi)),
        bend_nm=float(rng.normal(0.0, 80.0 * free)),
        wander_nm=float(rng.uniform(0.02, 0.25) * free * min(length, 2000.0)),
        cell_nm=float(rng.uniform(0.5, 1.2) * min(length, 3000.0)),
        length_nm=length,
    )


def draw_fold(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng) -> Fold:
    """Draw a fold: a band long for its width, that hides one to three times its width of tissue."""
    course = _course(ranges, shape, spacing, rng, straight=0.3)
    width = min(max(_ratio(rng, ranges.width_nm), 2 * min(spacing)), course.length_nm / 4)
    hidden = width * rng.uniform(0.3, 1.2)
    edge = rng.choice([-1.0, 1.0], p=[0.7, 0.3]) * rng.uniform(0.0, 0.4)
    return Fold(
        course=course,
        width_nm=width,
        hidden_nm=float(hidden),
        reach_nm=float(hidden * rng.uniform(1.5, 4.0)),
        density=float(rng.uniform(*ranges.strength)),
        edge=float(edge),
        seed=_seed(rng),
    )


def draw_crack(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng) -> Crack:
    """Draw a crack, black as a program fills it, or with what lies beneath, and up to three branches."""
    course = _course(ranges, shape, spacing, rng, straight=float(rng.uniform(0.0, 1.0)))
    width = min(max(_ratio(rng, ranges.width_nm), 1.5 * min(spacing)), course.length_nm / 3)
    look = rng.choice(3, p=[0.35, 0.25, 0.4])
    branches = tuple(
        (
            float(rng.uniform(-0.35, 0.35) * course.length_nm),
            float(rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.2)),
            float(rng.uniform(0.2, 0.7)),
        )
        for _ in range(int(rng.choice(4, p=[0.5, 0.25, 0.15, 0.1])))
    )
    return Crack(
        course=course,
        width_nm=width,
        reach_nm=width * float(rng.uniform(0.7, 2.5)),
        ragged=float(rng.uniform(0.1, 0.9)),
        fill=-1.0 if look == 0 else float(rng.uniform(-1.0, -0.5) if look == 1 else rng.uniform(0.5, 1.0)),
        texture=0.0 if look == 0 else float(rng.uniform(0.02, 0.2)),
        rim=0.0 if look == 0 else float(rng.uniform(-0.4, 0.4)),
        branches=branches,
        seed=_seed(rng),
    )


def draw_scratch(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng) -> Scratch:
    """Draw one to five lines of a notched knife, dark or bright, straight over the whole section."""
    size = float(np.hypot(*(np.array(shape) * spacing)))
    course = Course(_point(shape, spacing, rng), float(rng.uniform(0.0, 2 * np.pi)), 0.0, 0.0, 1e4, 4 * size)
    thinnest = ranges.width_nm[0]
    widths = (
        max(0.5 * thinnest, min(spacing)),
        max((thinnest**2 * ranges.width_nm[1]) ** (1 / 3), 2 * min(spacing)),
    )
    sign = rng.choice([-1.0, 1.0])
    bundle = rng.uniform(1.0, 8.0) * widths[1]
    lines = tuple(
        (
            float(rng.normal(0.0, bundle)) if i else 0.0,
            _ratio(rng, widths),
            float(sign * rng.uniform(*ranges.strength) * (1.0 if i == 0 else rng.uniform(-0.3, 1.0))),
        )
        for i in range(int(rng.integers(1, 6)))
    )
    return Scratch(course=course, lines=lines, broken=float(rng.uniform(0.0, 0.6)), seed=_seed(rng))


def _area(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng, seam: float, spots: float) -> Area:
    """Draw an area: a spot with the probability `spots`, else the section or what lies on one side of a line.

    A border is sharp with the probability `seam`: a tile's, or that of what broke off.
    """
    point, size, sharp = _point(shape, spacing, rng), _ratio(rng, ranges.size_nm), rng.random() < seam
    if rng.random() < spots:
        radius = 0.5 * max(size, 4 * min(spacing))
        soft = 0.0 if sharp else radius * float(rng.uniform(0.5, 1.2))
        return Area("spot", point, radius_nm=radius, soft_nm=soft, ragged=float(rng.uniform(0.2, 0.8)))
    if rng.random() < 0.5:
        return Area()
    # Tiles are cut along the axes, or nearly so.
    angle = rng.integers(4) * np.pi / 2 + rng.normal(0.0, 0.1) if sharp else rng.uniform(0, 2 * np.pi)
    return Area("side", point, float(angle), soft_nm=0.0 if sharp else 0.5 * size)


def draw_missing(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng) -> Missing:
    """Draw lost tissue: black or white without noise, or a bright or dark support film."""
    area = _area(ranges, shape, spacing, rng, seam=1.0, spots=0.4)
    fill, texture = [(-1.0, 0.0), (1.0, 0.0), (rng.uniform(0.3, 1.0), 0.1), (rng.uniform(-1.0, 0.0), 0.1)][
        int(rng.choice(4, p=[0.4, 0.1, 0.35, 0.15]))
    ]
    return Missing(area, float(fill), float(texture * rng.uniform(0.2, 1.5)), _seed(rng))


def draw_blur(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng) -> Blur:
    """Draw a loss of focus, one time in three astigmatic, one in three up to a seam of tiles."""
    area = _area(ranges, shape, spacing, rng, seam=0.0, spots=1.0) if rng.random() < 0.3 else None
    area = area or _area(ranges, shape, spacing, rng, seam=0.4, spots=0.0)
    sigma = max(_ratio(rng, ranges.blur_nm), min(spacing))
    stretch = _ratio(rng, (1 / 3, 3.0)) if rng.random() < 1 / 3 else 1.0
    return Blur(area, (sigma * stretch**0.5, sigma / stretch**0.5), _seed(rng))


def draw_shift(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng) -> Shift:
    """Draw a displacement of the section or of a tile of it."""
    area = _area(ranges, shape, spacing, rng, seam=1.0, spots=0.0)
    by, angle = max(_ratio(rng, ranges.shift_nm), 1.5 * max(spacing)), rng.uniform(0, 2 * np.pi)
    by = min(by, 0.15 * min(n * s for n, s in zip(shape, spacing, strict=True)))  # else most of it is mirrored
    return Shift(area, (float(by * np.cos(angle)), float(by * np.sin(angle))), _seed(rng))


def draw_faint(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng) -> Faint:
    """Draw a loss of contrast, with a brightness of its own half of the time."""
    area = _area(ranges, shape, spacing, rng, seam=0.0, spots=1.0) if rng.random() < 0.3 else None
    area = area or _area(ranges, shape, spacing, rng, seam=0.6, spots=0.0)
    strength = rng.uniform(*ranges.strength)
    brightness = rng.choice([-1.0, 1.0]) * rng.uniform(0.1, 0.5) * strength if rng.random() < 0.5 else 0.0
    return Faint(area, float(np.clip(1.0 - 0.9 * strength, 0.05, 1.0)), float(brightness), _seed(rng))


def draw_debris(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng) -> Lumps:
    """Draw dirt: a lump, one time in four a fibre, with up to six crumbs around it."""
    point, size = np.array(_point(shape, spacing, rng)), max(_ratio(rng, ranges.size_nm), 4 * min(spacing))
    long = _ratio(rng, (4.0, 12.0)) if rng.random() < 0.25 else _ratio(rng, (1.0, 2.5))
    angle = rng.uniform(0, np.pi)
    lumps = [(*point, 0.5 * size, 0.5 * size / long, angle)]
    for _ in range(int(rng.choice(7, p=[0.4, 0.2, 0.12, 0.1, 0.08, 0.05, 0.05]))):
        radius = max(0.5 * size * rng.uniform(0.08, 0.4), 1.5 * min(spacing))
        lumps.append((*(point + rng.normal(0.0, 0.6 * size, 2)), radius, radius * rng.uniform(0.5, 1.0), angle))
    dark = rng.random() < 0.7
    return Lumps(
        kind="debris",
        lumps=tuple(tuple(float(v) for v in lump) for lump in lumps),  # type: ignore[misc]
        ragged=float(rng.uniform(0.2, 0.9)),
        soft=float(rng.uniform(0.02, 0.3)),
        fill=float(rng.uniform(-1.0, -0.5) if dark else rng.uniform(0.4, 1.0)),
        texture=float(rng.uniform(0.1, 0.6)),
        relief=float(rng.uniform(0.0, 0.5)),
        opacity=float(rng.uniform(0.6, 1.0) * max(ranges.strength)),
        halo=float(rng.choice([0.0, -1.0, 1.0], p=[0.3, 0.35, 0.35]) * rng.uniform(*ranges.strength) * 0.6),
        halo_nm=float(max(rng.uniform(0.05, 0.4) * size, min(spacing))),
        seed=_seed(rng),
    )


def draw_hole(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng) -> Lumps:
    """Draw a bubble or a hole of the film: round, bright, seldom dark, smaller than debris."""
    upper = max(ranges.size_nm[0], (ranges.size_nm[0] ** 2 * ranges.size_nm[1]) ** (1 / 3))
    radius = 0.5 * max(_ratio(rng, (0.6 * ranges.size_nm[0], upper)), 4 * min(spacing))
    y, x = _point(shape, spacing, rng)
    bright = rng.random() < 0.85
    return Lumps(
        kind="hole",
        lumps=((y, x, radius * float(rng.uniform(1.0, 1.8)), radius, float(rng.uniform(0, np.pi))),),
        ragged=float(rng.uniform(0.0, 0.35)),
        soft=float(rng.uniform(0.05, 0.3)),
        fill=float(rng.uniform(0.7, 1.0) if bright else rng.uniform(-1.0, -0.8)),
        texture=float(rng.uniform(0.0, 0.15)),
        relief=0.0,
        opacity=float(rng.uniform(0.75, 1.0)),
        halo=float(rng.uniform(-0.3, 0.1)),
        halo_nm=float(max(0.15 * radius, min(spacing))),
        seed=_seed(rng),
    )


def draw_stain(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng) -> Stain:
    """Draw precipitate: a cloud, grains, or both; one time in three the grains are needles."""
    radius = 0.5 * max(_ratio(rng, ranges.size_nm), 6 * min(spacing))
    what = rng.choice(3)
    needle = _ratio(rng, (4.0, 15.0)) if rng.random() < 1 / 3 else _ratio(rng, (1.0, 1.8))
    grain = max(_ratio(rng, (12.0, 90.0)), 1.2 * min(spacing))
    return Stain(
        point_nm=_point(shape, spacing, rng),
        radius_nm=radius,
        cloud=0.0 if what == 1 else float(rng.uniform(*ranges.strength) * 1.6),
        grains=0 if what == 0 else int(rng.integers(5, 90)),
        grain_nm=grain,
        needle=needle,
        density=float(rng.uniform(*ranges.strength) * 3.0),
        seed=_seed(rng),
    )


def draw_charging(ranges: Ranges, shape: tuple[int, int], spacing: Spacing, rng: Rng) -> Charging:
    """Draw a glow, four times in five bright, with streaks along the scan lines that start there."""
    radius = 0.5 * max(_ratio(rng, ranges.size_nm), 20 * min(spacing))
    strength = rng.uniform(*ranges.strength)
    return Charging(
        point_nm=_point(shape, spacing, rng),
        radius_nm=radius,
        glow=float(strength * (1.1 if rng.random() < 0.8 else -0.9)),
        streak=float(strength * rng.uniform(0.1, 0.5)),
        line_nm=float(max(_ratio(rng, (10.0, 120.0)), min(spacing))),
        tail_nm=float(radius * _ratio(rng, (1.0, 8.0))),
        along_y=bool(rng.random() < 0.5),
        backwards=bool(rng.random() < 0.5),
        seed=_seed(rng),
    )


DRAWS: Mapping[Kind, Draw] = {
    "fold": draw_fold,
    "crack": draw_crack,
    "scratch": draw_scratch,
    "debris": draw_debris,
    "hole": draw_hole,
    "stain": draw_stain,
    "charging": draw_charging,
    "missing": draw_missing,
    "blur": draw_blur,
    "shift": draw_shift,
    "low_contrast": draw_faint,
}
