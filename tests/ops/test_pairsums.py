"""Kernels of a fully connected CRF against their definition, over all pairs of voxels; crops against the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.errors import InputError
from emloom.ops.pairsums import Kernel, PairSums
from emloom.ops.rowmath import exp_below, log_above

WIDTH = 8


def textured(shape, seed=0):
    rng = np.random.default_rng(seed)
    raw = ndimage.gaussian_filter(rng.random(shape), 2)
    raw = (raw - raw.min()) / np.ptp(raw) * 200 + rng.normal(0, 8, shape)
    return raw.clip(0, 255).astype(np.uint8)


def random_classes(shape, n, seed=0):
    """Independent at every voxel: the hard case, in which errors of a kernel do not average out."""
    values = np.zeros((*shape, WIDTH), np.float32)
    values[..., :n] = np.random.default_rng(seed).dirichlet(np.ones(n), shape)
    return values


def by_pairs(kernel, raw, known, values):
    at = np.stack(np.meshgrid(*map(np.arange, raw.shape), indexing="ij"), -1).reshape(-1, 3)
    at = at / np.array(kernel.sigma_vox)
    square = (at**2).sum(-1)
    apart = square[:, None] + square - 2 * at @ at.T
    if kernel.sigma_intensity is not None:
        grey = raw.reshape(-1) / kernel.sigma_intensity
        apart += (grey[:, None] - grey) ** 2
    k = np.exp(-0.5 * apart)
    k *= known.reshape(-1) * known.reshape(-1, 1)
    root = known.reshape(-1) / np.sqrt(np.maximum(k.sum(1), 1e-9))
    np.fill_diagonal(k, 0)
    return kernel.weight * ((root[:, None] * k * root) @ values.reshape(-1, WIDTH)).reshape(values.shape)


def applied(kernel, raw, values, known=None, start=(0, 0, 0), threads=1):
    known = np.ones(raw.shape, bool) if known is None else known
    out = np.zeros_like(values)
    PairSums(kernel, raw, known, start, WIDTH, threads).add(values, out)
    return out


def error(found, true, n):
    """Return the mean error of what tells classes apart, relative to its mean."""
    found, true = (v[..., :n] - v[..., :n].mean(-1, keepdims=True) for v in (found, true))
    return np.abs(found - true).mean() / np.abs(true).mean()


@pytest.mark.parametrize(
    ("kernel", "bound"),
    [
        (Kernel((2, 2, 2)), 1e-5),
        (Kernel((0.7, 3, 2), 1.7), 1e-5),
        (Kernel((6, 6, 6), 1, 20), 0.07),
        (Kernel((6, 6, 6), 1, 20, step=0.5), 0.04),
        (Kernel((3, 3, 3), 2.5, 20), 0.07),
        (Kernel((3, 3, 3), 1, 20, step=0.5), 0.04),
        (Kernel((0.8, 3, 3), 1, 20), 0.05),
        (Kernel((1, 1, 1), 1, 10), 2e-3),
        (Kernel((1.4, 1, 0.5), 1, 30), 2e-3),
    ],
)
def test_sums_are_those_over_all_pairs(kernel, bound):
    raw, values = textured((14, 14, 14)), random_classes((14, 14, 14), 7)
    known = np.ones(raw.shape, bool)
    true = by_pairs(kernel, raw, known, values)
    assert error(applied(kernel, raw, values, start=(3, -5, 7)), true, 7) <= bound
    known = np.random.default_rng(1).random(raw.shape) < 0.7
    found = applied(kernel, raw, values, known)
    assert error(found, by_pairs(kernel, raw, known, values), 7) <= 1.2 * bound
    assert not found[~known].any()


def test_float_raw_and_its_scale_count_only_relative_to_sigma():
    raw, values = textured((8, 12, 12)), random_classes((8, 12, 12), 3)
    a = applied(Kernel((3, 3, 3), 1, 16.0), raw, values)
    b = applied(Kernel((3, 3, 3), 1, 0.0625), raw / np.float32(256), values)
    np.testing.assert_array_equal(a, b)


KERNELS = [Kernel((1, 2, 2)), Kernel((2, 2, 2), 1, 25), Kernel((0.7, 2, 2), 1, 25), Kernel((1, 1, 1), 1, 25)]


@pytest.mark.parametrize("kernel", KERNELS)
@settings(deadline=None, max_examples=8)
@given(
    st.tuples(*[st.integers(-9, 9)] * 3),
    st.integers(2, 4),
    st.tuples(*[st.integers(0, 3)] * 3),
)
def test_a_crop_has_the_bits_of_the_whole_and_so_do_threads(kernel, start, threads, cut):
    reach = kernel.reach_vox
    shape = tuple(2 * r + 4 for r in reach)
    raw, values = textured(shape), random_classes(shape, 3)
    whole = np.zeros_like(values)
    sums = PairSums(kernel, raw, np.ones(shape, bool), start, WIDTH, 1)
    sums.add(values, whole)
    many = applied(kernel, raw, values, start=start, threads=threads)
    np.testing.assert_array_equal(whole, many)
    # N has a reach of its own, so the inner voxels are compared before normalisation.
    crop = tuple(slice(c, None) for c in cut)
    inner = tuple(slice(c + r, -r or None) for c, r in zip(cut, reach, strict=True))
    flat = np.ones(shape, np.float32)
    a, b = np.zeros_like(values), np.zeros_like(values[crop])
    sums._sums.add(values, flat, 1.0, a)
    moved = tuple(s + c for s, c in zip(start, cut, strict=True))
    part = np.ascontiguousarray(values[crop])
    other = PairSums(kernel, raw[crop], np.ones(part.shape[:3], bool), moved, WIDTH, 1)
    other._sums.add(part, np.ascontiguousarray(flat[crop]), 1.0, b)
    mine = a[inner]
    np.testing.assert_array_equal(
        mine, b[tuple(slice(i.start - c, i.stop) for i, c in zip(inner, cut, strict=True))]
    )


def test_wrong_kernels_say_so():
    with pytest.raises(InputError, match="above 0"):
        Kernel((1, 0, 1))
    with pytest.raises(InputError, match="penalty"):
        Kernel((1, 1, 1), -1)
    with pytest.raises(InputError, match="step"):
        Kernel((1, 1, 1), 1, 10, step=2)


def test_exp_and_log_of_rows():
    t = np.concatenate([[0], np.logspace(-8, 2.2, 10_001)]).astype(np.float32)
    found = t.copy()
    exp_below(found, np.empty(t.size, np.int32))
    true = np.exp(-t.astype(np.float64))
    assert np.abs(found / true - 1)[t < 41].max() < 5e-6
    assert found[0] == 1
    assert not found[t > 42].any()
    x = np.concatenate([[0], np.logspace(-37, 2, 10_001)]).astype(np.float32)
    logs = np.empty_like(x)
    log_above(x, logs)
    np.testing.assert_allclose(logs[1:], np.log(x[1:].astype(np.float64)), rtol=4e-7, atol=3e-7)
    assert logs[0] < -87
