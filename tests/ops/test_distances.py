"""Distances: every value against all pairs of voxels, crops against the whole, empty and full arrays."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.ops.distances import SATURATION, boundary_distance, context_vox, signed_distance, sted

shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
spacings = st.sampled_from([(8.0, 8.0, 8.0), (40.0, 4.0, 4.0), (29.0, 6.3, 5.1)])
light = settings(deadline=None, max_examples=60)


def by_pairs(labels, spacing, cap, instances, mask):
    """Look at every other voxel, those around the array included, in float64."""
    rim = [int(cap / s) + 1 for s in spacing]
    known = np.pad(mask, [(r, r) for r in rim])
    kinds = np.pad(labels if instances else (labels != 0).astype(labels.dtype), [(r, r) for r in rim])
    places = np.stack(np.meshgrid(*map(np.arange, kinds.shape), indexing="ij"), -1) * np.array(spacing)
    outside = np.pad(np.zeros(labels.shape, bool), [(r, r) for r in rim], constant_values=True)
    value, weight = np.zeros(labels.shape), np.zeros(labels.shape, np.uint8)
    for p in np.ndindex(labels.shape):
        q = tuple(np.add(p, rim))
        d = np.linalg.norm(places - places[q], axis=-1)
        true = min(d[known & (kinds != kinds[q])].min(initial=cap), cap)
        value[p] = true if labels[p] else -true
        to_masked = d[~known & ~outside].min(initial=np.inf)
        # As near as an unknown voxel: certain next to the array's end, but not next to a mask.
        enough = to_masked >= cap - 1e-3 or to_masked > true + 1e-3
        weight[p] = mask[p] and enough and d[outside].min(initial=np.inf) >= true - 1e-3
    return value, weight


@light
@given(
    hnp.arrays(np.uint64, shapes, elements=st.sampled_from([0, 1, 2, 2**40, 2**63 - 1])),
    spacings,
    st.sampled_from([10.0, 24.0, 45.0]),
    st.booleans(),
    st.none() | st.integers(0, 100),
)
def test_equals_the_definition_where_it_is_certain(labels, spacing, cap, instances, seed):
    mask = np.ones(labels.shape, bool) if seed is None else np.random.default_rng(seed).random(labels.shape) < 0.9
    value, weight = signed_distance(
        labels, spacing, cap, instances=instances, mask_ZYX=None if seed is None else mask
    )
    expected, certain = by_pairs(labels, spacing, cap, instances, mask)
    assert value.dtype == np.float32
    np.testing.assert_array_equal(weight, certain)
    np.testing.assert_allclose(value[weight == 1], expected[weight == 1], rtol=1e-5)
    assert (np.abs(value) <= np.float32(cap)).all()
    assert (value[mask] > 0).tolist() == (labels[mask] != 0).tolist()


def tissue(shape, seed, n=9):
    rng = np.random.default_rng(seed)
    points = rng.random((n, 3)) * shape
    where = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return np.linalg.norm(where[..., None, :] - points, axis=-1).argmin(-1).astype(np.uint16)


@pytest.mark.parametrize("spacing", [(8.0, 8.0, 8.0), (40.0, 4.0, 4.0)])
def test_equals_scipy_object_by_object(spacing):
    labels = tissue((12, 30, 25), 0)
    value, _ = boundary_distance(labels, spacing, 1e4)
    for label in np.unique(labels):
        mine = labels == label
        np.testing.assert_allclose(
            value[mine], ndimage.distance_transform_edt(mine, sampling=spacing)[mine], rtol=1e-5
        )
    value, _ = boundary_distance(labels, spacing, 1e4, instances=False)
    full = ndimage.distance_transform_edt(labels != 0, sampling=spacing)
    np.testing.assert_allclose(value[labels != 0], full[labels != 0], rtol=1e-5)


@light
@given(
    st.tuples(st.integers(0, 8), st.integers(0, 20), st.integers(0, 20)),
    st.tuples(st.integers(0, 5), st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from([(40.0, 4.0, 4.0), (8.0, 8.0, 8.0)]),
    st.sampled_from([7.9, 24.0, 41.0]),
    st.booleans(),
)
def test_a_crop_with_context_equals_the_whole(start, shape, spacing, cap, masked):
    labels = tissue((10, 26, 24), 1, n=30)
    mask = np.random.default_rng(2).random(labels.shape) < 0.98 if masked else None
    whole = Box.whole(labels.shape)
    box = Box(start, shape).intersect(whole)
    value, weight = signed_distance(labels, spacing, cap, mask_ZYX=mask)
    at = signed_distance(labels, spacing, cap, mask_ZYX=mask, box=box)
    crop = box.grow(context_vox(spacing, cap))
    if whole.contains(crop) and not box.is_empty:
        s = crop.slices()
        inner = box.shift(tuple(-a for a in crop.start))
        part = signed_distance(labels[s], spacing, cap, mask_ZYX=None if mask is None else mask[s], box=inner)
        np.testing.assert_array_equal(part[0], at[0])
        np.testing.assert_array_equal(part[1], at[1])
        np.testing.assert_array_equal(part[1], 1 if mask is None else part[1])
    np.testing.assert_array_equal(at[1], weight[box.slices()])
    np.testing.assert_array_equal(at[0], value[box.slices()])


@pytest.mark.parametrize(("fill", "sign"), [(0, -1), (5, 1)])
@pytest.mark.parametrize("instances", [True, False])
def test_nothing_and_nothing_else_are_as_far_as_the_cap(fill, sign, instances):
    labels = np.full((9, 9, 9), fill, np.uint32)
    value, weight = signed_distance(labels, (10, 10, 10), 30.0, instances=instances)
    np.testing.assert_array_equal(value, np.full(labels.shape, sign * 30.0))
    # Certain only where the array reaches as far.
    assert weight.sum() == 5**3
    assert weight[2:-2, 2:-2, 2:-2].all()
    assert np.isfinite(sted(labels, (10, 10, 10))[0]).all()


def test_everything_masked_and_no_voxel_at_all():
    labels = np.ones((3, 4, 5), np.uint8)
    value, weight = signed_distance(labels, (8, 8, 8), 50.0, mask_ZYX=np.zeros(labels.shape, bool))
    assert not value.any()
    assert not weight.any()
    for shape in ((0, 4, 5), (3, 0, 5)):
        value, weight = signed_distance(np.zeros(shape, np.uint8), (8, 8, 8), 50.0)
        assert value.shape == weight.shape == shape


def test_sted_is_the_tangent_of_the_signed_distance():
    labels = tissue((8, 40, 40), 3)
    value, weight = sted(labels, (40, 4, 4), 50.0)
    signed, far = signed_distance(labels, (40, 4, 4), 1e6)
    np.testing.assert_allclose(value, np.tanh(signed / 50.0), atol=1e-4)
    assert weight[far == 1].all()
    np.testing.assert_array_equal(np.sign(value), np.where(labels, 1, -1))
    assert np.tanh(SATURATION) > 0.9999


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spacing_nm": (0, 8, 8)}, "voxel size"),
        ({"cap_nm": 0.0}, "cap 0.0 nm"),
        ({"cap_nm": float("inf")}, "finite"),
        ({"box": Box((0, 0, 0), (9, 1, 1))}, "leaves"),
        ({"mask_ZYX": np.ones((1, 1, 1), bool)}, "mask"),
        ({"labels_ZYX": np.ones((3, 3, 3), np.int32)}, "unsigned"),
    ],
)
def test_rejects_bad_values(options, message):
    good = {"labels_ZYX": np.ones((3, 3, 3), np.uint8), "spacing_nm": (8, 8, 8), "cap_nm": 40.0}
    with pytest.raises(InputError, match=message):
        signed_distance(**(good | options))


def test_rejects_a_scale_of_nothing():
    with pytest.raises(InputError, match="scale"):
        sted(np.ones((3, 3, 3), np.uint8), (8, 8, 8), 0.0)
