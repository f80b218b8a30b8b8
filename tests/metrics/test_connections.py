"""Agreement of two connectomes, against the textbook and scipy."""

from __future__ import annotations

from math import isnan
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from emloom.errors import InputError
from emloom.metrics.connections import ConnectionScores, Connectome, connection_scores, majority_match, matched
from emloom.metrics.contingency import Contingency, contingency

IDS = st.integers(1, 6)
ROWS = st.lists(st.tuples(IDS, IDS, st.integers(0, 40)), max_size=40)


def connectome(rows: list[tuple[int, int, int]]) -> Connectome:
    pre, post, weights = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    return Connectome.from_rows(pre, post, weights)


def as_dict(c: Connectome) -> dict[tuple[int, int], int]:
    return {(a, b): w for a, b, w in zip(c.pre.tolist(), c.post.tolist(), c.weights.tolist(), strict=True)}


def same(a: ConnectionScores, b: ConnectionScores) -> bool:
    return repr(a) == repr(b)


@settings(deadline=None)
@given(a=ROWS, b=ROWS, least=st.integers(1, 12))
def test_dictionaries_say_the_same(a: Any, b: Any, least: int) -> None:
    truth, found = connectome(a), connectome(b)
    scores = connection_scores(truth, found, least)
    tables = []
    for rows in (a, b):
        sums: dict[tuple[int, int], int] = {}
        for pre, post, w in rows:
            sums[pre, post] = sums.get((pre, post), 0) + w
        tables.append({edge: w for edge, w in sums.items() if w >= least})
    t, f = tables
    both = sorted(t.keys() & f.keys())
    assert (scores.tp, scores.fp, scores.fn) == (len(both), len(f) - len(both), len(t) - len(both))
    assert (scores.true_synapses, scores.found_synapses) == (sum(t.values()), sum(f.values()))
    assert scores.common_synapses == sum(min(t[e], f[e]) for e in both)
    assert scores.true_neurons == len({n for e in t for n in e})
    x, y = [t[e] for e in both], [f[e] for e in both]
    if len(both) > 1 and len(set(x)) > 1 and len(set(y)) > 1:
        assert scores.pearson == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)
        assert scores.spearman == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    else:
        assert isnan(scores.pearson)
        assert isnan(scores.spearman)
        assert scores.reason
    if both:
        assert scores.median_log2_ratio == pytest.approx(np.median(np.log2(np.array(y) / np.array(x))), abs=1e-12)


def test_an_example_counted_by_hand() -> None:
    truth = connectome([(1, 2, 10), (2, 3, 4), (3, 1, 1), (1, 3, 6)])
    found = connectome([(1, 2, 3), (1, 2, 2), (2, 3, 8), (3, 2, 5)])
    scores = connection_scores(truth, found, 2)
    assert (scores.tp, scores.fp, scores.fn) == (2, 1, 1)
    assert (scores.precision, scores.recall, scores.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert (scores.synapse_precision, scores.synapse_recall) == (9 / 18, 9 / 20)
    assert (scores.pearson, scores.spearman, scores.median_log2_ratio) == (-1, -1, 0)
    assert scores.reason is None


@settings(deadline=None)
@given(rows=ROWS, seed=st.integers(0, 1000))
def test_identical_connectomes_are_perfect_in_any_order_and_with_any_ids(rows: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = connectome(rows)
    mixed = [rows[i] for i in rng.permutation(len(rows))]
    scores = connection_scores(truth, connectome(mixed))
    if len(truth):
        assert (scores.precision, scores.recall, scores.f1, scores.median_log2_ratio) == (1, 1, 1, 0)
        assert (scores.synapse_precision, scores.synapse_recall) == (1, 1)
    assert scores.pearson == 1 or isnan(scores.pearson)
    new = rng.permutation(2**62 + np.arange(7))
    renamed = connectome([(int(new[a]), int(new[b]), w) for a, b, w in rows])
    assert same(connection_scores(renamed, renamed), scores)


def test_sums_are_exact() -> None:
    """2^60 and 1 are different weights, in sums and in correlations; float64 does not know."""
    truth = connectome([(1, 2, 2**60), (1, 3, 2**60 + 1), (2, 3, 2**60 + 2)])
    scores = connection_scores(truth, truth)
    assert scores.true_synapses == 3 * 2**60 + 3
    assert (scores.pearson, scores.spearman) == (1, 1)
    back = connection_scores(truth, connectome([(1, 2, 2**60 + 2), (1, 3, 2**60 + 1), (2, 3, 2**60)]))
    assert (back.pearson, back.spearman) == (-1, -1)


@pytest.mark.parametrize(
    ("truth", "found", "reason"),
    [
        ([], [(1, 2, 3)], "the truth has no edge"),
        ([(1, 2, 3)], [], "the result has no edge"),
        ([(1, 2, 3)], [(1, 2, 3)], "1 edges are in both: a correlation needs two"),
        ([(1, 2, 3), (1, 3, 3)], [(1, 2, 3), (1, 3, 4)], "common edges of the truth weigh the same"),
    ],
)
def test_what_is_not_defined_is_nan_with_a_reason(truth: Any, found: Any, reason: str) -> None:
    scores = connection_scores(connectome(truth), connectome(found))
    assert isnan(scores.pearson)
    assert reason in (scores.reason or "")
    assert isnan(scores.precision) == (not found)
    assert isnan(scores.recall) == (not truth)


def test_rows_without_weights_are_one_synapse_each() -> None:
    got = Connectome.from_rows(np.array([5, 5, 2], np.uint32), [1, 1, 0])
    assert as_dict(got) == {(5, 1): 2, (2, 0): 1}
    assert as_dict(got.without([0])) == {(5, 1): 2}
    assert as_dict(connectome([(1, 1, 4), (1, 2, 3)]).without_autapses()) == {(1, 2): 3}


# ---- matching neurons -------------------------------------------------------------------------------------------


def test_segments_become_neurons() -> None:
    found = connectome([(10, 20, 3), (11, 20, 4), (10, 30, 5), (30, 31, 6)])
    got = as_dict(matched(found, [10, 11, 20], [1, 1, 2]))
    top = 2**64 - 1
    assert got == {(1, 2): 7, (1, top): 5, (top, top - 1): 6}
    assert sum(got.values()) == found.synapses


@settings(deadline=None)
@given(rows=ROWS, seed=st.integers(0, 1000))
def test_matching_renamed_neurons_is_perfect(rows: Any, seed: int) -> None:
    truth = connectome(rows)
    new = np.random.default_rng(seed).permutation(7) + 100
    found = connectome([(int(new[a]), int(new[b]), w) for a, b, w in rows])
    assert as_dict(matched(found, new, np.arange(7))) == as_dict(truth)


def test_a_segment_goes_to_the_neuron_it_overlaps_most() -> None:
    truth = np.array([[[1, 1, 1, 2, 2, 0, 0, 3]]], np.uint64)
    segments = np.array([[[7, 7, 7, 7, 8, 8, 9, 0]]], np.uint64)
    assert [column.tolist() for column in majority_match(contingency(truth, segments))] == [[7, 8], [1, 2]]
    table = contingency(truth, segments, ignore_truth=())
    assert [column.tolist() for column in majority_match(table)] == [[7], [1]]
    assert majority_match(table, 0.8)[0].tolist() == []
    tie = Contingency.from_rows([5, 4], [1, 1], [3, 3])
    assert [column.tolist() for column in majority_match(tie)] == [[1], [4]]


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="columns have shapes"):
        Connectome.from_rows([1, 2], [1])
    with pytest.raises(InputError, match="weights hold -1"):
        Connectome.from_rows([1], [1], [-1])
    with pytest.raises(InputError, match="minimum weight 0 is below 1"):
        connection_scores(connectome([]), connectome([]), 0)
    with pytest.raises(InputError, match="10 occurs twice"):
        matched(connectome([(10, 20, 1)]), [10, 10], [1, 2])
    with pytest.raises(InputError, match=r"id of 2\^63 or more"):
        matched(connectome([(10, 20, 1)]), [10], np.array([2**63], np.uint64))
    with pytest.raises(InputError, match="minimum fraction 2 is no fraction"):
        majority_match(Contingency.from_rows([], [], []), 2)
