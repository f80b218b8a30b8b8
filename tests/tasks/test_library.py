"""An artifact library fits the data, or the job says why not before training starts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.nn.augment import AffineSpec, AugmentSpec, ElasticSpec, LibrarySpec, SectionsSpec
from emloom.nn.draw import Frame
from emloom.nn.hardware import Hardware
from emloom.nn.preprocess import Preprocessing
from emloom.tasks import library as module
from emloom.tasks.check import trained
from emloom.tasks.checktraining import Trained, check_library, check_room, check_split, displacement_nm
from emloom.tasks.data import open_stack
from emloom.tasks.job import NeuronsJob
from emloom.tasks.library import open_library
from emloom.tasks.neurons import Run, run
from emloom.tasks.preview import Preview
from emloom.tasks.steps import Silent
from tests.tasks.artifacts import VOXEL_NM, augmented, stained, write_library
from tests.tasks.cubes import write_stack


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return write_stack(tmp_path / "stack.h5")


def test_images_are_normalised_as_the_data_and_masks_by_their_largest_value(tmp_path: Path) -> None:
    library = open_library(write_library(tmp_path / "lib.h5"), Preprocessing(), VOXEL_NM)
    assert library.images.dtype == library.masks.dtype == np.float32
    np.testing.assert_array_equal(library.images[:, 0, 0], Preprocessing()(np.array([0, 30, 60], np.uint8)))
    assert set(np.unique(library.masks).tolist()) == {0.0, 0.5, 1.0}


def test_the_z_of_the_voxel_size_is_free_and_one_percent_of_the_others_is_tolerated(tmp_path: Path) -> None:
    spec = write_library(tmp_path / "lib.h5", voxel_nm=(50.0, 10.09, 9.91))
    assert open_library(spec, Preprocessing(), VOXEL_NM).images.shape == (3, 40, 30)


MASKS = np.ones((3, 40, 30), np.uint8)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"voxel_nm": (10.0, 8.0, 8.0)}, [r"\(10.0, 8.0, 8.0\)", r"\(10.0, 10.0, 10.0\)", "resample"]),
        ({"voxel_nm": (10.0, 10.0, 10.2)}, ["10.2", "1 %"]),
        ({"masks": MASKS[:2]}, [r"\(2, 40, 30\)", r"\(3, 40, 30\)", "one mask per image"]),
        ({"masks": MASKS * np.array([1, 0, 1], np.uint8)[:, None, None]}, ["1 of 3 masks", "z 1", "remove it"]),
        ({"masks": MASKS * 0}, ["3 of 3 masks", "z 0, 1, 2"]),
        ({"masks": -MASKS.astype(np.int16)}, ["-1", "nothing of the artifact is seen"]),
        ({"masks": MASKS * np.float32(np.nan)}, ["nan", "replace"]),
        ({"images": MASKS.astype(np.uint16) * 300}, ["300", "0 to 255", "grey values of the data"]),
        ({"images": MASKS * np.float32(0.5)}, ["0.5", "0 to 255"]),
        ({"images": MASKS[..., None].repeat(3, -1).transpose(3, 0, 1, 2)}, ["3 channels", "zyx"]),
    ],
)
def test_a_library_that_does_not_fit_says_how(tmp_path: Path, given: dict[str, Any], words: list[str]) -> None:
    spec = write_library(tmp_path / "lib.h5", **given)
    with pytest.raises(InputError) as caught:
        open_library(spec, Preprocessing(), VOXEL_NM)
    for word in words:
        assert re.search(word, str(caught.value)), str(caught.value)


def test_a_huge_library_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = write_library(tmp_path / "lib.h5")
    monkeypatch.setattr(module, "_LARGEST_BYTES", 3 * 40 * 30 * 8 - 1)
    monkeypatch.setattr(module, "_read", lambda volume: pytest.fail("read"))
    with pytest.raises(InputError, match="keep fewer"):
        open_library(spec, Preprocessing(), VOXEL_NM)


def subject(job: NeuronsJob) -> Trained:
    return trained(job, [open_stack(spec) for spec in job.data])


def test_a_missing_library_is_an_error_of_the_job_and_of_its_check(stack: Path, tmp_path: Path) -> None:
    lost = LibrarySpec(images=f"{tmp_path}/no.h5/images", masks=f"{tmp_path}/no.h5/masks")
    job = stained(stack, lost)
    for doing in (lambda: Run(job, tmp_path / "out", Hardware("cpu", 1, 0), Silent()), lambda: Preview.of(job)):
        with pytest.raises(InputError, match=r"no\.h5"):
            doing()
    (finding,) = check_library(subject(job))
    assert (finding.level, finding.what) == ("error", "library")
    assert "no.h5" in finding.text
    assert not (tmp_path / "out" / "train").exists()


def test_the_check_says_what_the_library_holds(stack: Path, tmp_path: Path) -> None:
    job = stained(stack, write_library(tmp_path / "lib.h5"))
    (finding,) = check_library(subject(job))
    assert finding.level == "ok"
    assert finding.text == "3 artifacts of 40 x 30 voxels; masks cover 50% of them"
    assert not list(check_library(subject(augmented(stack, AugmentSpec.none()))))


def test_the_files_of_the_library_are_inputs_of_the_run(stack: Path, tmp_path: Path) -> None:
    def keys() -> dict[str, str]:
        return {**Run(job, tmp_path / "out", Hardware("cpu", 1, 0), Silent()).keys()}

    job = stained(stack, write_library(tmp_path / "lib.h5"))
    before = keys()
    assert keys() == before
    assert f"{tmp_path}/lib.h5/masks" in job.paths
    write_library(tmp_path / "lib.h5", images=np.full((3, 40, 30), 9, np.uint8))
    after = keys()
    assert all(after[stage] != before[stage] for stage in before)


def test_artifacts_reach_the_samples_of_training(stack: Path, tmp_path: Path) -> None:
    job = stained(stack, write_library(tmp_path / "lib.h5"))
    preview = Preview.of(job)
    (plan,) = preview.plans(1)
    plain = plan.model_copy(update={"defects": ()})
    stain, sound = preview.look(plan), preview.look(plain)
    assert (stain.raw < sound.raw - 0.2).any()
    np.testing.assert_array_equal(stain.labels, sound.labels)
    run(job, tmp_path / "out", Hardware("cpu", 1, 0), until="train")
    assert (tmp_path / "out" / "train" / "model.safetensors").exists()


# ---- room and reach ---------------------------------------------------------------------------------------------

TURNED = AugmentSpec.none().model_copy(update={"affine": AffineSpec(rotation_deg=(0, 360))})


def test_a_crop_too_large_after_rotation_is_an_error_before_training(stack: Path) -> None:
    job = augmented(stack, TURNED, crop=(16, 40, 40))
    finding = check_room(subject(job), 0)
    assert finding.level == "error"
    assert "smaller crop or milder geometry" in finding.text
    assert check_room(subject(augmented(stack, AugmentSpec.none(), crop=(16, 40, 40))), 0).level == "ok"
    free = job.data[0].model_copy(update={"region": None})
    with pytest.raises(InputError, match="after rotation"):
        Preview.of(job.model_copy(update={"data": (free,)})).plans(1)


FRAME = Frame((8, 100, 100), (0, 10, 10), (40.0, 4.0, 4.0))


def test_the_displacement_is_that_of_the_geometry() -> None:
    def of(**changes: object) -> float:
        return displacement_nm(AugmentSpec.none().model_copy(update=changes), FRAME)

    assert of() == 0.0
    assert of(affine=AffineSpec(rotation_deg=(90, 90))) == pytest.approx(0, abs=4.0)
    half = 119 / 2 * 4.0
    assert of(affine=AffineSpec(rotation_deg=(0, 360))) == pytest.approx(half * (2**0.5 - 1), abs=4.0)
    assert of(affine=AffineSpec(scale=(0.5, 1))) == pytest.approx(half, abs=4.0)
    assert of(elastic=ElasticSpec(sigma_nm=(0, 8, 8))) == pytest.approx(32, abs=4.0)
    assert of(elastic=ElasticSpec(sigma_nm=(30, 8, 8))) == pytest.approx(120)
    assert of(sections=SectionsSpec(shift=0.1, largest_nm=60)) == pytest.approx(60, abs=4.0)


def test_the_split_says_how_far_deformed_samples_look(stack: Path) -> None:
    made = augmented(stack, TURNED)
    wide = made.data[0].model_copy(
        update={
            "gap_nm": 60.0,
            "validation": made.data[0].validation[:1],
            "test": (made.data[0].test[0].model_copy(update={"start": (0, 40, 0), "shape": (24, 8, 8)}),),
        }
    )
    training = made.training.model_copy(update={"crop_shape_vox": (8, 8, 8), "augment": AugmentSpec.none()})
    still = check_split(subject(made.model_copy(update={"data": (wide,), "training": training})), 0)
    assert still.level == "ok"
    assert "deformed" not in still.text
    far = AugmentSpec.none().model_copy(update={"sections": SectionsSpec(shift=0.1, largest_nm=200)})
    training = training.model_copy(update={"augment": far})
    moved = check_split(subject(made.model_copy(update={"data": (wide,), "training": training})), 0)
    assert moved.level == "ok"
    assert "nm more in deformed samples" in moved.text
    assert "count as unknown" in moved.text


# ---- job files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "yaml_of", "words"),
    [
        (
            "defects",
            "{missing: 0.7, low_contrast: 0.2, fold: 0.2}",
            ["training.augment.defects", "above 1", "1.1"],
        ),
        ("defects", "{artifact: 0.1}", ["training.augment.defects", "library"]),
        ("defects", "{missing: 1.5}", ["training.augment.defects.missing", "1.5"]),
        ("sections", "{slip: 0.6, shift: 0.6}", ["training.augment.sections", "slip 0.6 + shift 0.6 = 1.2"]),
        ("blur", "{gaussian: 0.9, motion: 0.2}", ["training.augment.blur", "gaussian 0.9"]),
        ("affine", "{scale: [1.2, 0.8]}", ["training.augment.affine", "smaller value first"]),
    ],
)
def test_impossible_probabilities_are_named_with_their_path(
    stack: Path, part: str, yaml_of: str, words: list[str]
) -> None:
    import yaml

    data = augmented(stack, AugmentSpec.none()).to_dict()
    data["training"]["augment"][part] = yaml.safe_load(yaml_of)
    with pytest.raises(InputError) as caught:
        NeuronsJob.from_yaml(yaml.safe_dump(data), "job.yaml")
    for word in words:
        assert word in str(caught.value)
