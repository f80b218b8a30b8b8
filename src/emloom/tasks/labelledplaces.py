"""What is labelled already: where, and how many voxels of every class.

Boxes stand for what lies in them: a painted plane or block is one; scattered voxels (points, lines, oblique
planes) and the labelled voxels of a volume are boxed cell by cell, so that no box covers much that nobody has
labelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec, cells
from emloom.io.checks import require_labels
from emloom.io.open import open_volume
from emloom.io.volume import Volume
from emloom.nn.objectives.semantic import SemanticClass
from emloom.nn.painted import VoxelPiece
from emloom.tasks.classnames import class_values
from emloom.tasks.lattice import start_in
from emloom.tasks.sparselabels import open_sparse
from emloom.tasks.sparsespec import SparseLabels, is_sparse

_CELL = (32, 64, 64)  # voxels of which one box is made


@dataclass(frozen=True)
class Labelled:
    """What is labelled.

    Attributes:
        boxes: that hold it, in voxels of the prediction; they may lie outside it.
        voxels: labelled voxels of every class.
        values: what stands for every class where people paint; 0 is undefined.
    """

    boxes: tuple[Box, ...]
    voxels: tuple[int, ...]
    values: tuple[int, ...]


def labelled_places(path: str | None, predicted: Volume, raw: Volume, names: Sequence[str]) -> Labelled:
    """Return what is labelled.

    Args:
        path: a `labels.yaml` of pieces, or a volume of labels: class 0 is 0, and 255 is unknown; None: nothing.
        predicted: the probabilities.
        raw: the raw volume; pieces are placed on it.
        names: of the classes.

    Raises:
        InputError: it cannot be read, or is of another grid, or of other classes.
    """
    values = class_values(predicted.info.source, names)
    if path is None:
        return Labelled((), (0,) * len(names), values)
    if is_sparse(path):
        return _of_pieces(path, predicted, raw, dict(zip(names, values, strict=True)))
    boxes, voxels = _of_volume(open_volume(path, kind="labels"), predicted, len(names))
    return Labelled(boxes, voxels, values)


def _of_pieces(path: str, predicted: Volume, raw: Volume, values: Mapping[str, int]) -> Labelled:
    objective, names = _objective(path, values), tuple(values)
    sparse = open_sparse(path, raw.info, objective)
    voxels = np.zeros(len(names), np.int64)
    boxes: list[Box] = []
    for piece in sparse.pieces:
        for number, (label, _) in sparse.classes.learned.items():
            if number < len(piece.counts):
                voxels[label] += piece.counts[number]
        painted = piece.painted
        boxes += boxes_around(painted.voxels) if isinstance(painted, VoxelPiece) else [painted.box]
    start = start_in(raw, predicted)
    shifted = tuple(box.shift(start) for box in boxes)
    return Labelled(shifted, tuple(voxels.tolist()), tuple(each.ids[0] for each in objective))


def _objective(path: str, values: Mapping[str, int]) -> list[SemanticClass]:
    """Return the classes with the values that the pieces give them, else those given."""
    said, names = SparseLabels.load(path).classes, tuple(values)
    if said is None:
        return [SemanticClass(name=name, ids=(value,)) for name, value in values.items()]
    ids = {name: each if isinstance(each, tuple) else (each,) for name, each in said.items()}
    if not set(ids) & set(names):
        raise InputError(
            f"{path} labels {', '.join(ids)}, and the classes are {', '.join(names)}: name those of the model as "
            "the labels do (--names)"
        )
    taken = {number for each in ids.values() for number in each}
    free = (number for number in range(1, 256) if number not in taken)
    return [SemanticClass(name=name, ids=ids[name] if name in ids else (next(free),)) for name in names]


def _of_volume(volume: Volume, predicted: Volume, count: int) -> tuple[tuple[Box, ...], tuple[int, ...]]:
    require_labels(volume)
    start = start_in(volume, predicted)
    voxels = np.zeros(count, np.int64)
    boxes: list[Box] = []
    for _, part in cells(volume.info.box, _CELL):
        labels = volume.read(part)
        known = labels < count
        voxels += np.bincount(labels[known].astype(np.int64), minlength=count)
        boxes += [box.shift(part.start).shift(start) for box in boxes_around(np.argwhere(known), labels.shape)]
    return tuple(boxes), tuple(voxels.tolist())


def boxes_around(voxels: NDArray[np.int64], cell: Vec = _CELL) -> list[Box]:
    """Return the bounding boxes of the voxels [n, 3] in every cell that has some, in the order of the cells."""
    if not len(voxels):
        return []
    owners, where = np.unique(voxels // np.array(cell), axis=0, return_inverse=True)
    low = np.full(owners.shape, np.iinfo(np.int64).max)
    high = np.full(owners.shape, -1, np.int64)
    np.minimum.at(low, where.ravel(), voxels)
    np.maximum.at(high, where.ravel(), voxels)
    high += 1
    return [Box.of(low[k].tolist(), high[k].tolist()) for k in range(len(owners))]
