"""The stages of a pipeline as values: where each writes, what decides its result, what it takes from which.

::

    check   qc   align   carry   repair   mask   neurons   predict   segment   confidence
    synapses-model   predict-synapses   synapses   connectome   restore   evaluate   report

The key of a stage is a hash of its own parameters, of the fingerprints of its inputs from outside, and of the keys
of the stages it takes from. Nothing else decides: not the name of the job, not where it runs. Beside the marker of
a finished stage lies what went into its key (`markers/<stage>.what.json`), so that a later run can say *which*
parameter or input changed, not only that one did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.run.journal import key_of
from emloom.run.provenance import fingerprint
from emloom.tasks.pipelinespec import NeuronsStage, PipelineJob, SynapsesStage, TrainedHere, TrainedModel

FORMAT = 1
"""Part of every key: counted up when what a stage makes changes."""
PLACES: Mapping[str, str] = {
    "check": "check.json",
    "qc": "qc",
    "align": "align",
    "carry": "align-qc",
    "repair": "repair",
    "mask": "mask.zarr",
    "neurons": "neurons",
    "predict": "predict.zarr",
    "segment": "segment.zarr",
    "confidence": "confidence",
    "synapses-model": "synapses-model",
    "predict-synapses": "predict-synapses.zarr",
    "synapses": "synapses",
    "connectome": "connectome",
    "restore": "restored",
    "evaluate": "evaluate",
    "report": "report.html",
}
"""What every stage makes, in the folder of the pipeline; in their order."""
CHECKPOINT = Path("train", "model.safetensors")
_NETWORKS = {"neurons": ("neurons", "predict"), "synapses": ("synapses-model", "predict-synapses")}


@dataclass(frozen=True)
class Stage:
    """One stage of one pipeline.

    Attributes:
        name: one of `PLACES`.
        parameters: what decides its result, nested as in the job file.
        inputs: paths from outside, by the name they have in the job file.
        after: stages it takes from.
        key: hash of all that.
        marks: fingerprints of the inputs.
    """

    name: str
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]
    after: tuple[str, ...]
    key: str = ""
    marks: Mapping[str, str] = field(default_factory=dict)

    def what(self, keys: Mapping[str, str]) -> dict[str, Any]:
        """Return what is kept to explain the key, as plain JSON values."""
        after = {name: keys[name] for name in self.after}
        inputs = {name: [path, self.marks[name]] for name, path in self.inputs.items()}
        return {"key": self.key, "parameters": dict(self.parameters), "inputs": inputs, "after": after}


@dataclass(frozen=True)
class Layout:
    """Where the parts of a pipeline lie, and which masks hold where.

    Attributes:
        job: the pipeline.
        folder: of the pipeline, absolute.
    """

    job: PipelineJob
    folder: Path

    def path(self, stage: str) -> Path:
        """Return where a stage writes."""
        return self.folder / PLACES[stage]

    @property
    def moves(self) -> str | None:
        """The stage whose folder holds the map from the raw to what is segmented; None: that is the raw."""
        return "repair" if self.job.repair else "align" if self.job.align else None

    @property
    def raw(self) -> str:
        """What networks see."""
        return self.job.raw if self.moves is None else str(self.path(self.moves) / "raw.zarr")

    @property
    def voxel_size_nm(self) -> Vec3 | None:
        """Voxel size to be said with `raw`: what was moved states its own."""
        return self.job.voxel_size_nm if self.moves is None else None

    @property
    def qc(self) -> str | None:
        """Folder of what quality control says about the stack that is repaired: of the raw, or carried along."""
        if self.job.qc is None:
            return None
        return str(self.path("carry" if self.job.align else "qc"))

    @property
    def usable(self) -> str | None:
        """Where neurons are predicted and segmented: all tissue that was measured, or filled in by repair.

        A filled section is there so that neurons go through it; what is bad and was left, and what lies outside,
        is nothing.
        """
        if self.job.repair:
            return str(self.path("mask"))
        return self.qc or (str(self.path("align")) if self.job.align else None)

    @property
    def measured(self) -> str | None:
        """Where synapses may be found, and results be scored: nothing that was made up is evidence."""
        return str(self.path("repair")) if self.job.repair else self.usable

    @property
    def usable_after(self) -> tuple[str, ...]:
        """The stages that the raw and the mask of the networks come from."""
        if self.job.repair:
            return ("repair", "mask")
        if self.job.align:
            return ("align", "carry") if self.job.qc else ("align",)
        return ("qc",) if self.job.qc else ()

    def model(self, kind: Literal["neurons", "synapses"]) -> Path:
        """Return the checkpoint of a network; raises `InputError` where a given one does not exist."""
        stage = self.job.neurons if kind == "neurons" else self.job.synapses
        assert stage is not None
        if isinstance(stage.source, TrainedModel):
            if not Path(stage.source.path).exists():
                raise InputError(f"{kind}.source.model {stage.source.model} does not exist: check the path")
            return Path(stage.source.path)
        return self.path("neurons" if kind == "neurons" else "synapses-model") / CHECKPOINT


def stages_of(job: PipelineJob) -> list[Stage]:
    """Return the stages of a pipeline in their order, with keys.

    Raises:
        InputError: an input from outside does not exist.
    """
    marks: dict[str, str] = {}
    keys: dict[str, str] = {}
    out = []
    for stage in _unkeyed(job):
        for path in stage.inputs.values():
            if path not in marks:
                marks[path] = fingerprint(path)
        own = {name: marks[path] for name, path in stage.inputs.items()}
        after = [keys[name] for name in stage.after]
        key = key_of(FORMAT, stage.name, dict(stage.parameters), own, after)
        keys[stage.name] = key
        out.append(Stage(stage.name, stage.parameters, stage.inputs, stage.after, key, own))
    return out


def _unkeyed(job: PipelineJob) -> Iterator[Stage]:
    """Yield the stages without keys; what is outside of the job file's sections comes first."""
    layout = Layout(job, Path())
    stages = [_check(job), *_stack(job)]
    if job.neurons is not None:
        stages += _neurons(job, layout)
    if job.synapses is not None:
        stages += _synapses(job, layout)
    stages += _ends(job, layout)
    yield from stages
    yield Stage("report", {"name": job.name}, {}, tuple(stage.name for stage in stages))


def _plain(spec: Any, *, without: Sequence[str] = ()) -> dict[str, Any]:
    plain: dict[str, Any] = spec.model_dump(mode="json", exclude=set(without))
    return plain


def _check(job: PipelineJob) -> Stage:
    inputs = {"raw": job.raw}
    words: dict[str, Any] = {"voxel_size_nm": job.voxel_size_nm}
    for name, stage in (("neurons", job.neurons), ("synapses", job.synapses)):
        if stage is not None:
            inputs |= _source_inputs(name, stage.source)
            words[name] = {"source": _source_words(stage.source)}
    if job.truth is not None:
        inputs |= _truth_inputs(job)
    return Stage("check", words, inputs, ())


def _stack(job: PipelineJob) -> Iterator[Stage]:
    size = {"voxel_size_nm": job.voxel_size_nm}
    raw = {"raw": job.raw}
    qc: tuple[str, ...] = ("qc",) if job.qc else ()
    if job.qc is not None:
        tissue = {} if job.qc.tissue is None else {"qc.tissue": job.qc.tissue}
        yield Stage("qc", {**size, "qc": _plain(job.qc, without=["tissue"])}, raw | tissue, ())
    if job.align is not None:
        yield Stage("align", {**size, "align": _plain(job.align)}, raw, qc)
        if job.qc is not None:
            yield Stage("carry", {}, {}, ("qc", "align"))
    if job.repair is not None:
        seen = ("align", *(("carry",) if job.qc else ())) if job.align else qc
        yield Stage("repair", {**size, "repair": _plain(job.repair)}, raw, seen)
        yield Stage("mask", {}, {}, ("repair",))


def _neurons(job: PipelineJob, layout: Layout) -> Iterator[Stage]:
    stage = job.neurons
    assert stage is not None
    yield from (network := _network(job, layout, "neurons", stage))
    own = _plain(stage, without=["source", "orientations"])
    mask = tuple(name for name in layout.usable_after if name != "align" or not job.repair)
    yield Stage("segment", {"neurons": own}, {}, _once(*(made.name for made in network), *mask))
    yield Stage("confidence", {}, {}, _once("predict", "segment", *layout.usable_after))


def _synapses(job: PipelineJob, layout: Layout) -> Iterator[Stage]:
    stage = job.synapses
    assert stage is not None
    yield from (network := _network(job, layout, "synapses", stage))
    own = _plain(stage, without=["source", "orientations", "graph"])
    sides = getattr(stage.decoder, "sides", None)
    files = {} if sides is None else {"synapses.decoder.sides": sides}
    before = (*(made.name for made in network), "segment", *layout.usable_after)
    yield Stage("synapses", {"synapses": own}, files, _once(*before))
    yield Stage("connectome", {"synapses": {"graph": _plain(stage.graph)}}, {}, ("segment", "synapses"))


def _network(
    job: PipelineJob, layout: Layout, section: Literal["neurons", "synapses"], stage: NeuronsStage | SynapsesStage
) -> list[Stage]:
    """Return the training, if there is one, and the prediction of a section of the job file."""
    training, predict = _NETWORKS[section]
    seen, source = _seen(job, layout), stage.source
    words = {**seen.parameters, section: {"orientations": stage.orientations}}
    if isinstance(source, TrainedModel):
        return [Stage(predict, words, {**seen.inputs, **_source_inputs(section, source)}, seen.after)]
    return [_training(training, section, source), Stage(predict, words, seen.inputs, (*seen.after, training))]


def _once(*names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _ends(job: PipelineJob, layout: Layout) -> Iterator[Stage]:
    found = tuple(n for n, s in (("segment", job.neurons), ("synapses", job.synapses)) if s)
    if layout.moves and job.neurons:
        yield Stage("restore", {}, {"raw": job.raw}, (layout.moves, *found))
    if job.truth is not None and job.neurons:
        graph = ("connectome",) if job.synapses else ()
        back = ("restore",) if layout.moves else ()
        words = {"truth": _plain(job.truth, without=["labels", "synapses"])}
        inputs = {"raw": job.raw, **_truth_inputs(job)}
        yield Stage("evaluate", words, inputs, (*layout.usable_after, *found, *graph, *back))


def _seen(job: PipelineJob, layout: Layout) -> Stage:
    """Return what decides the raw that networks see, in the form of a stage."""
    if layout.moves is None:
        return Stage("", {"voxel_size_nm": job.voxel_size_nm}, {"raw": job.raw}, layout.usable_after)
    return Stage("", {}, {}, layout.usable_after)


def _training(name: str, section: str, source: TrainedHere) -> Stage:
    return Stage(name, {section: {"source": _source_words(source)}}, _source_inputs(section, source), ())


def _source_words(source: TrainedModel | TrainedHere) -> dict[str, Any]:
    if isinstance(source, TrainedModel):
        return {"kind": "model"}
    return {"kind": "train", "job": _plain(source.job, without=["name"])}


def _source_inputs(section: str, source: TrainedModel | TrainedHere) -> dict[str, str]:
    if isinstance(source, TrainedModel):
        return {f"{section}.source.model": source.path}
    return {f"{section}.source.job ({path})": path for path in source.job.paths}


def _truth_inputs(job: PipelineJob) -> dict[str, str]:
    truth = job.truth
    assert truth is not None
    named = {"truth.labels": truth.labels, "truth.synapses": truth.synapses}
    return {name: path for name, path in named.items() if path is not None}
