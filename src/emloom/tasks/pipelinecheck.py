"""What can be known of a pipeline before anything is computed: `emloom check`, and the first stage of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from math import isclose
from pathlib import Path

from emloom.errors import InputError
from emloom.geometry.grid import TOLERANCE_VOX
from emloom.io.checks import require_labels
from emloom.io.files import write_text_atomic
from emloom.io.open import open_volume
from emloom.io.volume import VolumeInfo
from emloom.nn.checkpoint import load_checkpoint
from emloom.nn.model import ModelSpec
from emloom.tasks import check
from emloom.tasks.alignsource import Source
from emloom.tasks.checktraining import Finding
from emloom.tasks.lattice import common_box, on_grid_of
from emloom.tasks.pipelinespec import PipelineJob, TrainedHere, TrainedModel, TruthSpec
from emloom.tasks.synapsedecoders import Decoder
from emloom.tasks.synapsescene import HEADS
from emloom.tasks.synapsesource import read_source


def check_pipeline(job: PipelineJob) -> list[Finding]:
    """Return every finding about a pipeline and its jobs; raises `InputError` where the raw does not open."""
    return list(_findings(job, whole=True))


def require_checked(job: PipelineJob, path: Path) -> None:
    """Check a pipeline, but for the proofs of its trainings, and write what was found.

    Raises:
        InputError: something is wrong; everything that is stands in the message.
    """
    found = list(_findings(job, whole=False))
    errors = [finding for finding in found if finding.level == "error"]
    if errors:
        raise InputError("; ".join(f"{finding.what}: {finding.text}" for finding in errors))
    write_text_atomic(path, json.dumps([asdict(finding) for finding in found], indent=1))


def _findings(job: PipelineJob, *, whole: bool) -> Iterator[Finding]:
    raw = open_volume(job.raw, voxel_size_nm=job.voxel_size_nm, kind="raw").info
    yield Finding("ok", "raw", f"{job.raw}: {raw.shape} voxels of {raw.grid.voxel_size_nm} nm, {raw.dtype}")
    if raw.channels is not None or raw.dtype.kind not in "ui" or raw.dtype.itemsize > 2:
        yield Finding("error", "raw", f"{job.raw} is {raw.axes} of {raw.dtype}: give grey values of 8 or 16 bits")
    yield from _stack(job)
    for name, stage in (("neurons", job.neurons), ("synapses", job.synapses)):
        if stage is not None:
            decoder = getattr(stage, "decoder", None)
            yield from _source(name, stage.source, raw, decoder, whole=whole)
    if job.truth is not None:
        yield from _truth(job, job.truth)


def _stack(job: PipelineJob) -> Iterator[Finding]:
    volume = open_volume(job.raw, voxel_size_nm=job.voxel_size_nm, kind="raw")
    if job.qc is not None and job.qc.tissue is not None:
        yield from _tried("qc.tissue", lambda: on_grid_of(volume, str(job.qc and job.qc.tissue)))
    if job.align is not None:
        yield from _tried("align", lambda: Source(job.raw, job.voxel_size_nm).volume)
    if job.repair is not None:
        named = {*job.repair.sections.bad, *job.repair.sections.good, *job.repair.sections.cracked}
        beyond = sorted(z for z in named if z >= volume.info.shape[0])
        if beyond:
            text = f"section {beyond[0]} does not exist: the stack has {volume.info.shape[0]}, the first is 0"
            yield Finding("error", "repair", text)
    if job.qc is None and (job.neurons or job.synapses):
        yield Finding("warning", "qc", "left out: nobody looks for bad sections, and none is masked")


def _source(
    name: str, source: TrainedModel | TrainedHere, raw: VolumeInfo, decoder: Decoder | None, *, whole: bool
) -> Iterator[Finding]:
    size = raw.grid.voxel_size_nm
    if isinstance(source, TrainedHere):
        for path in source.job.paths:
            if "://" not in path and not _is_there(path):
                yield Finding("error", name, f"{path} does not exist: check the path")
        if whole:
            found = check.check(source.job) if name == "neurons" else check.check_synapses(source.job)  # type: ignore[arg-type]
            yield from (Finding(f.level, f"{name}: {f.what}", f.text) for f in found)
        seen = open_volume(source.job.data[0].raw, voxel_size_nm=source.job.data[0].voxel_size_nm, kind="raw")
        yield _size(name, seen.info.grid.voxel_size_nm, size)
        return
    try:
        _, text, _ = load_checkpoint(Path(source.path))
        spec = ModelSpec.from_yaml(text, f"the spec inside {source.model}")
    except InputError as problem:
        yield Finding("error", name, str(problem))
        return
    yield _size(name, spec.voxel_size_nm, size)
    heads = set(spec.objective.heads)
    wanted = {"affinities"} if name == "neurons" else set(HEADS[decoder.kind]) if decoder else set()
    if not wanted <= heads:
        yield Finding(
            "error",
            name,
            f"{source.model} has heads {', '.join(sorted(heads))}, and {', '.join(wanted)} is needed",
        )


def _is_there(path: str) -> bool:
    return any(
        place.exists() for place in (Path(path), *Path(path).parents[:-1]) if place.suffix or place.exists()
    )


def _size(name: str, model: tuple[float, ...], raw: tuple[float, ...]) -> Finding:
    if all(isclose(a, b, rel_tol=TOLERANCE_VOX) for a, b in zip(model, raw, strict=True)):
        return Finding("ok", name, f"the model is for voxels of {model} nm, those of the raw")
    text = f"the model is for voxels of {model} nm, the raw has {raw} nm: resample it, or use another model"
    return Finding("error", name, text)


def _truth(job: PipelineJob, truth: TruthSpec) -> Iterator[Finding]:
    raw = open_volume(job.raw, voxel_size_nm=job.voxel_size_nm, kind="raw")
    if truth.labels is not None:

        def labels() -> None:
            volume = open_volume(str(truth.labels), kind="labels")
            require_labels(volume)
            common_box(raw, volume)

        yield from _tried("truth.labels", labels)
    if truth.synapses is not None:
        size = raw.info.grid.voxel_size_nm
        yield from _tried("truth.synapses", lambda: read_source(str(truth.synapses), size))
    for number, spec in enumerate(truth.boxes):
        if spec.box.is_empty or not raw.info.box.contains(spec.box):
            text = f"box {number}, {spec.box}, is empty or leaves {job.raw}, which is {raw.info.box}"
            yield Finding("error", "truth.boxes", text)


def _tried(what: str, act: object) -> Iterator[Finding]:
    try:
        act()  # type: ignore[operator]
    except InputError as problem:
        yield Finding("error", what, str(problem))
    else:
        yield Finding("ok", what, "fits the raw")
