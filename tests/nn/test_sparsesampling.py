"""Crops of painted pieces: every class alike, none around what is undefined, the drawn voxel in the middle."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from emloom.errors import InputError
from emloom.geometry import Box, Vec
from emloom.io.volume import ArrayVolume, VolumeInfo
from emloom.nn.crops import TrainingVolume
from emloom.nn.painted import ALL, DensePiece, PaintedVolume, Palette, VoxelPiece
from emloom.nn.paintedindex import PaintedIndex, index_groups
from emloom.nn.sampling import CropSampler
from emloom.nn.strategies import Balanced, Foreground
from emloom.nn.voxelindex import Groups, index_voxels
from emloom.ops.classsets import SETS
from tests.nn.lots import GRID, rng_of

SHAPE = (30, 34, 38)
IDS = {0: (0, 3), 1: (1, 7), 2: (2, 0)}
PALETTE = Palette([frozenset({0}), frozenset({1}), frozenset({2}), frozenset({0, 2})], 3)


def painted(shares: tuple[float, ...] = (0.6, 0.1, 0.02, 0.02)) -> TrainingVolume:
    """Two planes that cross, with undefined voxels, classes of very different size and sets; and some points."""
    rng = np.random.default_rng(3)
    codes = np.array([PALETTE.code(frozenset(s)) for s in ({0}, {1}, {2}, {0, 2})] + [ALL], np.uint16)
    world = rng.choice(codes, SHAPE, p=[*shares, 1 - sum(shares)])
    pieces = (
        DensePiece("xy", (15, 0, 0), world[15:16]),
        DensePiece("xz", (5, 17, 8), world[5:25, 17:18, 8:]),
        VoxelPiece("points", np.array([[2, 3, 4], [29, 33, 37]]), codes[[1, 1]]),
    )
    raw = ArrayVolume(np.zeros(SHAPE, np.uint8), GRID, source="raw")
    volume = PaintedVolume(pieces, PALETTE, IDS, raw.info)
    return TrainingVolume(raw, volume, Box.whole(SHAPE), (Box((14, 20, 0), (3, 9, 9)),), volume.known)


def centre_of(start: Vec, crop: Vec) -> Vec:
    z, y, x = (s + n // 2 for s, n in zip(start, crop, strict=True))
    return (z, y, x)


def arrays(volume: TrainingVolume) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    assert volume.labels is not None
    assert volume.mask is not None
    whole = Box.whole(SHAPE)
    return volume.labels.read(whole).astype(np.uint64), volume.mask.read(whole) != 0


@pytest.mark.parametrize("crop", [(1, 1, 1), (5, 4, 7)])
def test_every_sample_is_of_a_labelled_voxel_and_classes_come_alike(crop: Vec) -> None:
    """Regression: the originals spent a quarter of their samples on undefined voxels."""
    volume = painted()
    ids, known = arrays(volume)
    sampler = CropSampler([volume], Balanced(place="centre", min_known=0.0), crop)
    assert sampler.classes == (0, 3, 7)  # sets of classes are no class, but drawn as often as one
    ids = np.where(ids >= SETS, -1, ids.astype(np.int64))
    seen: Counter[int] = Counter()
    n = 1500
    for index in range(n):
        draw = sampler.draw(rng_of(1, 0, index))
        box = Box(draw.start, crop)
        assert volume.allows(box)
        wanted = -1 if draw.reason == "a set of classes" else int(draw.reason.removeprefix("class "))
        seen[wanted] += 1
        centre = centre_of(draw.start, crop)
        if ids[centre] != wanted or not known[centre]:  # only where region or held-out box pushed the crop away
            assert (known[box.slices()] & (ids[box.slices()] == wanted)).any()
            assert any(
                a == 0 or b == m or not volume.allows(box.shift(by))
                for by in np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)]).tolist()
                for a, b, m in zip(box.start, box.stop, SHAPE, strict=True)
            )
            assert crop != (1, 1, 1)
    assert set(seen) == {-1, 0, 3, 7}
    square = sum((seen[c] - n / 4) ** 2 / (n / 4) for c in seen)
    assert chi2.sf(square, 3) > 1e-6


def test_pieces_of_which_only_sets_are_known_are_drawn() -> None:
    volume = painted((0.0, 0.0, 0.0, 0.2))
    assert isinstance(volume.labels, PaintedVolume)
    only = replace(volume.labels, pieces=volume.labels.pieces[:2])
    sampler = CropSampler([replace(volume, labels=only, mask=only.known)], Balanced(min_known=0.0), (1, 1, 1))
    assert {sampler.draw(rng_of(0, 0, k)).reason for k in range(20)} == {"a set of classes"}


def test_within_a_class_every_voxel_comes_alike() -> None:
    volume = painted((0.02, 0.02, 0.02, 0.02))
    ids, known = arrays(volume)
    free = np.ones(SHAPE, bool)
    free[volume.held_out[0].slices()] = False
    sampler = CropSampler([volume], Balanced(classes=(7,), place="centre", min_known=0.0), (1, 1, 1))
    n = 3000
    seen = Counter(sampler.draw(rng_of(2, 0, index)).start for index in range(n))
    expected = {tuple(v) for v in np.argwhere((ids == 7) & known & free).tolist()}
    assert set(seen) <= expected
    mean = n / len(expected)
    square = sum((seen[v] - mean) ** 2 / mean for v in expected)  # type: ignore[index]
    assert mean > 5
    assert chi2.sf(square, len(expected) - 1) > 1e-6


def test_a_crop_that_nobody_can_know_enough_of_is_refused() -> None:
    said = r"min_known 0.5 asks .* \(32, 32, 32\) voxels .* cover 1,024, or 3.1%, at best: set min_known to 0"
    big = painted()
    raw = ArrayVolume(np.zeros((64, 64, 64), np.uint8), GRID, source="raw")
    piece = DensePiece("xy", (9, 0, 0), np.full((1, 64, 64), PALETTE.code(frozenset({0})), np.uint16))
    volume = PaintedVolume((piece,), PALETTE, IDS, raw.info)
    for spec in (Balanced(), Foreground(), Balanced(place="centre")):
        with pytest.raises(InputError, match=said):
            CropSampler(
                [TrainingVolume(raw, volume, Box.whole((64, 64, 64)), (), volume.known)], spec, (32, 32, 32)
            )
    assert CropSampler([big], Balanced(min_known=0.3), (1, 8, 8))


def test_the_list_of_painted_voxels_is_what_reading_finds() -> None:
    volume = painted()
    ids, known = arrays(volume)
    assert isinstance(volume.labels, PaintedVolume)
    voxels, found = volume.labels.voxels()
    assert (voxels == np.argwhere(known)).all()
    assert (found == ids[known]).all()
    assert volume.mask is not None
    starts = CropSampler([volume], Balanced(min_known=0.0), (3, 4, 5)).allowed(0)
    for groups in (
        Groups(volume.labels, None, volume.mask, background=True),
        Groups(volume.labels, (3, 0), volume.mask),
        Groups(volume.labels, None, volume.mask, merged=True),
    ):
        fast, slow = index_groups(groups, starts, (3, 4, 5)), index_voxels(groups, starts, (3, 4, 5))
        assert isinstance(fast, PaintedIndex)
        assert fast.ids.tolist() == slow.ids.tolist()
        assert fast.sizes.tolist() == slow.sizes.tolist()


def test_nothing_is_read_where_nothing_is_painted() -> None:
    """A volume of terabytes is indexed as fast as its pieces are large."""
    info = VolumeInfo((100_000, 100_000, 100_000), np.dtype(np.uint8), GRID, source="raw")
    piece = DensePiece("xy", (50_000, 777, 999), np.full((1, 9, 8), PALETTE.code(frozenset({1})), np.uint16))
    volume = PaintedVolume((piece,), PALETTE, IDS, info)
    assert volume.read(Box((50_000, 780, 1000), (2, 2, 2))).tolist() == [[[7, 7]] * 2, [[0, 0]] * 2]
    assert not volume.occupied(Box((0, 0, 0), (50_000, 100_000, 100_000)))
