"""The job that learns neurons, as `emloom plan` writes it: a value made of what was seen, and a reason per "
"choice."""

from __future__ import annotations

from dataclasses import dataclass, replace

from emloom.geometry import Box, Grid, Vec
from emloom.geometry.grid import Vec3
from emloom.nn.augment import AugmentSpec, IntensitySpec
from emloom.nn.model import ModelSpec
from emloom.nn.networks import BackboneSpec
from emloom.nn.objectives.neurons import NeuronsObjective
from emloom.nn.preprocess import Preprocessing
from emloom.nn.train import OptimizerSpec, TrainingSpec
from emloom.tasks.data import BoxSpec, MarksSpec, StackSpec
from emloom.tasks.evaluate import EvaluationSpec
from emloom.tasks.job import NeuronsJob
from emloom.tasks.planlabels import LabelsLook
from emloom.tasks.planlook import RawLook
from emloom.tasks.planmachine import Machine, Weight, steps_within, validate_every, weigh
from emloom.tasks.plannetwork import (
    Scale,
    background_for,
    crops_for,
    network_for,
    objective_for,
    scale_of,
)
from emloom.tasks.plansplit import Split, Wish
from emloom.tasks.planwords import Notes
from emloom.tasks.segmentspec import AscentSpec, QuantileLinkage, SegmentSpec

_LEAST_HELD: dict[bool, Vec] = {False: (24, 24, 24), True: (20, 64, 64)}
_MOST_HELD: dict[bool, Vec] = {False: (128, 128, 128), True: (40, 256, 256)}
_CUT_SECTIONS = 50
"""Flat stacks of fewer sections are held out in full along z."""
_LEAST_JITTER, _MOST_JITTER = 0.02, 0.15


@dataclass(frozen=True)
class Paths:
    """What the job file names.

    Attributes:
        name: of the job.
        raw: the stack.
        labels: on the grid of the raw.
        known: mask of where labels are known, where they cover a part of the raw only.
        voxel_size_nm: as the user gave it.
    """

    name: str
    raw: str
    labels: str
    known: str | None = None
    voxel_size_nm: Vec3 | None = None


@dataclass(frozen=True)
class Course:
    """All that is decided before boxes are held out.

    Attributes:
        scale: how large things are.
        objective: what is learned.
        network: with which network.
        notes: why, below the job.
        gap_nm: how far training keeps from held-out boxes.
        region: voxels of the raw that are labelled.
        labels: what was seen of them.
    """

    scale: Scale
    objective: NeuronsObjective
    network: BackboneSpec
    notes: Notes
    gap_nm: float
    region: Box
    labels: LabelsLook

    def wish(self, machine: Machine, grey: Preprocessing) -> Wish:
        """Return what a split must keep."""
        flat, size = self.scale.flat, self.scale.size_nm
        gap = Grid(size).voxels(self.gap_nm)
        crops = crops_for(self.scale, self.region.shape, machine)
        light = [c for c in crops if weigh(self.model(grey), c).memory_gib <= machine.training_gib]
        usual = 1.0 - self.labels.zeros
        return Wish(self.region, gap, light or crops[-1:], _LEAST_HELD[flat], _MOST_HELD[flat], usual)

    def model(self, grey: Preprocessing) -> ModelSpec:
        """Return what would go into a checkpoint."""
        return ModelSpec(
            objective=self.objective,
            network=self.network,
            preprocessing=grey,
            voxel_size_nm=self.scale.size_nm,
        )


def course_for(size_nm: Vec3, labels: LabelsLook, region: Box, machine: Machine) -> Course:
    """Return what is decided before boxes are held out."""
    scale = scale_of(size_nm, labels)
    objective, reasons = objective_for(scale, labels)
    network, why = network_for(scale, machine)
    # Whether a boundary is grown may be decided later: the gap covers both.
    grown = objective.model_copy(update={"grow_boundary_vox": max(1, objective.grow_boundary_vox)})
    context = grown.context_vox(Grid(size_nm))
    cut = range(3) if not scale.flat or region.shape[0] >= _CUT_SECTIONS else range(1, 3)
    gap = max(context[axis] * size_nm[axis] for axis in cut)
    notes = Notes({**reasons.below("objective"), **why.below("network")})
    return Course(scale, objective, network, notes, float(gap), region, labels)


def grey_of(look: RawLook) -> tuple[Preprocessing, Notes]:
    """Return how grey values are scaled, and why."""
    void = f", beside the {look.void:.0%} where nothing was recorded" if look.void else ""
    text = f"the 1st and 99th percentile of {look.read_vox:,} voxels{void}: they become -1 and 1"
    return Preprocessing(low=look.low, high=look.high), Notes({("low",): text})


def augment_of(look: RawLook) -> tuple[AugmentSpec, Notes]:
    """Return what happens to samples, and why."""
    if not look.flat:
        return AugmentSpec(), Notes()
    jitter = round(min(max(look.jitter, _LEAST_JITTER), _MOST_JITTER), 2)
    text = (
        f"sections differ in brightness by {look.jitter:.3f} of the half range from one to the next (kept within "
        f"{_LEAST_JITTER} and {_MOST_JITTER}): samples do so, too"
    )
    return AugmentSpec(intensity=IntensitySpec(section_jitter=jitter)), Notes(
        {("intensity", "section_jitter"): text}
    )


def segmentation_for(flat: bool) -> tuple[SegmentSpec, Notes]:
    """Return how affinities become segments, and why."""
    if not flat:
        text = "fragments grow in 3D: voxels are nearly cubes"
        return SegmentSpec(), Notes({("fragments", "per_section"): text, ("linkage",): "by the mean affinity"})
    notes = Notes(
        {("fragments", "per_section"): "sections are thick: fragments grow within one, and are merged across"}
    )
    notes["linkage",] = "by the median affinity, which single bad pixels of a section do not move"
    spec = SegmentSpec(fragments=AscentSpec(per_section=True), linkage=QuantileLinkage(quantile=50))
    return spec, notes


@dataclass(frozen=True)
class Planned:
    """A job, why, and what it weighs.

    Attributes:
        job: that learns neurons.
        notes: reasons, below the job.
        weight: of a training crop.
        minutes: of the training, as an estimate.
        lost: bits of VOI of a validation box, from targets of the labels themselves to segments.
    """

    job: NeuronsJob
    notes: Notes
    weight: Weight
    minutes: float
    lost: float = 0.0


def with_boundary(planned: Planned, steps: int) -> Planned:
    """Return the same job with a boundary of so many voxels grown between objects."""
    flat = planned.job.evaluation.border_in_plane
    grown = {"grow_boundary_vox": steps, "grow_in_plane": flat and steps > 0}
    job = planned.job.model_copy(update={"objective": planned.job.objective.model_copy(update=grown)})
    notes = Notes({path: text for path, text in planned.notes.items() if path != ("objective", "grow_in_plane")})
    return replace(planned, job=job, notes=notes)


def neurons_job(
    paths: Paths, look: RawLook, course: Course, split: Split, machine: Machine, minutes: float
) -> Planned:
    """Return the job that learns neurons on labelled tissue.

    Args:
        paths: what the file names.
        look: what was seen of the raw.
        course: what was decided before.
        split: held-out boxes.
        machine: where it shall run.
        minutes: for the training.
    """
    grey, grey_notes = grey_of(look)
    augment, augment_notes = augment_of(look)
    segmentation, segment_notes = segmentation_for(course.scale.flat)
    weight = weigh(course.model(grey), split.crop)
    batch = 1 if machine.gpu is None else 4
    seconds = batch * machine.step_seconds(weight.multiplied)
    steps = steps_within(machine, seconds, minutes)
    training = TrainingSpec(
        steps=steps,
        crop_shape_vox=split.crop,
        batch_size=batch,
        optimizer=OptimizerSpec(),
        validate_every=validate_every(steps),
        augment=augment,
    )
    stack, stack_notes = _stack(paths, look, course, split)
    evaluation = EvaluationSpec(border_in_plane=course.scale.flat)
    job = NeuronsJob(
        name=f"{paths.name}-neurons",
        data=(stack,),
        objective=course.objective,
        network=course.network,
        preprocessing=grey,
        training=training,
        segmentation=segmentation,
        evaluation=evaluation,
    )
    took = steps * seconds / 60
    notes = Notes(
        {
            **stack_notes.below("data", 0),
            **course.notes,
            **grey_notes.below("preprocessing"),
            **_training_notes(course, split, machine, took, weight).below("training"),
            **augment_notes.below("training", "augment"),
            **segment_notes.below("segmentation"),
        }
    )
    if course.scale.flat:
        notes["evaluation", "border_in_plane"] = "the border that scores may ignore is measured within sections"
    return Planned(job, notes, weight, took)


def _stack(paths: Paths, look: RawLook, course: Course, split: Split) -> tuple[StackSpec, Notes]:
    """Return the labelled stack and its split, and why."""
    whole, region = look.info.box, course.region
    background = background_for(course.scale, course.labels)
    beyond = region != whole and paths.known is None
    if beyond and background is None:
        background = background_for(course.scale, _unpainted(course.labels))
    stack = StackSpec(
        raw=paths.raw,
        labels=paths.labels,
        voxel_size_nm=paths.voxel_size_nm,
        region=None if region == whole else BoxSpec(start=region.start, shape=region.shape),
        validation=tuple(BoxSpec(start=box.start, shape=box.shape) for box in split.validation),
        test=tuple(BoxSpec(start=box.start, shape=box.shape) for box in split.test),
        gap_nm=course.gap_nm,
        marks=MarksSpec(mask=paths.known, background_vox=background),
    )
    notes = Notes()
    if region != whole:
        notes["region",] = f"labels are here only: {region.size / whole.size:.1%} of the raw"
    held = len(split.validation) + len(split.test)
    some = f"{held} box{'es' if held > 1 else ''} of {split.validation[0].shape} voxels (z, y, x)"
    notes["validation",] = (
        f"{some}, held out; these choose checkpoint and threshold. They were chosen to be as full as the "
        f"whole, without "
        f"an object that fills a quarter: {_told(split)}"
    )
    if split.test:
        notes["test",] = "scored once, at the end; as like the validation boxes as could be found"
    notes["gap_nm",] = (
        f"as far as targets look, so that nothing of a held-out box is learned; {split.room:.0%} of the crops "
        f"remain"
    )
    if background is not None:
        why = (
            "0 is also what lies beyond the labels"
            if beyond and course.labels.far_zeros <= 0.1
            else f"{course.labels.far_zeros:.0%} of the voxels with label 0 lie further than 40 nm from any object"
        )
        notes["marks", "background_vox"] = f"{why}: nobody painted there. Beyond this distance 0 counts as unknown"
    if paths.known is not None:
        notes["marks", "mask"] = "where labels are known; beyond it nothing is"
    return stack, notes


def _unpainted(labels: LabelsLook) -> LabelsLook:
    return replace(labels, far_zeros=1.0)


def _told(split: Split) -> str:
    """Say what the boxes hold."""
    return "; ".join(f"{t.objects} objects, {t.labelled:.0%} labelled" for t in split.tallies)


def _training_notes(course: Course, split: Split, machine: Machine, took: float, weight: Weight) -> Notes:
    """Return why the training is as it is."""
    width = course.scale.width_nm
    side = split.crop[2] * course.scale.size_nm[2]
    notes = Notes()
    notes["steps",] = (
        f"about {took:.0f} min on this machine ({machine.text}): an estimate, from {weight.multiplied / 1e9:.1f} "
        "billion multiply-adds a crop; `emloom check` times a step. More is better"
    )
    notes["crop_shape_vox",] = (
        f"{side:.0f} nm across, {side / width:.1f} median widths; takes {weight.memory_gib:.1f} GiB (estimate)"
    )
    if machine.gpu is not None:
        notes["batch_size",] = "crops a step: a GPU has room for them"
    notes["validate_every",] = "steps between looks at the validation boxes; the best of them is kept"
    return notes
