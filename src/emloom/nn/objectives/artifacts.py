"""Artifacts: does a patch of a section hold one? The classifier that finds what would ruin a connectome.

* **targets** — classes that do not exclude each other; the first is what is looked for, the others (myelin,
  vessels) are learned beside it so that the network knows them apart. A class is ``yes`` where enough voxels of
  the patch belong to it, ``no`` where none do (`no_share`), and in between *unsure*, which teaches nothing. Labels
  are painted (ids of a volume), or said of patches (`emloom.nn.patchvolume`), or planted:
* **planting** — synthetic artifacts on real clean tissue (`emloom.nn.planting`), drawn from the sample's seed
  after augmentation, with noise over everything. What is planted in a neighbouring section is no artifact of the
  middle one.
* **head** — ``artifacts``, one logit per class and patch.
* **loss** — binary cross entropy of every known class; auxiliary classes weigh less.
* **decode** — a map of logits on a lattice, cleaned by the single-section prior: `emloom.ops.prior`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from emloom.geometry import Grid, Vec
from emloom.nn.objectives.base import Answers, Rendered, Sample, TargetTensors, Validated, grey, to_tensors
from emloom.nn.patchvolume import MOST_CLASSES, labels_of_codes
from emloom.nn.planting import PlantSpec, plant
from emloom.spec import Spec

ARTIFACTS = "artifacts"
"""Name of the head."""

LabelId = Annotated[int, Field(ge=0, lt=2**64)]
_FRAME = 4  # voxels of the coloured frame of a picture


class PatchClass(Spec):
    """A class of patches."""

    name: str = Field(min_length=1)
    ids: tuple[LabelId, ...] = ()
    """Labels of its voxels, where labels are painted."""


class ArtifactsObjective(Spec):
    """Learn whether patches hold an artifact."""

    kind: Literal["artifacts"] = "artifacts"
    classes: tuple[PatchClass, ...] = Field(
        default=(PatchClass(name="artifact"),), min_length=1, max_length=MOST_CLASSES
    )
    """The first is what is looked for."""
    labels: Literal["painted", "patches"] = "painted"
    """What the labels of volumes are: ids of voxels, or what was said of patches."""
    yes_share: float = Field(default=0.02, gt=0, le=1)
    """Smallest share of a patch's voxels that makes a painted or planted class `yes`."""
    no_share: float = Field(default=0.0, ge=0, lt=1)
    """Largest share of them that still is `no`."""
    presume_clean: bool = False
    """Whether tissue that nobody labelled counts as free of the first class: where artifacts are planted."""
    auxiliary_weight: float = Field(default=0.3, ge=0)
    """Of the loss of the other classes, together, relative to the first."""
    plant: PlantSpec | None = None
    """Synthetic artifacts; none: only what is labelled."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = self.names
        if len(set(names)) < len(names):
            raise ValueError(f"the classes {', '.join(names)} share a name: name each differently")
        if self.no_share >= self.yes_share:
            raise ValueError(
                f"no_share {self.no_share} is not below yes_share {self.yes_share}: a patch would be both"
            )
        if self.labels == "painted" and not self.presume_clean:
            without = [each.name for each in self.classes if not each.ids]
            if without:
                raise ValueError(
                    f"class {without[0]!r} names no label ids: name those of its voxels, say `labels: patches`, "
                    "or "
                    "set presume_clean for clean tissue on which artifacts are planted"
                )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """What the classes are called, in the order of the channels."""
        return tuple(each.name for each in self.classes)

    @property
    def needs_labels(self) -> bool:
        """Whether there is nothing to learn from a volume without labels."""
        return not self.presume_clean

    @property
    def heads(self) -> dict[str, int]:
        """Output name -> number of channels."""
        return {ARTIFACTS: len(self.classes)}

    def context_vox(self, grid: Grid) -> Vec:
        """Return how far beyond a patch its target looks: nowhere."""
        return (0, 0, 0)

    def surround_vox(self, grid: Grid) -> Vec:
        """Return how far beyond a patch it wants to see the raw: what a planted shift brings in is real, too."""
        if self.plant is None:
            return (0, 0, 0)
        y, x = (ceil(self.plant.margin_nm / size) for size in grid.voxel_size_nm[1:])
        return (0, y, x)

    def sample(self, made: Rendered, grid: Grid) -> Sample:
        """Return (input ``[1, sections, Y, X]``, targets ``[C, 1, 1, 1]`` with where they are known)."""
        inner = made.output.slices()
        said, raw = self.said_of(made.labels[inner], made.known[inner]), made.raw
        if self.plant is not None:
            raw, middle = made.raw.copy(), len(made.raw) // 2
            planted = plant(self.plant, raw, middle, grid.voxel_size_nm, np.random.default_rng(made.seed))
            _, y, x = self.surround_vox(grid)
            patch = np.s_[y : raw.shape[1] - y, x : raw.shape[2] - x]
            for each in planted:
                if each.section == middle:
                    said[0] = self.with_planted(int(said[0]), each.mask[patch], each.moved[patch])
            raw = np.ascontiguousarray(raw[:, *patch])
        target, known = (said == 1)[:, None, None, None], (said >= 0)[:, None, None, None]
        return torch.from_numpy(raw[None]), to_tensors({ARTIFACTS: (target, known)})

    def said_of(self, labels_ZYX: NDArray[Any], known_ZYX: NDArray[Any]) -> NDArray[np.int8]:
        """Return what the labels say of one patch, int8 [C]: 1 yes, 0 no, -1 unknown or unsure.

        Args:
            labels_ZYX: labels of its voxels, or codes of patches.
            known_ZYX: not 0 where they are known.
        """
        known = known_ZYX != 0
        if self.labels == "painted":
            said = np.array([self._painted(each, labels_ZYX, known) for each in self.classes], np.int8)
        else:
            at = tuple(n // 2 for n in labels_ZYX.shape)
            said = labels_of_codes(int(labels_ZYX[at]) if known[at] else 0, len(self.classes))
        if self.presume_clean and not known.all() and said[0] == -1:
            said[0] = 0
        return said

    def _painted(self, each: PatchClass, labels: NDArray[Any], known: NDArray[np.bool_]) -> int:
        if not each.ids:
            return -1
        largest = np.iinfo(labels.dtype).max
        ids = np.array([i for i in each.ids if i <= largest], labels.dtype)  # the others cannot occur
        answer = self._share_says(float((np.isin(labels, ids) & known).mean()))
        # What is not known may be of the class: a patch is free of it only where all is known.
        return -1 if answer == 0 and not known.all() else answer

    def with_planted(self, said: int, damaged_YX: NDArray[np.bool_], moved_YX: NDArray[np.bool_]) -> int:
        """Return what is said of the first class of a patch on which something was planted.

        Args:
            said: what was said before: 1 yes, 0 no, -1 unknown or unsure.
            damaged_YX: where the artifact is seen.
            moved_YX: sound tissue that it moved: neither clean nor damaged.
        """
        damaged, moved = (self._share_says(float(each.mean())) for each in (damaged_YX, moved_YX))
        if said == 1 or damaged == 1:
            return 1
        return said if damaged == moved == 0 else -1

    def _share_says(self, share: float) -> int:
        if share >= self.yes_share:
            return 1
        return 0 if share <= self.no_share else -1

    def loss(self, answers: Answers, targets: TargetTensors, step: int = 0) -> tuple[Tensor, Answers]:
        """Return the total loss and that of every class; logits and targets are ``[N, C, 1, 1, 1]``."""
        logits, (target, known) = answers[ARTIFACTS], targets[ARTIFACTS]
        entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none") * known
        of_class = entropy.flatten(2).sum(dim=(0, 2)) / known.flatten(2).sum(dim=(0, 2)).clamp(min=1)
        total = of_class[0]
        if len(self.classes) > 1:
            total = total + self.auxiliary_weight * of_class[1:].mean()
        return total, {name: value.detach() for name, value in zip(self.names, of_class, strict=True)}

    def look(self, network: nn.Module, seen: Sequence[Validated]) -> dict[str, Tensor]:
        """Return the middle sections of patches, framed: outside what is true, inside what was answered.

        Red is yes, green no, grey unknown.
        """
        return {"truth (outside) and answer (inside)": torch.cat([_framed(one) for one in seen], dim=-1)}


def _framed(one: Validated) -> Tensor:
    """Return ``[3, 1, Y, X]`` of the first sample."""
    target, known = (each[0, 0].flatten()[0].item() for each in one.targets[ARTIFACTS])
    answer = one.answers[ARTIFACTS][0, 0].flatten()[0].item()
    section = grey(one.raw[0, :1, one.raw.shape[2] // 2].float().cpu()).expand(3, -1, -1)
    inner = functional.pad(section, [_FRAME] * 4) + _frame(section.shape[1:], _colour(float(answer > 0), 1.0))
    return (functional.pad(inner, [_FRAME] * 4) + _frame(inner.shape[1:], _colour(target, known)))[:, None]


def _colour(yes: float, known: float) -> tuple[float, float, float]:
    if known == 0:
        return (0.5, 0.5, 0.5)
    return (0.9, 0.1, 0.1) if yes else (0.1, 0.7, 0.1)


def _frame(shape: Sequence[int], colour: tuple[float, float, float]) -> Tensor:
    """Return a frame around a picture of a shape, ``[3, Y, X]``, 0 inside."""
    frame = torch.tensor(colour)[:, None, None].expand(-1, *[n + 2 * _FRAME for n in shape]).clone()
    frame[:, _FRAME:-_FRAME, _FRAME:-_FRAME] = 0
    return frame
