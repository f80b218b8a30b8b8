"""`emloom run` of a semantic job: from files to scores; right classes score 1, what is unknown does not count."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.io.open import open_volume
from emloom.metrics.classify import Confusion, confusion_scores
from emloom.nn.hardware import Hardware
from emloom.nn.objectives.semantic import UNKNOWN
from emloom.run.journal import Journal
from emloom.tasks.predict import PredictJob, predict_volume
from emloom.tasks.semantic import STAGES, SemanticJob, run
from tests.tasks.cubes import SHAPE

HERE = Hardware("cpu", 1, 0)
NOBODY_KNOWS = 9


class Watcher:
    """Remembers which steps were done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def stage(self, name: str, skipped: bool) -> None:
        if not skipped:
            self.done.append(name)

    def step(self, progress: object) -> None:
        pass

    def advance(self, name: str, done: int, total: int) -> None:
        pass


def did(made: SemanticJob, folder: Path, **named: Any) -> list[str]:
    watcher = Watcher()
    run(made, folder, HERE, watcher, **named)
    return watcher.done


def write_stack(path: Path) -> Path:
    """Stripes along x, 6 voxels wide: dark, bright and middling are labels 0, 2 and 5; some are 9, unknown."""
    _, y, x = np.indices(SHAPE)
    stripe = x // 6 % 3
    labels = np.array([0, 2, 5], np.uint8)[stripe]
    labels[:, 30:34, :20] = NOBODY_KNOWS
    mask = (y % 16 != 15).astype(np.uint8)
    raw = np.array([60, 200, 130])[stripe] + np.random.default_rng(0).integers(0, 20, SHAPE)
    with h5py.File(path, "w") as file:
        for name, array in (("raw", raw.astype(np.uint8)), ("labels", labels), ("mask", mask)):
            file[name] = array
            file[name].attrs["resolution"] = (10.0, 10.0, 10.0)
    return path


def job(path: Path, **changes: Any) -> SemanticJob:
    """A job that takes seconds, with two test boxes of different size."""
    classes = [("dark", [0]), ("bright", [2]), ("middling", [5, 6])]
    stack = {
        "raw": f"{path}/raw",
        "labels": f"{path}/labels",
        "marks": {"mask": f"{path}/mask"},
        "validation": [{"start": [0, 0, 24], "shape": [8, 16, 16]}],
        "test": [{"start": [0, 24, 0], "shape": [24, 24, 24]}, {"start": [12, 24, 30], "shape": [6, 20, 18]}],
    }
    return SemanticJob.from_dict(
        {
            "name": "stripes",
            "data": [stack],
            "objective": {"classes": [{"name": name, "ids": ids} for name, ids in classes]},
            "network": {
                "kind": "unet_autoencoder",
                "features": [8, 8],
                "factors": [[1, 2, 2]],
                "kernels": [[[1, 3, 3]]] * 2,
            },
            "training": {
                "steps": 150,
                "crop_shape_vox": [4, 16, 16],
                "optimizer": {"learning_rate": 0.01},
                "validate_every": 50,
                "augment": {
                    "noise": 0.0,
                    "intensity": {"contrast": [1, 1], "brightness": [0, 0], "gamma": [1, 1]},
                },
            },
            "scoring": {"bootstrap": {"block_vox": [6, 12, 12], "resamples": 50}},
            **changes,
        }
    )


def scores(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluate" / "scores.json").read_text())
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("semantic")
    stack = write_stack(folder / "stack.h5")
    assert did(job(stack), folder / "out") == list(STAGES)
    return stack, folder / "out"


def test_stripes_that_differ_in_grey_are_told_apart(finished: tuple[Path, Path]) -> None:
    found = scores(finished[1])
    assert min(row["iou"] for row in found["classes"]) > 0.8
    assert [row["name"] for row in found["classes"]] == ["dark", "bright", "middling"]
    page = (finished[1] / "report.html").read_text()
    assert "IoU of bright" in page
    assert "stripes" in page
    assert (finished[1] / "evaluate" / "s0_test_1" / "report.html").exists()
    linked = re.findall(r'href="(evaluate/[^"]+/report\.html)"', page)  # regression: the section stood in the path
    assert len(linked) == 2
    assert all((finished[1] / path).exists() for path in linked)


def test_only_what_is_known_counts_and_boxes_add_up(finished: tuple[Path, Path]) -> None:
    """The scores are those of the stored probabilities and the labels in the file, counted by hand."""
    stack, out = finished
    with h5py.File(stack) as file:
        labels, mask = file["labels"][:], file["mask"][:]
    counts = np.zeros((3, 3), np.int64)
    for number, box in enumerate(each.box for each in job(stack).data[0].test):
        called = open_volume(out / "predict" / f"s0_test_{number}.zarr" / "classes")
        highest = called.read(called.info.box).argmax(axis=0)
        truth, known = labels[box.slices()], mask[box.slices()]
        for true, ids in enumerate(((0,), (2,), (5, 6))):
            for guess in range(3):
                counts[true, guess] += (np.isin(truth, ids) & (known != 0) & (highest == guess)).sum()
    found = scores(out)
    assert found["confusion"] == counts.tolist()
    n_unknown = int(((labels == NOBODY_KNOWS) & (mask != 0))[:, 24:48, 0:24].sum())
    assert n_unknown > 0
    assert found["rows"][0]["n_voxels"] == counts.sum() == sum(row["n_voxels"] for row in found["rows"][1:])
    expected = confusion_scores(Confusion(counts))
    assert found["rows"][0]["iou_macro"] == pytest.approx(expected.macro.iou)
    assert [row["f1"] for row in found["classes"]] == pytest.approx([each.f1 for each in expected.classes])
    assert found["bootstrap"]["units"] == 16 + 4
    interval = found["intervals"]["iou_macro"]
    assert interval["low"] <= found["rows"][0]["iou_macro"] <= interval["high"]


def test_perfect_probabilities_score_perfectly(finished: tuple[Path, Path], tmp_path: Path) -> None:
    stack, _ = finished
    made = job(stack)
    assert did(made, tmp_path, until="predict") == ["train", "predict"]
    for number in range(2):
        called = open_volume(tmp_path / "predict" / f"s0_test_{number}.zarr" / "classes", writable=True)
        with h5py.File(stack) as file:
            labels = file["labels"][made.data[0].test[number].box.slices()]
        truth = made.objective.of_labels(labels)
        perfect = np.stack([np.where(truth == number, 255, 0) for number in range(3)])
        called.write(called.info.box, perfect.astype(np.uint8))
    assert did(made, tmp_path) == ["evaluate", "report"]
    found = scores(tmp_path)
    for row in found["rows"]:
        assert [row[key] for key in ("accuracy", "iou_macro", "f1_micro", "average_precision")] == [1.0] * 4
    for row in found["classes"]:
        assert (row["iou"], row["f1"], row["average_precision"]) == (1.0, 1.0, 1.0)


def test_the_written_truth_says_what_is_unknown(finished: tuple[Path, Path]) -> None:
    truth = open_volume(finished[1] / "evaluate" / "s0_test_0.zarr" / "truth")
    assert truth.info.grid.offset_nm == (0.0, 240.0, 0.0)
    ids = truth.read(truth.info.box)
    assert set(np.unique(ids)) == {0, 1, 2, UNKNOWN}
    assert (ids[:, 7] == UNKNOWN).all()  # the mask: y = 31
    assert (ids[:, 6, :20] == UNKNOWN).all()  # label 9


def test_a_second_run_does_nothing_and_a_lost_step_is_done_again(finished: tuple[Path, Path]) -> None:
    stack, out = finished
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.is_file() and p.name != "job.yaml"}
    assert did(job(stack), out) == []
    assert before == {p: p.stat().st_mtime_ns for p in before}
    score = scores(out)
    for step in ("evaluate", "report"):
        Journal(out).forget(step)
    assert did(job(stack), out) == ["evaluate", "report"]
    assert scores(out) == score


def test_another_scoring_keeps_the_training(finished: tuple[Path, Path]) -> None:
    stack, out = finished
    other = job(stack, scoring={"metrics": ["iou"], "bootstrap": {"resamples": 0}})
    with pytest.raises(InputError, match="evaluate"):
        did(other, out)
    assert did(other, out, overwrite=True) == ["evaluate", "report"]
    assert scores(out)["intervals"] == {}
    assert did(job(stack), out, overwrite=True) == ["evaluate", "report"]


def test_the_model_predicts_anywhere_block_by_block_as_at_once(
    finished: tuple[Path, Path], tmp_path: Path
) -> None:
    stack, out = finished
    model = str(out / "train" / "model.safetensors")
    whole = PredictJob(raw=f"{stack}/raw", model=model, output=str(tmp_path / "whole.zarr"))
    tiled = whole.model_copy(update={"output": str(tmp_path / "tiled.zarr"), "tile_shape_vox": (5, 14, 22)})
    predict_volume(whole)
    predict_volume(tiled)
    a, b = (open_volume(tmp_path / name / "classes") for name in ("whole.zarr", "tiled.zarr"))
    assert (a.info.kind, a.info.channels) == ("probabilities", 3)
    at_once, by_tiles = a.read(a.info.box), b.read(b.info.box)
    assert np.abs(at_once.astype(int) - by_tiles).max() <= 1
    stored = open_volume(out / "predict" / "s0_test_0.zarr" / "classes")
    assert np.abs(stored.read(stored.info.box).astype(int) - at_once[:, :24, 24:48, :24]).max() <= 1


def test_a_job_without_labels_is_refused(finished: tuple[Path, Path]) -> None:
    said = job(finished[0]).to_dict()
    del said["data"][0]["labels"]
    with pytest.raises(InputError, match=r"data\.0\.labels: missing"):
        SemanticJob.from_dict(said)


def test_metrics_and_rules_are_known_before_training(finished: tuple[Path, Path]) -> None:
    rule = {"inside": "bright", "wall": "middling"}
    made = job(finished[0], scoring={"metrics": ["f1", "enclosure"], "enclosed": [rule]})
    assert made.scoring.enclosed[0].wall == "middling"
    for scoring, words in (
        ({"metrics": ["enclosure"], "enclosed": [rule | {"wall": "midling"}]}, "did you mean 'middling'"),
        ({"metrics": ["enclosure"]}, "go together"),
        ({"metrics": ["f2"]}, "no metric 'f2'"),
    ):
        with pytest.raises(InputError, match=words):
            job(finished[0], scoring=scoring)


def test_labels_of_no_class_are_found_before_training(finished: tuple[Path, Path], tmp_path: Path) -> None:
    strangers = [{"name": "a", "ids": [100]}, {"name": "b", "ids": [101]}]
    with pytest.raises(InputError, match=r"the validation .* holds no voxel of a, b in "):
        did(job(finished[0], objective={"classes": strangers}), tmp_path)
    assert not (tmp_path / "train").exists()


def test_a_job_file_comes_back(finished: tuple[Path, Path]) -> None:
    made = job(finished[0])
    assert SemanticJob.from_yaml(made.to_yaml()) == made
    assert SemanticJob.load(finished[1] / "job.yaml") == made
