from __future__ import annotations

import cc3d
import mwatershed
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.errors import InputError
from emloom.ops.fragments import name_pieces
from emloom.ops.mutex import Mutex, mutex_fragments

NEAR = [(-1, 0, 0), (0, -1, 0), (0, 0, -1)]
LONG = [*NEAR, (-2, 0, 0), (0, -4, 0), (0, 0, -4), (0, 3, 0)]
HOODS = [
    LONG,
    [(0, 0, 3), (0, 0, 1), (1, 0, 0), (0, -1, 0), (1, 1, 0)],  # any order, any direction, diagonals
    [*NEAR, (0, 0, 1), (0, 2, -1)],
]
SEEDS = st.integers(0, 2**32)


def noise(seed, shape, channels, levels=256, sigma=1.0):
    """Smooth noise; few levels make many ties."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(channels, *shape)), (0, sigma, sigma, sigma))
    values = np.clip(0.5 + 0.4 * smooth / (smooth.std() + 1e-9), 0, 1)
    return np.uint8(np.floor(values * (levels - 1) + 0.5) * (255 // (levels - 1)))


# ---- slow and obvious -----------------------------------------------------------------------------------------


def ordered_edges(affinities, neighborhood, params, mask, origin):
    """Every edge (attracts, p, q), in the order of the definition."""
    shape = affinities.shape[1:]
    edges = []
    for channel, offset in enumerate(neighborhood):
        attracts = sum(map(abs, offset)) == 1
        if params.per_section and offset[0]:
            continue
        for p in np.ndindex(shape):
            q = tuple(a + b for a, b in zip(p, offset, strict=True))
            place = tuple(a + b for a, b in zip(p, origin, strict=True))
            if not all(0 <= c < n for c, n in zip(q, shape, strict=True)) or not (mask[p] and mask[q]):
                continue
            if not attracts and any(c % s for c, s in zip(place, params.stride, strict=True)):
                continue
            value = int(affinities[channel][p])
            weight = value + params.bias if attracts else 255 - value
            if weight > 0:
                edges.append(((-weight, not attracts, channel, place), attracts, p, q))
    return [edge[1:] for edge in sorted(edges)]


def slow_fragments(affinities, neighborhood, params, mask=None, origin=(0, 0, 0)):
    """Sets as Python sets; exclusions as pairs of sets."""
    shape = affinities.shape[1:]
    mask = np.ones(shape, bool) if mask is None else mask
    of = {p: k for k, p in enumerate(np.ndindex(shape)) if mask[p]}
    members = {k: {p} for p, k in of.items()}
    barred = {k: set() for k in members}
    for attracts, p, q in ordered_edges(affinities, neighborhood, params, mask, origin):
        a, b = of[p], of[q]
        if a == b:
            continue
        if not attracts:
            barred[a].add(b)
            barred[b].add(a)
        elif b not in barred[a]:
            for voxel in members[b]:
                of[voxel] = a
            members[a] |= members.pop(b)
            for other in barred.pop(b):
                barred[other].discard(b)
                barred[other].add(a)
                barred[a].add(other)
    out = np.zeros(shape, np.uint64)
    for voxels in members.values():
        if len(voxels) >= params.min_size:
            first = min(voxels)
            for voxel in voxels:
                out[voxel] = 1 + np.ravel_multi_index(first, shape)
    return out


PARAMS = st.builds(
    Mutex,
    bias=st.sampled_from([0, 0, 40, 255, -60, -200]),
    repulsive_stride_vox=st.sampled_from([1, 1, 2, (1, 2, 3)]),
    per_section=st.booleans(),
    min_size=st.sampled_from([0, 0, 5]),
)


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    shape=st.tuples(st.integers(1, 6), st.integers(1, 14), st.integers(1, 14)),
    hood=st.sampled_from(HOODS),
    levels=st.sampled_from([2, 3, 6, 256]),
    sigma=st.sampled_from([0.0, 0.7, 1.5]),
    params=PARAMS,
    masked=st.booleans(),
)
def test_fragments_are_those_of_the_definition(seed, shape, hood, levels, sigma, params, masked):
    affinities = noise(seed, shape, len(hood), levels, sigma)
    mask = np.random.default_rng(seed).random(shape) > 0.2 if masked else None
    ours = mutex_fragments(affinities, hood, params, mask_ZYX=mask)
    assert np.array_equal(ours, slow_fragments(affinities, hood, params, mask))


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, bias=st.sampled_from([0, 50, -30]), sigma=st.sampled_from([1.0, 2.0, 3.0]))
def test_large_sets_are_those_of_a_peer(seed, bias, sigma):
    # Distinct weights in the order of ours, so that the peer, which leaves the order of ties open, has no choice.
    affinities = noise(seed, (12, 40, 40), len(LONG), sigma=sigma)
    near = [sum(map(abs, offset)) == 1 for offset in LONG]
    shape = affinities.shape[1:]
    rank = np.arange(affinities.size).reshape(affinities.shape) / affinities.size
    weights = np.zeros(affinities.shape)
    for c, attracts in enumerate(near):
        whole = affinities[c].astype(float) + bias if attracts else 255.0 - affinities[c]
        weights[c] = np.where(whole > 0, (whole + 0.9 - 0.9 * rank[c]) * (1 if attracts else -1), 0)
    theirs = mwatershed.agglom(weights, [list(offset) for offset in LONG])
    alone = theirs == 0  # voxels without partner
    theirs[alone] = theirs.max() + 1 + np.arange(np.count_nonzero(alone), dtype=np.uint64)
    ours = mutex_fragments(affinities, LONG, Mutex(bias))
    assert ours.shape == shape
    both = np.unique(np.stack([ours.ravel(), theirs.ravel()]), axis=1)
    assert both.shape[1] == len(np.unique(ours)) == len(np.unique(theirs))


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, hood=st.sampled_from(HOODS), levels=st.sampled_from([3, 256]), params=PARAMS)
def test_fragments_are_connected_and_named_by_their_first_voxel(seed, hood, levels, params):
    affinities = noise(seed, (7, 20, 22), len(hood), levels, 1.5)
    mask = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(7, 20, 22)), 1) > -0.15
    ours = mutex_fragments(affinities, hood, params, mask_ZYX=mask)
    assert not ours[~mask].any()
    assert np.array_equal(ours > 0, mask) or params.min_size
    assert np.array_equal(name_pieces(ours), ours)  # unique ids, one piece each
    pieces = cc3d.connected_components(ours, connectivity=6)
    assert len(np.unique(pieces)) == len(np.unique(ours))
    if params.per_section:
        z = [set(np.unique(section)) - {0} for section in ours]
        assert sum(map(len, z)) == len(set().union(*z))


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, origin=st.tuples(*[st.integers(0, 9)] * 3), params=PARAMS)
def test_the_place_of_an_array_changes_names_alone(seed, origin, params):
    affinities = noise(seed, (5, 9, 10), len(LONG), 6)
    total = (17, 30, 31)
    ours = mutex_fragments(affinities, LONG, params, origin=origin, total_shape=total)
    # Strides count from the whole volume's first voxel.
    local = slow_fragments(affinities, LONG, params, origin=origin)
    firsts = {int(i): np.argwhere(local == i)[0] + np.array(origin) for i in np.unique(local) if i}
    expected = np.zeros(local.shape, np.uint64)
    for i, first in firsts.items():
        expected[local == i] = 1 + np.ravel_multi_index(tuple(first), total)
    assert np.array_equal(ours, expected)


def test_storage_order_and_unused_channels_do_not_matter():
    affinities = noise(1, (6, 12, 13), len(LONG), 6)
    whole = mutex_fragments(affinities, LONG)
    assert np.array_equal(mutex_fragments(np.asfortranarray(affinities), LONG), whole)
    wider = np.concatenate([affinities, noise(2, (6, 12, 13), 1)])
    assert np.array_equal(mutex_fragments(wider, [*LONG, (0, 0, 50)]), whole)  # leaves the array everywhere


def test_a_true_boundary_keeps_objects_apart_however_leaky_it_is():
    # Two blocks of perfect affinities; the wall has a hole of attraction 200, but repulsion across it is certain.
    affinities = np.full((7, 4, 12, 12), 255, np.uint8)
    labels = np.zeros((4, 12, 12), int)
    labels[..., 6:] = 1
    for c, offset in enumerate(LONG):
        cut = labels != np.roll(labels, [-o for o in offset], (0, 1, 2))
        affinities[c][cut] = 0
    affinities[2, 2, 5, 6] = 200
    found = mutex_fragments(affinities, LONG)
    assert len(np.unique(found)) == 2
    assert len(np.unique(np.stack([found.ravel(), labels.ravel()]), axis=1).T) == 2
    # Without repulsion the hole joins them.
    affinities[3:] = 255
    assert len(np.unique(mutex_fragments(affinities, LONG, Mutex(-100)))) == 1


@pytest.mark.parametrize("shape", [(0, 4, 4), (1, 1, 1)])
def test_tiny_arrays(shape):
    found = mutex_fragments(np.zeros((7, *shape), np.uint8), LONG)
    assert found.dtype == np.uint64
    assert np.array_equal(found, np.ones(shape))
    nowhere = mutex_fragments(np.zeros((7, *shape), np.uint8), LONG, mask_ZYX=np.zeros(shape, bool))
    assert not nowhere.any()


def test_many_long_channels():
    hood = [*NEAR, *[(0, y, x) for y in range(1, 5) for x in range(1, 8)]]
    affinities = noise(3, (2, 12, 12), len(hood), 6)
    assert np.array_equal(mutex_fragments(affinities, hood), slow_fragments(affinities, hood, Mutex()))


AFFINITIES = np.zeros((7, 3, 4, 5), np.uint8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Mutex(bias=300), "bias 300 is outside -255 .. 255"),
        (lambda: Mutex(repulsive_stride_vox=0), "stride .* below 1"),
        (lambda: Mutex(min_size=-1), "fragment -1 is negative"),
        (lambda: mutex_fragments(AFFINITIES[:3], NEAR), "0 long offsets: .* predict some"),
        (lambda: mutex_fragments(AFFINITIES[:4], LONG[:4], Mutex(per_section=True)), "in the section's plane"),
        (lambda: mutex_fragments(AFFINITIES[3:], LONG[3:]), "no offset across a voxel face"),
        (lambda: mutex_fragments(AFFINITIES.astype(float), LONG), "float64.* give uint8"),
        (lambda: mutex_fragments(AFFINITIES[:5], LONG), "7 offsets do not fit 5"),
        (lambda: mutex_fragments(AFFINITIES, [*LONG[:6], LONG[5]]), "an offset twice"),
        (lambda: mutex_fragments(AFFINITIES, LONG, mask_ZYX=np.ones((3, 4, 4))), r"mask \(3, 4, 4\) does not fit"),
        (lambda: mutex_fragments(AFFINITIES, LONG, origin=(1, 0, 0)), "leaves the whole volume"),
        (
            lambda: mutex_fragments(
                np.zeros((35, 1, 2, 2), np.uint8), [*NEAR, *[(0, 0, x) for x in range(2, 34)]]
            ),
            "32 long offsets.* 1 .. 31",
        ),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
