"""Several evaluations in one table: the same truth, the same voxels, the best of each score named."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo
from emloom.tasks.classscoring import evaluate_classes
from emloom.tasks.classspec import BootstrapSpec, ClassesSpec, ClassSpec
from emloom.tasks.comparing import compare
from emloom.tasks.scorespec import EvaluateSpec
from emloom.tasks.scoring import evaluate

SHAPE = (6, 20, 20)


def write(path: Path, ids) -> str:
    create_volume(path, VolumeInfo(ids.shape, ids.dtype, Grid((8, 8, 8)), kind="labels")).write(
        VolumeInfo(ids.shape, ids.dtype, Grid((8, 8, 8))).box, ids
    )
    return str(path)


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """A segmentation that splits and one that merges, scored with different metrics."""
    truth = np.ones(SHAPE, np.uint64)
    truth[:, 10:] = 2
    split = truth.copy()
    split[:3, :10] = 3
    target = write(tmp_path / "truth.zarr", truth)
    for name, ids, metrics in (("split", split, ("voi", "nvi")), ("merge", np.ones_like(truth), ("voi",))):
        spec = EvaluateSpec(
            segmentation=write(tmp_path / f"{name}.zarr", ids),
            truth=target,
            output=str(tmp_path / "scores" / name),
            metrics=metrics,
        )
        evaluate(spec)
    return [str(tmp_path / "scores" / name) for name in ("split", "merge")]


def test_scores_stand_side_by_side_and_the_best_is_named(two: list[str], tmp_path: Path) -> None:
    page = compare(two, str(tmp_path / "both")).read_text()
    with (tmp_path / "both" / "compare.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["result"] for row in rows] == ["split", "merge"]
    assert (float(rows[0]["voi_split"]), float(rows[1]["voi_merge"])) == (0.5, 1.0)
    assert rows[1]["nvi"] in ("", "nan")
    assert "split against merge" in page
    assert page.count("data:image/png;base64,") == 1
    assert "split 0.500, merge 0.000 bits; merge: split 0.000, merge 1.000 bits" in page


def test_classes_are_compared_as_well(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, SHAPE).astype(np.uint8)
    target = write(tmp_path / "classes.zarr", truth)
    for name, errors in (("few", 0.1), ("many", 0.6)):
        found = np.where(rng.random(SHAPE) < errors, rng.integers(0, 3, SHAPE), truth).astype(np.uint8)
        spec = ClassSpec(
            predicted=write(tmp_path / f"{name}.zarr", found),
            truth=target,
            output=str(tmp_path / name),
            classes=ClassesSpec(n=3),
            bootstrap=BootstrapSpec(resamples=0),
        )
        evaluate_classes(spec)
    page = compare([str(tmp_path / "few"), str(tmp_path / "many")], str(tmp_path / "both")).read_text()
    with (tmp_path / "both" / "compare.csv").open() as stream:
        few, many = csv.DictReader(stream)
    assert float(few["f1_macro"]) > float(many["f1_macro"])
    assert "F1, macro" in page


def test_folders_of_one_name_are_told_apart(two: list[str], tmp_path: Path) -> None:
    other = tmp_path / "again" / "split"
    other.parent.mkdir()
    Path(two[1]).rename(other)
    compare([two[0], str(other)], str(tmp_path / "both"))
    with (tmp_path / "both" / "compare.csv").open() as stream:
        assert [row["result"] for row in csv.DictReader(stream)] == ["scores/split", "again/split"]


def test_what_cannot_be_compared_is_refused(two: list[str], tmp_path: Path) -> None:
    out = str(tmp_path / "both")
    with pytest.raises(InputError, match="give two folders"):
        compare(two[:1], out)
    with pytest.raises(InputError, match="is given twice"):
        compare([two[0], two[0]], out)
    with pytest.raises(InputError, match="holds no scores"):
        compare([two[0], str(tmp_path)], out)
    ids = np.ones(SHAPE, np.uint64)
    spec = EvaluateSpec(
        segmentation=str(tmp_path / "merge.zarr"),
        truth=write(tmp_path / "t2.zarr", ids),
        output=str(tmp_path / "x"),
    )
    evaluate(spec)
    with pytest.raises(InputError, match="not the same or has changed"):
        compare([two[0], str(tmp_path / "x")], out)
    mask = np.ones(SHAPE, np.uint8)
    mask[0] = 0
    info = VolumeInfo(SHAPE, mask.dtype, Grid((8, 8, 8)), kind="mask")
    create_volume(tmp_path / "mask.zarr", info).write(info.box, mask)
    evaluate(spec.model_copy(update={"truth": str(tmp_path / "truth.zarr"), "mask": str(tmp_path / "mask.zarr")}))
    with pytest.raises(InputError, match=r"counts 2400 voxels, .* 2000"):
        compare([two[0], str(tmp_path / "x")], out)
    assert not Path(out).exists()
