"""Masks become classes: priorities and bands, against loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emloom.errors import InputError
from emloom.ops.combine import between_classes, first_of

shapes = hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)
light = settings(deadline=None, max_examples=60)


@light
@given(hnp.arrays(np.bool_, (3, 2, 3, 4)), st.permutations([1, 4, 255]), st.sampled_from([0, 7]))
def test_the_first_mask_that_covers_a_voxel_has_it(masks, ids, rest):
    codes = first_of(list(masks), ids, rest)
    assert codes.dtype == np.uint8
    for p in np.ndindex(codes.shape):
        covering = [number for mask, number in zip(masks, ids, strict=True) if mask[p]]
        assert codes[p] == (covering[0] if covering else rest)


def test_an_interior_is_what_its_boundary_leaves():
    mito, boundary = np.random.default_rng(0).random((2, 3, 5, 5)) < 0.5
    codes = first_of([boundary, mito], [1, 2])
    np.testing.assert_array_equal(codes == 2, mito & ~boundary)


@light
@given(hnp.arrays(np.int32, shapes, elements=st.sampled_from([0, 1, 2, 300])), st.integers(0, 3), st.booleans())
def test_near_is_within_the_reach_of_another_class(codes, reach, in_plane):
    near = between_classes(codes, reach, in_plane=in_plane)
    places = [np.array(p) for p in np.ndindex(codes.shape)]
    for p in places:
        expected = any(
            codes[tuple(q)] not in (0, codes[tuple(p)])
            and ((q - p) ** 2).sum() <= reach**2
            and (q[0] == p[0] or not in_plane)
            for q in places
        )
        assert near[tuple(p)] == (codes[tuple(p)] != 0 and expected)


@light
@given(hnp.arrays(np.uint8, (3, 8, 8), elements=st.integers(0, 3)), st.integers(1, 3))
def test_a_wider_band_holds_the_narrower_one_and_space_holds_the_plane(codes, reach):
    narrow, wide = between_classes(codes, reach), between_classes(codes, reach + 1)
    assert not (narrow & ~wide).any()
    assert not (narrow & ~between_classes(codes, reach, in_plane=False)).any()


def test_masks_without_ids_are_refused():
    with pytest.raises(InputError, match="an id for each"):
        first_of([np.ones((1, 1, 1), bool)], [])
