from __future__ import annotations

from fractions import Fraction
from math import floor

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box, cells
from emloom.ops.ascent import Ascent, ascend, ascent_fragments
from emloom.ops.exits import labels_on_faces, resolve
from emloom.ops.heights import gaussian_weights
from emloom.ops.places import voxels_of

NEAR = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
HOODS = [
    NEAR,
    [(0, 0, 1), (1, 0, 0), (0, -1, 0)],
    [*NEAR, (1, 0, 0), (0, 0, 1), (0, 9, 9)],
    [(0, 1, 0), (0, 0, -1)],
]
LOCAL = Ascent(0)


def noise(seed, shape, channels=3, levels=256, sigma=1.5):
    """Smooth noise; few levels make plateaus and ties."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(channels, *shape)), (0, sigma, sigma, sigma))
    values = np.clip(0.5 + 0.35 * smooth / (smooth.std() + 1e-9), 0, 1)
    return np.uint8(np.floor(values * (levels - 1) + 0.5) * (255 // (levels - 1)))


# ---- slow and obvious -----------------------------------------------------------------------------------------


def slow_fragments(affinities, neighborhood, params, mask=None):
    """Voxel by voxel, with fractions and dictionaries."""
    shape = affinities.shape[1:]
    ties = {p: [] for p in np.ndindex(shape)}
    for channel, offset in enumerate(neighborhood):
        if sum(map(abs, offset)) != 1 or (params.per_section and offset[0]):
            continue
        for p in np.ndindex(shape):
            q = tuple(a + b for a, b in zip(p, offset, strict=True))
            if q in ties:
                ties[p].append((q, int(affinities[channel][p])))
                ties[q].append((p, int(affinities[channel][p])))
    mean = {p: Fraction(sum(a for _, a in t), max(1, len(t))) for p, t in ties.items()}
    background = Fraction(repr(params.background)) * 255
    alive = {p for p in ties if (mask is None or mask[p]) and mean[p] >= background}
    height = slow_heights(mean, shape, params)
    least = Fraction(repr(params.least_affinity)) * 255
    best = {
        p: max(
            [p, *(q for q, a in ties[p] if q in alive and a >= least)], key=lambda q: (height[q], [-c for c in q])
        )
        for p in alive
    }
    out = np.zeros(shape, np.uint64)
    for p in alive:
        top = p
        while best[top] != top:
            top = best[top]
        out[p] = 1 + np.ravel_multi_index(top, shape)
    return out


def slow_heights(mean, shape, params):
    heights = np.array([floor(mean[p] * 257 + Fraction(1, 2)) for p in np.ndindex(shape)]).reshape(shape)
    for axis, sigma in enumerate(params.sigma):
        half = gaussian_weights(sigma).astype(np.int64)
        r = half.size - 1
        padded = np.pad(heights, [(r, r) if k == axis else (0, 0) for k in range(3)], mode="symmetric")
        weights = np.concatenate([half[:0:-1], half])
        heights = sum(w * np.take(padded, np.arange(shape[axis]) + k, axis) for k, w in enumerate(weights))
        heights = (heights + 32768) >> 16
    return heights


# ---- block by block -------------------------------------------------------------------------------------------


def in_blocks(affinities, neighborhood, params, cell, mask=None):
    """Every block sees exactly its halo; exits are resolved from faces, block by block."""
    total = affinities.shape[1:]
    whole = Box.whole(total)
    blocks = dict(cells(whole, cell))
    paths, said = {}, {}
    for index, write in blocks.items():
        read = write.grow(params.halo).intersect(whole)
        paths[index] = ascend(
            affinities[(slice(None), *read.slices())],
            neighborhood,
            params,
            write=write,
            origin=read.start,
            total_shape=total,
            mask_ZYX=None if mask is None else mask[read.slices()],
        )
        said[index] = paths[index].on_faces()

    def fetch(ids):
        labels = np.zeros_like(ids)
        owners = voxels_of(ids, total) // np.array(cell)
        for owner in np.unique(owners, axis=0):
            here = (owners == owner).all(axis=1)
            index = tuple(owner.tolist())
            labels[here] = labels_on_faces(said[index], blocks[index], total, ids[here])
        return labels

    out = np.zeros(total, np.uint64)
    for index, write in blocks.items():
        out[write.slices()] = paths[index].follow(*resolve(said[index], write, total, fetch))
    return out


PARAMS = st.builds(
    Ascent,
    sigma_vox=st.sampled_from([0, 1, (0.5, 1, 1), (0, 2, 0.3)]),
    least_affinity=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    background=st.sampled_from([0.0, 0.0, 0.35, 0.6]),
    per_section=st.booleans(),
)
LEVELS = st.sampled_from([2, 3, 6, 256])
SEEDS = st.integers(0, 2**32)


def random_mask(seed, shape, how):
    """None, scattered voxels, or boxes that touch faces."""
    rng = np.random.default_rng(seed)
    if how == "none":
        return None
    if how == "scattered":
        return rng.random(shape) > 0.2
    mask = np.zeros(shape, bool)
    for _ in range(3):
        a, b = np.sort(rng.integers(0, np.array(shape) + 1, (2, 3)), axis=0)
        mask[tuple(slice(i, j + 1) for i, j in zip(a, b, strict=True))] = True
    return mask


MASKS = st.sampled_from(["none", "scattered", "boxes"])


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.tuples(*[st.integers(1, 7)] * 3), st.sampled_from(HOODS), PARAMS, LEVELS, MASKS)
def test_fragments_are_what_the_slow_version_says(seed, shape, hood, params, levels, how):
    affinities = noise(seed, shape, len(hood), levels)
    mask = random_mask(seed, shape, how)
    expected = slow_fragments(affinities, hood, params, mask)
    assert np.array_equal(ascent_fragments(affinities, hood, params, mask_ZYX=mask), expected)


@settings(max_examples=40, deadline=None)
@given(
    SEEDS,
    st.tuples(
        st.sampled_from([(8, 8, 8), (7, 11, 13), (16, 40, 5), (100, 100, 100)]),
        st.sampled_from([(17, 29, 23), (16, 40, 26), (1, 33, 40), (3, 50, 2)]),
    )
    | st.just(((1, 2, 3), (4, 7, 8))),
    st.sampled_from(HOODS),
    PARAMS,
    LEVELS,
    MASKS,
)
def test_blocks_of_any_shape_give_the_same_bits(seed, shapes, hood, params, levels, how):
    cell, shape = shapes
    affinities = noise(seed, shape, len(hood), levels)
    mask = random_mask(seed, shape, how)
    whole = ascent_fragments(affinities, hood, params, mask_ZYX=mask)
    assert np.array_equal(in_blocks(affinities, hood, params, cell, mask), whole)


def test_one_plateau_through_many_blocks_has_one_top():
    """The longest path crosses every block along each axis."""
    affinities = np.full((3, 9, 10, 11), 200, np.uint8)
    assert np.all(in_blocks(affinities, NEAR, LOCAL, (2, 3, 2)) == 1)


def test_a_path_may_come_back_into_its_block():
    """A corridor that winds through two blocks, rising all the way."""
    mask = np.zeros((1, 7, 8), bool)
    mask[0, ::2], mask[0, [1, 5], -1], mask[0, 3, 0] = True, True, True
    way = [(y, x if y % 4 == 0 else 7 - x) for y in range(0, 7, 2) for x in range(8)]
    affinities = np.zeros((3, 1, 7, 8), np.uint8)
    for height, (y, x) in enumerate(way):
        affinities[1:, 0, y, x] = 40 + 4 * height
    for y, x in np.argwhere(mask[0, 1::2]):
        affinities[1:, 0, 2 * y + 1, x] = affinities[1, 0, 2 * y, x] + 2
    whole = ascent_fragments(affinities, NEAR, LOCAL, mask_ZYX=mask)
    assert np.array_equal(in_blocks(affinities, NEAR, LOCAL, (1, 7, 4), mask), whole)


# ---- what fragments are ---------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(SEEDS, PARAMS, LEVELS, MASKS)
def test_fragments_are_connected_contain_their_top_and_fill_the_mask(seed, params, levels, how):
    affinities = noise(seed, (9, 16, 14), 3, levels)
    mask = random_mask(seed, affinities.shape[1:], how)
    fragments = ascent_fragments(affinities, NEAR, params, mask_ZYX=mask)
    ids = np.unique(fragments[fragments > 0])
    assert np.array_equal(fragments[tuple(voxels_of(ids, fragments.shape).T)], ids)
    assert cc3d.connected_components(fragments, connectivity=6).max() == len(ids)
    if mask is not None:
        assert not fragments[~mask].any()
    if params.background == 0:
        assert np.all(fragments[... if mask is None else mask])
    if params.per_section:
        assert sum(len(np.unique(section[section > 0])) for section in fragments) == len(ids)


def test_only_ids_depend_on_where_the_array_lies():
    affinities = noise(1, (5, 9, 8))
    alone = ascent_fragments(affinities, NEAR)
    origin, total = (70_000, 3, 60_000), (90_000, 80_000, 70_000)
    placed = ascent_fragments(affinities, NEAR, origin=origin, total_shape=total)
    assert np.array_equal(voxels_of(placed.ravel(), total) - origin, voxels_of(alone.ravel(), alone.shape))


@given(st.tuples(*[st.integers(1, 6)] * 3), st.sampled_from([0.0, 0.4]), st.integers(0, 2**16))
def test_what_a_block_says_on_its_faces_is_where_its_paths_lead(shape, background, seed):
    params = Ascent(0.3, background=background)
    write = Box(params.halo, shape)
    total = tuple(n + 2 * h for n, h in zip(shape, params.halo, strict=True))
    paths = ascend(noise(seed, total), NEAR, params, write=write, origin=(0, 0, 0), total_shape=total)
    p = paths.follow()
    layers = (p[:1], p[-1:], p[:, :1], p[:, -1:], p[:, :, :1], p[:, :, -1:])
    assert np.array_equal(paths.on_faces(), np.concatenate([layer.ravel() for layer in layers]))
    exits = np.setdiff1d(p, (1 + np.arange(np.prod(total)).reshape(total)[write.slices()]))
    exits = exits[exits != 0].astype(np.uint64)
    moved = paths.follow(exits, exits + np.uint64(10**6))
    assert np.array_equal(moved, np.where(np.isin(p, exits), p + np.uint64(10**6), p))


def test_a_block_deep_inside_a_large_volume():
    """Exits lie in the next blocks, and ids beyond 32 bits."""
    affinities = noise(2, (24, 25, 26))
    total, corner = (10**6, 10**6, 10**5), (999_000, 77, 40_000)
    write = Box(tuple(c + h for c, h in zip(corner, Ascent().halo, strict=True)), (14, 15, 16))
    labels = ascend(affinities, NEAR, write=write, origin=corner, total_shape=total).follow()
    whole = ascent_fragments(affinities, NEAR)
    local = voxels_of(labels.ravel(), total) - corner
    assert np.array_equal(
        whole[tuple(local.T)].reshape(labels.shape), whole[write.shift([-c for c in corner]).slices()]
    )
    steps = np.maximum(np.array(write.start) - corner - local, local + corner - write.stop + np.array(1))
    assert steps.max() == 1


def test_two_rooms_give_two_fragments_that_meet_at_the_wall():
    affinities = np.full((3, 6, 6, 21), 255, np.uint8)
    affinities[2, :, :, 10] = 0
    fragments = ascent_fragments(affinities, NEAR, Ascent(0, least_affinity=0.5))
    assert np.all(fragments[:, :, :9] == 1)
    assert np.all(fragments[:, :, 10:] == fragments[0, 0, 20])
    assert fragments[0, 0, 20] > 1


def test_least_affinity_is_exact_on_the_decimal():
    """0.2 of 255 is 51."""
    affinities = np.full((3, 4, 5, 6), 51, np.uint8)
    assert np.all(ascent_fragments(affinities, NEAR, Ascent(0, least_affinity=0.2)) == 1)
    alone = np.arange(1, 121, dtype=np.uint64).reshape(4, 5, 6)
    assert np.array_equal(ascent_fragments(affinities, NEAR, Ascent(0, least_affinity=0.2000001)), alone)


def test_background_is_exact_on_the_decimal_and_not_smoothed():
    affinities = np.full((3, 6, 6, 6), 51, np.uint8)
    assert ascent_fragments(affinities, NEAR, Ascent(1, background=0.2)).all()
    assert not ascent_fragments(affinities, NEAR, Ascent(1, background=0.2000001)).any()
    affinities[:, 3, 3, 3] = 50
    assert np.argwhere(ascent_fragments(affinities, NEAR, Ascent(1, background=0.2)) == 0).tolist() == [
        [2, 3, 3],
        [3, 2, 3],
        [3, 3, 2],
        [3, 3, 3],
    ]


def test_directions_and_order_of_channels_do_not_matter():
    affinities = noise(3, (6, 12, 13))
    expected = ascent_fragments(affinities, NEAR)
    turned = np.stack([np.roll(affinities[c], -1, axis=c) for c in (2, 0, 1)])
    assert np.array_equal(ascent_fragments(turned, [(0, 0, 1), (1, 0, 0), (0, 1, 0)]), expected)


def test_affinities_to_voxels_outside_do_not_count():
    affinities = noise(4, (6, 12, 13))
    changed = affinities.copy()
    changed[0, 0], changed[1, :, 0], changed[2, :, :, 0] = 77, 0, 255
    assert np.array_equal(ascent_fragments(changed, NEAR), ascent_fragments(affinities, NEAR))


def test_sections_do_not_influence_each_other():
    affinities = noise(5, (5, 20, 21))
    params = Ascent(per_section=True)
    whole = ascent_fragments(affinities, NEAR, params)
    for z in range(5):
        part = affinities[:, z : z + 1]
        alone = ascent_fragments(part, NEAR, params, origin=(z, 0, 0), total_shape=whole.shape)
        assert np.array_equal(alone[0], whole[z])


def test_any_memory_layout_is_read():
    affinities = noise(6, (6, 12, 13))
    expected = ascent_fragments(affinities, NEAR)
    assert np.array_equal(ascent_fragments(np.asfortranarray(affinities), NEAR), expected)
    flipped = np.ascontiguousarray(affinities[:, ::-1])[:, ::-1]
    assert np.array_equal(ascent_fragments(flipped, NEAR), expected)


def test_the_inputs_are_left_alone():
    affinities, mask = noise(7, (6, 12, 13)), np.ones((6, 12, 13), np.uint8)
    before = affinities.copy()
    affinities.flags.writeable = mask.flags.writeable = False
    ascent_fragments(affinities, NEAR, Ascent(background=0.5), mask_ZYX=mask)
    assert np.array_equal(affinities, before)
    assert mask.all()


@pytest.mark.parametrize("shape", [(0, 4, 5), (4, 0, 5), (4, 5, 0)])
def test_nothing_gives_nothing(shape):
    empty = ascent_fragments(np.zeros((3, *shape), np.uint8), NEAR)
    assert (empty.shape, empty.dtype) == (shape, np.uint64)
    block = Box((0, 0, 0), shape)
    paths = ascend(np.zeros((3, *shape), np.uint8), NEAR, write=block, origin=(0, 0, 0), total_shape=(9, 9, 9))
    assert (paths.follow().shape, (paths.on_faces() == 0).all()) == (shape, True)


# ---- errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"affinities_CZYX": np.zeros((3, 4, 4, 4), np.float32)}, "float32"),
        ({"affinities_CZYX": np.zeros((3, 4, 4), np.uint8)}, "3 axes"),
        ({"neighborhood": NEAR[:2]}, "2 offsets"),
        ({"neighborhood": [NEAR[0]] * 3}, "twice"),
        ({"neighborhood": [(0.5, 0, 0), *NEAR[1:]]}, "not a whole number"),
        ({"neighborhood": [(2, 0, 0), (0, 2, 0), (1, 1, 1)]}, "across a voxel face"),
        ({"mask_ZYX": np.ones((4, 4, 5), bool)}, "mask has shape"),
        ({"mask_ZYX": np.ones((4, 4, 4))}, "float64"),
        ({"origin": (1, 0, 0)}, "leaves the whole"),
    ],
)
def test_bad_input_is_named(arguments, words):
    plain = {"affinities_CZYX": np.full((3, 4, 4, 4), 255, np.uint8), "neighborhood": NEAR}
    with pytest.raises(InputError, match=words):
        ascent_fragments(**{**plain, **arguments})


def test_a_block_without_its_halo_is_refused():
    params, write = Ascent(1), Box((6, 6, 6), (3, 3, 3))
    assert params.halo == (5, 5, 5)
    assert Ascent(1, per_section=True).halo == (0, 5, 5)
    affinities = np.zeros((3, 13, 13, 13), np.uint8)
    place = {"write": write, "total_shape": (20, 20, 20)}
    assert ascend(affinities, NEAR, params, origin=(1, 1, 1), **place).follow().shape == (3, 3, 3)
    with pytest.raises(InputError, match=r"too few to write .* a halo of \(5, 5, 5\)"):
        ascend(affinities, NEAR, params, origin=(1, 2, 1), **place)
    with pytest.raises(InputError, match="leaves the whole volume"):
        ascend(affinities, NEAR, params, origin=(1, 1, 1), write=write.shift(12), total_shape=(20, 20, 20))


@pytest.mark.parametrize(
    "arguments",
    [
        {"sigma_vox": -1},
        {"sigma_vox": (1, 1)},
        {"sigma_vox": float("nan")},
        {"sigma_vox": float("inf")},
        {"least_affinity": 1.1},
        {"least_affinity": float("nan")},
        {"background": -0.1},
    ],
)
def test_bad_parameters_are_refused(arguments):
    with pytest.raises(InputError):
        Ascent(**arguments)
