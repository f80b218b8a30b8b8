"""Sets of candidate classes, as labels: "one of these, and nobody looked which".

Somebody who paints only mitochondria leaves behind voxels that are *not mitochondrion*, yet may be any other
class. Such a voxel is neither known nor unknown: it has a set of candidates, written as one integer ::

    label = SETS + sum(1 << c)        over the numbers c of the classes, counted from 0 in the order they are named

    2 classes of 4:  SETS + 0b0110    class 1 or class 2

A set of one class is that class. A set of all classes says nothing: the voxel is unknown. Sets lie in
[2**62, 2**63), so that they fit signed and unsigned labels of 64 bits; no id of a class may lie there or above.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops.labels import Bits

SETS = 1 << 62
"""Labels from here to 2**63 are sets of classes."""
MOST_IN_SETS = 62
"""As many classes can be told apart in a set."""


def set_label(classes: Iterable[int]) -> int:
    """Return the label that says "one of these classes".

    Args:
        classes: numbers of classes, from 0.

    Raises:
        InputError: there is none, or one is not in 0 to 61.
    """
    numbers = set(classes)
    if not numbers:
        raise InputError("a set of no class: a voxel is one of something; leave it unknown instead")
    if min(numbers) < 0 or max(numbers) >= MOST_IN_SETS:
        raise InputError(f"classes {sorted(numbers)} in a set: numbers are 0 to {MOST_IN_SETS - 1}")
    return SETS + sum(1 << number for number in numbers)


def classes_of(label: int) -> tuple[int, ...]:
    """Return the numbers of the classes of a set; the reverse of `set_label`."""
    return tuple(number for number in range(MOST_IN_SETS) if (label - SETS) >> number & 1)


def are_sets(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where labels (any integers, any shape) are sets."""
    if labels.dtype.itemsize < 8:
        return np.zeros(labels.shape, np.bool_)
    out: NDArray[np.bool_] = labels >= SETS
    if out.any() and labels.dtype.kind == "u":
        out &= labels < 2 * SETS
    return out


def candidates(labels: NDArray[Any], n_classes: int, where: NDArray[np.bool_]) -> Bits:
    """Return the candidates of labels that are sets.

    Args:
        labels: 64-bit integers of any shape.
        n_classes: number of classes.
        where: the sets among them, `are_sets`.

    Returns:
        uint8 [n_classes, n], n the number of sets, in the order of the array: 1 for candidates.

    Raises:
        InputError: a set is empty, or names a class there is not.
    """
    bits = labels[where].astype(np.uint64) - np.uint64(SETS)
    wrong = (bits == 0) | (bits >> np.uint64(n_classes) != 0)
    if wrong.any():
        label = int(bits[wrong][0]) + SETS
        said = classes_of(label)
        raise InputError(
            f"label {label} is a set of the classes {said}, and there are {n_classes}: numbers of a set are "
            f"0 to {n_classes - 1}, in the order the classes are named"
            if said
            else f"label {label} is a set of no class: give the voxel an id that no class names"
        )
    numbers = np.arange(n_classes, dtype=np.uint64)[:, None]
    return (bits >> numbers & np.uint64(1)).astype(np.uint8)
