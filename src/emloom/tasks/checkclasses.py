"""What `emloom check` says of classes: which have labels, what nobody named, and weights that balance them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box, Vec, cells
from emloom.nn.crops import TrainingVolume, read_labels
from emloom.nn.objectives.semantic import UNKNOWN, SemanticObjective
from emloom.nn.painted import PaintedVolume
from emloom.ops.classsets import are_sets
from emloom.ops.classweights import class_weights_of
from emloom.tasks.checktraining import Finding

_CELL: Vec = (32, 512, 512)
_MOST_VOXELS = 1 << 28  # of one volume; of a larger one its middle, unless it says where it is painted
_MOST_IDS = 1 << 16  # different ids that no class names


@dataclass
class ClassCensus:
    """The labels that training may see.

    Attributes:
        voxels: of every class, int64 [K].
        sets: voxels that may be any of several classes.
        unnamed: voxels of every id that no class names.
        sources: of the labels.
        whole: whether all was looked at.
    """

    voxels: np.ndarray[tuple[int], np.dtype[np.int64]]
    sets: int = 0
    unnamed: Counter[int] = field(default_factory=Counter)
    sources: list[str] = field(default_factory=list)
    whole: bool = True

    @property
    def known(self) -> int:
        """All voxels of a class."""
        return int(self.voxels.sum())


def census(objective: SemanticObjective, volumes: Sequence[TrainingVolume]) -> ClassCensus:
    """Count the labels that training may see; raises `InputError` where one is a set of other classes."""
    found = ClassCensus(np.zeros(len(objective.classes), np.int64))
    for volume in volumes:
        if volume.labels is None:
            continue
        found.sources.append(volume.labels.info.source)
        painted = volume.labels if isinstance(volume.labels, PaintedVolume) else None
        region = volume.region
        if painted is None and region.size > _MOST_VOXELS:
            region, found.whole = _middle(region), False
        for _, box in cells(region, _CELL):
            if painted is None or painted.occupied(box):
                _count(found, objective, volume, box)
    return found


def _count(found: ClassCensus, objective: SemanticObjective, volume: TrainingVolume, box: Box) -> None:
    labels, known = read_labels(volume, box)
    seen = np.ones(box.shape, np.bool_) if not known.size else known != 0
    for held in volume.held_out:
        if held.meets(box):
            seen[held.intersect(box).slices(box.start)] = False
    labels = labels[seen]
    classes, sets = objective.of_labels(labels), are_sets(labels)
    found.voxels += np.bincount(classes, minlength=UNKNOWN + 1)[: len(found.voxels)]
    found.sets += int(np.count_nonzero(sets & (classes == UNKNOWN)))
    ids, counts = np.unique(labels[(classes == UNKNOWN) & ~sets], return_counts=True)
    for number, count in zip(ids.tolist(), counts.tolist(), strict=True):
        if number in found.unnamed or len(found.unnamed) < _MOST_IDS:
            found.unnamed[number] += count


def class_findings(objective: SemanticObjective, volumes: Sequence[TrainingVolume]) -> list[Finding]:
    """Return what there is to say about the labels of classes; the volumes of one job."""
    try:
        found = census(objective, volumes)
    except InputError as problem:
        return [Finding("error", "classes", str(problem))]
    return [*_absent(objective, found), *_unnamed(found), *_shares(objective, found)]


def _absent(objective: SemanticObjective, found: ClassCensus) -> Iterator[Finding]:
    missing = [
        f"{each.name} ({', '.join(map(str, each.ids))})"
        for each, count in zip(objective.classes, found.voxels, strict=True)
        if not count
    ]
    if missing:
        where = f"{', '.join(found.sources)} where training may look"
        text = f"no voxel of {'; '.join(missing)} in {where}: correct the ids, leave the class out, or label some"
        yield Finding("error" if found.whole else "warning", "classes", text)


def _unnamed(found: ClassCensus) -> Iterator[Finding]:
    strange = {number: count for number, count in found.unnamed.items() if number != 0}
    if strange:
        total = found.known + found.sets + sum(found.unnamed.values())
        often = sorted(strange, key=lambda number: -strange[number])
        shown = [f"{number} ({strange[number] / total:.2%})" for number in often[:6]]
        named = ", ".join(shown) + (", ..." if len(often) > 6 else "")
        yield Finding(
            "warning",
            "classes",
            f"labels of no class, besides 0, are {sum(strange.values()) / total:.2%} of the voxels: {named}. They "
            "are unknown and teach nothing: name them where they mean something. Many values of few voxels, "
            "between those of classes, come from labels that were smoothed or scaled like grey values: make them "
            "anew by nearest neighbour",
        )


def _shares(objective: SemanticObjective, found: ClassCensus) -> Iterator[Finding]:
    if not found.known:
        return
    parts = [
        f"{name} {count / found.known:.2%}" for name, count in zip(objective.names, found.voxels, strict=True)
    ]
    text = f"{found.known} voxels of known class: {', '.join(parts)}"
    if found.sets:
        text += f"; {found.sets} that may be one of several"
    if all(found.voxels):
        weights = ", ".join(f"{w:.3g}" for w in class_weights_of(found.voxels.tolist(), "root"))
        text += f"; where rare classes are missed try class_weights: [{weights}]"
    yield Finding("ok", "classes", text if found.whole else f"in the middle, {text}")


def _middle(box: Box) -> Box:
    """Return a part of a box that may be looked at, in its middle: whole sections where they are small enough."""
    shape = list(box.shape)
    while shape[0] * shape[1] * shape[2] > _MOST_VOXELS:
        axis = shape.index(max(shape))
        shape[axis] = -(-shape[axis] // 2)
    start = [a + (n - m) // 2 for a, n, m in zip(box.start, box.shape, shape, strict=True)]
    return Box((start[0], start[1], start[2]), (shape[0], shape[1], shape[2]))
