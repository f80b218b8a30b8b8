"""Drawing: plans are functions of their coordinates, and happen as often as asked."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.nn.augment import (
    AffineSpec,
    AugmentSpec,
    BlurSpec,
    BoxesSpec,
    DefectSpec,
    ElasticSpec,
    FoldSpec,
    IntensitySpec,
    LibrarySpec,
    SectionsSpec,
)
from emloom.nn.draw import Frame, Streams, draw_moves, draw_plan, widest_read
from emloom.nn.library import Library, turned
from emloom.nn.plan import Artifact, Hidden, Missing, SamplePlan

FRAME = Frame((8, 24, 30), (1, 4, 4), (40.0, 4.0, 4.0))
MASKS = np.pad(np.ones((3, 10, 5), np.float32), [(0, 0), (40, 0), (15, 0)])
LIBRARY = Library(np.zeros((3, 50, 20), np.float32), MASKS)
EVERYTHING = AugmentSpec(
    affine=AffineSpec(rotation_deg=(0, 90), scale=(0.9, 1.1), shear_deg=(-3, 3)),
    elastic=ElasticSpec(sigma_nm=(10, 8, 8)),
    sections=SectionsSpec(slip=0.2, shift=0.2, slip_moves_labels=False),
    intensity=IntensitySpec(scope="mix", section_jitter=0.1),
    defects=DefectSpec(
        missing=0.2,
        low_contrast=0.2,
        artifact=0.2,
        fold=0.2,
        partial=0.5,
        fill="random",
        library=LibrarySpec(images="a", masks="b"),
    ),
    blur=BlurSpec(gaussian=0.3, motion=0.3, partial=0.5),
    boxes=BoxesSpec(probability=1.0),
)


def plans(spec: AugmentSpec, count: int, frame: Frame = FRAME) -> list[SamplePlan]:
    return [draw_plan(spec, Streams(7, 0, i), 0, (0, 0, 0), frame, LIBRARY) for i in range(count)]


@given(st.integers(0, 2**32), st.integers(0, 9), st.integers(0, 2**32))
@settings(deadline=None, max_examples=20)
def test_a_plan_is_a_function_of_its_coordinates(seed: int, epoch: int, index: int) -> None:
    drawn = [draw_plan(EVERYTHING, Streams(seed, epoch, index), 0, (1, 2, 3), FRAME, LIBRARY) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_neighbouring_samples_and_epochs_differ() -> None:
    drawn = {draw_plan(AugmentSpec(), Streams(0, e, i), 0, (0, 0, 0), FRAME) for e in range(3) for i in range(50)}
    assert len(drawn) == 150


@given(st.integers(0, 999))
@settings(deadline=None, max_examples=10)
def test_plans_survive_yaml(index: int) -> None:
    plan = draw_plan(EVERYTHING, Streams(0, 0, index), 2, (1, 2, 3), FRAME, LIBRARY)
    assert SamplePlan.from_yaml(plan.to_yaml()) == plan


def test_one_effect_does_not_change_the_draws_of_another() -> None:
    quiet = EVERYTHING.model_copy(update={"noise": 0.0, "affine": None, "blur": BlurSpec()})
    for a, b in zip(plans(EVERYTHING, 20), plans(quiet, 20), strict=True):
        assert (a.moves, a.folds, a.tone, a.flips) == (b.moves, b.folds, b.tone, b.flips)
        assert a.warp is not None
        assert b.warp is not None
        assert a.warp.normals == b.warp.normals


def test_nothing_is_drawn_where_nothing_may_happen() -> None:
    for plan in plans(AugmentSpec.none(), 20):
        assert plan == SamplePlan(source=0, start=(0, 0, 0))


def test_defects_are_as_frequent_as_asked_and_exclude_each_other() -> None:
    spec = AugmentSpec(defects=DefectSpec(missing=0.1, fold=0.2))
    drawn = plans(spec, 400)
    sections = 400 * FRAME.shape[0]
    missing = sum(isinstance(d, Missing) for plan in drawn for d in plan.defects)
    folded = sum(len(plan.folds) for plan in drawn)
    assert missing / sections == pytest.approx(0.1, abs=4 * np.sqrt(0.09 / sections))
    assert folded / sections == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / sections))
    for plan in drawn:
        lost = {d.section for d in plan.defects if isinstance(d, Missing)}
        assert lost.isdisjoint(fold.section for fold in plan.folds)


def test_spared_sections_lie_between_defects() -> None:
    spec = AugmentSpec(defects=DefectSpec(missing=0.6, apart_sections=2))
    for plan in plans(spec, 50):
        lost = [d.section for d in plan.defects if isinstance(d, Missing)]
        assert all(b - a > 2 for a, b in pairwise(lost))


def test_slips_and_shifts_are_as_frequent_as_asked() -> None:
    frame = Frame((400, 8, 8), (0, 0, 0), (40.0, 4.0, 4.0))
    spec = SectionsSpec(slip=0.05, shift=0.1, largest_nm=4_000.0, slip_moves_labels=False)
    slips = shifts = 0
    for i in range(20):
        moves = draw_moves(spec, Streams(0, 0, i).of("sections"), frame)
        assert moves is not None
        raw, labels = np.array(moves.raw), np.array(moves.labels)
        shifts += (np.diff(labels, axis=0) != 0).any(axis=1).sum()
        # Displacements are relative to the middle section: if it slips, all others seem to.
        apart = raw - labels
        slips += (apart != apart[0]).any(axis=1).sum() if (apart[0] == np.median(apart, axis=0)).all() else 0
        assert (raw[200] == 0).all()
        assert (labels[200] == 0).all()
    assert shifts / 8000 == pytest.approx(0.1, abs=0.015)
    assert slips / 8000 == pytest.approx(0.05, abs=0.015)


def test_a_slip_adds_to_the_shift_before_it() -> None:
    """In gunpowder a slip cancels the shift of its section."""
    frame = Frame((60, 8, 8), (0, 0, 0), (40.0, 4.0, 4.0))
    spec = SectionsSpec(slip=0.3, shift=0.3, largest_nm=400.0)
    for i in range(10):
        both = draw_moves(spec, Streams(0, 0, i).of("sections"), frame)
        alone = draw_moves(
            spec.model_copy(update={"slip_moves_labels": False}), Streams(0, 0, i).of("sections"), frame
        )
        assert both is not None
        assert alone is not None
        slip = np.array(alone.raw) - np.array(alone.labels)
        assert both.raw == both.labels == alone.raw
        assert np.abs(slip).max() <= 2 * 100
        assert np.abs(np.array(alone.labels)).max() > 100  # shifts add up


def test_artifacts_are_placed_where_their_mask_is() -> None:
    spec = AugmentSpec(defects=DefectSpec(artifact=0.5, library=LibrarySpec(images="a", masks="b")))
    artifacts = [d for plan in plans(spec, 40) for d in plan.defects if isinstance(d, Artifact)]
    assert len(artifacts) > 50
    for artifact in artifacts:
        y0, y1, x0, x1 = artifact.area
        mask = turned(MASKS[artifact.number], artifact.flips, artifact.transposed)
        y, x = artifact.source
        assert mask[y : y + y1 - y0, x : x + x1 - x0].mean() >= 0.02
        assert 0 <= y0 < y1 <= FRAME.shape[1]
        assert 0 <= x0 < x1 <= FRAME.shape[2]


def test_boxes_hide_no_more_than_asked_for() -> None:
    spec = AugmentSpec(boxes=BoxesSpec(probability=1.0, share=0.1, size_nm=(4.0, 40.0)))
    for plan in plans(spec, 30):
        boxes = [d for d in plan.defects if isinstance(d, Hidden)]
        hidden = [np.prod(box.shape) for box in boxes]
        assert sum(hidden[:-1]) < 0.1 * np.prod(FRAME.shape)
        for box in boxes:
            assert all(a >= 0 and a + n <= m for a, n, m in zip(box.start, box.shape, FRAME.shape, strict=True))


def test_axes_are_permuted_only_where_nothing_changes() -> None:
    assert Frame((8, 8, 8), (1, 1, 1), (4.0, 4.0, 4.0)).orders[0] == (0, 1, 2)
    assert len(Frame((8, 8, 8), (1, 1, 1), (4.0, 4.0, 4.0)).orders) == 6
    assert Frame((8, 8, 8), (1, 1, 1), (40.0, 4.0, 4.0)).orders == [(0, 1, 2), (0, 2, 1)]
    assert FRAME.orders == [(0, 1, 2)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SectionsSpec.from_dict({"slip": 0.6, "shift": 0.6}), r"slip 0.6 \+ shift 0.6 = 1.2"),
        (lambda: DefectSpec.from_dict({"missing": 0.9, "fold": 0.2}), r"missing 0.9 .* = 1.1"),
        (lambda: DefectSpec.from_dict({"artifact": 0.1}), "needs a library"),
        (lambda: AffineSpec.from_dict({"scale": [1.2, 0.8]}), "smaller value first"),
        (lambda: AffineSpec.from_dict({"scale": [0.0, 0.8]}), "above 0"),
        (lambda: ElasticSpec.from_dict({"sigma_nm": [0, 0, 0]}), "sigma"),
        (lambda: IntensitySpec.from_dict({"gamma": [0.0, 1.0]}), "gamma"),
        (lambda: FoldSpec.from_dict({"strength_nm": -1}), "strength_nm"),
        (lambda: AugmentSpec.from_dict({"defects": {"mising": 0.1}}), "missing"),
    ],
)
def test_impossible_wishes_are_errors(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


def test_the_widest_read_covers_every_plan() -> None:
    frame = Frame((4, 40, 60), (0, 0, 0), (40.0, 4.0, 4.0))
    turned = AugmentSpec(affine=AffineSpec(rotation_deg=(0, 360)))
    y, x = widest_read(turned, frame)
    assert y == x == pytest.approx(np.hypot(39, 59) + 1, abs=1)
    assert widest_read(AugmentSpec.none(), frame) == (40, 60)
    larger = AugmentSpec(affine=AffineSpec(scale=(0.5, 1.0)), elastic=ElasticSpec(sigma_nm=(0, 8, 8)))
    assert widest_read(larger, frame)[0] == pytest.approx(39 * 2 + 2 * 4 * 2 + 1, abs=1)
