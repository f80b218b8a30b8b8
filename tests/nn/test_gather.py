"""The torch gather against the numba one, which the tests of `ops` hold against SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.nn.gather import gather_batch, gather_torch
from emloom.ops.deformation import CoordinateMap, Elastic, control_shape, coordinate_map, linear_map
from emloom.ops.resample import TABLE_SIZE, LabelPart, Moves, RawPart, gather, part_to_read

SHAPE = (5, 33, 40)
RAW_PART, LABEL_PART = Box((0, 2, 0), (5, 30, 37)), Box((1, 0, 3), (3, 33, 37))
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
Sample = tuple[CoordinateMap, RawPart, LabelPart]


def still() -> tuple[Moves, Moves]:
    return Moves.none(SHAPE[0]), Moves.none(SHAPE[0])


def shaken(rng: np.random.Generator) -> tuple[Moves, Moves]:
    raw, labels = still()
    raw.shift[:] = rng.integers(-4, 5, raw.shift.shape)
    labels.shift[:] = rng.integers(-4, 5, raw.shift.shape)
    angle = rng.uniform(0, np.pi)
    raw.folds[2] = (np.sin(angle), np.cos(angle), 20.0, 3.3)
    labels.folds[3] = (np.cos(angle), np.sin(angle), 11.0, 2.1)
    return raw, labels


def warp(rng: np.random.Generator, along_z: bool) -> CoordinateMap:
    spacing, sigma = (3.0, 15.0, 15.0), (0.6 if along_z else 0.0, 1.5, 1.5)
    normals = rng.standard_normal((2 + along_z, *control_shape(SHAPE, spacing)))
    return coordinate_map(SHAPE, linear_map(rng.uniform(0, 360), 1.1, 5.0), Elastic(spacing, sigma, normals))


def sources(
    rng: np.random.Generator, shape: tuple[int, int, int], dtypes: tuple[Any, Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.uint8]]:
    """Return views, turned and read-only as those of a sample are: raw, labels up to the largest id, known."""
    raw = rng.integers(0, 256, shape[::-1]).astype(dtypes[0]).T[::-1, :, ::-1]
    labels = rng.integers(0, np.iinfo(dtypes[1]).max, shape, dtypes[1], endpoint=True)[:, ::-1]
    known = rng.integers(0, 2, shape, np.uint8)
    for array in (raw, labels):
        array.flags.writeable = False
    return raw, labels, known


def sample(
    rng: np.random.Generator, mapping: CoordinateMap, moves: tuple[Moves, Moves], dtypes: tuple[Any, Any]
) -> Sample:
    tables = rng.uniform(-1, 1, (SHAPE[0], TABLE_SIZE + 1)).astype(np.float32).cumsum(axis=1) / TABLE_SIZE
    toned = np.array([1, 0, 1, 1, 0], np.uint8)
    box = part_to_read(mapping, RAW_PART, moves[0])
    raw, _, _ = sources(rng, box.shape, dtypes)
    of_raw = RawPart(RAW_PART, moves[0], raw, box.start, (0.0, 255.0), tables.astype(np.float32), toned)
    box = part_to_read(mapping, LABEL_PART, moves[1])
    _, labels, known = sources(rng, box.shape, dtypes)
    return mapping, of_raw, LabelPart(LABEL_PART, moves[1], labels, known, box.start)


def check(ours: tuple[torch.Tensor, ...], asked: Sample, most_ties: float) -> None:
    wanted = gather(*asked)
    assert [t.dtype for t in ours] == [torch.float32, torch.int64, torch.uint8]
    np.testing.assert_allclose(ours[0].cpu().numpy(), wanted[0], rtol=0, atol=2e-5)
    for mine, theirs in zip(ours[1:], wanted[1:], strict=True):
        assert (mine.cpu().numpy() != theirs.astype(np.int64)).mean() <= most_ties


@pytest.mark.parametrize("device", DEVICES)
@given(
    st.integers(0, 999),
    st.booleans(),
    st.sampled_from([(np.uint8, np.uint64), (np.uint16, np.uint32), (np.float32, np.uint8)]),
)
@settings(deadline=None, max_examples=25)
def test_torch_gathers_what_numba_gathers(device: str, seed: int, along_z: bool, dtypes: tuple[Any, Any]) -> None:
    rng = np.random.default_rng(seed)
    asked = sample(rng, warp(rng, along_z), shaken(rng), dtypes)
    # A label may differ where a position lies within rounding of the middle between two voxels.
    check(gather_torch(*asked, device), asked, 1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_the_identity_copies_bit_for_bit(device: str) -> None:
    rng = np.random.default_rng(0)
    mapping, raw, labels = sample(rng, coordinate_map(SHAPE), still(), (np.uint8, np.uint64))
    plain = RawPart(**{**vars(raw), "toned": np.zeros(SHAPE[0], np.uint8)})
    got, ids, known = gather_torch(mapping, plain, labels, device)
    wanted = raw.source.astype(np.float32) * np.float32(2.0 / 255.0) - np.float32(1.0)
    assert np.array_equal(got.cpu().numpy(), wanted[RAW_PART.slices(raw.origin)])
    at = LABEL_PART.slices(labels.origin)
    assert np.array_equal(ids.cpu().numpy().view(np.uint64), labels.source[at])
    assert np.array_equal(known.cpu().numpy(), labels.known[at])


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_is_its_samples(device: str) -> None:
    rng = np.random.default_rng(1)
    samples = [sample(rng, warp(rng, along_z), shaken(rng), (np.uint8, np.uint32)) for along_z in (False, True)]
    together = gather_batch(samples, device)
    assert together[0].shape == (2, *RAW_PART.shape)
    for i, asked in enumerate(samples):
        for whole, alone in zip(together, gather_torch(*asked, device), strict=True):
            assert torch.equal(whole[i], alone)


def test_everything_is_known_where_nothing_is_said() -> None:
    rng = np.random.default_rng(2)
    mapping, raw, labels = sample(rng, warp(rng, False), still(), (np.uint8, np.uint16))
    silent = LabelPart(**{**vars(labels), "known": np.zeros((0, 0, 0), np.uint8)})
    assert gather_torch(mapping, raw, silent)[2].all()


def test_sources_are_only_read() -> None:
    rng = np.random.default_rng(3)
    asked = sample(rng, warp(rng, True), shaken(rng), (np.float32, np.uint64))
    arrays = [asked[1].source, asked[1].tables, asked[2].source, asked[2].known, asked[0].nodes]
    before = [array.tobytes() for array in arrays]
    gather_torch(*asked)
    assert before == [array.tobytes() for array in arrays]
