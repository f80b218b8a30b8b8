"""Doubts find real errors: a shipped network on real tissue that it never learned, against the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from emloom.io.tables import read_table
from emloom.metrics.curves import roc_auc
from emloom.metrics.ranking import ranking
from emloom.nn.engine import Engine
from emloom.nn.shipped import model_path
from emloom.recipes.fib25 import TEST, stack
from emloom.recipes.real_demo import MODEL, THRESHOLD
from emloom.tasks.choicetruth import judged_choices
from emloom.tasks.confidence import confidence
from emloom.tasks.confidencespec import ConfidenceJob
from emloom.tasks.lookhere import read_places
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import SegmentJob


@pytest.mark.real_data
def test_what_is_looked_at_first_is_wrong_far_more_often_than_by_chance(real_data: Path, tmp_path: Path) -> None:
    split = stack(str(real_data))
    predicted = PredictJob(
        raw=split.raw,
        model=model_path(MODEL),
        output=str(tmp_path / "pred.zarr"),
        box=TEST[0],
        any_voxel_size=True,
    )
    predict_volume(predicted, Engine.of("cpu", "torch", "32"))
    segmentation = str(tmp_path / "seg.zarr")
    segment(SegmentJob(affinities=f"{predicted.output}/affinities", output=segmentation, threshold=THRESHOLD))
    job = ConfidenceJob(segmentation=segmentation, output=str(tmp_path / "confidence"))
    confidence(job)
    judged = judged_choices(job.output, segmentation, str(split.labels))
    choices = read_table(Path(job.output) / "choices.parquet")
    large = np.minimum(choices["size_a"], choices["size_b"]) >= job.least_vox
    rows = np.flatnonzero(judged.known & large)
    wrong = judged.wrong[rows]
    assert 5 <= wrong.sum() < len(wrong) / 5  # there is something to find, and it is not everywhere
    assert roc_auc(ranking(choices["doubt"][rows].astype(np.float64), wrong.astype(np.uint8))) > 0.75
    edges = read_table(Path(job.output) / "doubts.parquet")
    choice_of = dict(zip(zip(edges["u"].tolist(), edges["v"].tolist(), strict=True), edges["choice"], strict=True))
    looks = [choice_of.get(place.fragments, -1) for place in read_places(Path(job.output))[:20]]
    found = sum(bool(judged.wrong[c]) for c in looks if c >= 0)
    by_chance = 20 * judged.wrong[large].sum() / large.sum()
    assert found > 5 * by_chance
