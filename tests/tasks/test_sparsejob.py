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
from emloom.nn.plan import SamplePlan
from emloom.nn.samples import SampleMaker
from emloom.nn.strategies import Uniform
from emloom.nn.train import TrainingSpec, crop_shape
from emloom.nn.validation import Checks, known_voxels
from emloom.tasks.data import StackSpec, held_out, open_stack
from emloom.tasks.semantic import SemanticJob, _Run, open_stacks, run, training_volumes
from tests.tasks.painting import (
    CLASSES,
    OFFSET,
    SHAPE,
    VOXEL_SIZE,
    job,
    painted,
    plane,
    save,
    truth,
    write_planes,
    write_raw,
)

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
    """One plane has a class painted as another, and says that nobody looked for it: it teaches nothing wrong."""
    labels = write_planes(folder)
    nobody_looked = painted()[6]
    nobody_looked[nobody_looked == CLASSES["bright"]] = CLASSES["dark"]
    labels["pieces"][0] |= {"image": save(folder / "lacking.png", nobody_looked), "lacks": {"bright": ["dark"]}}
    (folder / "lacking.yaml").write_text(yaml.safe_dump(labels))
    this = SemanticJob.from_dict(job(f"{folder}/raw.h5/raw", f"{folder}/lacking.yaml"))
    page = run(this, folder / "out", Hardware("cpu", 1, 0))
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


def test_a_validation_counts_what_is_known_in_its_plane_and_nothing_beside_it(folder: Path) -> None:
    """Crops reach beyond a plane, into planes of training and test that cross it nearby."""
    labels = write_planes(folder)
    beside = plane("beside", "beside.png", "z", 33)
    save(folder / "beside.png", truth()[33])
    labels["pieces"] = [*labels["pieces"], beside]
    (folder / "beside.yaml").write_text(yaml.safe_dump(labels))
    this = SemanticJob.from_dict(job(f"{folder}/raw.h5/raw", f"{folder}/beside.yaml"))
    stacks = open_stacks(this)
    model = this.model(VOXEL_SIZE)
    network = build(model)
    maker = SampleMaker(model, training_volumes(this, stacks), crop_shape(network, this.training.crop_shape_vox))
    boxes = [(item.stack, item.box) for item in held_out([stack.spec for stack in stacks], "validation")]
    checks = Checks.of(maker, network, boxes)
    counted = sum(known_voxels(targets) for _, targets in checks.samples)
    known = painted()[34, 8:, 12:] > 0
    assert counted == known.sum() + known[:, 36:40].sum()  # of 44 columns the last crop of 8 sees four again


def test_jobs_made_in_python_and_inline_pieces_are_the_same_job(folder: Path) -> None:
    asked = job(f"{folder}/raw.h5/raw", write_planes(folder))
    stack = StackSpec.model_validate(asked["data"][0])
    training = TrainingSpec.model_validate(asked["training"])
    in_python = SemanticJob(**{**asked, "data": (stack,), "training": training})
    assert in_python == SemanticJob.from_dict(asked)
    assert in_python.training.sampling.kind == "balanced"
    own = TrainingSpec(steps=3, sampling=Uniform(min_known=0.1))
    assert SemanticJob(**{**asked, "data": (stack,), "training": own}).training.sampling == Uniform(min_known=0.1)


def test_a_job_reads_every_image_and_follows_its_changes(folder: Path, tmp_path: Path) -> None:
    this = made(folder)
    names = {Path(path).name for path in this.paths}
    assert names >= {"labels.yaml", "xy.png", "xz.png", "yz.png", "val.png", "t1.png", "t2.png"}
    for path in folder.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    before = _Run(made(tmp_path), tmp_path / "out").keys()
    changed = painted()[6]
    changed[0, 0] = 0
    save(tmp_path / "xy.png", changed)
    after = _Run(made(tmp_path), tmp_path / "out").keys()
    assert all(before[step] != after[step] for step in before)


def test_mistakes_in_inline_pieces_are_found_where_they_are(folder: Path) -> None:
    labels = write_planes(folder)
    labels["pieces"][1]["axes"] = "y"
    with pytest.raises(
        InputError, match=r"(?m)^job has 1 problem:\n  data\.0\.labels\.pieces\.1\.axes: unknown key"
    ):
        SemanticJob.from_dict(job("raw.zarr", labels))
    with pytest.raises(InputError, match=r"test: name at least one box, or a piece"):
        SemanticJob.from_dict(
            {**job("raw", labels), "data": [{"raw": "r", "labels": "l.yaml", "pieces": {"validation": ["v"]}}]}
        )
    with pytest.raises(InputError, match="pieces are of sparse labels"):
        SemanticJob.from_dict(job("raw.zarr", "dense.zarr/labels"))


def test_raw_around_a_labelled_voxel_at_a_face_is_mirrored(folder: Path) -> None:
    asked = job(f"{folder}/raw.h5/raw", f"{folder}/labels.yaml")
    asked["network"] = {"kind": "unet", "features": [4, 8], "factors": [[1, 2, 2]], "padding": "valid"}
    this = SemanticJob.from_dict(asked)
    model = this.model(VOXEL_SIZE)
    volumes = training_volumes(this, open_stacks(this))
    maker = SampleMaker(model, volumes, crop_shape(build(model), (1, 1, 1)))
    seen, _ = maker.make(SamplePlan(source=0, start=(6, 0, 0)))
    raw = volumes[0].raw
    margin = maker.crop.margin
    around = np.pad(raw.read(raw.info.box), [(m, m) for m in margin], mode="reflect")
    expected = around[Box((6, 0, 0), maker.crop.input).slices()]
    assert np.ptp(seen[0].numpy() - this.preprocessing(expected)) == 0
