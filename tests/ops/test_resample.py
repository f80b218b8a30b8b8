"""The gather: against SciPy, against prediction's preprocessing, and on ramps that show where voxels came from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.ops.deformation import CoordinateMap, Elastic, control_shape, coordinate_map, linear_map
from emloom.ops.resample import TABLE_SIZE, LabelPart, Moves, RawPart, gather, gather_reference, part_to_read

SHAPE = (5, 33, 40)
RAW_PART, LABEL_PART = Box((0, 2, 0), (5, 30, 37)), Box((1, 0, 3), (3, 33, 37))
NOTHING = np.zeros((0, 0, 0), np.uint8)


def parts(
    mapping: CoordinateMap,
    raw: NDArray[Any],
    labels: NDArray[Any],
    moves: tuple[Moves, Moves],
    tables: NDArray[np.float32] | None = None,
) -> tuple[RawPart, LabelPart]:
    """Read the sources as a sample does: mirrored where they end."""
    toned = np.full(SHAPE[0], tables is not None, np.uint8)
    if tables is None:
        tables = np.zeros((SHAPE[0], TABLE_SIZE + 1), np.float32)
    box = part_to_read(mapping, RAW_PART, moves[0])
    of_raw = RawPart(RAW_PART, moves[0], read(raw, box), box.start, (0.0, 255.0), tables, toned)
    box = part_to_read(mapping, LABEL_PART, moves[1])
    known = (read(labels, box) % 3 != 0).astype(np.uint8)
    return of_raw, LabelPart(LABEL_PART, moves[1], read(labels, box), known, box.start)


def read(array: NDArray[Any], box: Box) -> NDArray[Any]:
    index = [np.clip(np.arange(a, b), 0, n - 1) for a, b, n in zip(box.start, box.stop, array.shape, strict=True)]
    return np.ascontiguousarray(array[np.ix_(*index)])


def warp(seed: int, along_z: bool, rotation: float = 25.0) -> CoordinateMap:
    spacing = (3.0, 15.0, 15.0)
    sigma = (0.6 if along_z else 0.0, 1.5, 1.5)
    normals = np.random.default_rng(seed).standard_normal((2 + along_z, *control_shape(SHAPE, spacing)))
    return coordinate_map(SHAPE, linear_map(rotation, 1.1, 5.0), Elastic(spacing, sigma, normals))


def shaken(seed: int) -> tuple[Moves, Moves]:
    rng = np.random.default_rng(seed)
    raw, labels = Moves.none(SHAPE[0]), Moves.none(SHAPE[0])
    raw.shift[:] = rng.integers(-4, 5, raw.shift.shape)
    labels.shift[:] = np.where(rng.random(SHAPE[0]) < 0.5, 0, 1)[:, None] * raw.shift
    angle = rng.uniform(0, np.pi)
    raw.folds[2] = (np.sin(angle), np.cos(angle), 20.0, 3.3)
    return raw, labels


@given(st.integers(0, 999), st.booleans(), st.sampled_from([np.uint8, np.uint16, np.float32]))
@settings(deadline=None, max_examples=25)
def test_the_kernel_equals_scipy(seed: int, along_z: bool, dtype: type) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 255, SHAPE).astype(dtype)
    labels = rng.integers(0, 2**63, SHAPE).astype(np.uint64)
    mapping = warp(seed, along_z)
    tables = rng.uniform(-1, 1, (SHAPE[0], TABLE_SIZE + 1)).astype(np.float32).cumsum(axis=1) / TABLE_SIZE
    asked = parts(mapping, raw, labels, shaken(seed), tables.astype(np.float32))
    ours, wanted = gather(mapping, *asked), gather_reference(mapping, *asked)
    assert np.abs(ours[0] - wanted[0]).max() < 2e-3
    # A label may differ where a position lies within rounding of the middle between two voxels.
    for mine, theirs in zip(ours[1:], wanted[1:], strict=True):
        assert mine.dtype == theirs.dtype
        assert (mine != theirs).mean() < 2e-3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_identity_is_the_preprocessing_bit_for_bit(dtype: type) -> None:
    raw = np.random.default_rng(0).integers(0, 255, SHAPE).astype(dtype)
    labels = np.arange(raw.size, dtype=np.uint64).reshape(SHAPE)
    still = (Moves.none(SHAPE[0]), Moves.none(SHAPE[0]))
    mapping = coordinate_map(SHAPE)
    got, ids, _ = gather(mapping, *parts(mapping, raw, labels, still))
    wanted = (raw.astype(np.float32) - np.float32(0)) * np.float32(2.0 / 255.0) - np.float32(1.0)
    assert np.array_equal(got, wanted[RAW_PART.slices()])
    assert np.array_equal(ids, labels[LABEL_PART.slices()])


def test_raw_and_labels_move_together_on_ramps() -> None:
    """At whole-voxel displacements the ramps agree exactly; elsewhere labels are the nearest voxel's."""
    _, y, x = np.indices((5, 60, 60))
    ramp = (y * 60 + x).astype(np.float32)
    labels = (y * 60 + x).astype(np.uint32)
    moves = Moves.none(SHAPE[0])
    moves.shift[:] = np.random.default_rng(1).integers(-6, 7, moves.shift.shape)
    mapping = coordinate_map(SHAPE, linear_map(90))
    box = part_to_read(mapping, LABEL_PART, moves)
    raw = RawPart(
        LABEL_PART,
        moves,
        read(ramp, box),
        box.start,
        (0.0, 2.0),
        np.zeros((5, 1), np.float32),
        np.zeros(5, np.uint8),
    )
    got, ids, known = gather(mapping, raw, LabelPart(LABEL_PART, moves, read(labels, box), NOTHING, box.start))
    assert known.all()
    # A quarter turn about the centre of an odd-even frame lies between voxels: half a voxel at most.
    assert np.abs((got + 1) - ids).max() <= 60 * 0.5 + 0.5 + 0.1


@given(st.integers(0, 99))
@settings(deadline=None, max_examples=10)
def test_labels_are_a_subset_of_the_source(seed: int) -> None:
    labels = np.random.default_rng(seed).integers(1, 2**63, SHAPE).astype(np.uint64)
    mapping = warp(seed, True)
    asked = parts(mapping, np.zeros(SHAPE, np.uint8), labels, shaken(seed))
    _, ids, _ = gather(mapping, *asked)
    assert np.isin(ids, labels).all()


def test_sources_are_only_read() -> None:
    raw = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
    mapping = warp(0, False)
    asked = parts(mapping, raw, raw.astype(np.uint32), shaken(0))
    asked[0].source.flags.writeable = False
    asked[1].source.flags.writeable = False
    before = asked[0].source.tobytes(), asked[1].source.tobytes()
    gather(mapping, *asked)
    assert before == (asked[0].source.tobytes(), asked[1].source.tobytes())


def test_turned_views_are_gathered_as_copies_are() -> None:
    raw = np.random.default_rng(0).integers(0, 255, (40, 33, 5)).astype(np.uint8).T[:, ::-1, ::-1]
    mapping = warp(3, True)
    view = parts(mapping, raw, raw.astype(np.uint16), shaken(3))
    turned = RawPart(**{**vars(view[0]), "source": np.asfortranarray(view[0].source)})
    labels = LabelPart(**{**vars(view[1]), "source": np.asfortranarray(view[1].source)})
    for a, b in zip(gather(mapping, *view), gather(mapping, turned, labels), strict=True):
        assert np.array_equal(a, b)
