"""Recalibration against scikit-learn and scipy; what it cannot change, and what makes it fail."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from emloom.errors import InputError
from emloom.metrics.calibration import calibration
from emloom.metrics.ranking import ranking
from emloom.metrics.recalibrate import Recalibration, fit_platt, fit_temperature, logits


def noisy(seed: int, n: int = 400, prevalence: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Return overconfident, shifted probabilities and their truth."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(n) < prevalence).astype(np.int8)
    truth[:2] = 0, 1
    return expit(3 * (rng.normal(size=n) + 1.5 * truth) - 1), truth


@given(st.integers(0, 10**6))
def test_the_temperature_is_that_of_a_search(seed: int) -> None:
    p, truth = noisy(seed)
    x = logits(p)
    if x @ (2.0 * truth - 1) <= 0:
        with pytest.raises(InputError, match="point away"):
            fit_temperature(p, truth)
        return
    search = minimize_scalar(
        lambda a: np.sum(np.logaddexp(0, a * x) - truth * a * x), bounds=(0, 20), options={"xatol": 1e-12}
    )
    found = fit_temperature(p, truth)
    assert found.intercept == 0
    assert found.slope == pytest.approx(search.x, rel=1e-5, abs=1e-5)


@example(21348, 0.5)
@given(st.integers(0, 10**6), st.floats(0.02, 0.9))
def test_platt_is_logistic_regression_on_his_targets(seed: int, prevalence: float) -> None:
    p, truth = noisy(seed, prevalence=prevalence)
    x, positive = logits(p), int(truth.sum())
    high, low = (positive + 1) / (positive + 2), 1 / (truth.size - positive + 2)
    targets = np.where(truth == 1, high, low)
    # scikit-learn has no soft targets: every patch stands twice, weighed.
    judge = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.tile(x, 2)[:, None], np.repeat([1, 0], x.size), np.concatenate([targets, 1 - targets])
    )
    found = fit_platt(p, truth)
    assert found.slope == pytest.approx(judge.coef_[0, 0], rel=1e-4, abs=1e-5)
    assert found.intercept == pytest.approx(judge.intercept_[0], rel=1e-4, abs=1e-4)
    gradient = np.stack([x, np.ones_like(x)]) @ (found.apply(p) - targets)
    assert np.abs(gradient).max() < 1e-7


def test_platt_is_finite_where_a_threshold_parts_the_classes() -> None:
    p, truth = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    x, targets = logits(p), np.array([0.25, 0.25, 0.75, 0.75])
    search = minimize(lambda w: np.sum(np.logaddexp(0, w[0] * x + w[1]) - targets * (w[0] * x + w[1])), [1, 0])
    found = fit_platt(p, truth)
    assert (found.slope, found.intercept) == pytest.approx(tuple(search.x), abs=1e-4)
    with pytest.raises(InputError, match="use Platt"):
        fit_temperature(p, truth)


def test_equal_scores_are_calibrated_to_their_frequency() -> None:
    found = fit_platt(np.full(10, 0.5), np.array([1] * 3 + [0] * 7))
    assert found.apply(np.array([0.5]))[0] == pytest.approx((3 * 4 / 5 + 7 * 1 / 9) / 10)


@given(st.integers(0, 10**6))
def test_a_fit_lowers_the_error_it_was_fitted_to_and_keeps_the_order(seed: int) -> None:
    p, truth = noisy(seed)
    for fit in (fit_temperature, fit_platt):
        again = fit(p, truth).apply(p)
        order = np.argsort(p)
        assert (np.diff(again[order]) >= 0).all()
    before, after = (
        calibration(ranking(s, truth), binning="equal_mass").ece for s in (p, fit_platt(p, truth).apply(p))
    )
    assert after < before


def test_prior_shift_is_bayes_rule() -> None:
    """Two Gaussians: their posterior at one prevalence, shifted, is their posterior at another."""
    x = np.linspace(-4, 4, 50)

    def posterior(prevalence: float) -> np.ndarray:
        odds = prevalence / (1 - prevalence) * np.exp(-((x - 1) ** 2) / 2 + x**2 / 2)
        return odds / (1 + odds)

    moved = Recalibration().shifted(0.35, 0.046).apply(posterior(0.35))
    assert moved == pytest.approx(posterior(0.046), rel=1e-9)
    there_and_back = Recalibration(0.5, 0.1).shifted(0.2, 0.7).shifted(0.7, 0.2)
    assert (there_and_back.slope, there_and_back.intercept) == pytest.approx((0.5, 0.1))


@given(st.integers(0, 10**6))
def test_unknowns_do_not_count(seed: int) -> None:
    p, truth = noisy(seed)
    unknown = truth.copy()
    unknown[10:60] = -1
    known = unknown >= 0
    assert fit_platt(p, unknown) == fit_platt(p[known], truth[known])


def test_what_cannot_be_calibrated_is_refused() -> None:
    p = np.array([0.2, 0.9])
    for truth, words in (
        (np.array([1, 1]), "some of both"),
        (np.array([1, 2]), "give 1 for yes"),
        (np.ones(3, int), "one for"),
    ):
        with pytest.raises(InputError, match=words):
            fit_platt(p, truth)
    with pytest.raises(InputError, match="within 0 and 1"):
        fit_platt(p * 2, np.array([0, 1]))
    with pytest.raises(InputError, match="between 0 and 1"):
        Recalibration().shifted(0.5, 1)
