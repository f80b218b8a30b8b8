"""What predictions of clefts and of partners are worth, voxel by voxel, before anything is decoded.

Every channel is a question with yes or no for an answer, asked where the truth is known::

    clefts      is here a cleft?                      the stored value
    sites       pre?  post?                           the stored value of either channel
    vectors     post?                                 of `post`; and how far off, in nm, the vectors of true post
                                                      balls point (`emloom.ops.polyads.ways_to_pre`)
    proximity   pre?  post?                           the stored value, and its opposite
    polarity    pre?  post?  either?                  of each channel

The answers are counted by stored value (`emloom.metrics.ranking`), block by block, so the scores of a box do not
depend on the blocks; those of several boxes are of their sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Box, cells
from emloom.io.volume import Array, Volume, borrow
from emloom.metrics.counts import add
from emloom.metrics.ranking import ScoreHistogram, score_histogram
from emloom.nn.objectives.clefts import CLEFTS, CleftsObjective
from emloom.nn.objectives.partners import POLARITY, POST, PROXIMITY, SITES, VECTORS, PartnersObjective
from emloom.ops.polyads import side_masks, ways_to_pre

Side = Literal["cleft", "pre", "post", "any"]
AnyObjective = CleftsObjective | PartnersObjective
Read = Callable[[str, Box], Array]

_BLOCK = (128, 256, 256)


@dataclass(frozen=True)
class Question:
    """What a channel is asked.

    Attributes:
        name: of the answer, in tables.
        head: whose channel it is.
        channel: its number.
        side: what yes means.
        opposite: whether low values mean yes.
    """

    name: str
    head: str
    channel: int
    side: Side
    opposite: bool = False


_PARTNERS: dict[str, tuple[Question, ...]] = {
    "sites": (Question("pre", SITES, 0, "pre"), Question("post", SITES, 1, "post")),
    "vectors": (Question("post", POST, 0, "post"),),
    "proximity": (Question("pre", PROXIMITY, 0, "pre"), Question("post", PROXIMITY, 0, "post", opposite=True)),
    "polarity": (
        Question("pre", POLARITY, 0, "pre"),
        Question("post", POLARITY, 1, "post"),
        Question("pre or post", POLARITY, 2, "any"),
    ),
}


def questions(objective: AnyObjective) -> tuple[Question, ...]:
    """Return what the channels of an objective are asked."""
    if isinstance(objective, CleftsObjective):
        return (Question("cleft", CLEFTS, 0, "cleft"),)
    return _PARTNERS[objective.variant]


def true_voxels(labels_ZYX: Array, side: Side) -> NDArray[np.uint8]:
    """Return where labels say yes: cleft ids, or sides of polyads."""
    if side in ("cleft", "any"):
        found: NDArray[np.uint8] = (labels_ZYX != 0).view(np.uint8)
        return found
    chosen: NDArray[np.uint8] = side_masks(labels_ZYX)[0 if side == "pre" else 1]
    return chosen


@dataclass(frozen=True)
class Truth:
    """What is known of a box.

    Attributes:
        labels: of the whole stack.
        mask: where they are known; None: everywhere.
        box: the voxels that are scored.
    """

    labels: Volume
    mask: Volume | None
    box: Box

    def known(self, box: Box) -> NDArray[np.uint8]:
        """Return where the labels of a part are known."""
        if self.mask is None:
            return np.ones(box.shape, np.uint8)
        known: NDArray[np.uint8] = (borrow(self.mask, box) != 0).astype(np.uint8)
        return known


def histogram(question: Question, truth: Truth, read: Read) -> ScoreHistogram:
    """Return the positives and negatives of a question by stored value.

    Args:
        question: what is asked.
        truth: where.
        read: (head, box in voxels of the stack) -> stored values uint8 [C, Z, Y, X].
    """
    parts = []
    for box in _parts(truth.box):
        stored = read(question.head, box)[question.channel]
        score = np.uint8(255) - stored if question.opposite else stored
        yes = true_voxels(borrow(truth.labels, box), question.side)
        parts.append(score_histogram(np.ascontiguousarray(score), yes, mask=truth.known(box) != 0))
    return add(parts)


@dataclass(frozen=True)
class VectorErrors:
    """How far off vectors point.

    Attributes:
        n: voxels of true post balls whose vector is known.
        mean_nm: mean length of the error; NaN where there is none.
    """

    n: int
    mean_nm: float


def vector_errors(objective: PartnersObjective, truth: Truth, read: Read) -> VectorErrors:
    """Return how far the predicted vectors of true post balls are off, over a box."""
    total, n = 0.0, 0
    grid, whole = truth.labels.info.grid, truth.labels.info.box
    reach = objective.context_vox(grid)
    for box in _parts(truth.box):
        seen = box.grow(reach).intersect(whole)
        inner = box.shift([-v for v in seen.start])
        ways, told = ways_to_pre(
            borrow(truth.labels, seen),
            inner,
            grid.voxel_size_nm,
            objective.vector_scale_nm,
            mask_ZYX=truth.known(seen),
        )
        found = (read(VECTORS, box).astype(np.float32) / np.float32(127.5) - 1) * objective.vector_scale_nm
        off = np.sqrt(((found - ways) ** 2).sum(axis=0))[told != 0]
        total, n = total + float(off.sum(dtype=np.float64)), n + int(off.size)
    return VectorErrors(n, total / n if n else nan)


def _parts(box: Box) -> Sequence[Box]:
    return [part for _, part in cells(box, _BLOCK)]
