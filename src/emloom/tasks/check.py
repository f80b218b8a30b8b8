"""`emloom check`: prove that data and job fit together before an hour is spent.

* labels: disconnected ids, tiny ids, empty or repeated sections;
* orientation: does the voxel size agree with how fast the image changes along each axis, and do the labels fit the
  image better as they are than flipped or transposed;
* oracle: ground truth -> targets -> decoder must give the ground truth back;
* classes: which have labels, what nobody named (`emloom.tasks.checkclasses`);
* and what is said of any training: library, split, room, sampling, parity and cost (`emloom.tasks.checktraining`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.io.volume import Volume
from emloom.metrics.overlap import overlap_scores, worst_objects
from emloom.nn.crops import TrainingVolume
from emloom.ops.labels import grow_boundary, label_report, split_disconnected
from emloom.tasks.artifactjob import ArtifactJob, open_tissue
from emloom.tasks.checkclasses import class_findings
from emloom.tasks.checktraining import Finding, Trained
from emloom.tasks.data import HeldOut, SplitSpec, Stack, held_out, open_stack
from emloom.tasks.evaluate import truth_in
from emloom.tasks.job import NeuronsJob
from emloom.tasks.reconstructionjob import RawStack, ReconstructionJob, open_raw_stack, require_unseen
from emloom.tasks.segment import grow_tree
from emloom.tasks.semantic import SemanticJob, open_stacks, training_volumes
from emloom.tasks.sparsecheck import check_sparse
from emloom.tasks.synapsecheck import site_findings
from emloom.tasks.synapsedata import SynapseStack
from emloom.tasks.synapsejob import CleftsJob, PartnersJob
from emloom.tasks.synapsejob import open_stacks as open_synapse_stacks
from emloom.tasks.trainingjob import TrainingJob

_ORACLE_WARN_BITS, _ORACLE_ERROR_BITS = 0.1, 1.0
_PROBE_VOX = 128
_TINY_VOX = 50
_SURVEYED = 64
_LARGEST_LABELS = 1 << 30


def check(job: NeuronsJob) -> list[Finding]:
    """Return every finding about a job; raises `InputError` only where the data cannot be opened at all."""
    return list(_findings(job, [open_stack(spec) for spec in job.data]))


def _findings(job: NeuronsJob, stacks: list[Stack]) -> Iterator[Finding]:
    for stack in stacks:
        yield from check_labels(stack.labels)
        yield check_voxel_size(stack.raw)
        yield check_orientation(stack.raw, stack.labels)
    yield from check_oracle(job, stacks)
    yield from trained(job, stacks).findings()


def check_semantic(job: SemanticJob) -> list[Finding]:
    """Return every finding about a semantic job; raises `InputError` where data cannot be opened at all."""
    stacks = open_stacks(job)
    volumes, splits = training_volumes(job, stacks), [stack.spec for stack in stacks]
    painted = [finding for stack in stacks for finding in check_sparse(stack)]
    classes = class_findings(job.objective, volumes)
    sizes = [check_voxel_size(stack.raw) for stack in stacks]
    return [*sizes, *painted, *classes, *_trained(job, volumes, splits).findings()]


def check_raw(job: ReconstructionJob) -> list[Finding]:
    """Return every finding about a job on raw stacks; raises `InputError` where data cannot be opened at all."""
    stacks = [open_raw_stack(spec) for spec in job.data]
    volumes = [stack.unlabelled for stack in stacks]
    this = _trained(job, volumes)
    unseen = [check_unseen(stack, this) for stack in stacks]
    return [*(check_voxel_size(stack.raw) for stack in stacks), *unseen, *this.findings()]


def check_unseen(stack: RawStack, this: Trained) -> Finding:
    """Say whether inputs of training crops reach into test boxes."""
    try:
        require_unseen(stack, this.crop)
    except InputError as problem:
        return Finding("error", "unseen", str(problem))
    seen = (
        "may be seen by the training: transductive" if stack.spec.transductive else "are not seen by the training"
    )
    return Finding("ok", "unseen", f"{len(stack.spec.test)} test boxes of {stack.spec.raw} {seen}")


def check_artifacts(job: ArtifactJob) -> list[Finding]:
    """Return every finding about a job that finds artifacts; raises `InputError` where data cannot be opened."""
    stacks = [open_tissue(spec, job) for spec in job.data]
    volumes = [stack.training for stack in stacks]
    return [*(check_voxel_size(stack.raw) for stack in stacks), *_trained(job, volumes).findings()]


def check_synapses(job: CleftsJob | PartnersJob) -> list[Finding]:
    """Return every finding about a job that learns synapses; raises `InputError` where data cannot be opened."""
    stacks = open_synapse_stacks(job)
    sites = [
        finding
        for stack in stacks
        if isinstance(job, PartnersJob) and isinstance(stack, SynapseStack)
        for finding in site_findings(stack, job.objective)
    ]
    volumes, splits = [stack.labelled for stack in stacks], [stack.spec for stack in stacks]
    sizes = [check_voxel_size(stack.raw) for stack in stacks]
    return [*sizes, *sites, *_trained(job, volumes, splits).findings()]


def trained(job: NeuronsJob, stacks: Sequence[Stack]) -> Trained:
    """Return what a job trains, and on what."""
    return _trained(job, [stack.labelled for stack in stacks])


def _trained(
    job: TrainingJob, volumes: Sequence[TrainingVolume], splits: Sequence[SplitSpec] | None = None
) -> Trained:
    boxes = held_out(job.data if splits is None else splits, "validation")
    return Trained(
        job.model(volumes[0].raw.info.grid.voxel_size_nm),
        job.training,
        tuple(volumes),
        tuple(spec.gap_nm for spec in job.data),
        tuple((item.stack, item.box) for item in boxes),
    )


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


def _centre(box: Box, shape: Vec) -> Box:
    extent = [min(a, b) for a, b in zip(box.shape, shape, strict=True)]
    start = [s + (n - e) // 2 for s, n, e in zip(box.start, box.shape, extent, strict=True)]
    return Box((start[0], start[1], start[2]), (extent[0], extent[1], extent[2]))
