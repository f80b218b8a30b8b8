"""The laws of principal components, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from emloom.errors import InputError
from emloom.nn.latents import principal_components


def latents(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 30), d=st.integers(1, 12), seed=st.integers(0, 99), data=st.data())
def test_they_are_those_of_scikit_learn(n, d, seed, data):
    x = latents(n, d, seed)
    # Of n points n - 1 directions have variance; the rest are arbitrary.
    k = data.draw(st.integers(1, max(1, min(n - 1, d))))
    found, judge = principal_components(x, k), PCA(k, svd_solver="full").fit(x)
    np.testing.assert_allclose(found.mean, judge.mean_)
    np.testing.assert_allclose(found.variance, judge.explained_variance_, rtol=1e-7)
    np.testing.assert_allclose(found.share, judge.explained_variance_ratio_, rtol=1e-7)
    signs = np.sign((found.axes * judge.components_).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(found.axes, signs * judge.components_, atol=1e-6)
    np.testing.assert_allclose(found.project(x), signs.T * judge.transform(x), atol=1e-6 * np.abs(x).max())


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 30), d=st.integers(1, 12), seed=st.integers(0, 99))
def test_all_of_them_together_lose_nothing(n, d, seed):
    x = latents(n, d, seed)
    k = min(n, d)
    found = principal_components(x, k)
    np.testing.assert_allclose(found.restore(found.project(x)), x, atol=1e-8 * (1 + np.abs(x).max()))
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(k), atol=1e-9)
    assert found.share.sum() == pytest.approx(1)
    assert (np.diff(found.variance) <= 0).all()
    largest = np.take_along_axis(found.axes, np.abs(found.axes).argmax(1)[:, None], 1)
    assert (largest > 0).all()


def test_signs_do_not_depend_on_the_sign_of_the_data():
    x = latents(9, 4)
    np.testing.assert_allclose(principal_components(x, 3).axes, principal_components(-x, 3).axes, atol=1e-9)


def test_half_precision_is_summed_in_double():
    x = latents(500, 3).astype(np.float32)
    found, exact = principal_components(x, 3), principal_components(x.astype(np.float64), 3)
    np.testing.assert_array_equal(found.variance, exact.variance)


def test_latents_that_are_all_the_same_have_no_variance():
    found = principal_components(np.ones((4, 3)), 2)
    assert found.variance.tolist() == found.share.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("x", "count", "words"),
    [
        (np.zeros((1, 3)), 1, "at least 2"),
        (np.zeros((4, 3, 1)), 1, r"as \[N, D\]"),
        (np.full((4, 3), np.nan), 1, "NaN or infinity"),
        (np.zeros((4, 3)), 0, "ask for 1 to 3"),
        (np.zeros((4, 3)), 4, "ask for 1 to 3"),
    ],
)
def test_what_has_no_components_is_refused(x, count, words):
    with pytest.raises(InputError, match=words):
        principal_components(x, count)
