"""Jobs that find artifacts: from planted, painted and labelled patches to a map, a threshold and a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from emloom.cli.main import app
from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels
from emloom.io.open import open_volume
from emloom.io.patchtables import read_patches, write_patches
from emloom.io.volume import ArrayVolume
from emloom.nn.augment import AugmentSpec
from emloom.nn.hardware import Hardware
from emloom.nn.multires_autoencoder import MultiResolutionSpec
from emloom.nn.objectives.artifacts import ArtifactsObjective, PatchClass
from emloom.nn.patchnet import PatchNetSpec
from emloom.nn.planting import PlantSpec
from emloom.nn.preprocess import Preprocessing
from emloom.nn.strategies import Patches
from emloom.nn.train import TrainingSpec
from emloom.ops.logits import decode_logits
from emloom.run.executor import Serial
from emloom.tasks.anyjob import check_job, load_any_job
from emloom.tasks.artifactjob import ArtifactJob, ArtifactScoring, ForeignTissueSpec, TissueSpec
from emloom.tasks.artifactmap import MapJob, predict_map
from emloom.tasks.artifactparity import parity_of
from emloom.tasks.artifacts import run
from emloom.tasks.data import BoxSpec
from emloom.tasks.patchspec import PatchBootstrapSpec, ThresholdSpec
from emloom.tasks.plantedtest import DAMAGED, planted_box
from emloom.tasks.predict import PredictJob, predict_volume

SIZE = (40.0, 8.0, 8.0)
GRID = Grid(SIZE, (0.0, 0.0, 0.0))
SHAPE = (8, 112, 208)
SMALL = PatchNetSpec(
    encoder=MultiResolutionSpec(f=2, n_latent=8, convolutions=(1, 1, 1, 1, 0), batch_norm=False, skip=False),
    hidden=(),
)
PATCH = SMALL.patch
CPU = Hardware("cpu", 1, 0)


def spotted() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return tissue of noise, with black spots, and where they are: 7 is a spot, 9 the half of bright tissue."""
    rng = np.random.default_rng(0)
    raw = np.clip(rng.normal(150, 12, SHAPE), 0, 255).astype(np.uint8)
    labels = np.zeros(SHAPE, np.uint8)
    for z in range(SHAPE[0]):
        for y in range(8, 100, 46):
            for x in range(8, 190, 46):
                if rng.random() < 0.4:
                    raw[z, y : y + 22, x : x + 22] = 10
                    labels[z, y : y + 22, x : x + 22] = 7
    return raw, labels


def write_tissue(path: Path) -> Path:
    raw, labels = spotted()
    with h5py.File(path, "w") as file:
        for name, array in (("raw", raw), ("labels/spots", labels)):
            file.create_dataset(f"volumes/{name}", data=array).attrs["resolution"] = SIZE
    return path


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tissue(tmp_path_factory.mktemp("tissue") / "tissue.h5")


def job_of(stack: Path, **changes: Any) -> ArtifactJob:
    tissue = TissueSpec(
        raw=f"{stack}/volumes/raw",
        labels=f"{stack}/volumes/labels/spots",
        validation=(BoxSpec(start=(0, 0, 0), shape=(3, 112, 100)),),
        test=(BoxSpec(start=(5, 0, 0), shape=(3, 112, 100)),),
    )
    given: dict[str, Any] = {
        "name": "spots",
        "data": (tissue,),
        "objective": ArtifactsObjective(classes=(PatchClass(name="spot", ids=(7,)),), yes_share=0.05),
        "network": SMALL,
        "training": TrainingSpec(
            steps=60,
            batch_size=8,
            crop_shape_vox=PATCH,
            validate_every=30,
            augment=AugmentSpec.none(),
            optimizer={"learning_rate": 0.02},
        ),
        "scoring": ArtifactScoring(step_vox=16, bootstrap=PatchBootstrapSpec(resamples=20)),
    }
    return ArtifactJob(**(given | changes))


@pytest.fixture(scope="module")
def done(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("spots") / "out"
    foreign = ForeignTissueSpec(
        name="unknown", raw=f"{stack}/volumes/raw", box=BoxSpec(start=(3, 0, 100), shape=(1, 112, 108))
    )
    run(job_of(stack, foreign=(foreign,)), folder, CPU)
    return folder


def test_painted_spots_are_learned_and_scored(done: Path) -> None:
    scores = json.loads((done / "evaluate" / "scores.json").read_text())["rows"]
    assert [row["scene"] for row in scores] == ["all test boxes", "s0_test_0", "unknown"]
    assert scores[0]["average_precision"] > 0.95
    assert scores[0]["n_positive"] > 10
    assert scores[1]["average_precision"] == scores[0]["average_precision"]
    assert scores[2]["average_precision"] is None  # nobody knows: how many are called is said
    assert 0 < scores[2]["called_share"] < 1
    operating = json.loads((done / "evaluate" / "operating.json").read_text())
    assert operating["threshold"] == scores[0]["threshold"]
    fitted = [line for line in operating["calibration"].values() if line is not None]
    assert fitted
    assert all(line["slope"] > 0 for line in fitted)


def test_the_map_and_the_table_of_a_scene_agree(done: Path, stack: Path) -> None:
    truth = read_patches(done / "predict" / "s0_test_0.truth.csv")
    labels = open_volume(f"{stack}/volumes/labels/spots").read(Box.whole(SHAPE))
    for start, said in zip(truth.starts.tolist(), truth.labels[:, 0].tolist(), strict=True):
        share = (labels[Box((start[0], start[1], start[2]), PATCH).slices()] == 7).mean()
        assert said == (1 if share >= 0.05 else 0 if share == 0 else -1)
    volume = open_volume(done / "predict" / "s0_test_0.zarr" / "spot")
    assert volume.info.kind == "logits"
    lattice = Lattice.of_map(volume.info.grid, GRID, PATCH)
    assert len(truth) == np.prod(volume.info.shape)
    index = lattice.indices(truth.starts)
    logits = decode_logits(volume.read(volume.info.box))
    lines = (done / "predict" / "s0_test_0.csv").read_text().splitlines()
    table = {tuple(map(int, line.split(",")[:3])): float(line.split(",")[3]) for line in lines[2:]}
    for start, at in zip(truth.starts.tolist(), index.tolist(), strict=True):
        assert table[tuple(start)] == pytest.approx(1 / (1 + np.exp(-float(logits[tuple(at)]))), abs=1e-6)


def test_the_report_shows_every_scene(done: Path) -> None:
    page = (done / "report.html").read_text()
    assert "s0_test_0" in page
    assert "unknown" in page
    assert page.count("data:image/png") == 2
    assert (done / "evaluate" / "all" / "report.html").exists()


def test_a_job_goes_on_and_is_refused_as_every_other(done: Path, stack: Path) -> None:
    before = (done / "evaluate" / "scores.json").stat().st_mtime_ns
    job = load_any_job(done / "job.yaml")
    assert isinstance(job, ArtifactJob)
    run(job, done, CPU)
    assert (done / "evaluate" / "scores.json").stat().st_mtime_ns == before
    other = job.model_copy(update={"preprocessing": Preprocessing(low=1, high=255)})
    with pytest.raises(InputError, match="holds"):
        run(other, done, CPU)


# ---- whole volumes ------------------------------------------------------------------------------------------


def test_a_volume_is_mapped_block_by_block(done: Path, stack: Path, tmp_path: Path) -> None:
    job = MapJob(
        raw=f"{stack}/volumes/raw",
        model=str(done / "train" / "model.safetensors"),
        output=str(tmp_path / "map.zarr"),
        step_vox=16,
    )
    path = predict_map(job, executor=Serial())
    volume = open_volume(path)
    assert path.endswith("/spot")
    assert volume.info.shape == (8, 7, 13)
    assert volume.info.grid.voxel_size_nm == (40.0, 128.0, 128.0)
    whole = volume.read(volume.info.box)
    scene = open_volume(done / "predict" / "s0_test_0.zarr" / "spot")
    lattice = Lattice.of_map(volume.info.grid, GRID, PATCH)
    first = lattice.indices(Lattice.of_map(scene.info.grid, GRID, PATCH).starts_of(np.zeros((1, 3), np.int64)))[0]
    part = Box((int(first[0]), int(first[1]), int(first[2])), scene.info.shape)
    assert np.array_equal(scene.read(scene.info.box), whole[part.slices()])


def test_the_commands_map_and_prove(done: Path, stack: Path, tmp_path: Path) -> None:
    model = str(done / "train" / "model.safetensors")
    raw = f"{stack}/volumes/raw"
    mapped = CliRunner().invoke(
        app, ["artifacts", "predict", raw, "--model", model, "-o", str(tmp_path / "m.zarr"), "--device", "cpu"]
    )
    assert mapped.exit_code == 0, mapped.output
    proved = CliRunner().invoke(
        app, ["artifacts", "parity", model, raw, "--samples", "6", "--step", "16", "--json"]
    )
    assert proved.exit_code == 0, proved.output
    assert json.loads(proved.stdout)["holds"] is True
    assert parity_of(model, raw, samples=4, step=16).holds


def test_other_models_and_other_commands_are_told_apart(done: Path, stack: Path, tmp_path: Path) -> None:
    model = str(done / "train" / "model.safetensors")
    with pytest.raises(InputError, match="emloom artifacts predict"):
        predict_volume(PredictJob(raw=f"{stack}/volumes/raw", model=model, output=str(tmp_path / "p.zarr")))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file.create_dataset("raw", data=np.zeros((2, 60, 60), np.uint8)).attrs["resolution"] = (40.0, 4.0, 4.0)
    job = MapJob(raw=f"{tmp_path}/other.h5/raw", model=model, output=str(tmp_path / "m.zarr"))
    with pytest.raises(InputError, match="voxel size"):
        predict_map(job)
    predict_map(job.model_copy(update={"any_voxel_size": True}))


# ---- labelled patches -----------------------------------------------------------------------------------------


def test_labelled_patches_are_learned_too(stack: Path, tmp_path: Path) -> None:
    lattice = Lattice(PATCH, (1, 23, 23))
    _, labels = spotted()
    starts = lattice.starts(lattice.inside(Box.whole(SHAPE)))
    share = np.array([(labels[Box((z, y, x), PATCH).slices()] == 7).mean() for z, y, x in starts.tolist()])
    said = np.where(share >= 0.05, 1, np.where(share == 0, 0, -1)).astype(np.int8)
    table = PatchLabels(GRID, PATCH, starts, ("spot",), said[:, None])
    write_patches(tmp_path / "labels.csv", table)
    base = job_of(stack)
    tissue = base.data[0].model_copy(update={"labels": None, "patches": str(tmp_path / "labels.csv")})
    job = job_of(
        stack,
        data=(tissue,),
        objective=ArtifactsObjective(classes=(PatchClass(name="spot"),), labels="patches"),
        training=base.training.model_copy(
            update={"sampling": Patches(positive=0.5, positive_at_end=0.3, jitter_vox=(0, 2, 2))}
        ),
    )
    assert {finding.level for finding in check_job(job)} <= {"ok", "warning"}
    run(job, tmp_path / "out", CPU)
    row = json.loads((tmp_path / "out" / "evaluate" / "scores.json").read_text())["rows"][0]
    assert row["average_precision"] > 0.9
    inside = table.restricted(Box((5, 0, 0), (3, 112, 100)))
    assert row["n_positive"] + row["n_negative"] == int((inside.labels != -1).sum())
    history = json.loads((tmp_path / "out" / "train" / "history.json").read_text())
    shares = history[-1]["drawn"]["reasons"]
    assert set(shares) == {"yes", "no"}


def test_labels_of_other_classes_are_refused(stack: Path, tmp_path: Path) -> None:
    table = PatchLabels(GRID, PATCH, np.array([[0, 0, 0]]), ("dirt",), np.ones((1, 1), np.int8))
    write_patches(tmp_path / "labels.csv", table)
    tissue = job_of(stack).data[0].model_copy(update={"labels": None, "patches": str(tmp_path / "labels.csv")})
    objective = ArtifactsObjective(classes=(PatchClass(name="spot"),), labels="patches")
    with pytest.raises(InputError, match="labels dirt, and the objective's classes are spot"):
        run(job_of(stack, data=(tissue,), objective=objective), tmp_path / "out", CPU)
    assert not (tmp_path / "out").exists()


# ---- planted artifacts ----------------------------------------------------------------------------------------


def planting(stack: Path, **changes: Any) -> ArtifactJob:
    base = job_of(stack)
    return job_of(
        stack,
        data=(base.data[0].model_copy(update={"labels": None}),),
        objective=ArtifactsObjective(presume_clean=True, plant=PlantSpec(shift_nm=(8, 40), size_nm=(100, 400))),
        **changes,
    )


def test_unlabelled_tissue_is_tested_with_planted_artifacts(stack: Path, tmp_path: Path) -> None:
    training = job_of(stack).training.model_copy(update={"steps": 2, "validate_every": 2})
    scoring = ArtifactScoring(
        step_vox=16,
        threshold=ThresholdSpec(value=0.5),
        bootstrap=PatchBootstrapSpec(resamples=0),
        seed=3,
        plantings=2,
    )
    run(planting(stack, training=training, scoring=scoring), tmp_path / "out", CPU)
    planted = open_volume(tmp_path / "out" / "predict" / "s0_test_0_planting_1.zarr" / "planted")
    where = planted.read(planted.info.box)
    truth = read_patches(tmp_path / "out" / "predict" / "s0_test_0_planting_1.truth.csv")
    assert (truth.labels[:, 0] == 1).any()
    for start, said in zip(truth.starts.tolist(), truth.labels[:, 0].tolist(), strict=True):
        share = (where[Box((start[0], start[1], start[2]), PATCH).slices()] == DAMAGED).mean()
        assert (said == 1) == (share >= 0.02)
    row = json.loads((tmp_path / "out" / "evaluate" / "scores.json").read_text())["rows"][0]
    assert row["threshold"] == 0.5
    other = open_volume(tmp_path / "out" / "predict" / "s0_test_0_planting_0.zarr" / "planted")
    assert not np.array_equal(other.read(other.info.box), where)


def test_planting_is_a_function_of_seed_and_section_and_keeps_the_type() -> None:
    raw = ArrayVolume(spotted()[0][:4, :96, :96], GRID, kind="raw")
    whole, where = planted_box(PlantSpec(probability=1.0), Preprocessing(), raw, raw.info.box, seed=(5,))
    again, _ = planted_box(
        PlantSpec(probability=1.0), Preprocessing(), raw, Box((2, 0, 0), (2, 96, 96)), seed=(5,)
    )
    assert whole.array.dtype == np.uint8
    assert np.array_equal(whole.array[2:], again.array)
    assert where.array.any(axis=(1, 2)).sum() >= 3
    none, nowhere = planted_box(
        PlantSpec(probability=0.0, noise=0.0), Preprocessing(), raw, raw.info.box, seed=(5,)
    )
    assert np.array_equal(none.array, raw.array)
    assert not nowhere.array.any()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"training": {"steps": 1, "crop_shape_vox": (1, 64, 64)}}, "is not the patch of the network"),
        ({"data": "unlabelled"}, "no painted labels"),
        ({"foreign": "twice"}, "share a name"),
    ],
)
def test_a_job_that_cannot_be_is_refused(stack: Path, change: dict[str, Any], says: str) -> None:
    if change.get("data") == "unlabelled":
        change = {"data": (job_of(stack).data[0].model_copy(update={"labels": None}),)}
    if change.get("foreign") == "twice":
        one = ForeignTissueSpec(name="a", raw=f"{stack}/volumes/raw")
        change = {"foreign": (one, one)}
    with pytest.raises(ValueError, match=says):
        job_of(stack, **change)


def test_a_box_without_room_for_a_patch_says_so(stack: Path, tmp_path: Path) -> None:
    tissue = job_of(stack).data[0].model_copy(update={"test": (BoxSpec(start=(5, 0, 0), shape=(3, 40, 40)),)})
    training = job_of(stack).training.model_copy(update={"steps": 1, "validate_every": 1})
    with pytest.raises(InputError, match="no patch of"):
        run(job_of(stack, data=(tissue,), training=training), tmp_path / "out", CPU)


# ---- auxiliary classes ----------------------------------------------------------------------------------------


def test_every_class_has_a_map_and_any_of_them_becomes_a_layer(stack: Path, tmp_path: Path) -> None:
    classes = (PatchClass(name="spot", ids=(7,)), PatchClass(name="tissue", ids=(0,)))
    training = job_of(stack).training.model_copy(update={"steps": 2, "validate_every": 2})
    job = job_of(stack, objective=ArtifactsObjective(classes=classes, yes_share=0.05), training=training)
    run(job, tmp_path / "out", CPU)
    truth = read_patches(tmp_path / "out" / "predict" / "s0_test_0.truth.csv")
    assert truth.classes == ("spot", "tissue")
    assert (truth.of("tissue") == 1).all()
    model = str(tmp_path / "out" / "train" / "model.safetensors")
    raw = f"{stack}/volumes/raw"
    predict_map(MapJob(raw=raw, model=model, output=str(tmp_path / "map.zarr"), step_vox=16))
    spot, tissue = (open_volume(tmp_path / "map.zarr" / name) for name in ("spot", "tissue"))
    assert spot.info.grid == tissue.info.grid
    assert not np.array_equal(spot.read(spot.info.box), tissue.read(tissue.info.box))
    layer = CliRunner().invoke(app, ["export", f"{tmp_path}/map.zarr/spot", f"{tmp_path}/layer.wkw"])
    assert layer.exit_code == 0, layer.output
    again = open_volume(tmp_path / "layer.wkw", voxel_size_nm=spot.info.grid.voxel_size_nm)
    box = spot.info.box
    assert np.array_equal(again.read(box), spot.read(box))
