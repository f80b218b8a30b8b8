"""Applying a plan: raw, labels and points move together, sources stay as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from emloom.geometry import Box
from emloom.nn.augment import AffineSpec, AugmentSpec, DefectSpec, ElasticSpec, FoldSpec, SectionsSpec
from emloom.nn.draw import Frame, Streams, draw_plan
from emloom.nn.library import Library
from emloom.nn.plan import Artifact, Blur, Fold, LowContrast, Missing, Motion, Noise, SamplePlan, Tone, Warp
from emloom.nn.render import Geometry, finish_raw, label_part, raw_part
from emloom.ops.resample import gather

FRAME = Frame((7, 30, 30), (1, 3, 3), (8.0, 8.0, 8.0))
WHOLE = Box.whole(FRAME.shape)
VOLUME = (40, 90, 90)
START = (15, 30, 30)
GEOMETRIC = AugmentSpec(
    affine=AffineSpec(rotation_deg=(0, 360), scale=(0.8, 1.2)),
    elastic=ElasticSpec(spacing_nm=(80, 80, 80), sigma_nm=(4, 8, 8)),
    sections=SectionsSpec(slip=0.1, shift=0.1, largest_nm=32),
)


def seen(
    plan: SamplePlan, raw: NDArray[Any], labels: NDArray[Any], library: Library | None = None
) -> tuple[Any, Any]:
    """Return raw and labels of the whole frame."""
    geometry = Geometry.of(plan, FRAME)

    def read(array: NDArray[Any], box: Box) -> NDArray[Any]:
        faces = zip(box.start, box.stop, array.shape, strict=True)
        index = [np.clip(np.arange(a, b), 0, n - 1) for a, b, n in faces]
        return np.ascontiguousarray(array[np.ix_(*index)])

    got, ids, _ = gather(
        geometry.mapping,
        raw_part(plan, geometry, WHOLE, lambda box: read(raw, box), (0.0, 255.0)),
        label_part(geometry, WHOLE, lambda box: (read(labels, box), np.zeros((0, 0, 0), np.uint8))),
    )
    finish_raw(plan, got, WHOLE, library)
    return got, ids


def plan_of(spec: AugmentSpec, index: int, library: Library | None = None) -> SamplePlan:
    return draw_plan(spec, Streams(3, 0, index), 0, START, FRAME, library)


def noise_volume() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, VOLUME).astype(np.uint8)


RAW = noise_volume()
IDS = np.arange(RAW.size, dtype=np.uint32).reshape(VOLUME)


@given(st.integers(0, 63), st.permutations(range(3)))
@settings(deadline=None, max_examples=30)
def test_orientations_are_exact_and_undo_themselves(bits: int, order: list[int]) -> None:
    flips = (bool(bits & 1), bool(bits & 2), bool(bits & 4))
    cube = Frame((9, 9, 9), (2, 2, 2), (8.0, 8.0, 8.0))
    plan = SamplePlan(source=0, start=START, flips=flips, order=(order[0], order[1], order[2]))
    geometry = Geometry.of(plan, cube)
    part = label_part(
        geometry, Box.whole(cube.shape), lambda box: (IDS[box.slices()], np.zeros((0, 0, 0), np.uint8))
    )
    raw = raw_part(plan, geometry, Box.whole(cube.shape), lambda box: RAW[box.slices()], (0.0, 255.0))
    got, ids, _ = gather(geometry.mapping, raw, part)
    box = Box(START, cube.output).grow(cube.reach)
    wanted = IDS[box.slices()].transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    assert np.array_equal(ids, wanted)
    back = ids[tuple(slice(None, None, -1 if f else 1) for f in flips)].transpose(np.argsort(order))
    assert np.array_equal(back, IDS[box.slices()])
    assert np.array_equal(np.rint((got + 1) * 127.5).astype(int), RAW.ravel()[ids])


@given(st.integers(0, 500))
@settings(deadline=None, max_examples=25)
def test_points_land_where_their_voxel_is_seen(index: int) -> None:
    """The label under a moved point is the label it had: through orientation, warp, slips and shifts."""
    plan = plan_of(GEOMETRIC, index)
    geometry = Geometry.of(plan, FRAME)
    _, ids = seen(plan, RAW, IDS)
    rng = np.random.default_rng(index)
    voxels = rng.integers(0, FRAME.shape, (40, 3))
    source = np.stack(np.unravel_index(ids[tuple(voxels.T)], VOLUME), axis=1)
    inner = voxels - np.array(FRAME.reach)
    there = geometry.to_volume(inner)
    assert np.abs(there - source).max() <= 0.5 + 1e-3
    back = geometry.to_output(there)
    found = ~np.isnan(back).any(axis=1)
    assert found.mean() > 0.6
    assert np.abs(geometry.to_volume(back[found]) - there[found]).max() < 1e-3


@given(st.integers(0, 500))
@settings(deadline=None, max_examples=20)
def test_raw_and_labels_move_together(index: int) -> None:
    """A ramp as raw and as labels: bugs 3, 13 of the originals moved one axis of one of them."""
    plan = plan_of(GEOMETRIC, index)
    for axis in range(3):
        ramp = np.indices(VOLUME)[axis].astype(np.uint8)
        raw, ids = seen(plan.model_copy(update={"noise": None, "tone": None}), ramp, ramp.astype(np.uint32))
        assert np.abs((raw + 1) * 127.5 - ids).max() <= 0.5 + 1e-2


def test_sources_are_unchanged_after_many_samples() -> None:
    """Bug 1 of the originals: augmentation in place drifted the training volume."""
    spec = AugmentSpec.serial_sections()
    raw, ids = RAW.copy(), IDS.copy()
    raw.flags.writeable = ids.flags.writeable = False
    for index in range(60):
        seen(plan_of(spec, index), raw, ids)
    assert np.array_equal(raw, RAW)
    assert np.array_equal(ids, IDS)


def test_the_global_generator_is_left_alone() -> None:
    """Bug 5 of the originals: a transform seeded the process for every section."""
    np.random.seed(5)  # noqa: NPY002
    wanted = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    seen(plan_of(AugmentSpec.serial_sections(), 0), RAW, IDS)
    assert np.array_equal(np.random.random(3), wanted)  # noqa: NPY002


def test_a_tone_is_contrast_brightness_and_gamma() -> None:
    n = FRAME.shape[0]
    still = SamplePlan(source=0, start=START)
    before, _ = seen(still, RAW, IDS)
    contrast, brightness, gamma = np.linspace(0.5, 1.4, n), np.linspace(-0.2, 0.2, n), np.linspace(0.5, 2, n)
    tone = Tone(contrast=tuple(contrast), brightness=tuple(brightness), gamma=tuple(gamma))
    after, _ = seen(still.model_copy(update={"tone": tone}), RAW, IDS)
    box = Box(START, FRAME.output).grow(FRAME.reach)
    mean = float(RAW[box.slices()][:, ::4, ::4].mean()) * 2 / 255 - 1
    c, b, g = (v[:, None, None] for v in (contrast, brightness, gamma))
    unit = np.clip(((before - mean) * c + mean + b + 1) / 2, 0, 1)
    off = np.abs(after - (unit**g * 2 - 1))
    # The sample's mean is an estimate; the table is coarse only beside a gamma's vertical tangent.
    assert off.max() < 0.02
    assert off.mean() < 1e-3


AREA = (4, 20, 5, 25)
EFFECTS = [
    Blur(section=3, area=AREA, sigma_vox=(2.0, 2.0)),
    Motion(section=3, area=AREA, step_vox=(3.0, 6.0)),
    LowContrast(section=3, area=AREA, scale=0.1),
    Missing(section=3, area=AREA, value=None),
    Missing(section=3, area=AREA, value=0.25),
    Artifact(section=3, number=0, source=(0, 0), area=AREA, flips=(True, False), transposed=True),
]


@pytest.mark.parametrize("effect", EFFECTS, ids=lambda e: e.kind)
def test_an_effect_changes_its_area_and_nothing_else(effect: Any) -> None:
    library = Library(np.full((1, 40, 40), 0.5, np.float32), np.ones((1, 40, 40), np.float32))
    still = SamplePlan(source=0, start=START)
    before, _ = seen(still, RAW, IDS)
    after, _ = seen(still.model_copy(update={"defects": (effect,)}), RAW, IDS, library)
    y0, y1, x0, x1 = AREA
    outside = np.ones(FRAME.shape, bool)
    outside[3, y0:y1, x0:x1] = False
    assert np.array_equal(before[outside], after[outside])
    inside, was = after[3, y0:y1, x0:x1], before[3, y0:y1, x0:x1]
    assert inside.std() < 0.7 * was.std()
    if not isinstance(effect, Missing | Artifact):
        assert inside.mean() == pytest.approx(was.mean(), abs=0.05)


def test_a_fold_darkens_its_line_and_pulls_both_sides() -> None:
    """Bug 5 of the originals: the fold was a painted bar, or did not fit the section."""
    fold = Fold(section=2, normal=(0.0, 1.0), c=18.0, strength_vox=5.0, width_vox=4.0, moves_labels=False)
    still = SamplePlan(source=0, start=START)
    before, labels = seen(still, RAW, IDS)
    after, kept = seen(still.model_copy(update={"folds": (fold,)}), RAW, IDS)
    assert np.array_equal(labels, kept)
    assert np.array_equal(np.delete(before, 2, axis=0), np.delete(after, 2, axis=0))
    assert (after[2, :, 17:20] == -1).all()
    box = Box(START, FRAME.output).grow(FRAME.reach)
    section = RAW[box.start[0] + 2, box.start[1] : box.stop[1]].astype(np.float32) * np.float32(2 / 255) - 1
    x0 = box.start[2]
    assert np.allclose(after[2, :, 25:], section[:, x0 + 30 : x0 + 41], atol=1e-6)
    assert np.allclose(after[2, :, :14], section[:, x0 - 5 : x0 + 9], atol=1e-6)
    _, moved = seen(
        still.model_copy(update={"folds": (fold.model_copy(update={"moves_labels": True}),)}), RAW, IDS
    )
    assert np.array_equal(moved[2, :, 25:], labels[2, :, 30:41] if moved.shape[2] > 41 else moved[2, :, 25:])
    assert (moved[2] != labels[2]).any()


def test_noise_is_white_and_as_strong_as_asked() -> None:
    still = SamplePlan(source=0, start=START)
    before, _ = seen(still, RAW, IDS)
    after, _ = seen(still.model_copy(update={"noise": Noise(sigma=0.1, seed=3)}), RAW, IDS)
    noise = after - before
    assert noise.std() == pytest.approx(0.1, rel=0.03)
    assert abs(noise.mean()) < 0.005
    for a, b in ((noise[1:], noise[:-1]), (noise[:, 1:], noise[:, :-1]), (noise[..., 1:], noise[..., :-1])):
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.05


def test_missing_sections_are_lost_after_everything_else() -> None:
    spec = AugmentSpec(defects=DefectSpec(missing=0.5, fill="black", folds=FoldSpec()), noise=0.2)
    plan = plan_of(spec, 1)
    raw, _ = seen(plan, RAW, IDS)
    lost = [d.section for d in plan.defects]
    assert lost
    assert (raw[lost] == -1).all()
    assert (raw[np.setdiff1d(np.arange(FRAME.shape[0]), lost)].std(axis=(1, 2)) > 0).all()


def test_elastic_displacement_has_the_size_asked_for() -> None:
    """As seen in the samples, not only in the map: this catches augmentations that hardly move anything."""
    spec = AugmentSpec(
        flip=False, transpose=False, elastic=ElasticSpec(spacing_nm=(80, 80, 80), sigma_nm=(0, 16, 24))
    )
    moves = []
    for index in range(40):
        plan = plan_of(spec, index)
        geometry = Geometry.of(plan, FRAME)
        voxels = np.indices(FRAME.output).reshape(3, -1).T[::7]
        moves.append(geometry.to_volume(voxels) - voxels - np.array(START))
    rms = np.sqrt(np.mean(np.square(moves), axis=(0, 1)))
    assert rms == pytest.approx([0, 2.0, 3.0], rel=0.1, abs=1e-9)


def test_a_warp_without_anything_is_the_identity() -> None:
    plain, _ = seen(SamplePlan(source=0, start=START), RAW, IDS)
    warped, _ = seen(SamplePlan(source=0, start=START, warp=Warp()), RAW, IDS)
    assert np.array_equal(plain, warped)
