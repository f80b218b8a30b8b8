"""What `emloom check` proves about any training, whatever its objective.

* split: how many training crops there are, and whether the gap covers what targets and deformed samples look at;
* room: a deformed sample fits into its volume; library: artifacts fit the data;
* sampling: what crops hold; validation: its boxes hold crops, and something is known in them;
* parity: the same voxels through the training loader and through tiled prediction give the same numbers;
* cost: seconds and memory of a training step, measured here, times the number of steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import psutil
import torch

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.volume import Volume
from emloom.nn.augment import ELASTIC_REACH_SIGMAS, AugmentSpec
from emloom.nn.coding import coding_of
from emloom.nn.crops import TrainingVolume, possible_starts
from emloom.nn.draw import Frame, Streams, widest_read
from emloom.nn.hardware import Hardware
from emloom.nn.model import ModelSpec, Network, build
from emloom.nn.objectives.reconstruction import ReconstructionObjective
from emloom.nn.patchnet import PatchNet
from emloom.nn.patchparity import check_patches
from emloom.nn.patchsampling import sampler_of
from emloom.nn.plan import SamplePlan
from emloom.nn.predict import Predictor, predict
from emloom.nn.reconstruct import Reconstructor
from emloom.nn.samples import CropShape, SampleMaker, require_room
from emloom.nn.samplingreport import survey
from emloom.nn.train import TrainingSpec, crop_shape
from emloom.nn.validation import Checks
from emloom.nn.voxelnets import VoxelNet
from emloom.tasks.heads import blank, codings, output_info
from emloom.tasks.library import open_library

_SURVEYED = 64
_PATCHES = 8


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    level: Literal["ok", "warning", "error"]
    what: str
    text: str

    def to_text(self) -> str:
        """Return the line a person reads."""
        return f"{self.level:<8} {self.what:<12} {self.text}"


@dataclass(frozen=True)
class Trained:
    """What is to be trained, and on what.

    Attributes:
        model: what is learned.
        training: how.
        volumes: where crops are drawn.
        gaps_nm: distance that each keeps from its held-out boxes.
        validation: number of a volume and a box of it, for every validation box.
    """

    model: ModelSpec
    training: TrainingSpec
    volumes: tuple[TrainingVolume, ...]
    gaps_nm: tuple[float, ...]
    validation: tuple[tuple[int, Box], ...]

    @cached_property
    def network(self) -> Network:
        """The untrained network."""
        return build(self.model)

    @cached_property
    def crop(self) -> CropShape:
        """Input and output of a sample; raises `InputError` where the network cannot be shown such crops."""
        return crop_shape(self.network, self.training.crop_shape_vox)

    def findings(self) -> Iterator[Finding]:
        """Check everything that is said here."""
        yield from check_library(self)
        for number in range(len(self.volumes)):
            yield check_split(self, number)
            yield check_room(self, number)
        yield check_sampling(self)
        yield check_validation(self)
        yield check_parity(self)
        yield check_cost(self)


def check_library(this: Trained) -> Iterator[Finding]:
    """Open the artifact library, where the job names one."""
    spec, grid = this.training.augment.defects.library, this.volumes[0].raw.info.grid
    if spec is None:
        return
    try:
        library = open_library(spec, this.model.preprocessing, grid.voxel_size_nm)
    except InputError as problem:
        yield Finding("error", "library", str(problem))
        return
    count, height, width = library.images.shape
    covered = float((library.masks > 0).mean())
    text = f"{count} artifacts of {height} x {width} voxels; masks cover {covered:.0%} of them"
    yield Finding("ok", "library", text)


def check_split(this: Trained, number: int) -> Finding:
    """Count the training crops, and compare the gap with what a crop looks at."""
    volume, crop, gap_nm = this.volumes[number], this.crop, this.gaps_nm[number]
    count = possible_starts(volume, crop.output)
    reach_nm = _reach_nm(this.model, volume)
    further_nm = displacement_nm(this.training.augment, SampleMaker(this.model, [volume], crop).frame(0))
    text = f"{count:,} training crops of {crop.output} voxels; gap {gap_nm:g} nm, reach {reach_nm:g} nm"
    if further_nm > 0:
        text += f", up to {further_nm:.0f} nm more in deformed samples"
    if count == 0:
        return Finding("error", "split", f"{text}: use smaller crops, a smaller gap or fewer held-out boxes")
    unknown = "labels of held-out boxes count as unknown there, so these samples teach less"
    if gap_nm < reach_nm:
        return Finding("warning", "split", f"{text}: targets look into held-out boxes; {unknown}")
    if gap_nm < reach_nm + further_nm:
        return Finding("ok", "split", f"{text}: deformed samples can look into held-out boxes; {unknown}")
    return Finding("ok", "split", text)


def check_room(this: Trained, number: int) -> Finding:
    """Ask whether a rotated, scaled and displaced sample fits into its volume."""
    volume, augment = this.volumes[number], this.training.augment
    frame = SampleMaker(this.model, [volume], this.crop).frame(0)
    try:
        require_room(augment, volume.raw, frame)
    except InputError as problem:
        return Finding("error", "room", str(problem))
    needed, there = widest_read(augment, frame), volume.raw.info.shape[1:]
    return Finding("ok", "room", f"a sample needs at most {needed} voxels (y, x) of {there}")


def check_sampling(this: Trained) -> Finding:
    """Draw crops as training does, and say what they hold."""
    training = this.training
    try:
        sampler = sampler_of(this.volumes, training.sampling, this.crop.output)
    except InputError as problem:
        return Finding("error", "sampling", str(problem))
    seed = training.seed
    report = survey(
        sampler, lambda i: sampler.draw(Streams(seed, 0, i).of("place")), range(_SURVEYED), look_every=8
    )
    return Finding("ok", "sampling", f"{training.sampling.kind}: {report.line()}")


def check_validation(this: Trained) -> Finding:
    """Cut the validation boxes into crops as training does."""
    boxes = this.validation
    try:
        checks = Checks.of(SampleMaker(this.model, this.volumes, this.crop), this.network, boxes)
    except InputError as problem:
        return Finding("error", "validation", str(problem))
    number = "1 box" if len(boxes) == 1 else f"{len(boxes)} boxes"
    return Finding("ok", "validation", f"{number}, judged by {checks.count:,} samples each time")


def displacement_nm(augment: AugmentSpec, frame: Frame) -> float:
    """Return how far, in nm, geometry may bring a voxel from outside the frame of its sample: about, and at most.

    Elastic displacement counts up to four sigma, and one shift of sections; several shifts may add up to more.
    """
    needed = widest_read(augment, frame)
    in_plane = [
        max(0, n - m) / 2 * size for n, m, size in zip(needed, frame.shape[1:], frame.spacing_nm[1:], strict=True)
    ]
    along_z = 0.0 if augment.elastic is None else ELASTIC_REACH_SIGMAS * augment.elastic.sigma_nm[0]
    fold = augment.defects.folds
    pulled = fold.strength_nm if augment.defects.fold > 0 and fold.moves_labels else 0.0
    return max(along_z, *in_plane) + pulled


def _reach_nm(model: ModelSpec, volume: TrainingVolume) -> float:
    """Return how far targets look along the axes along which a crop can lie beside a held-out box."""
    grid, whole = volume.raw.info.grid, volume.raw.info.box
    reach = model.objective.context_vox(grid)
    parts = [box.intersect(whole).shape for box in volume.held_out]
    beside = [axis for axis in range(3) if any(shape[axis] < whole.shape[axis] for shape in parts)]
    return max((reach[axis] * grid.voxel_size_nm[axis] for axis in beside), default=0.0)


def check_parity(this: Trained) -> Finding:
    """Send the same voxels through the training loader and through tiled prediction."""
    model, network, volume = this.model, this.network, this.volumes[0]
    if isinstance(network, PatchNet):
        return _patch_parity(model, network, volume)
    lattice = network.lattice
    # A net of patches takes one patch at a time.
    whole_patch = isinstance(network, Reconstructor) and network.patch is not None
    inner = lattice if whole_patch else tuple(2 * step for step in lattice)
    # What is answered for nearer than the context to a face of the crop has seen zeros, not what prediction sees.
    spoilt = (0, 0, 0) if isinstance(network, VoxelNet) else network.context
    shape = network.input_shape(tuple(n + 2 * c for n, c in zip(inner, spoilt, strict=True)))
    crop = CropShape(shape, network.output_shape(shape))
    whole = volume.raw.info.box
    margin = tuple((o - n) // 2 for o, n in zip(crop.output, inner, strict=True))
    centre = [(n // 2 - i // 2) // step * step for n, i, step in zip(whole.shape, inner, lattice, strict=True)]
    box = Box((centre[0], centre[1], centre[2]), (inner[0], inner[1], inner[2])).intersect(whole)
    start = tuple(b - m for b, m in zip(box.start, margin, strict=True))
    maker = SampleMaker(_uncorrupted(model), [volume], crop)
    raw, _ = maker.make(SamplePlan(source=0, start=(start[0], start[1], start[2])))
    network.eval()
    head = next(iter(model.objective.heads))
    stored = codings(model, volume.raw.info)
    with torch.no_grad():
        answer = network(raw[None])[head][0]
    at = Box((margin[0], margin[1], margin[2]), box.shape).slices()
    loader = coding_of(stored, head)(answer[:, *at], head)
    output = blank(output_info(model, head, volume.raw.info, box))
    predict(Predictor(network, model.preprocessing, codings=stored), volume.raw, {head: output}, box=box)
    found = output.array.reshape(loader.shape).astype(np.float64)
    worst = float(np.abs(loader.astype(np.float64) - found).max())
    text = f"training loader and tiled prediction differ by at most {worst:.3g} in {head} on {box}"
    return Finding("ok" if worst <= _step(output) else "error", "parity", text)


def _uncorrupted(model: ModelSpec) -> ModelSpec:
    """Return a model whose training input is not made harder than what prediction sees."""
    if not isinstance(model.objective, ReconstructionObjective):
        return model
    plain = model.objective.model_copy(update={"corruption": None})
    return model.model_copy(update={"objective": plain})


def _patch_parity(model: ModelSpec, network: PatchNet, volume: TrainingVolume) -> Finding:
    found = check_patches(model, network, volume.raw, samples=_PATCHES)
    way, worst = found.worst
    text = (
        f"{found.patches} patches through the training loader, in batches, in another order and in maps: "
        f"probabilities differ by at most {worst:.2g} ({way})"
    )
    return Finding("ok" if found.holds else "error", "parity", text)


def _step(output: Volume) -> float:
    """Return the largest difference that rounding explains: one step of a stored number."""
    return 1.0 if output.info.dtype.kind in "iu" else 1e-3


def check_cost(this: Trained) -> Finding:
    """Time one training step here and extrapolate."""
    training, network = this.training, this.network
    maker = SampleMaker(this.model, this.volumes, this.crop)
    source, box = this.validation[0]
    raw, targets = maker.make(SamplePlan(source=source, start=box.start), held_out=True)
    n = training.batch_size
    batch = raw[None].repeat(n, 1, 1, 1, 1)
    wanted = {
        name: (t[None].repeat(n, 1, 1, 1, 1), w[None].repeat(n, 1, 1, 1, 1)) for name, (t, w) in targets.items()
    }
    network.train()
    precision = Hardware("cpu").precision(training.precision, network)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits = {name: answer.float() for name, answer in network(batch).items()}
        loss, _ = this.model.objective.loss(logits, wanted, 0)
        loss.backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - began)
    network.zero_grad()
    minutes = min(seconds) * training.steps / 60
    peak = psutil.Process().memory_info().rss / 2**30
    free = psutil.virtual_memory().available / 2**30
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    text = (
        f"{parameters:.1f} M parameters, {min(seconds):.2f} s per step on this processor ({precision}): about "
        f"{minutes:.0f} min for {training.steps} steps; {peak:.1f} GiB in use, {free:.1f} GiB free"
    )
    return Finding("ok", "cost", text)
