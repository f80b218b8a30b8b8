"""One-to-one matching: against brute force, by hand, and laws."""

from __future__ import annotations

from fractions import Fraction
from itertools import permutations
from math import isnan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.metrics.contingency import Contingency, contingency
from emloom.metrics.matching import (
    COCO_THRESHOLDS,
    matched,
    matching_curve,
    matching_scores,
    mean_accuracy,
    pairs_of,
    symmetric_best_dice,
)


def table_of(seed, ids=5, ignore=()):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, ids, 60).astype(np.uint64)
    noise = rng.integers(0, ids, 60).astype(np.uint64)
    segments = np.where(rng.random(60) < 0.6, truth, noise)
    return contingency(truth, segments, ignore_truth=ignore)


def dense(table):
    """Return IoU as exact fractions: rows are truth objects, columns segments, without background."""
    (truth, a), (segments, b) = table.truth_sizes(), table.segment_sizes()
    counts = {(t, s): n for t, s, n in zip(*(c.tolist() for c in columns(table)), strict=True)}
    rows = [(t, size) for t, size in zip(truth.tolist(), a.tolist(), strict=True) if t]
    cols = [(s, size) for s, size in zip(segments.tolist(), b.tolist(), strict=True) if s]
    return [[iou(counts.get((t, s), 0), ta, sb) for s, sb in cols] for t, ta in rows], len(rows), len(cols)


def columns(table):
    return table.truth_ids, table.segment_ids, table.counts


def iou(n, a, b):
    return Fraction(n, a + b - n)


def best_by_brute_force(matrix, n, m, threshold):
    """The largest matching, of those the one with the largest sum."""
    bar, best = Fraction(repr(threshold)), (0, Fraction(0))
    wide = matrix if n >= m else [list(row) for row in zip(*matrix, strict=True)]
    few = min(n, m)
    for order in permutations(range(max(n, m)), few):
        picked = [wide[i][j] for j, i in enumerate(order) if wide[i][j] >= bar and wide[i][j] > 0]
        best = max(best, (len(picked), sum(picked, Fraction(0))))
    return best


@given(st.integers(0, 10**6), st.sampled_from([0.05, 0.2, 0.3, 0.5, 0.55, 0.75]))
@settings(max_examples=80)
def test_the_matching_is_the_best_there_is(seed, threshold):
    table = table_of(seed)
    matrix, n, m = dense(table)
    hits, total = best_by_brute_force(matrix, n, m, threshold)
    scores = matching_scores(table, threshold)
    assert (scores.true_positives, scores.false_positives, scores.false_negatives) == (hits, m - hits, n - hits)
    if hits:
        assert scores.segmentation_quality == pytest.approx(float(total / hits), abs=1e-12)
        assert scores.panoptic_quality == pytest.approx(scores.segmentation_quality * scores.f1, abs=1e-12)
    else:
        assert isnan(scores.segmentation_quality)
        assert scores.panoptic_quality == 0
    pairs = pairs_of(table)
    rows = matched(pairs, threshold)
    assert len(set(pairs.truth[rows].tolist())) == len(set(pairs.segment[rows].tolist())) == hits


def test_by_hand():
    # Truth 1 has 10 voxels, 8 of them in segment 7; truth 2 is missed; segment 9 is invented on background.
    table = Contingency.from_rows([1, 1, 2, 0, 0], [7, 0, 0, 7, 9], [8, 2, 5, 2, 4])
    scores = matching_scores(table, 0.5)
    assert (scores.true_positives, scores.false_positives, scores.false_negatives) == (1, 1, 1)
    assert scores.segmentation_quality == 8 / 12
    assert (scores.precision, scores.recall, scores.f1, scores.accuracy) == (0.5, 0.5, 0.5, 1 / 3)
    assert scores.panoptic_quality == pytest.approx(8 / 12 * 0.5)
    assert symmetric_best_dice(table) == pytest.approx(16 / 20 / 2)
    curve = matching_curve(table)
    assert [point.iou for point in curve] == list(COCO_THRESHOLDS)
    # 8 / 12 is above 0.5 .. 0.65 and below 0.7.
    assert mean_accuracy(curve) == pytest.approx(4 * (1 / 3) / 10)


def test_equality_with_the_threshold_counts_exactly():
    table = Contingency.from_rows([1, 1], [1, 0], [7, 3])
    assert matching_scores(table, 0.7).true_positives == 1
    assert matching_scores(table, 0.7000001).true_positives == 0


def test_objects_of_half_the_union_match_once():
    # Both segments have an IoU of exactly 0.5 with the object.
    table = Contingency.from_rows([1, 1], [1, 2], [5, 5])
    scores = matching_scores(table, 0.5)
    assert (scores.true_positives, scores.false_positives, scores.false_negatives) == (1, 1, 0)


def test_counts_that_leave_64_bits_when_multiplied():
    n = 4 * 10**18
    table = Contingency.from_rows([1, 1], [1, 0], [n, 10**18])
    assert matching_scores(table, 0.8).true_positives == 1
    assert matching_scores(table, 0.8000000000000002).true_positives == 0


@given(st.integers(0, 10**6))
def test_identical_segmentations_are_perfect_and_names_do_not_matter(seed):
    table = table_of(seed)
    ids = np.unique(table.truth_ids)
    same = Contingency.from_rows(ids, ids, np.arange(1, len(ids) + 1))
    for point in matching_curve(same):
        assert (point.f1, point.accuracy, point.panoptic_quality) == (1, 1, 1)
    assert symmetric_best_dice(same) == 1
    names = np.random.default_rng(seed).permutation(100).astype(np.uint64) + np.uint64(2**40)
    names[0] = 0
    renamed = Contingency.from_rows(names[table.truth_ids], names[table.segment_ids], table.counts)
    for threshold in (0.3, 0.5, 0.7):
        ours, theirs = matching_scores(table, threshold), matching_scores(renamed, threshold)
        assert (ours.true_positives, ours.f1) == (theirs.true_positives, theirs.f1)
        if ours.true_positives:
            assert ours.panoptic_quality == pytest.approx(theirs.panoptic_quality, abs=1e-12)
    assert symmetric_best_dice(renamed) == pytest.approx(symmetric_best_dice(table), abs=1e-12)


def test_nothing_is_not_defined_and_says_so():
    nothing = matching_scores(Contingency.from_rows([], [], []))
    assert all(isnan(value) for value in (nothing.precision, nothing.recall, nothing.f1, nothing.panoptic_quality))
    assert isnan(symmetric_best_dice(Contingency.from_rows([], [], [])))
    missed = matching_scores(Contingency.from_rows([1], [0], [4]))
    assert (missed.recall, missed.f1, missed.panoptic_quality) == (0, 0, 0)
    assert isnan(missed.precision)
    assert symmetric_best_dice(Contingency.from_rows([1], [0], [4])) == 0
    assert isnan(mean_accuracy([]))


@pytest.mark.parametrize("threshold", [0, -0.5, 1.5, float("nan")])
def test_thresholds_outside_0_to_1_are_refused(threshold):
    with pytest.raises(InputError, match=r"is not in \(0, 1\]"):
        matching_scores(Contingency.from_rows([1], [1], [1]), threshold)
