"""From cross-validated predictions of clefts to one score for a stack.

::

    fold k: prediction of its validation box ─► threshold and least size (`choose`)
            prediction of its quarter        ─► clefts of the quarter
    all quarters together                    ─► connected objects of the stack ─► least sizes ─► scores (`score`)

Every voxel of the stack is told by a network that never saw its quarter, at a threshold in which that quarter had
no say. Objects are made of the stack as a whole, so none is cut by the border of two quarters; of an object that
lies in several the least size of the quarter that holds most of it counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.grid import Vec3
from emloom.metrics.cleftobjects import ObjectOptions, ObjectScores, object_scores
from emloom.metrics.clefts import CleftScores, cleft_scores
from emloom.metrics.contingency import contingency
from emloom.ops.labels import split_disconnected

U8 = NDArray[np.uint8]
Ids = NDArray[np.uint64]

LEVELS = tuple(range(13, 255, 11))
"""Thresholds that are tried, of 0 to 255."""
LEAST_VOX = (0, 50, 100, 200, 400, 800, 1600)
"""Least sizes that are tried, in voxels."""
CONNECTIVITY: Literal[26] = 26


@dataclass(frozen=True)
class Rule:
    """How a prediction becomes objects.

    Attributes:
        level: voxels of at least this, of 0 to 255, are cleft.
        least_vox: objects of fewer voxels are none.
        f1: of objects where it was chosen, at its best; it flatters.
    """

    level: int
    least_vox: int
    f1: float


@dataclass(frozen=True, eq=False)
class Fold:
    """What one fold says about its quarter.

    Attributes:
        box: the quarter.
        prediction: uint8 [Z, Y, X].
        rule: chosen elsewhere.
    """

    box: Box
    prediction: U8
    rule: Rule


def choose(prediction_ZYX: U8, truth_ZYX: NDArray[Any], options: ObjectOptions | None = None) -> Rule:
    """Return the threshold and least size with the best F1 of objects, on validation data.

    Of equals the one with the higher F1 of voxels wins, then the higher level, then the larger least size.

    Args:
        prediction_ZYX: uint8, 0 to 255.
        truth_ZYX: not 0 in clefts.
        options: how objects are matched.

    Raises:
        InputError: shapes differ, or the truth holds no cleft.
    """
    truth = np.asarray(truth_ZYX) != 0
    if truth.shape != prediction_ZYX.shape:
        raise InputError(f"the prediction is {prediction_ZYX.shape} and the truth {truth.shape}: give one box")
    if not truth.any():
        raise InputError("no cleft is known here: a threshold needs some to be chosen by; take another box")
    true_objects = split_disconnected(truth.astype(np.uint8), CONNECTIVITY)
    best: tuple[tuple[float, float, int, int], Rule] | None = None
    for level in LEVELS:
        found = prediction_ZYX >= level
        voxels = 2 * int((found & truth).sum()) / (int(found.sum()) + int(truth.sum()))
        objects = split_disconnected(found.astype(np.uint8), CONNECTIVITY)
        sizes = np.bincount(objects.ravel().astype(np.int64))
        for least in LEAST_VOX:
            kept = np.where(sizes[objects] >= least, objects, np.uint64(0))
            f1 = object_scores(contingency(true_objects, kept, ignore_truth=(), threads=1), options).f1
            rank = (f1, voxels, level, least)
            if best is None or rank > best[0]:
                best = (rank, Rule(level, least, f1))
    assert best is not None
    return best[1]


def assembled(folds: Sequence[Fold], shape: tuple[int, int, int]) -> Ids:
    """Return the objects that all folds together found, uint64 [Z, Y, X], 0 where there is none.

    Args:
        folds: whose boxes tile the stack.
        shape: of the stack.

    Raises:
        InputError: boxes overlap, leave the stack or leave a part of it out.
    """
    fold_of = np.full(shape, -1, np.int16)
    mask = np.zeros(shape, np.uint8)
    for number, fold in enumerate(folds):
        at = fold.box.slices()
        if not Box((0, 0, 0), shape).contains(fold.box) or (fold_of[at] >= 0).any():
            raise InputError(f"the {fold.box} of fold {number} overlaps another, or leaves a stack of {shape}")
        fold_of[at] = number
        mask[at] = fold.prediction >= fold.rule.level
    if (fold_of < 0).any():
        raise InputError(f"no fold tests {np.count_nonzero(fold_of < 0)} voxels of the stack: they must tile it")
    objects = split_disconnected(mask, CONNECTIVITY)
    least = np.array([fold.rule.least_vox for fold in folds])
    n = int(objects.max()) + 1
    held = np.bincount(objects.ravel().astype(np.int64) * len(folds) + fold_of.ravel(), minlength=n * len(folds))
    held = held.reshape(n, len(folds))
    keep = held.sum(axis=1) >= least[held.argmax(axis=1)]
    keep[0] = False
    kept: Ids = np.where(keep[objects], objects, np.uint64(0))
    return kept


def score(
    objects_ZYX: Ids, truth_ZYX: NDArray[Any], spacing_nm: Vec3, options: ObjectOptions | None = None
) -> tuple[ObjectScores, CleftScores]:
    """Return how good the objects of a stack are: as objects, and as CREMI scores their voxels.

    Args:
        objects_ZYX: of `assembled`.
        truth_ZYX: not 0 in clefts.
        spacing_nm: voxel size (z, y, x).
        options: how objects are matched.
    """
    truth = (np.asarray(truth_ZYX) != 0).astype(np.uint8)
    table = contingency(split_disconnected(truth, CONNECTIVITY), objects_ZYX, ignore_truth=(), threads=1)
    voxels = cleft_scores(truth, (objects_ZYX != 0).astype(np.uint8), spacing_nm, zero_is_background=True)
    return object_scores(table, options), voxels


def dark_blobs(raw_ZYX: NDArray[Any], spacing_nm: Vec3, blob_nm: float, grey: tuple[float, float]) -> U8:
    """Return how dark the surroundings of a voxel are, as a prediction of clefts by somebody who learned nothing.

    A Gaussian within sections, of a standard deviation of half the width of a blob; black is 255.

    Args:
        raw_ZYX: raw.
        spacing_nm: voxel size (z, y, x).
        blob_nm: width of the blobs looked for.
        grey: raw values that become 255 and 0.
    """
    low, high = grey
    sigma = (0.0, *(blob_nm / 2 / size for size in spacing_nm[1:]))
    smooth = ndimage.gaussian_filter(np.asarray(raw_ZYX, np.float32), sigma)
    dark: U8 = np.clip(np.rint((high - smooth) * (255 / (high - low))), 0, 255).astype(np.uint8)
    return dark
