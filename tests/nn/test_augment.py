"""Draw, then apply, then record."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.nn.augment import (
    AugmentSpec,
    SamplePlan,
    apply_geometry,
    apply_intensity,
    draw_plan,
    interchangeable_orders,
    rng_of,
)

orders = interchangeable_orders((4, 4, 4))
plans = st.builds(
    SamplePlan,
    st.just(0),
    st.just((0, 0, 0)),
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.sampled_from(orders),
)


@given(st.integers(0, 2**32), st.integers(0, 2**32))
@settings(deadline=None, max_examples=30)
def test_a_plan_is_a_function_of_its_coordinates(seed: int, index: int) -> None:
    draws = [draw_plan(AugmentSpec(), rng_of(seed, 0, index), 0, (0, 0, 0), orders) for _ in range(2)]
    assert draws[0] == draws[1]


def test_neighbouring_samples_are_different() -> None:
    drawn = {draw_plan(AugmentSpec(), rng_of(0, 0, i), 0, (0, 0, 0), orders) for i in range(100)}
    assert len(drawn) == 100


@given(plans)
@settings(deadline=None, max_examples=30)
def test_raw_and_labels_move_together(plan: SamplePlan) -> None:
    z, y, x = np.indices((4, 4, 4))
    ramp = z * 100 + y * 10 + x
    moved = apply_geometry(plan, ramp)
    also = apply_geometry(plan, (ramp * 7).astype(np.uint64))
    assert np.array_equal(moved * 7, also)
    assert sorted(moved.ravel()) == sorted(ramp.ravel())


def test_identity_changes_nothing_and_flips_undo_themselves() -> None:
    array = np.random.default_rng(1).random((3, 4, 5))
    assert np.array_equal(apply_geometry(SamplePlan(0, (0, 0, 0)), array), array)
    flip = SamplePlan(0, (0, 0, 0), flips=(True, False, True))
    assert np.array_equal(apply_geometry(flip, apply_geometry(flip, array)), array)


def test_axes_swap_only_where_extent_and_voxel_size_agree() -> None:
    assert interchangeable_orders((8, 8, 8), (40.0, 4.0, 4.0)) == [(0, 1, 2), (0, 2, 1)]
    assert interchangeable_orders((8, 8, 16), (4.0, 4.0, 4.0)) == [(0, 1, 2), (1, 0, 2)]
    assert len(interchangeable_orders((8, 8, 8), (4.0, 4.0, 4.0))) == 6


def test_neutral_intensity_is_the_identity_up_to_rounding() -> None:
    raw = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8)).astype(np.float32)
    assert np.allclose(apply_intensity(SamplePlan(0, (0, 0, 0)), raw), raw, atol=1e-6)


def test_intensity_is_replayable_and_leaves_its_input_alone() -> None:
    raw = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8)).astype(np.float32)
    before = raw.copy()
    plan = SamplePlan(
        0, (0, 0, 0), contrast=1.2, brightness=0.1, gamma=0.9, noise=0.1, section_jitter=0.2, noise_seed=3
    )
    first, second = apply_intensity(plan, raw), apply_intensity(plan, raw)
    assert np.array_equal(first, second)
    assert np.array_equal(raw, before)
    assert not np.allclose(first, raw)
