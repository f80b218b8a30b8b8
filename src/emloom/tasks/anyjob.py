"""Every kind of job: how its file is read, what its schema is, and what carries it out.

A job file says its `kind`; one that does not is a `neurons` job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, TypeAdapter

from emloom.errors import InputError, did_you_mean
from emloom.nn.hardware import Hardware
from emloom.run.executor import Executor, Serial
from emloom.spec import Spec
from emloom.tasks import artifacts, check, forest, neurons, pipeline, reconstruction, semantic, synapsejob
from emloom.tasks.artifactjob import ArtifactJob
from emloom.tasks.checktraining import Finding
from emloom.tasks.forestjob import ForestJob
from emloom.tasks.job import NeuronsJob
from emloom.tasks.pipelinecheck import check_pipeline
from emloom.tasks.pipelinespec import PipelineJob
from emloom.tasks.reconstructionjob import ReconstructionJob
from emloom.tasks.semantic import SemanticJob
from emloom.tasks.steps import Listener, Silent
from emloom.tasks.study import ReconstructionStudy, run_study
from emloom.tasks.synapsejob import CleftsJob, PartnersJob

AnyJob = (
    NeuronsJob
    | SemanticJob
    | ForestJob
    | ReconstructionJob
    | ArtifactJob
    | CleftsJob
    | PartnersJob
    | ReconstructionStudy
    | PipelineJob
)
"""Whatever `emloom run` carries out."""

KINDS: Mapping[str, type[AnyJob]] = {
    "neurons": NeuronsJob,
    "semantic": SemanticJob,
    "forest": ForestJob,
    "reconstruction": ReconstructionJob,
    "artifacts": ArtifactJob,
    "clefts": CleftsJob,
    "partners": PartnersJob,
    "reconstruction_study": ReconstructionStudy,
    "pipeline": PipelineJob,
}
"""By `kind`."""


@dataclass(frozen=True)
class Where:
    """Where a job is carried out; never what it computes.

    Attributes:
        hardware: device and loader processes of trainings.
        executor: where blocks run.
        workers: runs of a study at a time.
        listener: told about progress.
    """

    hardware: Hardware = field(default_factory=Hardware)
    executor: Executor = field(default_factory=Serial)
    workers: int = 1
    listener: Listener = field(default_factory=Silent)


def load_any_job(path: str | Path) -> AnyJob:
    """Read a job file of any kind; raises `InputError` where it is unreadable or invalid."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError):
        data = None  # the kind's own reader says what is wrong
    kind = data.get("kind", "neurons") if isinstance(data, dict) else "neurons"
    if kind not in KINDS:
        hint = did_you_mean(str(kind), list(KINDS))
        raise InputError(f"{path}: kind {kind!r} is no kind of job{hint} (valid: {', '.join(KINDS)})")
    job: AnyJob = KINDS[kind].load(path)
    return job


def job_schema() -> dict[str, Any]:
    """Return the JSON schema of job files of all kinds."""
    union: TypeAdapter[Spec] = TypeAdapter(Annotated[AnyJob, Field(discriminator="kind")])
    return union.json_schema()


def check_job(job: AnyJob) -> list[Finding]:
    """Return what `emloom check` finds; raises `InputError` where data cannot be opened at all."""
    if isinstance(job, NeuronsJob):
        return check.check(job)
    if isinstance(job, SemanticJob):
        return check.check_semantic(job)
    if isinstance(job, ForestJob):
        return forest.check_forest(job)
    if isinstance(job, ReconstructionJob):
        return check.check_raw(job)
    if isinstance(job, ArtifactJob):
        return check.check_artifacts(job)
    if isinstance(job, CleftsJob | PartnersJob):
        return check.check_synapses(job)
    if isinstance(job, PipelineJob):
        return check_pipeline(job)
    seed = job.seeds[0]
    first = {run.arm: run.job for run in job.runs(Path()) if run.seed == seed and run.job.weights is None}
    return [
        Finding(finding.level, finding.what, f"{arm}: {finding.text}")
        for arm, each in first.items()
        for finding in check.check_raw(each)
    ]


def carry_out(
    job: AnyJob, folder: Path, where: Where, *, overwrite: bool = False, only_train: bool = False
) -> Path:
    """Run a job in a folder, going on where an earlier call stopped; return the path of its report.

    Args:
        job: what to do.
        folder: where everything is written.
        where: where it is computed.
        overwrite: do steps whose parameters or inputs changed, and all after them, again.
        only_train: stop after training.

    Raises:
        InputError: an input is bad, the folder holds another job and `overwrite` is not set, or it is asked of a
            study to stop after training or to overwrite.
    """
    until: Literal["train", "report"] = "train" if only_train else "report"
    how = (where.hardware, where.listener, overwrite, until, where.executor)
    if isinstance(job, NeuronsJob):
        return neurons.run(job, folder, *how)
    if isinstance(job, SemanticJob):
        return semantic.run(job, folder, *how)
    if isinstance(job, ForestJob):
        return forest.run(job, folder, *how)
    if isinstance(job, ReconstructionJob):
        return reconstruction.run(job, folder, *how)
    if isinstance(job, ArtifactJob):
        return artifacts.run(job, folder, *how)
    if isinstance(job, CleftsJob | PartnersJob):
        return synapsejob.run(job, folder, *how)
    if isinstance(job, PipelineJob):
        if only_train:
            raise InputError(f"{job.name} is a pipeline: `emloom run` does its trainings first, where it has any")
        return pipeline.run(job, folder, *how)
    if overwrite or only_train:
        raise InputError(
            f"{job.name} is a study of many runs, which is done as a whole and never overwritten: use "
            "`emloom run`, and another folder for another study"
        )
    return run_study(job, folder, where.hardware, where.listener, where.workers)
