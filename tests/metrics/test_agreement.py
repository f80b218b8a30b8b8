"""Agreement: against scikit-learn, the bootstrap, the formula's derivative, and figures of the originals."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from emloom.errors import InputError
from emloom.geometry.patches import Labels
from emloom.metrics.agreement import agreement, common_rows, differences, pairwise_agreement
from tests.geometry.patchmaking import random_labels


def said(both: int, first: int, second: int, neither: int) -> tuple[Labels, Labels]:
    a = np.repeat([1, 1, 0, 0], [both, first, second, neither]).astype(np.int8)
    b = np.repeat([1, 0, 1, 0], [both, first, second, neither]).astype(np.int8)
    return a, b


def test_the_two_annotators_of_the_originals() -> None:
    """198 and 219 yes of 4275, 95 disagreements: hence 161 by both; kappa 0.76, P 0.81, R 0.74, Dice 0.77."""
    a, b = said(161, 37, 58, 4275 - 161 - 95)
    assert (int(a.sum()), int(b.sum())) == (198, 219)
    found = agreement(b, a)
    assert found.n_disagreements == 95
    assert round(found.kappa, 2) == 0.76
    assert (round(found.precision, 2), round(found.recall, 2), round(found.f1, 2)) == (0.81, 0.74, 0.77)
    assert found.low < found.kappa < found.high


@given(*[st.integers(0, 30)] * 4)
def test_kappa_is_that_of_scikit_learn(both: int, first: int, second: int, neither: int) -> None:
    a, b = said(both, first, second, neither)
    found = agreement(a, b)
    constant = a.size == 0 or (np.unique(np.concatenate([a, b])).size == 1)
    assert isnan(found.kappa) == constant
    assert bool(found.reason) == constant
    if not constant:
        assert found.kappa == pytest.approx(sk.cohen_kappa_score(a, b), abs=1e-12)
        assert -1 <= found.low <= found.kappa <= found.high <= 1
        swapped = agreement(b, a)
        assert swapped.kappa == found.kappa
        assert swapped.low == pytest.approx(found.low, abs=1e-12)
        assert (swapped.precision, swapped.recall) == (found.recall, found.precision)


@pytest.mark.parametrize("counts", [(161, 37, 58, 4019), (40, 9, 5, 46), (88, 10, 14, 88), (5, 60, 70, 9)])
def test_the_standard_error_is_that_of_the_delta_method(counts: tuple[int, int, int, int]) -> None:
    """Kappa's gradient, taken numerically, in the covariance of a multinomial."""
    n = sum(counts)
    p = np.array(counts) / n

    def kappa(q: np.ndarray) -> float:
        chance = (q[0] + q[1]) * (q[0] + q[2]) + (q[2] + q[3]) * (q[1] + q[3])
        return float((q[0] + q[3] - chance) / (1 - chance))

    steps = 1e-6 * np.eye(4)
    gradient = np.array([(kappa(p + s) - kappa(p - s)) / 2e-6 for s in steps])
    error = np.sqrt(gradient @ (np.diag(p) - np.outer(p, p)) @ gradient / n)
    found = agreement(*said(*counts))
    assert (found.high - found.low) / 2 == pytest.approx(1.959963984540054 * error, rel=1e-5)


@given(st.integers(0, 10**6))
def test_unknowns_do_not_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-1, 2, (2, 50)).astype(np.int8)
    known = (a >= 0) & (b >= 0)
    assert agreement(a, b) == agreement(a[known], b[known])
    assert agreement(a, b).n == known.sum()


@given(st.integers(0, 10**6))
def test_pairs_are_of_the_patches_both_judged(seed: int) -> None:
    labels = random_labels(seed, 80, span=2)
    for found in pairwise_agreement(labels, "myelin"):
        words = [
            {tuple(s): v for s, v in zip(part.starts.tolist(), part.of("myelin").tolist(), strict=True)}
            for part in (labels.by(found.first), labels.by(found.second))
        ]
        pairs = [(v, words[1].get(s, -1)) for s, v in words[0].items()]
        assert found.both_yes == pairs.count((1, 1))
        assert found.first_only == pairs.count((1, 0))
        assert found.second_only == pairs.count((0, 1))
        assert found.both_no == pairs.count((0, 0))


@given(st.integers(0, 10**6))
def test_differences_are_all_and_only_those(seed: int) -> None:
    labels = random_labels(seed, 60, span=2)
    a, b = labels.by("A"), labels.by("B")
    found = differences(a, b)
    one, two = (
        {tuple(s): v for s, v in zip(part.starts.tolist(), part.labels.tolist(), strict=True)} for part in (a, b)
    )
    expected = {
        (s, name, one[s][c], two[s][c])
        for s in one.keys() & two.keys()
        for c, name in enumerate(labels.classes)
        if one[s][c] != two[s][c]
    }
    rows = zip(
        map(tuple, found.starts.tolist()),
        found.classes.tolist(),
        found.first.tolist(),
        found.second.tolist(),
        strict=True,
    )
    assert set(rows) == expected
    assert {tuple(s) for s in found.only_first.tolist()} == one.keys() - two.keys()
    assert {tuple(s) for s in found.only_second.tolist()} == two.keys() - one.keys()
    assert {len(c) for c in found.columns().values()} == {len(expected) + len(one.keys() ^ two.keys())}
    assert not len(differences(a, a).starts)


def test_what_cannot_be_compared_is_refused() -> None:
    labels = random_labels(0, 60, span=2)
    a = labels.by("A")
    with pytest.raises(InputError, match="has a patch twice"):
        differences(labels, a)
    with pytest.raises(InputError, match="no class is in both"):
        differences(a, replace(a, classes=("crack", "fold")))
    with pytest.raises(InputError, match="one shape"):
        differences(a, replace(a, shape=(1, 5, 5)))
    with pytest.raises(InputError, match="between 0 and 1"):
        agreement(a.of("debris"), a.of("debris"), level=1)


@given(st.integers(0, 10**6))
def test_common_rows_are_the_same_patches(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.permutation(np.unique(rng.integers(0, 3, (n, 3)), axis=0)) for n in (12, 20))
    rows_a, rows_b = common_rows(a, b)
    assert np.array_equal(a[rows_a], b[rows_b])
    assert len(rows_a) == len({*map(tuple, a.tolist())} & {*map(tuple, b.tolist())})
