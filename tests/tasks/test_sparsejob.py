"""A semantic job on painted planes: from PNG slices to scores, and no label of a held-out plane on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from emloom.errors import InputError
from emloom.geometry import Box
from emloom.io.open import open_volume
from emloom.nn.hardware import Hardware
from emloom.nn.model import build
from emloom.nn.objectives.semantic import UNKNOWN
from emloom.nn.train import crop_shape
from emloom.tasks.data import StackSpec, open_stack
from emloom.tasks.semantic import SemanticJob, open_stacks, run, training_volumes
from tests.tasks.painting import OFFSET, SHAPE, VOXEL_SIZE, job, painted, truth, write_planes, write_raw

T1, T2 = Box((20, 20, 20), (1, 28, 36)), Box((14, 28, 20), (14, 1, 36))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("painted")
    write_raw(where)
    (where / "labels.yaml").write_text(yaml.safe_dump(write_planes(where)))
    return where


def made(folder: Path, **changes: object) -> SemanticJob:
    return SemanticJob.from_dict(job(f"{folder}/raw.h5/raw", f"{folder}/labels.yaml", **changes))


def test_planes_are_learned_from_and_scored_in_their_own_boxes(folder: Path) -> None:
    page = run(made(folder), folder / "out", Hardware("cpu", 1, 0))
    assert page.exists()
    found = json.loads((folder / "out" / "evaluate" / "scores.json").read_text())
    assert min(row["iou"] for row in found["classes"]) > 0.9
    for number, box in enumerate((T1, T2)):
        stored = open_volume(folder / "out" / "predict" / f"s0_test_{number}.zarr" / "classes")
        assert stored.info.shape == box.shape  # nothing but the plane is predicted
        at = tuple(o + v * s for o, v, s in zip(OFFSET, box.start, VOXEL_SIZE, strict=True))
        assert stored.info.grid.offset_nm == pytest.approx(at)
    # Every voxel that is painted in either plane counts, and counts once; nothing else does.
    either = np.zeros(SHAPE, bool)
    either[T1.slices()] = either[T2.slices()] = True
    assert found["rows"][0]["n_voxels"] == (either & (painted() > 0)).sum()
    first = open_volume(folder / "out" / "evaluate" / "s0_test_0.zarr" / "truth").read(Box.whole(T1.shape))
    expected = np.where(painted()[T1.slices()] > 0, truth()[T1.slices()] - 1, UNKNOWN)
    assert (first == expected).all()


def test_no_input_of_training_shows_a_held_out_plane(folder: Path) -> None:
    asked = job(f"{folder}/raw.h5/raw", f"{folder}/labels.yaml")
    asked["network"] = {"kind": "unet", "features": [4, 8], "factors": [[1, 2, 2]], "padding": "valid"}
    asked["data"][0]["gap_nm"] = 20.0
    this = SemanticJob.from_dict(asked)
    volume = training_volumes(this, open_stacks(this))[0]
    margin = crop_shape(build(this.model(VOXEL_SIZE)), this.training.crop_shape_vox).margin
    assert min(margin) > 0
    for box in (T1, T2):
        assert box.grow(2).grow(margin) in volume.held_out
        assert box in volume.hidden


def test_a_group_is_held_out_as_a_whole(folder: Path) -> None:
    data = job(f"{folder}/raw.h5/raw", f"{folder}/labels.yaml")["data"][0]
    data["pieces"] = {"validation": ["val"], "test": ["t1"]}
    with pytest.raises(InputError, match="'t2' of group 'cube' is not held out"):
        open_stacks(made(folder, data=[data]))
    data["pieces"] = {"validation": ["vall"], "test": ["cube"]}
    with pytest.raises(InputError, match="did you mean 'val'"):
        open_stacks(made(folder, data=[data]))


def test_pieces_are_for_classes_only(folder: Path) -> None:
    spec = StackSpec.model_validate(job(f"{folder}/raw.h5/raw", f"{folder}/labels.yaml")["data"][0])
    with pytest.raises(InputError, match="tell classes, not instances"):
        open_stack(spec)


def test_sampling_of_sparse_labels_is_balanced_unless_the_job_says_otherwise(folder: Path) -> None:
    by_default = made(folder).training.sampling
    assert (by_default.kind, by_default.min_known) == ("balanced", 0.0)
    again = SemanticJob.from_yaml(made(folder).to_yaml())
    assert again == made(folder)
    plain = job("raw", "dense.h5/labels")
    box = {"start": [0, 0, 0], "shape": [4, 8, 8]}
    plain["data"] = [{"raw": "raw", "labels": "dense.h5/labels", "validation": [box], "test": [box]}]
    assert SemanticJob.from_dict(plain).training.sampling.kind == "uniform"
    own = job("raw", f"{folder}/labels.yaml")
    own["training"]["sampling"] = {"kind": "foreground", "min_known": 0.25}
    sampling = SemanticJob.from_dict(own).training.sampling
    assert (sampling.kind, sampling.min_known, getattr(sampling, "place", None)) == ("foreground", 0.25, "centre")
