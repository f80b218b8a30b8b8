"""From volumes to network inputs and targets, one sample at a time.

The same class serves training (a fresh plan per index) and validation (a fixed list of boxes, nothing changed),
so both see the same preprocessing and the same targets; prediction uses the same preprocessing object.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Protocol

import numpy as np
from torch.utils.data import Dataset

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.box import add
from emloom.io.volume import Array, Volume, borrow, read_padded
from emloom.nn.augment import AugmentSpec
from emloom.nn.crops import TrainingVolume, read_labels
from emloom.nn.draw import Frame, Streams, draw_plan, widest_read
from emloom.nn.library import Library
from emloom.nn.model import ModelSpec
from emloom.nn.objectives.base import Rendered, Sample
from emloom.nn.patchsampling import sampler_of
from emloom.nn.plan import SamplePlan
from emloom.nn.render import Geometry, finish_raw, label_part, raw_part, spoils
from emloom.nn.sampling import Draw
from emloom.nn.samplingreport import SamplingReport, survey
from emloom.nn.strategies import SamplingSpec
from emloom.ops.resample import gather


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

    def __init__(
        self,
        model: ModelSpec,
        volumes: Sequence[TrainingVolume],
        crop: CropShape,
        library: Library | None = None,
    ) -> None:
        self.model = model
        self.volumes = tuple(volumes)
        self.crop = crop
        self.library = library
        for volume in self.volumes:
            require_voxel_size(model, volume.raw.info.grid.voxel_size_nm, volume.raw.info.source)
            if volume.labels is None and model.objective.needs_labels:
                raise InputError(
                    f"{volume.raw.info.source} has no labels, and the objective {model.objective.kind!r} learns "
                    "from labels: name them, or leave this volume out"
                )

    def frame(self, source: int) -> Frame:
        """Return the frame of samples of a volume: output, and the larger of margin and context around it."""
        grid = self.volumes[source].raw.info.grid
        reach = [max(a, b) for a, b in zip(self._seen(source), self._context(source), strict=True)]
        return Frame(self.crop.output, (reach[0], reach[1], reach[2]), grid.voxel_size_nm)

    def render(self, plan: SamplePlan, held_out: bool = False, within: Box | None = None) -> Rendered:
        """Carry out a plan: raw and labels, moved together.

        Labels of held-out boxes count only if `held_out`, and only those `within` a box if there is one.
        """
        volume, frame = self.volumes[plan.source], self.frame(plan.source)
        geometry = Geometry.of(plan, frame)
        output = Box(frame.reach, frame.output)
        raw_box, label_box = output.grow(self._seen(plan.source)), output.grow(self._context(plan.source))
        span = (self.model.preprocessing.low, self.model.preprocessing.high)
        raw, labels, known = gather(
            geometry.mapping,
            raw_part(plan, geometry, raw_box, lambda box: _raw(volume.raw, box), span),
            label_part(geometry, label_box, lambda box: read_labels(volume, box, held_out, within)),
        )
        clean = raw.copy() if spoils(plan) else raw
        finish_raw(plan, raw, raw_box, self.library)
        inner = output.shift([-v for v in label_box.start])
        return Rendered(raw, clean, labels, known, inner)

    def make(self, plan: SamplePlan, held_out: bool = False, seed: int = 0, within: Box | None = None) -> Sample:
        """Return (input ``[1, Z, Y, X]``, targets by head); see `render`. `seed` is of what objectives draw."""
        grid = self.volumes[plan.source].raw.info.grid
        return self.model.objective.sample(replace(self.render(plan, held_out, within), seed=seed), grid)

    def _seen(self, source: int) -> Vec:
        """Return the voxels of raw beyond the output: the network's margin, and what the objective asks for."""
        more = self.model.objective.surround_vox(self.volumes[source].raw.info.grid)
        return add(self.crop.margin, more)

    def _context(self, source: int) -> Vec:
        return self.model.objective.context_vox(self.volumes[source].raw.info.grid)


def _raw(volume: Volume, box: Box) -> Array:
    raw = borrow(volume, box) if volume.info.box.contains(box) else read_padded(volume, box)
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        raise InputError(
            f"{volume.info.source} holds NaN or infinite values in {box}: replace them, or import it again"
        )
    return raw


class Drawing(Protocol):
    """How samples are drawn; a `TrainingSpec` says so."""

    @property
    def seed(self) -> int:
        """Of all randomness."""

    @property
    def sampling(self) -> SamplingSpec:
        """Which crops."""

    @property
    def augment(self) -> AugmentSpec:
        """What happens to them."""


class TrainingSamples(Dataset[Sample]):
    """Sample ``index`` of a run: the same bytes for any number of workers, in any order, after any resume."""

    def __init__(self, maker: SampleMaker, how: Drawing, count: int) -> None:
        self.maker = maker
        self.how = how
        self.count = count
        self._frames = [maker.frame(source) for source in range(len(maker.volumes))]
        for volume, frame in zip(maker.volumes, self._frames, strict=True):
            require_room(how.augment, volume.raw, frame)
        self.sampler = sampler_of(maker.volumes, how.sampling, maker.crop.output)

    def __len__(self) -> int:
        return self.count

    def plan(self, index: int) -> SamplePlan:
        """Draw every decision of sample `index`."""
        streams = Streams(self.how.seed, 0, index)
        draw = self.sampler.draw(streams.of("place"), self._done(index))
        frame = self._frames[draw.source]
        return draw_plan(self.how.augment, streams, draw.source, draw.start, frame, self.maker.library)

    def survey(self, indices: Iterable[int], look_every: int = 0) -> SamplingReport:
        """Return the report of what these samples draw; see `emloom.nn.samplingreport.survey`."""

        def draw(index: int) -> Draw:
            return self.sampler.draw(Streams(self.how.seed, 0, index).of("place"), self._done(index))

        return survey(self.sampler, draw, indices, look_every)

    def _done(self, index: int) -> float:
        """Return the share of the training that is done at a sample."""
        return index / self.count

    def __getitem__(self, index: int) -> Sample:
        seed = int(Streams(self.how.seed, 0, index).of("objective").integers(2**63))
        return self.maker.make(self.plan(index), seed=seed)


def require_room(augment: AugmentSpec, raw: Volume, frame: Frame) -> None:
    """Raise `InputError` where a deformed sample needs more voxels within a section than the volume has."""
    if augment.affine is None and augment.elastic is None and augment.sections.slip + augment.sections.shift == 0:
        return
    needed, there = widest_read(augment, frame), raw.info.shape[1:]
    if any(n > m for n, m in zip(needed, there, strict=True)):
        raise InputError(
            f"a sample of {frame.shape} voxels can need {needed} voxels (y, x) of {raw.info.source} after "
            f"rotation, scaling and displacement, and it has {there}: use a smaller crop or milder geometry"
        )


class ValidationSamples(Dataset[Sample]):
    """Crops of validation boxes, unchanged; see `emloom.nn.validation` for which.

    Args:
        maker: makes samples.
        plans: which crops.
        within: of every crop the box in which voxels count, None where all do; default: all of all crops.
    """

    def __init__(
        self, maker: SampleMaker, plans: Sequence[SamplePlan], within: Sequence[Box | None] | None = None
    ) -> None:
        self.maker = maker
        self.plans = tuple(plans)
        self.within = (None,) * len(self.plans) if within is None else tuple(within)

    def __len__(self) -> int:
        return len(self.plans)

    def __getitem__(self, index: int) -> Sample:
        return self.maker.make(self.plans[index], held_out=True, seed=index, within=self.within[index])


def cover(box: Box, shape: Vec) -> list[Vec]:
    """Return starts of boxes of `shape` that cover `box`, the last ones pushed back inside.

    Raises:
        InputError: the box is smaller than the shape.
    """
    if any(n < s for n, s in zip(box.shape, shape, strict=True)):
        raise InputError(
            f"{box} is smaller than the crop {shape} (z, y, x): use a smaller crop_shape_vox or a larger box"
        )
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
