"""The whole way as one value: from a raw stack to its connectome (`emloom run connectome.yaml`, `kind: pipeline`).

::

    check ─► qc ─► align ─► repair ─► predict ─► segment ─► confidence
                                      │             └─► synapses ─► connectome ─► evaluate ─► report
                                      ▲ neurons.source  ▲ synapses.source
                                      └ a model, or a job that trains one first

A stage that is left out (null) is not done, and the next takes what the last one left. Paths between stages are
the pipeline's own business: a file names what comes from outside, raw, models, truth. Nothing that only says where
work runs (workers, devices) stands here.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from emloom.geometry.grid import Vec3
from emloom.nn.shipped import model_path
from emloom.spec import Spec
from emloom.tasks.alignspec import LinksSpec, Model, ShiftModel
from emloom.tasks.data import BoxSpec
from emloom.tasks.job import NeuronsJob
from emloom.tasks.predict import Orientations
from emloom.tasks.qcspec import UNUSABLE, Defect, RulesSpec
from emloom.tasks.repairspec import BadSpec, Filling
from emloom.tasks.segmentspec import SegmentSpec, Unit
from emloom.tasks.synapsedecoders import CleanSpec, Decoder
from emloom.tasks.synapsejob import CleftsJob, PartnersJob

Trained = NeuronsJob | CleftsJob | PartnersJob
"""A job that trains a network of a pipeline."""


class QcStage(Spec):
    """Find bad sections and regions; every later stage obeys what it finds (`emloom qc`)."""

    rules: RulesSpec = RulesSpec()
    masked: tuple[Defect, ...] = UNUSABLE
    """Defects that go into the mask."""
    tissue: str | None = None
    """Volume, non-zero where there is tissue, on the grid of the raw."""


class AlignStage(Spec):
    """Lay the sections on each other (`emloom align`)."""

    model: Model = ShiftModel()
    links: LinksSpec = LinksSpec()


class RepairStage(Spec):
    """Replace bad sections, put torn ones together, say which voxels are made up (`emloom repair`)."""

    sections: BadSpec = BadSpec()
    fill: Filling = "flow"
    longest_run: Annotated[int, Field(ge=1)] = 3
    """Bad sections in a row that are still filled."""


class TrainedModel(Spec):
    """A model that exists."""

    kind: Literal["model"] = "model"
    model: str
    """Checkpoint: a `model.safetensors` written by training, or the name of one that comes with emloom."""

    @property
    def path(self) -> str:
        """The file."""
        return model_path(self.model)


class TrainedHere(Spec):
    """A model that is trained first, by a whole job of its own; the threshold comes from its validation boxes."""

    kind: Literal["train"] = "train"
    job: Annotated[Trained, Field(discriminator="kind")]


Source = Annotated[TrainedModel | TrainedHere, Field(discriminator="kind")]


class NeuronsStage(Spec):
    """From raw to segments (`emloom predict`, `emloom segment`)."""

    source: Source
    orientations: Orientations = 1
    """Predictions averaged (test-time augmentation)."""
    segmentation: SegmentSpec | None = None
    """None: that of the training job, or the defaults for a model that exists."""
    threshold: Unit | None = None
    """Affinity at which merging stops; None: the one that the training's validation boxes chose."""
    min_segment_vox: int = Field(default=0, ge=0)
    """Segments of fewer voxels become background."""

    @model_validator(mode="after")
    def _decided(self) -> Self:
        if isinstance(self.source, TrainedModel) and self.threshold is None:
            raise ValueError("threshold: a model that exists has no validation boxes here: give one, e.g. 0.5")
        if isinstance(self.source, TrainedHere) and not isinstance(self.source.job, NeuronsJob):
            raise ValueError(f"source.job: neurons need a job of kind neurons, not {self.source.job.kind}")
        return self


class GraphRules(Spec):
    """Which contacts make edges (`emloom connectome`)."""

    autapses: bool = True
    minimum_score: float = Field(default=0.0, ge=0, le=1)
    minimum_weight: int = Field(default=1, ge=1)


class SynapsesStage(Spec):
    """From raw and segments to synapses and the graph (`emloom synapses`, `emloom connectome`)."""

    source: Source
    orientations: Orientations = 1
    decoder: Decoder | None = None
    """None: that of the heads of the model, with its defaults."""
    clean: CleanSpec = CleanSpec()
    graph: GraphRules = GraphRules()

    @model_validator(mode="after")
    def _of_synapses(self) -> Self:
        if isinstance(self.source, TrainedHere) and isinstance(self.source.job, NeuronsJob):
            raise ValueError("source.job: synapses need a job of kind partners or clefts, not neurons")
        return self


class TruthSpec(Spec):
    """What is known, on the grid of the raw; results are scored against it."""

    labels: str | None = None
    """Neuron ids, 0 where nothing is known or between neurons."""
    synapses: str | None = None
    """Table, CREMI file or tracing of the true synapses; see `emloom.tasks.synapsesource`."""
    boxes: tuple[BoxSpec, ...] = ()
    """Where it counts; default: everywhere. Leave out what a model here was trained on."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.labels is None and self.synapses is None:
            raise ValueError("truth: give labels, synapses or both, or leave it out")
        return self


class PipelineJob(Spec):
    """From a raw stack to its connectome, with a report that says how far to trust it."""

    kind: Literal["pipeline"] = "pipeline"
    name: str = Field(min_length=1)
    """Shown in the report."""
    raw: str
    """The stack."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where the raw does not state it."""
    qc: QcStage | None = QcStage()
    align: AlignStage | None = None
    repair: RepairStage | None = None
    neurons: NeuronsStage | None = None
    synapses: SynapsesStage | None = None
    truth: TruthSpec | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.synapses is not None and self.neurons is None:
            raise ValueError("synapses need the segments that the stage neurons makes: add it")
        if not any((self.qc, self.align, self.repair, self.neurons)):
            raise ValueError("every stage is left out: name at least one of qc, align, repair, neurons")
        return self

    @property
    def trained(self) -> dict[str, Trained]:
        """Every job that trains a model first, by stage."""
        stages = {"neurons": self.neurons, "synapses": self.synapses}
        return {n: s.source.job for n, s in stages.items() if s and isinstance(s.source, TrainedHere)}
