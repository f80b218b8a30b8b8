"""Training never comes near what is held out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn.crops import LabelledVolume, draw_box, possible_starts, read_labels
from emloom.nn.draw import Streams
from tests.nn.tissue import GRID, cubes

starts = st.tuples(*(st.integers(0, 20) for _ in range(3)))
shapes = st.tuples(*(st.integers(1, 14) for _ in range(3)))


def volume_of(held_out: tuple[Box, ...], region: Box | None = None) -> LabelledVolume:
    shape = (16, 18, 20)
    raw = ArrayVolume(np.zeros(shape, np.uint8), GRID)
    labels = ArrayVolume(np.ones(shape, np.uint64), GRID)
    return LabelledVolume(raw, labels, region or Box.whole(shape), held_out)


@given(starts, shapes, shapes, st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_boxes_are_allowed_and_their_count_is_exact(
    start: tuple[int, int, int], held: tuple[int, int, int], crop: tuple[int, int, int], seed: int
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
    if brute > 50:
        box = draw_box(volume, crop, Streams(seed, 0, 0).of("place"))
        assert volume.allows(box)
        assert not box.meets(Box(start, held))


def test_no_room_is_an_error_that_says_what_to_change() -> None:
    with pytest.raises(InputError, match="larger than the training region"):
        draw_box(volume_of(()), (17, 4, 4), Streams(0, 0, 0).of("place"))
    with pytest.raises(InputError, match="avoids the held-out boxes"):
        draw_box(volume_of((Box((4, 4, 4), (8, 8, 8)),)), (12, 12, 12), Streams(0, 0, 0).of("place"))


def test_raw_and_labels_must_share_one_grid() -> None:
    raw = ArrayVolume(np.zeros((4, 4, 4), np.uint8), GRID)
    for labels in (
        ArrayVolume(np.zeros((4, 4, 5), np.uint64), GRID),
        ArrayVolume(np.zeros((4, 4, 4), np.uint64), Grid((10, 10, 9))),
        ArrayVolume(np.zeros((4, 4, 4), np.uint64), Grid((10, 10, 10), (10, 0, 0))),
    ):
        with pytest.raises(InputError, match=r"shape|voxel size"):
            LabelledVolume(raw, labels, Box.whole((4, 4, 4)))


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
    near = LabelledVolume(raw, ArrayVolume(labels, GRID), Box.whole(labels.shape), background_vox=(0, 2, 2))
    _, known = read_labels(near, Box.whole(labels.shape))
    expected = np.zeros(labels.shape, np.uint8)
    expected[:, 0:6, 0:6] = 1
    assert np.array_equal(known, expected)


def test_masked_crops_are_rejected() -> None:
    mask = np.zeros((16, 18, 20), np.uint8)
    mask[:, :9] = 1
    plain = volume_of(())
    volume = LabelledVolume(plain.raw, plain.labels, plain.region, (), ArrayVolume(mask, GRID))
    for seed in range(20):
        assert draw_box(volume, (4, 6, 4), Streams(seed, 0, 0).of("place")).start[1] <= 6
