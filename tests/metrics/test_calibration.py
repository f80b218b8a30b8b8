"""Calibration: by hand, against definitions and MONAI, and on scores of known calibration."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from itertools import pairwise
from math import isnan
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.metrics.calibration import Binning, brier, brier_of_classes, calibration, top_label
from emloom.metrics.counts import add
from emloom.metrics.ranking import Ranking, ScoreHistogram, quantised, ranking, score_histogram

Array = NDArray[Any]
seeds = st.integers(0, 10**6)
binnings = st.sampled_from(get_args(Binning))
laws = settings(deadline=None, max_examples=30)


@pytest.fixture(scope="module")
def monai() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("monai.metrics")


def random_scores(seed: int, n: int = 300) -> tuple[Array, Array]:
    """Return probabilities that are too sure of themselves, and truth; 255 is ignored."""
    rng = np.random.default_rng(seed)
    p = rng.random(n)
    truth = (rng.random(n) < 0.3 + 0.4 * p).astype(np.uint8)
    truth[rng.random(n) < 0.1] = 255
    truth[0] = 1
    return p, truth


def test_by_hand() -> None:
    r = ranking(np.array([0.1, 0.3, 0.5, 0.9, 1.0]), np.array([0, 1, 1, 1, 0]))
    c = calibration(r, 2)
    low, high = c.bins
    assert (low.low, low.high, low.n, low.confidence, low.accuracy) == (0, 0.5, 2, 0.2, 0.5)
    # 0.5 lies in the upper bin, and so does 1.
    assert (high.low, high.high, high.n, high.accuracy) == (0.5, 1, 3, 2 / 3)
    assert high.confidence == pytest.approx(0.8)
    assert c.ece == pytest.approx((2 * 0.3 + 3 * (0.8 - 2 / 3)) / 5)
    assert c.mce == pytest.approx(0.3)
    assert c.brier == pytest.approx((0.1**2 + 0.7**2 + 0.5**2 + 0.1**2 + 1) / 5)
    assert json.loads(json.dumps(asdict(c)))["bins"][0]["n"] == 2


def test_edges_are_decimal() -> None:
    # 0.29 * 100 is a hair below 29; the bin that begins at 0.29 holds it all the same.
    values = np.arange(100) / 100
    bins = calibration(ranking(values, np.zeros(100, int)), 100).bins
    assert [b.low for b in bins] == values.tolist()
    assert all(b.n == 1 for b in bins)


@given(seeds, st.integers(1, 20), binnings)
@laws
def test_parity_with_definitions(seed: int, n_bins: int, binning: Binning) -> None:
    p, truth = random_scores(seed)
    p, y = p[truth != 255], truth[truth != 255]
    c = calibration(ranking(*random_scores(seed)), n_bins, binning)
    order = np.argsort(p)
    if binning == "equal_width":
        index = np.minimum((p * n_bins).astype(int), n_bins - 1)
    else:
        index = np.empty(p.size, int)
        index[order] = np.arange(p.size) * n_bins // p.size
    gaps = [(np.count_nonzero(index == b), abs(p[index == b].mean() - y[index == b].mean())) for b in set(index)]
    assert c.ece == pytest.approx(sum(n * gap for n, gap in gaps) / p.size, abs=1e-12)
    assert c.mce == pytest.approx(max(gap for _, gap in gaps), abs=1e-12)
    assert c.brier == pytest.approx(((p - y) ** 2).mean(), abs=1e-12)
    assert sum(b.n for b in c.bins) == c.n_voxels == p.size
    assert all(b.low <= b.confidence <= b.high for b in c.bins)


@pytest.mark.parametrize("seed", range(5))
def test_the_table_is_that_of_monai(seed: int, monai: ModuleType) -> None:
    p, truth = random_scores(seed)
    p, y = p[truth != 255].astype(np.float32), truth[truth != 255]
    shaped = [torch.from_numpy(a.astype(np.float32))[None, None] for a in (p, y)]
    mean_p, mean_y, n = (a[0, 0].numpy() for a in monai.calibration_binning(*shaped, num_bins=10, right=True))
    held = n > 0
    bins = calibration(ranking(p, y), 10).bins
    # No score lies on an edge here, where MONAI's bins end otherwise.
    assert [b.n for b in bins] == n[held].tolist()
    assert [b.confidence for b in bins] == pytest.approx(mean_p[held].tolist(), abs=1e-5)
    assert [b.accuracy for b in bins] == pytest.approx(mean_y[held].tolist(), abs=1e-5)


# ---- known calibration -------------------------------------------------------------------------------------


@pytest.mark.parametrize("binning", get_args(Binning))
def test_perfect_calibration_has_no_error(binning: Binning) -> None:
    levels = np.arange(256)
    # Of the 255 voxels of level k, k are positive: frequency and probability agree at every level.
    c = calibration(ScoreHistogram(np.stack([255 - levels, levels])).ranking(), 15, binning)
    assert c.ece == pytest.approx(0, abs=1e-12)
    assert c.mce == pytest.approx(0, abs=1e-12)
    assert c.brier > 0.1  # calibrated is not the same as certain


@pytest.mark.parametrize("binning", get_args(Binning))
def test_a_sample_of_perfect_calibration_tends_to_no_error(binning: Binning) -> None:
    rng = np.random.default_rng(0)
    errors = []
    for n in (300, 30_000, 3_000_000):
        p = rng.random(n)
        errors.append(calibration(score_histogram(quantised(p), rng.random(n) < p).ranking(), 15, binning).ece)
    # ECE is never negative, so chance alone makes it positive: about sqrt(bins / n).
    assert 0.01 < errors[0] < 0.15
    assert errors[1] < errors[0] / 3
    assert errors[2] < 0.002


def test_a_constant_at_the_prevalence_is_calibrated_and_useless() -> None:
    truth = np.array([1] * 20 + [0] * 80)
    c = calibration(ranking(np.full(100, 0.2), truth))
    assert c.ece == pytest.approx(0, abs=1e-12)
    assert c.brier == pytest.approx(0.2 * 0.8)


def test_certainty_that_is_right_or_wrong() -> None:
    truth = np.array([0, 1, 1, 0])
    right, wrong = calibration(ranking(truth * 1.0, truth)), calibration(ranking(1.0 - truth, truth))
    assert (right.ece, right.mce, right.brier) == (0, 0, 0)
    assert (wrong.ece, wrong.mce, wrong.brier) == (1, 1, 1)


# ---- laws --------------------------------------------------------------------------------------------------


@given(seeds, st.integers(1, 299), binnings)
@laws
def test_blockwise_equals_whole(seed: int, at: int, binning: Binning) -> None:
    p, truth = random_scores(seed)
    levels = quantised(p)
    blocks = [score_histogram(levels[k], truth[k]) for k in (np.s_[:at], np.s_[at:])]
    assert calibration(add(blocks).ranking(), 15, binning) == calibration(
        ranking(levels / 255, truth), 15, binning
    )


@given(seeds, st.integers(1, 30))
@laws
def test_bins_of_equal_mass_differ_by_ties_only(seed: int, n_bins: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.permutation(300) / 300
    sizes = [b.n for b in calibration(ranking(p, p < 0.5), n_bins, "equal_mass").bins]
    assert max(sizes) - min(sizes) <= 1
    assert len(sizes) == n_bins
    tied = calibration(ranking(np.floor(p * 7) / 7, p < 0.5), n_bins, "equal_mass").bins
    assert all(lower.high < upper.low for lower, upper in pairwise(tied))
    assert sum(b.n for b in tied) == 300


def test_ties_go_where_the_middle_one_falls() -> None:
    # Ranks 0 | 1 2 3 4 5: the middle one of the tie has rank 3, the first of the upper half.
    upper = calibration(ranking(np.array([0.1] + [0.2] * 5), np.zeros(6, int)), 2, "equal_mass").bins
    assert [b.n for b in upper] == [1, 5]
    lower = calibration(ranking(np.array([0.2] * 5 + [0.3]), np.zeros(6, int)), 2, "equal_mass").bins
    assert [b.n for b in lower] == [5, 1]


# ---- the top label -----------------------------------------------------------------------------------------


def test_top_label_by_hand() -> None:
    scores = np.array([[0.2, 0.5, 0.1, 0.4], [0.7, 0.4, 0.1, 0.4], [0.1, 0.1, 0.8, 0.2]])
    confidence, correct = top_label(scores, np.array([1, 2, 255, 0]))
    assert confidence.tolist() == [0.7, 0.5, 0.8, 0.4]
    assert correct.tolist() == [1, 0, 255, 1]  # of equals the first wins
    _, masked = top_label(scores, np.array([1, 2, 255, 0]), mask=np.array([False, True, True, True]))
    assert masked.tolist() == [255, 0, 255, 1]


@given(seeds, binnings)
@laws
def test_top_label_of_two_classes_is_the_binary_one_folded(seed: int, binning: Binning) -> None:
    p, truth = random_scores(seed)
    levels = quantised(p)
    confidence, correct = top_label(np.stack([255 - levels, levels]), truth)
    assert confidence.dtype == np.uint8
    c = calibration(score_histogram(confidence, correct).ranking(), 10, binning)
    known = truth != 255
    right = (levels[known] > 127) == (truth[known] == 1)
    sure = np.maximum(levels, 255 - levels)[known] / 255
    assert c == calibration(ranking(sure, right), 10, binning)
    assert c.brier == pytest.approx(brier(ranking(levels / 255, truth)), abs=1e-12)


@given(seeds)
@laws
def test_brier_of_classes_is_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(4), 200).T
    truth = rng.integers(0, 4, 200)
    truth[:20] = 255
    expected = ((p - (truth == np.arange(4)[:, None])) ** 2).sum(axis=0)[20:].mean()
    assert brier_of_classes([ranking(p[c], truth, positive=c) for c in range(4)]) == pytest.approx(
        expected, abs=1e-12
    )


# ---- nothing there, bad input ------------------------------------------------------------------------------


def test_all_ignored_is_nan_with_the_reason() -> None:
    r = ranking(np.array([0.5]), np.array([255]))
    c = calibration(r)
    assert all(isnan(v) for v in (c.ece, c.mce, c.brier, brier(r)))
    assert c.reason == "no voxel counts: all are ignored or masked out"
    assert c.bins == ()


def test_bad_input_is_named() -> None:
    r = ranking(np.array([0.1, 0.2]), np.array([0, 1]))
    with pytest.raises(InputError, match="give 1 or more, 15 is usual"):
        calibration(r, 0)
    with pytest.raises(InputError, match="did you mean 'equal_mass'"):
        calibration(r, binning="equal-mass")  # type: ignore[arg-type]
    for scores in (np.array([-0.1, 0.2]), np.array([0.1, 1.2])):
        with pytest.raises(InputError, match="apply a sigmoid or softmax"):
            calibration(ranking(scores, np.array([0, 1])))
    with pytest.raises(InputError, match=r"\[classes, \*shape of truth\]"):
        top_label(np.zeros((2, 3)), np.zeros(4, int))
    with pytest.raises(InputError, match="all of the same voxels"):
        brier_of_classes([r, Ranking(np.array([0.5]), np.ones(1, np.int64), np.zeros(1, np.int64))])
    # The rounding of a float32 softmax is no mistake.
    over = np.array([1.0000001], np.float32)
    assert calibration(ranking(over, np.array([1]))).ece == pytest.approx(0, abs=1e-6)
