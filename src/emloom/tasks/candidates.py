"""Which few of a map's patches a person should look at: the uncertain, the wrong, the surest, or any.

============= ==================================================== =========================================
how           priority                                             taken into account
============= ==================================================== =========================================
``uncertain`` nearness of the logit to that of the threshold       not what is labelled already
``positive``  the logit, from the threshold up                     nor what overlaps a known positive
``wrong``     how far the logit is on the wrong side of a label    only what is labelled
``random``    drawn from the seed                                  not what is labelled already
============= ==================================================== =========================================

They are spread, or they would all be one blob: within a block of the volume a patch is dropped where a better one
is near; then across blocks; then every block gives its best before any gives its second (`emloom.ops.spread`). A
block is part of the question, not of the computation: maps of any size are read a few blocks at a time, with the
same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.patches import UNKNOWN, YES, PatchLabels
from emloom.metrics.agreement import common_rows
from emloom.ops.spread import apart, dealt, near_any
from emloom.spec import Spec
from emloom.tasks.scoredmaps import Logits, Rows, ScoredMap, ScoredPatches, logit, spelled

How = Literal["uncertain", "wrong", "positive", "random"]

_TIE = 1e-6  # of a logit: what is equally good is taken in random order, not in that of the volume
_SPARE = 4  # times as many as are wanted are offered by a block: some fall to better ones of their neighbours


class Spread(Spec):
    """How candidates are kept apart."""

    apart_vox: Vec | None = None
    """Patches nearer than this along z, y and x are one candidate; none: 5 sections, a patch in y and x."""
    block_vox: Vec = (1, 1024, 1024)
    """Blocks of the volume (z, y, x) that give one candidate each in turn."""
    per_block: int | None = Field(default=None, ge=1)
    """Most candidates of one block; none: no limit."""

    def distance(self, patch_vox: Vec) -> Vec:
        """Return how far apart candidates are, voxels (z, y, x)."""
        return self.apart_vox or (max(5, patch_vox[0]), *patch_vox[1:])


class Question(Spec):
    """What is looked for in a map."""

    how: How
    """What makes a patch worth looking at."""
    count: int | None = Field(default=100, ge=1)
    """Candidates, at most; none: as many as the blocks give."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Probability from which a patch is called positive."""
    seed: int = Field(default=0, ge=0)
    """Of what is random."""
    spread: Spread = Spread()
    """How candidates are kept apart."""


def candidates(scored: ScoredMap, question: Question, labels: PatchLabels | None = None) -> ScoredPatches:
    """Return the candidates of a map, best first.

    Args:
        scored: the map.
        question: which.
        labels: what is known, in any number of rows per patch; what annotators disagree about counts as unknown.

    Raises:
        InputError: the question needs labels, or they are about other patches.
    """
    known = None if labels is None else _known(labels, scored)
    search = _Search(question, known, scored.lattice.shape, scored.lattice.stride)
    if question.how == "wrong":
        if known is None:
            raise InputError("the most wrong patches are those that contradict a label: give a table of labels")
        return search.spread(search.offers(_labelled(scored, known)))
    z, y, x = search.block.tolist()
    return search.spread(_stacked([search.offers(scored.read(box)) for box in scored.boxes((z, y, x))]))


@dataclass(frozen=True)
class _Search:
    """A question, with what is known of the volume.

    Attributes:
        question: what is looked for.
        known: labelled patches, each once; None where nothing is.
        shape: voxels (z, y, x) of a patch.
        stride: voxels of the volume per voxel of the map.
    """

    question: Question
    known: PatchLabels | None
    shape: Vec
    stride: Vec

    @property
    def block(self) -> Rows:
        """Voxels of the map (z, y, x) of a block."""
        block: Rows = np.maximum(1, np.array(self.question.spread.block_vox) // np.array(self.stride))
        return block

    def offers(self, patches: ScoredPatches) -> ScoredPatches:
        """Return what whole blocks offer: of each, patches apart from each other, more than can be wanted."""
        patches = patches.taken(self._eligible(patches))
        if not len(patches.starts):
            return patches
        number = self._blocks(patches)
        # Patches of different blocks are lifted out of each other's reach.
        distance = np.array(self.question.spread.distance(self.shape))
        height = int(np.ptp(patches.starts[:, 0])) + int(distance[0])
        lifted = patches.starts + number[:, None] * np.array([height, 0, 0])
        rows = apart(lifted, self._priority(patches), distance)
        limit = self._limit()
        return patches.taken(rows[dealt(number[rows], len(rows), None if limit is None else _SPARE * limit)])

    def spread(self, patches: ScoredPatches) -> ScoredPatches:
        """Return what is taken of what all blocks offer."""
        rows = apart(patches.starts, self._priority(patches), self.question.spread.distance(self.shape))
        patches = patches.taken(rows)
        count = len(rows) if self.question.count is None else self.question.count
        return patches.taken(dealt(self._blocks(patches), count, self.question.spread.per_block))

    def _limit(self) -> int | None:
        limits = (self.question.count, self.question.spread.per_block)
        return min((limit for limit in limits if limit is not None), default=None)

    def _blocks(self, patches: ScoredPatches) -> Rows:
        _, number = np.unique(patches.places // self.block, axis=0, return_inverse=True)
        found: Rows = number.reshape(-1).astype(np.int64)
        return found

    def _eligible(self, patches: ScoredPatches) -> NDArray[np.bool_]:
        how, known = self.question.how, self.known
        kept = np.ones(len(patches.starts), np.bool_)
        if how == "positive":
            kept &= patches.logits >= logit(self.question.threshold)
        if how == "wrong":
            return kept & (self._priority(patches) > 0)
        if known is not None:
            kept &= ~near_any(patches.starts, known.starts, np.maximum(1, (np.array(self.shape) + 1) // 2))
            if how == "positive":
                kept &= ~near_any(patches.starts, known.starts[known.labels[:, 0] == YES], self.shape)
        return kept

    def _priority(self, patches: ScoredPatches) -> Logits:
        above = patches.logits - logit(self.question.threshold)
        drawn = _drawn(patches.starts, self.question.seed)
        match self.question.how:
            case "uncertain":
                priority = -np.abs(above)
            case "positive":
                priority = above
            case "wrong":
                priority = np.where(self._truth(patches.starts) == YES, -above, above)
            case "random":
                return drawn
        return np.asarray(priority + _TIE * drawn, np.float64)

    def _truth(self, starts: Rows) -> NDArray[np.int8]:
        assert self.known is not None  # asked of labelled patches only
        rows, partner = common_rows(starts, self.known.starts)
        truth = np.full(len(starts), UNKNOWN, np.int8)
        truth[rows] = self.known.labels[partner, 0]
        return truth


def _known(labels: PatchLabels, scored: ScoredMap) -> PatchLabels:
    """Return what is known of the first class, each patch once."""
    if labels.shape != scored.lattice.shape or not labels.grid.matches(scored.raw.grid):
        raise InputError(
            f"{labels.source} is of patches of {spelled(labels.shape)} voxels of {labels.grid.voxel_size_nm} nm, "
            f"the map of {spelled(scored.lattice.shape)} voxels of {scored.raw.grid.voxel_size_nm} nm: give "
            "labels of this volume"
        )
    agreed = labels.consensus()
    return agreed.taken(agreed.labels[:, 0] != UNKNOWN)


def _labelled(scored: ScoredMap, known: PatchLabels) -> ScoredPatches:
    """Return the labelled patches that the map answers for."""
    logits, near = scored.at(known.starts)
    places = (known.starts - np.array(scored.lattice.origin)) // np.array(scored.lattice.stride)
    return ScoredPatches(known.starts, logits, places).taken(near)


def _stacked(parts: list[ScoredPatches]) -> ScoredPatches:
    if not parts:
        nowhere = np.zeros((0, 3), np.int64)
        return ScoredPatches(nowhere, np.zeros(0), nowhere)
    return ScoredPatches(
        np.concatenate([part.starts for part in parts]),
        np.concatenate([part.logits for part in parts]),
        np.concatenate([part.places for part in parts]),
    )


def _drawn(starts: Rows, seed: int) -> Logits:
    """Return a number in [0, 1) for each patch, drawn from its place and the seed, whoever asks and when.

    Steele, Lea and Flood, OOPSLA 2014 (doi:10.1145/2660193.2660195): the mixing of SplitMix64.
    """
    state = np.full(len(starts), seed, np.uint64)
    with np.errstate(over="ignore"):
        for axis in range(3):
            state = _mixed(state + starts[:, axis].astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15))
    return np.asarray((state >> np.uint64(11)) * 2.0**-53, np.float64)


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = z ^ (z >> np.uint64(31))
    return mixed
