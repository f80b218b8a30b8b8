"""One channel per class, and where the class is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops.labels import Bits

Array = NDArray[Any]


def one_hot(labels_ZYX: Array, n_classes: int, *, ignore: int | None = None) -> tuple[Bits, Bits]:
    """Return one channel per class.

    Args:
        labels_ZYX: classes 0 to n_classes - 1, any integer.
        n_classes: number of channels.
        ignore: value that stands for "not annotated"; None: there is none.

    Returns:
        target uint8 [C, Z, Y, X]: 1 in the channel of the voxel's class, all 0 where it is `ignore`; and weight
        uint8 [Z, Y, X]: 0 where it is `ignore`.

    Raises:
        InputError: not three-dimensional integers, no class, or a value that is neither class nor `ignore`.
    """
    if labels_ZYX.ndim != 3 or labels_ZYX.dtype.kind not in "iu":
        raise InputError(f"classes are {labels_ZYX.dtype} {labels_ZYX.shape}: give integers, z, y, x")
    if n_classes < 1:
        raise InputError(f"n_classes is {n_classes}: give 1 or more")
    weight = np.ones(labels_ZYX.shape, np.bool_) if ignore is None else labels_ZYX != ignore
    strange = labels_ZYX[weight & ((labels_ZYX < 0) | (labels_ZYX >= n_classes))]
    if strange.size:
        raise InputError(
            f"classes hold {int(strange[0])}: give 0 to {n_classes - 1}, or ignore={int(strange[0])} if it stands "
            "for voxels that are not annotated"
        )
    target = np.stack([(labels_ZYX == c) & weight for c in range(n_classes)])
    return target.view(np.uint8), weight.view(np.uint8)
