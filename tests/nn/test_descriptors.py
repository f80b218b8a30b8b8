"""Local shape descriptors in torch: equal to those of numpy, sample by sample, on every device."""

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.nn import descriptors
from emloom.nn.descriptors import local_shape_descriptors
from emloom.ops.descriptors import local_shape_descriptors as by_numpy

light = settings(deadline=None, max_examples=25)
devices = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")),
]


def blobs(shape, n, seed):
    """Objects of all shapes: nearest of n random points, some of them background, ids beyond 32 bits."""
    rng = np.random.default_rng(seed)
    points = rng.random((n, 3)) * shape
    where = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    nearest = np.linalg.norm(where[..., None, :] - points, axis=-1).argmin(-1)
    ids = np.concatenate([[0], rng.choice(2**60, n - 1, replace=False) + 1])
    return ids[nearest]


def expected(labels, mask=None, **options):
    parts = [
        by_numpy(sample.astype(np.uint64), mask_ZYX=None if mask is None else mask[k], **options)
        for k, sample in enumerate(labels)
    ]
    return np.stack([lsds for lsds, _ in parts]), np.stack([weight for _, weight in parts])


@pytest.mark.parametrize("device", devices)
@light
@given(
    st.tuples(st.integers(1, 7), st.integers(2, 11), st.integers(2, 21)),
    st.sampled_from([(8.0, 8.0, 8.0), (40.0, 4.0, 4.0), (30.0, 6.5, 5.0)]),
    st.sampled_from([(20.0, 20.0, 20.0), (60.0, 15.0, 12.0)]),
    st.sampled_from([(1, 1, 1), (2, 2, 2), (1, 2, 3)]),
    st.integers(0, 1000),
    st.booleans(),
)
def test_equals_numpy(device, shape, spacing, sigma, factor, seed, masked):
    labels = np.stack([blobs(shape, 6, seed + k) for k in range(2)])
    mask = np.random.default_rng(seed).random(labels.shape) < 0.8 if masked else None
    lsds, weight = local_shape_descriptors(
        torch.from_numpy(labels).to(device),
        spacing,
        sigma,
        downsample=factor,
        known_NZYX=None if mask is None else torch.from_numpy(mask).to(device),
    )
    reference = expected(labels, mask, spacing_nm=spacing, sigma_nm=sigma, downsample=factor)
    assert lsds.dtype == torch.float32
    np.testing.assert_array_equal(weight.cpu(), reference[1])
    np.testing.assert_allclose(lsds.cpu(), reference[0], atol=5e-6)


@light
@given(
    st.tuples(*[st.integers(0, 6)] * 3),
    st.tuples(*[st.integers(0, 9)] * 3),
    st.sampled_from([(1, 1, 1), (2, 2, 2), (1, 2, 2)]),
)
def test_a_box_equals_numpy_too(start, shape, factor):
    labels = blobs((18, 24, 40), 30, 3)[None]
    options = {"spacing_nm": (8.0, 8.0, 8.0), "sigma_nm": 18.0, "downsample": factor, "box": Box(start, shape)}
    lsds, weight = local_shape_descriptors(torch.from_numpy(labels), **options)
    reference = expected(labels, **options)
    np.testing.assert_array_equal(weight, reference[1])
    np.testing.assert_allclose(lsds, reference[0], atol=5e-6)


def test_how_objects_are_grouped_does_not_matter(monkeypatch):
    labels = torch.from_numpy(np.stack([blobs((9, 14, 30), 20, seed) for seed in (1, 2)]))
    together = local_shape_descriptors(labels, (8, 8, 8), 25.0, downsample=2)
    monkeypatch.setattr(descriptors, "_LARGEST", 1)
    alone = local_shape_descriptors(labels, (8, 8, 8), 25.0, downsample=2)
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-7)


def test_equal_ids_of_two_samples_are_two_objects():
    one, two = torch.zeros(6, 8, 10, dtype=torch.int32), torch.zeros(6, 8, 10, dtype=torch.int32)
    one[:, :4], two[2:] = 7, 7
    both, _ = local_shape_descriptors(torch.stack([one, two]), (8, 8, 8), 20.0)
    for k, sample in enumerate((one, two)):
        torch.testing.assert_close(both[k], local_shape_descriptors(sample[None], (8, 8, 8), 20.0)[0][0])


def test_ids_do_not_matter():
    labels = torch.from_numpy(blobs((9, 14, 30), 20, 1))
    _, dense = torch.unique(labels, return_inverse=True)
    # 0 stays 0, all others change their rank.
    other = torch.where(dense == 0, 0, 200 - dense).to(torch.uint8)
    a = local_shape_descriptors(labels[None], (8, 8, 8), 25.0, downsample=2)
    b = local_shape_descriptors(other[None], (8, 8, 8), 25.0, downsample=2)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


def test_objects_between_the_strides_have_no_target():
    labels = torch.zeros(1, 4, 4, 8, dtype=torch.long)
    labels[0, 1, 1, 1], labels[0, 2, 2, 4:] = 1, 2
    lsds, weight = local_shape_descriptors(labels, (8, 8, 8), 10.0, downsample=2)
    assert weight[0, 1, 1, 1] == 0
    assert not lsds[0, :, 1, 1, 1].any()
    assert weight[0, 2, 2, 4:].all()


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 4, 5)])
def test_nothing_to_describe(shape):
    lsds, weight = local_shape_descriptors(torch.zeros(shape, dtype=torch.long), (8, 8, 8))
    assert lsds.shape == (shape[0], 10, *shape[1:])
    assert weight.shape == shape
    assert not lsds.any()


@pytest.mark.real_data
@pytest.mark.parametrize("device", devices)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_real_neurites_in_either_precision(real_data, device, dtype):
    with h5py.File(real_data / "lsd_golden_fib25" / "crop.h5") as file:
        labels, golden = file["labels"][:], file["gt_lsds"][:]
    box = Box((30, 30, 30), (32, 32, 32))
    options = {"spacing_nm": (8, 8, 8), "sigma_nm": 80.0, "downsample": 2, "box": box}
    batch = torch.from_numpy(labels.astype(np.int64))[None].to(device)
    # What a training loop sets around its targets must not reach them.
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast(device, dtype=torch.bfloat16):
            lsds, weight = local_shape_descriptors(batch, **options, dtype=dtype)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    reference = by_numpy(labels, **options)
    np.testing.assert_array_equal(weight[0].cpu(), reference[1])
    np.testing.assert_allclose(lsds[0].cpu(), reference[0], atol=5e-6)
    difference = np.abs(lsds[0].cpu().numpy() - golden[:, *box.slices()])
    assert difference.max() <= 5e-4
    assert np.quantile(difference, 0.999) <= 1e-4


def test_rejects_bad_values():
    good = torch.ones(1, 3, 3, 3, dtype=torch.long)
    for labels in (good.float(), good[0], good.bool()):
        with pytest.raises(InputError, match="integers"):
            local_shape_descriptors(labels, (8, 8, 8))
    with pytest.raises(InputError, match="labels hold -1"):
        local_shape_descriptors(-good, (8, 8, 8))
    with pytest.raises(InputError, match="mask has shape"):
        local_shape_descriptors(good, (8, 8, 8), known_NZYX=good[0])
    with pytest.raises(InputError, match="sigma"):
        local_shape_descriptors(good, (8, 8, 8), 0.0)
    with pytest.raises(InputError, match="leaves"):
        local_shape_descriptors(good, (8, 8, 8), box=Box((0, 0, 0), (9, 1, 1)))
