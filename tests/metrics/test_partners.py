"""Partner matching against CREMI's one matrix over all pairs, filled up with 800 nm."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from math import floor, isnan
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.metrics.partnerpairs import PartnerPairs, segments_of
from emloom.metrics.partners import PartnerOptions, PartnerScores, match_pairs, mean_fscore, partner_scores

GRID = Grid((40, 4, 4))
SEEDS = st.integers(0, 2**32 - 1)


def costs(t: PartnerPairs, f: PartnerPairs, ts: np.ndarray, fs: np.ndarray) -> np.ndarray:
    """cremi_python's matrix, pair by pair."""
    n = max(len(t), len(f))
    matrix = np.full((n, n), 800.0)
    for i in range(len(t)):
        for j in range(len(f)):
            pre = np.sqrt(sum((t.pre_nm[i] - f.pre_nm[j]) ** 2))
            post = np.sqrt(sum((t.post_nm[i] - f.post_nm[j]) ** 2))
            if ts[i].tolist() == fs[j].tolist() and pre <= 400 and post <= 400:
                matrix[i, j] = (pre + post) / 2
    return matrix


def reference(t: PartnerPairs, f: PartnerPairs, ts: np.ndarray, fs: np.ndarray) -> tuple[int, float]:
    matrix = costs(t, f, ts, fs)
    chosen = matrix[linear_sum_assignment(matrix)]
    kept = chosen[chosen <= 400]
    return len(kept), float(kept.sum())


def scene(seed: int) -> tuple[PartnerPairs, PartnerPairs, np.ndarray]:
    """True pairs in a segmentation of few segments; found ones are some of them, shaken, and some invented."""
    rng = np.random.default_rng(seed)
    segments = np.kron(rng.integers(0, 3, (3, 4, 4)), np.ones((8, 60, 60))).astype(np.uint64)
    top = np.array(segments.shape) * (40, 4, 4) - 30.0
    n, kept, invented = (int(v) for v in rng.integers(0, 25, 3))
    truth = PartnerPairs(rng.uniform(0, top, (n, 3)), rng.uniform(0, top, (n, 3)))
    rows = rng.integers(0, n, kept) if n else []
    sides = []
    for points in (truth.pre_nm, truth.post_nm):
        shaken = points[rows] + rng.normal(0, 120, (len(rows), 3))
        sides.append(np.vstack([shaken, rng.uniform(0, top, (invented, 3))]).clip(0, top - 4))
    return truth, PartnerPairs(*sides), segments


@settings(deadline=None, max_examples=60)
@given(seed=SEEDS)
def test_groups_match_as_the_whole_matrix_does(seed: int) -> None:
    truth, found, segments = scene(seed)
    scores = partner_scores(truth, found, segments, GRID)
    ts, fs = segments_of(truth, segments, GRID)[0], segments_of(found, segments, GRID)[0]
    tp, total = reference(truth, found, ts, fs)
    assert (scores.tp, scores.fp, scores.fn) == (tp, len(found) - tp, len(truth) - tp)
    assert scores.cost_nm == pytest.approx(total)
    # The rows say the same: every pair once, in allowed matches, and their costs add up.
    t, f = scores.matches[:, 0], scores.matches[:, 1]
    assert sorted([*t, *scores.missed]) == list(range(len(truth)))
    assert sorted([*f, *scores.invented]) == list(range(len(found)))
    assert costs(truth, found, ts, fs)[t, f].sum() == pytest.approx(total)


def test_a_crowd_in_one_group() -> None:
    """30 against 30 within reach of each other: one Hungarian problem; compared with the whole matrix."""
    rng = np.random.default_rng(1)
    truth, found = (PartnerPairs(*rng.uniform(0, 300, (2, 30, 3))) for _ in range(2))
    same = np.ones((30, 2), np.uint64)
    scores = match_pairs(truth, found, same, same)
    assert (scores.tp, scores.cost_nm) == pytest.approx(reference(truth, found, same, same))


@pytest.mark.parametrize("seed", range(20))
def test_the_matching_is_the_cheapest_of_all(seed: int) -> None:
    """Every assignment of four pairs tried one by one."""
    rng = np.random.default_rng(seed)
    truth, found = (PartnerPairs(*rng.uniform(0, 600, (2, 4, 3))) for _ in range(2))
    ts, fs = rng.integers(1, 3, (2, 4, 2)).astype(np.uint64)
    matrix = costs(truth, found, ts, fs)
    best = min(sum(matrix[i, p[i]] for i in range(4)) for p in permutations(range(4)))
    scores = match_pairs(truth, found, ts, fs)
    assert scores.cost_nm + 800 * (4 - scores.tp) == pytest.approx(best)


def test_an_example_counted_by_hand() -> None:
    """Of four found pairs one is near, one far but near enough, one in other segments, one again the first."""
    segments = np.ones((10, 10, 400), np.uint64)
    segments[..., 200:] = 2
    truth = PartnerPairs([[0, 0, 0], [360, 0, 0]], [[0, 0, 1200], [360, 0, 1200]])
    found = PartnerPairs(
        [[40, 0, 0], [360, 0, 0], [360, 0, 0], [0, 0, 0]],
        [[0, 0, 1260], [360, 0, 1590], [360, 0, 700], [0, 0, 1204]],
    )
    scores = partner_scores(truth, found, segments, GRID)
    # Row 1 matches true pair 1 (390 nm), row 3 beats row 0 for true pair 0 (2 nm against 50).
    assert scores.matches.tolist() == [[0, 3], [1, 1]]
    assert (scores.invented.tolist(), scores.missed.tolist(), scores.cost_nm) == ([0, 2], [], 2 + 195)
    assert (scores.precision, scores.recall, scores.fscore, scores.reason) == (0.5, 1, 2 / 3, None)


def test_the_limit_itself_is_near_enough() -> None:
    same = np.ones((1, 2), np.uint64)
    truth = PartnerPairs([[0, 0, 0]], [[0, 0, 0]])
    for distance, tp in ((400.0, 1), (np.nextafter(400.0, 500), 0)):
        found = PartnerPairs([[0, 0, 0]], [[0, distance, 0]])
        assert match_pairs(truth, found, same, same).tp == tp
    assert match_pairs(truth, found, same, same, options=PartnerOptions(limit_nm=500)).tp == 1


def test_the_limit_is_for_each_site_and_not_for_their_mean() -> None:
    same = np.ones((1, 2), np.uint64)
    truth, found = PartnerPairs([[0, 0, 0]], [[0, 0, 0]]), PartnerPairs([[0, 0, 0]], [[0, 0, 401]])
    assert match_pairs(truth, found, same, same).tp == 0


# ---- laws -------------------------------------------------------------------------------------------------------


def numbers(scores: PartnerScores) -> tuple[Any, ...]:
    return scores.tp, scores.fp, scores.fn, scores.fscore, pytest.approx(scores.cost_nm)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS)
def test_ids_and_order_do_not_matter(seed: int) -> None:
    truth, found, segments = scene(seed)
    rng = np.random.default_rng(seed)
    new = rng.permutation(np.array([5, 0, 2**63 - 1], np.uint64))
    order = rng.permutation(len(found))
    before = partner_scores(truth, found, segments, GRID)
    mixed = PartnerPairs(found.pre_nm[order], found.post_nm[order])
    after = partner_scores(truth, mixed, new[segments.astype(int)], GRID)
    assert numbers(before) == numbers(after)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS)
def test_identical_pairs_are_perfect(seed: int) -> None:
    truth, _, segments = scene(seed)
    scores = partner_scores(truth, truth, segments, GRID)
    assert (scores.tp, scores.fp, scores.fn, scores.cost_nm) == (len(truth), 0, 0, 0)
    assert (scores.precision, scores.recall, scores.fscore) == (1, 1, 1)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, by=st.tuples(*[st.integers(-(10**5), 10**5)] * 3))
def test_moving_the_world_changes_nothing(seed: int, by: tuple[int, int, int]) -> None:
    truth, found, segments = scene(seed)
    # Whole nm: their differences are the same floats wherever the world lies.
    truth, found = (PartnerPairs(np.round(p.pre_nm), np.round(p.post_nm)) for p in (truth, found))
    moved = [PartnerPairs(p.pre_nm + by, p.post_nm + by) for p in (truth, found)]
    before = partner_scores(truth, found, segments, GRID)
    after = partner_scores(*moved, segments, Grid(GRID.voxel_size_nm, by))
    assert before.matches.tolist() == after.matches.tolist()
    assert before.cost_nm == after.cost_nm


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3), max_size=20))
def test_sites_are_looked_up_as_python_2_rounds(parts: list[tuple[float, ...]]) -> None:
    shape = (5, 7, 9)
    segments = np.arange(5 * 7 * 9, dtype=np.uint64).reshape(shape)
    points = np.array(parts).reshape(-1, 3) * (np.array(shape) - 0.6) * (40, 4, 4)
    got, inside = segments_of(PartnerPairs(points, points), segments, GRID)
    for point, pair in zip(points.tolist(), got.tolist(), strict=True):
        z, y, x = (floor(p / s + 0.5) for p, s in zip(point, (40, 4, 4), strict=True))
        assert pair == [segments[z, y, x]] * 2
    assert inside.all()


def test_half_a_voxel_rounds_up() -> None:
    segments = np.arange(4, dtype=np.uint64).reshape(1, 1, 4)
    points = [[0, 0, 2], [0, 0, 6], [0, 0, 5.9], [0, -2, 0]]
    assert segments_of(PartnerPairs(points, points), segments, GRID)[0][:, 0].tolist() == [1, 2, 1, 0]


# ---- nothing, and bad input -------------------------------------------------------------------------------------

NONE = PartnerPairs(np.zeros((0, 3)), np.zeros((0, 3)))
ONE = PartnerPairs([[0, 0, 0]], [[40, 4, 4]])
SEGMENTS = np.ones((3, 5, 5), np.uint64)


@pytest.mark.parametrize(
    ("truth", "found", "ratios", "reason"),
    [
        (NONE, ONE, (0, 1, 0), "nothing to find"),
        (ONE, NONE, (1, 0, 0), "nothing was found"),
        (NONE, NONE, (1, 1, 1), "nothing was found"),
    ],
)
def test_nothing_is_defined(
    truth: PartnerPairs, found: PartnerPairs, ratios: tuple[float, ...], reason: str
) -> None:
    scores = partner_scores(truth, found, SEGMENTS, GRID)
    assert (scores.precision, scores.recall, scores.fscore) == ratios
    assert (scores.tp, scores.fp, scores.fn) == (0, len(found), len(truth))
    assert reason in (scores.reason or "")


def test_no_match_is_an_fscore_of_0() -> None:
    far = PartnerPairs([[0, 0, 0]], [[80, 16, 16]])
    scores = partner_scores(ONE, far, SEGMENTS, GRID, PartnerOptions(limit_nm=10))
    assert (scores.precision, scores.recall, scores.fscore, scores.reason) == (0, 0, 0, None)


def test_samples_are_averaged() -> None:
    perfect = partner_scores(ONE, ONE, SEGMENTS, GRID)
    assert mean_fscore([perfect, replace(perfect, fscore=0.5)]) == 0.75
    assert isnan(mean_fscore([]))


def test_a_site_outside_is_refused_or_a_false_positive() -> None:
    out = PartnerPairs([[0, 0, 0], [0, 0, 0]], [[40, 4, 4], [40, 4, 18]], source="result.h5")
    with pytest.raises(
        InputError, match=r"result\.h5: the post site of pair 1 lies at \(40.0, 4.0, 18.0\) nm, voxel"
    ):
        partner_scores(ONE, out, SEGMENTS, GRID)
    scores = partner_scores(ONE, out, SEGMENTS, GRID, PartnerOptions(outside="unmatched"))
    assert (scores.tp, scores.fp, scores.invented.tolist()) == (1, 1, [1])
    with pytest.raises(InputError, match="the post site of pair 1"):
        partner_scores(out, ONE, SEGMENTS, GRID, PartnerOptions(outside="unmatched"))


def test_pairs_that_cannot_match_do_not_take_a_match_away() -> None:
    """Outside, at the very place of a true pair of segment 0: still no match."""
    zeros = np.zeros((1, 2), np.uint64)
    inside = np.array([False])
    assert match_pairs(ONE, ONE, zeros, zeros).tp == 1
    assert match_pairs(ONE, ONE, zeros, zeros, inside=inside).tp == 0


SITES: dict[str, Any] = {
    "ids": np.array([7, 2**63, 3], np.uint64),
    "locations_nm": [[0, 0, 0], [1, 1, 1], [2, 2, 2]],
    "partners": [[3, 7], [2**63, 7]],
}


def test_sites_are_joined_by_id() -> None:
    sites = {**SITES, "partners": np.array(SITES["partners"], np.uint64)}
    pairs = PartnerPairs.from_sites(**sites)
    assert (pairs.pre_nm[:, 0].tolist(), pairs.post_nm[:, 0].tolist()) == ([2, 1], [0, 0])
    assert len(PartnerPairs.from_sites([], [], [])) == 0
    assert len(PartnerPairs.from_sites(**{**sites, "partners": []})) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": [7, 7, 3]}, "the site 7 stands twice"),
        ({"ids": [7, 8]}, r"ids of shape \(2,\) and 3 locations"),
        ({"ids": [7, -1, 3]}, "hold -1"),
        ({"partners": [[3, 4]]}, "partners name the site 4, which does not exist"),
        ({"ids": [], "locations_nm": [], "partners": [[3, 4]]}, "partners name the site 3"),
        ({"partners": [3, 7]}, r"partners have shape \(2,\)"),
        (
            {"partners": [[3, 7]], "locations_nm": [[0, 0, 0], [1, 1, 1], [np.nan, 2, 2]]},
            r"the pre site of pair 0",
        ),
        ({"locations_nm": np.zeros((3, 2))}, r"locations have shape \(3, 2\)"),
    ],
)
def test_bad_sites_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PartnerPairs.from_sites(**{**SITES, "partners": [[3, 7]], **change}, source="result.h5")


def test_other_bad_input_is_named() -> None:
    with pytest.raises(InputError, match="has 1 pre and 0 post positions"):
        PartnerPairs([[0, 0, 0]], [])
    with pytest.raises(InputError, match="segments are int64"):
        partner_scores(ONE, ONE, SEGMENTS.astype(np.int64), GRID)
    with pytest.raises(InputError, match="segments have shapes"):
        match_pairs(ONE, ONE, np.ones((1, 2), np.uint64), np.ones((2, 2), np.uint64))
    with pytest.raises(InputError, match="limit_nm -1"):
        PartnerOptions(limit_nm=-1)
    with pytest.raises(InputError, match="outside 'keep' is unknown"):
        PartnerOptions(outside="keep")  # type: ignore[arg-type]


# ---- options ----------------------------------------------------------------------------------------------------


def test_autapses_count_unless_dropped() -> None:
    segments = np.array([[1, 2], [2, 2], [1, 2]], np.uint64)
    found = PartnerPairs(np.zeros((3, 3)), np.zeros((3, 3)))
    truth = PartnerPairs(np.zeros((1, 3)), np.zeros((1, 3)))
    assert match_pairs(truth, found, segments[:1], segments).fp == 2
    dropped = match_pairs(truth, found, segments[:1], segments, options=PartnerOptions(drop_autapses=True))
    assert (dropped.tp, dropped.fp, dropped.dropped.tolist()) == (1, 1, [1])


def test_redundant_pairs_are_chains_of_near_post_sites_between_the_same_segments() -> None:
    post = np.zeros((6, 3))
    post[:, 2] = [0, 90, 180, 400, 10, 0]  # 0 - 90 - 180 is a chain; 400 is alone; the fifth is of other segments
    segments = np.array([[1, 2]] * 4 + [[1, 3]] + [[1, 2]], np.uint64)
    found = PartnerPairs(np.zeros((6, 3)), post)
    options = PartnerOptions(redundant_nm=100)
    scores = match_pairs(found, found, segments, segments, options=options)
    assert scores.dropped.tolist() == [1, 2, 5]
    assert (scores.tp, scores.fp, scores.fn) == (3, 0, 3)
    assert match_pairs(found, found, segments, segments).dropped.size == 0


# ---- real data --------------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_pairs_across_real_borders(real_data: Path) -> None:
    """Pairs between face neighbours of a real segmentation, shaken by up to 30 nm: some change neurons."""
    path = real_data / "fib25/trvol2_250.h5"
    if not path.is_file():
        pytest.skip(f"{path} is not there: see the README of the real data")
    with h5py.File(path) as h5:
        segments = h5["volumes/labels/neuron_ids"][:80, :80, :80].astype(np.uint64)
    rng = np.random.default_rng(0)
    border = np.argwhere((segments[..., :-1] != segments[..., 1:]) & (segments[..., :-1] != 0))
    at = border[rng.choice(len(border), 150, replace=False)].astype(float) * 10
    truth = PartnerPairs(at, at + np.array([0, 0, 10]))
    shaken = [(p + rng.uniform(-30, 30, p.shape)).clip(0, 789) for p in (truth.pre_nm, truth.post_nm)]
    found, grid = PartnerPairs(*shaken), Grid((10, 10, 10))
    scores = partner_scores(truth, found, segments, grid)
    ts, fs = segments_of(truth, segments, grid)[0], segments_of(found, segments, grid)[0]
    tp, total = reference(truth, found, ts, fs)
    assert (scores.tp, scores.cost_nm) == (tp, pytest.approx(total))
    assert 0 < tp < 150
