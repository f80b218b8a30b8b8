"""A library of real artifacts, in memory, and how one of them is turned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Library:
    """Artifacts of one size.

    Attributes:
        images: float32 ``[N, Y, X]``, in the network's range.
        masks: float32 ``[N, Y, X]`` in [0, 1]: how much of the artifact is seen.
    """

    images: F32
    masks: F32


def turned(image_YX: F32, flips: tuple[bool, bool], transposed: bool) -> F32:
    """Return an image transposed, then flipped (a view)."""
    image = image_YX.T if transposed else image_YX
    y, x = (slice(None, None, -1) if flip else slice(None) for flip in flips)
    return image[y, x]
