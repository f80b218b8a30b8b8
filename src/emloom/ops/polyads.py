"""Polyads in one array of labels: whatever turns the labels turns pre and post sites alike, and never swaps them.

A polyad is one pre site with its post sites. Every site is a ball of voxels, and a voxel says whose::

    label = polyad * 256 + side        side 0: the pre site    sides 1 to 255: its post sites    0: background

so polyad and side are read back from any voxel, wherever augmentation put it::

    polyads_of(encode(p, s)) == p      sides_of(encode(p, s)) == s      p from 1 to 2**55 - 1, s from 0 to 255

Which side is pre is a matter of the number, not of where things lie: a mirrored array has the same pre sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.ops.labels import LARGEST_ID, Bits, Ids, require_ids, require_labels_array, require_mask_array

Array = NDArray[Any]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

SIDES = 256
"""Sides of a polyad: one pre site and up to 255 post sites."""
LARGEST_POLYAD = LARGEST_ID // SIDES
"""Largest id of a polyad whose sides are still ids."""

_SHIFT = np.uint64(8)
_SIDE = np.uint64(SIDES - 1)
_FACES = np.array([(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)])


def encode(polyads: Array, sides: Array) -> Ids:
    """Return the labels of sides of polyads, uint64 of the same shape.

    Raises:
        InputError: a polyad is not within 1 and 2**55 - 1, or a side not within 0 and 255.
    """
    polyad, side = require_ids(polyads, "polyads"), np.asarray(sides)
    wrong = polyad[(polyad == 0) | (polyad > LARGEST_POLYAD)]
    if wrong.size:
        raise InputError(
            f"{int(wrong[0])} is no polyad whose sides can be labels: ids go from 1 to {LARGEST_POLYAD}; number "
            "the polyads anew"
        )
    if side.size and (int(side.min()) < 0 or int(side.max()) >= SIDES):
        raise InputError(
            f"side {int(side.max() if side.max() >= SIDES else side.min())} of a polyad: sides are 0 (pre) to "
            f"{SIDES - 1}, so a pre site has at most {SIDES - 1} post sites; leave some out"
        )
    labels: Ids = (polyad << _SHIFT) | side.astype(np.uint64)
    return labels


def polyads_of(labels: Array) -> Ids:
    """Return the polyad of every label, 0 of background; raises `InputError` where labels are no ids."""
    return require_ids(labels) >> _SHIFT


def sides_of(labels: Array) -> Ids:
    """Return the side of every label, 0 is pre (and background); raises `InputError` where labels are no ids."""
    return require_ids(labels) & _SIDE


def post_sides(polyads: Array, ids: Array) -> NDArray[np.int64]:
    """Return the side of every contact: the posts of a polyad are numbered from 1 on in the order of their ids.

    Args:
        polyads: [n], the polyad of every contact.
        ids: [n], of the contacts, each once.

    Raises:
        InputError: a polyad has more than 255 post sites.
    """
    order = np.lexsort((ids, polyads))
    ordered = np.asarray(polyads)[order]
    first = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] + 1 if len(ordered) else ordered) != 0)
    counts = np.diff(np.append(first, len(ordered)))
    if counts.size and counts.max() >= SIDES:
        worst = ordered[first[counts.argmax()]]
        raise InputError(
            f"polyad {int(worst)} has {int(counts.max())} post sites: a polyad has at most {SIDES - 1}; split it, "
            "or leave some out"
        )
    sides = np.empty(len(ordered), np.int64)
    sides[order] = np.arange(len(ordered)) - np.repeat(first, counts) + 1
    return sides


def side_masks(labels_ZYX: Array, *, mask_ZYX: Array | None = None) -> Bits:
    """Return where pre and post sites are: uint8 [2, Z, Y, X] (pre, post), 0 where the mask is.

    Raises:
        InputError: invalid labels or mask.
    """
    labels = require_labels_array(labels_ZYX)
    known = require_mask_array(mask_ZYX, labels.shape)
    post = (labels & _SIDE) != 0
    pre = (labels != 0) & ~post
    masks: Bits = np.stack([pre, post]).view(np.uint8)
    return masks * known if known.size else masks


def polarity_labels_of(labels_ZYX: Array) -> Ids:
    """Return the same sides as `emloom.ops.polarity` numbers them: polyad n has 2 n - 1 (pre) and 2 n (post).

    Raises:
        InputError: invalid labels.
    """
    labels = require_labels_array(labels_ZYX)
    pre = ((labels & _SIDE) == 0) & (labels != 0)
    numbers: Ids = ((labels >> _SHIFT) << np.uint64(1)) - pre.astype(np.uint64)
    return numbers


@dataclass(frozen=True, eq=False)
class PreBalls:
    """The pre balls in sight.

    Attributes:
        polyads: uint64 [n], ascending.
        centroids: float64 [n, 3], the mean voxel (z, y, x) of each ball; centres of voxels are whole numbers.
        whole: bool [n], whether the ball ends before what is known does.
    """

    polyads: Ids
    centroids: F64
    whole: NDArray[np.bool_]


def pre_balls(labels_ZYX: Array, *, mask_ZYX: Array | None = None) -> PreBalls:
    """Return the pre balls of an array, and which of them are whole.

    A ball that touches a face of the array, or a voxel where the mask is 0, may go on there: it is not whole.

    Raises:
        InputError: invalid labels or mask.
    """
    labels = require_labels_array(labels_ZYX)
    known = require_mask_array(mask_ZYX, labels.shape)
    pre = (labels != 0) & ((labels & _SIDE) == 0)
    at = np.argwhere(pre)
    polyads, ball = np.unique(labels[pre] >> _SHIFT, return_inverse=True)
    count = np.bincount(ball, minlength=len(polyads))
    sums = np.stack([np.bincount(ball, at[:, axis], len(polyads)) for axis in range(3)], axis=1)
    cut = np.zeros(len(at), bool)
    for step in _FACES:
        beside = at + step
        inside = ((beside >= 0) & (beside < labels.shape)).all(axis=1)
        cut |= ~inside
        if known.size:
            cut[inside] |= known[tuple(beside[inside].T)] == 0
    if known.size:
        cut |= known[tuple(at.T)] == 0
    whole = np.bincount(ball, cut, len(polyads)) == 0
    return PreBalls(polyads, sums / np.maximum(count, 1)[:, None], whole)


def ways_to_pre(
    labels_ZYX: Array, box: Box, spacing_nm: Sequence[float], reach_nm: float, *, mask_ZYX: Array | None = None
) -> tuple[F32, Bits]:
    """Return, from every voxel of a post ball, the way to the middle of its polyad's pre ball.

    The middle is the mean of the ball's voxels, which, unlike the annotated point, moves with the labels.

    Args:
        labels_ZYX: sides of polyads, see the module.
        box: voxels to describe; the rest of the array is context.
        spacing_nm: voxel size (z, y, x) in nm.
        reach_nm: ways that are longer than this along an axis are not told.
        mask_ZYX: 0 where nobody looked; None: all known.

    Returns:
        float32 [3, Z, Y, X] of `box`: nm along z, y, x, 0 where nothing is told; and weight uint8 [Z, Y, X]: 1 in
        post balls that are known and whose pre ball is in the array, whole and within reach.

    Raises:
        InputError: invalid labels or mask, or `box` leaves the array.
    """
    labels = require_labels_array(labels_ZYX)
    if not Box.whole(labels.shape).contains(box):
        raise InputError(f"{box} leaves the labels, which are {Box.whole(labels.shape)}: choose a box inside them")
    inner = labels[box.slices()]
    ways = np.zeros((3, *box.shape), np.float32)
    weight = np.zeros(box.shape, np.uint8)
    post = np.argwhere((inner & _SIDE) != 0)
    balls = pre_balls(labels, mask_ZYX=mask_ZYX)
    if not len(post) or not len(balls.polyads):
        return ways, weight
    wanted = inner[tuple(post.T)] >> _SHIFT
    row = np.minimum(np.searchsorted(balls.polyads, wanted), len(balls.polyads) - 1)
    way = (balls.centroids[row] - (post + np.array(box.start))) * np.array(spacing_nm)
    told = (balls.polyads[row] == wanted) & balls.whole[row] & (np.abs(way) <= reach_nm).all(axis=1)
    if mask_ZYX is not None:
        told &= require_mask_array(mask_ZYX, labels.shape)[box.slices()][tuple(post.T)] != 0
    at = tuple(post[told].T)
    for axis in range(3):
        ways[axis][at] = way[told, axis]
    weight[at] = 1
    return ways, weight
