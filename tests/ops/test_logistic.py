"""Logistic regression: the one answer, whoever looks for it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from emloom.errors import InputError
from emloom.ops.logistic import balanced_weights, logistic_regression


def problem(seed: int, n: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((n, d))
    positive = rng.random(n) < 1 / (1 + np.exp(-features[:, 0] + 1))
    positive[:2] = [True, False]
    return features, positive


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(4, 60),
    d=st.integers(1, 90),
    strength=st.sampled_from([1e-3, 0.1, 1.0, 30.0]),
    balanced=st.booleans(),
)
def test_it_is_that_of_scikit_learn(seed, n, d, strength, balanced):
    features, positive = problem(seed, n, d)
    weights = balanced_weights(positive) if balanced else None
    coefficients, offset = logistic_regression(features, positive, strength, weights)
    # newton-cholesky: the precise one of scikit-learn's solvers.
    peer = LogisticRegression(
        C=strength,
        class_weight="balanced" if balanced else None,
        solver="newton-cholesky",
        tol=1e-10,
        max_iter=1000,
    ).fit(features, positive)
    np.testing.assert_allclose(coefficients, peer.coef_[0], atol=1e-4, rtol=1e-4)
    assert offset == pytest.approx(peer.intercept_[0], abs=1e-4, rel=1e-4)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), n=st.integers(4, 40), d=st.integers(1, 60))
def test_the_slope_of_the_objective_is_zero_there(seed, n, d):
    features, positive = problem(seed, n, d)
    weights = np.random.default_rng(seed).uniform(0.1, 3.0, n)
    w, b = logistic_regression(features, positive, 2.0, weights)
    wrong = 2.0 * weights * (1 / (1 + np.exp(-(features @ w + b))) - positive)
    assert np.abs(features.T @ wrong + w).max() < 1e-5
    assert abs(wrong.sum()) < 1e-5


def test_weights_count_as_repeats_do():
    features, positive = problem(3, 20, 4)
    repeats = np.random.default_rng(0).integers(1, 4, 20)
    weighted = logistic_regression(features, positive, 1.0, repeats.astype(float))
    repeated = logistic_regression(features.repeat(repeats, axis=0), positive.repeat(repeats), 1.0)
    np.testing.assert_allclose(weighted[0], repeated[0], atol=1e-8)
    assert weighted[1] == pytest.approx(repeated[1], abs=1e-8)


def test_classes_that_a_line_parts_have_a_finite_answer():
    features = np.array([[-1000.0], [-999.0], [999.0], [1000.0]])
    w, b = logistic_regression(features, np.array([False, False, True, True]), 1e6)
    assert np.isfinite(w).all()
    assert abs(b) < 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"positive_N": np.ones(6, bool)}, "6 of 6 samples that count are positive"),
        ({"strength": 0.0}, "a strength of 0.0 is not above 0"),
        ({"features_ND": np.full((6, 2), np.nan)}, "NaN"),
        ({"weights_N": np.full(6, -1.0)}, "negative"),
        ({"weights_N": np.ones(5)}, "do not belong together"),
    ],
)
def test_what_has_no_answer_is_refused(change, words):
    asked = {"features_ND": np.eye(6, 2), "positive_N": np.arange(6) < 3, **change}
    with pytest.raises(InputError, match=words):
        logistic_regression(**asked)
