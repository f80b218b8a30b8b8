"""Sets of partners of pre sites: by hand, by brute force, and what is empty."""

from __future__ import annotations

from itertools import permutations
from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.metrics.partnerpairs import PartnerPairs
from emloom.metrics.polyads import Polyads, polyad_scores, polyads_of


def side(*polyads: tuple[float, int, set[int]], inside: bool = True) -> Polyads:
    """Return polyads of (place along x in nm, pre segment, partners)."""
    pre = np.array([(0, 0, x) for x, _, _ in polyads], float).reshape(-1, 3)
    segments = np.array([s for _, s, _ in polyads], np.uint64)
    return Polyads(pre, segments, tuple(frozenset(p) for _, _, p in polyads), np.full(len(polyads), inside))


def test_by_hand() -> None:
    truth = side((0, 1, {2, 3}), (1000, 1, {2}), (5000, 4, {5, 6, 7}))
    found = side((30, 1, {2, 9}), (1010, 1, {2}), (9000, 4, {5}))
    scores = polyad_scores(truth, found)
    assert (scores.tp, scores.fp, scores.fn) == (2, 1, 1)
    assert (scores.true_partners, scores.found_partners, scores.common_partners) == (6, 4, 2)
    assert (scores.set_precision, scores.set_recall, scores.set_f1) == (2 / 4, 2 / 6, 4 / 10)
    assert scores.exact == 1 / 3
    assert scores.mean_jaccard == pytest.approx((1 / 3 + 1) / 3)


def test_another_segment_or_a_longer_way_is_no_match() -> None:
    assert polyad_scores(side((0, 1, {2})), side((0, 2, {2}))).tp == 0
    assert polyad_scores(side((0, 1, {2})), side((401, 1, {2}))).tp == 0
    assert polyad_scores(side((0, 1, {2})), side((400, 1, {2}))).tp == 1
    assert polyad_scores(side((0, 1, {2})), side((0, 1, {2}), inside=False)).tp == 0


def test_what_is_empty_is_not_defined() -> None:
    some, none = side((0, 1, {2})), side()
    missed = polyad_scores(some, none)
    assert isnan(missed.set_precision)
    assert (missed.set_recall, missed.set_f1, missed.exact) == (0, 0, 0)
    assert missed.reason == "the result has no partner"
    assert isnan(polyad_scores(none, some).exact)
    assert isnan(polyad_scores(none, none).set_f1)
    assert polyad_scores(some, some).reason is None


polyad = st.tuples(
    st.integers(0, 8).map(lambda k: 100.0 * k), st.integers(1, 2), st.sets(st.integers(1, 5), min_size=1)
)


@given(st.lists(polyad, max_size=4), st.lists(polyad, max_size=4))
def test_matches_are_those_of_all_possible_ones(true, found) -> None:
    """Most matches, then the least sum of distances; sets are then compared as they are."""
    scores = polyad_scores(side(*true), side(*found), limit_nm=250)
    free = [*range(len(found)), *([None] * len(true))]
    costs: dict[float, set[int]] = {}
    for order in set(permutations(free, len(true))):
        pairs = [(i, j) for i, j in enumerate(order) if j is not None]
        if all(true[i][1] == found[j][1] and abs(true[i][0] - found[j][0]) <= 250 for i, j in pairs):
            cost = sum(abs(true[i][0] - found[j][0]) for i, j in pairs) - 500 * len(pairs)
            costs.setdefault(cost, set()).add(len(pairs))
    assert scores.tp in costs[min(costs)]
    assert scores.tp + scores.fn == len(true)
    assert scores.tp + scores.fp == len(found)
    assert scores.common_partners <= min(scores.true_partners, scores.found_partners)
    assert scores.true_partners == sum(len(p) for _, _, p in true)
    if true:
        same = polyad_scores(side(*true), side(*true))
        assert (same.set_f1, same.exact, same.mean_jaccard) == (1, 1, 1)


def test_polyads_of_pairs() -> None:
    pre = np.array([(0, 0, 0), (0, 0, 0), (0, 0, 50), (0, 0, 0)], float)
    pairs = PartnerPairs(pre, pre + 10)
    segments = np.array([(1, 2), (1, 2), (4, 5), (0, 0)], np.uint64)
    inside = np.array([True, True, True, False])
    made = polyads_of(pairs, np.array([7, 7, 9, 7], np.uint64), segments, inside)
    # Two contacts with one neuron are one partner; a post site outside is a partner that nobody has.
    assert made.partners == (frozenset({2, -4}), frozenset({5}))
    assert made.pre_segments.tolist() == [1, 4]
    assert made.inside.all()
    assert polyad_scores(made, made).set_f1 == 1
    with pytest.raises(InputError, match="rows of polyad 7 differ in their pre site"):
        polyads_of(pairs, np.array([7, 7, 7, 8], np.uint64), segments)
    with pytest.raises(InputError, match="do not fit 4 pairs"):
        polyads_of(pairs, np.array([7], np.uint64), segments)
