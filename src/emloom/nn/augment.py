"""Augmentation: draw, then apply, then record.

`draw_plan` takes every random decision of a sample from (seed, epoch, index) alone; the pure functions
`apply_geometry` and `apply_intensity` carry them out. The same plan gives the same bytes in any worker, in any
order, after any resume.

Geometry is exact: flips and transpositions of axes that share voxel size and extent. Intensity acts on raw only::

    raw -> clip( (raw - mean) * contrast + mean + brightness ) ^ gamma + noise
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emloom.geometry import Vec
from emloom.spec import Spec

Pair = tuple[float, float]


class AugmentSpec(Spec):
    """What may happen to a training sample; amplitudes are in units of the network's [-1, 1] range."""

    flip: bool = True
    """Mirror each axis with probability one half."""
    transpose: bool = True
    """Permute the axes that share voxel size and extent."""
    contrast: Pair = (0.75, 1.3)
    """Factor around the mean of the crop, drawn uniformly."""
    brightness: Pair = (-0.2, 0.2)
    """Added, drawn uniformly."""
    gamma: Pair = (0.75, 1.35)
    """Exponent on the range [0, 1], drawn uniformly."""
    noise: float = Field(default=0.05, ge=0)
    """Largest standard deviation of added Gaussian noise."""
    section_jitter: float = Field(default=0.0, ge=0)
    """Standard deviation of brightness per section (z), for serial sections."""


@dataclass(frozen=True)
class SamplePlan:
    """Every random decision of one training sample."""

    source: int
    start: Vec
    flips: tuple[bool, bool, bool] = (False, False, False)
    order: Vec = (0, 1, 2)
    contrast: float = 1.0
    brightness: float = 0.0
    gamma: float = 1.0
    noise: float = 0.0
    section_jitter: float = 0.0
    noise_seed: int = 0


def rng_of(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Return the generator that belongs to one sample: a counter-based stream keyed by its coordinates."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, index])))


def interchangeable_orders(*properties: Sequence[float]) -> list[Vec]:
    """Return the axis permutations that change none of the per-axis properties (extents, voxel size, ...)."""
    return [
        (z, y, x)
        for z, y, x in permutations(range(3))
        if all((p[z], p[y], p[x]) == (p[0], p[1], p[2]) for p in properties)
    ]


def draw_plan(
    spec: AugmentSpec, rng: np.random.Generator, source: int, start: Vec, orders: list[Vec]
) -> SamplePlan:
    """Draw every decision of one sample; the number of draws never depends on their outcome."""
    flips = rng.random(3) < 0.5
    order = orders[int(rng.integers(len(orders)))]
    contrast, brightness, gamma = (rng.uniform(*pair) for pair in (spec.contrast, spec.brightness, spec.gamma))
    noise = rng.uniform(0.0, spec.noise)
    noise_seed = int(rng.integers(2**63))
    return SamplePlan(
        source,
        start,
        (bool(flips[0]), bool(flips[1]), bool(flips[2])) if spec.flip else (False, False, False),
        order if spec.transpose else (0, 1, 2),
        float(contrast),
        float(brightness),
        float(gamma),
        float(noise),
        spec.section_jitter,
        noise_seed,
    )


def apply_geometry(plan: SamplePlan, array_ZYX: NDArray[Any]) -> NDArray[Any]:
    """Return the array transposed, then flipped, as the plan says (a view where numpy allows)."""
    moved = array_ZYX.transpose(plan.order)
    z, y, x = (slice(None, None, -1) if flip else slice(None) for flip in plan.flips)
    return moved[z, y, x]


def apply_intensity(plan: SamplePlan, raw_ZYX: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the raw crop (values about [-1, 1]) with contrast, brightness, gamma and noise of the plan."""
    rng = np.random.Generator(np.random.Philox(plan.noise_seed))
    mean = np.float32(raw_ZYX.mean())
    out = (raw_ZYX - mean) * np.float32(plan.contrast) + mean + np.float32(plan.brightness)
    if plan.section_jitter:
        jitter = rng.normal(0.0, plan.section_jitter, size=(raw_ZYX.shape[0],)).astype(np.float32)
        out += jitter[:, None, None]
    unit = np.clip(out * np.float32(0.5) + np.float32(0.5), 0.0, 1.0)
    out = np.power(unit, np.float32(plan.gamma)) * np.float32(2.0) - np.float32(1.0)
    if plan.noise:
        out += rng.standard_normal(raw_ZYX.shape, dtype=np.float32) * np.float32(plan.noise)
    return np.ascontiguousarray(out, dtype=np.float32)
