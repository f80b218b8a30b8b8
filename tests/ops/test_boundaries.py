"""Boundaries: against scikit-image where all is known, against a loop where not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from skimage.segmentation import find_boundaries

from emloom.errors import InputError
from emloom.ops.boundaries import boundaries

shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
labels_arrays = hnp.arrays(np.uint64, shapes, elements=st.sampled_from([0, 1, 2, 2**32 + 1, 2**63 - 1]))
light = settings(deadline=None, max_examples=60)


def by_loop(labels, mode, in_plane, mask):
    marked, certain = np.zeros(labels.shape, np.uint8), np.zeros(labels.shape, np.uint8)
    for p in np.ndindex(labels.shape):
        if not mask[p]:
            continue
        unknown = False
        for axis in (1, 2) if in_plane else (0, 1, 2):
            for step in (-1, 1):
                q = list(p)
                q[axis] += step
                if not 0 <= q[axis] < labels.shape[axis] or not mask[tuple(q)]:
                    unknown = True
                elif labels[tuple(q)] != labels[p]:
                    marked[p] = 1
        certain[p] = marked[p] or not unknown
        if mode == "inner" and labels[p] == 0:
            marked[p], certain[p] = 0, 1
    return marked, certain


@light
@given(labels_arrays, st.sampled_from(["inner", "thick"]), st.booleans(), st.none() | st.integers(0, 99))
def test_equals_the_definition(labels, mode, in_plane, seed):
    mask = None if seed is None else np.random.default_rng(seed).random(labels.shape) < 0.8
    marked, certain = boundaries(labels, mode, in_plane=in_plane, mask_ZYX=mask)
    expected = by_loop(labels, mode, in_plane, np.ones(labels.shape, bool) if mask is None else mask)
    assert marked.dtype == certain.dtype == np.uint8
    np.testing.assert_array_equal(marked, expected[0])
    np.testing.assert_array_equal(certain, expected[1])


@light
@given(hnp.arrays(np.int64, shapes, elements=st.integers(0, 3)), st.sampled_from(["inner", "thick"]))
def test_equals_scikit_image(labels, mode):
    marked, _ = boundaries(labels.astype(np.uint8), mode)
    np.testing.assert_array_equal(marked, find_boundaries(labels, connectivity=1, mode=mode))


@light
@given(labels_arrays, st.permutations([0, 1, 2]))
def test_axes_are_alike(labels, order):
    for a, b in zip(boundaries(labels), boundaries(labels.transpose(order)), strict=True):
        np.testing.assert_array_equal(a.transpose(order), b)


def test_rejects_bad_values():
    with pytest.raises(InputError, match="mode"):
        boundaries(np.ones((2, 2, 2), np.uint8), "outer")
    with pytest.raises(InputError, match="unsigned"):
        boundaries(np.ones((2, 2, 2), np.int8))
