"""How good a segmentation is: overlap scores, the threshold sweep, and the largest errors.

Truth is compared inside boxes. A neurite that leaves a box and comes back is two objects there, so truth is split
into its 6-connected pieces after cropping; ids of different boxes never mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from emloom.geometry import Box
from emloom.io.volume import Volume
from emloom.metrics.contingency import Contingency, contingency, disjoint_union
from emloom.metrics.overlap import OverlapScores, border_mask, overlap_scores
from emloom.ops.labels import split_disconnected
from emloom.spec import Spec

Ids = NDArray[np.uint64]


class EvaluationSpec(Spec):
    """What is scored, and how the threshold is chosen."""

    choose_by: Literal["voi_sum", "adapted_rand_error", "cremi_score"] = "voi_sum"
    """Score that the threshold minimises on the validation boxes; tuning on Rand transfers badly."""
    tolerance: Annotated[float, Field(ge=0)] = 0.05
    """Validation scores up to this part above the lowest count as equal: the highest such threshold is taken."""
    border_vox: Annotated[int, Field(ge=0)] = 1
    """Voxels around true borders left out of the border-ignored scores."""
    border_in_plane: bool = False
    """Measure that border within sections only: for anisotropic stacks."""
    baseline: bool = True
    """Also score a watershed on the smoothed raw with mean merging, tuned the same way."""


@dataclass(frozen=True)
class Tables:
    """Contingency over all known voxels, and over those away from true borders."""

    plain: Contingency
    bordered: Contingency

    def relabelled(self, keys: Ids, values: Ids) -> Tables:
        """Return both tables with their segments (fragments so far) merged by a LUT."""
        return Tables(self.plain.relabelled(keys, values), self.bordered.relabelled(keys, values))

    def without_background(self) -> Tables:
        """Return both tables without the voxels that the segmentation calls 0."""
        return Tables(self.plain.without(segments=[0]), self.bordered.without(segments=[0]))


@dataclass(frozen=True)
class Truth:
    """The true objects of one box and where they count.

    Attributes:
        objects: uint64 ZYX, 6-connected pieces with dense ids, 0 is background.
        known: bool ZYX, voxels that count.
        inner: bool ZYX, those of them that keep the border distance.
    """

    objects: Ids
    known: NDArray[np.bool_]
    inner: NDArray[np.bool_]

    def tables(self, segments: NDArray[Any]) -> Tables:
        """Return the contingency tables of a segmentation of this box."""
        plain = contingency(self.objects, segments, mask=self.known)
        return Tables(plain, contingency(self.objects, segments, mask=self.inner))


def truth_in(labels: Volume, mask: Volume | None, box: Box, border_vox: int, in_plane: bool) -> Truth:
    """Return the truth of a box."""
    objects = split_disconnected(labels.read(box).astype(np.uint64))
    known = np.ones(box.shape, bool) if mask is None else mask.read(box) != 0
    inner = known & border_mask(objects, border_vox, in_plane) if border_vox else known
    return Truth(objects, known, inner)


def pooled(tables: Sequence[Tables]) -> Tables:
    """Return the tables of several boxes as one: objects and segments of different boxes are different."""
    return Tables(disjoint_union([t.plain for t in tables]), disjoint_union([t.bordered for t in tables]))


def row(method: str, tables: Tables) -> dict[str, Any]:
    """Return one row of the score table: all voxels, and the border-ignored VOI beside them."""
    scores = overlap_scores(tables.plain)
    return {
        "method": method,
        **asdict(scores),
        "cremi_score": scores.cremi_score,
        **{f"border_ignored_{key}": value for key, value in _voi(overlap_scores(tables.bordered)).items()},
    }


def _voi(scores: OverlapScores) -> dict[str, float]:
    return {"voi_split": scores.voi_split, "voi_merge": scores.voi_merge, "voi_sum": scores.voi_sum}
