"""Polarity: which side of a synapse a voxel is on, and how near.

Two sides of many synapses in one array of labels (EM-R50; Lin et al., ECCV 2020): synapse n has its pre side in
2 n - 1 and its post side in 2 n.

Algebra::

    pre, post, union = polarity_target(a)
    polarity_labels(synapses_of(a), pre, post) == a         where everything is known
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.ops.distances import boundary_distance
from emloom.ops.labels import LARGEST_ID, Bits, Ids, known_mask, require_labels_array, require_mask_array

Array = NDArray[Any]
F32 = NDArray[np.float32]

PROXIMITY_ENDS = 3.0
"""Scales from a side at which its proximity is taken to be 0: exp(-9) = 0.0001."""


def polarity_target(labels_ZYX: Array, *, mask_ZYX: Array | None = None) -> tuple[Bits, Bits]:
    """Return pre side, post side and both, of labels that are odd on the pre and even on the post side.

    Returns:
        target uint8 [3, Z, Y, X]: pre, post, pre or post; 0 where unknown; and weight uint8 [Z, Y, X].

    Raises:
        InputError: invalid labels or mask.
    """
    labels = require_labels_array(labels_ZYX)
    weight = known_mask(mask_ZYX, labels.shape)
    odd = (labels & np.uint64(1)).astype(np.uint8)
    union = (labels != 0).view(np.uint8)
    return np.stack([odd, union & (odd ^ 1), union]) * weight, weight


def synapses_of(labels_ZYX: Array) -> Ids:
    """Return the synapse n of every voxel: pre side 2 n - 1 and post side 2 n become n; 0 stays 0."""
    labels = require_labels_array(labels_ZYX)
    return (labels >> np.uint64(1)) + (labels & np.uint64(1))


def polarity_labels(synapses_ZYX: Array, pre_ZYX: Array, post_ZYX: Array) -> Ids:
    """Return labels of sides: 2 n - 1 where synapse n is pre, 2 n where it is post; inverse of the target.

    Args:
        synapses_ZYX: synapse ids n, any unsigned integer; 0 is background.
        pre_ZYX: not 0 on the pre side.
        post_ZYX: not 0 on the post side; wins where both are.

    Returns:
        uint64 [Z, Y, X]; 0 where a voxel is in no synapse or on no side.

    Raises:
        InputError: shapes disagree, or an id is 2**62 or more and its double no longer an id.
    """
    synapses = require_labels_array(synapses_ZYX, "synapses")
    pre, post = (require_mask_array(side, synapses.shape) != 0 for side in (pre_ZYX, post_ZYX))
    if synapses.size and int(synapses.max()) > LARGEST_ID // 2:
        raise InputError(
            f"synapses holds the id {int(synapses.max())}: its sides need 2 n below 2**63; relabel first"
        )
    doubled = synapses << np.uint64(1)
    labels: Ids = np.where(post, doubled, np.where(pre & (doubled != 0), doubled - np.uint64(1), np.uint64(0)))
    return labels


def signed_proximity(
    labels_ZYX: Array, spacing_nm: Sequence[float], scale_nm: float, *, mask_ZYX: Array | None = None
) -> tuple[F32, Bits]:
    """Return ``exp(-(d / scale)^2)``, d being the distance to the nearest side: positive pre, negative post.

    Parag et al., 2018 (arXiv:1807.02739). 1 on the pre side, -1 on the post side; 0 as near to both, and from
    `PROXIMITY_ENDS` scales on. A box needs the context of a distance up to there.

    Args:
        labels_ZYX: odd on pre sides, even on post sides; 0 is background.
        spacing_nm: voxel size (z, y, x) in nm.
        scale_nm: distance at which proximity falls to 1 / e.
        mask_ZYX: 0 where nobody looked; None: all known.

    Returns:
        float32 [Z, Y, X] within -1 and 1, and weight uint8 [Z, Y, X]: 1 where it is certain, see
        `emloom.ops.distances`.

    Raises:
        InputError: invalid labels or mask, or a length is not positive.
    """
    sides, _ = polarity_target(labels_ZYX)
    cap = PROXIMITY_ENDS * scale_nm
    away, certain = [], []
    for side in sides[:2]:
        distance, weight = boundary_distance(side, spacing_nm, cap, instances=False, mask_ZYX=mask_ZYX)
        away.append(np.where(side != 0, np.float32(0), distance))
        # Inside, the distance is 0 whatever lies around.
        certain.append((weight | side) & known_mask(mask_ZYX, side.shape))
    nearest = np.minimum(*away)
    proximity = np.exp(-((nearest / np.float32(scale_nm)) ** 2), where=nearest < cap, out=np.zeros_like(nearest))
    # On a side the other one's distance is above 0, so only the own side has to be certain.
    weight = (certain[0] & certain[1]) | (known_mask(mask_ZYX, sides[2].shape) & sides[2])
    return proximity * np.sign(away[1] - away[0]), weight
