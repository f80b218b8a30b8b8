"""Confusion and its scores: by hand, against definitions and MONAI, laws, and classes that are not there."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from fractions import Fraction
from math import isnan
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.metrics.classify import Confusion, confusion, confusion_scores
from emloom.metrics.counts import add, known_voxels
from emloom.metrics.ranking import ScoreHistogram

C = 4
Labels = NDArray[Any]


@pytest.fixture(scope="module")
def monai() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its imports warn of what is not installed
        return pytest.importorskip("monai.metrics")


def random_pair(seed: int, shape: tuple[int, ...] = (5, 6, 7)) -> tuple[Labels, Labels]:
    """Return truth with ignored voxels, and a prediction that is right more often than not."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, C, shape).astype(np.uint8)
    predicted = np.where(rng.random(shape) < 0.6, truth, rng.integers(0, C, shape)).astype(np.uint8)
    truth[rng.random(shape) < 0.2] = 255
    return truth, predicted


def pairs(truth: Labels, predicted: Labels, known: Labels) -> list[tuple[int, int]]:
    return list(zip(truth[known].tolist(), predicted[known].tolist(), strict=True))


seeds = st.integers(0, 10**6)
laws = settings(deadline=None, max_examples=30)


# ---- by hand ----------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 2, 255], np.uint8)
    predicted = np.array([0, 0, 0, 1, 1, 2, 2, 0], np.uint8)
    table = confusion(truth, predicted, 3)
    assert table.counts.tolist() == [[3, 1, 0], [0, 1, 1], [0, 0, 1]]
    scores = confusion_scores(table)
    assert [(s.n_truth, s.n_predicted, s.n_correct) for s in scores.classes] == [(4, 3, 3), (2, 2, 1), (1, 2, 1)]
    assert [s.precision for s in scores.classes] == [1, 1 / 2, 1 / 2]
    assert [s.recall for s in scores.classes] == [3 / 4, 1 / 2, 1]
    assert [s.f1 for s in scores.classes] == [6 / 7, 1 / 2, 2 / 3]
    assert [s.iou for s in scores.classes] == [3 / 4, 1 / 3, 1 / 2]
    assert [s.dice for s in scores.classes] == [s.f1 for s in scores.classes]
    assert scores.accuracy == 5 / 7
    assert scores.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2 + 1) / 3, abs=1e-15)
    # By chance 4*3 + 2*2 + 1*2 = 18 of 49.
    assert scores.kappa == (7 * 5 - 18) / (49 - 18)
    assert scores.macro.f1 == pytest.approx((6 / 7 + 1 / 2 + 2 / 3) / 3, abs=1e-15)
    assert scores.micro.f1 == scores.micro.precision == scores.micro.recall == scores.accuracy
    assert scores.micro.iou == 5 / 9
    assert scores.reasons == ()


def test_averages_without_background() -> None:
    scores = confusion_scores(Confusion(np.array([[90, 2, 0], [3, 4, 0], [0, 1, 5]])), classes=[1, 2])
    assert [s.label for s in scores.classes] == [1, 2]
    assert scores.micro.precision == 9 / 12
    assert scores.micro.recall == 9 / 13
    assert scores.macro.recall == pytest.approx((4 / 7 + 5 / 6) / 2, abs=1e-15)
    assert scores.accuracy == 99 / 105


# ---- classes that are not there ---------------------------------------------------------------------------


def test_an_absent_class_moves_no_mean() -> None:
    truth = np.array([0, 0, 1, 1])
    scores = confusion_scores(confusion(truth, truth, 3))
    assert isnan(scores.classes[2].f1)
    assert scores.reasons == ("class 2 occurs neither in truth nor in prediction: left out of the macro mean",)
    # Counting it as 0 would call perfection 2/3.
    assert (scores.macro.precision, scores.macro.recall, scores.macro.f1, scores.macro.iou) == (1, 1, 1, 1)
    # Counting it as 1 would call this half right.
    wrong = confusion_scores(confusion(truth, 1 - truth, 4))
    assert (wrong.macro.f1, wrong.macro.iou) == (0, 0)


def test_ignoring_a_rare_class_is_not_rewarded() -> None:
    truth = np.array([0] * 98 + [1] * 2)
    never = confusion_scores(confusion(truth, np.zeros_like(truth), 2))
    assert (never.classes[1].precision, never.classes[1].recall, never.classes[1].f1) == (0, 0, 0)
    assert never.classes[1].reason == "class 1 is never predicted: its precision counts as 0"
    assert never.macro.precision == 0.98 / 2
    assert never.balanced_accuracy == 0.5
    assert never.kappa == 0
    assert never.accuracy == 0.98


def test_a_made_up_class_counts_in_the_means_but_not_in_balanced_accuracy() -> None:
    scores = confusion_scores(confusion(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]), 3))
    assert scores.classes[2].recall == scores.classes[2].f1 == 0
    assert scores.macro.recall == pytest.approx((1 + 0.5 + 0) / 3)
    assert scores.balanced_accuracy == 0.75


def test_one_class_only_has_no_kappa() -> None:
    scores = confusion_scores(confusion(np.zeros(5, int), np.zeros(5, int), 2))
    assert isnan(scores.kappa)
    assert any("kappa" in reason for reason in scores.reasons)
    assert scores.accuracy == scores.macro.f1 == 1


def test_all_ignored_is_nan_with_the_reason() -> None:
    for table in (
        confusion(np.full((2, 3), 255, np.uint8), np.zeros((2, 3), np.uint8), 2),
        confusion(np.zeros(3, int), np.zeros(3, int), 2, mask=np.zeros(3, np.bool_)),
        confusion(np.zeros((0, 4), int), np.zeros((0, 4), int), 2),
    ):
        scores = confusion_scores(table)
        assert scores.n_voxels == 0
        assert scores.reasons == ("no voxel counts: all are ignored or masked out",)
        values = [scores.accuracy, scores.balanced_accuracy, scores.kappa, scores.macro.f1, scores.micro.iou]
        assert all(isnan(value) for value in values)


def test_results_are_plain_values() -> None:
    scores = confusion_scores(confusion(*random_pair(3), C))
    assert json.loads(json.dumps(asdict(scores)))["macro"]["f1"] == scores.macro.f1


# ---- against other implementations ------------------------------------------------------------------------


@given(seeds)
@laws
def test_parity_with_definitions(seed: int) -> None:
    truth, predicted = random_pair(seed)
    scores = confusion_scores(confusion(truth, predicted, C))
    kept = pairs(truth, predicted, truth != 255)
    n = len(kept)
    for label, s in enumerate(scores.classes):
        true = {i for i, (t, _) in enumerate(kept) if t == label}
        called = {i for i, (_, p) in enumerate(kept) if p == label}
        both = len(true & called)
        assert (s.precision, s.recall) == (both / len(called), both / len(true))
        assert s.iou == both / len(true | called)
        assert s.f1 == pytest.approx(2 * s.precision * s.recall / (s.precision + s.recall), abs=1e-15)
    agree = Fraction(sum(t == p for t, p in kept), n)
    chance = sum(Fraction(sum(t == c for t, _ in kept) * sum(p == c for _, p in kept), n * n) for c in range(C))
    assert scores.kappa == float((agree - chance) / (1 - chance))
    assert scores.accuracy == float(agree)


@given(seeds)
@laws
def test_parity_with_monai(monai: ModuleType, seed: int) -> None:
    truth, predicted = random_pair(seed, (40, 5))
    scores = confusion_scores(confusion(truth, predicted, C))
    known = truth != 255
    t, p = (torch.from_numpy(np.eye(C, dtype=np.float32)[a[known]].T[None]) for a in (truth, predicted))
    counts = monai.get_confusion_matrix(p, t)[0]
    for name, mine in (("precision", "precision"), ("recall", "recall"), ("f1 score", "f1")):
        theirs = monai.compute_confusion_matrix_metric(name, counts).tolist()
        assert [getattr(s, mine) for s in scores.classes] == pytest.approx(theirs, abs=1e-6)
    for name, function in (("iou", monai.compute_iou), ("dice", monai.compute_dice)):
        theirs = function(p, t)[0].tolist()
        assert [getattr(s, name) for s in scores.classes] == pytest.approx(theirs, abs=1e-6)


# ---- laws -------------------------------------------------------------------------------------------------


@given(seeds, st.integers(1, 4))
@laws
def test_blockwise_equals_whole(seed: int, at: int) -> None:
    truth, predicted = random_pair(seed)
    whole = confusion(truth, predicted, C)
    blocks = [confusion(truth[k], predicted[k], C) for k in (np.s_[:at], np.s_[at:, :3], np.s_[at:, 3:])]
    assert add(blocks) == add(blocks[::-1]) == whole
    assert whole.n_voxels == np.count_nonzero(truth != 255)


def test_slabs_cover_every_voxel() -> None:
    truth, predicted = random_pair(1, (1100, 1100, 2))
    known = truth != 255
    expected = np.bincount(truth[known].astype(int) * C + predicted[known], minlength=C * C).reshape(C, C)
    assert np.array_equal(confusion(truth, predicted, C).counts, expected)
    mask = np.random.default_rng(2).random(truth.shape) < 0.5
    # A transposed view is not contiguous; the order of voxels does not matter.
    assert confusion(truth.T, predicted.T, C, mask=mask.T) == confusion(truth, predicted, C, mask=mask)


@given(seeds, st.permutations(range(C)))
@laws
def test_permuting_classes_permutes_their_scores(seed: int, order: list[int]) -> None:
    truth, predicted = random_pair(seed)
    new = np.r_[order, np.zeros(255 - C, int), 255].astype(np.uint8)  # 255 stays ignored
    scores = confusion_scores(confusion(truth, predicted, C))
    renamed = confusion_scores(confusion(new[truth], new[predicted], C))
    for label, s in enumerate(scores.classes):
        r = renamed.classes[order[label]]
        assert (r.precision, r.recall, r.f1, r.iou, r.n_truth) == (s.precision, s.recall, s.f1, s.iou, s.n_truth)
    for name in ("accuracy", "balanced_accuracy", "kappa", "macro", "micro"):
        assert getattr(renamed, name) == getattr(scores, name)


@given(seeds)
@laws
def test_perfection(seed: int) -> None:
    truth, _ = random_pair(seed)
    # At ignored voxels a prediction may hold anything, also what is no class.
    scores = confusion_scores(confusion(truth, truth, C))
    assert (scores.accuracy, scores.balanced_accuracy, scores.kappa) == (1, 1, 1)
    assert all((s.precision, s.recall, s.f1, s.iou) == (1, 1, 1, 1) for s in (*scores.classes, scores.macro))


@given(seeds, st.sampled_from(["uint8", "int16", "uint16", "int64", "uint64", ">i4"]))
@laws
def test_ignoring_is_deleting(seed: int, dtype: str) -> None:
    truth, predicted = random_pair(seed)
    mask = np.random.default_rng(seed).random(truth.shape) < 0.7
    keep = mask & (truth != 255) & (truth != 2)
    deleted = confusion(truth[keep], predicted[keep], C, ignore=())
    typed = truth.astype(dtype), predicted.astype(dtype)
    assert confusion(*typed, C, ignore=(255, 2), mask=mask) == deleted
    assert confusion(*typed, C, ignore=(), mask=keep) == deleted
    assert np.array_equal(known_voxels(truth, (255, 2), mask), keep)


def test_ignored_values_of_any_size() -> None:
    big = np.array([0, 1, 2**64 - 1], np.uint64)
    assert confusion(big, np.zeros(3, int), 2, ignore=2**64 - 1).n_voxels == 2
    assert confusion(np.array([0, -1]), np.zeros(2, int), 2, ignore=-1).n_voxels == 1
    # -1 as int64 has the bits of 2^64 - 1, and is another number.
    with pytest.raises(InputError, match="truth holds -1"):
        confusion(np.array([0, -1]), np.zeros(2, int), 2, ignore=2**64 - 1)


def test_boolean_labels_are_two_classes() -> None:
    t, p = np.array([True, True, False]), np.array([True, False, False])
    assert confusion(t, p, 2).counts.tolist() == [[1, 0], [1, 1]]


def test_sums_beyond_int64_stay_exact() -> None:
    big = 4_000_000_000
    scores = confusion_scores(Confusion(np.array([[big, 1], [3, big]])))
    n, agree, chance = 2 * big + 4, 2 * big, (big + 1) * (big + 3) + (big + 3) * (big + 1)
    assert scores.kappa == float(Fraction(n * agree - chance, n * n - chance))


# ---- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("truth", "predicted", "options", "message"),
    [
        (np.zeros(3, int), np.zeros(4, int), {}, "crop to one box"),
        (np.zeros(3), np.zeros(3, int), {}, "truth has dtype float64"),
        (np.zeros(3, int), np.zeros(3), {}, "take the argmax"),
        (
            np.array([0, 7]),
            np.array([0, 0]),
            {},
            "truth holds 7: with 2 classes give 0 to 1, or name it in `ignore`",
        ),
        (np.array([0, 1]), np.array([0, 255]), {}, "prediction holds class 255"),
        (np.array([0, 1]), np.array([0, -1]), {}, "prediction holds class -1"),
        (np.zeros(3, int), np.zeros(3, int), {"mask": np.ones(3)}, "mask is float64"),
        (np.zeros(3, int), np.zeros(3, int), {"mask": np.ones(2, np.bool_)}, "bool of the shape of truth"),
    ],
)
def test_bad_input_is_named(truth: Labels, predicted: Labels, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        confusion(truth, predicted, 2, **options)


def test_bad_tables_are_named() -> None:
    with pytest.raises(InputError, match="classes: give 1 or more"):
        confusion(np.zeros(1, int), np.zeros(1, int), 0)
    with pytest.raises(InputError, match="not \\(2, 3\\)"):
        Confusion(np.zeros((2, 3), np.int64))
    with pytest.raises(InputError, match="counts are exact, give int64"):
        Confusion(np.zeros((2, 2)))
    with pytest.raises(InputError, match="never negative"):
        Confusion(np.full((2, 2), -1))
    with pytest.raises(InputError, match="at least one"):
        add([])
    two, three = Confusion(np.zeros((2, 2), np.int64)), Confusion(np.zeros((3, 3), np.int64))
    with pytest.raises(InputError, match="same classes"):
        add([two, three])
    with pytest.raises(InputError, match="ScoreHistogram of \\(2, 2\\) does not add to a Confusion"):
        add([two, ScoreHistogram(two.counts)])
    for classes in ([], [0, 0], [2]):
        with pytest.raises(InputError, match="give each once, from 0 to 1"):
            confusion_scores(two, classes)


def test_a_table_does_not_change() -> None:
    table = Confusion(np.zeros((2, 2), np.int64))
    with pytest.raises(ValueError, match="read-only"):
        table.counts[0, 0] = 1
