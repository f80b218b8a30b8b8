"""Folds of real stacks leak nothing and tile the stack; a rule is chosen without the test and applied to all."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.metrics.cleftobjects import object_scores
from emloom.metrics.contingency import contingency
from emloom.nn.crops import possible_starts
from emloom.ops.labels import split_disconnected
from emloom.recipes import cleftfolds, real_clefts
from emloom.recipes.cleftfolds import LEAST_VOX, LEVELS, Fold, Rule, assembled, choose, dark_blobs, score
from emloom.tasks.data import open_stack

SHAPE = (4, 40, 60)
NAMES = tuple(real_clefts.SETS)


@pytest.mark.parametrize("name", NAMES)
def test_quarters_tile_a_stack_and_keep_off_validation(name) -> None:
    this = real_clefts.SETS[name]
    quarters = [real_clefts.quarter(this, fold).box for fold in range(real_clefts.FOLDS)]
    assert sum(prod(box.shape) for box in quarters) == prod(this.shape)
    for i, box in enumerate(quarters):
        assert not any(box.meets(other) for other in quarters[i + 1 :])
        held = Box((0, *this.validation[i]), (this.shape[0], *this.held_shape))
        assert Box((0, 0, 0), this.shape).contains(held)
        gap = real_clefts.GAP_VOX
        assert not box.grow((0, gap, gap)).meets(held)


@pytest.mark.real_data
@pytest.mark.parametrize("name", NAMES)
def test_there_is_room_to_train_and_something_to_choose_by(real_data: Path, name) -> None:
    for fold in range(real_clefts.FOLDS):
        job = real_clefts.quick(name, fold, data=str(real_data))
        stack = open_stack(job.data[0])
        assert stack.raw.info.shape == real_clefts.SETS[name].shape
        assert stack.raw.info.grid.voxel_size_nm[2] == pytest.approx(real_clefts.SETS[name].pixel_nm)
        assert possible_starts(stack.labelled, job.training.crop_shape_vox) > 100_000
        held = job.data[0].validation[0].box
        known = split_disconnected((stack.labels.read(held) != 0).astype(np.uint8), 26)
        assert known.max() >= 2


def plates(seed: int, shape=SHAPE) -> np.ndarray:
    """Return some plates of 2 x 6 x 8 voxels."""
    rng = np.random.default_rng(seed)
    out = np.zeros(shape, np.uint8)
    for _ in range(6):
        z, y, x = rng.integers(0, np.array(shape) - (1, 5, 7))
        out[z : z + 2, y : y + 6, x : x + 8] = 1
    return out


def test_the_rule_is_the_best_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plates of the truth are bright, specks brighter, others darker: level and size do it, no level alone."""
    truth = plates(1)
    prediction = np.where(truth, 180, 20).astype(np.uint8)
    prediction[0, ::9, ::9] = np.maximum(prediction[0, ::9, ::9], 250)
    prediction[3, 30:40, 40:60] = np.maximum(prediction[3, 30:40, 40:60], 100)
    rule = choose(prediction, truth)
    assert 100 < rule.level <= 180
    assert rule.least_vox == 50
    assert rule.f1 == 1.0
    monkeypatch.setattr(cleftfolds, "LEAST_VOX", (0,))
    assert choose(prediction, truth).f1 < 1


@given(st.integers(0, 10**6))
@settings(max_examples=4, deadline=None)
def test_no_other_rule_has_a_better_f1(seed) -> None:
    rng = np.random.default_rng(seed)
    truth = plates(seed, (3, 20, 24))
    prediction = np.clip(truth * 120.0 + rng.normal(60, 40, truth.shape), 0, 255).astype(np.uint8)
    rule = choose(prediction, truth)
    objects = split_disconnected(truth, 26)

    def f1(level: int, least: int) -> float:
        found = split_disconnected((prediction >= level).astype(np.uint8), 26)
        ids, sizes = np.unique(found, return_counts=True)
        kept = np.where(np.isin(found, ids[sizes >= least]), found, np.uint64(0))
        return object_scores(contingency(objects, kept, ignore_truth=())).f1

    assert rule.f1 == f1(rule.level, rule.least_vox)
    assert rule.f1 >= max(f1(level, least) for level in LEVELS[::3] for least in LEAST_VOX[::2])


def test_objects_across_quarters_are_whole() -> None:
    whole = np.zeros(SHAPE, np.uint8)
    whole[1, 18:22, 26:34] = 200  # in all four quarters, most of it nowhere
    whole[2, 2:6, 2:10] = 150  # below the threshold of its quarter
    whole[2, 30:33, 2:4] = 250  # below the least size of its quarter
    whole[2, 30:36, 50:58] = 250
    rules = [Rule(190, 0, 1.0), Rule(100, 0, 1.0), Rule(100, 10, 1.0), Rule(100, 0, 1.0)]
    boxes = [Box((0, 20 * (k // 2), 30 * (k % 2)), (4, 20, 30)) for k in range(4)]
    folds = [Fold(box, whole[box.slices()], rule) for box, rule in zip(boxes, rules, strict=True)]
    objects = assembled(folds, SHAPE)
    expected = np.zeros(SHAPE, bool)
    expected[1, 18:22, 26:34] = expected[2, 30:36, 50:58] = True
    np.testing.assert_array_equal(objects != 0, expected)
    assert len(np.unique(objects)) == 3
    scores, voxels = score(objects, expected, (40.0, 4.0, 4.0))
    assert (scores.tp, scores.fp, scores.fn, voxels.cremi_score_nm) == (2, 0, 0, 0.0)
    with pytest.raises(InputError, match="no fold tests 2400 voxels"):
        assembled(folds[:3], SHAPE)
    with pytest.raises(InputError, match="of fold 1 overlaps another"):
        assembled([folds[0], folds[0]], SHAPE)


def test_dark_blobs_are_bright() -> None:
    raw = np.full((2, 40, 40), 150, np.uint8)
    raw[1, 10:16, 10:16] = 40
    dark = dark_blobs(raw, (40.0, 4.0, 4.0), 20.0, (30.0, 150.0))
    assert dark.dtype == np.uint8
    assert np.unravel_index(dark.argmax(), dark.shape)[0] == 1
    assert dark[1, 12, 12] > 120
    assert dark[0].max() == dark[1, 30, 30] == 0


def test_bad_input() -> None:
    with pytest.raises(InputError, match="no cleft is known here"):
        choose(np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8))
    with pytest.raises(InputError, match="give one box"):
        choose(np.zeros((1, 2, 3), np.uint8), plates(0))
    with pytest.raises(InputError, match="was not found"):
        real_clefts.stack("vnc", 0, data="/nowhere")
