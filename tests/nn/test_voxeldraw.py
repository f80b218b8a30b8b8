"""Drawn voxels are known ones of their class, each as likely as the others; their features are the volume's."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.geometry import Box, Grid, Vec
from emloom.io.volume import ArrayVolume, read_padded
from emloom.nn import voxeldraw
from emloom.nn.crops import TrainingVolume
from emloom.nn.objectives.semantic import SemanticClass, SemanticObjective
from emloom.nn.preprocess import Preprocessing
from emloom.nn.voxeldraw import Draw, DrawnVoxels, Place, boxes_around, draw_voxels, features_of
from emloom.ops.voxelfeatures import MultiScale

GRID = Grid((10.0, 5.0, 5.0))
OBJECTIVE = SemanticObjective(classes=(SemanticClass(name="a", ids=(1,)), SemanticClass(name="b", ids=(2, 3))))
SHAPE: Vec = (9, 20, 24)


@pytest.fixture(autouse=True)
def _small_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxeldraw, "_CELL", (4, 8, 8))


def volume(seed: int = 0) -> TrainingVolume:
    random = np.random.default_rng(seed)
    return TrainingVolume(
        ArrayVolume(random.integers(0, 255, SHAPE, np.uint8), GRID),
        ArrayVolume(random.integers(0, 5, SHAPE, np.uint8), GRID),
        region=Box((0, 0, 0), (9, 18, 24)),
        held_out=(Box((-3, 10, 12), (8, 9, 9)),),
        mask=ArrayVolume((random.random(SHAPE) < 0.7).astype(np.uint8), GRID),
        hidden=(Box((0, 12, 14), (3, 5, 5)),),
        avoid=ArrayVolume((random.random(SHAPE) < 0.1).astype(np.uint8), GRID),
    )


def usable(of: TrainingVolume) -> Any:
    """The class of every voxel that may be learned from, else -1, the slow and obvious way."""
    labels, mask, avoid = of.labels, of.mask, of.avoid
    assert isinstance(labels, ArrayVolume)
    assert isinstance(mask, ArrayVolume)
    assert isinstance(avoid, ArrayVolume)
    out = np.full(SHAPE, -1)
    for z, y, x in np.ndindex(SHAPE):
        at = Box((z, y, x), (1, 1, 1))
        if of.allows(at) and mask.array[z, y, x] and not avoid.array[z, y, x]:
            out[z, y, x] = {1: 0, 2: 1, 3: 1}.get(int(labels.array[z, y, x]), -1)
    return out


def everything(draw: Draw) -> tuple[Any, Any]:
    return (
        np.concatenate([each.at for each in draw.voxels]),
        np.concatenate([each.classes for each in draw.voxels]),
    )


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), cap=st.sampled_from([1, 7, 100, 10_000]))
def test_only_usable_voxels_are_drawn_each_once_and_as_many_as_wanted(seed: int, cap: int) -> None:
    of = volume(seed)
    expected = usable(of)
    draw = draw_voxels([Place(of, of.region)], OBJECTIVE, cap, seed)
    at, classes = everything(draw)
    assert draw.known.tolist() == [(expected == 0).sum(), (expected == 1).sum()]
    assert (
        draw.taken.tolist() == np.minimum(draw.known, cap).tolist() == np.bincount(classes, minlength=2).tolist()
    )
    assert (expected[*at.T] == classes).all()
    assert len(np.unique(at, axis=0)) == len(at)
    again = everything(draw_voxels([Place(of, of.region)], OBJECTIVE, cap, seed))
    assert np.array_equal(at, again[0])


def test_every_voxel_of_a_class_is_as_likely() -> None:
    of = volume()
    count = np.zeros(SHAPE)
    rounds, cap = 300, 60
    for seed in range(rounds):
        at, _ = everything(draw_voxels([Place(of, of.region)], OBJECTIVE, cap, seed))
        count[*at.T] += 1
    for label in (0, 1):
        among = count[usable(of) == label]
        chance = cap / len(among)
        spread = np.sqrt(rounds * chance * (1 - chance))
        assert np.abs(among - rounds * chance).max() < 5.5 * spread
        assert among.std() == pytest.approx(spread, rel=0.15)


def test_a_held_out_box_shows_its_labels_only_where_it_is_asked() -> None:
    of = volume()
    box = of.hidden[0]
    assert draw_voxels([Place(of, box)], OBJECTIVE, 100, 0).known.sum() == 0
    shown = draw_voxels([Place(of, box, held_out=True)], OBJECTIVE, 100, 0)
    assert shown.known.sum() > 10


PLANES = {
    "z": (slice(4, 5), slice(None), slice(None)),
    "y": (slice(None), slice(7, 8), slice(None)),
    "x": (slice(None), slice(None), slice(20, 21)),
    "two": (slice(1, 9, 6), slice(None), slice(None)),
    "scattered": (slice(0, None, 4), slice(1, None, 7), slice(2, None, 11)),
    "block": (slice(2, 6), slice(3, 9), slice(0, 9)),
}


@pytest.mark.parametrize("name", PLANES)
@pytest.mark.parametrize("limit", [1 << 29, 1 << 19])
def test_features_are_those_of_the_whole_volume(name: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voxeldraw, "_BOX_BYTES", limit)
    raw = ArrayVolume(np.random.default_rng(1).integers(0, 255, SHAPE, np.uint8), GRID)
    features, normalise = MultiScale((5.0, 10.0), GRID.voxel_size_nm), Preprocessing()
    labelled = np.zeros(SHAPE, bool)
    labelled[PLANES[name]] = True
    at = np.argwhere(labelled)
    classes = np.arange(len(at)).astype(np.uint8) % 3
    draw = Draw((DrawnVoxels(raw, at, classes),), np.zeros(3, np.int64), np.zeros(3, np.int64))
    told: list[tuple[int, int]] = []
    rows, given_classes = features_of(draw, features, normalise, 2, lambda a, b: told.append((a, b)))
    whole = features.compute(normalise(read_padded(raw, raw.info.box.grow(features.reach_vox))))
    groups = boxes_around(at, features)
    order = np.concatenate(groups)
    assert sorted(order) == list(range(len(at)))
    assert np.array_equal(rows, whole[:, *at[order].T].T)
    assert np.array_equal(given_classes, classes[order])
    assert told == [(n + 1, len(groups)) for n in range(len(groups))]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_planes_far_apart_are_not_computed_in_one_box(axis: int) -> None:
    features = MultiScale((5.0,), (5.0, 5.0, 5.0))
    labelled = np.zeros((60, 60, 60), bool)
    labelled.swapaxes(0, axis)[::20] = True
    at = np.argwhere(labelled)
    groups = boxes_around(at, features)
    assert len(groups) == 3
    read = sum(prod(np.ptp(at[group], axis=0) + 1 + 2 * np.array(features.reach_vox)) for group in groups)
    assert read < 0.75 * 70**3
