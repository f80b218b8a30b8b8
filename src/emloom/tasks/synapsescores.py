"""The scores of a job that learns synapses: voxels of every channel of the test boxes, and CREMI's of clefts.

The threshold of every channel is the one of the best F1 on the validation boxes; test boxes have no say in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emloom.geometry import Box
from emloom.geometry.grid import Vec3
from emloom.io.volume import Array, borrow
from emloom.metrics.clefts import cleft_scores
from emloom.metrics.counts import add
from emloom.metrics.curves import at_best_f1, at_threshold, average_precision
from emloom.metrics.ranking import ScoreHistogram
from emloom.nn.objectives.partners import PartnersObjective
from emloom.tasks.data import HeldOut, SplitSpec, held_out
from emloom.tasks.scorefiles import write_scores
from emloom.tasks.synapsevoxels import AnyObjective, Question, Truth, histogram, questions, vector_errors

ALL = "all test boxes"


class ScoredJob(Protocol):
    """What scoring needs to know of a job."""

    @property
    def name(self) -> str:
        """Shown in the report."""

    @property
    def objective(self) -> AnyObjective:
        """What is learned."""


class ScoredRun(Protocol):
    """What scoring needs of an execution."""

    folder: Path

    @property
    def job(self) -> ScoredJob:
        """What was done."""

    @property
    def splits(self) -> Sequence[SplitSpec]:
        """How every stack is split."""

    @property
    def voxel_size_nm(self) -> Vec3:
        """Voxel size (z, y, x) of the data."""

    def truth(self, item: HeldOut) -> Truth:
        """Return what is known of a box."""

    def read(self, item: HeldOut, head: str, box: Box) -> Array:
        """Return stored values of a part of a box."""


def score_boxes(this: ScoredRun) -> list[dict[str, Any]]:
    """Score the test boxes, write `evaluate/scores.json` and `.csv`, and return the rows.

    A row says of a box and a channel: average precision, and precision, recall and F1 at the threshold.
    """
    rows = []
    for question in questions(this.job.objective):
        chosen = at_best_f1(add(_histograms(this, question, "validation")).ranking())
        tested = _histograms(this, question, "test")
        names = [item.name for item in held_out(this.splits, "test")]
        together = [(ALL, add(tested))] if tested else []
        for name, counted in [*together, *zip(names, tested, strict=True)]:
            rows.append({"box": name, "channel": question.name, **_row(counted, chosen.threshold)})
    write_scores(this.folder / "evaluate", rows or [{"box": "", "channel": ""}], **_more(this, rows))
    return rows


def _row(counted: ScoreHistogram, threshold: float) -> dict[str, Any]:
    ranking = counted.ranking()
    point = at_threshold(ranking, threshold)
    return {
        "average_precision": average_precision(ranking),
        "threshold": threshold,
        "precision": point.precision,
        "recall": point.recall,
        "f1": point.f1,
        "positive_voxels": ranking.n_positive,
        "voxels": ranking.n_positive + ranking.n_negative,
        "reason": point.reason,
    }


def _histograms(this: ScoredRun, question: Question, part: Any) -> list[ScoreHistogram]:
    return [
        histogram(question, this.truth(item), partial(this.read, item)) for item in held_out(this.splits, part)
    ]


def _more(this: ScoredRun, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what only some objectives have: errors of vectors, scores of clefts as CREMI defines them."""
    objective, items = this.job.objective, held_out(this.splits, "test")
    if isinstance(objective, PartnersObjective):
        if objective.variant != "vectors":
            return {}
        errors = {
            item.name: vector_errors(objective, this.truth(item), partial(this.read, item)) for item in items
        }
        return {"vector_errors": {name: {"n": e.n, "mean_nm": e.mean_nm} for name, e in errors.items()}}
    if not rows:
        return {}
    level = round(rows[0]["threshold"] * 255)
    return {"cremi": {item.name: _cremi(this, item, level) for item in items}}


def _cremi(this: ScoredRun, item: HeldOut, level: int) -> dict[str, Any]:
    truth = this.truth(item)
    found = this.read(item, "clefts", item.box)[0] >= level
    labels = (borrow(truth.labels, item.box) != 0).astype(np.uint8)
    scores = cleft_scores(
        labels,
        found.astype(np.uint8),
        this.voxel_size_nm,
        known_ZYX=truth.known(item.box),
        zero_is_background=True,
    )
    kept = ("cremi_score_nm", "adgt_nm", "adf_nm", "fp", "fn", "f1", "precision", "recall", "reason")
    return {name: getattr(scores, name) for name in kept}
