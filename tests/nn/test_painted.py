"""Painted volumes: read in any way they are what an obvious loop over voxels says, in any order of pieces."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume, VolumeInfo
from emloom.nn.painted import (
    ALL,
    DensePiece,
    PaintedVolume,
    Palette,
    Piece,
    VolumePiece,
    is_blank,
    voxel_piece,
)
from emloom.ops.classsets import SETS

SHAPE = (5, 6, 7)
WHOLE = Box.whole(SHAPE)
RAW = VolumeInfo(SHAPE, np.dtype(np.uint8), Grid((4.0, 4.0, 4.0)))
N = 4
IDS = {0: (0, 7), 1: (2, 9), 3: (1, 300)}  # class 2 is painted, but nobody learns it
SETS_PAINTED = [
    frozenset({0}),
    frozenset({1}),
    frozenset({2}),
    frozenset({3}),
    frozenset({0, 3}),
    frozenset({1, 2}),
]
Possible = dict[tuple[int, int, int], frozenset[int]]

boxes = st.tuples(*(st.integers(0, n - 1) for n in SHAPE)).flatmap(
    lambda low: st.tuples(
        st.just(low), st.tuples(*(st.integers(a + 1, n) for a, n in zip(low, SHAPE, strict=True)))
    )
)


@st.composite
def pieces(draw: st.DrawFn) -> tuple[Piece, Possible]:
    """Return a piece of some kind, and what it says, voxel by voxel."""
    palette = Palette(SETS_PAINTED, N)
    low, high = draw(boxes)
    box = Box.of(low, high)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    number = rng.integers(-1, len(SETS_PAINTED), box.shape)  # -1 is undefined
    says = {
        tuple(int(a + b) for a, b in zip(low, at, strict=True)): SETS_PAINTED[number[at]]
        for at in np.ndindex(box.shape)
        if number[at] >= 0
    }
    codes = np.array([palette.code(each) for each in SETS_PAINTED], np.uint16)
    table = np.append(codes, np.uint16(ALL))
    kind = draw(st.sampled_from(["dense", "voxels", "volume"]))
    if kind == "volume":
        volume = ArrayVolume((number + 11).astype(np.uint16), RAW.grid)
        known = np.arange(11, 11 + len(SETS_PAINTED)).astype(np.uint16)
        return VolumePiece("v", box.start, volume, known, codes), says  # type: ignore[return-value]
    if kind == "voxels" and says:
        order = rng.permutation(len(says))
        at = np.array(list(says), np.int64)[order]
        values = np.array([palette.code(each) for each in says.values()], np.uint16)[order]
        return voxel_piece("p", np.repeat(at, 2, axis=0), np.repeat(values, 2)), says  # type: ignore[return-value]
    return DensePiece("d", box.start, table[number]), says  # type: ignore[return-value]


def reference(all_say: list[Possible]) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.int64]]:
    """Return (ids, known, contradictions), one voxel after the other."""
    ids, known, wrong = np.zeros(SHAPE, np.uint64), np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.int64)
    for at in product(*map(range, SHAPE)):
        possible = set(range(N))
        for says in all_say:
            possible &= says.get(at, frozenset(range(N)))
        wrong[at] = not possible
        if not possible or len(possible) == N or 2 in possible:
            continue
        known[at] = 1
        if len(possible) == 1:
            ids[at] = IDS[next(iter(possible))][1]
        else:
            ids[at] = SETS + sum(1 << IDS[each][0] for each in possible)
    return ids, known, wrong


@settings(max_examples=60, deadline=None)
@given(st.lists(pieces(), min_size=1, max_size=4), boxes)
def test_whatever_is_read_is_what_the_pieces_leave_possible(
    made: list[tuple[Piece, Possible]], part: tuple[tuple[int, int, int], tuple[int, int, int]]
) -> None:
    palette = Palette(SETS_PAINTED, N)
    volume = PaintedVolume(tuple(piece for piece, _ in made), palette, IDS, RAW)
    ids, known, _ = reference([says for _, says in made])
    assert (volume.read(WHOLE) == ids).all()
    assert (volume.known.read(WHOLE) == known).all()
    box = Box.of(*part)
    assert (volume.read(box) == ids[box.slices()]).all()
    assert (volume.known.read(box) == known[box.slices()]).all()
    assert not (is_blank(volume, box) and known[box.slices()].any())
    turned = PaintedVolume(tuple(piece for piece, _ in reversed(made)), palette, IDS, RAW)
    assert (turned.read(WHOLE) == ids).all()


@settings(max_examples=30, deadline=None)
@given(st.lists(pieces(), min_size=2, max_size=2))
def test_contradictions_are_counted(made: list[tuple[Piece, Possible]]) -> None:
    (a, says_a), (b, says_b) = made
    volume = PaintedVolume((a, b), Palette(SETS_PAINTED, N), IDS, RAW)
    count = sum(volume.conflicts().values())
    assert count == reference([says_a, says_b])[2].sum()


def test_ids_are_stored_in_as_few_bytes_as_they_need() -> None:
    piece = DensePiece("d", (0, 0, 0), np.zeros((1, 1, 1), np.uint16))
    for sets, dtype in (([{0}, {3}], np.uint16), ([{0}, {0, 1}], np.uint64)):
        palette = Palette([frozenset(each) for each in sets], N)
        assert PaintedVolume((piece,), palette, IDS, RAW).info.dtype == dtype
    small = PaintedVolume((piece,), Palette([frozenset({0})], N), {0: (0, 1)}, RAW)
    assert small.info.dtype == np.uint8


def test_a_voxel_that_stands_twice_with_different_values_is_unknown() -> None:
    voxels = np.array([[1, 1, 1], [0, 0, 0], [1, 1, 1], [2, 2, 2], [2, 2, 2]])
    piece = voxel_piece("p", voxels, np.array([2, 3, 4, 5, 5], np.uint16))
    assert piece.voxels.tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert piece.values.tolist() == [3, ALL, 5]


def test_reading_outside_and_writing_are_refused() -> None:
    volume = PaintedVolume((), Palette([], N), IDS, RAW)
    assert not volume.read(WHOLE).any()
    with pytest.raises(InputError, match="leaves"):
        volume.read(Box((0, 0, 0), (1, 1, 8)))
    with pytest.raises(InputError, match="read-only"):
        volume.write(WHOLE, np.zeros(SHAPE, np.uint8))


def test_only_the_first_classes_can_hide() -> None:
    ids = {k: (k, k + 1) for k in range(70)}
    with pytest.raises(InputError, match="only the first 62"):
        PaintedVolume((), Palette([frozenset({3, 65})], 70), ids, RAW)
    assert PaintedVolume((), Palette([frozenset({3, 61})], 70), ids, RAW).info.dtype == np.uint64
