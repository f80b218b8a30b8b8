"""Scorers of features: against independent ones, and what must change no number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from emloom.errors import InputError
from emloom.nn.anomaly import (
    DeviationSpec,
    LinearProbeSpec,
    MemoryBank,
    MemoryBankSpec,
    NeighboursSpec,
    arrays_of,
    fit_scorer,
    scorer_of,
)

seeds = st.integers(0, 2**32)
BANK = MemoryBankSpec(items=20, projection=4)
SPECS = [
    LinearProbeSpec(),
    NeighboursSpec(k=4),
    BANK,
    MemoryBankSpec(items=5, neighbours=1),
    DeviationSpec(),
    DeviationSpec(sides="both"),
]
names = [spec.kind for spec in SPECS]


def patches(seed: int, n: int = 30, p: int = 4, d: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Features of scales that differ, and labels: 1, 0 and a few -1."""
    rng = np.random.default_rng(seed)
    features = (rng.standard_normal((n, p, d)) * 10.0 ** rng.integers(-2, 3, d) + 5).astype(np.float32)
    labels = rng.integers(-1, 2, n).astype(np.int8)
    labels[:4] = [0, 1, 0, 1]
    return features, labels


def features_for(spec: object, seed: int, n: int = 30) -> tuple[np.ndarray, np.ndarray]:
    features, labels = patches(seed, n)
    return (np.abs(features[:, :1, :1]), labels) if isinstance(spec, DeviationSpec) else (features, labels)


@settings(max_examples=20)
@given(seed=seeds, d=st.integers(1, 12), balanced=st.booleans())
def test_a_probe_is_scikit_learns(seed, d, balanced):
    features, labels = patches(seed, d=d)
    spec = LinearProbeSpec(strength=0.3, balanced=balanced)
    probe = fit_scorer(spec, features, labels)
    flat, known = features.reshape(len(features), -1).astype(np.float64), labels >= 0
    scaler = StandardScaler().fit(flat[known])
    peer = LogisticRegression(
        C=0.3, class_weight="balanced" if balanced else None, solver="newton-cholesky", tol=1e-10
    ).fit(scaler.transform(flat[known]), labels[known])
    expected = peer.decision_function(scaler.transform(flat))
    np.testing.assert_allclose(probe.scores(features), expected, atol=1e-4, rtol=1e-4)


@settings(max_examples=30)
@given(seed=seeds, k=st.integers(1, 12))
def test_neighbours_are_scikit_learns(seed, k):
    features, labels = patches(seed)
    flat, known = features.reshape(len(features), -1).astype(np.float64), labels >= 0
    k = min(k, int(known.sum()))
    found = fit_scorer(NeighboursSpec(k=k), features, labels).scores(features)
    scaler = StandardScaler().fit(flat[known])
    peer = KNeighborsClassifier(k, weights="distance", algorithm="brute")
    peer.fit(scaler.transform(flat[known]), labels[known])
    unknown = ~known
    expected = peer.predict_proba(scaler.transform(flat[unknown]))[:, 1] if unknown.any() else []
    np.testing.assert_allclose(found[unknown], expected, atol=1e-9)
    # scikit-learn's rounding makes 0 a little more; a patch that was fitted is its own neighbour.
    np.testing.assert_array_equal(found[known], labels[known])


def test_of_a_patch_labelled_twice_both_labels_count():
    features = np.array([1, 1, 7], np.float32).reshape(3, 1, 1)
    neighbours = fit_scorer(NeighboursSpec(k=3), features, np.array([1, 0, 0], np.int8))
    np.testing.assert_array_equal(neighbours.scores(features), [0.5, 0.5, 0])


# ---- the memory bank ------------------------------------------------------------------------------------------


@given(seed=seeds, projection=st.sampled_from([1, 3, 128]), neighbours=st.sampled_from([1, 3, 50]))
def test_what_is_in_the_bank_scores_nothing(seed, projection, neighbours):
    features, labels = patches(seed)
    spec = MemoryBankSpec(items=10_000, projection=projection, neighbours=neighbours)
    bank = fit_scorer(spec, features, labels)
    assert isinstance(bank, MemoryBank)
    clean = features[labels == 0]
    assert len(bank.items) == clean.shape[0] * clean.shape[1]
    np.testing.assert_array_equal(bank.distances(clean), 0)
    np.testing.assert_array_equal(bank.scores(clean), 0)
    assert (bank.scores(features + 3) > 0).all()


@settings(max_examples=30)
@given(seed=seeds, neighbours=st.integers(1, 30))
def test_scores_are_those_of_the_paper(seed, neighbours):
    features, labels = patches(seed, n=12, p=3, d=4)
    bank = fit_scorer(MemoryBankSpec(items=9, neighbours=neighbours), features, labels)
    items = bank.items.astype(float)
    expected = []
    for patch in ((features - bank.centre) / bank.scale).astype(np.float32).astype(float):
        apart = np.linalg.norm(patch[:, None] - items[None], axis=2)
        position = int(apart.min(axis=1).argmax())
        item, far = int(apart[position].argmin()), apart[position].min()
        around = np.argsort(np.linalg.norm(items - items[item], axis=1), kind="stable")[:neighbours]
        share = np.exp(far) / np.exp(apart[position, around]).sum()
        expected.append(far if len(around) == 1 else (1 - share) * far)
    np.testing.assert_allclose(bank.scores(features), expected, rtol=1e-9)


def test_every_position_looked_at_lies_within_the_radius():
    features, labels = patches(1, n=60)
    bank = fit_scorer(MemoryBankSpec(items=25), features, labels)
    found = bank.distances(features[labels == 0]).max()
    assert found == pytest.approx(float(bank.radius), rel=1e-5)
    smaller = fit_scorer(MemoryBankSpec(items=10), features, labels)
    assert smaller.radius > bank.radius


def test_only_clean_patches_fill_the_bank():
    features, labels = patches(2)
    other = features.copy()
    other[labels != 0] += 100
    for spec in (BANK, DeviationSpec()):
        cut = np.s_[:, :1, :1] if isinstance(spec, DeviationSpec) else np.s_[:]
        one, two = (fit_scorer(spec, np.abs(each[cut]), labels) for each in (features, other))
        for name, array in arrays_of(one).items():
            np.testing.assert_array_equal(array, arrays_of(two)[name])


def test_a_sample_of_many_positions_is_drawn_from_the_seed():
    features, labels = patches(3, n=100)
    specs = [MemoryBankSpec(items=10, looked_at=50, seed=seed) for seed in (0, 0, 1)]
    one, same, other = (fit_scorer(spec, features, labels).items for spec in specs)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


# ---- errors ---------------------------------------------------------------------------------------------------


def test_a_deviation_counts_standard_deviations_of_the_logarithm():
    errors = np.exp(np.array([1.0, 3.0, 9.0, -5.0])).astype(np.float32).reshape(4, 1, 1)
    labels = np.array([0, 0, 1, -1], np.int8)
    np.testing.assert_allclose(
        fit_scorer(DeviationSpec(), errors, labels).scores(errors), [-1, 1, 7, -7], rtol=1e-6
    )
    both = fit_scorer(DeviationSpec(sides="both"), errors, labels)
    np.testing.assert_allclose(both.scores(errors), [1, 1, 7, 7], rtol=1e-6)
    assert np.isfinite(both.scores(np.zeros((1, 1, 1), np.float32))).all()


# ---- all of them ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=names)
@settings(max_examples=15)
@given(seed=seeds)
def test_company_and_order_change_no_bit(spec, seed):
    features, labels = features_for(spec, seed)
    scorer = fit_scorer(spec, features, labels)
    asked, _ = features_for(spec, seed + 1, n=11)
    together = scorer.scores(asked)
    order = np.random.default_rng(seed).permutation(11)
    np.testing.assert_array_equal(scorer.scores(asked[order]), together[order])
    np.testing.assert_array_equal(
        np.concatenate([scorer.scores(asked[i : i + n]) for i, n in ((0, 1), (1, 7), (8, 3))]), together
    )


@pytest.mark.parametrize("spec", SPECS, ids=names)
def test_arrays_make_the_same_scorer(spec):
    features, labels = features_for(spec, 0)
    scorer = fit_scorer(spec, features, labels)
    np.testing.assert_array_equal(scorer_of(spec, arrays_of(scorer)).scores(features), scorer.scores(features))
    with pytest.raises(InputError, match="has the arrays"):
        scorer_of(spec, {})


@pytest.mark.parametrize("spec", SPECS, ids=names)
def test_what_cannot_be_learned_or_scored_is_refused(spec):
    features, labels = features_for(spec, 0)
    scorer = fit_scorer(spec, features, labels)
    with pytest.raises(InputError, match="not those that were fitted"):
        scorer.scores(np.zeros((2, 3, 5), np.float32))
    with pytest.raises(InputError, match="do not belong together"):
        fit_scorer(spec, features, labels[1:])
    with pytest.raises(InputError, match=r"needs? some of both|no clean tissue"):
        fit_scorer(spec, features, np.ones_like(labels))


def test_a_feature_that_never_varies_says_nothing():
    features, labels = patches(4)
    features[:, :, 2] = 0.1
    for spec in SPECS[:3]:
        assert np.isfinite(fit_scorer(spec, features, labels).scores(features)).all()
