"""Semantic segmentation: every voxel is one of a few classes, which exclude each other.

* **targets** — a class is a name and the label ids that stand for it. An id that no class names is *unknown*, not
  background: where 0 means background, some class must name 0. Unknown voxels teach nothing and are not scored.
  A label may also be a set of candidate classes (`emloom.ops.classsets`), of which the voxel is one: it teaches
  that the voxel is none of the others, and is not scored.
* **head** — ``classes``, one channel per class, in the order they are named; a softmax over the channels gives
  probabilities.
* **loss** — cross entropy of that softmax over known voxels, or another loss that reads it (`nn.class_losses`). A
  network that answers at coarser levels too is asked there for the class that most of a cell has, where one has
  more than half.
* **decode** — the class of the highest stored probability; of equals the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from typing import Annotated, Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from emloom.errors import InputError
from emloom.geometry import Grid, Vec
from emloom.nn.losses import CrossEntropy, LossSpec, channels_of, reads_classes
from emloom.nn.objectives.base import Answers, Rendered, Sample, TargetTensors, Validated, grey, to_tensors
from emloom.nn.reshape import crop
from emloom.nn.supervision import deep_supervision, levels_of
from emloom.ops.classsets import MOST_IN_SETS, SETS, are_sets, candidates
from emloom.ops.onehot import one_hot
from emloom.spec import Spec

CLASSES = "classes"
"""Name of the head."""
UNKNOWN = 255
"""Where ids become classes, what stands for an id of no class."""

LabelId = Annotated[int, Field(ge=0)]
"""Below 2**62: from there on labels are sets of classes."""


class SemanticClass(Spec):
    """A class: what it is called, and which labels stand for it."""

    name: str = Field(min_length=1)
    ids: tuple[LabelId, ...] = Field(min_length=1)
    """Labels of its voxels; several where the labels tell more apart than is to be learned."""

    @field_validator("ids")
    @classmethod
    def _no_sets(cls, ids: tuple[int, ...]) -> tuple[int, ...]:
        for number in ids:
            if number >= SETS:
                raise ValueError(
                    f"{number} is no id of a class: labels from 2**62 = {SETS} on are sets of classes; relabel it"
                )
        return ids


class SemanticObjective(Spec):
    """Learn which class every voxel has."""

    needs_labels: ClassVar[bool] = True

    kind: Literal["semantic"] = "semantic"
    classes: tuple[SemanticClass, ...] = Field(min_length=2, max_length=UNKNOWN)
    """In the order of the output's channels."""
    class_loss: LossSpec = CrossEntropy()
    """Of the softmax over classes: `cross_entropy`, `focal_cross_entropy`, `class_dice`, `wasserstein_dice`, or a
    sum of such."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = self.names
        if len(set(names)) < len(names):
            raise ValueError(f"the classes {', '.join(names)} share a name: name each differently")
        seen: dict[int, str] = {}
        for each in self.classes:
            for number in each.ids:
                if number in seen:
                    raise ValueError(
                        f"label {number} is named twice, by {seen[number]!r} and {each.name!r}: classes exclude "
                        "each other, so give it to one of them"
                    )
                seen[number] = each.name
        self._check_loss(names)
        return self

    def _check_loss(self, names: tuple[str, ...]) -> None:
        loss = self.class_loss
        if not reads_classes(loss):
            raise ValueError(
                f"the loss {loss.kind!r} takes each channel for a probability of its own, and classes "
                "exclude each other: use cross_entropy, focal_cross_entropy, class_dice, wasserstein_dice or a "
                "sum of these"
            )
        wrong = sorted(channels_of(loss) - {len(names)})
        if wrong:
            raise ValueError(f"the loss is about {wrong[0]} classes, and {len(names)} are named: give as many")

    @property
    def names(self) -> tuple[str, ...]:
        """What the classes are called, in the order of the channels."""
        return tuple(each.name for each in self.classes)

    @property
    def heads(self) -> dict[str, int]:
        """Output name -> number of channels."""
        return {CLASSES: len(self.classes)}

    def context_vox(self, grid: Grid) -> Vec:
        """Return how far beyond a voxel its target looks: nowhere."""
        return (0, 0, 0)

    def of_labels(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the class of every label, 0 for the first, `UNKNOWN` for ids of none; the same shape.

        A set of one class is that class, a set of several `UNKNOWN`: nobody knows which of them it is.

        Raises:
            InputError: a set names a class there is not, or none.
        """
        out = self._of_ids(labels)
        sets = are_sets(labels)
        if sets.any():
            among = self._candidates(labels, sets)
            out[sets] = np.where(among.sum(axis=0) == 1, among.argmax(axis=0), UNKNOWN)
        return out

    def _of_ids(self, labels: NDArray[Any]) -> NDArray[np.uint8]:
        out = np.full(labels.shape, UNKNOWN, np.uint8)
        largest = np.iinfo(labels.dtype).max
        for number, each in enumerate(self.classes):
            ids = np.array([i for i in each.ids if i <= largest], labels.dtype)  # the others cannot occur
            out[np.isin(labels, ids)] = number
        return out

    def _candidates(self, labels: NDArray[Any], sets: NDArray[np.bool_]) -> NDArray[np.uint8]:
        if len(self.classes) > MOST_IN_SETS:
            raise InputError(
                f"labels are sets of classes, and {len(self.classes)} classes are named: sets tell {MOST_IN_SETS} "
                "apart; learn fewer"
            )
        return candidates(labels, len(self.classes), sets)

    def teaches(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """Return where labels say anything: a class, or a set that leaves one out; raises as `of_labels`."""
        says: NDArray[np.bool_] = self._of_ids(labels) != UNKNOWN
        sets = are_sets(labels)
        if sets.any():
            says[sets] = (self._candidates(labels, sets) == 0).any(axis=0)
        return says

    def targets(
        self, labels_ZYX: NDArray[Any], known_ZYX: NDArray[np.uint8]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return what a voxel may be, and where that says anything.

        Args:
            labels_ZYX: ids of classes and sets of classes.
            known_ZYX: 0 where labels are not known, whatever they are.

        Returns:
            uint8 [K, Z, Y, X], 1 for the candidates: one class, or several of a set. And uint8 [Z, Y, X], 0 where
            nothing is known, and a set of all classes is nothing; there all candidates are 0, too.

        Raises:
            InputError: as `of_labels`, of labels that are known.
        """
        classes = np.where(known_ZYX != 0, self._of_ids(labels_ZYX), np.uint8(UNKNOWN))
        target, known = one_hot(classes, len(self.classes), ignore=UNKNOWN)
        sets = are_sets(labels_ZYX) & (known_ZYX != 0)
        if sets.any():
            among = self._candidates(labels_ZYX, sets)
            says = (among == 0).any(axis=0)
            target[:, sets] = among * says
            known[sets] = says
        return target, known

    def surround_vox(self, grid: Grid) -> Vec:
        """Return how far beyond the input it wants to see the raw: nowhere."""
        return (0, 0, 0)

    def sample(self, made: Rendered, grid: Grid) -> Sample:
        """Return (raw ``[1, Z, Y, X]``, candidates ``[K, Z, Y, X]``, where they are known); see `targets`."""
        inner = made.output.slices()
        target, known = self.targets(made.labels[inner], made.known[inner])
        return torch.from_numpy(made.raw[None]), to_tensors({CLASSES: (target, known[None])})

    def loss(self, answers: Answers, targets: TargetTensors, step: int = 0) -> tuple[Tensor, Answers]:
        """Return the total loss and its parts; logits and targets are ``[N, K, Z, Y, X]``."""
        total = deep_supervision(self.class_loss, levels_of(answers, CLASSES), *targets[CLASSES], "classes")
        return total, {CLASSES: total.detach()}

    def look(self, network: nn.Module, seen: Sequence[Validated]) -> dict[str, Tensor]:
        """Return what was shown, true classes and likeliest ones in colours; black is not known for sure."""
        return {"input | truth | prediction": torch.cat([_side_by_side(one) for one in seen], dim=-2)}


def _side_by_side(one: Validated) -> Tensor:
    """Return ``[3, 1, Y, 3 X]`` of the middle section of the first sample."""
    target, weight = (each[0].cpu() for each in one.targets[CLASSES])
    answer = one.answers[CLASSES][0].float().cpu()
    shown, answered = one.raw.shape[2:], answer.shape[1:]
    z, y, x = ((n - m) // 2 for n, m in zip(shown, answered, strict=True))
    middle = answer.shape[1] // 2
    raw = grey(crop(one.raw, (z, y, x))[0, :1, middle].float().cpu()).expand(3, -1, -1)
    colours = _palette(len(answer))
    certain = (weight[:1, middle] > 0) & (target[:, middle].sum(dim=0) == 1)
    truth = colours[target[:, middle].argmax(dim=0)].movedim(-1, 0) * certain
    likeliest = colours[answer[:, middle].argmax(dim=0)].movedim(-1, 0)
    return torch.cat([raw, truth, likeliest], dim=-1)[:, None]


def _palette(count: int) -> Tensor:
    """Return as many colours ``[count, 3]``, evenly spread over the hues."""
    return torch.tensor([hsv_to_rgb(number / count, 0.7, 0.95) for number in range(count)])
