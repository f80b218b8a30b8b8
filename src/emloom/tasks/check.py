"""`emloom check`: prove that data and job fit together before an hour is spent.

* labels: disconnected ids, tiny ids, empty or repeated sections;
* orientation: does the voxel size agree with how fast the image changes along each axis, and do the labels fit the
  image better as they are than flipped or transposed;
* split: how many training crops there are, and whether the gap covers what targets and deformed samples look at;
* room: a deformed sample fits into its volume; library: artifacts fit the data;
* oracle: ground truth -> targets -> decoder must give the ground truth back;
* parity: the same voxels through the training loader and through tiled prediction give the same numbers;
* cost: seconds and memory of a training step, measured here, times the number of steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, Literal

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.io.volume import Volume
from emloom.metrics.overlap import overlap_scores, worst_objects
from emloom.nn.augment import ELASTIC_REACH_SIGMAS, AugmentSpec
from emloom.nn.crops import possible_starts
from emloom.nn.draw import Frame, Streams, widest_read
from emloom.nn.hardware import Hardware
from emloom.nn.model import ModelSpec, Network, build
from emloom.nn.plan import SamplePlan
from emloom.nn.predict import Predictor, predict
from emloom.nn.samples import CropShape, SampleMaker, require_room
from emloom.nn.sampling import CropSampler
from emloom.nn.samplingreport import survey
from emloom.nn.train import crop_shape
from emloom.ops.labels import grow_boundary, label_report, split_disconnected
from emloom.tasks.data import HeldOut, Stack, held_out, open_stack
from emloom.tasks.evaluate import truth_in
from emloom.tasks.heads import blank, output_info
from emloom.tasks.job import NeuronsJob
from emloom.tasks.library import library_of
from emloom.tasks.segment import grow_tree

_ORACLE_WARN_BITS, _ORACLE_ERROR_BITS = 0.1, 1.0
_PROBE_VOX = 128
_TINY_VOX = 50
_SURVEYED = 64
_LARGEST_LABELS = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was checked."""

    level: Literal["ok", "warning", "error"]
    what: str
    text: str

    def to_text(self) -> str:
        """Return the line a person reads."""
        return f"{self.level:<8} {self.what:<12} {self.text}"


def check(job: NeuronsJob) -> list[Finding]:
    """Return every finding about a job; raises `InputError` only where the data cannot be opened at all."""
    stacks = [open_stack(spec) for spec in job.data]
    return list(_findings(job, stacks))


def _findings(job: NeuronsJob, stacks: list[Stack]) -> Iterator[Finding]:
    model = job.model(stacks[0].raw.info.grid.voxel_size_nm)
    network = build(model)
    crop = crop_shape(network, job.training.crop_shape_vox)
    yield from check_library(job, stacks[0])
    for stack in stacks:
        yield from check_labels(stack.labels)
        yield check_voxel_size(stack.raw)
        yield check_orientation(stack.raw, stack.labels)
        yield check_split(model, stack, crop, job.training.augment)
        yield check_room(model, stack, crop, job.training.augment)
    yield check_sampling(job, stacks, crop)
    yield from check_oracle(job, stacks)
    yield check_parity(model, network, stacks[0])
    yield check_cost(job, model, network, stacks)


def check_labels(labels: Volume) -> list[Finding]:
    """Look for disconnected and tiny ids, and for sections without labels or equal to the one before."""
    info = labels.info
    box = info.box if info.nbytes <= _LARGEST_LABELS else _centre(info.box, (256, 512, 512))
    report = label_report(labels.read(box), _TINY_VOX)
    problems = [
        (report.disconnected_ids, f"{len(report.disconnected_ids)} of {report.ids} ids fall into several pieces"),
        (report.tiny_ids, f"{len(report.tiny_ids)} of {report.ids} ids have fewer than {_TINY_VOX} voxels"),
        (report.empty_sections, "sections without any label (z)"),
        (report.repeated_sections, "sections equal to the one before (z)"),
    ]
    findings = [Finding("warning", "labels", f"{text}, e.g. {_few(which)}") for which, text in problems if which]
    if not report.ids:
        findings.append(Finding("error", "labels", f"{info.source} holds no id but 0 in {box}"))
    return findings or [Finding("ok", "labels", f"{report.ids} ids, each one piece; no empty section")]


def _few(values: Sequence[int]) -> str:
    return ", ".join(str(v) for v in values[:6]) + (", ..." if len(values) > 6 else "")


def check_voxel_size(raw: Volume) -> Finding:
    """Compare the voxel size with how fast the image changes along each axis."""
    image = raw.read(_centre(raw.info.box, (_PROBE_VOX,) * 3)).astype(np.float32)
    size = raw.info.grid.voxel_size_nm
    change = [float(np.abs(np.diff(image, axis=a)).mean()) if image.shape[a] > 1 else 0.0 for a in range(3)]
    text = "mean grey-level change per voxel along z, y, x: " + ", ".join(f"{c:.1f}" for c in change)
    text += f"; voxel size {size} nm"
    coarse, steep = int(np.argmax(size)), int(np.argmax(change))
    if max(size) > 1.5 * min(size) and coarse != steep:
        axes = "zyx"
        return Finding(
            "warning",
            "voxel size",
            f"{text}: the coarsest axis is {axes[coarse]}, but {axes[steep]} changes fastest",
        )
    if max(size) <= 1.5 * min(size) and max(change) > 2.5 * max(min(change), 1e-6):
        return Finding("warning", "voxel size", f"{text}: an isotropic stack should change alike along all axes")
    return Finding("ok", "voxel size", text)


def check_orientation(raw: Volume, labels: Volume) -> Finding:
    """Ask whether flipped or transposed labels would lie on the image's membranes better than the given ones."""
    side = min(_PROBE_VOX, *raw.info.shape[1:])
    box = _centre(raw.info.box, (min(_PROBE_VOX, raw.info.shape[0]), side, side))
    image, ids = raw.read(box).astype(np.float32), labels.read(box)
    scores = {name: _membrane_contrast(image, moved) for name, moved in _orientations(ids)}
    given, error = scores.pop("as given")
    best = max(scores, key=lambda name: scores[name][0])
    gain = scores[best][0] - given
    text = f"membranes are darker than interiors by {given:.1f} grey levels as given, {scores[best][0]:.1f} {best}"
    # The best of 47 wrong orientations of pure noise lies about three standard errors above the mean.
    if gain > max(0.1 * abs(given), 6.0 * error):
        return Finding("error", "orientation", f"{text}: the labels seem to be {best}; transpose or flip them")
    return Finding("ok", "orientation", text)


def _orientations(ids: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    for order in permutations(range(3)):
        moved = ids.transpose(order)
        if moved.shape != ids.shape:
            continue
        for flips in product((False, True), repeat=3):
            flipped = "".join(axis for axis, flip in zip("zyx", flips, strict=True) if flip)
            parts = [
                "" if order == (0, 1, 2) else "transposed to " + "".join("zyx"[o] for o in order),
                f"flipped along {flipped}" if flipped else "",
            ]
            name = " and ".join(part for part in parts if part) or "as given"
            yield name, moved[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]


def _membrane_contrast(image: NDArray[np.float32], ids: NDArray[Any]) -> tuple[float, float]:
    """Return how much darker in-plane label borders are than the inside, and the standard error of that."""
    border = np.zeros(ids.shape, bool)
    for axis in (1, 2):  # in-plane borders: they exist in every stack, however thick its sections
        differs = np.diff(ids, axis=axis) != 0
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        border[tuple(low)] |= differs
        border[tuple(high)] |= differs
    inside = ~border & (ids != 0)
    if not border.any() or not inside.any():
        return 0.0, 0.0
    error = float(image.std() * np.sqrt(1 / inside.sum() + 1 / border.sum()))
    return float(image[inside].mean() - image[border].mean()), error


def check_library(job: NeuronsJob, stack: Stack) -> Iterator[Finding]:
    """Open the artifact library, where the job names one."""
    try:
        library = library_of(job, stack.raw.info.grid.voxel_size_nm)
    except InputError as problem:
        yield Finding("error", "library", str(problem))
        return
    if library is not None:
        count, height, width = library.images.shape
        covered = float((library.masks > 0).mean())
        text = f"{count} artifacts of {height} x {width} voxels; masks cover {covered:.0%} of them"
        yield Finding("ok", "library", text)


def check_room(model: ModelSpec, stack: Stack, crop: CropShape, augment: AugmentSpec) -> Finding:
    """Ask whether a rotated, scaled and displaced sample fits into its volume."""
    frame = SampleMaker(model, [stack.labelled], crop).frame(0)
    try:
        require_room(augment, stack.raw, frame)
    except InputError as problem:
        return Finding("error", "room", str(problem))
    needed, there = widest_read(augment, frame), stack.raw.info.shape[1:]
    return Finding("ok", "room", f"a sample needs at most {needed} voxels (y, x) of {there}")


def check_split(model: ModelSpec, stack: Stack, crop: CropShape, augment: AugmentSpec) -> Finding:
    """Count the training crops, and compare the gap with what a crop looks at."""
    volume = stack.labelled
    count = possible_starts(volume, crop.output)
    reach_nm = _reach_nm(model, stack, volume.held_out)
    further_nm = displacement_nm(augment, SampleMaker(model, [volume], crop).frame(0))
    text = f"{count:,} training crops of {crop.output} voxels; gap {stack.spec.gap_nm:g} nm, reach {reach_nm:g} nm"
    if further_nm > 0:
        text += f", up to {further_nm:.0f} nm more in deformed samples"
    if count == 0:
        return Finding("error", "split", f"{text}: use smaller crops, a smaller gap or fewer held-out boxes")
    unknown = "labels of held-out boxes count as unknown there, so these samples teach less"
    if stack.spec.gap_nm < reach_nm:
        return Finding("warning", "split", f"{text}: targets look into held-out boxes; {unknown}")
    if stack.spec.gap_nm < reach_nm + further_nm:
        return Finding("ok", "split", f"{text}: deformed samples can look into held-out boxes; {unknown}")
    return Finding("ok", "split", text)


def check_sampling(job: NeuronsJob, stacks: list[Stack], crop: CropShape) -> Finding:
    """Draw crops as training does, and say what they hold."""
    try:
        sampler = CropSampler([stack.labelled for stack in stacks], job.training.sampling, crop.output)
    except InputError as problem:
        return Finding("error", "sampling", str(problem))
    seed = job.training.seed
    report = survey(sampler, lambda i: Streams(seed, 0, i).of("place"), range(_SURVEYED), look_every=8)
    return Finding("ok", "sampling", f"{job.training.sampling.kind}: {report.line()}")


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


def _reach_nm(model: ModelSpec, stack: Stack, held_out: tuple[Box, ...]) -> float:
    """Return how far targets look along the axes along which a crop can lie beside a held-out box."""
    grid, whole = stack.raw.info.grid, stack.raw.info.box
    reach = model.objective.context_vox(grid)
    parts = [box.intersect(whole).shape for box in held_out]
    beside = [axis for axis in range(3) if any(shape[axis] < whole.shape[axis] for shape in parts)]
    return max((reach[axis] * grid.voxel_size_nm[axis] for axis in beside), default=0.0)


def check_oracle(job: NeuronsJob, stacks: list[Stack]) -> Iterator[Finding]:
    """Decode the targets of the ground truth itself, box by box."""
    for item in held_out(job.data, "validation"):
        bits, reasons = oracle(job, stacks[item.stack], item)
        text = f"{item.name}: ground truth -> affinities -> segmentation loses {bits:.3f} bits of VOI{reasons}"
        if bits > _ORACLE_ERROR_BITS:
            yield Finding("error", "oracle", f"{text}: no network can do better with these settings")
        else:
            yield Finding("warning" if bits > _ORACLE_WARN_BITS else "ok", "oracle", text)


def oracle(job: NeuronsJob, stack: Stack, item: HeldOut) -> tuple[float, str]:
    """Return the residual VOI of decoding perfect targets, at its best threshold, and what it consists of."""
    objective, grid = job.objective, stack.raw.info.grid
    labels = split_disconnected(stack.labels.read(item.box).astype(np.uint64))
    known = np.ones(labels.shape, np.uint8)
    only_affinities = objective.model_copy(update={"variant": "affinities"})
    target, _ = only_affinities.targets(labels, known, Box.whole(labels.shape), grid)["affinities"]
    result = grow_tree(target * np.uint8(255), objective.neighborhood, grid, job.segmentation)
    truth = truth_in(stack.labels, stack.mask, item.box, 0, False)
    fragments = truth.tables(result.fragments).plain
    tables = [fragments.relabelled(result.ids, result.lut(t)) for t in job.segmentation.thresholds]
    best = min(tables, key=lambda table: overlap_scores(table).voi_sum)
    scores = overlap_scores(best)
    reasons = f": split {scores.voi_split:.3f}, merge {scores.voi_merge:.3f}"
    thin = _thin_share(labels, objective.grow_boundary_vox, objective.grow_in_plane)
    if thin > 0:
        reasons += f"; {thin:.1%} of the voxels lie in parts so thin that growing the boundary erases them"
    worst = [*worst_objects(best, "split", 1), *worst_objects(best, "merge", 1)]
    if worst:
        largest = max(worst, key=lambda error: error.bits)
        reasons += f"; the largest single error costs {largest.bits:.3f} bits"
    return scores.voi_sum, reasons


def _thin_share(labels_ZYX: NDArray[np.uint64], steps: int, in_plane: bool) -> float:
    """Return the share of labelled voxels that growing the boundary erases for good: those an opening loses."""
    if steps == 0 or not labels_ZYX.any():
        return 0.0
    kept = grow_boundary(labels_ZYX, steps, in_plane=in_plane)
    reach = 2 * steps + 1
    window = (1 if in_plane else reach, reach, reach)
    survived = np.zeros(labels_ZYX.shape, bool)
    padded = np.pad(kept, [(w // 2, w // 2) for w in window])
    for offset in product(*(range(w) for w in window)):
        at = tuple(slice(o, o + n) for o, n in zip(offset, labels_ZYX.shape, strict=True))
        survived |= padded[at] == labels_ZYX
    labelled = labels_ZYX != 0
    return float((labelled & ~survived).sum() / labelled.sum())


def check_parity(model: ModelSpec, network: Network, stack: Stack) -> Finding:
    """Send the same voxels through the training loader and through tiled prediction."""
    context, lattice = network.context, network.lattice
    inner = tuple(2 * step for step in lattice)
    shape = network.input_shape(tuple(n + 2 * c for n, c in zip(inner, context, strict=True)))
    crop = CropShape(shape, network.output_shape(shape))
    whole = stack.raw.info.box
    margin = tuple((o - n) // 2 for o, n in zip(crop.output, inner, strict=True))
    centre = [(n // 2 - i // 2) // step * step for n, i, step in zip(whole.shape, inner, lattice, strict=True)]
    box = Box((centre[0], centre[1], centre[2]), (inner[0], inner[1], inner[2])).intersect(whole)
    start = tuple(b - m for b, m in zip(box.start, margin, strict=True))
    maker = SampleMaker(model, [stack.labelled], crop)
    raw, _ = maker.make(SamplePlan(source=0, start=(start[0], start[1], start[2])))
    network.eval()
    with torch.no_grad():
        logits = network(raw[None])["affinities"][0]
    at = Box((margin[0], margin[1], margin[2]), box.shape).slices()
    loader = np.rint(torch.sigmoid(logits[:, *at]).numpy() * 255.0).astype(np.int64)
    info = output_info(model, "affinities", stack.raw.info, box)
    output = blank(info)
    predict(Predictor(network, model.preprocessing), stack.raw, {"affinities": output}, box=box)
    worst = int(np.abs(loader - output.array.astype(np.int64)).max())
    text = f"training loader and tiled prediction differ by at most {worst} of 255 on {box}"
    return Finding("ok" if worst <= 1 else "error", "parity", text)


def check_cost(job: NeuronsJob, model: ModelSpec, network: Network, stacks: list[Stack]) -> Finding:
    """Time one training step here and extrapolate."""
    crop = crop_shape(network, job.training.crop_shape_vox)
    maker = SampleMaker(model, [stack.labelled for stack in stacks], crop)
    first = held_out(job.data, "validation")[0]
    raw, targets = maker.make(SamplePlan(source=first.stack, start=first.box.start), held_out=True)
    batch = raw[None].repeat(job.training.batch_size, 1, 1, 1, 1)
    wanted = {name: (t[None], w[None]) for name, (t, w) in targets.items()}
    network.train()
    precision = Hardware("cpu").precision(job.training.precision, network)
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            logits = {name: answer.float() for name, answer in network(batch).items()}
        loss, _ = model.objective.loss(logits, wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        seconds.append(time.perf_counter() - start)
    network.zero_grad()
    minutes = min(seconds) * job.training.steps / 60
    peak = psutil.Process().memory_info().rss / 2**30
    free = psutil.virtual_memory().available / 2**30
    parameters = sum(p.numel() for p in network.parameters()) / 1e6
    text = (
        f"{parameters:.1f} M parameters, {min(seconds):.2f} s per step on this processor ({precision}): about "
        f"{minutes:.0f} min for {job.training.steps} steps; {peak:.1f} GiB in use, {free:.1f} GiB free"
    )
    return Finding("ok", "cost", text)


def _centre(box: Box, shape: Vec) -> Box:
    extent = [min(a, b) for a, b in zip(box.shape, shape, strict=True)]
    start = [s + (n - e) // 2 for s, n, e in zip(box.start, box.shape, extent, strict=True)]
    return Box((start[0], start[1], start[2]), (extent[0], extent[1], extent[2]))
