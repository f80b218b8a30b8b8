"""Affinities: each channel against its definition, voxel by voxel."""

import itertools

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.ops.affinities import affinities, nearest_neighborhood, neighborhood

shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
offset = st.tuples(*[st.integers(-7, 7)] * 3).filter(any)


def by_definition(labels, offset, mask):
    same, valid = np.zeros(labels.shape, np.uint8), np.zeros(labels.shape, np.uint8)
    for p in itertools.product(*map(range, labels.shape)):
        q = tuple(np.add(p, offset))
        if all(0 <= a < n for a, n in zip(q, labels.shape, strict=True)):
            same[p] = labels[p] == labels[q] != 0
            valid[p] = mask[p] and mask[q]
    return same, valid


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.uint64, shapes, elements=st.sampled_from([0, 1, 2, 2**62, 2**63 - 1])),
    st.lists(offset, min_size=1, max_size=3, unique=True),
    st.integers(0, 2**32),
)
def test_equals_the_definition(labels, offsets, seed):
    mask = np.random.default_rng(seed).random(labels.shape) < 0.8
    same, valid = affinities(labels, offsets, mask_ZYX=mask)
    assert same.dtype == valid.dtype == np.uint8
    for channel, o in enumerate(offsets):
        expected = by_definition(labels, o, mask)
        np.testing.assert_array_equal(same[channel], expected[0])
        np.testing.assert_array_equal(valid[channel], expected[1])
    np.testing.assert_array_equal(affinities(labels, offsets)[0], same)
    np.testing.assert_array_equal(
        affinities(labels, offsets)[1], affinities(labels, offsets, mask_ZYX=np.ones_like(mask))[1]
    )


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.uint64, shapes, elements=st.sampled_from([0, 1, 2, 2**32 + 1, 2**62])),
    st.lists(offset, min_size=1, max_size=4, unique=True),
    st.data(),
)
def test_a_box_holds_what_the_whole_holds_there(labels, offsets, data):
    low = tuple(data.draw(st.integers(0, n)) for n in labels.shape)
    box = Box.of(low, tuple(data.draw(st.integers(a, n)) for a, n in zip(low, labels.shape, strict=True)))
    mask = data.draw(st.none() | hnp.arrays(np.bool_, labels.shape))
    whole = affinities(labels, offsets, mask_ZYX=mask)
    part = affinities(labels, offsets, mask_ZYX=mask, box=box)
    for a, b in zip(part, whole, strict=True):
        np.testing.assert_array_equal(a, b[:, *box.slices()])


@settings(deadline=None, max_examples=60)
@given(
    hnp.arrays(np.uint8, shapes, elements=st.integers(0, 3)),
    st.lists(offset, min_size=1, max_size=3, unique=True),
    st.permutations([1, 2**16, 2**63 - 1]),
    st.sampled_from([">u8", "<u8"]),
)
def test_ids_themselves_and_their_type_do_not_matter(labels, offsets, ids, dtype):
    renamed = np.array([0, *ids], np.uint64)[labels].astype(dtype)
    for a, b in zip(affinities(labels, offsets), affinities(renamed, offsets), strict=True):
        np.testing.assert_array_equal(a, b)
    for narrow in (np.uint16, np.uint32, ">u4"):
        np.testing.assert_array_equal(
            affinities(labels.astype(narrow), offsets)[0], affinities(labels, offsets)[0]
        )


def test_ids_that_agree_in_their_low_bits_stay_different():
    labels = np.array([[[1, 1 + 2**32, 2**53, 2**53 + 1]]], np.uint64)
    assert not affinities(labels, [(0, 0, -1)])[0].any()


def test_opposite_offsets_hold_the_same_pairs():
    labels = np.random.default_rng(0).integers(0, 3, (5, 6, 7)).astype(np.uint8)
    same, _ = affinities(labels, [(0, -2, 1), (0, 2, -1)])
    np.testing.assert_array_equal(same[0, :, 2:, :-1], same[1, :, :-2, 1:])


def test_neighborhood_helpers():
    assert nearest_neighborhood() == ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    assert neighborhood(1, (0, 9, 8)) == (*nearest_neighborhood(), (0, -9, 0), (0, 0, -8))


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.bool_])
def test_rejects_labels_that_are_not_unsigned(dtype):
    with pytest.raises(InputError, match="unsigned"):
        affinities(np.ones((2, 2, 2), dtype), nearest_neighborhood())


@pytest.mark.parametrize("bad", [[], [(0, 0, 0)], [(1, 0)], [(-1, 0, 0), (-1, 0, 0)], [(0.5, 0, 0)]])
def test_rejects_bad_neighborhoods(bad):
    with pytest.raises(InputError):
        affinities(np.ones((2, 2, 2), np.uint8), bad)


def test_rejects_ids_above_two_to_the_63_and_wrong_masks():
    with pytest.raises(InputError, match=r"2\*\*63"):
        affinities(np.full((1, 1, 1), 2**63, np.uint64), nearest_neighborhood())
    with pytest.raises(InputError, match="mask has shape"):
        affinities(np.ones((2, 2, 2), np.uint8), nearest_neighborhood(), mask_ZYX=np.ones((2, 2, 1), bool))
    with pytest.raises(InputError, match="mask has dtype"):
        affinities(np.ones((2, 2, 2), np.uint8), nearest_neighborhood(), mask_ZYX=np.ones((2, 2, 2)))
    with pytest.raises(InputError, match="leaves"):
        affinities(np.ones((2, 2, 2), np.uint8), nearest_neighborhood(), box=Box((1, 0, 0), (2, 1, 1)))
    with pytest.raises(InputError, match="lower voxels"):
        neighborhood(-1)


@pytest.mark.real_data
def test_reference_affinities(real_data):
    with h5py.File(real_data / "lsd_golden_fib25" / "crop.h5") as file:
        labels, golden = file["labels"][:], file["gt_affs"][:]
    same, valid = affinities(labels, nearest_neighborhood())
    # The first plane of the reference saw labels beyond this crop.
    np.testing.assert_array_equal(same[valid == 1], golden[valid == 1])
    assert valid.mean() > 0.98
