"""`emloom run` of a forest job: from a few labelled sections to scores, and what is refused on the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import ndimage

from emloom.errors import InputError
from emloom.io.open import open_volume
from emloom.io.volume import read_padded
from emloom.metrics.classify import Confusion, confusion_scores
from emloom.nn.engine import Engine
from emloom.nn.forest import Forest
from emloom.nn.forestfit import fit_forest
from emloom.nn.model import load
from emloom.ops.forest import class_shares
from emloom.run.cluster import Dask
from emloom.run.executor import Serial
from emloom.tasks.anyjob import Where, carry_out, check_job, job_schema, load_any_job
from emloom.tasks.forest import run
from emloom.tasks.forestjob import ForestJob
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.semantic import STAGES
from tests.tasks.test_semantic import Watcher

SHAPE = (24, 48, 60)
RESOLUTION = (20.0, 10.0, 10.0)
LABELLED = (2, 7, 13)  # sections
TESTED = ({"start": [4, 24, 0], "shape": [16, 24, 20]}, {"start": [12, 24, 30], "shape": [6, 20, 18]})
VALIDATED = ({"start": [0, 0, 40], "shape": [24, 16, 20]},)


def slices(box: Mapping[str, list[int]]) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(box["start"], box["shape"], strict=True))


def write_stack(path: Path, resolution: tuple[float, ...] = RESOLUTION) -> Path:
    """Blobs, oblique stripes, and noise, in wavy layers along x; all have the same two grey values.

    Labels 1, 2 and 3 on a few sections, and in the held-out boxes; elsewhere 0, unknown.
    """
    random = np.random.default_rng(0)
    z, y, x = np.indices(SHAPE)
    layer = (x + (3 * np.sin(y / 8 + z / 6)).astype(int)) // 12 % 3
    grain = random.normal(size=SHAPE)
    signs = np.sign([ndimage.gaussian_filter(grain, (0, 2, 2)), (x + y) // 2 % 2 - 0.5, random.normal(size=SHAPE)])
    raw = 128 + 60 * np.choose(layer, signs)
    raw += random.normal(0, 4, SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    for at in (*LABELLED, *(slices(box) for box in (*TESTED, *VALIDATED))):
        labels[at] = layer[at] + 1
    with h5py.File(path, "w") as file:
        for name, array in (("raw", np.clip(raw, 0, 255).astype(np.uint8)), ("labels", labels)):
            file[name] = array
            file[name].attrs["resolution"] = resolution
    return path


def job(path: Path, **changes: Any) -> ForestJob:
    stack = {
        "raw": f"{path}/raw",
        "labels": f"{path}/labels",
        "validation": VALIDATED,
        "test": TESTED,
        "gap_nm": 20.0,
        "region": {"start": [0, 0, 0], "shape": [4, 48, 60]},
    }
    classes = [("blobs", [1]), ("striped", [2]), ("noisy", [3])]
    return ForestJob.from_dict(
        {
            "kind": "forest",
            "name": "textures",
            "data": [stack | changes.pop("stack", {})],
            "objective": {"classes": [{"name": name, "ids": ids} for name, ids in classes]},
            "forest": {"features": {"kind": "multiscale", "sigmas_nm": [10, 20, 40]}, "trees": 20}
            | changes.pop("forest", {}),
            "scoring": {"bootstrap": {"block_vox": [6, 12, 12], "resamples": 20}},
            **changes,
        }
    )


def did(made: ForestJob, folder: Path, **named: Any) -> list[str]:
    watcher = Watcher()
    run(made, folder, listener=watcher, **named)
    return watcher.done


def scores(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluate" / "scores.json").read_text())
    return found


def learned(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "train" / "forest.json").read_text())
    return found


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stack(tmp_path_factory.mktemp("stack") / "stack.h5")


@pytest.fixture(scope="module")
def finished(stack: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forest") / "out"
    assert did(job(stack), folder) == list(STAGES)
    return folder


def test_one_labelled_section_tells_textures_of_equal_grey_apart(finished: Path) -> None:
    found = scores(finished)
    assert min(row["iou"] for row in found["classes"][:2]) > 0.6
    assert found["rows"][0]["balanced_accuracy"] > 0.65
    assert [row["name"] for row in found["classes"]] == ["blobs", "striped", "noisy"]
    page = (finished / "report.html").read_text()
    assert "recall lost" in page
    assert "IoU of striped" in page
    # The one labelled section of the region, less the validation box and a gap of 1 section and 2 voxels.
    found = learned(finished)
    assert sum(row["known"] for row in found["classes"]) == 48 * 60 - 18 * 22
    assert sum(row["share"] for row in found["features"]) == pytest.approx(1, abs=1e-3)
    assert found["validation_recall"] > 0.75
    assert {row["name"] for row in found["groups"]} >= {"hessian", "structure", "20 nm"}


def test_the_grey_value_alone_does_not_and_neighbours_help(stack: Path, finished: Path, tmp_path: Path) -> None:
    recall = {}
    for kind in ("intensity", "original_8"):
        did(job(stack, forest={"features": {"kind": kind}}), tmp_path / kind, until="train")
        recall[kind] = learned(tmp_path / kind)["validation_recall"]
    assert recall["intensity"] == pytest.approx(1 / 3, abs=0.05)
    assert 0.6 < recall["original_8"] < learned(finished)["validation_recall"]


def test_stored_probabilities_are_those_of_the_trees_and_scores_count_them(stack: Path, finished: Path) -> None:
    made = job(stack)
    spec, forest, _ = load(finished / "train" / "model.safetensors")
    assert isinstance(forest, Forest)
    counts = np.zeros((3, 3), np.int64)
    with h5py.File(stack) as file:
        labels = file["labels"][:]
    for number, box in enumerate(each.box for each in made.data[0].test):
        raw = spec.preprocessing(read_padded(open_volume(f"{stack}/raw"), box.grow(forest.context)))
        features = forest.features.compute(raw)
        shares = class_shares(features.reshape(len(features), -1), forest.trees).reshape(3, *box.shape)
        stored = open_volume(finished / "predict" / f"s0_test_{number}.zarr" / "classes")
        assert stored.info.kind == "probabilities"
        values = stored.read(stored.info.box)
        assert np.abs(values - 255.0 * shares).max() <= 0.5001
        np.add.at(counts, (labels[box.slices()].astype(int) - 1, values.argmax(axis=0)), 1)
    assert scores(finished)["confusion"] == counts.tolist()
    assert scores(finished)["rows"][0]["iou_macro"] == pytest.approx(confusion_scores(Confusion(counts)).macro.iou)


def test_held_out_labels_teach_nothing(stack: Path, finished: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.h5"
    write_stack(other)
    with h5py.File(other, "r+") as file:
        for box in TESTED:
            file["labels"][slices(box)] = 4 - file["labels"][slices(box)]
    assert did(job(other), tmp_path / "out", until="train") == ["train"]
    one, two = (load(folder / "train" / "model.safetensors")[1] for folder in (finished, tmp_path / "out"))
    assert all(
        np.array_equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


def test_a_second_run_does_nothing_and_another_forest_is_refused(stack: Path, finished: Path) -> None:
    assert did(job(stack), finished) == []
    with pytest.raises(InputError, match="train"):
        did(job(stack, forest={"trees": 21}), finished)


# ---- whole volumes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_any_tiles_workers_and_box_give_the_same_bits(
    workers: int, stack: Path, finished: Path, tmp_path: Path
) -> None:
    whole = PredictJob(
        raw=f"{stack}/raw",
        model=str(finished / "train" / "model.safetensors"),
        output=str(tmp_path / "whole.zarr"),
    )
    assert predict_volume(whole, Engine("cuda", "auto")) == "forest"  # a forest needs no GPU
    tiled = whole.model_copy(update={"output": str(tmp_path / "tiled.zarr"), "tile_shape_vox": (5, 16, 32)})
    with Dask(workers=workers) if workers else nullcontext(Serial()) as executor:
        predict_volume(tiled, executor=executor)
    at_once, by_tiles = (open_volume(tmp_path / name / "classes") for name in ("whole.zarr", "tiled.zarr"))
    everything = at_once.read(at_once.info.box)
    assert np.array_equal(everything, by_tiles.read(by_tiles.info.box))
    stored = open_volume(finished / "predict" / "s0_test_0.zarr" / "classes")
    assert np.array_equal(stored.read(stored.info.box), everything[:, 4:20, 24:48, 0:20])


def test_a_mask_leaves_voxels_out_and_a_killed_prediction_goes_on(
    stack: Path, finished: Path, tmp_path: Path
) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, :20] = 1
    with h5py.File(tmp_path / "mask.h5", "w") as file:
        file["mask"] = mask
        file["mask"].attrs["resolution"] = RESOLUTION
    whole = PredictJob(
        raw=f"{stack}/raw",
        model=str(finished / "train" / "model.safetensors"),
        output=str(tmp_path / "masked.zarr"),
        mask=f"{tmp_path}/mask.h5/mask",
        tile_shape_vox=(8, 16, 32),
    )

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_volume(whole, on_block=stop)
    seen: list[int] = []
    predict_volume(whole, on_block=lambda done, total: seen.append(done))
    assert min(seen) > 2
    found = open_volume(tmp_path / "masked.zarr" / "classes")
    values = found.read(found.info.box)
    assert not values[:, :, 20:].any()
    assert (values[:, :, :20].astype(int).sum(axis=0) >= 253).all()


# ---- bad input ------------------------------------------------------------------------------------------------


def changed(path: Path, **datasets: Any) -> Path:
    write_stack(path)
    with h5py.File(path, "r+") as file:
        for name, change in datasets.items():
            file[name][:] = change(file[name][:])
    return path


def test_a_class_without_voxels_is_named(stack: Path, tmp_path: Path) -> None:
    objective = {
        "classes": [{"name": n, "ids": [i]} for i, n in enumerate(("blobs", "striped", "noisy", "far"), 1)]
    }
    with pytest.raises(InputError, match=r"no voxel of far may be learned from in .*stack\.h5"):
        did(job(stack, objective=objective), tmp_path)


def test_labels_that_are_all_unknown_are_an_error(tmp_path: Path) -> None:
    path = changed(tmp_path / "a.h5", labels=lambda labels: labels * 0)
    with pytest.raises(InputError, match="holds no voxel of blobs, striped, noisy"):
        did(job(path), tmp_path / "a")

    path = changed(tmp_path / "b.h5", labels=lambda labels: labels * (np.arange(24) != 2)[:, None, None])
    with pytest.raises(InputError, match="no voxel of blobs, striped, noisy may be learned"):
        did(job(path), tmp_path / "b")


@pytest.mark.parametrize("stage", ["train", "predict"])
def test_a_raw_smaller_than_the_reach_is_an_error(stage: str, finished: Path, stack: Path, tmp_path: Path) -> None:
    if stage == "train":
        with pytest.raises(InputError, match=r"reach 2[0-9] voxels along z, and .* has 24.*dimensions: 2"):
            did(job(stack, forest={"features": {"kind": "multiscale", "sigmas_nm": [110]}}), tmp_path / "out")
        return
    thin = tmp_path / "thin.h5"
    with h5py.File(stack) as file, h5py.File(thin, "w") as out:
        out["raw"] = file["raw"][:5]
        out["raw"].attrs["resolution"] = RESOLUTION
    model = str(finished / "train" / "model.safetensors")
    with pytest.raises(InputError, match=r"voxels along z, and .*thin\.h5.* has 5"):
        predict_volume(PredictJob(raw=f"{thin}/raw", model=model, output=str(tmp_path / "p.zarr")))


def test_another_voxel_size_is_an_error(finished: Path, stack: Path, tmp_path: Path) -> None:
    other = write_stack(tmp_path / "other.h5", (40.0, 10.0, 10.0))
    model = str(finished / "train" / "model.safetensors")
    with pytest.raises(InputError, match="voxel size"):
        predict_volume(PredictJob(raw=f"{other}/raw", model=model, output=str(tmp_path / "p.zarr")))
    both = job(stack).to_dict()
    both["data"].append(job(other).to_dict()["data"][0])
    with pytest.raises(InputError, match="voxel size"):
        did(ForestJob.from_dict(both), tmp_path / "both")


def test_a_forest_has_no_loss_and_a_network_no_trees(stack: Path) -> None:
    made = job(stack).to_dict()
    assert ForestJob.from_dict(made) == job(stack)  # what is written with its defaults is read again
    made["objective"]["class_loss"] = {"kind": "wasserstein_dice", "distances": [[0, 1, 1], [1, 0, 1], [1, 1, 0]]}
    with pytest.raises(InputError, match="a forest learns without a loss"):
        ForestJob.from_dict(made)
    from emloom.tasks.semantic import SemanticJob

    network = {key: value for key, value in job(stack).to_dict().items() if key not in ("kind", "forest")}
    network |= {"network": {"kind": "forest"}, "training": {"steps": 1, "crop_shape_vox": [1, 1, 1]}}
    with pytest.raises(InputError, match=r"network\.kind: 'forest' is not valid"):
        SemanticJob.from_dict(network)


# ---- like every job -------------------------------------------------------------------------------------------


def test_a_job_file_is_read_checked_and_carried_out(stack: Path, tmp_path: Path) -> None:
    made = job(stack)
    made.dump(tmp_path / "job.yaml")
    assert load_any_job(tmp_path / "job.yaml") == made
    assert "ForestJob" in job_schema()["$defs"]
    found = {(finding.level, finding.what): finding.text for finding in check_job(made)}
    assert "blobs" in found["ok", "labels"]
    assert "features" in found["ok", "features"]
    assert not [key for key in found if key[0] == "error"]
    bad = job(stack, objective={"classes": [{"name": "blobs", "ids": [1]}, {"name": "far", "ids": [7]}]})
    assert any(finding.level == "error" and "far" in finding.text for finding in check_job(bad))
    carry_out(made, tmp_path / "out", Where(), only_train=True)
    assert (tmp_path / "out" / "train" / "model.safetensors").exists()
    assert not (tmp_path / "out" / "predict").exists()


def test_where_scikit_learn_lacks_check_says_so(stack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emloom.nn.forestfit.find_spec", lambda name: None)
    errors = [finding.text for finding in check_job(job(stack)) if finding.level == "error"]
    assert errors == ["scikit-learn grows the forest, and it is not installed: pip install 'emloom[forest]'"]


def test_two_stacks_teach_one_forest(stack: Path, finished: Path, tmp_path: Path) -> None:
    twice = job(stack).to_dict()
    twice["data"] *= 2
    did(ForestJob.from_dict(twice), tmp_path, until="train")
    known = [[row["known"] for row in learned(folder)["classes"]] for folder in (tmp_path, finished)]
    assert known[0] == [2 * count for count in known[1]]


def test_growing_needs_every_class() -> None:
    rows = np.zeros((4, 1), np.float32)
    with pytest.raises(AssertionError):
        fit_forest(job(Path("x")).forest, rows, np.array([0, 0, 2, 2], np.uint8), 3, 1)


def test_the_page_shows_a_job_that_is_valid() -> None:
    page = (Path(__file__).parents[2] / "docs" / "forest.md").read_text(encoding="utf-8")
    made = ForestJob.from_yaml(page.partition("```yaml\n")[2].partition("```")[0])
    assert ForestJob.from_yaml(made.to_yaml()) == made


@pytest.mark.real_data
def test_real_tissue_needs_more_than_its_grey(real_data: Path, tmp_path: Path) -> None:
    """Three sections of 192 x 192 voxels of FIB-SEM teach; validation is tissue that they do not show."""
    with h5py.File(real_data / "epfl_hippocampus" / "train_z000-019.h5") as file:
        part = np.s_[:8, :192, 512:1024]
        raw = file["volumes/raw"][part]
        masks = {name: file[f"volumes/labels/{name}"][part] > 0 for name in ("membranes", "mitochondrion")}
    classes = np.ones(raw.shape, np.uint8)
    classes[masks["membranes"]] = 2
    classes[masks["mitochondrion"]] = 3
    classes[:, :, 320:][np.arange(8) % 3 != 0] = 0
    with h5py.File(tmp_path / "epfl.h5", "w") as file:
        for name, array in (("raw", raw), ("labels", classes)):
            file[name] = array
            file[name].attrs["resolution"] = (5.0, 5.0, 5.0)
    recall = {}
    for features in ({"kind": "intensity"}, {"kind": "multiscale", "dimensions": 2, "sigmas_nm": [5, 17.5, 40]}):
        made = job(
            tmp_path / "epfl.h5",
            stack={
                "region": {"start": [0, 0, 320], "shape": [8, 192, 192]},
                "validation": [{"start": [0, 0, 0], "shape": [8, 192, 200]}],
                "test": [{"start": [0, 0, 220], "shape": [8, 192, 60]}],
            },
            forest={"features": features, "trees": 20, "per_class": 1500},
        )
        did(made, tmp_path / str(features["kind"]), until="train")
        recall[features["kind"]] = learned(tmp_path / str(features["kind"]))["validation_recall"]
    assert recall["multiscale"] > 0.75
    assert recall["multiscale"] > recall["intensity"] + 0.1
