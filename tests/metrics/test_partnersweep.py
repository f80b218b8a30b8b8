"""Thresholds of scores: every point is the matching of what is kept, and the best is the best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.metrics.partnerpairs import PartnerPairs
from emloom.metrics.partners import PartnerOptions, match_pairs
from emloom.metrics.partnersweep import FoundPairs, f_beta, partner_sweep, thresholds_of


def scene(seed: int, n_true: int, n_found: int):
    rng = np.random.default_rng(seed)
    truth, found = (PartnerPairs(*rng.uniform(0, 900, (2, n, 3))) for n in (n_true, n_found))
    segments = [rng.integers(1, 3, (n, 2)).astype(np.uint64) for n in (n_true, n_found)]
    scores = rng.integers(0, 6, n_found).astype(np.float32) / 5
    return truth, segments[0], FoundPairs(found, segments[1], scores, rng.random(n_found) < 0.9)


@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(0, 12), st.sampled_from([0.5, 1.0, 2.0]))
def test_every_point_is_a_matching_of_its_own(seed, n_true, n_found, beta) -> None:
    truth, segments, found = scene(seed, n_true, n_found)
    options = PartnerOptions(drop_autapses=bool(seed % 2))
    sweep = partner_sweep(truth, segments, found, options, beta=beta)
    assert [p.threshold for p in sweep.points] == (sorted(set(found.scores.tolist())) or [0.0])
    for point in sweep.points:
        keep = np.flatnonzero(found.scores >= point.threshold)
        pairs = PartnerPairs(found.pairs.pre_nm[keep], found.pairs.post_nm[keep])
        alone = match_pairs(
            truth, pairs, segments, found.segments[keep], inside=found.inside[keep], options=options
        )
        assert (point.tp, point.fp, point.fn) == (alone.tp, alone.fp, alone.fn)
        assert (point.precision, point.recall) == (alone.precision, alone.recall)
        if point.tp:
            p, r = point.precision, point.recall
            assert point.fbeta == pytest.approx(1 / ((1 / p + beta**2 / r) / (1 + beta**2)))
    assert sweep.chosen.fbeta == max(p.fbeta for p in sweep.points)
    # A lower threshold never finds fewer.
    assert [p.tp for p in sweep.points] == sorted((p.tp for p in sweep.points), reverse=True)


def test_beta_weighs_recall() -> None:
    assert f_beta(1.0, 0.5, 2.0) < f_beta(1.0, 0.5) < f_beta(1.0, 0.5, 0.5)
    assert f_beta(0.0, 0.0) == 0.0
    assert f_beta(0.3, 0.3, 7.0) == pytest.approx(0.3)
    for beta in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="beta"):
            f_beta(1.0, 1.0, beta)


def test_thresholds_keep_both_ends() -> None:
    scores = np.random.default_rng(0).random(1000)
    few = thresholds_of(scores, 11)
    assert len(few) == 11
    assert (few[0], few[-1]) == (scores.min(), scores.max())
    assert set(few.tolist()) <= set(scores.tolist())
    assert thresholds_of([0.5, 0.5, 0.2]).tolist() == [0.2, 0.5]
    with pytest.raises(InputError, match="no sweep"):
        thresholds_of(scores, 1)


def test_bad_input() -> None:
    truth, segments, found = scene(0, 2, 3)
    with pytest.raises(InputError, match="do not fit 3 found pairs"):
        FoundPairs(found.pairs, found.segments[:2], found.scores, found.inside)
    with pytest.raises(InputError, match="a score is not finite"):
        FoundPairs(found.pairs, found.segments, np.array([0.1, np.nan, 0.2]), found.inside)
    with pytest.raises(InputError, match="a threshold is NaN"):
        partner_sweep(truth, segments, found, thresholds=[0.1, float("nan")])
