"""From the probabilities of classes to one class per voxel, and how clearly it won.

* **label** — the class of the highest share; of equals the first, as everywhere in emloom (`argmax`).
* **confidence** — the *margin*: share of the winner minus share of the runner-up, in the steps of a byte, 255
  being 1.

The margin is chosen over the entropy, ``1 - H / log K``, because it is about the label that is stored: it is the
share that would have to move for the label to be another one, and is not made smaller by how the remaining share
is spread among classes that lost. It is also a difference of stored integers: the same bits on every machine,
without a logarithm. Neither is a probability of being right: it is as calibrated as the network is.

A voxel without any share, which masked prediction leaves behind, has no class: `UNDECIDED`, confidence 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

UNDECIDED = 255
"""Label of a voxel that has no class, as of unknown voxels everywhere."""

Labels = NDArray[np.uint8]


def decide(shares_CZYX: NDArray[Any]) -> tuple[Labels, Labels]:
    """Return the class and the confidence of every voxel.

    Args:
        shares_CZYX: probabilities of 2 to 255 classes, which exclude each other: uint8 or uint16 with the largest
            value meaning 1, or floats from 0 to 1.

    Returns:
        Labels uint8 [Z, Y, X], `UNDECIDED` where every share is 0; confidence uint8 [Z, Y, X], 255 times the
        margin, rounded half up.

    Raises:
        ValueError: there are fewer than 2 or more than 255 channels.
    """
    count = len(shares_CZYX)
    if not 2 <= count <= UNDECIDED:
        raise ValueError(f"{count} channels: from 2 to 255 classes can be told apart")
    best = shares_CZYX[0].copy()
    second = np.zeros_like(best)
    labels = np.zeros(best.shape, np.uint8)
    for number in range(1, count):
        share = shares_CZYX[number]
        wins = share > best
        labels[wins] = number
        np.maximum(second, np.minimum(best, share), out=second)
        np.maximum(best, share, out=best)
    labels[best == 0] = UNDECIDED
    return labels, margin_code(best - second)


def margin_code(margin: NDArray[Any]) -> Labels:
    """Return margins, 0 to 1 in the steps of their type, as uint8 with 255 for 1; rounded half up."""
    if margin.dtype == np.uint8:
        return margin
    if margin.dtype == np.uint16:  # 65535 = 255 * 257
        return ((margin.astype(np.uint32) + 128) // 257).astype(np.uint8)
    coded: Labels = np.clip(np.floor(margin.astype(np.float64) * 255 + 0.5), 0, 255).astype(np.uint8)
    return coded
