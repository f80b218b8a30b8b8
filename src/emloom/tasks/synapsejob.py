"""Jobs that learn clefts or synaptic partners: train, predict held-out boxes, score their voxels.

Everything of a job lives in one folder::

    job.yaml  provenance.json  report.html
    train/      model.safetensors, state, history, tensorboard
    predict/    <box>.zarr/<head>        of every held-out box, <box> = s0_validation_0, s0_test_0, ...
    evaluate/   scores.json, scores.csv  of every test box and channel, at the threshold the validation boxes chose
    markers/    one per finished step

The model finds synapses of other stacks with `emloom synapses`. How steps are skipped, gone on with and refused:
`emloom.tasks.steps`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.cremi import VALID, CremiLabels
from emloom.io.open import open_volume
from emloom.io.volume import Array
from emloom.nn.crops import TrainingVolume
from emloom.nn.engine import Engine
from emloom.nn.networks import BackboneSpec
from emloom.nn.objectives.clefts import CleftsObjective
from emloom.nn.objectives.partners import PartnersObjective
from emloom.nn.resunet import ResUNetSpec
from emloom.run.journal import key_of
from emloom.spec import Spec
from emloom.tasks.data import BoxSpec, HeldOut, SplitSpec, Stack, StackSpec, held_out, open_stack
from emloom.tasks.predict import Orientations, PredictJob, predict_volume
from emloom.tasks.synapsedata import SynapseStack, SynapseStackSpec, open_synapse_stack
from emloom.tasks.synapsereporting import write_synapse_job_report
from emloom.tasks.synapsescores import score_boxes
from emloom.tasks.synapsevoxels import Truth, questions, true_voxels
from emloom.tasks.trainingjob import Execution, Runner, TrainingJob

Stage = Literal["train", "predict", "evaluate", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)
AnyStack = Stack | SynapseStack


def _with_sampling(job: Any, sampling: dict[str, Any]) -> Any:
    """Return the data of a job with a sampling, where it leaves that open."""
    training = job.get("training") if isinstance(job, dict) else None
    if isinstance(training, Spec):
        training = training.model_dump(exclude_unset=True)
    if not isinstance(training, dict) or "sampling" in training:
        return job
    return {**job, "training": {**training, "sampling": sampling}}


class CleftsJob(TrainingJob):
    """Learn where clefts are on labelled stacks, and say how well it works on held-out boxes."""

    kind: Literal["clefts"] = "clefts"
    data: tuple[StackSpec, ...] = Field(min_length=1)
    """One or more stacks of the same voxel size, labelled with clefts; validation boxes choose the checkpoint and
    the threshold."""
    objective: CleftsObjective = CleftsObjective()
    network: BackboneSpec = ResUNetSpec()
    orientations: Orientations = 1
    """Predictions averaged (test-time augmentation): 4 mirrors in the section, 8 all, 16 and transposed."""

    @model_validator(mode="before")
    @classmethod
    def _draw_clefts(cls, given: Any) -> Any:
        return _with_sampling(given, {"kind": "foreground"})


class PartnersJob(TrainingJob):
    """Learn pre and post sites from annotated synapses, and say how well it works on held-out boxes."""

    kind: Literal["partners"] = "partners"
    data: tuple[SynapseStackSpec, ...] = Field(min_length=1)
    """One or more stacks of the same voxel size with annotated synapses; validation boxes choose the checkpoint
    and the threshold."""
    objective: PartnersObjective = PartnersObjective()
    network: BackboneSpec = ResUNetSpec()
    orientations: Orientations = 1
    """Predictions averaged (test-time augmentation): 4 mirrors in the section, 8 all, 16 and transposed."""

    @model_validator(mode="before")
    @classmethod
    def _draw_sites(cls, given: Any) -> Any:
        return _with_sampling(given, {"kind": "foreground", "around": "sites"})


SynapseJob = CleftsJob | PartnersJob


class SynapseRun(Execution[CleftsJob | PartnersJob]):
    """One execution of a job in a folder."""

    @cached_property
    def stacks(self) -> Sequence[AnyStack]:
        """The opened stacks."""
        return open_stacks(self.job)

    @cached_property
    def volumes(self) -> list[TrainingVolume]:
        """Where samples are drawn."""
        return [stack.labelled for stack in self.stacks]

    @property
    def splits(self) -> list[SplitSpec]:
        """How every stack is split, in boxes."""
        return [stack.spec for stack in self.stacks]

    def keys(self) -> dict[str, str]:
        """Return the key of every step: parameters, inputs, and the keys of the steps before it."""
        trained = self.trained_key()
        predicted = key_of(trained, "predict", self.job.orientations)
        evaluated = key_of(predicted, "voxels")
        return {
            "train": trained,
            "predict": predicted,
            "evaluate": evaluated,
            "report": key_of(evaluated, self.job.name),
        }

    def path(self, item: HeldOut) -> Path:
        """Return the container of what was predicted of a box."""
        return self.folder / "predict" / f"{item.name}.zarr"

    def truth(self, item: HeldOut) -> Truth:
        """Return what is known of a box."""
        stack = self.stacks[item.stack]
        return Truth(stack.labels, stack.mask, item.box)

    def read(self, item: HeldOut, head: str, box: Box) -> Array:
        """Return stored values ``[C, Z, Y, X]`` of a part of a held-out box, given in voxels of its stack."""
        return open_volume(self.path(item) / head).read(box.shift([-v for v in item.box.start]))


def open_stacks(job: SynapseJob) -> Sequence[AnyStack]:
    """Return the opened stacks of a job; raises `InputError` where one cannot be opened."""
    if isinstance(job, PartnersJob):
        return [open_synapse_stack(spec, job.objective) for spec in job.data]
    return [open_stack(with_cremi_mask(spec)) for spec in job.data]


def with_cremi_mask(spec: StackSpec) -> StackSpec:
    """Return a stack whose clefts, if they are a CREMI file's, are unknown where that says INVALID.

    In the labels such voxels read as background; the mask beside them tells them apart.
    """
    if spec.marks.mask is not None or not isinstance(spec.labels, str):
        return spec
    labels = open_volume(spec.labels, voxel_size_nm=spec.voxel_size_nm, kind="labels")
    if not isinstance(labels, CremiLabels):
        return spec
    return spec.model_copy(
        update={"marks": spec.marks.model_copy(update={"mask": f"{spec.labels.rstrip('/')}/{VALID}"})}
    )


def _train(this: SynapseRun) -> None:
    require_synapses(this)
    this.train()


def require_synapses(this: SynapseRun) -> None:
    """Raise `InputError` where no validation box holds what is learned: the checkpoint would be chosen blindly."""
    for question in questions(this.job.objective):
        boxes = held_out(this.splits, "validation")
        if not any(_positive(this.truth(item), question.side).any() for item in boxes):
            raise InputError(
                f"no validation box holds a voxel of {question.name!r} where labels are known: choose boxes with "
                "synapses"
            )


def _positive(truth: Truth, side: Any) -> Array:
    return true_voxels(truth.labels.read(truth.box), side) & truth.known(truth.box)


def _predict(this: SynapseRun) -> None:
    items = held_out(this.splits)
    engine = Engine(this.hardware.torch_device)
    for done, item in enumerate(items, start=1):
        stack = this.job.data[item.stack]
        job = PredictJob(
            raw=stack.raw,
            model=str(this.checkpoint),
            output=str(this.path(item)),
            box=BoxSpec(start=item.box.start, shape=item.box.shape),
            voxel_size_nm=stack.voxel_size_nm,
            orientations=this.job.orientations,
        )
        predict_volume(job, engine, executor=this.executor, discard=True)
        this.listener.advance("predict", done, len(items))


def _evaluate(this: SynapseRun) -> None:
    score_boxes(this)


def _report(this: SynapseRun) -> None:
    write_synapse_job_report(this, this.provenance(STAGES))


run = Runner(SynapseRun, {"train": _train, "predict": _predict, "evaluate": _evaluate, "report": _report})
"""Runs a job in a folder, going on where an earlier call stopped."""
