"""Clefts as objects: one-to-one matches by overlap, doubtful ones, and intervals over objects."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.metrics.cleftobjects import ObjectOptions, ObjectTally, object_intervals, object_scores
from emloom.metrics.contingency import contingency


def table(truth, found):
    return contingency(np.array(truth, np.uint64), np.array(found, np.uint64), ignore_truth=())


def test_by_hand() -> None:
    #                found as it is | in two pieces | missed | nothing there
    truth = [1, 1, 1, 0, 2, 2, 2, 2, 0, 3, 3, 0, 0, 0]
    found = [0, 5, 5, 5, 6, 6, 6, 7, 0, 0, 0, 0, 8, 8]
    scores = object_scores(table(truth, found))
    assert (scores.tp, scores.fp, scores.fn) == (2, 2, 1)
    assert (scores.precision, scores.recall, scores.f1) == (0.5, 2 / 3, 4 / 7)
    assert scores.mean_iou == pytest.approx((2 / 4 + 3 / 4) / 2)
    assert object_scores(table(truth, found), ObjectOptions(min_iou=0.75)).tp == 1
    assert object_scores(table(truth, found), ObjectOptions(min_iou=0.8)).tp == 0


def test_what_covers_everything_finds_nothing() -> None:
    truth = np.zeros(1000, int)
    for k in range(10):
        truth[k * 100 : k * 100 + 20] = k + 1
    scores = object_scores(table(truth, np.ones(1000, int)))
    assert (scores.tp, scores.fp, scores.fn) == (0, 1, 10)


def test_doubtful_ones_are_neither_missed_nor_wrong_to_find() -> None:
    truth = [1, 1, 1, 1, 0, 2, 0, 3, 0, 0]
    found = [1, 1, 1, 0, 0, 2, 0, 0, 0, 4]
    scores = object_scores(table(truth, found), ObjectOptions(doubtful_vox=2))
    assert (scores.tp, scores.fp, scores.fn, scores.doubtful) == (1, 1, 0, 2)
    plain = object_scores(table(truth, found))
    assert (plain.tp, plain.fp, plain.fn, plain.doubtful) == (2, 1, 1, 0)


def test_nothing_is_not_defined() -> None:
    nothing, some = [0, 0, 0], [0, 1, 0]
    both = object_scores(table(nothing, nothing))
    assert isnan(both.f1)
    assert "the truth has no object" in (both.reason or "")
    missed = object_scores(table(some, nothing))
    assert isnan(missed.precision)
    assert (missed.recall, missed.f1, missed.fn) == (0, 0, 1)
    assert isnan(missed.f1_low)
    assert object_scores(table(nothing, some)).fp == 1


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 5))
def test_swapping_both_sides_swaps_precision_and_recall(seed, n, m) -> None:
    rng = np.random.default_rng(seed)
    truth, found = rng.integers(0, n + 1, 60), rng.integers(0, m + 1, 60)
    a, b = object_scores(table(truth, found)), object_scores(table(found, truth))
    assert (a.tp, a.fp, a.fn) == (b.tp, b.fn, b.fp)
    assert a.tp + a.fn == len(set(truth.tolist()) - {0})
    assert a.tp + a.fp == len(set(found.tolist()) - {0})


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_tallies_add_up_and_intervals_hold_the_score(tp, fp, fn) -> None:
    tally = ObjectTally.pooled([ObjectTally(tp, 0, fn), ObjectTally(0, fp, 0)])
    assert tally == ObjectTally(tp, fp, fn)
    found = object_intervals(tally, resamples=300)
    assert found == object_intervals(tally, resamples=300) or tp + fp + fn <= 1  # NaN differs from itself
    for name in ("precision", "recall", "f1"):
        value = found[name]
        if tp + fp + fn > 1 and not isnan(value.low):
            assert 0 <= value.low <= value.value <= value.high <= 1


def test_intervals_are_those_of_drawing_objects() -> None:
    """Drawn one by one, as `metrics.bootstrap` does it, intervals are the same up to the draws."""
    from emloom.metrics.bootstrap import bootstrap

    tally = ObjectTally(30, 10, 20)
    objects = [ObjectTally(1, 0, 0)] * 30 + [ObjectTally(0, 1, 0)] * 10 + [ObjectTally(0, 0, 1)] * 20
    slow = bootstrap(objects, lambda t: t.f1, ObjectTally.pooled, np.random.default_rng(1), resamples=1500)
    quick = object_intervals(tally, resamples=20000)["f1"]
    assert (slow.value, quick.value) == (tally.f1, tally.f1)
    assert abs(slow.low - quick.low) < 0.02
    assert abs(slow.high - quick.high) < 0.02


def test_bad_options() -> None:
    for wrong in (0.0, -0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="min_iou"):
            ObjectOptions(min_iou=wrong)
    with pytest.raises(InputError, match="doubtful_vox -1 is negative"):
        ObjectOptions(doubtful_vox=-1)
    with pytest.raises(InputError, match="0 resamples"):
        object_intervals(ObjectTally(1, 1, 1), resamples=0)
