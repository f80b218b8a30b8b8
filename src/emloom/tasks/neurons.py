"""`emloom run` of neurons: train, predict, segment, evaluate, report — skipping what is already done.

Everything of a job lives in one folder::

    job.yaml  provenance.json  report.html
    train/      model.safetensors, state, history, tensorboard
    predict/    <box>.zarr/affinities           one per held-out box, <box> = s0_validation_0, s0_test_0, ...
    segment/    <box>.zarr/{fragments, graph/merges.parquet, ...}
    evaluate/   scores.json, scores.csv, <box>.zarr/segmentation at the chosen threshold
    markers/    one per finished stage

How stages are skipped, gone on with and refused: `emloom.tasks.steps`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from emloom.io.files import staged
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo
from emloom.nn.crops import TrainingVolume
from emloom.nn.engine import Engine
from emloom.run.journal import key_of
from emloom.tasks.data import BoxSpec, HeldOut, Stack, held_out, open_stack
from emloom.tasks.job import NeuronsJob
from emloom.tasks.judge import judge
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.report import write_report
from emloom.tasks.scorefiles import write_scores
from emloom.tasks.segment import Segmented, load_segmented
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import SegmentJob
from emloom.tasks.trainingjob import Execution, Runner

Stage = Literal["train", "predict", "segment", "evaluate", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class Run(Execution[NeuronsJob]):
    """One execution of a job in a folder."""

    @cached_property
    def stacks(self) -> list[Stack]:
        """The opened stacks."""
        return [open_stack(spec) for spec in self.job.data]

    @property
    def volumes(self) -> list[TrainingVolume]:
        """Where samples are drawn."""
        return [stack.labelled for stack in self.stacks]

    def keys(self) -> dict[str, str]:
        """Return the key of every stage: parameters, inputs, and the keys of the stages before it."""
        job = self.job
        trained = self.trained_key()
        predicted = key_of(trained, "predict", *([] if job.orientations == 1 else [job.orientations]))
        segmented = key_of(predicted, job.segmentation.content_hash())
        evaluated = key_of(segmented, job.evaluation.content_hash())
        return {
            "train": trained,
            "predict": predicted,
            "segment": segmented,
            "evaluate": evaluated,
            "report": key_of(evaluated, job.name),
        }

    def segmented(self, item: HeldOut) -> Segmented:
        """Read back the fragments and the merge tree of a held-out box."""
        return load_segmented(self.path("segment", item))

    def path(self, stage: str, item: HeldOut) -> Path:
        """Return the container of a stage's output for one held-out box."""
        return self.folder / stage / f"{item.name}.zarr"


def _predict(this: Run) -> None:
    items = held_out(this.job.data)
    engine = Engine(this.hardware.torch_device)
    for done, item in enumerate(items, start=1):
        stack = this.job.data[item.stack]
        job = PredictJob(
            raw=stack.raw,
            model=str(this.checkpoint),
            output=str(this.path("predict", item)),
            box=BoxSpec(start=item.box.start, shape=item.box.shape),
            voxel_size_nm=stack.voxel_size_nm,
            orientations=this.job.orientations,
        )
        predict_volume(job, engine, executor=this.executor, discard=True)
        this.listener.advance("predict", done, len(items))


def _segment(this: Run) -> None:
    items = held_out(this.job.data)
    for done, item in enumerate(items, start=1):
        job = SegmentJob(
            affinities=str(this.path("predict", item) / "affinities"),
            output=str(this.path("segment", item)),
            segmentation=this.job.segmentation,
        )
        segment(job, this.executor, discard=True)
        this.listener.advance("segment", done, len(items))


def _evaluate(this: Run) -> None:
    verdict = judge(this.job, this.stacks, this.segmented)
    for item in held_out(this.job.data):
        grid = this.stacks[item.stack].raw.info.grid.crop(item.box)
        info = VolumeInfo(item.box.shape, np.dtype(np.uint64), grid, kind="labels")
        with staged(this.path("evaluate", item), overwrite=True) as folder:
            ids = this.segmented(item).at(verdict.threshold)
            create_volume(folder / "segmentation", info).write(info.box, ids)
    write_scores(this.folder / "evaluate", verdict.rows, **verdict.details())


def _report(this: Run) -> None:
    write_report(this.job, this.stacks, this.folder, this.provenance(STAGES))


run = Runner(
    Run, {"train": Run.train, "predict": _predict, "segment": _segment, "evaluate": _evaluate, "report": _report}
)
"""Runs a job in a folder, going on where an earlier call stopped."""
