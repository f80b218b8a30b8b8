"""Metrics of classes against scikit-learn, where both define the same number."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.calibration
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.metrics.calibration import brier, calibration
from emloom.metrics.classify import confusion, confusion_scores
from emloom.metrics.curves import average_precision, curve, roc_auc
from emloom.metrics.ranking import ranking

N = 200


def classes_of(seed):
    """Every class occurs in both, so that no convention about empty ones matters."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, N).astype(np.uint8)
    predicted = np.where(rng.random(N) < 0.6, truth, rng.integers(0, 4, N)).astype(np.uint8)
    truth[:4] = predicted[:4] = np.arange(4)
    return truth, predicted


def scores_of(seed):
    rng = np.random.default_rng(seed)
    truth = (rng.random(N) < 0.3).astype(np.uint8)
    truth[:2] = 0, 1
    # Few distinct values, so that scores tie.
    return truth, np.round(np.clip(0.3 * truth + rng.random(N) * 0.8, 0, 1), 1)


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_confusion_scores(seed):
    truth, predicted = classes_of(seed)
    table = confusion(truth, predicted, 4)
    assert np.array_equal(table.counts, sklearn.metrics.confusion_matrix(truth, predicted))
    ours = confusion_scores(table)
    assert ours.accuracy == pytest.approx(sklearn.metrics.accuracy_score(truth, predicted), abs=1e-12)
    assert ours.balanced_accuracy == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(truth, predicted), abs=1e-12
    )
    assert ours.kappa == pytest.approx(sklearn.metrics.cohen_kappa_score(truth, predicted), abs=1e-12)
    for average, rates in (("macro", ours.macro), ("micro", ours.micro)):
        precision, recall, f1, _ = sklearn.metrics.precision_recall_fscore_support(
            truth, predicted, average=average
        )
        assert (rates.precision, rates.recall, rates.f1) == pytest.approx((precision, recall, f1), abs=1e-12)
        jaccard = sklearn.metrics.jaccard_score(truth, predicted, average=average)
        assert rates.iou == pytest.approx(jaccard, abs=1e-12)


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_ranked_scores(seed):
    truth, scores = scores_of(seed)
    ranked = ranking(scores, truth)
    assert average_precision(ranked) == pytest.approx(
        sklearn.metrics.average_precision_score(truth, scores), abs=1e-12
    )
    assert roc_auc(ranked) == pytest.approx(sklearn.metrics.roc_auc_score(truth, scores), abs=1e-12)
    assert brier(ranked) == pytest.approx(sklearn.metrics.brier_score_loss(truth, scores), abs=1e-12)
    ours = curve(ranked)
    precision, recall, thresholds = sklearn.metrics.precision_recall_curve(truth, scores)
    assert ours.thresholds == pytest.approx(thresholds[::-1])
    # Theirs ends with a point without a threshold, at recall 0.
    assert ours.precision == pytest.approx(precision[:-1][::-1], abs=1e-12)
    assert ours.recall == pytest.approx(recall[:-1][::-1], abs=1e-12)
    false, true, _ = sklearn.metrics.roc_curve(truth, scores, drop_intermediate=False)
    assert ours.false_positive_rate == pytest.approx(false[1:], abs=1e-12)
    assert ours.recall == pytest.approx(true[1:], abs=1e-12)


@given(st.integers(0, 10**6))
@settings(deadline=None)
def test_reliability_bins(seed):
    truth, scores = scores_of(seed)
    # Away from the edges of bins, where the two round differently.
    scores = np.clip(scores * 0.9 + 0.035, 0, 1)
    found = calibration(ranking(scores, truth), 10)
    filled = [row for row in found.bins if row.n]
    accuracy, confidence = sklearn.calibration.calibration_curve(truth, scores, n_bins=10)
    assert [row.accuracy for row in filled] == pytest.approx(accuracy.tolist(), abs=1e-12)
    assert [row.confidence for row in filled] == pytest.approx(confidence.tolist(), abs=1e-12)
