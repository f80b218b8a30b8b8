"""The laws of principal components, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from emloom.errors import InputError
from emloom.nn.latents import Moments, moments, principal_components


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


# ---- in batches -------------------------------------------------------------------------------------------------


@st.composite
def batched(draw: st.DrawFn) -> tuple[np.ndarray, list[np.ndarray]]:
    """Latents, and the same in batches of any sizes."""
    n, d = draw(st.integers(2, 40)), draw(st.integers(1, 10))
    x = latents(n, d, draw(st.integers(0, 99))) + draw(st.sampled_from([0, 1e4]))
    cuts = sorted(draw(st.sets(st.integers(1, n - 1))))
    return x, np.split(x, cuts)


@settings(deadline=None, max_examples=60)
@given(made=batched(), data=st.data())
def test_batches_have_the_components_of_the_whole(made, data):
    x, batches = made
    k = data.draw(st.integers(1, max(1, min(len(x) - 1, x.shape[1]))))
    found, judge = moments(batches).components(k), principal_components(x, k)
    first = judge.variance[0]
    np.testing.assert_allclose(found.mean, judge.mean, rtol=1e-12, atol=1e-12 * np.abs(x).max())
    np.testing.assert_allclose(found.variance, judge.variance, rtol=0, atol=1e-10 * first)
    np.testing.assert_allclose(found.share, judge.share, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(k), atol=1e-12)
    # Axes are determined as far as their variances differ.
    everything = principal_components(x, min(x.shape)).variance / first
    gaps = np.abs(np.diff(np.append(everything, 0)))
    clear = [i for i in range(k) if min(gaps[i], gaps[i - 1] if i else 1) > 1e-4 and everything[i] > 1e-4]
    np.testing.assert_allclose(found.axes[clear], judge.axes[clear], atol=1e-6)


@settings(deadline=None, max_examples=40)
@given(made=batched(), seed=st.integers(0, 99))
def test_neither_order_nor_batches_matter(made, seed):
    x, batches = made
    order = np.random.default_rng(seed).permutation(len(batches))
    backwards, whole = moments([batches[i] for i in order]), Moments.of(x)
    left = moments(batches[:-1] or batches[:1])
    right = Moments.of(batches[-1])
    grouped = left.merged(right) if len(batches) > 1 else left
    size = np.abs(whole.scatter).max() + np.abs(x).max()
    for found in (moments(iter(batches)), backwards, grouped, right.merged(left) if len(batches) > 1 else left):
        assert found.count == len(x)
        np.testing.assert_allclose(found.mean, whole.mean, rtol=1e-12, atol=1e-12 * np.abs(x).max())
        np.testing.assert_allclose(found.scatter, whole.scatter, rtol=0, atol=1e-11 * size)


def test_a_mean_far_from_zero_costs_no_digits():
    x = np.random.default_rng(0).normal(size=(1000, 3)) * [3, 2, 1]
    near = moments(np.split(x, 10)).components(3)
    far = moments(np.split(x + 1e8, 10)).components(3)
    # The latents themselves have lost 8 of 16 digits; sums of squares would have lost all.
    np.testing.assert_allclose(far.variance, near.variance, rtol=1e-6)


def test_the_scatter_is_the_sum_of_products():
    x = latents(7, 3)
    found = moments([x[:2], x[2:3], x[3:]])
    np.testing.assert_allclose(found.scatter, sum(np.outer(v, v) for v in x - x.mean(axis=0)))
    np.testing.assert_allclose(found.components(2).project(x), principal_components(x, 2).project(x), atol=1e-9)


def test_batches_that_are_all_the_same_have_no_variance():
    found = moments([np.ones((2, 3)), np.ones((1, 3))]).components(2)
    assert found.variance.tolist() == found.share.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ([], "no batches"),
        ([np.zeros((0, 3))], "at least 1, as"),
        ([np.zeros(3)], r"as \[N, D\]"),
        ([np.zeros((2, 3)), np.full((1, 3), np.inf)], "NaN or infinity"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "of 3 and of 4 numbers"),
        ([np.zeros((1, 4097))], "at most 4096 numbers"),
    ],
)
def test_batches_without_moments_are_refused(batches, words):
    with pytest.raises(InputError, match=words):
        moments(batches)


@pytest.mark.parametrize("count", [0, 4])
def test_moments_have_as_many_components_as_latents_and_numbers(count):
    with pytest.raises(InputError, match="ask for 1 to 3"):
        moments([latents(4, 3)]).components(count)
    with pytest.raises(InputError, match=r"\(1, 3\) have no principal components: give at least 2"):
        moments([latents(1, 3)]).components(1)


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
