"""A contact sheet shows the samples of training, and dumped plans give the same bytes again."""

from __future__ import annotations

import io
from pathlib import Path

import h5py
import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.nn.augment import AugmentSpec, DefectSpec
from emloom.nn.draw import Frame, Streams, draw_areas, draw_defects, draw_plan
from emloom.nn.plan import Fold, SamplePlan, SectionMoves, Tone, Warp
from emloom.nn.samples import TrainingSamples
from emloom.tasks.effects import one_at_a_time
from emloom.tasks.preview import PlanSheet, Preview, choose_sections, digest
from tests.tasks.artifacts import augmented, stained, write_library
from tests.tasks.cubes import write_stack

EVERYTHING = AugmentSpec.serial_sections().model_copy(
    update={"defects": DefectSpec(missing=0.2, low_contrast=0.2, fold=0.2, partial=0.5)}
)


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return write_stack(tmp_path / "stack.h5")


@pytest.fixture
def preview(stack: Path) -> Preview:
    mild = EVERYTHING.model_copy(update={"affine": None})
    return Preview.of(augmented(stack, mild, crop=(8, 12, 12)))


def test_the_samples_are_those_of_training(preview: Preview) -> None:
    training = preview.job.training
    samples = TrainingSamples(preview.maker, training, 9)
    assert preview.plans(3) == [samples.plan(i) for i in range(3)]
    other = preview.plans(3, seed=training.seed + 1)
    assert other == preview.plans(3, seed=training.seed + 1)
    assert other != preview.plans(3)
    raw, _ = samples[0]
    look = preview.look(samples.plan(0))
    margin = preview.maker.crop.margin
    at = Box(margin, preview.frame.output).slices()
    np.testing.assert_array_equal(look.raw, raw[0].numpy()[at])
    assert look.labels.shape == look.known.shape == preview.frame.output


def test_a_dumped_sheet_is_replayed_bit_for_bit(preview: Preview, tmp_path: Path) -> None:
    plans = preview.plans(4)
    preview.dump(plans).dump(tmp_path / "plans.yaml")
    again, changed = preview.replay(PlanSheet.load(tmp_path / "plans.yaml"))
    assert again == plans
    assert changed == []
    for one, two in zip(plans, again, strict=True):
        assert digest(preview.maker.render(one)) == digest(preview.maker.render(two))
    assert preview.sheet(plans).png == preview.sheet(again).png


def test_changed_data_are_noticed(preview: Preview, stack: Path) -> None:
    near, far = SamplePlan(source=0, start=(0, 0, 0)), SamplePlan(source=0, start=(14, 30, 30))
    sheet = preview.dump([near, far])
    assert preview.replay(sheet)[1] == []
    with h5py.File(stack, "r+") as file:
        file["raw"][1, 1, 1] = 255 - file["raw"][1, 1, 1]
    assert Preview.of(preview.job).replay(sheet)[1] == [0]


def test_plans_of_another_job_are_refused(preview: Preview, stack: Path, tmp_path: Path) -> None:
    sheet = preview.dump(preview.plans(1))
    other = Preview.of(augmented(stack, AugmentSpec.none(), crop=(16, 16, 16)))
    with pytest.raises(InputError, match=r"(?s)\(8, 12, 12\).*the job they were dumped from"):
        other.replay(sheet)
    strange = sheet.samples[0].model_copy(update={"plan": SamplePlan(source=3, start=(0, 0, 0))})
    with pytest.raises(InputError, match="stack 3"):
        preview.replay(sheet.model_copy(update={"samples": (strange,)}))
    dirty = Preview.of(stained(stack, write_library(tmp_path / "lib.h5")))
    plans = dirty.dump(dirty.plans(1))
    with pytest.raises(InputError, match="library has 0"):
        Preview.of(augmented(stack, AugmentSpec.none())).replay(plans)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"order": (0, 0, 2)}, "sample 0 cannot be carried out"),
        ({"tone": Tone(contrast=(1.0,), brightness=(0.0,), gamma=(1.0,))}, "one value per section"),
        ({"moves": SectionMoves(raw=((0, 0),), labels=((0, 0),))}, "one value per section"),
        (
            {"folds": (Fold(section=999, normal=(0, 1), c=3, strength_vox=1, width_vox=1, moves_labels=False),)},
            "sample 0 cannot be carried out",
        ),
        (
            {"warp": Warp(spacing_vox=(4, 4, 4), sigma_vox=(0, 1, 1), control=(5, 5, 5), normals=(0.5,))},
            "cannot be",
        ),
    ],
)
def test_edited_plans_that_make_no_sense_are_refused(
    preview: Preview, change: dict[str, object], words: str
) -> None:
    sheet = preview.dump(preview.plans(1))
    edited = sheet.samples[0].model_copy(update={"plan": sheet.samples[0].plan.model_copy(update=change)})
    with pytest.raises(InputError, match=words):
        preview.replay(sheet.model_copy(update={"samples": (edited,)}))


def test_a_sheet_names_what_it_shows(preview: Preview) -> None:
    figure = preview.sheet(preview.plans(2), sections=3)
    image = iio.imread(io.BytesIO(figure.png))
    assert image.ndim == 3
    assert image.shape[0] > 100
    for words in ("sample 0: stack 0 at", "sample 1", "moved against the section before", "noise of"):
        assert words in figure.alt


@given(
    available=st.integers(1, 40),
    wanted=st.integers(1, 8),
    preferred=st.lists(st.integers(0, 39), max_size=12),
)
def test_chosen_sections_are_in_order_and_prefer_what_is_interesting(
    available: int, wanted: int, preferred: list[int]
) -> None:
    inside = sorted({z for z in preferred if z < available})
    chosen = choose_sections(available, wanted, inside)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(wanted, available)
    assert all(0 <= z < available for z in chosen)
    assert len(set(chosen) & set(inside)) == min(len(inside), len(chosen))


# ---- one effect at a time ---------------------------------------------------------------------------------------

GEOMETRY = ("flip", "affine", "elastic", "sections")


def test_every_effect_stands_alone_and_can_be_seen(stack: Path, tmp_path: Path) -> None:
    library = write_library(tmp_path / "lib.h5")
    preview = Preview.of(stained(stack, library))
    plain = SamplePlan(source=0, start=(4, 4, 4))
    before = preview.look(plain)
    specs = one_at_a_time(preview.frame, library)
    assert {"defects: artifact", "elastic", "boxes"} <= specs.keys()
    for title, spec in specs.items():
        plan = draw_plan(spec, Streams(1, 0, 0), 0, (4, 4, 4), preview.frame, preview.maker.library)
        drawn = {name for name in SamplePlan.model_fields if getattr(plan, name) != getattr(plain, name)}
        after = preview.look(plan)
        moved = not np.array_equal(before.labels, after.labels)
        if title == "nothing":
            assert drawn == set()
            assert not moved
            continue
        assert len(drawn - {"order"}) == 1, f"{title} draws {drawn}"
        assert not np.array_equal(before.raw, after.raw), f"{title} changes nothing"
        # Grey values never move labels; geometry does, unless it says otherwise.
        expected = title.startswith(GEOMETRY) or title == "defects: fold that moves labels"
        assert moved == (expected and title != "sections: slip, labels stay"), title
    assert "defects: artifact" not in one_at_a_time(preview.frame)


def test_the_sheet_of_effects_says_what_each_is(stack: Path) -> None:
    figure = Preview.of(augmented(stack, AugmentSpec.none())).effects()
    for words in ("nothing: as it lies in the volume", "affine: rotation: turned by 30", "defects: missing: z"):
        assert words in figure.alt
    assert iio.imread(io.BytesIO(figure.png)).shape[1] > 300


# ---- regressions found by looking at sheets ---------------------------------------------------------------------


@given(seed=st.integers(0, 10_000))
def test_a_fold_crosses_the_output(seed: int) -> None:
    # Its line was drawn anywhere in the frame: where it missed the output, raw was moved against the labels with
    # nothing to tell the network why.
    frame = Frame((3, 20, 30), (2, 40, 25), (40.0, 4.0, 4.0))
    folds, _ = draw_defects(DefectSpec(fold=1.0), Streams(seed, 0, 0).of("defects"), frame)
    low = np.array(frame.reach[1:])
    high = low + np.array(frame.output[1:]) - 1
    corners = np.array([(y, x) for y in (low[0], high[0]) for x in (low[1], high[1])])
    assert len(folds) == frame.shape[0]
    for fold in folds:
        side = corners @ np.array(fold.normal) - fold.c
        assert side.min() <= 1e-9
        assert side.max() >= -1e-9


@given(seed=st.integers(0, 10_000))
def test_a_partial_defect_touches_the_output(seed: int) -> None:
    frame = Frame((3, 20, 30), (2, 40, 25), (40.0, 4.0, 4.0))
    output = Box(frame.reach, frame.output)
    areas = draw_areas(Streams(seed, 0, 0).of("areas"), frame, 1.0)
    assert areas
    for y0, y1, x0, x1 in areas:
        assert Box.of((frame.reach[0], y0, x0), (frame.reach[0] + 1, y1, x1)).meets(output)
        assert Box.whole(frame.shape).contains(Box.of((0, y0, x0), (1, y1, x1)))
