"""How often a class touches what it must not: faces of classes that are always enclosed by another.

The rule, and which faces are a surface, are those of `emloom.ops.enclosure`. Two sides are counted, each by
itself:

* the *prediction*, on all voxels that the mask allows: whether it is enclosed needs no truth, and where people
  leave a seam of unknown voxels between classes, the truth knows nothing of just these faces;
* the *truth*, between voxels that count: what the rule is worth on these data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.geometry.grid import Vec3
from emloom.metrics.counts import Array, CountTable, Mask
from emloom.ops.decide import UNDECIDED
from emloom.ops.enclosure import Enclosure, enclosure_faces, violation_rate

SIDES = ("predicted", "truth")


@dataclass(frozen=True, eq=False)
class EnclosureTable(CountTable):
    """Faces of enclosed classes.

    Attributes:
        counts: int64 [rules, 12]: predicted, then true; surface, then violating; along z, y, x.

    Raises:
        InputError: the counts are not int64, negative or not [rules, 12].
    """

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 2 or shape[1] != 12:
            raise InputError(f"an enclosure table is [rules, 12], not {shape}")

    def rate(self, rule: int, side: int, spacing_nm: Vec3) -> float:
        """Return violating over surface area of a rule, predicted (0) or true (1); NaN where there is none."""
        return violation_rate(self.counts[rule].reshape(2, 2, 3)[side], spacing_nm)


def enclosure_table(
    truth_ZYX: Array,
    predicted_ZYX: Array,
    rules: Sequence[Enclosure],
    *,
    known: Mask,
    usable: Mask | None = None,
    box: Box | None = None,
) -> EnclosureTable:
    """Count the faces of enclosed classes, in the prediction and in the truth.

    Args:
        truth_ZYX: classes, anything where they are not known.
        predicted_ZYX: classes; 255 is undecided.
        rules: what encloses what.
        known: bool [Z, Y, X], where the truth counts.
        usable: bool [Z, Y, X], where the prediction does; None: everywhere.
        box: voxels that own the faces counted; needs one more voxel after them. None: all.
    """
    rows = []
    for rule in rules:
        called = enclosure_faces(_bytes(predicted_ZYX), rule, box, usable)
        true = enclosure_faces(_bytes(truth_ZYX), rule, box, known)
        rows.append(np.concatenate([called.ravel(), true.ravel()]))
    return EnclosureTable(np.array(rows, np.int64).reshape(len(rules), 12))


def _bytes(labels: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.where((labels >= 0) & (labels < UNDECIDED), labels, UNDECIDED).astype(np.uint8)
