"""Labelled voxels to learn from: how many there are, a fair draw of them, and their features.

::

    labels ── cells ──> known voxels per class ── seeded draw, at most `per_class` each ──> places ──> features
                                                                                   boxes tight around them

Only what is known is counted: neither ids of no class, nor what a mask or a held-out box hides, nor what quality
control found. A draw depends on the labels and the seed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, Vec, cells
from emloom.geometry.box import as_vec
from emloom.io.volume import Volume, borrow, read_padded
from emloom.nn.crops import TrainingVolume, read_labels
from emloom.nn.objectives.semantic import UNKNOWN, SemanticObjective
from emloom.ops.threads import Threads
from emloom.ops.voxelfeatures import FeatureSet

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
Normalise = Callable[[NDArray[np.generic]], F32]

_CELL: Vec = (32, 256, 256)  # labels that are looked at together
_BOX_BYTES = 1 << 29  # memory for the features of one box


@dataclass(frozen=True)
class Place:
    """Where voxels may be drawn.

    Attributes:
        volume: labelled.
        box: of its voxels.
        held_out: whether this is a held-out box, of which labels are hidden from training.
    """

    volume: TrainingVolume
    box: Box
    held_out: bool = False

    def classes(self, box: Box, objective: SemanticObjective) -> U8:
        """Return the class of every voxel of a box inside, `UNKNOWN` where none may be drawn."""
        labels, known = read_labels(self.volume, box, self.held_out)
        classes = objective.of_labels(labels)
        if known.size:
            classes[known == 0] = UNKNOWN
        if self.volume.avoid is not None:
            classes[borrow(self.volume.avoid, box) != 0] = UNKNOWN
        for held in () if self.held_out else self.volume.held_out:
            if held.meets(box):
                classes[held.intersect(box).slices(box.start)] = UNKNOWN
        return classes


@dataclass(frozen=True)
class DrawnVoxels:
    """Voxels of one box that were drawn.

    Attributes:
        raw: they are of.
        at: int64 [N, 3], z, y, x.
        classes: uint8 [N].
    """

    raw: Volume
    at: I64
    classes: U8


@dataclass(frozen=True)
class Draw:
    """All that was drawn.

    Attributes:
        voxels: by box.
        known: int64 [K], voxels of each class there are.
        taken: int64 [K], drawn ones.
    """

    voxels: tuple[DrawnVoxels, ...]
    known: I64
    taken: I64


def draw_voxels(places: Sequence[Place], objective: SemanticObjective, per_class: int, seed: int) -> Draw:
    """Draw voxels of every class, each as likely as the others of its class.

    Args:
        places: where.
        objective: the classes.
        per_class: at most this many of each; all of a class that has fewer.
        seed: the same labels and seed give the same voxels.
    """
    n_classes = len(objective.classes)
    parts = [(place, box) for place in places for _, box in cells(place.box, _CELL)]
    counts = np.zeros((len(parts), n_classes), np.int64)
    for row, (place, box) in zip(counts, parts, strict=True):
        classes = place.classes(box, objective)
        row[...] = np.bincount(classes.ravel(), minlength=UNKNOWN + 1)[:n_classes]
    known = counts.sum(axis=0)
    taken = np.minimum(known, per_class)
    chosen: list[list[I64]] = [[] for _ in parts]  # ranks among the voxels of a class in a cell, class by class
    for label in range(n_classes):
        random = np.random.default_rng([seed, label])
        ranks = np.sort(random.choice(known[label], taken[label], replace=False, shuffle=False))
        ends = np.cumsum(counts[:, label])
        split = np.split(ranks, np.searchsorted(ranks, ends)[:-1])
        for cell, (part, end, count) in enumerate(zip(split, ends, counts[:, label], strict=True)):
            chosen[cell].append(part - (end - count))
    drawn = []
    for (place, box), ranks_of in zip(parts, chosen, strict=True):
        if any(len(ranks) for ranks in ranks_of):
            at, labels = _located(place.classes(box, objective), ranks_of)
            drawn.append(DrawnVoxels(place.volume.raw, at + np.array(box.start), labels))
    return Draw(tuple(drawn), known, taken)


def _located(classes: U8, ranks_of: Sequence[I64]) -> tuple[I64, U8]:
    """Return where the voxels of these ranks are [N, 3], and their classes."""
    flat = classes.ravel()
    found = [np.flatnonzero(flat == label)[ranks] for label, ranks in enumerate(ranks_of)]
    at = np.stack(np.unravel_index(np.concatenate(found), classes.shape), axis=1)
    labels = np.repeat(np.arange(len(ranks_of), dtype=np.uint8), [len(each) for each in found])
    return at.astype(np.int64), labels


def features_of(
    draw: Draw,
    features: FeatureSet,
    normalise: Normalise,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[F32, U8]:
    """Return the features, float32 [N, F], and the classes, uint8 [N], of drawn voxels.

    The raw is mirrored at the faces of its volume, as in prediction.

    Args:
        draw: the voxels.
        features: of voxels.
        normalise: maps raw to what features are of.
        threads: compute.
        progress: called with (boxes done, boxes in all).
    """
    work = [(voxels, inside) for voxels in draw.voxels for inside in boxes_around(voxels.at, features)]
    rows, classes = [], []
    with Threads(threads) as crew:
        for done, (voxels, inside) in enumerate(work, start=1):
            at = voxels.at[inside]
            box = _around(at)
            raw = normalise(read_padded(voxels.raw, box.grow(features.reach_vox)))
            z, y, x = (at - np.array(box.start)).T
            rows.append(features.compute(raw, crew)[:, z, y, x].T)
            classes.append(voxels.classes[inside])
            if progress is not None:
                progress(done, len(work))
    return np.concatenate(rows), np.concatenate(classes)


def boxes_around(at: I64, features: FeatureSet) -> list[I64]:
    """Return voxels, int64 [N, 3], in groups (indices) of which features are computed in one box each.

    What is labelled is often a few planes of any orientation: a box per plane is then less work than one around
    all. The work of a box is the voxels that it reads.
    """
    return _split(np.arange(len(at)), at, features)


def _split(which: I64, at: I64, features: FeatureSet) -> list[I64]:
    groups = min(
        ([which], *(_runs(which, at[:, axis]) for axis in range(3))),
        key=lambda groups: sum(_work(_around(at[group]), features.reach_vox) for group in groups),
    )
    if len(groups) > 1:
        return [part for group in groups for part in _split(group, at, features)]
    box = _around(at[which])
    if features.peak_bytes(box.shape) <= _BOX_BYTES or box.size == 1:
        return [which]
    axis = int(np.argmax(box.shape))
    upper = at[which, axis] >= box.start[axis] + box.shape[axis] // 2
    return [part for half in (which[~upper], which[upper]) for part in _split(half, at, features)]


def _runs(which: I64, along: I64) -> list[I64]:
    """Return voxels in groups that occupy consecutive coordinates."""
    occupied = np.unique(along[which])
    first = occupied[np.flatnonzero(np.diff(occupied, prepend=-2) > 1)]
    run = np.searchsorted(first, along[which], side="right")
    return [which[run == number] for number in range(1, len(first) + 1)]


def _around(at: I64) -> Box:
    return Box.of(as_vec(at.min(axis=0).tolist()), as_vec((at.max(axis=0) + 1).tolist()))


def _work(box: Box, reach: Vec) -> int:
    return prod(n + 2 * r for n, r in zip(box.shape, reach, strict=True))
