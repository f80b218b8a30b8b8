"""`emloom artifacts`: labels go from form to form, are split without leaks and compared; detectors are scored."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from emloom.geometry import Box, Grid
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels
from emloom.io.nml import read_nml_tracing
from emloom.io.open import create_volume
from emloom.io.patchjson import read_sources
from emloom.io.patchopen import open_patches
from emloom.io.patchtables import read_patches, write_patches
from emloom.io.volume import VolumeInfo
from tests.cli.test_cli import emloom
from tests.geometry.patchmaking import assert_same

GRID = Grid((35, 32, 32))
REAL = ("--patch", "1,140,140", "--voxel-size", "35,32,32")


def labels_on_lattice(seed: int = 0, annotator: str = "A") -> PatchLabels:
    lattice = Lattice((1, 20, 20), (4, 10, 10))
    starts = lattice.starts(Box.whole((8, 24, 24)))
    words = (np.random.default_rng(seed).random(len(starts)) < 0.2).astype(np.int8)[:, None]
    return PatchLabels(GRID, lattice.shape, starts, ("debris",), words, (annotator,))


def test_labels_go_from_form_to_form(capsys, tmp_path: Path) -> None:
    labels = labels_on_lattice()
    write_patches(tmp_path / "a.csv", labels)
    for before, after in (("a.csv", "b.json"), ("b.json", "c.nml"), ("c.nml", "d.csv")):
        code, text, _ = emloom(
            capsys, "artifacts", "labels", "convert", str(tmp_path / before), "-o", str(tmp_path / after)
        )
        assert (code, text) == (0, f"{tmp_path / after}: {text.partition(': ')[2]}")
        assert f"{len(labels)} patches" in text
    box = read_patches(tmp_path / "d.csv")
    order = np.lexsort(box.starts.T[::-1])
    assert np.array_equal(box.starts[order], labels.starts)
    assert np.array_equal(box.labels[order], labels.labels)


@pytest.mark.real_data
def test_labels_become_a_data_source_of_genem3_and_come_back(capsys, tmp_path: Path, real_data: Path) -> None:
    nodes = real_data / "artifacts" / "genEM3_annotations" / "artefact_trainingData.nml"
    out = tmp_path / "sources.json"
    words = ("artifacts", "labels", "convert", str(nodes), "--patch", "1,140,140", "--image", "color/1")
    assert emloom(capsys, *words, "-o", str(out))[0] == 0
    assert len(read_sources(out)) == 600
    code, _, _ = emloom(
        capsys, "artifacts", "labels", "convert", str(out), *REAL, "-o", str(tmp_path / "back.csv")
    )
    assert code == 0
    back = read_patches(tmp_path / "back.csv")
    assert len(back) == 600
    assert (back.labels == 1).all()


def test_a_volume_of_labels_becomes_patches(capsys, tmp_path: Path) -> None:
    ids = np.zeros((2, 40, 40), np.uint8)
    ids[0, :15, :] = 3
    info = VolumeInfo(ids.shape, ids.dtype, GRID, kind="labels")
    create_volume(tmp_path / "folds.zarr", info).write(info.box, ids)
    path = str(tmp_path / "folds.zarr")
    words = ("artifacts", "labels", "convert", path, "--patch", "1,20,20", "--class", "fold=3", "--least", "0.5")
    assert emloom(capsys, *words, "-o", str(tmp_path / "a.csv"))[0] == 0
    assert read_patches(tmp_path / "a.csv").labels[:, 0].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    code, _, error = emloom(capsys, "artifacts", "labels", "convert", path, "-o", str(tmp_path / "b.csv"))
    assert code == 2
    assert "--class artifact=1,2" in error


def test_splits_do_not_leak_and_random_ones_do(capsys, tmp_path: Path) -> None:
    labels = labels_on_lattice()
    write_patches(tmp_path / "a.csv", labels)
    words = ("artifacts", "labels", "split", str(tmp_path / "a.csv"), "--block", "40,80,80")
    code, text, _ = emloom(capsys, *words, "-o", str(tmp_path / "s"), "--json")
    counts = json.loads(text)
    assert code == 0
    assert sum(each["patches"] for each in counts.values()) == len(labels)
    assert min(counts[name]["positive"] for name in ("train", "val", "test")) > 0
    parts = [str(tmp_path / "s" / f"{name}.csv") for name in ("train", "val", "test")]
    code, text, _ = emloom(capsys, "artifacts", "labels", "leaks", *parts, "--iou", "0.001", "--sections", "5")
    assert code == 0
    assert "val: 0 of" in text
    half = np.random.default_rng(1).random(len(labels)) < 0.8
    for name, rows in (("x", half), ("y", ~half)):
        write_patches(tmp_path / f"{name}.csv", labels.taken(rows))
    pairs = tmp_path / "pairs.csv"
    names = (str(tmp_path / "x.csv"), str(tmp_path / "y.csv"))
    code, text, _ = emloom(capsys, "artifacts", "labels", "leaks", *names, "-o", str(pairs), "--json")
    summary = json.loads(text)
    assert code == 1
    assert summary["tables"]["y"]["leaking"] == summary["tables"]["y"]["patches"] == int((~half).sum())
    assert len(pairs.read_text().splitlines()) == summary["pairs"] + 1


def test_tables_and_annotators_are_compared(capsys, tmp_path: Path) -> None:
    first = labels_on_lattice()
    words = first.labels.copy()
    words[:7] = 1 - words[:7]
    second = replace(first, labels=words, annotators=("B",))
    for name, part in (("a", first), ("b", second)):
        write_patches(tmp_path / f"{name}.csv", part)
    both = (str(tmp_path / "a.csv"), str(tmp_path / "b.csv"))
    out = tmp_path / "d.csv"
    code, text, _ = emloom(capsys, "artifacts", "labels", "compare", *both, "-o", str(out), "--json")
    assert code == 0
    assert json.loads(text)[0]["n_disagreements"] == 7
    assert len(out.read_text().splitlines()) == 8
    code, text, _ = emloom(capsys, "artifacts", "labels", "compare", *both)
    assert f"7 of {len(first)} differ; kappa" in text
    code, _, error = emloom(capsys, "artifacts", "labels", "compare", both[0])
    assert code == 2
    assert "two annotators judged" in error


@pytest.mark.real_data
def test_the_originals_are_scored(capsys, tmp_path: Path, real_data: Path) -> None:
    table = str(real_data / "artifacts" / "genEM3_annotations" / "patch_test_data.csv")
    words = ("artifacts", "evaluate", table, table, *REAL, "-o", str(tmp_path / "s"), "--threshold", "0.5")
    code, text, _ = emloom(capsys, *words, "--json")
    assert code == 0
    row = json.loads(text)["rows"][0]
    assert (row["n_true_positive"], row["n_false_positive"]) == (33, 460)
    assert (tmp_path / "s" / "report.html").exists()
    code, _, error = emloom(capsys, "artifacts", "evaluate", table, table, "-o", str(tmp_path / "t"))
    assert code == 2
    assert "--voxel-size 35,32,32" in error
    labels = open_patches(real_data / "artifacts" / "genEM3_boxes" / "test_bottom.nml")
    write_patches(tmp_path / "bottom.csv", labels)
    assert_same(read_patches(tmp_path / "bottom.csv"), labels)


def test_a_blank_box_opens_over_its_data_set(capsys, tmp_path: Path) -> None:
    out = tmp_path / "box.nml"
    code, text, _ = emloom(
        capsys, "artifacts", "labels", "blank", "--box", "5603:5660,24926:25206,29022:29302",
        "--patch", "1,140,140", "--stride", "1,35,35", "--voxel-size", "35,32,32",
        "--data-set", "ms109_mag8", "-o", str(out),
    )  # fmt: skip
    assert code == 0
    assert "1425 patches: 0 artifact, 1425 unsure" in text
    tracing = read_nml_tracing(out)
    experiment = tracing.parameter("experiment")
    assert experiment is not None
    assert experiment.get("name") == "ms109_mag8"
    assert [named.box for named in tracing.boxes] == [Box((5603, 24926, 29022), (57, 280, 280))]
    assert set(tracing.radii_nm.tolist()) == {100.0}
    assert tracing.skeletons.names[0] == "patch00.00:X"
    code, _, error = emloom(
        capsys, "artifacts", "labels", "blank", "--box", "0:1,0:9,0:9", "--patch", "1,10,10",
        "--voxel-size", "1,1,1", "-o", str(out),
    )  # fmt: skip
    assert code == 2
    assert "give a larger box" in error


def test_several_tables_become_one_that_knows_which_was_which(capsys, tmp_path: Path) -> None:
    labels = labels_on_lattice()
    top, bottom = labels.starts[:, 0] < 16, labels.starts[:, 0] >= 16
    for name, rows in (("top", top), ("bottom", bottom)):
        write_patches(tmp_path / f"{name}.csv", labels.taken(rows))
    paths = [str(tmp_path / "top.csv"), str(tmp_path / "bottom.csv")]
    assert emloom(capsys, "artifacts", "labels", "convert", *paths, "-o", str(tmp_path / "all.csv"))[0] == 0
    both = read_patches(tmp_path / "all.csv")
    assert_same(replace(both, columns={}), labels)
    assert both.columns["box"].tolist() == ["top"] * int(top.sum()) + ["bottom"] * int(bottom.sum())
