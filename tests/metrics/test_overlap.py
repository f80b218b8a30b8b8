"""Overlap scores: definitions by hand, parity with scikit-image, laws, and published numbers of real data."""

from __future__ import annotations

from fractions import Fraction
from math import log2
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import skimage.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.metrics.contingency import Contingency, contingency
from emloom.metrics.overlap import (
    SweepPoint,
    best_threshold,
    border_mask,
    overlap_scores,
    sweep,
    worst_objects,
)


def random_pair(seed: int, ids: int = 9) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, ids, (6, 7, 8)).astype(np.uint64)
    # Correlated, so that scores are neither perfect nor pure noise.
    noise = rng.integers(0, ids, truth.shape).astype(np.uint64)
    return truth, np.where(rng.random(truth.shape) < 0.7, truth // np.uint64(2), noise)


def test_a_split_in_half_costs_one_bit() -> None:
    scores = overlap_scores(Contingency.from_rows([1, 1], [1, 2], [8, 8]))
    assert (scores.voi_split, scores.voi_merge, scores.voi_sum) == (1.0, 0.0, 1.0)
    assert scores.rand_split == (64 + 64) / 256
    assert scores.rand_merge == 1.0
    assert scores.adapted_rand_error == 1 / 3
    assert scores.adapted_rand_error_pairs == pytest.approx(1 - 2 * (2 * 8 * 7) / (16 * 15 + 2 * 8 * 7), abs=1e-15)
    assert (scores.n_voxels, scores.n_truth, scores.n_segments) == (16, 1, 2)


def test_a_merge_is_a_split_seen_from_the_other_side() -> None:
    split = overlap_scores(Contingency.from_rows([1, 1], [1, 2], [3, 5]))
    merge = overlap_scores(Contingency.from_rows([1, 2], [1, 1], [3, 5]))
    assert (merge.voi_merge, merge.voi_split) == (split.voi_split, split.voi_merge)
    assert (merge.rand_merge, merge.rand_split) == (split.rand_split, split.rand_merge)
    assert merge.adapted_rand_error == split.adapted_rand_error
    assert split.voi_split == pytest.approx(-(3 / 8 * log2(3 / 8) + 5 / 8 * log2(5 / 8)), abs=1e-15)


def test_split_and_merge_together() -> None:
    # truth 1 = 6 voxels: 4 in a, 2 in b; truth 2 = 2 voxels, both in b.
    table = Contingency.from_rows([1, 1, 2], [10, 20, 20], [4, 2, 2])
    scores = overlap_scores(table)
    assert scores.voi_split == pytest.approx((4 * log2(6 / 4) + 2 * log2(6 / 2)) / 8, abs=1e-15)
    assert scores.voi_merge == pytest.approx((2 * log2(4 / 2) + 2 * log2(4 / 2)) / 8, abs=1e-15)
    assert scores.adapted_rand_error == pytest.approx(1 - 2 * 24 / (40 + 32), abs=1e-15)
    assert scores.cremi_score == pytest.approx((scores.voi_sum * scores.adapted_rand_error) ** 0.5)


@given(st.integers(0, 10**6), st.booleans())
@settings(deadline=None, max_examples=25)
def test_parity_with_scikit_image(seed: int, ignore_background: bool) -> None:
    truth, segmentation = random_pair(seed)
    ignored = (0,) if ignore_background else ()
    scores = overlap_scores(contingency(truth, segmentation, ignore_truth=ignored))
    t, s = truth.astype(np.int64), segmentation.astype(np.int64)
    # scikit-image ignores labels of its first image and returns H(second | first), H(first | second).
    split, merge = skimage.metrics.variation_of_information(t, s, ignore_labels=ignored)
    error, _, _ = skimage.metrics.adapted_rand_error(t, s, ignore_labels=ignored)
    assert scores.voi_split == pytest.approx(split, abs=1e-9)
    assert scores.voi_merge == pytest.approx(merge, abs=1e-9)
    assert scores.adapted_rand_error_pairs == pytest.approx(error, abs=1e-9)


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_renaming_ids_changes_no_bit(seed: int) -> None:
    truth, segmentation = random_pair(seed)
    rng = np.random.default_rng(seed)
    new_truth = np.r_[0, rng.permutation(10**6)[:9] + 1].astype(np.uint64) << np.uint64(30)
    new_segments = rng.permutation(10**6)[:10].astype(np.uint64)
    renamed = contingency(new_truth[truth], new_segments[segmentation])
    assert overlap_scores(renamed) == overlap_scores(contingency(truth, segmentation))


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=40)
def test_bounds_and_perfection(seed: int) -> None:
    truth, segmentation = random_pair(seed)
    scores = overlap_scores(contingency(truth, segmentation))
    assert scores.voi_split >= 0
    assert scores.voi_merge >= 0
    assert 0 <= scores.adapted_rand_error <= 1
    perfect = overlap_scores(contingency(truth, truth * np.uint64(7)))
    assert (perfect.voi_sum, perfect.adapted_rand_error, perfect.adapted_rand_error_pairs) == (0, 0, 0)
    assert (perfect.rand_split, perfect.rand_merge) == (1, 1)


@given(st.integers(0, 10**6))
def test_normalised_information_by_its_definition(seed: int) -> None:
    table = contingency(*random_pair(seed), ignore_truth=())
    joint = table.counts / table.n_voxels
    truth, segments = (sizes / table.n_voxels for _, sizes in (table.truth_sizes(), table.segment_sizes()))
    h_joint, h_truth, h_segments = (-float((p * np.log2(p)).sum()) for p in (joint, truth, segments))
    scores = overlap_scores(table)
    information = h_truth + h_segments - h_joint
    assert scores.nvi == pytest.approx((2 * h_joint - h_truth - h_segments) / h_joint, abs=1e-12)
    assert scores.nid == pytest.approx(1 - information / max(h_truth, h_segments), abs=1e-12)


@pytest.mark.parametrize("objects", [1, 5])
def test_normalised_information_of_identical_segmentations_is_0(objects: int) -> None:
    ids = np.arange(1, objects + 1)
    scores = overlap_scores(Contingency.from_rows(ids, ids, ids * 7))
    assert (scores.nvi, scores.nid) == (0.0, 0.0)


def test_lone_voxels_agree() -> None:
    assert overlap_scores(Contingency.from_rows([1, 2], [3, 4], [1, 1])).adapted_rand_error_pairs == 0


def test_counts_beyond_float_precision_stay_exact() -> None:
    big = 4_000_000_000
    # Doubles would lose the two single voxels beside squares of 1.6e19, which also leave uint64 when summed.
    n = [big, big, 1, big + 1]
    table = Contingency.from_rows([1, 1, 2, 2], [1, 2, 2, 3], n)
    scores = overlap_scores(table)
    nn = sum(v * v for v in n)
    aa = (2 * big) ** 2 + (big + 2) ** 2
    bb = big**2 + (big + 1) ** 2 + (big + 1) ** 2
    assert scores.adapted_rand_error == float(1 - Fraction(2 * nn, aa + bb))
    assert scores.rand_split == float(Fraction(nn, aa))
    assert scores.n_voxels == sum(n)
    # Every count scaled alike: entropies do not change.
    small = overlap_scores(Contingency.from_rows([1, 1, 2], [1, 2, 2], [3, 1, 2]))
    large = overlap_scores(Contingency.from_rows([1, 1, 2], [1, 2, 2], [3 << 50, 1 << 50, 2 << 50]))
    assert large.voi_split == pytest.approx(small.voi_split, abs=1e-12)
    assert large.adapted_rand_error == small.adapted_rand_error


def test_nothing_to_score_is_an_error() -> None:
    with pytest.raises(InputError, match="no voxel to score"):
        overlap_scores(Contingency.from_rows([], [], []))


def test_merging_fragments_lowers_split_and_raises_merge() -> None:
    truth, _ = random_pair(5)
    fragments = np.arange(truth.size, dtype=np.uint64).reshape(truth.shape) // np.uint64(5)
    table = contingency(truth, fragments)
    keys = np.unique(fragments)
    steps = sweep(table, [(-float(k), keys, keys // np.uint64(k)) for k in (1, 2, 4, 8, 1000)])
    splits = [p.scores.voi_split for p in steps]
    merges = [p.scores.voi_merge for p in steps]
    assert splits == sorted(splits, reverse=True)
    assert merges == sorted(merges)
    assert (steps[-1].scores.voi_split, steps[-1].scores.n_segments) == (0, 1)


def test_the_sweep_scores_the_relabelled_voxels_and_the_best_is_the_lowest() -> None:
    truth, fragments = random_pair(6)
    keys = np.arange(9, dtype=np.uint64)
    values = {0.9: keys, 0.5: keys // np.uint64(2), 0.1: np.zeros_like(keys)}
    points = sweep(contingency(truth, fragments), [(t, keys, v) for t, v in values.items()])
    for point in points:
        relabelled = values[point.threshold][fragments]
        assert point.scores == overlap_scores(contingency(truth, relabelled))
    assert best_threshold(points).scores.voi_sum == min(p.scores.voi_sum for p in points)
    assert best_threshold(points, by="voi_split").threshold == 0.1
    assert best_threshold([SweepPoint(0.2, points[0].scores), SweepPoint(0.3, points[0].scores)]).threshold == 0.3
    lowest = best_threshold(points)
    near = best_threshold(points, tolerance=0.3)
    assert near.threshold >= lowest.threshold
    assert lowest.scores.voi_sum <= near.scores.voi_sum <= 1.3 * lowest.scores.voi_sum
    assert all(p.scores.voi_sum > 1.3 * lowest.scores.voi_sum for p in points if p.threshold > near.threshold)
    with pytest.raises(InputError, match="negative"):
        best_threshold(points, tolerance=-0.1)
    with pytest.raises(InputError, match="sweep at least one"):
        best_threshold([])
    with pytest.raises(InputError, match="did you mean 'voi_sum'"):
        best_threshold(points, by="voi")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["split", "merge"])
def test_contributions_of_objects_sum_to_the_score(kind: Any) -> None:
    table = contingency(*random_pair(7))
    worst = worst_objects(table, kind, k=100)
    scores = overlap_scores(table)
    assert sum(w.bits for w in worst) == pytest.approx(scores.voi_split if kind == "split" else scores.voi_merge)
    assert worst == sorted(worst, key=lambda w: -w.bits)
    assert worst_objects(table, kind, k=2) == worst[:2]
    with pytest.raises(InputError, match="kind 'both'"):
        worst_objects(table, "both")  # type: ignore[arg-type]


def test_the_worst_object_is_named() -> None:
    table = Contingency.from_rows([1, 1, 2, 2, 3], [1, 2, 3, 4, 5], [50, 50, 99, 1, 7])
    first, second = worst_objects(table, "split")
    assert (first.id, first.voxels, first.pieces, first.largest_fraction) == (1, 100, 2, 0.5)
    assert (second.id, second.largest_fraction) == (2, 0.99)
    assert worst_objects(table, "merge") == []


def brute_border(labels: NDArray[Any], width: int, in_plane: bool) -> NDArray[np.bool_]:
    keep = np.ones(labels.shape, bool)
    places = np.argwhere(np.ones(labels.shape, bool))
    for p in places:
        gap = places - p
        near = (gap**2).sum(1) <= width**2
        if in_plane:
            near &= gap[:, 0] == 0
        keep[tuple(p)] = bool(np.all(labels[tuple(places[near].T)] == labels[tuple(p)]))
    return keep


@pytest.mark.parametrize("in_plane", [False, True])
@pytest.mark.parametrize("width", [0, 1, 2, 3])
def test_border_mask_keeps_voxels_far_from_every_other_id(width: int, in_plane: bool) -> None:
    coarse = np.random.default_rng(4).integers(0, 4, (2, 2, 3)).astype(np.uint64)
    labels = coarse.repeat(4, 0).repeat(5, 1).repeat(3, 2)
    expected = brute_border(labels, width, in_plane)
    np.testing.assert_array_equal(border_mask(labels, width, in_plane), expected)
    assert width == 0 or not expected.all()


def test_border_mask_refuses_what_it_cannot_measure() -> None:
    with pytest.raises(InputError, match="give unsigned ids"):
        border_mask(np.zeros((2, 2, 2), np.int64))
    with pytest.raises(InputError, match="-1 is negative"):
        border_mask(np.zeros((2, 2, 2), np.uint64), -1)


@pytest.mark.real_data
def test_published_numbers_of_fib25(real_data: Path) -> None:
    with h5py.File(real_data / "fib25" / "trvol2_250.h5") as file:
        labels = file["volumes/labels"]
        truth, over, ffn = (labels[name][:] for name in ("neuron_ids", "oversegmentation", "ffn_seg"))
    filled = contingency(truth, ffn)
    for table, merge, split, error in (
        (contingency(truth, over), 0.3295, 2.4075, 0.271),
        (filled, 0.9184, 0.8987, 0.157),
        (filled.without(segments=[0]), 0.2632, 0.6126, 0.056),
    ):
        scores = overlap_scores(table)
        assert round(scores.voi_merge, 4) == merge
        assert round(scores.voi_split, 4) == split
        assert round(scores.adapted_rand_error, 3) == error
