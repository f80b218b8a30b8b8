"""A forest as flat arrays says what scikit-learn's own says; broken tables are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier

from emloom.errors import InputError
from emloom.nn.forestfit import trees_of
from emloom.ops.forest import Trees, check_trees, class_shares, float32_below, joined
from emloom.ops.threads import Threads


def some_rows(seed: int, n: int = 400, features: int = 5) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    # Values repeat, so that many lie exactly on a threshold between two float32.
    rows = np.round(random.normal(size=(n, features)), 1).astype(np.float32)
    return rows, (rows[:, 0] > 0.3).astype(int) + (rows[:, 1] * rows[:, 2] > 0.1)


@pytest.mark.parametrize("weights", [None, "balanced"])
@pytest.mark.parametrize("kind", [RandomForestClassifier, ExtraTreesClassifier])
def test_shares_are_the_probabilities_of_scikit_learn(kind: Any, weights: str | None) -> None:
    rows, classes = some_rows(0, 1500)
    model = kind(30, class_weight=weights, random_state=1, min_samples_leaf=2).fit(rows, classes)
    trees = trees_of(model)
    check_trees(trees, 5, 3)
    others = np.concatenate([rows, some_rows(1, 700)[0]])
    found = class_shares(np.ascontiguousarray(others.T), trees)
    assert np.abs(found.T - model.predict_proba(others)).max() <= 1e-6
    assert np.allclose(found.sum(axis=0), 1, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), threads=st.integers(1, 4), n=st.integers(1, 900))
def test_neither_threads_nor_neighbours_change_a_bit(seed: int, threads: int, n: int) -> None:
    rows, classes = some_rows(seed % 7)
    trees = trees_of(RandomForestClassifier(5, random_state=0).fit(rows, classes))
    columns = np.ascontiguousarray(some_rows(seed, n)[0].T)
    with Threads(threads) as crew:
        found = class_shares(columns, trees, crew)
    one_by_one = [class_shares(np.ascontiguousarray(columns[:, v : v + 1]), trees) for v in range(0, n, 50)]
    assert np.array_equal(found[:, ::50], np.concatenate(one_by_one, axis=1))


@given(st.floats(-1e9, 1e9), st.floats(-(2.0**30), 2.0**30, width=32))
def test_a_rounded_threshold_parts_float32_as_the_exact_one(threshold: float, value: float) -> None:
    rounded = float32_below(np.array([threshold]))[0]
    assert (np.float32(value) <= rounded) == (value <= threshold)


def test_joined_trees_answer_with_their_mean() -> None:
    rows, classes = some_rows(3)
    forests = [trees_of(RandomForestClassifier(1, random_state=seed).fit(rows, classes)) for seed in range(3)]
    columns = np.ascontiguousarray(rows.T)
    mean = np.mean([class_shares(columns, each) for each in forests], axis=0)
    assert np.allclose(class_shares(columns, joined(forests)), mean, atol=1e-6)


def broken(trees: Trees, **changes: Any) -> Trees:
    return trees._replace(**{name: change(getattr(trees, name).copy()) for name, change in changes.items()})


def changed(place: Any, value: Any) -> Any:
    def change(array: Any) -> Any:
        array[place] = value
        return array

    return change


@pytest.mark.parametrize(
    "changes",
    [
        {"feature": changed(0, 5)},
        {"children": changed((0, 1), 10**6)},
        {"children": changed((0, 0), 0)},
        {"children": changed((-1, 0), -1)},
        {"roots": changed(0, -1)},
        {"roots": lambda roots: roots[:0]},
        {"shares": changed((0, 0), np.nan)},
        {"shares": lambda shares: shares[:, :2]},
        {"threshold": lambda threshold: threshold.astype(np.float64)},
        {"threshold": lambda threshold: threshold[:-1]},
    ],
)
def test_tables_that_would_lead_out_of_bounds_are_refused(changes: dict[str, Any]) -> None:
    rows, classes = some_rows(0)
    trees = trees_of(RandomForestClassifier(2, random_state=0).fit(rows, classes))
    check_trees(trees, 5, 3)
    with pytest.raises(InputError):
        check_trees(broken(trees, **changes), 5, 3)
