"""A comparison of baselines: nothing of the test reaches what is fitted or chosen, and its scores are right."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, roc_auc_score

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels
from emloom.io.open import open_volume
from emloom.io.patchtables import write_patches
from emloom.io.volume import ArrayVolume
from emloom.nn.level_autoencoders import FCNAutoencoderSpec
from emloom.nn.model import ModelSpec, build, save
from emloom.nn.objectives.artifacts import ArtifactsObjective
from emloom.nn.objectives.reconstruction import ReconstructionObjective
from emloom.nn.patchdetector import load_detector
from emloom.nn.patchnet import PatchNetSpec
from emloom.nn.planting import PlantSpec
from emloom.nn.preprocess import Preprocessing
from emloom.tasks.artifactbaselines import BaselinesFound, compare_baselines, file_name
from emloom.tasks.artifactbaselinesreport import write_baselines_report
from emloom.tasks.artifactbaselinesspec import ArtifactBaselinesJob, default_baselines
from emloom.tasks.plantedtest import DAMAGED, MOVED, planted_box
from tests.tasks.micrographs import GRID, image, write

PATCH = (1, 16, 16)
SECTIONS = {"train": range(8), "val": range(9, 14), "test": range(15, 20)}


def tissue() -> tuple[np.ndarray, PatchLabels]:
    """Twenty sections of blobs; dark squares in a quarter of the patches."""
    values = image((20, 48, 48))
    starts = Lattice(PATCH, (1, 16, 16)).starts(Box.whole((20, 3, 3)))
    rng = np.random.default_rng(5)
    said = (rng.random(len(starts)) < 0.25).astype(np.int8)
    for (z, y, x), yes in zip(starts.tolist(), said.tolist(), strict=True):
        if yes:
            dy, dx = rng.integers(0, 9, 2)
            values[z, y + dy : y + dy + 7, x + dx : x + dx + 7] = 10
    said[rng.random(len(said)) < 0.05] = -1
    return values, PatchLabels(GRID, PATCH, starts, ("dirt",), said[:, None])


def folder_of(path: Path, labels: PatchLabels, sections: Any = None) -> str:
    path.mkdir()
    for name, own in (sections or SECTIONS).items():
        write_patches(path / f"{name}.csv", labels.taken(np.isin(labels.starts[:, 0], list(own))))
    return str(path)


def write_model(path: Path, kind: str = "fcn", voxel_size_nm: tuple[float, float, float] = (40, 4, 4)) -> str:
    torch.manual_seed(0)
    if kind == "fcn":
        network, objective = FCNAutoencoderSpec.of(width=4, levels=3), ReconstructionObjective()
    else:
        network, objective = PatchNetSpec.light(sections=1, f=2), ArtifactsObjective(presume_clean=True)
    spec = ModelSpec(objective=objective, network=network, voxel_size_nm=voxel_size_nm)
    save(path, spec, build(spec).state_dict(), {})
    return str(path)


FEW = [
    {"features": {"kind": "pixels"}, "scorer": {"kind": "linear_probe"}},
    {"features": {"kind": "latent"}, "scorer": {"kind": "neighbours"}},
    {"features": {"kind": "levels"}, "scorer": {"kind": "memory_bank", "items": 200}},
    {"features": {"kind": "error"}, "scorer": {"kind": "deviation"}},
]
Compare = Callable[..., tuple[ArtifactBaselinesJob, BaselinesFound]]


@pytest.fixture
def compare(tmp_path: Path) -> Compare:
    """Compare on small tissue; a keyword changes the job, `labels` what people say."""
    runs = iter(range(100))

    def go(
        labels: PatchLabels | None = None, table: str | None = None, sections: Any = None, **more: Any
    ) -> tuple[ArtifactBaselinesJob, BaselinesFound]:
        number = next(runs)
        values, own = tissue()
        given: dict[str, Any] = {
            "raw": write(tmp_path / f"raw{number}.zarr", values),
            "labels": table or folder_of(tmp_path / f"splits{number}", labels or own, sections),
            "output": str(tmp_path / f"out{number}"),
            "model": write_model(tmp_path / f"model{number}.safetensors"),
            "bootstrap": {"resamples": 50},
            "baselines": FEW,
            **more,
        }
        job = ArtifactBaselinesJob.from_dict(given)
        return job, compare_baselines(job)

    return go


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_scores_are_those_of_scikit_learn_and_files_say_the_same(compare: Compare) -> None:
    job, found = compare(baselines=None)
    folder = Path(job.output)
    rows = json.loads((folder / "scores.json").read_text())["rows"]
    assert len(rows) == len(default_baselines(ModelSpec.from_yaml(spec_of(job)))) == 9
    patches = read_csv(folder / "patches.csv")
    test = [row for row in patches if row["part"] == "test"]
    truth = np.array([row["dirt"] == "yes" for row in test])
    starts = np.array([[int(row[axis]) for axis in "zyx"] for row in test])
    raw = open_volume(job.raw, kind="raw")
    for row in rows:
        scores = np.array([float(patch[row["baseline"]]) for patch in test])
        assert row["average_precision"] == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
        assert row["roc_auc"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        called = scores >= row["threshold"]
        assert row["recall"] == pytest.approx(called[truth].mean())
        assert row["false_positive_rate"] == pytest.approx(called[~truth].mean())
        detector = load_detector(folder / "detectors" / file_name(row["baseline"]), job.model)
        np.testing.assert_array_equal(detector.scores(raw, starts), scores)
        assert detector.spec.threshold == row["threshold"]
        val = [patch for patch in patches if patch["part"] == "val"]
        hit = np.array([float(p[row["baseline"]]) >= row["threshold"] for p in val if p["dirt"] == "yes"])
        assert hit.mean() >= 0.8
    best = max(rows, key=lambda row: row["validation_average_precision"])
    assert found.results[found.best].name == best["baseline"]
    # Dark squares are no riddle.
    assert best["average_precision"] > 0.95


def spec_of(job: ArtifactBaselinesJob) -> str:
    from emloom.nn.checkpoint import load_checkpoint

    assert job.model is not None
    return load_checkpoint(job.model)[1]


def test_what_is_said_of_the_test_changes_nothing_that_is_fitted_or_chosen(compare: Compare) -> None:
    _, labels = tissue()
    lied = labels.labels.copy()
    lied[labels.starts[:, 0] >= 15] = 1 - np.abs(lied[labels.starts[:, 0] >= 15])
    (one, first), (other, second) = compare(labels), compare(replace(labels, labels=lied))
    assert first.best == second.best
    for each, again in zip(first.results, second.results, strict=True):
        name = f"detectors/{file_name(each.name)}"
        files = [load_file(Path(job.output) / name) for job in (one, other)]
        assert all(torch.equal(files[0][key], files[1][key]) for key in files[0].keys() | files[1].keys())
        assert each.applied.threshold == again.applied.threshold
        assert each.intervals["roc_auc"].value != again.intervals["roc_auc"].value


def test_what_is_said_of_the_validation_changes_only_thresholds(compare: Compare) -> None:
    _, labels = tissue()
    val = np.isin(labels.starts[:, 0], list(SECTIONS["val"]))
    lied = labels.labels.copy()
    lied[val] = 1 - np.abs(lied[val])
    _, first = compare(labels, baselines=FEW[::2])
    _, second = compare(replace(labels, labels=lied), baselines=FEW[::2])
    for each, again in zip(first.results, second.results, strict=True):
        np.testing.assert_array_equal(
            each.scores[each.scores == each.scores], again.scores[each.scores == each.scores]
        )
        assert each.intervals["roc_auc"] == again.intervals["roc_auc"]
    assert any(
        a.applied.threshold != b.applied.threshold for a, b in zip(first.results, second.results, strict=True)
    )


def test_the_order_of_a_table_changes_no_result(compare: Compare, tmp_path: Path) -> None:
    _, labels = tissue()
    mixed = labels.taken(np.random.default_rng(0).permutation(len(labels)))
    blocks = {"block_vox": (5, 48, 48), "gap_vox": (1, 0, 0)}
    rows = []
    for name, each in (("one", labels), ("other", mixed)):
        write_patches(tmp_path / f"{name}.csv", each)
        job, _ = compare(table=str(tmp_path / f"{name}.csv"), split=blocks, baselines=FEW[::2])
        rows.append([{k: v for k, v in row.items() if k != "fit_seconds"} for row in scores_of(job)])
    assert rows[0] == rows[1]


def scores_of(job: ArtifactBaselinesJob) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((Path(job.output) / "scores.json").read_text())["rows"]
    return rows


def test_a_page_shows_it(compare: Compare) -> None:
    job, found = compare(baselines=FEW[::2])
    page = write_baselines_report(job, found).read_text()
    assert page.count("<img") >= 5
    assert found.results[found.best].name in page
    assert "Where the bank is surprised" in page


def test_a_classifier_lends_its_encoder(tmp_path: Path) -> None:
    values = image((12, 144, 296), seed=3)
    starts = Lattice((1, 140, 140), (1, 4, 146)).starts(Box.whole((12, 2, 2)))
    said = np.random.default_rng(1).integers(0, 2, (len(starts), 1)).astype(np.int8)
    labels = PatchLabels(GRID, (1, 140, 140), starts, ("dirt",), said)
    sections = {"train": range(4), "val": range(5, 8), "test": range(9, 12)}
    job = ArtifactBaselinesJob(
        raw=write(tmp_path / "raw.zarr", values),
        labels=folder_of(tmp_path / "splits", labels, sections),
        output=str(tmp_path / "out"),
        model=write_model(tmp_path / "model.safetensors", "patch_net"),
        bootstrap={"resamples": 0},
    )
    found = compare_baselines(job)
    kinds = {each.detector.spec.baseline.features.kind for each in found.results}
    assert kinds == {"pixels", "latent", "levels"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": "fold"}, "no class 'fold'"),
        ({"baselines": [{"features": {"kind": "levels", "levels": [7]}, "scorer": {"kind": "memory_bank"}}]},
         "has levels 1 to 3"),
        ({"baselines": [{"features": {"kind": "pixels"}, "scorer": {"kind": "neighbours"}}] * 2}, "told apart"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(compare: Compare, change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        compare(**change)


def test_parts_that_share_tissue_or_lack_examples_are_refused(compare: Compare, tmp_path: Path) -> None:
    _, labels = tissue()
    near = {"train": range(9), "val": range(9, 14), "test": range(15, 20)}
    with pytest.raises(InputError, match="show the same tissue"):
        compare(sections=near)
    none = labels.labels.copy()
    none[labels.starts[:, 0] >= 15] = 0
    with pytest.raises(InputError, match=r"the test part of .* has 0 patches with dirt"):
        compare(replace(labels, labels=none))
    with pytest.raises(InputError, match="give the labels of this volume"):
        compare(replace(labels, grid=Grid((40, 8, 8))))
    with pytest.raises(InputError, match="already exists"):
        compare(output=str(tmp_path))
    with pytest.raises(InputError, match="resample the volume"):
        compare(model=write_model(tmp_path / "far.safetensors", voxel_size_nm=(40, 8, 8)))


@pytest.mark.real_data
def test_defects_planted_on_real_tissue_are_found_better_than_by_chance(real_data: Path, tmp_path: Path) -> None:
    source = open_volume(str(real_data / "vnc_sstem/stack1_z00-14.h5/volumes/raw"), kind="raw")
    size = source.info.grid.voxel_size_nm
    clean = ArrayVolume(source.read(Box((0, 200, 200), (15, 240, 240))), Grid(size), kind="raw")
    plant = PlantSpec(probability=0.9, kinds=("debris", "charging", "low_contrast"), noise=0.02)
    raw, where = planted_box(plant, Preprocessing(), clean, clean.info.box, (3,))
    objective = ArtifactsObjective(presume_clean=True, plant=plant)
    starts = Lattice((1, 40, 40), (1, 40, 40)).starts(Box.whole((15, 6, 6)))
    seen = [where.array[z, y : y + 40, x : x + 40] for z, y, x in starts.tolist()]
    said = np.array([[objective.with_planted(0, w == DAMAGED, w == MOVED)] for w in seen], np.int8)
    labels = PatchLabels(Grid(size), (1, 40, 40), starts, ("artifact",), said)
    parts = {"train": range(6), "val": range(7, 10), "test": range(11, 15)}
    job = ArtifactBaselinesJob(
        raw=write(tmp_path / "raw.zarr", raw.array, raw.info.grid),
        labels=folder_of(tmp_path / "splits", labels, parts),
        output=str(tmp_path / "out"),
        model=write_model(tmp_path / "model.safetensors", voxel_size_nm=size),
        baselines=FEW[::2],
        bootstrap={"resamples": 20},
    )
    found = compare_baselines(job)
    areas = {each.name: each.intervals["roc_auc"].value for each in found.results}
    # What the bank of a net that learned nothing says is measured elsewhere: faint tissue is near to everything.
    assert areas["linear probe of pixels"] > 0.75
    yes, no = found.parts.counts(2)
    assert min(yes, no) > 50
