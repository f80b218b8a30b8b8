"""Local shape descriptors: the definition, crops, permutations, the reference."""

import itertools

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.ops.descriptors import context_vox, local_shape_descriptors


def by_definition(labels, spacing, sigma, factor):
    """Sum the window of every voxel in float64, straight from the formulae."""
    spacing, sigma, factor = np.array(spacing), np.array(sigma), np.array(factor)
    step = spacing * factor
    radius = (3.0 * sigma / step + 0.5).astype(int)
    strided = labels[:: factor[0], :: factor[1], :: factor[2]]
    axes = [np.arange(-r, r + 1) for r in radius]
    weights = [np.exp(-0.5 * (d * s / g) ** 2) for d, s, g in zip(axes, step, sigma, strict=True)]
    weights = [w / w.sum() for w in weights]
    window = np.einsum("z,y,x->zyx", *weights)
    dz, dy, dx = np.meshgrid(*(d * s for d, s in zip(axes, step, strict=True)), indexing="ij")
    padded = np.pad(strided, [(r, r) for r in radius])
    lsds, weight = np.zeros((10, *labels.shape)), np.zeros(labels.shape, np.uint8)
    for p in itertools.product(*map(range, labels.shape)):
        if labels[p] == 0:
            continue
        q = np.array(p) // factor
        near = padded[tuple(slice(a, a + 2 * r + 1) for a, r in zip(q, radius, strict=True))] == labels[p]
        if not near.any():
            continue
        mass = window * near
        size = mass.sum()
        mean = [(mass * d).sum() / size for d in (dz, dy, dx)]
        cov = {
            (i, j): (mass * a * b).sum() / size - mean[i] * mean[j]
            for (i, a), (j, b) in itertools.product(enumerate((dz, dy, dx)), repeat=2)
        }
        var = [max(cov[i, i], 1e-3) for i in range(3)]
        rho = [cov[i, j] / np.sqrt(var[i] * var[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        values = [m / s / 2 + 0.5 for m, s in zip(mean, sigma, strict=True)]
        values += [v / s**2 for v, s in zip(var, sigma, strict=True)]
        values += [r / 2 + 0.5 for r in rho] + [size]
        lsds[(slice(None), *p)] = np.clip(values, 0, 1)
        weight[p] = 1
    return lsds, weight


def blobs(shape, n, seed):
    """Objects of all shapes: nearest of n random points, some of them background."""
    rng = np.random.default_rng(seed)
    points = rng.random((n, 3)) * shape
    where = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    nearest = np.linalg.norm(where[..., None, :] - points, axis=-1).argmin(-1)
    ids = np.concatenate([[0], rng.choice(2**40, n - 1, replace=False) + 1]).astype(np.uint64)
    return ids[nearest]


@settings(deadline=None, max_examples=20)
@given(
    st.tuples(st.integers(1, 7), st.integers(2, 11), st.integers(2, 21)),
    st.sampled_from([(8.0, 8.0, 8.0), (40.0, 4.0, 4.0), (30.0, 6.5, 5.0)]),
    st.sampled_from([(20.0, 20.0, 20.0), (60.0, 15.0, 12.0)]),
    st.sampled_from([(1, 1, 1), (2, 2, 2), (1, 2, 3)]),
    st.integers(0, 1000),
)
def test_equals_the_definition(shape, spacing, sigma, factor, seed):
    labels = blobs(shape, 6, seed)
    lsds, weight = local_shape_descriptors(labels, spacing, sigma, downsample=factor)
    expected, expected_weight = by_definition(labels, spacing, sigma, factor)
    assert lsds.dtype == np.float32
    np.testing.assert_array_equal(weight, expected_weight)
    np.testing.assert_allclose(lsds, expected, atol=1e-6)


@settings(deadline=None, max_examples=15)
@given(
    st.tuples(*[st.integers(1, 6)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.sampled_from([(1, 1, 1), (2, 2, 2), (1, 2, 2)]),
)
def test_a_box_and_a_crop_with_context_give_the_same_bits_as_the_whole(start, shape, factor):
    labels = blobs((18, 24, 40), 30, 3)
    spacing, sigma = (8.0, 8.0, 8.0), 18.0
    box = Box(tuple(2 * a for a in start), shape).intersect(Box.whole(labels.shape))
    whole, whole_weight = local_shape_descriptors(labels, spacing, sigma, downsample=factor)
    lsds, weight = local_shape_descriptors(labels, spacing, sigma, downsample=factor, box=box)
    np.testing.assert_array_equal(lsds, whole[:, *box.slices()])
    np.testing.assert_array_equal(weight, whole_weight[box.slices()])
    crop = box.snap(factor).grow(context_vox(spacing, sigma, factor)).intersect(Box.whole(labels.shape))
    inner = box.shift(tuple(-a for a in crop.start))
    lsds, weight = local_shape_descriptors(labels[crop.slices()], spacing, sigma, downsample=factor, box=inner)
    np.testing.assert_array_equal(lsds, whole[:, *box.slices()])
    np.testing.assert_array_equal(weight, whole_weight[box.slices()])


def test_ids_do_not_matter():
    labels = blobs((9, 14, 30), 20, 1)
    old, dense = np.unique(labels, return_inverse=True)
    new = np.concatenate([[0], np.random.default_rng(0).permutation(len(old) - 1) + 1]).astype(np.uint8)
    a = local_shape_descriptors(labels, (8, 8, 8), 25.0, downsample=2)
    b = local_shape_descriptors(new[dense], (8, 8, 8), 25.0, downsample=2)
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])


def test_object_between_the_strides_has_no_target():
    labels = np.zeros((4, 4, 8), np.uint8)
    labels[1, 1, 1], labels[2, 2, 4:] = 1, 2
    lsds, weight = local_shape_descriptors(labels, (8, 8, 8), 10.0, downsample=2)
    assert weight[1, 1, 1] == 0
    assert not lsds[:, 1, 1, 1].any()
    assert weight[2, 2, 4:].all()
    np.testing.assert_array_equal(weight, by_definition(labels, (8, 8, 8), (10, 10, 10), (2, 2, 2))[1])


def test_mask_takes_away_weight_only():
    labels = blobs((6, 8, 10), 4, 2)
    mask = np.random.default_rng(1).random(labels.shape) < 0.5
    free = local_shape_descriptors(labels, (8, 8, 8), 20.0)
    masked = local_shape_descriptors(labels, (8, 8, 8), 20.0, mask_ZYX=mask)
    np.testing.assert_array_equal(masked[0], free[0])
    np.testing.assert_array_equal(masked[1], free[1] & mask)


def test_a_box_without_objects_and_an_empty_box():
    labels = np.zeros((5, 5, 5), np.uint16)
    labels[0] = 1
    lsds, weight = local_shape_descriptors(labels, (8, 8, 8), 20.0, box=Box((2, 0, 0), (3, 5, 5)))
    assert not lsds.any()
    assert not weight.any()
    lsds, weight = local_shape_descriptors(labels, (8, 8, 8), 20.0, box=Box((2, 0, 0), (0, 5, 5)))
    assert lsds.shape == (10, 0, 5, 5)
    assert weight.shape == (0, 5, 5)


def test_a_single_section_with_a_flat_window_is_two_dimensional():
    labels = blobs((1, 12, 15), 5, 4)
    thick = np.repeat(labels, 9, axis=0)
    flat, _ = local_shape_descriptors(labels, (40, 4, 4), (1.0, 12.0, 12.0))
    same, _ = local_shape_descriptors(thick, (40, 4, 4), (1.0, 12.0, 12.0))
    np.testing.assert_array_equal(flat, same[:, 4:5])


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_rejects_labels_that_are_not_unsigned(dtype):
    with pytest.raises(InputError, match="unsigned"):
        local_shape_descriptors(np.ones((3, 3, 3), dtype), (8, 8, 8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma_nm": 0.0}, "sigma"),
        ({"sigma_nm": (80.0, -1.0, 80.0)}, "sigma"),
        ({"spacing_nm": (0, 8, 8)}, "voxel size"),
        ({"downsample": 0}, "downsample"),
        ({"box": Box((0, 0, 0), (9, 1, 1))}, "leaves"),
        ({"mask_ZYX": np.ones((1, 1, 1), bool)}, "mask"),
    ],
)
def test_rejects_bad_values(options, message):
    with pytest.raises(InputError, match=message):
        local_shape_descriptors(np.ones((3, 3, 3), np.uint8), **({"spacing_nm": (8, 8, 8)} | options))


@pytest.mark.real_data
def test_reference_descriptors(real_data):
    with h5py.File(real_data / "lsd_golden_fib25" / "crop.h5") as file:
        labels, golden = file["labels"][:], file["gt_lsds"][:]
    # The reference saw labels beyond this crop: compare where its window of 30 voxels stays inside.
    box = Box((30, 30, 30), (32, 32, 32))
    lsds, _ = local_shape_descriptors(labels, (8, 8, 8), 80.0, downsample=2, box=box)
    difference = np.abs(lsds - golden[:, *box.slices()])
    assert difference.max() <= 5e-4
    assert np.quantile(difference, 0.999) <= 1e-4
