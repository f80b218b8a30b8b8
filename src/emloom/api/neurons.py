"""Networks and what they make: check, train, predict, segment; and whole jobs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

from emloom.api.parts import (
    OnBlock,
    OnDevice,
    ProgressListener,
    Result,
    Source,
    Target,
    WhereAnew,
    executor_for,
    maybe_path,
    path_of,
    require_known,
    stages_told,
    voxel_size_of,
    words_of,
)
from emloom.geometry import Box
from emloom.io.open import inspect, open_volume
from emloom.io.volume import Volume

if TYPE_CHECKING:
    from emloom.tasks.anyjob import AnyJob
    from emloom.tasks.checktraining import Finding


def check(job: AnyJob | Target) -> list[Finding]:
    """Prove, before any training, that data and job fit together (`emloom check`).

    Args:
        job: a job, the path of a job file, or a recipe like ``emloom.recipes.fib25:quick``.

    Raises:
        InputError: the job is not valid, or its data cannot be opened.
    """
    from emloom.tasks.anyjob import check_job

    return check_job(_job(job))


def train(
    job: AnyJob | Target,
    output: Target,
    *,
    device: str = "auto",
    workers: int = 1,
    progress: OnBlock | None = None,
) -> Path:
    """Train the network of a job, and stop there (`emloom train`).

    Args:
        job: a job, the path of a job file, or a recipe.
        output: folder of the job; `run` goes on in it.
        device: auto, cpu or cuda.
        workers: processes that load samples; 0 for none.
        progress: is told ("train", steps done, steps in all).

    Returns:
        Path of the model, for `predict`.

    Raises:
        InputError: the job is not valid, its data do not open, or the folder holds another job.
    """
    from emloom.nn.hardware import Hardware
    from emloom.tasks.anyjob import Where as Place
    from emloom.tasks.anyjob import carry_out

    place = Place(Hardware(device, 1, workers), listener=ProgressListener(progress or (lambda *_: None)))
    carry_out(_job(job), Path(output), place, only_train=True)
    return Path(output) / "train" / "model.safetensors"


def predict(
    raw: Source,
    model: Target,
    output: Target,
    *,
    box: Box | None = None,
    mask: Source | None = None,
    orientations: Literal[1, 4, 8, 16] = 1,
    **where: Unpack[OnDevice],
) -> dict[str, Volume]:
    """Predict a volume of any size with a trained model (`emloom predict`).

    Args:
        raw: the volume.
        model: a model.safetensors that `train` wrote.
        output: container (`.zarr`) to be made.
        box: only these voxels.
        mask: only where this is not 0; or a folder of `qc` or `repair`.
        orientations: predictions averaged: 4 mirrors in the section, 8 all, 16 and transposed.
        where: see `OnDevice`; `settings` are those of `PredictJob`.

    Returns:
        What was predicted, by head: ``{"affinities": volume}`` of a model of neurons.

    Raises:
        InputError: an input is missing, the voxel size is not the model's, or the output is another job's.
    """
    from emloom.nn.engine import Engine
    from emloom.nn.hardware import Hardware
    from emloom.tasks.predict import PredictJob, predict_volume

    given = {"raw": path_of(raw), "model": str(model), "output": str(output), **voxel_size_of(raw)}
    given |= {"box": None if box is None else {"start": box.start, "shape": box.shape}, "mask": maybe_path(mask)}
    with executor_for(where, OnDevice) as executor:
        job = PredictJob.from_dict(words_of({**given, "orientations": orientations}, where), "predict")
        engine, tell = Engine(Hardware(where.get("device", "auto")).torch_device), stages_told(where)
        predict_volume(job, engine, lambda *n: tell("predict", *n), executor, where.get("overwrite", False))
    return {Path(hit.path).name: open_volume(hit.path) for hit in inspect(output)}


def segment(
    affinities: Source,
    output: Target,
    threshold: float,
    *,
    mask: Source | None = None,
    min_segment_vox: int = 0,
    **where: Unpack[WhereAnew],
) -> Volume:
    """Join affinities into segments, at any size (`emloom segment`).

    Args:
        affinities: uint8, as `predict` returns them.
        output: container (`.zarr`) to be made; the region graph and the merge tree stay in it.
        threshold: affinity at which merging stops; higher merges less.
        mask: nothing is segmented where this is 0; or a folder of `qc` or `repair`.
        min_segment_vox: smaller segments become background.
        where: see `WhereAnew`; `settings` are those of `SegmentJob`, e.g. ``{"segmentation": {...}}``.

    Returns:
        The segmentation: uint64 ids, 0 is background.

    Raises:
        InputError: these are no affinities, memory is too small, or the output is another job's.
    """
    from emloom.tasks.memoryplan import memory_plan
    from emloom.tasks.segmenting import segment as execute
    from emloom.tasks.segmentspec import SegmentJob

    given = {"affinities": path_of(affinities), "output": str(output), "threshold": threshold}
    given |= {"mask": maybe_path(mask), "min_segment_vox": min_segment_vox}
    with executor_for(where, WhereAnew) as executor:
        job = SegmentJob.from_dict(words_of(given, where), "segment")
        plan = memory_plan(job)
        if "scheduler" not in where:
            plan.require(where.get("workers", 1))
        overwrite, graph = where.get("overwrite", False), plan.graph_bytes
        made = execute(job, executor, stages_told(where), overwrite, graph_bytes=graph)
    return open_volume(made / "segmentation")


def run(
    job: AnyJob | Target,
    output: Target | None = None,
    *,
    loaders: int = 1,
    **where: Unpack[OnDevice],
) -> Result:
    """Carry out a whole job: train, predict, segment and evaluate, or whatever its kind is (`emloom run`).

    Args:
        job: a job, the path of a job file, or a recipe like ``emloom.recipes.fib25:quick``.
        output: folder; default ``runs/<name of the job>``.
        loaders: processes that load training samples; 0 for none.
        where: see `OnDevice`; what a job computes stands in the job alone, so there are no `settings`.

    Returns:
        `folder` and `report`; `summary`: what stands in provenance.json, of a study its name.

    Raises:
        InputError: the job is not valid, its data do not open, or the folder holds another job.
    """
    from emloom.errors import InputError
    from emloom.nn.hardware import Hardware
    from emloom.tasks.anyjob import Where as Place
    from emloom.tasks.anyjob import carry_out

    require_known(where, OnDevice)
    if where.get("settings"):
        raise InputError("settings mean nothing to a job, which says everything itself: change the job")
    spec = _job(job)
    folder = Path(output or f"runs/{spec.name}")
    workers, hardware = where.get("workers", 1), Hardware(where.get("device", "auto"), 1, loaders)
    # A study spreads its runs over the workers, not their blocks.
    blocks = {**where, "workers": 1} if spec.kind == "reconstruction_study" else where
    with executor_for(blocks, OnDevice) as executor:
        place = Place(hardware, executor, workers, ProgressListener(stages_told(where)))
        page = carry_out(spec, folder, place, overwrite=where.get("overwrite", False))
    if not (page.parent / "provenance.json").exists():  # a study: each of its runs has one
        return Result(page.parent, {"name": spec.name})
    return Result.of(page.parent, "provenance.json")


def _job(job: AnyJob | Target) -> AnyJob:
    from emloom.tasks.jobsource import load_job

    return load_job(str(job)) if isinstance(job, str | Path) else job
