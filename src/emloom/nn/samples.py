"""From volumes to network inputs and targets, one sample at a time.

The same class serves training (a fresh plan per index) and validation (a fixed list of boxes, nothing changed),
so both see the same preprocessing and the same targets; prediction uses the same preprocessing object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.io.volume import read_padded
from emloom.nn.augment import (
    AugmentSpec,
    SamplePlan,
    apply_geometry,
    apply_intensity,
    draw_plan,
    interchangeable_orders,
    rng_of,
)
from emloom.nn.crops import LabelledVolume, draw_box, read_labels
from emloom.nn.model import ModelSpec
from emloom.nn.objectives.neurons import to_tensors

Sample = tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]


@dataclass(frozen=True)
class CropShape:
    """Network input and output of one sample; the output is centred in the input."""

    input: Vec
    output: Vec

    @property
    def margin(self) -> Vec:
        """Voxels of input beyond the output on each side."""
        z, y, x = ((i - o) // 2 for i, o in zip(self.input, self.output, strict=True))
        return (z, y, x)


class SampleMaker:
    """Turns a plan into a sample; pure, and safe to send to a worker."""

    def __init__(self, model: ModelSpec, volumes: Sequence[LabelledVolume], crop: CropShape) -> None:
        self.model = model
        self.volumes = tuple(volumes)
        self.crop = crop
        for volume in self.volumes:
            require_voxel_size(model, volume.raw.info.grid.voxel_size_nm, volume.raw.info.source)

    def make(self, plan: SamplePlan, augment: bool) -> Sample:
        """Return (raw ``[1, Z, Y, X]``, targets by head)."""
        volume = self.volumes[plan.source]
        grid = volume.raw.info.grid
        output = Box(plan.start, self.crop.output)
        raw = self.model.preprocessing(read_padded(volume.raw, output.grow(self.crop.margin)))
        context = self.model.objective.context_vox(grid)
        labels, known = read_labels(volume, output.grow(context))
        raw, labels, known = (_moved(plan, array) for array in (raw, labels, known))
        if augment:
            raw = apply_intensity(plan, raw)
        inner = Box(context, self.crop.output)
        targets = self.model.objective.targets(labels, known, inner, grid)
        return torch.from_numpy(raw[None].copy()), to_tensors(targets)


def _moved(plan: SamplePlan, array: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(apply_geometry(plan, array))


class TrainingSamples(Dataset[Sample]):
    """Sample ``index`` of a run: the same bytes for any number of workers, in any order, after any resume."""

    def __init__(self, maker: SampleMaker, augment: AugmentSpec, seed: int, count: int) -> None:
        self.maker = maker
        self.augment = augment
        self.seed = seed
        self.count = count
        weights = np.array([volume.weight for volume in maker.volumes], float)
        self._shares = np.cumsum(weights / weights.sum())
        self._contexts = [maker.model.objective.context_vox(v.raw.info.grid) for v in maker.volumes]

    def __len__(self) -> int:
        return self.count

    def plan(self, index: int) -> SamplePlan:
        """Draw every decision of sample `index`."""
        rng = rng_of(self.seed, 0, index)
        source = int(np.searchsorted(self._shares, rng.random(), side="right").clip(0, len(self._shares) - 1))
        volume = self.maker.volumes[source]
        box = draw_box(volume, self.maker.crop.output, rng)
        crop, spacing_nm = self.maker.crop, volume.raw.info.grid.voxel_size_nm
        orders = interchangeable_orders(crop.input, crop.output, self._contexts[source], spacing_nm)
        return draw_plan(self.augment, rng, source, box.start, orders)

    def __getitem__(self, index: int) -> Sample:
        return self.maker.make(self.plan(index), augment=True)


class ValidationSamples(Dataset[Sample]):
    """Every crop of a fixed cover of the validation boxes, unchanged."""

    def __init__(self, maker: SampleMaker, boxes: Sequence[tuple[int, Box]]) -> None:
        self.maker = maker
        self.plans = [
            SamplePlan(source, start) for source, box in boxes for start in cover(box, maker.crop.output)
        ]

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> Sample:
        return self.maker.make(self.plans[index], augment=False)


def cover(box: Box, shape: Vec) -> list[Vec]:
    """Return starts of boxes of `shape` that cover `box`, the last ones pushed back inside.

    Raises:
        InputError: the box is smaller than the shape.
    """
    if any(n < s for n, s in zip(box.shape, shape, strict=True)):
        raise InputError(f"{box} is smaller than the crop {shape} (z, y, x): use a smaller crop_shape_vox")
    axes = [
        sorted({min(start, a + n - s) for start in range(a, a + n, s)})
        for a, n, s in zip(box.start, box.shape, shape, strict=True)
    ]
    return [(z, y, x) for z, y, x in product(*axes)]


def require_voxel_size(model: ModelSpec, voxel_size_nm: tuple[float, float, float], source: str) -> None:
    """Raise `InputError` unless a volume has the voxel size the model was made for (1 % tolerance)."""
    pairs = zip(model.voxel_size_nm, voxel_size_nm, strict=True)
    if any(abs(a - b) > 0.01 * a for a, b in pairs):
        raise InputError(
            f"{source} has voxel size {voxel_size_nm} nm but the model was made for {model.voxel_size_nm} nm "
            "(z, y, x): resample the volume or train a model at its voxel size"
        )
