"""What `emloom plan` says: what was found and chosen, what it costs, what it cannot do, and what comes next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from emloom.io.volume import VolumeInfo
from emloom.tasks.info import bytes_text
from emloom.tasks.job import NeuronsJob
from emloom.tasks.pipelinedry import duration
from emloom.tasks.pipelinespec import PipelineJob
from emloom.tasks.planlabels import LabelsLook
from emloom.tasks.planmachine import STORED, Machine
from emloom.tasks.planneurons import Planned
from emloom.tasks.planseen import Labels, Seen
from emloom.tasks.plansynapses import SynapseLook
from emloom.tasks.planwords import columns

LOST_BITS, MUCH_BITS = 0.1, 0.5
Rows = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Told:
    """What is said.

    Attributes:
        found: rows of a word and a sentence.
        costs: the same; estimates.
        hints: what is not done and why, what looks wrong.
        lost_bits: of a validation box, from targets of the labels themselves to segments; None: nothing is
        trained.
        file: the job file.
    """

    found: Rows
    costs: Rows
    hints: tuple[str, ...]
    lost_bits: float | None
    file: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "file": self.file,
            "found": dict(self.found),
            "costs_estimated": dict(self.costs),
            "hints": list(self.hints),
            "oracle_bits": self.lost_bits,
            "next": f"emloom run {self.file}",
        }

    def to_text(self, chosen: Sequence[tuple[str, str]]) -> str:
        """Return what a person reads."""
        lines = ["found", *columns(self.found), "chosen", *columns(chosen)]
        if self.lost_bits is not None:
            text = f"ground truth -> targets -> segments loses {self.lost_bits:.3f} bits of VOI"
            lines += columns([("proof", f"{text}: {_verdict(self.lost_bits)}")])
        lines += ["costs (estimates)", *columns(self.costs)] if self.costs else []
        for hint in self.hints:
            lines += columns([("note", hint)])
        return "\n".join([*lines, f"next: emloom run {self.file}"])


def _verdict(bits: float) -> str:
    if bits <= LOST_BITS:
        return "as good as nothing"
    return "less than a network loses" if bits <= MUCH_BITS else "much: are these labels one piece per neurite?"


def found_rows(seen: Seen, labels: Labels | None, synapses: SynapseLook | None) -> Iterator[tuple[str, str]]:
    """Yield what was seen."""
    look, info = seen.look, seen.look.info
    size = " x ".join(f"{v:g}" for v in look.size_nm)
    shape = " x ".join(map(str, info.shape))
    kind = "flat: sections are thicker than pixels" if look.flat else "isotropic, or nearly so"
    yield "raw", f"{shape} {info.dtype} at {size} nm, {kind}"
    yield "sample", f"{look.read_vox / 1e6:.1f} Mvoxel, {look.share:.2%} of the raw"
    yield "grey", f"{look.low:g} to {look.high:g} (1st and 99th percentile)"
    quality = seen.quality
    if quality is None:
        yield "sections", f"not judged: quality control counts 8 and 16 bits, not {info.dtype}"
    else:
        flags = "none stands out" if not quality.flags else f"{len({z for z, _ in quality.flags})} stand out"
        near = f"; nine of ten lie within {quality.aside_nm or 0:.0f} nm of where the one before does"
        aside = near if quality.aside_nm is not None else ""
        yield "sections", f"{quality.sections} looked at, {flags}{aside}"
    if labels is not None:
        yield "labels", _labels_words(labels, labels.look)
    if synapses is not None:
        what = (
            "a volume of clefts" if synapses.clefts is not None else f"{len(synapses.voxels)} pre sites in the raw"
        )
        yield "synapses", f"{what}: {synapses.kind} can be learned"


def _labels_words(labels: Labels, look: LabelsLook) -> str:
    if look.kind != "neurons":
        return (
            f"{look.kind}, not dense neuron ids: {look.ids} values in {look.pieces} pieces, {look.zeros:.0%} are 0"
        )
    where = "all of the raw" if labels.whole and labels.region == labels.part else f"{labels.region} of the raw"
    width = f"median width {look.width_nm:.0f} nm" if look.width_nm else "no width could be measured"
    return (
        f"{look.ids} dense ids in {where}; {width}; {look.zeros:.0%} are 0, {look.glued:.0%} of borders have no 0"
    )


def cost_rows(
    job: PipelineJob, planned: Planned | None, raw: VolumeInfo, machine: Machine
) -> Iterator[tuple[str, str]]:
    """Yield what a job costs, as estimates."""
    if job.neurons is None:
        return
    voxels = raw.box.size
    trained = [f"{stage.training.steps} steps of {name}" for name, stage in job.trained.items()]
    if planned is not None:
        yield "training", f"{' and '.join(trained)}; neurons about {planned.minutes:.0f} min on {machine.text}"
        yield (
            "memory",
            f"about {planned.weight.memory_gib:.1f} GiB to train {planned.weight.parameters / 1e6:.1f} M "
            f"parameters",
        )
        predict = machine.predict_seconds(planned.weight.per_voxel, voxels)
        segment = machine.segment_seconds(voxels)
        yield "all of it", f"prediction about {duration(predict)}, segmentation about {duration(segment)}"
    channels = 9 if planned is None else len(planned.job.objective.neighborhood)
    copies = raw.dtype.itemsize * sum(stage is not None for stage in (job.align, job.repair))
    yield "disk", f"up to {bytes_text((channels + STORED + copies) * voxels)}: affinities, fragments, segments"


def chosen_rows(job: PipelineJob) -> Iterator[tuple[str, str]]:
    """Yield what was chosen."""
    stages = [n for n in ("qc", "align", "repair", "neurons", "synapses", "truth") if getattr(job, n) is not None]
    yield "stages", ", ".join(stages)
    learned = job.trained.get("neurons")
    if not isinstance(learned, NeuronsJob):
        return
    data, training = learned.data[0], learned.training
    yield "network", f"{learned.network.kind} of {learned.network.features} maps"
    yield (
        "targets",
        f"{len(learned.objective.neighborhood)} affinities, descriptors of sigma "
        f"{learned.objective.lsd_sigma_nm:g} nm",
    )
    crop = " x ".join(map(str, training.crop_shape_vox))
    yield (
        "training",
        f"{training.steps} steps of {training.batch_size} crop{'s' * (training.batch_size > 1)} of {crop} voxels",
    )
    yield (
        "held out",
        f"{len(data.validation)} validation and {len(data.test)} test boxes, {data.gap_nm:g} nm from training",
    )


def why_no_neurons(labels: Labels | None, seen: Seen) -> list[str]:
    """Say why no neurons are learned, and what can be done."""
    if labels is None:
        beside = f" ({', '.join(seen.beside[:4])} may be some)" if seen.beside else ""
        return [f"no labels were given{beside}, and no model: sections are looked at, and nothing is segmented"]
    look, source = labels.look, labels.volume.info.source
    say = {
        "nothing": f"{source} holds no label but 0",
        "classes": f"{source} tells {look.ids} classes in {look.pieces} pieces, not neurons, of which each has an "
        "id of its own: it can teach classes (a job of kind semantic, docs/semantic.md), not affinities",
        "mask": f"{source} is a mask: it can teach a class (a job of kind semantic, docs/semantic.md); of clefts, "
        "give it as --synapses beside neuron ids or a model",
        "objects": f"{source} holds {look.ids} single objects, {look.zeros:.0%} of it is 0 and "
        f"{look.neighbours:.0%} of their ends have a neighbour: affinities need dense labels; for organelles, "
        "learn a class (kind semantic)",
    }
    return [f"{say[look.kind]}; for neurons, give dense neuron ids, or a model that exists (--model)"]


def add_lines(job: PipelineJob, hints: Sequence[str]) -> list[str]:
    """Return comment lines of what could be added."""
    lines = [f"Note: {hint}." for hint in hints]
    if job.neurons is None:
        lines += [
            "To segment neurons, add a model made for this voxel size:",
            "",
            "neurons:",
            "  source: {kind: model, model: model.safetensors}",
            "  threshold: 0.5",
            "",
            "or dense neuron ids of a part of the stack: emloom plan RAW LABELS --overwrite",
        ]
    elif job.synapses is None:
        lines += [
            "For a connectome, annotate synapses and plan again: emloom plan ... --synapses TABLE --overwrite"
        ]
    return lines
