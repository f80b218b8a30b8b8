"""Training never comes near what is held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn.crops import TrainingVolume, possible_starts, read_labels
from tests.nn.tissue import GRID, cubes

starts = st.tuples(*(st.integers(0, 20) for _ in range(3)))
shapes = st.tuples(*(st.integers(1, 14) for _ in range(3)))


def volume_of(held_out: tuple[Box, ...], region: Box | None = None) -> TrainingVolume:
    shape = (16, 18, 20)
    raw = ArrayVolume(np.zeros(shape, np.uint8), GRID)
    labels = ArrayVolume(np.ones(shape, np.uint64), GRID)
    return TrainingVolume(raw, labels, region or Box.whole(shape), held_out)


@given(starts, shapes, shapes)
@settings(deadline=None, max_examples=20)
def test_the_count_of_allowed_boxes_is_exact(
    start: tuple[int, int, int], held: tuple[int, int, int], crop: tuple[int, int, int]
) -> None:
    volume = volume_of((Box(start, held),))
    extents = [n - c + 1 for n, c in zip((16, 18, 20), crop, strict=True)]
    brute = sum(
        volume.allows(Box((z, y, x), crop))
        for z in range(extents[0])
        for y in range(extents[1])
        for x in range(extents[2])
    )
    assert possible_starts(volume, crop) == brute


def test_raw_and_labels_must_share_one_grid() -> None:
    raw = ArrayVolume(np.zeros((4, 4, 4), np.uint8), GRID)
    for labels in (
        ArrayVolume(np.zeros((4, 4, 5), np.uint64), GRID),
        ArrayVolume(np.zeros((4, 4, 4), np.uint64), Grid((10, 10, 9))),
        ArrayVolume(np.zeros((4, 4, 4), np.uint64), Grid((10, 10, 10), (10, 0, 0))),
    ):
        with pytest.raises(InputError, match=r"shape|voxel size"):
            TrainingVolume(raw, labels, Box.whole((4, 4, 4)))


def test_labels_outside_the_volume_are_unknown_background() -> None:
    volume = cubes()
    labels, known = read_labels(volume, Box((-3, 0, 0), (6, 8, 8)))
    assert not labels[:3].any()
    assert not known[:3].any()
    assert known[3:].all()
    assert np.array_equal(labels[3:], volume.labels.read(Box((0, 0, 0), (3, 8, 8))))


def test_zeros_far_from_any_label_are_unknown() -> None:
    labels = np.zeros((3, 12, 12), np.uint64)
    labels[:, 2:4, 2:4] = 5
    raw = ArrayVolume(np.zeros(labels.shape, np.uint8), GRID)
    near = TrainingVolume(raw, ArrayVolume(labels, GRID), Box.whole(labels.shape), background_vox=(0, 2, 2))
    _, known = read_labels(near, Box.whole(labels.shape))
    expected = np.zeros(labels.shape, np.uint8)
    expected[:, 0:6, 0:6] = 1
    assert np.array_equal(known, expected)


def test_hidden_boxes_are_known_only_to_validation() -> None:
    plain = volume_of(())
    volume = TrainingVolume(plain.raw, plain.labels, plain.region, hidden=(Box((2, 2, 2), (4, 4, 4)),))
    box = Box((0, 0, 0), (8, 8, 8))
    _, known = read_labels(volume, box)
    assert known.sum() == 8**3 - 4**3
    assert not known[2:6, 2:6, 2:6].any()
    assert read_labels(volume, box, held_out=True)[1].size == 0  # everything is known
