"""Targets of synapses: against voxel-by-voxel definitions; ids and not rows; unknown is not background."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import open_volume
from emloom.ops.synapse_targets import Crop, Sites, cleft_mask, owners_at, partner_vectors, site_mask

GRID = Grid((40.0, 4.0, 5.0), (80.0, -12.0, 5.0))
SHAPE = (4, 11, 9)
light = settings(deadline=None, max_examples=40)


def scattered(n, seed, spread=1.3):
    """Sites in and around the array, with ids that do not fit into 32 bits and stand in no order."""
    rng = np.random.default_rng(seed)
    ids = rng.choice(2**50, n, replace=False).astype(np.uint64) + np.uint64(1)
    middle = (rng.random((n, 3)) - 0.5) * spread + 0.5
    return ids, np.array(GRID.offset_nm) + middle * SHAPE * np.array(GRID.voxel_size_nm)


def neurons(seed):
    ids = np.array([0, 7, 2**40, 2**63 - 1], np.uint64)
    return ids[np.random.default_rng(seed).integers(0, 4, SHAPE)]


def ball_by_definition(at, owner, radius, inside):
    ball = np.zeros(SHAPE, bool)
    home = np.array(GRID.centre(GRID.containing(at)))
    for p in np.ndindex(SHAPE):
        near = np.linalg.norm(np.array(GRID.centre(p)) - home) <= radius + 1e-6
        ball[p] = near and (owner == 0 or inside[p] == owner)
    return ball


@light
@given(st.integers(0, 8), st.integers(0, 1000), st.sampled_from([0.0, 10.0, 12.0, 45.0]), st.booleans())
def test_site_masks_are_balls_within_their_neuron(n, seed, radius, masked):
    ids, at = scattered(n, seed)
    inside = neurons(seed)
    owners = owners_at(inside, GRID, at)
    mask = np.random.default_rng(seed).random(SHAPE) < 0.7 if masked else None
    target, weight = site_mask(Sites(ids, at, owners), Crop(GRID, SHAPE, inside, mask), radius)
    expected = np.zeros(SHAPE, bool)
    for p, owner in zip(at, owners.tolist(), strict=True):
        expected |= ball_by_definition(p, owner, radius, inside)
    known = np.ones(SHAPE, bool) if mask is None else mask
    np.testing.assert_array_equal(weight, known)
    np.testing.assert_array_equal(target, expected & known)


def test_a_site_has_a_voxel_however_thick_the_section():
    at = np.array([[80.0, -12.0, 5.0]])  # the corner of voxel 0, 20 nm from its centre
    target, _ = site_mask(Sites(np.array([3], np.uint64), at), Crop(GRID, SHAPE), 10.0)
    assert target[0, 0, 0] == 1
    assert target[1:].sum() == 0


def test_owners_are_looked_up_where_the_sites_are():
    inside = neurons(0)
    centres = np.array([GRID.centre(p) for p in np.ndindex(SHAPE)])
    np.testing.assert_array_equal(owners_at(inside, GRID, centres), inside.ravel())
    outside = np.array([GRID.centre((-1, 0, 0)), GRID.centre((0, 0, SHAPE[2]))])
    np.testing.assert_array_equal(owners_at(inside, GRID, outside), [0, 0])
    assert owners_at(inside, GRID, np.zeros((0, 3))).shape == (0,)


@light
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000), st.randoms(use_true_random=False))
def test_rows_do_not_matter(n_pre, n_post, seed, random):
    ids, at = scattered(n_pre + n_post, seed)
    pairs = [(ids[i], ids[n_pre + j]) for i in range(n_pre) for j in range(n_post) if random.random() < 0.6]
    partners = np.array(pairs, np.uint64).reshape(-1, 2)
    pre, post = Sites(ids[:n_pre], at[:n_pre]), Sites(ids[n_pre:], at[n_pre:])
    a, b = (random.sample(range(n), n) for n in (n_pre, n_post))
    shuffled = partners[random.sample(range(len(partners)), len(partners))]
    one = partner_vectors(post, pre, partners, Crop(GRID, SHAPE), 50.0)
    two = partner_vectors(
        Sites(post.ids[b], post.locations_nm[b]),
        Sites(pre.ids[a], pre.locations_nm[a]),
        shuffled,
        Crop(GRID, SHAPE),
        50.0,
    )
    np.testing.assert_array_equal(one[0], two[0])
    np.testing.assert_array_equal(one[1], two[1])


@light
@given(st.integers(0, 1000))
def test_vectors_lead_from_voxels_to_the_partner_of_the_nearest_post_site(seed):
    ids, at = scattered(6, seed)
    pre, post = Sites(ids[:2], at[:2]), Sites(ids[2:], at[2:])
    # The last post site has no partner: its ball has no vectors.
    partners = np.array([[ids[1], ids[3]], [ids[0], ids[2]], [ids[0], ids[4]]], np.uint64)
    partner = {ids[3]: at[1], ids[2]: at[0], ids[4]: at[0]}
    vectors, weight = partner_vectors(post, pre, partners, Crop(GRID, SHAPE), 45.0)
    assert vectors.dtype == np.float32
    homes = {i: np.array(GRID.centre(GRID.containing(p))) for i, p in zip(ids[2:5], at[2:5], strict=True)}
    for p in np.ndindex(SHAPE):
        here = np.array(GRID.centre(p))
        away, _, site = min((round(np.linalg.norm(here - home), 3), i, i) for i, home in homes.items())
        assert weight[p] == (away <= 45.0)
        expected = partner[site] - here if weight[p] else np.zeros(3)
        np.testing.assert_allclose(vectors[:, *p], expected, atol=1e-4)


def test_a_post_site_with_several_partners_points_to_the_nearest():
    centre = np.array(GRID.centre((1, 5, 4)))
    pre = Sites(np.array([9, 2], np.uint64), centre + np.array([[0, 8, 0], [0, 80, 0]]))
    post = Sites(np.array([5], np.uint64), centre[None])
    vectors, _ = partner_vectors(post, pre, np.array([[2, 5], [9, 5]], np.uint64), Crop(GRID, SHAPE), 0.0)
    np.testing.assert_allclose(vectors[:, 1, 5, 4], [0, 8, 0])


def test_vectors_of_unknown_voxels_weigh_nothing():
    ids, at = scattered(2, 4, spread=0.2)
    mask = np.zeros(SHAPE, bool)
    sites = Sites(ids[:1], at[:1]), Sites(ids[1:], at[1:]), np.array([[ids[1], ids[0]]], np.uint64)
    assert partner_vectors(*sites, Crop(GRID, SHAPE), 45.0)[1].any()
    assert not partner_vectors(*sites, Crop(GRID, SHAPE, None, mask), 45.0)[1].any()


def test_ignored_cleft_voxels_are_not_background(tmp_path):
    transparent, invalid = 2**64 - 1, 2**64 - 2
    stored = np.full((3, 4, 5), transparent, np.uint64)
    stored[0], stored[1, 1] = invalid, 12
    with h5py.File(tmp_path / "sample.hdf", "w") as file:
        data = file.create_dataset("volumes/labels/clefts", data=stored)
        data.attrs["resolution"] = (40.0, 4.0, 4.0)
    path = f"{tmp_path / 'sample.hdf'}/volumes/labels/clefts"
    box = Box.whole(stored.shape)
    clefts, valid = open_volume(path).read(box), open_volume(f"{path}/valid").read(box)
    target, weight = cleft_mask(clefts, mask_ZYX=valid)
    np.testing.assert_array_equal(target, stored == 12)
    np.testing.assert_array_equal(weight, stored != invalid)
    # As stored, background and ignored voxels would both be clefts.
    with pytest.raises(InputError, match=r"emloom\.io"):
        cleft_mask(stored)


def test_a_masked_cleft_is_no_cleft():
    clefts = np.array([[[0, 3, 3, 0]]], np.uint32)
    target, weight = cleft_mask(clefts, mask_ZYX=np.array([[[1, 1, 0, 0]]], bool))
    np.testing.assert_array_equal(target, [[[0, 1, 0, 0]]])
    np.testing.assert_array_equal(weight, [[[1, 1, 0, 0]]])


def test_rejects_bad_values():
    one, at = np.array([1], np.uint64), np.zeros((1, 3))
    crop = Crop(GRID, SHAPE)
    with pytest.raises(InputError, match="stands twice"):
        Sites(np.array([4, 4], np.uint64), np.zeros((2, 3)))
    with pytest.raises(InputError, match="unsigned"):
        Sites(np.array([1], np.int16), at)
    with pytest.raises(InputError, match="not finite"):
        Sites(one, at * np.nan)
    with pytest.raises(InputError, match=r"\[n, 3\]"):
        Sites(one, np.zeros((2, 3)))
    with pytest.raises(InputError, match="pre site 8, which does not exist"):
        partner_vectors(Sites(one, at), Sites(one, at), np.array([[8, 1]], np.uint64), crop)
    with pytest.raises(InputError, match=r"\[m, 2\]"):
        partner_vectors(Sites(one, at), Sites(one, at), one, crop)
    with pytest.raises(InputError, match="no neurons"):
        site_mask(Sites(one, at, one), crop, 10.0)
    for radius in (-1.0, np.nan, np.inf):
        with pytest.raises(InputError, match="radius"):
            site_mask(Sites(one, at), crop, radius)
    with pytest.raises(InputError, match="neurons have shape"):
        Crop(GRID, SHAPE, np.zeros((1, 2, 3), np.uint8))
    with pytest.raises(InputError, match="mask has shape"):
        Crop(GRID, SHAPE, None, np.zeros((1, 2, 3), bool))
