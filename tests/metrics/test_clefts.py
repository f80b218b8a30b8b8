"""Cleft scores against the definitions of CREMI and CNNectome, written down in numpy and scipy."""

from __future__ import annotations

from dataclasses import replace
from math import isnan
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.metrics.clefts import (
    OUTSIDE,
    TRANSPARENT,
    CleftScores,
    cleft_masks,
    cleft_scores,
    mean_cleft_score,
    scores_of,
)
from emloom.metrics.clefttally import CleftOptions, CleftTally, Side, cleft_tally, tally_block

INVALID = TRANSPARENT - 1
CREMI = (40.0, 4.0, 4.0)
ODD = (47.5, 4.6, 4.6)


def volume(rng: np.random.Generator, shape: tuple[int, int, int], part: float, ignored: float = 0) -> np.ndarray:
    """Clefts of one voxel here and there, ids at random, 0 among them."""
    labels = np.full(shape, TRANSPARENT, np.uint64)
    clefts = rng.random(shape) < part
    labels[clefts] = rng.choice(np.array([0, 1, 7, 2**63], np.uint64), np.count_nonzero(clefts))
    labels[rng.random(shape) < ignored] = INVALID
    return labels


def reference(truth: np.ndarray, found: np.ndarray, spacing: tuple[float, ...]) -> dict[str, float]:
    """CREMI's definitions, one line each; scipy's transform over the whole volume, in float64."""
    ignored = truth == INVALID
    not_t, not_p = (truth == TRANSPARENT) | ignored, (found == TRANSPARENT) | ignored
    to_t, to_p = (distance_transform_edt(mask, sampling=spacing) for mask in (not_t, not_p))
    fp, fn = ((to_t > 200) & ~not_p).sum(), ((to_p > 200) & ~not_t).sum()
    tp = (~not_p).sum() - fp
    fp40, fn40 = ((to_t > 40) & ~not_p).sum(), ((to_p > 40) & ~not_t).sum()
    tp40 = (~(not_p & not_t)).sum() - fp40 - fn40
    return {
        "fp": fp,
        "fn": fn,
        "adgt_nm": to_t[~not_p].mean(),
        "adf_nm": to_p[~not_t].mean(),
        "cremi_score_nm": (to_t[~not_p].mean() + to_p[~not_t].mean()) / 2,
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn) if tp + fn else np.nan,
        "f1": 2 * tp / (2 * tp + fp + fn),
        "tolerant.fp": fp40,
        "tolerant.fn": fn40,
        "tolerant.f1": 2 * tp40 / (2 * tp40 + fp40 + fn40),
        "tolerant.false_positive_rate": fp40 / (not_t & ~ignored).sum(),
        "tolerant.false_negative_rate": fn40 / (~not_t).sum(),
        "tolerant.clipped_adgt_nm": to_t[~not_p].clip(max=200).mean(),
        "tolerant.clipped_adf_nm": to_p[~not_t].clip(max=200).mean(),
    }


def value(scores: CleftScores, name: str) -> Any:
    return getattr(scores.tolerant, name.removeprefix("tolerant.")) if "." in name else getattr(scores, name)


@pytest.mark.parametrize("spacing", [CREMI, ODD])
@pytest.mark.parametrize("part", [0.0003, 0.01, 0.3])
@pytest.mark.parametrize("seed", range(6))
def test_the_definitions_of_cremi(seed: int, part: float, spacing: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(8, 20)), int(rng.integers(30, 70)), int(rng.integers(30, 70)))
    truth, found = volume(rng, shape, part, ignored=0.05), volume(rng, shape, part)
    truth[2, 3, 4], found[-1, -2, -3] = 5, 6  # never empty
    found[truth == INVALID] = 9  # what the truth ignores is no matter
    truth[-1, -2, -3] = TRANSPARENT
    scores = cleft_scores(truth, found, spacing)
    assert scores.reason is None
    for name, wanted in reference(truth, found, spacing).items():
        # Distances are float32, their sums integers.
        assert value(scores, name) == pytest.approx(wanted, rel=1e-6, abs=1e-5), name


def test_an_example_counted_by_hand() -> None:
    """One true voxel; the result has it, one 6 sections away (240 nm), one 5 away (exactly 200 nm: not beyond)."""
    truth = np.full((12, 3, 3), TRANSPARENT, np.uint64)
    found = truth.copy()
    truth[0, 1, 1] = 3
    found[[0, 5, 6], 1, 1] = 4
    scores = cleft_scores(truth, found, CREMI)
    assert (scores.fp, scores.fn, scores.tp, scores.n_truth, scores.n_found) == (1, 0, 2, 1, 3)
    assert (scores.adgt_nm, scores.adf_nm) == ((0 + 200 + 240) / 3, 0)
    assert scores.cremi_score_nm == scores.adgt_nm / 2
    assert (scores.precision, scores.recall, scores.f1) == (2 / 3, 1, 4 / 5)
    tolerant = scores.tolerant
    assert (tolerant.fp, tolerant.fn, tolerant.tp) == (2, 0, 1)
    assert tolerant.clipped_adgt_nm == 400 / 3


# ---- laws -------------------------------------------------------------------------------------------------------

SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None, max_examples=15)
@given(
    seed=SEEDS,
    block=st.tuples(st.integers(2, 9), st.integers(9, 30), st.integers(9, 30)),
    spacing=st.sampled_from([CREMI, ODD, (3500.0, 350.0, 351.0)]),
)
def test_blocks_add_up_to_the_whole_bit_for_bit(
    seed: int, block: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    rng = np.random.default_rng(seed)
    shape = (9, 40, 33)
    truth, found, known = cleft_masks(volume(rng, shape, 0.0005, 0.05), volume(rng, shape, 0.001))
    whole, calls = Box.whole(shape), []

    def read(box: Box) -> tuple[np.ndarray, np.ndarray]:
        assert whole.contains(box)
        calls.append(box)
        return truth[box.slices()], found[box.slices()]

    in_blocks = cleft_tally(read, whole, spacing, block_vox=block)
    assert in_blocks == cleft_tally(read, whole, spacing, block_vox=shape)
    # A tally that was cropped to where the clefts are says the same.
    masks = [m.astype(np.uint8) for m in (truth, found)]
    again = cleft_scores(masks[0], masks[1], spacing, known_ZYX=known, zero_is_background=True)
    assert repr(again) == repr(scores_of(in_blocks, int(known.sum())))


def test_counts_need_the_halo_of_their_limit_and_no_more() -> None:
    """A block far from everything is not read to decide what lies within 200 nm."""
    shape = (4, 40, 4000)
    truth, found = np.zeros(shape, bool), np.zeros(shape, bool)
    truth[1, 20, 20], found[1, 20, 25] = True, True
    read_boxes = []

    def read(box: Box) -> tuple[np.ndarray, np.ndarray]:
        read_boxes.append(box)
        return truth[box.slices()], found[box.slices()]

    tally = tally_block(read, Box.whole(shape), Box((0, 0, 0), (4, 40, 64)), CREMI)
    assert (tally.found.voxels, tally.truth.voxels) == (1, 1)
    assert tally.found.mean_nm() == 20
    assert max(box.stop[2] for box in read_boxes) <= 25 + 1 + 50


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("sign", [-1, 1])
def test_what_lies_just_beyond_the_halo_is_nearer_than_what_lies_in_its_corner(axis: int, sign: int) -> None:
    """The first look reaches 20 voxels along each axis; 21 ahead is nearer than 20 ahead and 8 aside."""
    shape, at = [21, 21, 21], np.full(3, 10)
    shape[axis], at[axis] = 61, 5 if sign > 0 else 55  # the only way out of what is read first
    truth, found = np.zeros(shape, bool), np.zeros(shape, bool)
    ahead, corner = at.copy(), at.copy()
    ahead[axis] += 21 * sign
    corner[axis] += 20 * sign
    corner[(axis + 1) % 3] += 8
    found[tuple(at)] = truth[tuple(ahead)] = truth[tuple(corner)] = True

    def read(box: Box) -> tuple[np.ndarray, np.ndarray]:
        return truth[box.slices()], found[box.slices()]

    tally = tally_block(read, Box.whole(shape), Box.of(at.tolist(), (at + 1).tolist()), (10, 10, 10))
    assert tally.found.mean_nm() == 210


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS)
def test_ids_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, found = volume(rng, (5, 12, 12), 0.02, 0.1), volume(rng, (5, 12, 12), 0.02)
    renamed = [v.copy() for v in (truth, found)]
    for v in renamed:
        clefts = v < OUTSIDE
        v[clefts] = rng.integers(0, 2**62, np.count_nonzero(clefts))
    assert repr(cleft_scores(truth, found, CREMI)) == repr(cleft_scores(*renamed, CREMI))


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, part=st.sampled_from([0.01, 0.5, 1.0]))
def test_identical_clefts_are_perfect(seed: int, part: float) -> None:
    rng = np.random.default_rng(seed)
    truth = volume(rng, (5, 9, 9), part, 0.1)
    truth[0, 0, 0] = 1
    scores = cleft_scores(truth, truth, CREMI)
    assert (scores.fp, scores.fn, scores.adgt_nm, scores.adf_nm, scores.cremi_score_nm) == (0, 0, 0, 0, 0)
    assert (scores.precision, scores.recall, scores.f1, scores.tolerant.f1) == (1, 1, 1, 1)


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS, by=st.tuples(*[st.integers(0, 5)] * 3), after=st.tuples(*[st.integers(0, 5)] * 3))
def test_moving_both_changes_nothing(seed: int, by: tuple[int, ...], after: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    pair = [volume(rng, (5, 12, 12), 0.02) for _ in range(2)]
    padded = [np.pad(v, list(zip(by, after, strict=True)), constant_values=TRANSPARENT) for v in pair]
    before, later = cleft_scores(*pair, CREMI), cleft_scores(*padded, CREMI)
    more = later.n_known - before.n_known
    assert more == padded[0].size - pair[0].size
    rate = later.tolerant.false_positive_rate
    later = replace(later, n_known=before.n_known, tolerant=replace(later.tolerant, false_positive_rate=0.0))
    before = replace(before, tolerant=replace(before.tolerant, false_positive_rate=0.0))
    assert repr(later) == repr(before)
    assert rate <= 1


@settings(deadline=None, max_examples=30)
@given(seed=SEEDS)
def test_exchanging_both_exchanges_the_errors(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = volume(rng, (6, 20, 20), 0.002), volume(rng, (6, 20, 20), 0.005)
    one, other = cleft_scores(a, b, CREMI), cleft_scores(b, a, CREMI)
    assert (one.fp, one.fn) == (other.fn, other.fp)
    assert (one.adgt_nm, one.adf_nm) == pytest.approx((other.adf_nm, other.adgt_nm), nan_ok=True)
    assert one.tolerant.f1 == pytest.approx(other.tolerant.f1, nan_ok=True)


def test_sums_are_exact_beyond_any_float() -> None:
    """4e9 voxels and more: integers do not round."""
    side = Side(4_000_000_000, 1, 2, 2**62 + 1, 3)
    total = sum((CleftTally(side, side, 5) for _ in range(9)), CleftTally())
    assert total.found.steps == 9 * (2**62 + 1)
    assert total.found.voxels == 36_000_000_000


# ---- what is not defined ----------------------------------------------------------------------------------------


def empty(*clefts: tuple[int, int, int]) -> np.ndarray:
    labels = np.full((4, 6, 6), TRANSPARENT, np.uint64)
    for place in clefts:
        labels[place] = 1
    return labels


NAN = float("nan")


@pytest.mark.parametrize(
    ("truth", "found", "counts", "rates", "reason"),
    [
        (empty(), empty((1, 2, 3), (2, 2, 3)), (2, 0), (0, NAN, 0), "the truth has no cleft"),
        (empty((1, 2, 3)), empty(), (0, 1), (NAN, 0, 0), "the result has no cleft"),
        (empty(), empty(), (0, 0), (NAN, NAN, NAN), "neither the truth nor the result has a cleft"),
        (np.full((4, 6, 6), INVALID, np.uint64), empty((0, 0, 0)), (0, 0), (NAN, NAN, NAN), "no voxel counts"),
        (np.zeros((0, 6, 6), np.uint64), np.zeros((0, 6, 6), np.uint64), (0, 0), (NAN,) * 3, "no voxel counts"),
    ],
    ids=["no truth", "no result", "neither", "all ignored", "no voxel"],
)
def test_what_is_not_defined_is_nan_with_a_reason(
    truth: np.ndarray, found: np.ndarray, counts: tuple[int, int], rates: tuple[float, ...], reason: str
) -> None:
    scores = cleft_scores(truth, found, CREMI)
    assert (scores.fp, scores.fn) == counts
    assert all(isnan(v) for v in (scores.adgt_nm, scores.adf_nm, scores.cremi_score_nm))
    assert isnan(scores.tolerant.clipped_score_nm)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx(rates, nan_ok=True)
    assert reason in (scores.reason or "")


def test_a_custom_for_what_is_not_defined() -> None:
    tally = CleftTally(found=Side(3, 3, 3), either=3)
    scores = scores_of(tally, 100, undefined_nm=1234.5)
    assert (scores.adgt_nm, scores.adf_nm, scores.cremi_score_nm) == (1234.5, 1234.5, 1234.5)
    assert "by request 1234.5 nm" in (scores.reason or "")
    assert isnan(scores_of(CleftTally(), 100, undefined_nm=1.0).cremi_score_nm)


def test_samples_without_a_score_are_left_out_of_the_mean() -> None:
    good, bad = cleft_scores(empty((0, 0, 0)), empty((1, 0, 0)), CREMI), cleft_scores(empty(), empty(), CREMI)
    assert mean_cleft_score([good, bad, good]) == (40.0, 1)
    mean, without = mean_cleft_score([bad])
    assert (isnan(mean), without) == (True, 1)


def test_special_values() -> None:
    truth, found = empty((1, 2, 3)), empty((1, 2, 3))
    truth[0, 0, 0] = INVALID
    truth[0, 0, 1] = OUTSIDE
    found[0, 0, 0] = 5  # ignored, as the truth says
    found[3, 5, 5] = INVALID  # in a result it is a cleft, as in cremi_python
    scores = cleft_scores(truth, found, CREMI)
    assert (scores.n_truth, scores.n_found, scores.n_known) == (1, 2, 4 * 6 * 6 - 2)


def test_zero_may_be_background() -> None:
    truth = np.zeros((4, 6, 6), np.uint8)
    found = truth.copy()
    truth[1, 2, 3], found[2, 2, 3] = 1, 200
    scores = cleft_scores(truth, found, CREMI, zero_is_background=True)
    assert (scores.n_truth, scores.n_found, scores.adgt_nm, scores.notes) == (1, 1, 40, ())
    assert cleft_scores(truth > 0, found > 0, CREMI) == scores
    wide = truth.astype(np.uint64), found.astype(np.uint64)
    everywhere = cleft_scores(*wide, CREMI)
    assert (everywhere.n_truth, everywhere.n_found) == (144, 144)
    assert len(everywhere.notes) == 2
    assert "is its 0 meant as background?" in everywhere.notes[0]
    assert cleft_scores(*wide, CREMI, zero_is_background=True) == scores


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"found_ZYX": np.full((4, 6, 5), TRANSPARENT, np.uint64)}, "give the same voxels"),
        ({"known_ZYX": np.ones((1, 6, 6), np.uint8)}, "and a mask of"),
        ({"found_ZYX": np.zeros((4, 6, 6), np.int64)}, "found clefts are int64: give unsigned labels"),
        ({"truth_ZYX": np.zeros((4, 6, 6), np.uint32)}, "cannot hold CREMI's background"),
        ({"spacing_nm": (40, 4)}, "has 2 values"),
        ({"spacing_nm": (40, 0, 4)}, "is not positive"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    good = {"truth_ZYX": empty((0, 0, 0)), "found_ZYX": empty((1, 1, 1)), "spacing_nm": CREMI}
    with pytest.raises(InputError, match=message):
        cleft_scores(**{**good, **change})


def test_a_block_without_the_other_kind_anywhere_is_an_error() -> None:
    clefts = np.ones((3, 4, 5), bool)
    whole = Box.whole(clefts.shape)
    with pytest.raises(InputError, match="clefts of one kind only"):
        tally_block(lambda b: (clefts[b.slices()], ~clefts[b.slices()]), whole, whole, CREMI)
    with pytest.raises(InputError, match="limit_nm nan is not a length"):
        CleftOptions(limit_nm=NAN)


# ---- real data --------------------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_real_synapses_against_shifted_ones(real_data: Path) -> None:
    """Sections of the Drosophila VNC: what a result that is 10 voxels off costs, as scipy says."""
    path = real_data / "isbi2012_cardona/train_z00-19.h5"
    if not path.is_file():
        pytest.skip(f"{path} is not there: see the README of the real data")
    with h5py.File(path) as h5:
        truth = h5["volumes/labels/synapse_ids"][:, 100:400, 100:400]
        spacing = tuple(h5["volumes/labels/synapse_ids"].attrs["resolution"].tolist())
    found = np.roll(truth, (1, 10, -10), axis=(0, 1, 2))
    found[:3] = 0
    stored = [np.where(v == 0, np.uint64(TRANSPARENT), v.astype(np.uint64)) for v in (truth, found)]
    scores = cleft_scores(truth, found, spacing, zero_is_background=True)
    assert scores.n_truth > 1000
    assert scores.adgt_nm > 0
    for name, wanted in reference(stored[0], stored[1], spacing).items():
        assert value(scores, name) == pytest.approx(wanted, rel=1e-6), name
    assert cleft_scores(stored[0], stored[1], spacing) == scores
