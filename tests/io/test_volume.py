"""Volumes: what a read returns, what a write replaces, and what lies beyond the faces."""

from __future__ import annotations

import pickle
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid, Vec
from emloom.io.volume import ArrayVolume, Volume, VolumeInfo, borrow, read_padded
from tests.geometry.strategies import boxes, boxes_in, vectors

GRID = Grid((40.0, 4.0, 4.0), (80.0, 0.0, 4.0))
few = settings(deadline=None, max_examples=60)


def counted(shape: tuple[int, ...], dtype: Any = np.int64) -> np.ndarray[Any, Any]:
    """An array in which every voxel has its own value."""
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


shapes = vectors(1, 5)
shapes_and_boxes = shapes.flatmap(lambda shape: st.tuples(st.just(shape), boxes_in(shape)))
channels = st.sampled_from([(), (1,), (3,)])


# ---- ArrayVolume ----------------------------------------------------------------------------------------------


@few
@given(shapes_and_boxes, channels)
def test_a_read_returns_the_voxels_of_the_box(drawn: tuple[Vec, Box], lead: tuple[int, ...]) -> None:
    shape, box = drawn
    array = counted((*lead, *shape))
    volume = ArrayVolume(array, GRID)
    out = volume.read(box)
    assert out.shape == (*lead, *box.shape) == volume.info.shape_of(box)
    assert out.dtype == array.dtype
    for z, y, x in product(*(range(n) for n in box.shape)):
        a, b, c = box.start
        assert np.array_equal(out[..., z, y, x], array[..., a + z, b + y, c + x])


@few
@given(shapes_and_boxes, channels)
def test_a_write_replaces_the_box_and_nothing_else(drawn: tuple[Vec, Box], lead: tuple[int, ...]) -> None:
    shape, box = drawn
    volume = ArrayVolume(np.zeros((*lead, *shape), np.uint8), GRID)
    ones = np.ones(volume.info.shape_of(box), np.uint8)
    volume.write(box, ones)
    assert np.array_equal(volume.read(box), ones)
    assert volume.array.sum() == ones.size


def test_a_read_is_a_copy_in_c_order() -> None:
    array = np.asfortranarray(counted((3, 4, 5)))
    out = ArrayVolume(array, GRID).read(Box.whole((3, 4, 4)))
    assert out.flags.c_contiguous
    out[:] = -1
    assert array.min() == 0


def test_voxels_are_lent_where_they_lie_and_read_only() -> None:
    array = counted((4, 5, 6))
    box = Box((1, 1, 2), (2, 3, 4))
    lent = borrow(ArrayVolume(array, GRID), box)
    assert np.array_equal(lent, array[box.slices()])
    assert np.shares_memory(lent, array)
    assert not lent.flags.writeable
    assert array.flags.writeable
    with pytest.raises(InputError, match="leaves"):
        borrow(ArrayVolume(array, GRID), Box((1, 1, 2), (9, 3, 4)))


def test_a_volume_that_reads_in_its_own_way_is_asked_to() -> None:
    class Negative(ArrayVolume):
        def read(self, box: Box) -> np.ndarray[Any, Any]:
            return -super().read(box)

    box = Box((1, 1, 2), (2, 3, 4))
    assert np.array_equal(borrow(Negative(counted((4, 5, 6)), GRID), box), -counted((4, 5, 6))[box.slices()])


def test_an_array_volume_keeps_the_volume_protocol() -> None:
    volume = ArrayVolume(counted((2, 3, 4)), GRID, "raw")
    assert isinstance(volume, Volume)
    assert volume == volume
    assert volume != ArrayVolume(volume.array, GRID, "raw")  # identity: arrays have no cheap equality
    assert {volume: 1}[volume] == 1
    assert np.array_equal(pickle.loads(pickle.dumps(volume)).array, volume.array)


@pytest.mark.fault(
    "values",
    "a box that leaves the volume is read",
    "error: names box and volume",
)
@pytest.mark.parametrize("box", [Box((0, 0, 1), (2, 3, 4)), Box((-1, 0, 0), (1, 1, 1)), Box((9, 9, 9), (1, 1, 1))])
def test_a_box_that_leaves_the_volume_is_refused(box: Box) -> None:
    volume = ArrayVolume(np.zeros((2, 3, 4), np.uint8), GRID, source="raw.h5")
    with pytest.raises(InputError, match=r"leaves raw\.h5, which is box \[0:2, 0:3, 0:4\]"):
        volume.read(box)
    with pytest.raises(InputError, match="leaves"):
        volume.write(box, np.zeros(box.shape, np.uint8))


@given(boxes(max_extent=3, span=5), channels)
@few
def test_an_empty_box_gives_an_empty_array_or_leaves_the_volume(box: Box, lead: tuple[int, ...]) -> None:
    volume = ArrayVolume(np.ones((*lead, 2, 3, 4), np.uint8), GRID)
    nothing = Box(box.start, (0, *box.shape[1:]))
    nothing_voxels = np.zeros((*lead, *nothing.shape), np.uint8)
    if all(a >= 0 and b <= n for a, b, n in zip(nothing.start, nothing.stop, (2, 3, 4), strict=True)):
        assert volume.read(nothing).shape == nothing_voxels.shape
        volume.write(nothing, nothing_voxels)
        assert volume.array.min() == 1
    else:  # numpy would clip the extents that are not empty
        with pytest.raises(InputError, match="leaves"):
            volume.read(nothing)
        with pytest.raises(InputError, match="leaves"):
            volume.write(nothing, nothing_voxels)
    assert read_padded(volume, nothing).shape == nothing_voxels.shape
    assert read_padded(volume, nothing).dtype == np.uint8


@pytest.mark.fault(
    "values",
    "int64 is written into a volume of uint8",
    "error: stores uint8, got int64: convert explicitly",
)
def test_a_write_is_never_converted() -> None:
    volume = ArrayVolume(np.zeros((2, 3, 4), np.uint8), GRID)
    box = Box.whole((2, 3, 4))
    with pytest.raises(InputError, match="stores uint8, got int64: convert explicitly"):
        volume.write(box, np.zeros((2, 3, 4), np.int64))
    with pytest.raises(InputError, match=r"needs an array of shape \(2, 3, 4\), got \(3, 4\)"):
        volume.write(box, np.zeros((3, 4), np.uint8))  # numpy would broadcast it
    four = ArrayVolume(np.zeros((2, 2, 3, 4), np.uint8), GRID)
    with pytest.raises(InputError, match=r"\(2, 2, 3, 4\)"):
        four.write(box, np.zeros((2, 3, 4), np.uint8))


def test_a_read_only_array_says_so() -> None:
    array = np.zeros((2, 3, 4), np.uint8)
    array.flags.writeable = False
    with pytest.raises(InputError, match="read-only"):
        ArrayVolume(array, GRID).write(Box.whole((1, 1, 1)), np.zeros((1, 1, 1), np.uint8))


@pytest.mark.parametrize("ndim", [0, 1, 2, 5])
def test_a_volume_is_zyx_or_czyx(ndim: int) -> None:
    with pytest.raises(InputError, match=f"{ndim} dimensions"):
        ArrayVolume(np.zeros((2,) * ndim), GRID)


# ---- VolumeInfo -----------------------------------------------------------------------------------------------


def test_info_describes_the_array() -> None:
    offsets = ((1, 0, 0), (0, 1, 0), (0, 0, -9))
    info = ArrayVolume(np.zeros((3, 4, 5, 6), np.float32), GRID, "affinities", offsets, "affs.zarr").info
    assert info.axes == "czyx"
    assert info.box == Box.whole((4, 5, 6))
    assert info.array_shape == (3, 4, 5, 6)
    assert info.nbytes == 3 * 4 * 5 * 6 * 4
    assert info.neighborhood == offsets
    one = info.with_(channels=None, kind="raw", neighborhood=None)
    assert (one.axes, one.array_shape, one.nbytes) == ("zyx", (4, 5, 6), 4 * 5 * 6 * 4)


def test_metadata_as_it_is_stored_becomes_exact_values() -> None:
    stored = VolumeInfo(
        np.array([4, 5, 6]),  # type: ignore[arg-type]
        "uint8",  # type: ignore[arg-type]
        GRID,
        1,
        [2, 2, 2],  # type: ignore[arg-type]
        "affinities",
        [[-1, 0, 0]],  # type: ignore[arg-type]
    )
    exact = VolumeInfo((4, 5, 6), np.dtype("uint8"), GRID, 1, (2, 2, 2), "affinities", ((-1, 0, 0),))
    assert stored == exact
    assert hash(stored) == hash(exact)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"kind": "affinities"}, "affinities without offsets"),
        (
            {"kind": "affinities", "channels": 2, "neighborhood": ((1, 0, 0),)},
            "2 channels but a neighborhood of 1",
        ),
        ({"neighborhood": ((1, 0, 0),)}, "one ZYX offset per channel"),
        ({"channels": 1, "neighborhood": ((1, 0),)}, "give three"),
        ({"kind": "label"}, "unknown kind 'label'; did you mean 'labels'"),
        ({"shape": (4, 5.5, 6)}, "whole number"),
        ({"shape": (4, -5, 6)}, "negative extent"),
        ({"shape": (5, 6)}, "give three"),
    ],
)
def test_contradictory_metadata_is_refused(changes: dict[str, Any], rule: str) -> None:
    good = VolumeInfo((4, 5, 6), np.dtype("uint8"), GRID, source="x.zarr")
    with pytest.raises(InputError, match=rule):
        good.with_(**changes)


# ---- read_padded ----------------------------------------------------------------------------------------------


@few
@given(shapes, channels, boxes(max_extent=9, span=12))
def test_padding_is_numpys_reflection(shape: Vec, lead: tuple[int, ...], box: Box) -> None:
    array = counted((*lead, *shape))
    margin = 25  # beyond every box drawn; numpy repeats the reflection as often as needed
    padded = np.pad(array, [(0, 0)] * len(lead) + [(margin, margin)] * 3, mode="reflect")
    expected = padded[..., *box.shift(margin).slices()]
    out = read_padded(ArrayVolume(array, GRID), box)
    assert np.array_equal(out, expected)
    assert out.flags.c_contiguous


@few
@given(shapes, boxes(max_extent=9, span=200), boxes(max_extent=9, span=200))
def test_a_voxel_has_one_value_whatever_box_asks_for_it(shape: Vec, a: Box, b: Box) -> None:
    b = Box(tuple(s + o % 7 - 3 for s, o in zip(a.start, b.start, strict=True)), b.shape)  # type: ignore[arg-type]
    volume = ArrayVolume(counted(shape), GRID)
    shared = a.intersect(b)
    if not shared.is_empty:
        first, second = read_padded(volume, a), read_padded(volume, b)
        assert np.array_equal(first[shared.slices(a.start)], second[shared.slices(b.start)])


@few
@given(shapes_and_boxes)
def test_inside_the_volume_padding_is_reading(drawn: tuple[Vec, Box]) -> None:
    shape, box = drawn
    volume = ArrayVolume(counted(shape), GRID)
    assert np.array_equal(read_padded(volume, box), volume.read(box))


def test_huge_margins_and_single_sections() -> None:
    volume = ArrayVolume(counted((1, 4, 4)), GRID)
    far = read_padded(volume, Box((-(10**12), 6 * 10**12, 0), (3, 6, 4)))
    assert np.array_equal(far[:, :4], np.broadcast_to(volume.array, (3, 4, 4)))  # 6 is the period along y
    assert np.array_equal(far[0], far[2])


def test_padding_reads_only_inside_the_volume() -> None:
    asked = []

    class Spy(ArrayVolume):
        def read(self, box: Box) -> Any:
            asked.append(box)
            return super().read(box)

    volume = Spy(counted((4, 40, 40)), GRID)
    read_padded(volume, Box((-2, -2, 30), (4, 4, 20)))
    assert asked == [Box((0, 0, 29), (3, 3, 11))]  # voxels 40 to 49 along x mirror 38 to 29


@pytest.mark.fault(
    "values",
    "a volume with an axis of 0 voxels is read with margins",
    "error: there is nothing to mirror",
)
def test_a_volume_without_voxels_cannot_be_mirrored() -> None:
    volume = ArrayVolume(np.zeros((0, 4, 4), np.uint8), GRID, source="empty.zarr")
    with pytest.raises(InputError, match=r"empty\.zarr holds no voxel"):
        read_padded(volume, Box.whole((1, 1, 1)))
