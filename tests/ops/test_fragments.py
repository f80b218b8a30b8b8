from __future__ import annotations

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.errors import InputError
from emloom.ops.fragments import Seeding, name_pieces, seeded_fragments

NEAR = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
ISO = (8.0, 8.0, 8.0)


def blobs(seed, shape=(12, 20, 24), channels=3):
    """Smooth noise: blobs of high affinity between walls of low."""
    noise = np.random.default_rng(seed).normal(size=(channels, *shape))
    smooth = ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 1.5))
    return np.clip(128 + 400 * smooth, 0, 255).astype(np.uint8)


def first_index(fragments, origin=(0, 0, 0), total=None):
    """Id of every fragment by its definition: 1 + the global linear index of the smallest voxel."""
    total = total or fragments.shape
    out = {}
    for i in np.unique(fragments[fragments > 0]):
        places = np.argwhere(fragments == i) + np.array(origin)
        out[int(i)] = 1 + int(np.ravel_multi_index(places.T, total).min())
    return out


def assert_well_formed(fragments, origin=(0, 0, 0), total=None):
    assert fragments.dtype == np.uint64
    assert all(name == i for i, name in first_index(fragments, origin, total).items())
    pieces = cc3d.connected_components(fragments, connectivity=6)
    assert pieces.max() == len(np.unique(fragments[fragments > 0]))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([0.3, 0.5, 0.7]), st.integers(1, 8))
def test_fragments_are_connected_named_by_place_and_fill_the_space(seed, per_section, threshold, window):
    affinities = blobs(seed)
    fragments = seeded_fragments(
        affinities, NEAR, (30.0, 8.0, 8.0), Seeding(threshold, window, per_section=per_section)
    )
    assert_well_formed(fragments)
    if per_section:
        assert all(
            len(np.unique(np.argwhere(fragments == i)[:, 0])) == 1 for i in np.unique(fragments[fragments > 0])
        )
        filled = {section.all() for section in fragments > 0 if section.any()}
        assert filled <= {True}
    else:
        assert fragments.all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_mask_is_respected_and_cuts(seed, per_section):
    affinities = blobs(seed)
    mask = np.random.default_rng(seed).random(affinities.shape[1:]) > 0.2
    fragments = seeded_fragments(affinities, NEAR, ISO, Seeding(per_section=per_section), mask_ZYX=mask)
    assert not fragments[~mask].any()
    assert_well_formed(fragments)


def test_two_rooms_give_two_fragments_that_meet_at_the_wall():
    affinities = np.full((3, 10, 10, 21), 255, np.uint8)
    affinities[:, :, :, 10] = 0
    fragments = seeded_fragments(affinities, NEAR, ISO)
    left, right = fragments[0, 0, 0], fragments[0, 0, 20]
    assert {int(left), int(right)} == set(np.unique(fragments).tolist())
    assert np.all(fragments[:, :, :10] == left)
    assert np.all(fragments[:, :, 11:] == right)


def test_per_section_uses_the_in_plane_channels_only():
    """Bug D7 of an ancestor: channels 0 and 1 (z, y) were averaged instead of 1 and 2 (y, x)."""
    affinities = blobs(3)
    per_section = Seeding(per_section=True)
    expected = seeded_fragments(affinities, NEAR, ISO, per_section)
    changed = affinities.copy()
    changed[0] = 255 - changed[0]
    assert np.array_equal(seeded_fragments(changed, NEAR, ISO, per_section), expected)
    changed = affinities.copy()
    changed[2] = 255 - changed[2]
    assert not np.array_equal(seeded_fragments(changed, NEAR, ISO, per_section), expected)


def test_sections_do_not_influence_each_other():
    affinities = blobs(4)
    whole = seeded_fragments(affinities, NEAR, ISO, Seeding(per_section=True))
    for z in range(len(whole)):
        alone = seeded_fragments(
            affinities[:, z : z + 1],
            NEAR,
            ISO,
            Seeding(per_section=True),
            origin=(z, 0, 0),
            total_shape=whole.shape,
        )
        assert np.array_equal(alone[0], whole[z])


def test_channel_order_direction_and_long_range_channels_do_not_matter():
    affinities = blobs(5)
    expected = seeded_fragments(affinities, NEAR, ISO)
    order = [2, 0, 1]
    assert np.array_equal(seeded_fragments(affinities[order], [NEAR[c] for c in order], ISO), expected)
    longer = np.concatenate([affinities, 255 - affinities])
    offsets = [*NEAR, (-4, 0, 0), (0, -4, 0), (-1, -1, 0)]
    assert np.array_equal(seeded_fragments(longer, offsets, ISO), expected)


def test_affinities_to_voxels_outside_the_array_do_not_count():
    affinities = blobs(6)
    changed = affinities.copy()
    changed[0, 0], changed[1, :, 0], changed[2, :, :, 0] = 77, 0, 255
    assert np.array_equal(seeded_fragments(changed, NEAR, ISO), seeded_fragments(affinities, NEAR, ISO))


def test_threshold_is_exact_in_integers():
    """0.2 of 255 is 51: a mean of exactly 51 is not above it, one more unit in the sum of three is."""
    affinities = np.full((3, 6, 6, 6), 51, np.uint8)
    assert not seeded_fragments(affinities, NEAR, ISO, Seeding(threshold=0.2)).any()
    affinities[1] += 1
    assert seeded_fragments(affinities, NEAR, ISO, Seeding(threshold=0.2)).any()


def test_anisotropic_distance_moves_the_border_to_where_it_is_equally_far():
    """Two rooms joined by a wide door: spacing changes which plateaus win, so the cut differs from isotropic."""
    affinities = blobs(7)
    isotropic = seeded_fragments(affinities, NEAR, (8, 8, 8))
    assert np.array_equal(isotropic, seeded_fragments(affinities, NEAR, (40, 40, 40)))
    assert not np.array_equal(isotropic, seeded_fragments(affinities, NEAR, (40, 8, 8)))


def test_flood_on_a_plateau_gives_every_voxel_to_a_nearest_seed():
    """Below every seed lies one flat boundary region: first come, first served is breadth first."""
    affinities = np.zeros((3, 1, 41, 41), np.uint8)
    centres = [(8, 8), (8, 32), (32, 20)]
    for y, x in centres:
        affinities[:, 0, y - 1 : y + 2, x - 1 : x + 2] = 255
    fragments = seeded_fragments(affinities, NEAR, ISO, Seeding(per_section=True))[0]
    y, x = np.mgrid[:41, :41]
    # City-block distance to each 3 x 3 square.
    far = np.stack([np.maximum(abs(y - a) - 1, 0) + np.maximum(abs(x - b) - 1, 0) for a, b in centres])
    clear = np.sort(far, axis=0)[0] + 2 < np.sort(far, axis=0)[1]
    owner = np.array([fragments[c] for c in centres])
    assert len(set(owner.tolist())) == 3
    assert np.array_equal(fragments[clear], owner[far.argmin(axis=0)][clear])


def test_degenerate_inputs_have_defined_results():
    nothing = np.zeros((3, 5, 6, 7), np.uint8)
    for per_section in (False, True):
        seeding = Seeding(per_section=per_section)
        assert not seeded_fragments(nothing, NEAR, ISO, seeding).any()
        assert seeded_fragments(nothing[:, :0], NEAR, ISO, seeding).shape == (0, 6, 7)
        assert not seeded_fragments(nothing + 255, NEAR, ISO, seeding, mask_ZYX=nothing[0]).any()
    assert np.all(seeded_fragments(nothing + 255, NEAR, ISO) == 1)
    one_per_section = seeded_fragments(nothing + 255, NEAR, ISO, Seeding(per_section=True))
    assert one_per_section[:, 0, 0].tolist() == [1 + 42 * z for z in range(5)]
    assert np.all(one_per_section == one_per_section[:, :1, :1])


def test_crop_is_renamed_to_connected_pieces():
    """Bug D8 of an ancestor: a fragment cut in two by the block's face kept one id."""
    fragments = np.zeros((1, 3, 5), np.uint64)
    fragments[0, 0], fragments[0, :, [0, 4]] = 9, 9
    crop = name_pieces(fragments[:, 1:], origin=(2, 1, 0), total_shape=(4, 3, 5))
    assert crop[0, 0].tolist() == [1 + 2 * 15 + 5, 0, 0, 0, 1 + 2 * 15 + 9]
    assert_well_formed(crop, (2, 1, 0), (4, 3, 5))
    assert name_pieces(np.zeros((0, 2, 2), np.uint64)).shape == (0, 2, 2)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32))
def test_names_are_idempotent_and_global(seed):
    labels = np.random.default_rng(seed).integers(0, 3, (4, 5, 6)).astype(np.uint64)
    named = name_pieces(labels)
    assert np.array_equal(name_pieces(named), named)
    moved = name_pieces(labels, origin=(1, 2, 3), total_shape=(9, 8, 10))
    assert_well_formed(moved, (1, 2, 3), (9, 8, 10))
    assert np.array_equal(moved > 0, labels > 0)


def test_small_fragments_become_background():
    affinities = blobs(8)
    every = seeded_fragments(affinities, NEAR, ISO, Seeding(window_vox=3))
    ids, sizes = np.unique(every, return_counts=True)
    limit = int(np.median(sizes))
    kept = seeded_fragments(affinities, NEAR, ISO, Seeding(window_vox=3, min_size=limit))
    assert set(np.unique(kept).tolist()) == {0, *ids[sizes >= limit].tolist()}
    assert np.array_equal(kept[kept > 0], every[kept > 0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"affinities_CZYX": np.zeros((3, 4, 4, 4), np.float32)}, "float32"),
        ({"neighborhood": NEAR[:2]}, "2 offsets"),
        ({"neighborhood": [(2, 0, 0), (0, 2, 0), (1, 1, 1)]}, "across a voxel face"),
        ({"neighborhood": [(1, 0, 0)] * 3, "seeding": Seeding(per_section=True)}, "in the section's plane"),
        ({"mask_ZYX": np.ones((4, 4, 5), bool)}, "does not fit"),
        ({"origin": (1, 0, 0)}, "leaves the whole"),
        ({"spacing_nm": (8, 8)}, "2 values"),
    ],
)
def test_bad_input_is_named(arguments, words):
    plain = {"affinities_CZYX": np.full((3, 4, 4, 4), 255, np.uint8), "neighborhood": NEAR, "spacing_nm": ISO}
    with pytest.raises(InputError, match=words):
        seeded_fragments(**{**plain, **arguments})


@pytest.mark.parametrize(
    "arguments", [{"threshold": 1.1}, {"threshold": float("nan")}, {"window_vox": 0}, {"min_size": -1}]
)
def test_bad_seeding_is_refused(arguments):
    with pytest.raises(InputError):
        Seeding(**arguments)
