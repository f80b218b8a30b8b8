"""What a training is checked with, and the one number that says how good it is.

Crops cover the validation boxes, so every known voxel counts; those without a known voxel are left out. The loss
is the mean over crops, each weighted by its known voxels. For losses that are means over voxels, with classes of
equal weight, that is the mean over the known voxels, however few of a crop are labelled (where crops overlap at
the far end of a box, voxels count twice). A crop reaches beyond a painted plane that is thinner, and there into
others: of what it shows, only the voxels of its own box count.

A centre-voxel network is trained on patches of one answer, of which a box holds thousands. It is validated on
dense crops instead, with the same numbers; one that pads with zeros, and so answers patch by patch, and one that
is asked for hidden centres, on patches around `PATCHES` known voxels, drawn once and for all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, DataLoader

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.box import as_vec
from emloom.geometry.tiling import cells
from emloom.nn.crops import read_labels
from emloom.nn.model import Network
from emloom.nn.objectives.base import Sample, TargetTensors, Validated
from emloom.nn.objectives.reconstruction import HiddenCentre, ReconstructionObjective
from emloom.nn.objectives.semantic import SemanticObjective
from emloom.nn.painted import PaintedVolume
from emloom.nn.plan import SamplePlan
from emloom.nn.samples import CropShape, SampleMaker, ValidationSamples, cover
from emloom.nn.voxelnets import VoxelNet

PATCHES = 1024
"""Patches that a centre-voxel network which pads is validated on."""

_BATCH = 64  # of them
_DENSE = 32  # answers along an axis of a dense crop, at most (unless training crops are larger)
_READ = 128  # voxels per axis of one read of labels
_LOOKED_AT = 8  # samples of a validation that pictures are made of

Boxes = Sequence[tuple[int, Box]]
"""Index of a volume, and a box in it."""


@dataclass(frozen=True)
class Checks:
    """The samples of a validation, the same every time, and the pictures and loss they give."""

    samples: DataLoader[Sample]

    @property
    def count(self) -> int:
        """How many samples a validation looks at."""
        return len(self.samples.dataset)  # type: ignore[arg-type]

    @classmethod
    def of(cls, maker: SampleMaker, network: Network, boxes: Boxes) -> Checks:
        """Return the checks of a training; see the module.

        Args:
            maker: makes training samples.
            network: what is trained.
            boxes: the validation boxes.

        Raises:
            InputError: a box is smaller than a crop, or no voxel of the boxes has a class.
        """
        if not isinstance(network, VoxelNet):
            parts, batch = [_covered(maker, boxes)], 1
        elif network.convertible and not _asks_for_one(maker.model.objective):
            parts, batch = [_covered(_dense(maker, network, box), [(source, box)]) for source, box in boxes], 1
        else:
            one = maker.crop.output if _asks_for_one(maker.model.objective) else (1, 1, 1)
            parts, batch = [_patches(_with_crop(maker, network, one), boxes)], _BATCH
        if not any(map(len, parts)):
            raise InputError(
                f"in the {len(boxes)} validation boxes no voxel has a known class, so nothing can be "
                "validated: move them to where labels are, or label something in them"
            )
        return cls(DataLoader(ConcatDataset([part for part in parts if len(part)]), batch_size=batch))

    def run(self, fabric: Fabric, network: Network, objective: Any, step: int) -> tuple[float, list[Validated]]:
        """Return the mean loss of a network in ``eval``, and some samples to look at, all of one shape.

        Raises:
            InputError: nothing is known in any crop.
        """
        losses: list[float] = []
        counts: list[int] = []
        seen: list[Validated] = []
        with torch.no_grad():
            for raw, targets in self.samples:
                count = known_voxels(targets)
                if not count:
                    continue
                raw, targets = fabric.to_device((raw, targets))
                with fabric.autocast():
                    answers = network(raw)
                    losses.append(float(objective.loss(answers, targets, step)[0]))
                counts.append(count)
                if not seen or (len(seen) < _LOOKED_AT and raw.shape == seen[0].raw.shape):
                    seen.append(Validated(raw, answers, targets))
        if not losses:
            raise InputError("nothing is known in any validation crop: move the boxes to where labels are")
        weighted = math.fsum(loss * count for loss, count in zip(losses, counts, strict=True))
        return weighted / sum(counts), seen


def known_voxels(targets: TargetTensors) -> int:
    """Return at how many positions a target says anything, of the head that says most."""
    return max(int((weight > 0).any(dim=1).sum()) for _, weight in targets.values())


def _covered(maker: SampleMaker, boxes: Boxes) -> ValidationSamples:
    """Return the crops that cover the boxes; of classes, those in which one is known."""
    shape = maker.crop.output
    made = [
        (SamplePlan(source=source, start=start), box if _is_thin(box, shape) else None)
        for source, box in boxes
        for start in _starts(maker, source, box)
        if not isinstance(maker.model.objective, SemanticObjective)
        or _has_class(maker, source, Box(start, shape), box).any()
    ]
    return ValidationSamples(maker, [plan for plan, _ in made], [within for _, within in made])


def _starts(maker: SampleMaker, source: int, box: Box) -> list[Vec]:
    """Return the starts of crops that cover a box; unless its labels are painted, it is no smaller than one."""
    shape = maker.crop.output
    if not isinstance(maker.volumes[source].labels, PaintedVolume):
        return cover(box, shape)
    grown = as_vec([max(n, s) for n, s in zip(box.shape, shape, strict=True)])
    start = as_vec([a - (g - n) // 2 for a, g, n in zip(box.start, grown, box.shape, strict=True)])
    return cover(Box(start, grown), shape)


def _is_thin(box: Box, shape: Vec) -> bool:
    return any(n < s for n, s in zip(box.shape, shape, strict=True))


def _has_class(maker: SampleMaker, source: int, box: Box, within: Box | None = None) -> NDArray[np.bool_]:
    """Return which voxels of a box teach something, all where nothing is labelled: bool ZYX."""
    if not maker.model.objective.needs_labels:
        return np.ones(box.shape, bool)
    labels, known = read_labels(maker.volumes[source], box, True, within)
    taught = np.ones(box.shape, bool) if known.size == 0 else known != 0
    objective = maker.model.objective
    return taught & objective.teaches(labels) if isinstance(objective, SemanticObjective) else taught


def _with_crop(maker: SampleMaker, network: VoxelNet, output: Vec) -> SampleMaker:
    return SampleMaker(maker.model, maker.volumes, CropShape(network.input_shape(output), output), maker.library)


def _dense(maker: SampleMaker, network: VoxelNet, box: Box) -> SampleMaker:
    pairs = zip(box.shape, maker.crop.output, strict=True)
    return _with_crop(maker, network, as_vec([min(n, max(wanted, _DENSE)) for n, wanted in pairs]))


def _asks_for_one(objective: Any) -> bool:
    """Whether only the middle of a window is asked for: a dense crop has but one."""
    return isinstance(objective, ReconstructionObjective) and isinstance(objective.corruption, HiddenCentre)


def _patches(maker: SampleMaker, boxes: Boxes) -> ValidationSamples:
    """Return patches around known voxels, a uniform draw: of random keys, the smallest are kept."""
    rng = np.random.default_rng(0)
    keys, places = np.zeros(0), np.zeros((0, 4), np.int64)
    for source, voxels in _known_places(maker, boxes):
        keys = np.concatenate([keys, rng.random(len(voxels))])
        places = np.concatenate([places, np.insert(voxels, 0, source, axis=1)])
        if len(keys) > PATCHES:
            kept = np.sort(np.argpartition(keys, PATCHES)[:PATCHES])
            keys, places = keys[kept], places[kept]
    starts = places - [0, *(n // 2 for n in maker.crop.output)]
    return ValidationSamples(maker, [SamplePlan(source=k, start=(z, y, x)) for k, z, y, x in starts.tolist()])


def _known_places(maker: SampleMaker, boxes: Boxes) -> Iterator[tuple[int, NDArray[np.int64]]]:
    for source, box in boxes:
        for _, part in cells(box, _READ):
            yield source, np.argwhere(_has_class(maker, source, part)) + part.start
