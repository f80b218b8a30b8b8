"""Ranking scores: by hand, against slow definitions and MONAI, laws, and thresholds that people choose."""

from __future__ import annotations

import csv
import json
import warnings
from dataclasses import asdict
from fractions import Fraction
from math import inf, isnan, nan
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.metrics.classify import confusion, confusion_scores
from emloom.metrics.counts import add
from emloom.metrics.curves import (
    OperatingPoint,
    adjusted_precision,
    area_mm2,
    at_best_f1,
    at_recall,
    at_threshold,
    average_precision,
    curve,
    false_positive_density,
    mean_average_precision,
    ranked_scores,
    roc_auc,
)
from emloom.metrics.ranking import Ranking, ScoreHistogram, quantised, ranking, score_histogram

Array = NDArray[Any]
seeds = st.integers(0, 10**6)
laws = settings(deadline=None, max_examples=30)


@pytest.fixture(scope="module")
def monai() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("monai.metrics")


def random_scores(seed: int, shape: tuple[int, ...] = (6, 5, 4), levels: int = 12) -> tuple[Array, Array]:
    """Return uint8 scores, with ties, and truth that they tell something about; 255 is ignored."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, shape).astype(np.uint8)
    truth = (rng.random(shape) < (scores + 1) / (levels + 2)).astype(np.uint8)
    truth.flat[:2] = 0, 1
    truth.flat[2:][rng.random(truth.size - 2) < 0.2] = 255
    return scores, truth


def slow_average_precision(scores: Array, hits: Array) -> float:
    """Return the sum over thresholds of recall gained times precision: the definition, threshold by threshold."""
    area, recall = 0.0, 0.0
    for s in sorted(set(scores.tolist()), reverse=True):
        called = scores >= s
        now = np.count_nonzero(hits & called) / np.count_nonzero(hits)
        area += (now - recall) * np.count_nonzero(hits & called) / np.count_nonzero(called)
        recall = now
    return area


def slow_auc(scores: Array, hits: Array) -> float:
    p, n = scores[hits].astype(float)[:, None], scores[~hits].astype(float)[None]
    return float(((p > n) + 0.5 * (p == n)).mean())


# ---- by hand ----------------------------------------------------------------------------------------------


def test_curve_by_hand() -> None:
    r = ranking(np.array([0.9, 0.8, 0.8, 0.5, 0.1]), np.array([1, 0, 1, 1, 0]))
    c = curve(r)
    assert c.thresholds.tolist() == [0.9, 0.8, 0.5, 0.1]
    assert c.recall.tolist() == [1 / 3, 2 / 3, 1, 1]
    assert c.precision.tolist() == [1, 2 / 3, 3 / 4, 3 / 5]
    assert c.false_positive_rate.tolist() == [0, 1 / 2, 1 / 2, 1]
    assert average_precision(r) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3, abs=1e-15)
    # Of 6 pairs: one lost, one tied.
    assert roc_auc(r) == 4.5 / 6
    assert json.loads(json.dumps(c.to_dict()))["recall"] == c.recall.tolist()
    assert json.dumps(asdict(ranked_scores(r)))


def test_the_example_of_scikit_learn() -> None:
    # The example in the documentation of average_precision_score and roc_auc_score.
    r = ranking(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1]))
    assert average_precision(r) == pytest.approx(0.83, abs=0.005)
    assert roc_auc(r) == 0.75


# ---- against other implementations ------------------------------------------------------------------------


@given(seeds, st.integers(2, 200))
@laws
def test_parity_with_definitions(seed: int, levels: int) -> None:
    scores, truth = random_scores(seed, levels=levels)
    known = truth != 255
    found = ranked_scores(score_histogram(scores, truth).ranking())
    assert found.average_precision == pytest.approx(
        slow_average_precision(scores[known], truth[known] == 1), abs=1e-12
    )
    assert found.roc_auc == pytest.approx(slow_auc(scores[known], truth[known] == 1), abs=1e-12)
    assert found.prevalence == np.count_nonzero(truth == 1) / np.count_nonzero(known)


@pytest.mark.parametrize("seed", range(8))
def test_parity_with_monai(seed: int, monai: ModuleType) -> None:
    scores, truth = random_scores(seed)
    known = truth != 255
    p, t = torch.from_numpy(scores[known].astype(np.float32)), torch.from_numpy(truth[known].astype(np.float32))
    found = ranked_scores(ranking(scores, truth))
    assert found.average_precision == pytest.approx(monai.compute_average_precision(p, t), abs=1e-6)
    assert found.roc_auc == pytest.approx(monai.compute_roc_auc(p, t), abs=1e-6)


# ---- laws -------------------------------------------------------------------------------------------------


@given(seeds, st.integers(1, 5))
@laws
def test_blockwise_equals_whole(seed: int, at: int) -> None:
    scores, truth = random_scores(seed)
    blocks = [score_histogram(scores[k], truth[k]) for k in (np.s_[:at], np.s_[at:, 2:], np.s_[at:, :2])]
    whole = score_histogram(scores, truth)
    assert add(blocks) == whole
    assert ranked_scores(add(blocks).ranking()) == ranked_scores(whole.ranking())


@given(seeds, st.sampled_from(["uint8", "uint16", ">u2"]))
@laws
def test_a_histogram_loses_nothing(seed: int, dtype: str) -> None:
    scores, truth = random_scores(seed, levels=200)
    typed = scores.astype(dtype) * np.dtype(dtype).type(1 if dtype == "uint8" else 257)
    full = np.iinfo(dtype).max
    assert score_histogram(typed, truth).ranking() == ranking(typed / full, truth)
    assert score_histogram(typed, truth).ranking(np.arange(full + 1)) == ranking(typed, truth)


def test_slabs_cover_every_voxel() -> None:
    scores, truth = random_scores(0, (1300, 1000, 2))
    both = score_histogram(scores, truth)
    for row, value in enumerate((0, 1)):
        assert np.array_equal(both.counts[row], np.bincount(scores[truth == value], minlength=256))


@given(seeds)
@laws
def test_increasing_transforms_change_no_bit(seed: int) -> None:
    scores, truth = random_scores(seed, levels=200)
    plain = ranking(scores, truth)
    for changed in (scores / 7.0 - 3, np.exp(scores / 10.0), np.log1p(scores), scores.astype(float) ** 3):
        other = ranking(changed, truth)
        assert np.array_equal(other.positives, plain.positives)
        assert ranked_scores(other) == ranked_scores(plain)
        assert ranked_scores(other, 0.01) == ranked_scores(plain, 0.01)


@given(seeds)
@laws
def test_reversing_scores_reverses_auc(seed: int) -> None:
    scores, truth = random_scores(seed)
    assert roc_auc(ranking(255.0 - scores, truth)) == pytest.approx(1 - roc_auc(ranking(scores, truth)), abs=1e-15)


@given(seeds)
@laws
def test_perfection_and_ignorance(seed: int) -> None:
    scores, truth = random_scores(seed)
    perfect = ranked_scores(ranking(scores / 100 + (truth == 1), truth))
    assert (perfect.average_precision, perfect.roc_auc) == (1, 1)
    constant = ranked_scores(ranking(np.zeros(truth.shape), truth))
    assert constant.roc_auc == 0.5
    assert constant.average_precision == pytest.approx(constant.prevalence, abs=1e-15)


@given(seeds)
@laws
def test_ignoring_is_deleting(seed: int) -> None:
    scores, truth = random_scores(seed)
    mask = np.random.default_rng(seed).random(truth.shape) < 0.8
    keep = mask & (truth != 255)
    noisy = np.where(keep, scores, nan)  # what is predicted where nothing counts may be anything
    assert ranking(noisy, truth, mask=mask) == ranking(scores[keep].astype(float), truth[keep])
    assert score_histogram(scores, truth, mask=mask) == score_histogram(scores[keep], truth[keep])


def test_one_class_against_the_rest() -> None:
    scores, truth = random_scores(5)
    many = np.where(truth == 1, 3, np.where(truth == 0, 2, 255))
    assert score_histogram(scores, many, positive=3) == score_histogram(scores, truth)


@given(seeds, st.integers(0, 256))
@laws
def test_confusion_at_a_level_is_that_of_the_voxels(seed: int, level: int) -> None:
    scores, truth = random_scores(seed, levels=250)
    assert score_histogram(scores, truth).confusion(level) == confusion(truth, scores.astype(int) >= level, 2)


# ---- thresholds -------------------------------------------------------------------------------------------


@given(seeds, st.floats(0.01, 1))
@laws
def test_the_threshold_of_a_recall_is_the_highest_that_reaches_it(seed: int, target: float) -> None:
    scores, truth = random_scores(seed, levels=60)
    r = ranking(scores, truth)
    point = at_recall(r, target)
    assert point.recall >= target
    assert at_threshold(r, np.nextafter(point.threshold, inf)).recall < target


def test_a_recall_that_is_met_exactly_is_reached() -> None:
    # 7 of 10, where 0.7 * 10 is a hair above 7.
    r = Ranking(np.arange(10.0, 0, -1), np.ones(10, np.int64), np.zeros(10, np.int64))
    assert [at_recall(r, k / 10).n_true_positive for k in range(1, 11)] == list(range(1, 11))


@given(seeds, st.integers(0, 13))
@laws
def test_a_threshold_gives_what_the_confusion_says(seed: int, level: int) -> None:
    scores, truth = random_scores(seed)
    histogram = score_histogram(scores, truth)
    point = at_threshold(histogram.ranking(), level / 255)
    positive = confusion_scores(histogram.confusion(level)).classes[1]
    assert (point.recall, point.precision, point.f1) == (positive.recall, positive.precision, positive.f1)
    false, true = histogram.confusion(level).counts[:, 1]
    assert (point.n_false_positive, point.n_true_positive) == (false, true)


def test_calling_nothing_positive_has_a_precision_of_0() -> None:
    point = at_threshold(ranking(np.array([0.2, 0.4]), np.array([0, 1])), 0.5)
    assert (point.recall, point.precision, point.f1, point.false_positive_rate) == (0, 0, 0, 0)
    assert point.reason == "nothing is called positive: precision counts as 0"
    assert adjusted_precision(point, 0.1) == 0


# ---- prevalence and density -------------------------------------------------------------------------------


@given(seeds)
@laws
def test_the_natural_prevalence_adjusts_nothing(seed: int) -> None:
    scores, truth = random_scores(seed)
    r = ranking(scores, truth)
    natural = ranked_scores(r).prevalence
    assert curve(r, natural).precision == pytest.approx(curve(r).precision, abs=1e-12)
    assert average_precision(r, natural) == pytest.approx(average_precision(r), abs=1e-12)
    point = at_recall(r, 0.5)
    assert adjusted_precision(point, natural) == pytest.approx(point.precision, abs=1e-12)


@given(seeds, st.integers(2, 50))
@laws
def test_a_prevalence_is_that_of_a_sample_with_more_negatives(seed: int, times: int) -> None:
    scores, truth = random_scores(seed)
    r = ranking(scores, truth)
    world = Ranking(r.scores, r.positives, r.negatives * times)
    prevalence = ranked_scores(world).prevalence
    assert average_precision(r, prevalence) == pytest.approx(average_precision(world), abs=1e-12)
    assert adjusted_precision(at_recall(r, 0.7), prevalence) == pytest.approx(
        at_recall(world, 0.7).precision, abs=1e-12
    )
    # Recall, false-positive rate and AUC do not know the prevalence.
    assert roc_auc(world) == pytest.approx(roc_auc(r), abs=1e-15)


def test_what_enrichment_hides() -> None:
    # Recall 0.9 at a false-positive rate of 0.05 looks fine on a balanced sample.
    point = OperatingPoint(0.5, 0.9, 18 / 19, nan, 0.05, 90, 5, "")
    assert adjusted_precision(point, 0.5) == pytest.approx(18 / 19)
    assert adjusted_precision(point, 0.001) == pytest.approx(0.0009 / (0.0009 + 0.04995))


def test_false_positives_per_area_and_section() -> None:
    # 10 sections of 10 000 x 10 000 voxels at 10 nm are 0.01 mm^2 each.
    area = area_mm2(10 * 10_000**2, (40, 10, 10))
    assert area == pytest.approx(0.1)
    assert area_mm2(10**6, (40, 4, 5)) == pytest.approx(2e-5)
    density = false_positive_density(7, 10, area)
    assert density.per_mm2 == pytest.approx(70)
    assert density.per_section == 0.7
    for bad in ((-1, 1, 1.0), (1, 0, 1.0), (1, 1, 0.0), (1, 1, nan)):
        with pytest.raises(InputError, match="false positives"):
            false_positive_density(*bad)


# ---- nothing there, very much there -----------------------------------------------------------------------


def test_undefined_scores_are_nan_with_a_reason() -> None:
    scores = np.array([3, 5, 8], np.uint8)
    none = score_histogram(scores, np.full(3, 255)).ranking()
    negative, positive = score_histogram(scores, np.zeros(3, int)).ranking(), ranking(scores, np.ones(3, int))
    for r, word in (
        (none, "no voxel counts"),
        (negative, "no voxel is positive"),
        (positive, "no voxel is negative"),
    ):
        found = ranked_scores(r)
        assert word in found.reason
        assert isnan(found.roc_auc)
        assert word in curve(r).reason
        assert word in at_recall(r, 0.5).reason
    assert isnan(average_precision(none))
    assert isnan(average_precision(negative))
    assert isnan(at_recall(negative, 0.5).threshold)
    assert isnan(at_threshold(negative, 0.01).recall)
    assert average_precision(positive) == 1
    assert isnan(at_recall(positive, 0.5).false_positive_rate)
    assert isnan(average_precision(positive, 0.1))


def test_the_mean_over_classes_leaves_out_those_that_do_not_occur() -> None:
    a, b = (ranking(*random_scores(seed)) for seed in (1, 2))
    absent = ranking(np.array([0.1]), np.array([0]))
    expected = (average_precision(a) + average_precision(b)) / 2
    assert mean_average_precision([a, absent, b]) == pytest.approx(expected, abs=1e-15)
    assert isnan(mean_average_precision([absent]))


def test_pairs_beyond_int64_stay_exact() -> None:
    big = 4_000_000_000
    r = Ranking(np.array([3.0, 2.0, 1.0]), np.array([big, 1, 1]), np.array([1, big, big]))
    won = Fraction(big, 1) * 2 * big + Fraction(big, 2) + Fraction(big, 2) + big + Fraction(big, 2)
    assert roc_auc(r) == float(won / ((big + 2) * (2 * big + 1)))


# ---- bad input --------------------------------------------------------------------------------------------


def test_bad_input_is_named() -> None:
    truth = np.array([0, 1])
    with pytest.raises(InputError, match="use `quantised` on probabilities"):
        score_histogram(np.array([0.1, 0.2]), truth)
    with pytest.raises(InputError, match="NaN or infinite"):
        ranking(np.array([0.1, nan]), truth)
    with pytest.raises(InputError, match="give numbers"):
        ranking(np.array([True, False]), truth)
    with pytest.raises(InputError, match="crop to one box"):
        ranking(np.zeros(3), truth)
    for bad in (np.array([1.1]), np.array([nan]), np.array([3])):
        with pytest.raises(InputError, match="not probabilities"):
            quantised(bad)
    r = ranking(np.array([0.1, 0.2]), truth)
    for prevalence in (0.0, 1.0, nan):
        with pytest.raises(InputError, match="prevalence"):
            average_precision(r, prevalence)
    for recall in (0.0, 1.1, nan):
        with pytest.raises(InputError, match="target recall"):
            at_recall(r, recall)
    with pytest.raises(InputError, match="threshold is NaN"):
        at_threshold(r, nan)
    with pytest.raises(InputError, match="strictly increasing"):
        ScoreHistogram(np.ones((2, 3), np.int64)).ranking([1, 1, 2])
    with pytest.raises(InputError, match=r"outside 0 \.\. 3"):
        ScoreHistogram(np.ones((2, 3), np.int64)).confusion(4)
    with pytest.raises(InputError, match="\\[2, levels\\]"):
        ScoreHistogram(np.ones((3, 3), np.int64))
    one = np.ones(1, np.int64)
    with pytest.raises(InputError, match="strictly decreasing"):
        Ranking(np.array([1.0, 1.0]), np.ones(2, np.int64), np.ones(2, np.int64))
    with pytest.raises(InputError, match="three columns"):
        Ranking(np.array([1.0, 0.5]), one, one)
    with pytest.raises(InputError, match="negative count"):
        Ranking(np.array([1.0]), -one, one)


def test_quantised_rounds_to_the_nearest_level() -> None:
    assert quantised(np.array([0, 0.5 / 255 - 1e-9, 0.5 / 255 + 1e-9, 0.5, 1])).tolist() == [0, 0, 1, 128, 255]
    for levels in (np.arange(256, dtype=np.uint8), np.arange(65536, dtype=np.uint16)):
        for dtype in (np.float32, np.float64):
            assert np.array_equal(quantised((levels / levels[-1]).astype(dtype), levels.dtype), levels)
    assert quantised(np.array([1.0], np.float16), np.uint16).tolist() == [65535]
    with pytest.raises(InputError, match="use uint8 or uint16"):
        quantised(np.array([0.5]), np.int8)


# ---- real data ---------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_patches_of_a_debris_detector(real_data: Path) -> None:
    """Labels and probabilities of 1425 patches: the stored confusion, and scipy's Mann-Whitney statistic."""
    folder = real_data / "artifacts" / "genEM3_annotations"
    with (folder / "patch_test_data.csv").open() as file:
        rows = list(csv.DictReader(file))
    truth = np.array([row["class"] == "True" for row in rows])
    p = np.array([float(row["prob"]) for row in rows])
    with (folder / "patch_confusion.csv").open() as file:
        stored = [[int(row["condition_positive"]), int(row["condition_negative"])] for row in csv.DictReader(file)]
    r = ranking(p, truth)
    point = at_threshold(r, 0.5)
    assert [point.n_true_positive, point.n_false_positive] == stored[0]
    assert [r.n_positive, r.n_negative] == np.sum(stored, axis=0).tolist()
    wins = scipy.stats.mannwhitneyu(p[truth], p[~truth]).statistic
    assert roc_auc(r) == pytest.approx(wins / (r.n_positive * r.n_negative), abs=1e-12)
    exact = average_precision(r)
    assert exact == pytest.approx(slow_average_precision(p, truth), abs=1e-12)
    # It is sure of so many patches that 256 levels tie those that matter most.
    fine, coarse = (average_precision(score_histogram(quantised(p, d), truth).ranking()) for d in ("u2", "u1"))
    assert fine == pytest.approx(exact, abs=0.005)
    assert abs(coarse - exact) > 0.04


@laws
@given(seeds)
def test_no_threshold_has_a_higher_f1_than_the_best(seed: int) -> None:
    scores, truth = random_scores(seed)
    ranked = ranking(scores, truth)
    best = at_best_f1(ranked)
    every = [at_threshold(ranked, s) for s in ranked.scores.tolist()]
    assert best in every
    assert best.f1 == max(point.f1 for point in every)
    assert all(point.threshold <= best.threshold for point in every if point.f1 == best.f1)


def test_the_best_f1_of_nothing_is_undefined() -> None:
    none = at_best_f1(ranking(np.zeros(3), np.zeros(3, np.uint8)))
    assert isnan(none.threshold)
    assert none.reason
