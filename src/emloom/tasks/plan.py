"""`emloom plan RAW [LABELS]`: look at the data, and write the job file of the whole way, with a reason per choice.

::

    raw ──────► sample: grey values, tone, sections        `planlook`, `planquality`
    labels ───► sample: kind, widths, what 0 means         `planlabels`
    both ─────► split, network, targets, steps             `plansplit`, `plannetwork`, `planneurons`
    synapses ─► partners or clefts                         `plansynapses`
    machine ──► how long, how large                        `planmachine`
                 └─► a `PipelineJob`, notes, a summary      here, `planwords`

A plan looks at a bounded sample and asks nothing at random, so the same data on the same kind of machine
give the same
file. Before it is returned, the decoder is given the targets of the labels themselves (`tasks.check.oracle`): what
it loses, no network can win.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.grid import Vec3
from emloom.io.files import refuse_existing, write_text_atomic
from emloom.io.volume import ArrayVolume
from emloom.spec import Spec
from emloom.tasks.check import check_orientation, oracle
from emloom.tasks.data import HeldOut, Stack
from emloom.tasks.job import NeuronsJob
from emloom.tasks.pipelinespec import (
    AlignStage,
    NeuronsStage,
    PipelineJob,
    QcStage,
    RepairStage,
    SynapsesStage,
    TrainedHere,
    TruthSpec,
)
from emloom.tasks.planmachine import Machine
from emloom.tasks.planmodel import model_stage
from emloom.tasks.planneurons import Paths, Planned, augment_of, course_for, grey_of, neurons_job, with_boundary
from emloom.tasks.planquality import ASIDE_NM, MOVED, TORN
from emloom.tasks.planseen import Labels, Seen, absolute, see, see_labels, spread_out, within
from emloom.tasks.plansplit import Split, split
from emloom.tasks.plansynapses import Ground, SynapseLook, look_at_synapses, synapse_job, why_not
from emloom.tasks.plantold import LOST_BITS, Told, add_lines, cost_rows, found_rows, why_no_neurons
from emloom.tasks.planwords import Notes, annotated

MINUTES = {False: 10.0, True: 60.0}
"""Of training, where nobody says: on a processor, and on a GPU."""
_NEURONS_SHARE = 0.6
_ORACLE_VOX = (64, 192, 192)


class PlanSpec(Spec):
    """What a plan is made from."""

    raw: str
    """The stack."""
    labels: str | None = None
    """Neuron ids on the grid of the raw, or of a part of it."""
    synapses: str | None = None
    """Annotated synapses: a table, a CREMI file, a tracing; or a volume of clefts."""
    model: str | None = None
    """A model that exists, to be used instead of training one; labels then are for scoring only."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where the files do not state it."""
    budget_minutes: float | None = Field(default=None, gt=0)
    """For all trainings together; default 10 on a processor, 60 on a GPU."""
    name: str | None = Field(default=None, min_length=1)
    """Of the job; default: of the file."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A planned job.

    Attributes:
        job: what is to be done.
        notes: reasons, by path.
        told: what is said to a person.
        head: comment lines above the job.
        tail: comment lines below it: what could be added.
        labels: to be written out on the grid of the raw, where they cover a part of it only.
        seen: what was looked at.
    """

    job: PipelineJob
    notes: Notes
    told: Told
    head: tuple[str, ...]
    tail: tuple[str, ...]
    labels: Labels | None
    seen: Seen

    def text(self) -> str:
        """Return the job file."""
        return annotated(self.job, self.notes, self.head, self.tail)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        reasons = {".".join(map(str, path)): note for path, note in self.notes.items()}
        return {**self.told.to_dict(), "job": self.job.to_dict(), "reasons": reasons}


def plan_into(spec: PlanSpec, output: str | Path, overwrite: bool = False, machine: Machine | None = None) -> Plan:
    """Make a plan and write its job file; and labels on the grid of the raw, where they cover a part of it only.

    Raises:
        InputError: as `plan`, or the file exists and `overwrite` is not set.
    """
    output = Path(output)
    labels = labels_beside(output)
    if not overwrite:
        refuse_existing(output)
    made = plan(spec, machine, output)
    if made.labels is not None:
        spread_out(made.labels, made.seen.look.info, labels, overwrite)
    write_text_atomic(output, made.text(), overwrite=overwrite)
    return made


def labels_beside(output: Path) -> Path:
    """Return where labels are written out."""
    return output.absolute().with_name(f"{output.stem}-labels.zarr")


def plan(spec: PlanSpec, machine: Machine | None = None, output: Path = Path("connectome.yaml")) -> Plan:
    """Look at the data and decide.

    Args:
        spec: what to look at.
        machine: where the job shall run; default: this one.
        output: the job file that shall be written; nothing is.

    Raises:
        InputError: data do not open, lie beside each other or show nothing; the model was made for other data; or
            nothing at all can be planned.
    """
    machine = machine or Machine.here()
    seen = see(spec.raw, spec.voxel_size_nm)
    labels = None if spec.labels is None else see_labels(spec.labels, seen, spec.voxel_size_nm)
    synapses = None if spec.synapses is None else look_at_synapses(absolute(spec.synapses), seen.raw)
    return _Desk(spec, machine, seen, labels, synapses, output).plan()


@dataclass(frozen=True, eq=False)
class _Desk:
    """Where a plan is put together."""

    spec: PlanSpec
    machine: Machine
    seen: Seen
    labels: Labels | None
    synapses: SynapseLook | None
    output: Path

    @property
    def minutes(self) -> float:
        return self.spec.budget_minutes or MINUTES[self.machine.gpu is not None]

    @property
    def dense(self) -> Labels | None:
        """Labels of neurons."""
        return self.labels if self.labels is not None and self.labels.look.kind == "neurons" else None

    @property
    def name(self) -> str:
        return self.spec.name or self.output.stem

    @property
    def paths(self) -> Paths:
        size = self.spec.voxel_size_nm
        assert self.labels is not None
        if self.labels.whole:
            return Paths(self.name, self.seen.path, absolute(self.spec.labels or ""), None, size)
        beside = labels_beside(self.output)
        return Paths(self.name, self.seen.path, f"{beside}/labels", f"{beside}/known", size)

    def plan(self) -> Plan:
        """Return the plan."""
        notes, stages = Notes(), dict[str, Any]()
        for name, (stage, why) in self.sections().items():
            stages[name] = stage
            notes |= why.below(name)
        cut = self.split()
        neurons, planned, why = self.neurons(cut)
        notes |= why.below("neurons")
        stages["neurons"] = neurons
        stages["synapses"], why, hint = self.synapse_stage(cut, planned, neurons is not None)
        notes |= why.below("synapses")
        stages["truth"], why = self.truth(cut)
        notes |= why.below("truth")
        if all(stages[name] is None for name in ("qc", "align", "repair", "neurons")):
            raise InputError(
                f"{self.seen.path} holds {self.seen.look.info.dtype}, which quality control does not count, "
                f"and there "
                "is nothing to segment it with: scale it to uint8 or uint16 first, or give labels or a model"
            )
        job = PipelineJob(name=self.name, raw=self.seen.path, voxel_size_nm=self.spec.voxel_size_nm, **stages)
        notes["raw",] = _raw_note(self.seen)
        hints = [text for text in (*self.why_not(), hint) if text]
        told = Told(
            tuple(found_rows(self.seen, self.labels, self.synapses)),
            tuple(cost_rows(job, planned, self.seen.look.info, self.machine)),
            (*hints, *self.doubts()),
            None if planned is None else planned.lost,
            str(self.output),
        )
        head: tuple[str, ...] = (
            f"The way from {Path(self.seen.path).name} to a connectome, planned by `emloom plan`.",
        )
        head += (f"For {self.machine.text}. Change what you know better, then:", "", f"  emloom run {self.output}")
        part = None if self.dense is None or self.dense.whole else self.dense
        return Plan(job, notes, told, head, tuple(add_lines(job, hints)), part, self.seen)

    def sections(self) -> dict[str, tuple[Spec | None, Notes]]:
        """Return the stages that look at sections, and why."""
        quality, moved, torn = self.seen.quality, Notes(), Notes()
        if quality is None:
            return {"qc": (None, Notes()), "align": (None, Notes()), "repair": (None, Notes())}
        sample = f"of {quality.sections} sections of a sample"
        seen = Notes({(): f"finds bad sections, which later stages obey; {sample}, {len(quality.flags)} flags"})
        if quality.moved:
            flags = _listed(quality.named(MOVED))
            far = "" if quality.aside_nm is None else f"a tenth lies {quality.aside_nm:.0f} nm or more aside"
            limit = f" (limit {ASIDE_NM:.0f} nm)" if far else ""
            moved[()] = f"{sample}, {'; '.join(text for text in (far + limit, flags) if text)}"
        if quality.torn:
            torn[()] = f"{sample}: {_listed(quality.named(TORN))}"
        return {
            "qc": (QcStage(), seen),
            "align": (AlignStage() if quality.moved else None, moved),
            "repair": (RepairStage() if quality.torn else None, torn),
        }

    def split(self) -> Split | None:
        """Return held-out boxes, where something is trained."""
        dense = self.dense
        if dense is None or (self.spec.model is not None and self.synapses is None):
            return None
        course = course_for(self.seen.look.size_nm, dense.look, dense.region, self.machine)
        wish = course.wish(self.machine, grey_of(self.seen.look)[0])
        return split(wish, dense.tally(self.synapses))

    def neurons(self, cut: Split | None) -> tuple[NeuronsStage | None, Planned | None, Notes]:
        """Return the stage that makes segments, and why."""
        if self.spec.model is not None:
            stage, notes = model_stage(self.spec.model, self.seen)
            return stage, None, notes
        if self.dense is None or cut is None:
            return None, None, Notes()
        dense, share = self.dense, _NEURONS_SHARE if self.synapses else 1.0
        course = course_for(self.seen.look.size_nm, dense.look, dense.region, self.machine)
        planned = neurons_job(self.paths, self.seen.look, course, cut, self.machine, share * self.minutes)
        planned = self.proven(planned, cut)
        notes = planned.notes.below("source", "job")
        notes["source",] = "a model is trained first, on your labels; its validation boxes choose the threshold"
        return NeuronsStage(source=TrainedHere(job=planned.job)), planned, notes

    def synapse_stage(
        self, cut: Split | None, planned: Planned | None, segments: bool
    ) -> tuple[SynapsesStage | None, Notes, str]:
        """Return the stage that finds synapses, why, and why not."""
        if self.synapses is None:
            return None, Notes(), ""
        if not segments or cut is None:
            return None, Notes(), "synapses need segments to lie between, and dense labels to hold boxes out of"
        reason = why_not(self.synapses, cut)
        if reason is not None:
            return None, Notes(), reason
        grey, augment = grey_of(self.seen.look)[0], augment_of(self.seen.look)[0]
        whole = self.dense is None or self.dense.region == self.seen.look.info.box
        region = None if self.dense is None or whole else self.dense.region
        ground = Ground(self.paths, region, cut, grey, augment)
        minutes = self.minutes * (1 - _NEURONS_SHARE if planned is not None else 1.0)
        job, why = synapse_job(self.synapses, ground, self.seen.look.size_nm, self.machine, minutes)
        notes = why.below("source", "job")
        notes["source",] = f"trained on your annotations, as {self.synapses.kind}"
        return SynapsesStage(source=TrainedHere(job=job)), notes, ""

    def truth(self, cut: Split | None) -> tuple[TruthSpec | None, Notes]:
        """Return what results are scored against, and why."""
        if self.dense is None:
            return None, Notes()
        points = self.synapses if self.synapses is not None and self.synapses.clefts is None else None
        boxes = (self.dense.region,) if cut is None else cut.test
        if not boxes:
            return None, Notes()
        spec = TruthSpec(
            labels=self.paths.labels,
            synapses=None if points is None else points.path,
            boxes=tuple({"start": box.start, "shape": box.shape} for box in boxes),
        )
        why = "where labels are" if cut is None else "the test boxes: neither training nor thresholds saw them"
        return spec, Notes({("boxes",): why})

    def why_not(self) -> list[str]:
        """Say why no neurons are learned, where none are."""
        if self.dense is not None or self.spec.model is not None:
            return []
        return why_no_neurons(self.labels, self.seen)

    def doubts(self) -> list[str]:
        """Say what looks wrong, and does not stop anything."""
        found = []
        size = self.seen.look.size_nm
        if int(np.argmax(size)) != 0 and max(size) > 1.5 * min(size):
            found.append(
                f"the coarsest axis of {size} nm is not z, as it is in stacks of sections: is the voxel size "
                f"right?"
            )
        if self.dense is not None:
            box = within(self.dense.region, (128, 128, 128))
            grid = self.seen.look.info.grid.crop(box)
            raw, ids = self.seen.raw.read(box), self.dense.read(box)
            finding = check_orientation(ArrayVolume(raw, grid), ArrayVolume(ids, grid))
            found += [finding.text] if finding.level == "error" else []
        return found

    def proven(self, planned: Planned, cut: Split) -> Planned:
        """Return the job, with or without a grown boundary, whichever loses less of the labels themselves."""
        lost = self.lost(planned.job, cut)
        other = with_boundary(planned, 1 - planned.job.objective.grow_boundary_vox)
        if lost > LOST_BITS and (less := self.lost(other.job, cut)) < lost - LOST_BITS:
            path = ("objective", "grow_boundary_vox")
            text = (
                f"tried on your labels: targets lead back to them with {less:.2f} bits lost, otherwise {lost:.2f}"
            )
            return replace(other, notes=Notes({**other.notes, path: text}), lost=less)
        return replace(planned, lost=lost)

    def lost(self, job: NeuronsJob, cut: Split) -> float:
        """Return the bits that are lost from targets of the labels themselves to segments."""
        assert self.dense is not None
        box = within(cut.validation[0], _ORACLE_VOX)
        grid, spec = self.seen.look.info.grid.crop(box), job.data[0]
        labels = ArrayVolume(self.dense.read(box), grid, kind="labels")
        stack = Stack(spec, labels, labels, None, {})
        return oracle(job, stack, HeldOut(0, "validation", 0, Box.whole(box.shape)))[0]


def _raw_note(seen: Seen) -> str:
    look = seen.look
    z, y, x = look.info.shape
    size = ", ".join(f"{v:g}" for v in look.size_nm)
    looked = "all of it was looked at" if look.share == 1 else f"a sample of {look.share:.2%} was looked at"
    return f"{z} sections of {y} x {x} voxels, {look.info.dtype}, {size} nm (z, y, x); {looked}"


def _listed(flags: list[tuple[int, str]]) -> str:
    first = ", ".join(f"section {z} {defect}" for z, defect in flags[:4])
    return f"{first}, ..." if len(flags) > 4 else first
