"""What a pipeline never throws away by accident: folders of others, and trainings that were finished."""

from __future__ import annotations

from pathlib import Path

import yaml

from emloom.errors import InputError
from emloom.run.journal import Journal
from emloom.tasks import neurons, synapsejob
from emloom.tasks.job import NeuronsJob
from emloom.tasks.pipelinespec import PipelineJob, Trained, TrainedHere
from emloom.tasks.pipelinestages import Layout, stages_of
from emloom.tasks.pipelinestatus import Record, differences


def require_own_folder(layout: Layout, overwrite: bool) -> None:
    """Raise `InputError` where a folder holds something else than this pipeline."""
    folder = layout.folder
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    way_out = "choose another folder (-o), or pass --overwrite to replace what stands in its way"
    path = folder / "job.yaml"
    if not folder.is_dir() or not path.is_file():
        raise InputError(f"{folder} holds something that no pipeline made: choose another folder (-o)")
    try:
        before = yaml.safe_load(path.read_text(encoding="utf-8"))
        kind, raw = before.get("kind"), before.get("raw")
    except (OSError, ValueError, AttributeError, yaml.YAMLError) as problem:
        raise InputError(f"{path} is damaged ({problem}): {way_out}") from None
    if overwrite:
        return
    if kind != "pipeline":
        raise InputError(f"{folder} belongs to a job of kind {kind!r}: {way_out}")
    if raw != layout.job.raw:
        raise InputError(f"{folder} is the pipeline of another stack ({raw}, not {layout.job.raw}): {way_out}")


def require_trainings(layout: Layout, todo: set[str]) -> None:
    """Raise `InputError` where a finished training of another job would be replaced: it may have taken days."""
    for name, stage in (("neurons", layout.job.neurons), ("synapses-model", layout.job.synapses)):
        if stage is None or name not in todo or not isinstance(stage.source, TrainedHere):
            continue
        marker = Journal(layout.path(name)).marker("train")
        if marker is not None and not is_trained(layout, name, stage.source.job):
            what = Record(layout.folder).what(name)
            now = next(s for s in stages_of(layout.job) if s.name == name)
            why = "; ".join(differences(what, now.what({}))) if what else "its job or its data changed"
            raise InputError(
                f"the training in {layout.path(name)} is finished ({marker.seconds:.0f} s) and would be lost "
                f"({why}): pass --overwrite to train again, choose another folder, or name its model as the "
                f"source (kind: model, model: {layout.path(name) / 'train' / 'model.safetensors'})"
            )


def is_trained(layout: Layout, name: str, job: Trained) -> bool:
    """Whether the very training is finished, so that its later steps may be done again."""
    folder = layout.path(name)
    marker = Journal(folder).marker("train")
    if marker is None:
        return False
    if isinstance(job, NeuronsJob):
        keys = neurons.Run(job, folder).keys()
    else:
        keys = synapsejob.SynapseRun(job, folder).keys()
    return marker.key == keys["train"]


def read_job(folder: Path) -> PipelineJob:
    """Return the job of a pipeline's folder; raises `InputError` where it is none."""
    path = folder / "job.yaml"
    if not path.is_file():
        raise InputError(f"{folder} holds no job.yaml: it is no folder of `emloom run`")
    return PipelineJob.load(path)
