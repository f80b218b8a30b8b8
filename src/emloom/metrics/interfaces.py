"""Scores near the interfaces of classes: boundary F1, and confusion within a band.

Convention: distances are Euclidean, in nm, between centres of voxels, so anisotropic voxels are handled. An
interface is where two voxels of different classes meet that both *count*; faces of the array, ignored and masked
voxels are no interface, and a prediction made at such a voxel matters to nothing here::

    band        counted voxels that have a counted voxel of another true class within d
    complement  the other counted voxels                      confusion(band) + confusion(complement) == confusion

    boundary of a class   its counted voxels with a counted face neighbour of another class
    precision             part of the predicted boundary with true boundary within d
    recall                part of the true boundary with predicted boundary within d
    boundary F1           2 precision recall / (precision + recall)             (Csurka et al., BMVC 2013)
    surface Dice          part of both boundaries together that is matched      (Nikolov et al., arXiv:1809.04430)

A block needs `Near.context_vox` around the voxels it counts; then blockwise equals whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor, isfinite, nan
from typing import Any

import edt
import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.geometry.grid import TOLERANCE_VOX, Vec3, as_nm
from emloom.metrics.classify import Confusion, confusion
from emloom.metrics.counts import Array, CountTable, Ignore, Mask, known_voxels, mean, require_labels

_TIE = 1e-5  # distances this close to d, relative to it, are d: they are float32


@dataclass(frozen=True)
class Near:
    """What counts as near.

    Args:
        distance_nm: up to this far, in nm between centres of voxels.
        spacing_nm: voxel size (z, y, x) in nm.
        in_plane: look within each z section only: for sections so thick, or so badly aligned, that an interface
            between two of them means little.

    Raises:
        InputError: a length is not finite and positive.
    """

    distance_nm: float
    spacing_nm: Vec3
    in_plane: bool = False

    def __post_init__(self) -> None:
        spacing = as_nm(self.spacing_nm, "voxel size")
        if min(spacing) <= 0 or not (isfinite(self.distance_nm) and self.distance_nm > 0):
            raise InputError(
                f"distance {self.distance_nm} nm at voxels of {spacing} nm: give lengths above 0; two voxels that "
                "touch are one voxel size apart"
            )
        object.__setattr__(self, "spacing_nm", spacing)

    @property
    def context_vox(self) -> Vec:
        """Voxels (z, y, x) around a box that its scores depend on."""
        z, y, x = (floor(self.distance_nm / s + TOLERANCE_VOX) + 1 for s in self.spacing_nm)
        return (0 if self.in_plane else z, y, x)

    def to(self, target_ZYX: Mask) -> Mask:
        """Return bool [Z, Y, X]: where a voxel of the target, the one itself included, is near."""
        near = np.zeros(target_ZYX.shape, np.bool_)
        limit = np.float32(self.distance_nm * (1 + _TIE))
        transform: Callable[..., NDArray[np.float32]] = edt.edt
        pieces: Sequence[Any] = range(len(target_ZYX)) if self.in_plane else [slice(None)]
        spacing = self.spacing_nm[1:] if self.in_plane else self.spacing_nm
        for piece in pieces:
            if target_ZYX[piece].any():  # else distances are to nothing
                other = np.ascontiguousarray(~target_ZYX[piece])
                near[piece] = transform(other, anisotropy=spacing, black_border=False, parallel=1) <= limit
        return near


@dataclass(frozen=True)
class BandConfusions:
    """Confusion matrices near the true interfaces and away from them; their sum is that of all voxels."""

    near: Confusion
    far: Confusion


@dataclass(frozen=True, eq=False)
class BoundaryTable(CountTable):
    """Boundary voxels per class, and how many of them are matched.

    Attributes:
        counts: int64 [C, 4], columns: true boundary, of it with predicted boundary near, predicted boundary, of it
            with true boundary near.

    Raises:
        InputError: the counts are not int64, negative or not [C, 4].
    """

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[1] != 4 or shape[0] < 1:
            raise InputError(f"a boundary table is [classes, 4], not {shape}")


@dataclass(frozen=True)
class BoundaryScores:
    """How well the boundary of one class is met; 1 is best, 0 worst.

    Attributes:
        label: the class.
        precision: part of the predicted boundary that is near the true one.
        recall: part of the true boundary that is near the predicted one.
        f1: their harmonic mean, the BF score.
        surface_dice: matched part of both boundaries together.
        n_truth: voxels of the true boundary.
        n_predicted: voxels of the predicted boundary.
        reason: why a score is NaN, or 0 by convention; else empty.
    """

    label: int
    precision: float
    recall: float
    f1: float
    surface_dice: float
    n_truth: int
    n_predicted: int
    reason: str


def interface_band(truth_ZYX: Array, near: Near, *, ignore: Ignore = 255, mask: Mask | None = None) -> Mask:
    """Return where a voxel of another true class is near; False where nothing counts.

    Args:
        truth_ZYX: class labels, any integer type or bool.
        near: how near, in nm.
        ignore: value or values of the truth whose voxels do not count; () for none. Where people left a seam of
            ignored voxels between classes, the distance is across the seam.
        mask: bool [Z, Y, X]; only True voxels count.

    Returns:
        bool [Z, Y, X]: the `mask` of `confusion` and of every other score.

    Raises:
        InputError: the array is not 3-dimensional or not integer, or the mask does not fit.
    """
    _require_zyx(truth_ZYX)
    known = known_voxels(truth_ZYX, ignore, mask)
    band = np.zeros(truth_ZYX.shape, np.bool_)
    for label in np.unique(truth_ZYX[known]):
        of_class = known & (truth_ZYX == label)
        band |= of_class & near.to(known & ~of_class)
    return band


def band_confusions(
    truth_ZYX: Array,
    predicted_ZYX: Array,
    n_classes: int,
    near: Near,
    *,
    ignore: Ignore = 255,
    mask: Mask | None = None,
    box: Box | None = None,
) -> BandConfusions:
    """Return the confusion near the true interfaces, and that of all other voxels.

    Args:
        truth_ZYX: classes 0 to ``n_classes - 1`` or ignored values.
        predicted_ZYX: classes, the shape of `truth_ZYX`.
        n_classes: how many classes there are.
        near: how near, in nm.
        ignore: value or values of the truth whose voxels do not count; () for none.
        mask: bool [Z, Y, X]; only True voxels count.
        box: voxels to count; the rest is context. None: all.

    Raises:
        InputError: as `confusion`, the array is not 3-dimensional, or `box` leaves it.
    """
    inner = _inner(truth_ZYX, box)
    if predicted_ZYX.shape != truth_ZYX.shape:
        raise InputError(f"truth is {truth_ZYX.shape} but prediction is {predicted_ZYX.shape}: crop to one box")
    band = interface_band(truth_ZYX, near, ignore=ignore, mask=mask)[inner]
    known = known_voxels(truth_ZYX, ignore, mask)[inner]
    truth, predicted = truth_ZYX[inner], predicted_ZYX[inner]
    return BandConfusions(
        near=confusion(truth, predicted, n_classes, ignore=(), mask=known & band),
        far=confusion(truth, predicted, n_classes, ignore=(), mask=known & ~band),
    )


def boundary_table(
    truth_ZYX: Array,
    predicted_ZYX: Array,
    n_classes: int,
    near: Near,
    *,
    ignore: Ignore = 255,
    mask: Mask | None = None,
    box: Box | None = None,
) -> BoundaryTable:
    """Count the boundary voxels of every class, and those that the other boundary is near.

    Args:
        truth_ZYX: classes 0 to ``n_classes - 1`` or ignored values.
        predicted_ZYX: classes, the shape of `truth_ZYX`.
        n_classes: how many classes there are.
        near: the tolerance, in nm.
        ignore: value or values of the truth whose voxels do not count; () for none.
        mask: bool [Z, Y, X]; only True voxels count.
        box: voxels to count; the rest is context. None: all.

    Raises:
        InputError: as `confusion`, the array is not 3-dimensional, or `box` leaves it.
    """
    inner = _inner(truth_ZYX, box)
    known = known_voxels(truth_ZYX, ignore, mask)
    confusion(truth_ZYX, predicted_ZYX, n_classes, ignore=(), mask=known)  # refuses labels that are no class
    counts = np.zeros((n_classes, 4), np.int64)
    for label in range(n_classes):
        true = _boundary(known & (truth_ZYX == label), known, near.in_plane)
        called = _boundary(known & (predicted_ZYX == label), known, near.in_plane)
        for column, (mine, others) in enumerate(((true, called), (called, true))):
            counts[label, 2 * column] = np.count_nonzero(mine[inner])
            counts[label, 2 * column + 1] = np.count_nonzero((mine & near.to(others))[inner])
    return BoundaryTable(counts)


def boundary_scores(table: BoundaryTable) -> tuple[BoundaryScores, ...]:
    """Return the scores of every class; NaN, with a reason, where neither side has a boundary."""
    return tuple(_scores(label, *row) for label, row in enumerate(table.counts.tolist()))


def mean_boundary_f1(table: BoundaryTable) -> float:
    """Return the mean boundary F1 of the classes that have a boundary on either side; NaN where none has."""
    return mean(score.f1 for score in boundary_scores(table) if score.n_truth + score.n_predicted)


def _scores(label: int, n_truth: int, found: int, n_predicted: int, right: int) -> BoundaryScores:
    if n_truth + n_predicted == 0:
        reason = f"class {label} has no boundary in truth or prediction: left out of the mean"
        return BoundaryScores(label, nan, nan, nan, nan, 0, 0, reason)
    missing = "" if n_truth and n_predicted else f"class {label} has a boundary on one side only: 0/0 counts as 0"
    precision = right / n_predicted if n_predicted else 0.0
    recall = found / n_truth if n_truth else 0.0
    return BoundaryScores(
        label=label,
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        surface_dice=(found + right) / (n_truth + n_predicted),
        n_truth=n_truth,
        n_predicted=n_predicted,
        reason=missing,
    )


def _boundary(of_class: Mask, known: Mask, in_plane: bool) -> Mask:
    """Return voxels of a class with a known face neighbour outside it."""
    outside = known & ~of_class
    found = np.zeros(of_class.shape, np.bool_)
    for axis in (1, 2) if in_plane else (0, 1, 2):
        low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
        found[low] |= of_class[low] & outside[high]
        found[high] |= of_class[high] & outside[low]
    return found


def _inner(truth_ZYX: Array, box: Box | None) -> tuple[slice, ...]:
    _require_zyx(truth_ZYX)
    whole = Box.whole(truth_ZYX.shape)
    box = whole if box is None else box
    if not whole.contains(box):
        raise InputError(f"{box} leaves the labels, which are {whole}: choose a box inside them")
    return box.slices()


def _require_zyx(truth_ZYX: Array) -> None:
    require_labels(truth_ZYX, "truth")
    if truth_ZYX.ndim != 3:
        raise InputError(f"truth has shape {truth_ZYX.shape}: give z, y, x; one section is [1, Y, X]")
