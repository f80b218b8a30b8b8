"""A semantic job: train, predict held-out boxes, score the likeliest classes against the labels.

Everything of a job lives in one folder::

    job.yaml  provenance.json  report.html
    train/      model.safetensors, state, history, tensorboard
    predict/    <box>.zarr/classes        probabilities of the classes in every test box, <box> = s0_test_0, ...
    evaluate/   scores.json, scores.csv   all test boxes together, then each
                <box>.zarr/truth          the class of every voxel, 255 where it is unknown
                <box>/                    scores, curves and a page of one box
    markers/    one per finished step

How steps are skipped, gone on with and refused: `emloom.tasks.steps`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.grid import Vec3
from emloom.io.files import staged
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.metrics.classbook import class_metrics_named
from emloom.nn.crops import TrainingVolume
from emloom.nn.engine import Engine
from emloom.nn.hardware import Hardware
from emloom.nn.model import build
from emloom.nn.networks import NetworkSpec
from emloom.nn.objectives.semantic import CLASSES, UNKNOWN, SemanticObjective
from emloom.nn.train import crop_shape
from emloom.nn.unet import UNetSpec
from emloom.ops.enclosure import EnclosureRule, resolve
from emloom.run.executor import Executor
from emloom.run.journal import key_of
from emloom.spec import Spec
from emloom.tasks.classreport import write_class_report
from emloom.tasks.classscoring import ClassEvaluation, evaluate_classes, judged_of, metrics_of, score_units
from emloom.tasks.classspec import BootstrapSpec, ClassesSpec, ClassSpec, NearSpec
from emloom.tasks.classtable import joined, read_units
from emloom.tasks.data import BoxSpec, HeldOut, SplitSpec, Stack, StackSpec, held_out, open_stack
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.reconstructionreport import training_section
from emloom.tasks.scorefiles import definitions, write_scores
from emloom.tasks.semanticreport import TestedBox, write_semantic_report
from emloom.tasks.sparsespec import with_sparse_sampling
from emloom.tasks.steps import Listener
from emloom.tasks.trainingjob import Execution, Runner, TrainingJob
from emloom.view.report import Section

Stage = Literal["train", "predict", "evaluate", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class SemanticScoring(Spec):
    """What is scored of the test boxes."""

    metrics: tuple[str, ...] = Field(default=("confusion", "iou", "f1", "ap"), min_length=1)
    """Names of `emloom.metrics.classbook`."""
    near: NearSpec | None = None
    """How near is near, for `boundary` and `band`."""
    enclosed: tuple[EnclosureRule, ...] = ()
    """What encloses what, for `enclosure`."""
    bootstrap: BootstrapSpec = BootstrapSpec()
    """Of intervals: what varies together, and how often it is drawn."""


class SemanticJob(TrainingJob):
    """Learn to tell classes apart on labelled stacks, and say how well it works on held-out boxes."""

    kind: Literal["semantic"] = "semantic"
    data: tuple[StackSpec, ...] = Field(min_length=1)
    """One or more labelled stacks of the same voxel size; validation boxes choose the checkpoint."""
    objective: SemanticObjective
    network: NetworkSpec = UNetSpec.lean()
    scoring: SemanticScoring = SemanticScoring()

    @model_validator(mode="before")
    @classmethod
    def _draw_sparse_labels(cls, given: Any) -> Any:
        return with_sparse_sampling(given)

    @model_validator(mode="after")
    def _know_the_metrics(self) -> Self:
        # Before hours of training, not after.
        names, how = self.objective.names, self.scoring
        class_metrics_named(how.metrics, resolve(how.enclosed, names, (1.0, 1.0, 1.0)))
        return self


class ClassJob(Protocol):
    """What predicting, scoring and showing classes needs to know of a job."""

    @property
    def name(self) -> str:
        """Shown in the report."""

    @property
    def data(self) -> tuple[StackSpec, ...]:
        """Labelled stacks."""

    @property
    def objective(self) -> SemanticObjective:
        """The classes."""

    @property
    def scoring(self) -> SemanticScoring:
        """What is scored."""


class ClassRun(Protocol):
    """What it needs of an execution of such a job, whatever learned the classes."""

    folder: Path
    hardware: Hardware
    listener: Listener
    executor: Executor

    @property
    def job(self) -> ClassJob:
        """What to do."""

    @property
    def stacks(self) -> list[Stack]:
        """The opened stacks."""

    @property
    def splits(self) -> Sequence[SplitSpec]:
        """How every stack is split, in boxes."""

    @property
    def checkpoint(self) -> Path:
        """The trained model."""

    @property
    def voxel_size_nm(self) -> Vec3:
        """Voxel size (z, y, x) of the data."""


class _Run(Execution[SemanticJob]):
    """One execution of a job in a folder."""

    @cached_property
    def stacks(self) -> list[Stack]:
        """The opened stacks."""
        return open_stacks(self.job)

    @cached_property
    def volumes(self) -> list[TrainingVolume]:
        """Where samples are drawn."""
        return training_volumes(self.job, self.stacks)

    @property
    def splits(self) -> list[StackSpec]:
        """How every stack is split, in boxes."""
        return [stack.spec for stack in self.stacks]

    def keys(self) -> dict[str, str]:
        """Return the key of every step: parameters, inputs, and the keys of the steps before it."""
        trained = self.trained_key()
        predicted = key_of(trained, "predict")
        evaluated = key_of(predicted, self.job.scoring.content_hash())
        return {
            "train": trained,
            "predict": predicted,
            "evaluate": evaluated,
            "report": key_of(evaluated, self.job.name),
        }


def open_stacks(job: ClassJob) -> list[Stack]:
    """Return the opened stacks of a job; raises `InputError` where one cannot be opened."""
    return [open_stack(spec, job.objective.classes) for spec in job.data]


def training_volumes(job: SemanticJob, stacks: Sequence[Stack]) -> list[TrainingVolume]:
    """Return where samples are drawn; of stacks with held-out pieces, so that no input shows any of these."""
    if not any(stack.held_pieces for stack in stacks):
        return [stack.labelled for stack in stacks]
    network = build(job.model(stacks[0].raw.info.grid.voxel_size_nm))
    margin = crop_shape(network, job.training.crop_shape_vox).margin
    return [stack.labelled_off(margin) for stack in stacks]


def _train(this: _Run) -> None:
    require_known(this)
    this.train()


def require_known(this: ClassRun) -> None:
    """Raise `InputError` where a held-out box would choose the checkpoint, or be scored, by nothing."""
    for item in held_out(this.splits):
        stack, names = this.stacks[item.stack], ", ".join(this.job.objective.names)
        if (true_classes(this.job.objective, stack, item) == UNKNOWN).all():
            raise InputError(
                f"the {item.part} {item.box} holds no voxel of {names} in {stack.labels.info.source} where labels "
                "are known: choose another box, or other ids for the classes"
            )


def _path(this: ClassRun, stage: Stage, item: HeldOut) -> Path:
    """Return the container of what a step makes of one box."""
    return this.folder / stage / f"{item.name}.zarr"


def _tested(this: ClassRun) -> list[HeldOut]:
    return held_out(this.splits, "test")


def predict_boxes(this: ClassRun) -> None:
    """Predict every test box with the trained model."""
    engine = Engine(this.hardware.torch_device)
    for done, item in enumerate(_tested(this), start=1):
        stack = this.job.data[item.stack]
        job = PredictJob(
            raw=stack.raw,
            model=str(this.checkpoint),
            output=str(_path(this, "predict", item)),
            box=BoxSpec(start=item.box.start, shape=item.box.shape),
            voxel_size_nm=stack.voxel_size_nm,
        )
        predict_volume(job, engine, executor=this.executor, discard=True)
        this.listener.advance("predict", done, len(_tested(this)))


def evaluate_boxes(this: ClassRun) -> None:
    """Score every test box, each by itself and all together."""
    rows: list[dict[str, Any]] = []
    for done, item in enumerate(_tested(this), start=1):
        _write_truth(this, item)
        spec = _scoring(this, item)
        found = evaluate_classes(spec, this.executor)
        write_class_report(spec, found)
        rows.append(found.row | {"predicted": item.name})
        this.listener.advance("evaluate", done, len(_tested(this)))
    everything = _together(this)
    write_scores(
        this.folder / "evaluate",
        [everything.row, *rows],
        undefined=everything.undefined,
        intervals={key: asdict(interval) for key, interval in everything.intervals.items()},
        bootstrap={**this.job.scoring.bootstrap.to_dict(), "units": everything.units},
        classes=everything.classes,
        confusion=everything.evidence.confusion.counts.tolist(),
        metrics=definitions(everything.metrics),
    )


def _together(this: ClassRun) -> ClassEvaluation:
    """Return the scores of all test boxes, from what was counted in each."""
    specs = [_scoring(this, item) for item in _tested(this)]
    metrics = metrics_of(specs[0])
    counted = []
    for spec in specs:
        judged = judged_of(spec, metrics)
        counted.append(read_units(Path(spec.output), judged, None, judged.cells()))
    named = specs[0].model_copy(update={"predicted": "all test boxes"})
    return score_units(named, metrics, joined(counted), sum(item.box.size for item in _tested(this)))


def _scoring(this: ClassRun, item: HeldOut) -> ClassSpec:
    stack, how = this.job.data[item.stack], this.job.scoring
    return ClassSpec(
        predicted=str(_path(this, "predict", item) / CLASSES),
        truth=str(_path(this, "evaluate", item) / "truth"),
        output=str(this.folder / "evaluate" / item.name),
        metrics=how.metrics,
        raw=stack.raw if stack.voxel_size_nm is None else None,  # pictures open it by what the file states
        classes=ClassesSpec(names=this.job.objective.names, ignore=(UNKNOWN,), enclosed=how.enclosed),
        near=how.near,
        bootstrap=how.bootstrap,
    )


def _write_truth(this: ClassRun, item: HeldOut) -> None:
    truth = true_classes(this.job.objective, this.stacks[item.stack], item)
    for earlier in _tested(this):  # planes through one cube: a voxel that is in two boxes counts in the first
        if earlier.stack == item.stack and earlier.number < item.number and earlier.box.meets(item.box):
            truth[earlier.box.intersect(item.box).slices(item.box.start)] = UNKNOWN
    grid = this.stacks[item.stack].raw.info.grid.crop(item.box)
    info = VolumeInfo(item.box.shape, truth.dtype, grid, kind="labels")
    with staged(_path(this, "evaluate", item), overwrite=True) as folder:
        create_volume(folder / "truth", info).write(info.box, truth)


def true_classes(objective: SemanticObjective, stack: Stack, item: HeldOut) -> NDArray[np.uint8]:
    """Return the true class of every voxel of a box, `UNKNOWN` where its label is of none or the mask is 0."""
    truth = objective.of_labels(stack.labels.read(item.box))
    if stack.mask is not None:
        truth[stack.mask.read(item.box) == 0] = UNKNOWN
    return truth


def _report(this: _Run) -> None:
    report_boxes(this, this.provenance(STAGES), [training_section(this.folder)])


def report_boxes(this: ClassRun, provenance: Mapping[str, Any], learned: Sequence[Section]) -> None:
    """Write the page of the run; `learned` says how the model came about."""
    boxes = [_drawn(this, item) for item in _tested(this)]
    write_semantic_report(this.job.name, _together(this), boxes, this.folder, (provenance, learned))


def _drawn(this: ClassRun, item: HeldOut) -> TestedBox:
    stack = this.stacks[item.stack]
    middle = Box((item.box.shape[0] // 2, 0, 0), (1, *item.box.shape[1:]))
    spec = _scoring(this, item)
    shares = open_volume(spec.predicted).read(middle)
    return TestedBox(
        item.name,
        middle.start[0],
        stack.raw.read(middle.shift(item.box.start))[0],
        open_volume(spec.truth).read(middle)[0],
        shares.argmax(axis=0)[0].astype(np.uint8),
        this.voxel_size_nm[1:],
    )


run = Runner(_Run, {"train": _train, "predict": predict_boxes, "evaluate": evaluate_boxes, "report": _report})
"""Runs a job in a folder, going on where an earlier call stopped."""
