"""`emloom check` finds what is wrong before training does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.volume import ArrayVolume
from emloom.nn.strategies import Balanced
from emloom.tasks.check import check, check_labels, check_orientation, check_voxel_size
from emloom.tasks.checktraining import _reach_nm
from emloom.tasks.data import BoxSpec, open_stack
from tests.tasks.cubes import SHAPE, job, write_stack

GRID = Grid((10.0, 10.0, 10.0))


def stripes(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Irregular columns with dark walls, that no flip or transposition maps onto themselves."""
    rng = np.random.default_rng(0)
    y, x = np.indices(shape[1:])
    seeds = rng.uniform(0, shape[1], (12, 2))
    labels = np.argmin((y[..., None] - seeds[:, 0]) ** 2 + (x[..., None] - seeds[:, 1]) ** 2, axis=-1) + 1
    wall = np.zeros(labels.shape, bool)
    wall[1:] |= labels[1:] != labels[:-1]
    wall[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    raw = np.where(wall, 40, 180).astype(np.uint8)
    return np.broadcast_to(raw, shape).copy(), np.broadcast_to(labels, shape).astype(np.uint64).copy()


def test_a_sound_job_has_no_error(tmp_path: Path) -> None:
    findings = check(job(write_stack(tmp_path / "stack.h5")))
    assert {f.what for f in findings} == {
        "labels",
        "voxel size",
        "orientation",
        "split",
        "room",
        "sampling",
        "validation",
        "oracle",
        "parity",
        "cost",
    }
    assert not [f for f in findings if f.level == "error"]
    oracle = next(f for f in findings if f.what == "oracle")
    assert oracle.level == "ok", oracle.text


def test_crops_that_cannot_be_drawn_are_an_error_before_training(tmp_path: Path) -> None:
    sound = job(write_stack(tmp_path / "stack.h5"))
    strange = sound.training.model_copy(update={"sampling": Balanced(classes=(999_999,))})
    found = [f for f in check(sound.model_copy(update={"training": strange})) if f.what == "sampling"]
    assert [f.level for f in found] == ["error"]
    assert "999999" in found[0].text


def test_the_gap_is_compared_along_the_axes_where_crops_lie_beside_held_out_boxes(tmp_path: Path) -> None:
    one = job(write_stack(tmp_path / "stack.h5"))
    stack = open_stack(one.data[0])
    model = one.model(GRID.voxel_size_nm)
    reach = [r * 10.0 for r in model.objective.context_vox(GRID)]
    whole = stack.raw.info.box
    column = Box((0, 0, 0), (whole.shape[0], 8, 8))  # spans z: nothing lies above or below it
    assert _reach_nm(model, replace(stack.labelled, held_out=(column,))) == max(reach[1:])
    assert _reach_nm(model, replace(stack.labelled, held_out=(column, Box((0, 0, 0), (8, 8, 8))))) == max(reach)
    assert _reach_nm(model, replace(stack.labelled, held_out=())) == 0.0


@pytest.mark.parametrize("wrong", ["flip", "transpose"])
def test_mirrored_or_transposed_labels_are_found(wrong: str) -> None:
    raw, labels = stripes((8, 64, 64))
    good = check_orientation(ArrayVolume(raw, GRID), ArrayVolume(labels, GRID))
    assert good.level == "ok", good.text
    moved = labels[:, ::-1].copy() if wrong == "flip" else labels.transpose(0, 2, 1).copy()
    bad = check_orientation(ArrayVolume(raw, GRID), ArrayVolume(moved, GRID))
    assert bad.level == "error"
    assert wrong in bad.text


def test_noise_is_no_evidence_of_a_wrong_orientation() -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 255, (8, 32, 32), dtype=np.uint8)
    labels = rng.integers(1, 5, (8, 32, 32)).astype(np.uint64)
    assert check_orientation(ArrayVolume(raw, GRID), ArrayVolume(labels, GRID)).level != "error"


def test_a_voxel_size_with_swapped_axes_is_suspected() -> None:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(0, 1, (32, 32, 32)), axis=1), axis=2)
    raw = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    assert check_voxel_size(ArrayVolume(raw, Grid((40.0, 4.0, 4.0)))).level == "ok"
    assert check_voxel_size(ArrayVolume(raw, Grid((4.0, 4.0, 40.0)))).level == "warning"


def test_label_trouble_is_listed() -> None:
    labels = np.ones((6, 16, 16), np.uint64)
    labels[2] = 0
    labels[4, :2, :2] = 9
    labels[4, 10:12, 10:12] = 9
    text = " ".join(f.text for f in check_labels(ArrayVolume(labels, GRID)))
    assert "several pieces" in text
    assert "fewer than 50 voxels" in text
    assert "without any label (z), e.g. 2" in text
    assert "equal to the one before (z), e.g. 1" in text
    nothing = check_labels(ArrayVolume(np.zeros((4, 4, 4), np.uint64), GRID))
    assert any(f.level == "error" for f in nothing)


def test_a_split_that_leaks_or_overlaps_is_refused(tmp_path: Path) -> None:
    stack = job(write_stack(tmp_path / "stack.h5")).data[0]
    near = stack.model_copy(update={"gap_nm": 10.0})  # validation and test touch along an edge, not closer than 0
    with pytest.raises(InputError, match="closer than the gap"):
        open_stack(near)
    same = stack.model_copy(update={"test": stack.validation})
    with pytest.raises(InputError, match="overlap"):
        open_stack(same)
    outside = stack.model_copy(update={"test": (BoxSpec(start=(0, 0, 0), shape=(SHAPE[0] + 1, 8, 8)),)})
    with pytest.raises(InputError, match="leaves"):
        open_stack(outside)


def test_a_validation_box_without_room_for_a_crop_is_refused_as_training_refuses_it(tmp_path: Path) -> None:
    made = job(write_stack(tmp_path / "stack.h5"))
    (box,) = made.data[0].validation
    small = made.data[0].model_copy(update={"validation": (BoxSpec(start=box.start, shape=(2, 8, 8)),)})
    found = {f.what: f for f in check(made.model_copy(update={"data": (small,)}))}
    assert found["validation"].level == "error"
    assert "is smaller than the crop" in found["validation"].text
    assert "use a smaller crop_shape_vox" in found["validation"].text
    assert found["cost"].level == "ok"


def test_a_job_without_room_for_a_crop_says_so(tmp_path: Path) -> None:
    made = job(write_stack(tmp_path / "stack.h5"))
    tight = made.model_copy(update={"training": made.training.model_copy(update={"crop_shape_vox": (24, 48, 48)})})
    split = next(f for f in check(tight) if f.what == "split")
    assert split.level == "error"
    assert "smaller crops" in split.text
