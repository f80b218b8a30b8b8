"""`emloom run` of a pipeline: a raw stack to its connectome; what is done is skipped, what changed is done again.

::

    job.yaml  provenance.json  report.html  failure.txt (only after one)
    markers/<stage>.json, <stage>.what.json     that it is done, and what went into it
    qc/  align/  align-qc/  repair/  mask.zarr  neurons/  predict.zarr  segment.zarr  confidence/
    synapses-model/  predict-synapses.zarr  synapses/  connectome/  restored/  evaluate/

A stage whose key changed (`emloom.tasks.pipelinestages`) is done again, and so is what takes from it; nothing else
is touched. Its old result is deleted as it starts. Two things are never thrown away without `overwrite`: the
folder of another stack or another kind of job, and a training that was finished.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from emloom.errors import InputError
from emloom.io.files import explained, write_text_atomic
from emloom.nn.engine import Engine
from emloom.nn.hardware import Hardware
from emloom.nn.train import Progress
from emloom.run.executor import Executor, Serial
from emloom.run.provenance import write_provenance
from emloom.tasks import neurons, synapsejob
from emloom.tasks.align import align
from emloom.tasks.alignspec import AlignJob
from emloom.tasks.confidence import confidence
from emloom.tasks.confidencespec import ConfidenceJob
from emloom.tasks.connectome import ConnectomeJob, connectome
from emloom.tasks.job import NeuronsJob
from emloom.tasks.pipelineback import restore, score
from emloom.tasks.pipelinecheck import require_checked
from emloom.tasks.pipelinedry import require_disk
from emloom.tasks.pipelineguards import is_trained, require_own_folder, require_trainings
from emloom.tasks.pipelinemasks import MaskJob, make_mask
from emloom.tasks.pipelinereport import write_pipeline_report
from emloom.tasks.pipelinespec import PipelineJob, Trained
from emloom.tasks.pipelinestages import Layout, Stage, stages_of
from emloom.tasks.pipelinestatus import Record, Standing, to_do
from emloom.tasks.pipelinethresholds import decoder_of, threshold_of
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.qc import quality_control
from emloom.tasks.qcreport import write_qc_report
from emloom.tasks.qcspec import QcSpec
from emloom.tasks.repair import repair
from emloom.tasks.repairspec import RepairJob
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import SegmentJob
from emloom.tasks.steps import Listener, Silent
from emloom.tasks.synapsedecoders import ModelSpecs, SynapsesJob
from emloom.tasks.synapses import find_synapses

FAILURE = "failure.txt"
"""The whole trace of the failure that ended the last run."""


class StageFailedError(InputError):
    """A stage of a pipeline failed; what was finished before it is kept.

    Attributes:
        exit_status: of the command line that ends with it.
        stage: which.
        trace: file with the whole trace.
    """

    exit_status: int = 1

    def __init__(self, stage: str, problem: BaseException, trace: Path) -> None:
        words = " ".join(str(problem).split()) or "no message"
        kind = "" if isinstance(problem, InputError) else f"{type(problem).__name__}: "
        super().__init__(
            f"stage {stage} failed: {kind}{words if len(words) <= 300 else words[:300] + '...'} "
            f"(all of it: {trace}; what was finished is kept: the same command goes on from there)"
        )
        self.stage, self.trace = stage, trace


@dataclass(frozen=True)
class _Within:
    """Tells a listener about a job inside of a stage."""

    listener: Listener
    name: str

    def stage(self, name: str, skipped: bool) -> None:
        """Say that a step of the job starts."""
        self.listener.stage(f"{self.name}: {name}", skipped)

    def step(self, progress: Progress) -> None:
        """Say that a training step is done."""
        self.listener.step(progress)

    def advance(self, name: str, done: int, total: int) -> None:
        """Say that a part of a step is done."""
        self.listener.advance(f"{self.name}: {name}", done, total)


@dataclass(frozen=True)
class _Run:
    """One execution of a pipeline in a folder."""

    layout: Layout
    hardware: Hardware = field(default_factory=Hardware)
    listener: Listener = field(default_factory=Silent)
    executor: Executor = field(default_factory=Serial)
    overwrite: bool = False

    @property
    def job(self) -> PipelineJob:
        return self.layout.job

    @property
    def engine(self) -> Engine:
        return Engine(self.hardware.torch_device)

    def place(self, stage: str) -> str:
        return str(self.layout.path(stage))

    def tell(self, stage: str) -> Callable[[str, int, int], None]:
        return lambda name, done, total: self.listener.advance(f"{stage}: {name}", done, total)

    # ---- the stages -------------------------------------------------------------------------------------------

    def check(self) -> None:
        require_checked(self.job, self.layout.path("check"))

    def qc(self) -> None:
        stage = self.job.qc
        assert stage is not None
        spec = QcSpec(
            raw=self.job.raw,
            output=self.place("qc"),
            voxel_size_nm=self.job.voxel_size_nm,
            rules=stage.rules,
            masked=stage.masked,
            mask=stage.tissue,
        )
        write_qc_report(spec, quality_control(spec, self.executor, self.tell("qc")))

    def align(self) -> None:
        stage = self.job.align
        assert stage is not None
        job = AlignJob(
            raw=self.job.raw,
            output=self.place("align"),
            voxel_size_nm=self.job.voxel_size_nm,
            model=stage.model,
            links=stage.links,
            qc=self.place("qc") if self.job.qc else None,
        )
        align(job, self.executor, self.tell("align"), discard=True)

    def carry(self) -> None:
        job = MaskJob(what="carry", output=self.place("carry"), bad=self.place("qc"), by=self.place("align"))
        make_mask(job, self.executor, self.tell("carry"), discard=True)

    def repair(self) -> None:
        stage = self.job.repair
        assert stage is not None
        job = RepairJob(
            raw=self.place("align") if self.job.align else self.job.raw,
            output=self.place("repair"),
            qc=self.layout.qc,
            sections=stage.sections,
            fill=stage.fill,
            longest_run=stage.longest_run,
            voxel_size_nm=None if self.job.align else self.job.voxel_size_nm,
        )
        repair(job, self.executor, self.tell("repair"), discard=True)

    def mask(self) -> None:
        job = MaskJob(what="mask", output=self.place("mask"), bad=self.place("repair"))
        make_mask(job, self.executor, self.tell("mask"), discard=True)

    def neurons(self) -> None:
        self.train("neurons", self.job.trained["neurons"])

    def synapses_model(self) -> None:
        self.train("synapses-model", self.job.trained["synapses"])

    def train(self, name: str, job: Trained) -> None:
        folder, again = self.layout.path(name), self.overwrite or is_trained(self.layout, name, job)
        how: Any = (folder, self.hardware, _Within(self.listener, name), again, "report", self.executor)
        if isinstance(job, NeuronsJob):
            neurons.run(job, *how)
        else:
            synapsejob.run(job, *how)

    def predict(self) -> None:
        self._predict("predict", "neurons", self.layout.usable)

    def predict_synapses(self) -> None:
        self._predict("predict-synapses", "synapses", self.layout.measured)

    def _predict(self, name: str, section: Literal["neurons", "synapses"], mask: str | None) -> None:
        stage = getattr(self.job, section)
        job = PredictJob(
            raw=self.layout.raw,
            model=str(self.layout.model(section)),
            output=self.place(name),
            voxel_size_nm=self.layout.voxel_size_nm,
            orientations=stage.orientations,
            mask=mask,
        )
        predict_volume(job, self.engine, partial(self.listener.advance, name), self.executor, discard=True)

    def segment(self) -> None:
        stage = self.job.neurons
        assert stage is not None
        spec = stage.segmentation
        trained = self.job.trained.get("neurons")
        if spec is None and isinstance(trained, NeuronsJob):
            spec = trained.segmentation
        options = {} if spec is None else {"segmentation": spec}
        job = SegmentJob(
            affinities=str(self.layout.path("predict") / "affinities"),
            output=self.place("segment"),
            threshold=threshold_of(self.layout),
            mask=self.layout.usable,
            min_segment_vox=stage.min_segment_vox,
            **options,
        )
        segment(job, self.executor, self.tell("segment"), discard=True, revise=True)

    def confidence(self) -> None:
        bad = self.layout.measured
        job = ConfidenceJob(
            segmentation=self.place("segment"),
            output=self.place("confidence"),
            prediction=str(self.layout.path("predict") / "affinities"),
            masks=() if bad is None else (bad,),
            raw=self.layout.raw if self.layout.voxel_size_nm is None else None,  # for pictures
        )
        confidence(job, self.executor, self.tell("confidence"), discard=True)

    def synapses(self) -> None:
        stage = self.job.synapses
        assert stage is not None
        size = self.layout.voxel_size_nm
        job = SynapsesJob(
            segmentation=str(self.layout.path("segment") / "segmentation"),
            output=self.place("synapses"),
            raw=self.layout.raw if size is None else None,  # for pictures
            prediction=self.place("predict-synapses"),
            decoder=decoder_of(self.layout),
            clean=stage.clean,
            mask=self.layout.measured,
            predicting=ModelSpecs(),
        )
        find_synapses(job, self.executor, self.tell("synapses"), discard=True, engine=self.engine)

    def connectome(self) -> None:
        stage = self.job.synapses
        assert stage is not None
        job = ConnectomeJob(
            synapses=self.place("synapses"),
            output=self.place("connectome"),
            segmentation=str(self.layout.path("segment") / "segmentation"),
            autapses=stage.graph.autapses,
            minimum_score=stage.graph.minimum_score,
            minimum_weight=stage.graph.minimum_weight,
        )
        connectome(job, self.tell("connectome"), self.executor, discard=True)

    def restore(self) -> None:
        restore(self.layout, self.executor, self.tell("restore"), discard=True)

    def evaluate(self) -> None:
        score(self.layout, self.executor, self.tell("evaluate"), discard=True)

    def report(self) -> None:
        folder = self.layout.folder
        stages = stages_of(self.job)
        took = {s.stage.name: s.seconds for s in Record(folder).standings(stages) if s.seconds is not None}
        inputs = {path: stage.marks[name] for stage in stages for name, path in stage.inputs.items()}
        provenance = write_provenance(folder / "provenance.json", self.job.to_dict(), inputs, took)
        write_pipeline_report(self.layout, provenance)


def run(
    job: PipelineJob,
    folder: Path,
    hardware: Hardware | None = None,
    listener: Listener | None = None,
    overwrite: bool = False,
    until: str = "report",
    executor: Executor | None = None,
) -> Path:
    """Run a pipeline in a folder, going on where an earlier call stopped.

    Args:
        job: what to do.
        folder: where everything is written.
        hardware: where trainings and networks compute.
        listener: told about progress.
        overwrite: replace what belongs to another stack or kind of job, and train again where a finished training
            was of another job.
        until: last stage to do.
        executor: where blocks run; default in this process.

    Returns:
        Path of the report.

    Raises:
        InputError: an input is missing or does not fit, the folder holds something else, a finished training would
            be lost, or the disk is too small. All are found before anything is written.
        StageFailedError: a stage failed on the way.
    """
    layout = Layout(job, Path(folder).absolute())
    this = _Run(layout, hardware or Hardware(), listener or Silent(), executor or Serial(), overwrite)
    stages = stages_of(job)
    names = [stage.name for stage in stages]
    if until not in names:
        raise InputError(f"this pipeline has no stage {until!r}: it has {', '.join(names)}")
    require_own_folder(layout, overwrite)
    standings = Record(layout.folder).standings(stages)[: names.index(until) + 1]
    todo = to_do(standings)
    if not overwrite:
        require_trainings(layout, todo)
    require_disk(layout, standings, todo)
    with explained(layout.folder):
        layout.folder.mkdir(parents=True, exist_ok=True)
    if todo:
        write_text_atomic(layout.folder / "job.yaml", job.to_yaml())
    _carry_out(this, standings, todo)
    return layout.path("report")


def _carry_out(this: _Run, standings: Sequence[Standing], todo: set[str]) -> None:
    folder = this.layout.folder
    record, keys = Record(folder), {s.stage.name: s.stage.key for s in standings}
    for standing in standings:
        stage = standing.stage
        this.listener.stage(stage.name, stage.name not in todo)
        if stage.name in todo:
            _do(this, stage, record, keys)
    (folder / FAILURE).unlink(missing_ok=True)


def _do(this: _Run, stage: Stage, record: Record, keys: Mapping[str, str]) -> None:
    work: Callable[[], None] = getattr(this, stage.name.replace("-", "_"))
    try:
        with record.journal.record(stage.name, stage.key):
            record.journal.forget(stage.name)
            work()
            record.save(stage, keys)
    except Exception as problem:
        trace = this.layout.folder / FAILURE
        write_text_atomic(trace, f"stage {stage.name}\n\n{traceback.format_exc()}")
        raise StageFailedError(stage.name, problem, trace) from problem


__all__ = ["FAILURE", "StageFailedError", "run"]
