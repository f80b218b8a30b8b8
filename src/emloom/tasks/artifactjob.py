"""A job that learns to find artifacts: its stacks, and what is tested beside them.

`ArtifactJob` is what `emloom run` executes and what stands, resolved, beside every result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import Field, model_validator

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.geometry.patches import PatchLabels
from emloom.io.open import open_volume
from emloom.io.patchopen import open_patches
from emloom.io.volume import Volume, cached
from emloom.nn.crops import TrainingVolume, check_same_grid
from emloom.nn.objectives.artifacts import ArtifactsObjective
from emloom.nn.patchnet import PatchNetSpec
from emloom.nn.patchvolume import PatchVolume
from emloom.nn.strategies import Patches
from emloom.spec import Spec
from emloom.tasks.data import PARTS, BoxSpec, SplitSpec, check_boxes
from emloom.tasks.patchspec import PatchBootstrapSpec, ThresholdSpec
from emloom.tasks.qcmask import open_avoid, open_usable
from emloom.tasks.reconstructionjob import require_file_name
from emloom.tasks.trainingjob import TrainingJob


class TissueSpec(SplitSpec):
    """A raw stack, what is known of its artifacts, and its split."""

    labels: str | None = None
    """Path of a volume of labels on the same grid, of which the objective's classes name ids."""
    patches: str | None = None
    """Table of labelled patches (`emloom artifacts labels`), instead."""
    mask: str | None = None
    """Path of a mask, non-zero where the labels are known, or folder of `emloom qc`; default: everywhere."""
    avoid: str | None = None
    """Folder of `emloom qc`, or a mask, non-zero where crops are not wanted; see `sampling.max_avoided`."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.labels is not None and self.patches is not None:
            raise ValueError(f"{self.raw} has labels and patches: leave out one")
        return self

    @property
    def paths(self) -> list[str]:
        """Every file the stack refers to."""
        return [path for path in (self.raw, self.labels, self.patches, self.mask, self.avoid) if path is not None]


class ForeignTissueSpec(Spec):
    """A volume that has nothing to do with the training data, on which the detector is tried."""

    name: str
    """Of its results; letters, digits, `_`, `-` and `.`."""
    raw: str
    labels: str | None = None
    """Path of a volume of labels on the same grid; default: nothing is known, and it is only looked at."""
    ids: tuple[int, ...] | None = None
    """Labels that are an artifact; default: all but 0."""
    box: BoxSpec | None = None
    """Only these voxels; default: all."""
    voxel_size_nm: Vec3 | None = None
    """Voxel size (z, y, x), only where the file does not state it."""

    @model_validator(mode="after")
    def _is_a_file_name(self) -> Self:
        require_file_name(self.name)
        return self

    @property
    def paths(self) -> list[str]:
        """Every file that is named."""
        return [self.raw] if self.labels is None else [self.raw, self.labels]


class ArtifactScoring(Spec):
    """How held-out boxes are mapped and scored."""

    step_vox: int = Field(default=32, ge=1)
    """Voxels along y and x from patch to patch."""
    threshold: ThresholdSpec = ThresholdSpec()
    """Chosen on the validation boxes, at a recall."""
    prevalence: float | None = Field(default=None, gt=0, lt=1)
    """Also report what holds where artifacts are this frequent."""
    bootstrap: PatchBootstrapSpec = PatchBootstrapSpec()
    """Of intervals: sections are drawn with replacement."""
    seed: int = Field(default=0, ge=0)
    """Of the artifacts that are planted in held-out boxes of tissue without labels."""


class ArtifactJob(TrainingJob):
    """Learn to find artifacts, and say how well it works on held-out boxes and on foreign volumes."""

    kind: Literal["artifacts"] = "artifacts"
    data: tuple[TissueSpec, ...] = Field(min_length=1)
    """One or more stacks of the same voxel size; validation boxes choose the checkpoint and the threshold."""
    foreign: tuple[ForeignTissueSpec, ...] = ()
    """Volumes of any voxel size on which the detector is tried, too."""
    objective: ArtifactsObjective
    network: PatchNetSpec = Field(default_factory=PatchNetSpec.light)
    scoring: ArtifactScoring = ArtifactScoring()

    @model_validator(mode="after")
    def _check(self) -> Self:
        patch = self.network.patch
        if self.training.crop_shape_vox != patch:
            raise ValueError(
                f"training.crop_shape_vox {self.training.crop_shape_vox} is not the patch of the network, "
                f"{patch}: "
                "set it to that"
            )
        for stack in self.data:
            labels = stack.patches if self.objective.labels == "patches" else stack.labels
            if labels is None and not self.objective.presume_clean:
                raise ValueError(
                    f"{stack.raw} has no {self.objective.labels} labels: name them, or set "
                    "objective.presume_clean "
                    "for clean tissue on which artifacts are planted"
                )
            if labels is None and self.objective.plant is None:
                raise ValueError(f"{stack.raw} has no labels and nothing is planted: name labels, or set plant")
        names = [each.name for each in self.foreign]
        if len(set(names)) < len(names):
            raise ValueError(f"foreign volumes {', '.join(names)} share a name: name each differently")
        return self

    @property
    def paths(self) -> list[str]:
        """Every file the job reads."""
        return [*super().paths, *(path for each in self.foreign for path in each.paths)]


@dataclass(frozen=True)
class Tissue:
    """An opened `TissueSpec`.

    Attributes:
        spec: what was opened.
        raw: ``zyx`` volume.
        labels: ids, or codes of patches; None: nothing is known.
        mask: where labels are known.
        avoid: where crops are not wanted.
        patches: labelled patches.
    """

    spec: TissueSpec
    raw: Volume
    labels: Volume | None
    mask: Volume | None
    avoid: Volume | None
    patches: PatchLabels | None

    @property
    def training(self) -> TrainingVolume:
        """What training may draw from."""
        region, kept_off = self.spec.room(self.raw.info.box, self.raw.info.grid.voxel_size_nm)
        hidden = tuple(box for part in PARTS for box in self.spec.boxes(part))
        return TrainingVolume(self.raw, self.labels, region, kept_off, self.mask, hidden=hidden, avoid=self.avoid)


def open_tissue(spec: TissueSpec, job: ArtifactJob) -> Tissue:
    """Open and check a stack; volumes of moderate size are read into memory.

    Raises:
        InputError: a file is missing or damaged, grids or classes differ, or the boxes of the split leave the
            volume or come closer to each other than the gap.
    """
    raw = open_volume(spec.raw, voxel_size_nm=spec.voxel_size_nm, kind="raw")
    mask = None if spec.mask is None else open_usable(spec.mask, spec.voxel_size_nm)
    avoid = None if spec.avoid is None else open_avoid(spec.avoid, spec.voxel_size_nm)
    labels: Volume | None = None
    patches = None
    if spec.patches is not None:
        patches = open_patches(spec.patches).consensus()
        _require_classes(patches, job.objective.names)
        how = job.training.sampling
        labels = PatchVolume(patches, raw.info, how.jitter_vox if isinstance(how, Patches) else (0, 0, 0))
    elif spec.labels is not None:
        labels = cached(open_volume(spec.labels, voxel_size_nm=spec.voxel_size_nm, kind="labels"))
    for other in (labels, mask, avoid):
        if other is not None:
            check_same_grid(raw, other)
    check_boxes(spec, raw.info.box, raw.info.grid.voxel_size_nm)
    return Tissue(
        spec, cached(raw), labels, cached(mask) if mask else None, cached(avoid) if avoid else None, patches
    )


def _require_classes(patches: PatchLabels, names: Sequence[str]) -> None:
    if patches.classes != tuple(names):
        raise InputError(
            f"{patches.source} labels {', '.join(patches.classes)}, and the objective's classes are "
            f"{', '.join(names)}: name the same, in the same order"
        )
