"""Scores of voxels: perfect predictions score perfectly, whatever the blocks, and unknown voxels do not count."""

from __future__ import annotations

import numpy as np
import pytest

from emloom.geometry import Box
from emloom.io.volume import ArrayVolume
from emloom.metrics.curves import at_threshold, average_precision
from emloom.nn.objectives.clefts import CleftsObjective
from emloom.nn.objectives.partners import SIGNED, PartnersObjective
from emloom.tasks import synapsevoxels
from emloom.tasks.synapsedata import site_labels
from emloom.tasks.synapsevoxels import Truth, histogram, questions, vector_errors
from tests.tasks.synaptic import GRID, tissue

BOX = Box((3, 4, 5), (40, 50, 49))
OBJECTIVE = {"pre_radius_nm": 25, "post_radius_nm": 25, "vector_scale_nm": 120, "proximity_scale_nm": 12}


@pytest.fixture(scope="module")
def truth() -> Truth:
    grown = tissue(n=25)
    neurons, raw = ArrayVolume(grown.neurons, GRID), ArrayVolume(grown.raw, GRID)
    mask = np.ones(grown.raw.shape, np.uint8)
    mask[:, 40:] = 0
    labels = site_labels(grown.table, raw.info, neurons, 25, 25)
    return Truth(labels, ArrayVolume(mask, GRID), BOX)


def perfect(objective: PartnersObjective, truth: Truth):
    """Return the reader of what a network stores that answers the target everywhere."""
    whole = truth.labels.info.box
    known = np.ones(whole.shape, np.uint8)
    found = objective.targets(truth.labels.read(whole), known, whole, GRID)
    stored = {}
    for name, (target, _) in found.items():
        share = (np.asarray(target, np.float64) + 1) / 2 if name in SIGNED else np.asarray(target, np.float64)
        stored[name] = np.rint(share * 255).astype(np.uint8)
    return lambda head, box: stored[head][:, *box.slices()]


@pytest.mark.parametrize("variant", ["sites", "vectors", "proximity", "polarity"])
def test_a_perfect_prediction_scores_perfectly(
    truth: Truth, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = PartnersObjective.from_dict({"variant": variant, **OBJECTIVE})
    read, counts = perfect(objective, truth), []
    for block in ((128, 256, 256), (7, 11, 16)):
        monkeypatch.setattr(synapsevoxels, "_BLOCK", block)
        counts.append([histogram(question, truth, read).counts for question in questions(objective)])
        if variant == "vectors":
            errors = vector_errors(objective, truth, read)
            assert errors.n > 100
            assert errors.mean_nm < 120 / 127.5  # one step of the byte
    assert all(np.array_equal(a, b) for a, b in zip(*counts, strict=True))
    for question in questions(objective):
        ranking = histogram(question, truth, read).ranking()
        assert average_precision(ranking) == 1
        assert at_threshold(ranking, 0.99).f1 == 1
        assert ranking.n_positive + ranking.n_negative == 40 * 36 * 49  # what the mask leaves of the box


def test_low_values_of_a_signed_channel_mean_post(truth: Truth) -> None:
    objective = PartnersObjective.from_dict({"variant": "proximity", **OBJECTIVE})
    read = perfect(objective, truth)
    pre, post = questions(objective)
    swapped = [
        average_precision(histogram(q, truth, lambda h, b: 255 - read(h, b)).ranking()) for q in (pre, post)
    ]
    assert max(swapped) < 0.5


def test_clefts_are_asked_whatever_their_ids() -> None:
    grown = tissue(n=10)
    truth = Truth(ArrayVolume(grown.clefts, GRID), None, BOX)
    stored = np.where(grown.clefts != 0, np.uint8(200), np.uint8(90))[None]
    (question,) = questions(CleftsObjective())
    ranking = histogram(question, truth, lambda head, box: stored[:, *box.slices()]).ranking()
    assert average_precision(ranking) == 1
    assert ranking.n_positive == np.count_nonzero(grown.clefts[BOX.slices()])
