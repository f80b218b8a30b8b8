"""Classes of volumes: the same numbers in blocks as at once, intervals that repeat, errors before any count."""

from __future__ import annotations

import csv
import json
import pickle
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo
from emloom.metrics.book import METRICS
from emloom.metrics.bootstrap import bootstrap
from emloom.metrics.calibration import calibration, top_label
from emloom.metrics.classbook import CLASS_METRICS, ClassEvidence, class_metrics_named
from emloom.metrics.classify import confusion, confusion_scores
from emloom.metrics.counts import add
from emloom.metrics.interfaces import Near, band_confusions, boundary_table
from emloom.metrics.ranking import quantised, ranking
from emloom.ops.enclosure import EnclosureRule, enclosure_faces, resolve, violation_rate
from emloom.run.blockjournal import ROOT
from emloom.run.runner import BlocksFailedError
from emloom.tasks.classplaces import WORST
from emloom.tasks.classreport import write_class_report
from emloom.tasks.classscoring import evaluate_classes, judged_of
from emloom.tasks.classspec import BootstrapSpec, ClassesSpec, ClassSpec, NearSpec, ReadingSpec
from emloom.tasks.classtable import CountClasses
from emloom.view.report import show

SHAPE = (7, 18, 20)
GRID = Grid((40.0, 8.0, 8.0))
EVERY = tuple(CLASS_METRICS)
OF_CLASSES = tuple(name for name, metric in CLASS_METRICS.items() if metric.needs != "scores")
QUICK = BootstrapSpec(resamples=20, block_vox=(3, 9, 10))


def write(path: Path, array, kind=None, grid=GRID) -> str:
    channels = array.shape[0] if array.ndim == 4 else None
    info = VolumeInfo(array.shape[-3:], array.dtype, grid, channels, (4, 8, 8), kind)
    create_volume(path, info).write(info.box, array)
    return str(path)


def tissue(seed: int, n: int = 3):
    """Return true classes with ignored voxels, and probabilities [C, Z, Y, X] that tell something about them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, n, (4, 3, 4))
    truth = np.kron(coarse, np.ones((2, 6, 5), int))[tuple(slice(k) for k in SHAPE)].astype(np.uint8)
    scores = rng.random((n, *SHAPE)) + 0.8 * (np.arange(n)[:, None, None, None] == truth)
    truth[rng.random(SHAPE) < 0.1] = 255
    return truth, (scores / scores.sum(axis=0)).astype(np.float32)


def spec_of(folder: Path, truth, predicted, **more) -> ClassSpec:
    folder.mkdir(exist_ok=True)
    paths = {"truth": write(folder / "t.zarr", truth), "predicted": write(folder / "p.zarr", predicted)}
    given = {"output": str(folder / "out"), "metrics": EVERY, "near": NearSpec(distance_nm=17), "bootstrap": QUICK}
    return ClassSpec(**{**paths, **given, **more})


def at_once(truth, probabilities, usable, near: Near) -> ClassEvidence:
    """The evidence of whole arrays of probabilities, [C, Z, Y, X], ranked exactly."""
    n = len(probabilities)
    called = probabilities.argmax(axis=0)
    levels = quantised(probabilities, np.uint16) / 65535
    sure, right = top_label(probabilities, truth, mask=usable)
    return ClassEvidence(
        confusion=confusion(truth, called, n, mask=usable),
        band=band_confusions(truth, called, n, near, mask=usable),
        boundary=boundary_table(truth, called, n, near, mask=usable),
        rankings={c: ranking(levels[c], truth, positive=c, mask=usable) for c in range(n)},
        top=ranking(quantised(sure, np.uint16) / 65535, right),
    )


@given(
    seed=st.integers(0, 10**6),
    cell=st.tuples(st.integers(1, 8), st.integers(5, 20), st.integers(5, 20)),
    by=st.sampled_from(["block", "section"]),
    distance=st.sampled_from([8.0, 17.0, 60.0]),
    in_plane=st.booleans(),
)
@settings(max_examples=6, phases=[Phase.generate], deadline=None)
def test_blocks_of_any_shape_score_what_the_whole_scores(
    tmp_path_factory, seed, cell, by, distance, in_plane
) -> None:
    folder = tmp_path_factory.mktemp("blocks")
    truth, probabilities = tissue(seed)
    usable = np.random.default_rng(seed).random(SHAPE) < 0.9
    probabilities[:, ~usable] = np.nan  # what was predicted where nothing counts matters to nothing
    spec = spec_of(
        folder,
        truth,
        probabilities,
        mask=write(folder / "m.zarr", usable.astype(np.uint8)),
        near=NearSpec(distance_nm=distance, in_plane=in_plane),
        bootstrap=BootstrapSpec(by=by, block_vox=cell, resamples=3),
    )
    found = evaluate_classes(spec)
    plain = np.where(usable, probabilities, np.float32(0))
    expected = at_once(truth, plain, usable, Near(distance, GRID.voxel_size_nm, in_plane))
    assert found.evidence == expected
    for metric in class_metrics_named(EVERY):
        for key, value in metric.of(expected).items():
            assert found.row[key] == value or np.isnan([found.row[key], value]).all()
    assert found.row["part_counted"] == np.count_nonzero(usable & (truth != 255)) / truth.size


def test_classes_and_their_probabilities_score_alike(tmp_path: Path) -> None:
    truth, probabilities = tissue(1)
    of_probabilities = evaluate_classes(spec_of(tmp_path / "a", truth, probabilities, metrics=OF_CLASSES))
    called = probabilities.argmax(axis=0).astype(np.uint16)
    spec = spec_of(tmp_path / "b", truth, called, metrics=OF_CLASSES, classes=ClassesSpec(n=3))
    of_classes = evaluate_classes(spec)
    assert of_classes.evidence == of_probabilities.evidence
    assert of_classes.intervals == of_probabilities.intervals


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_one_channel_is_the_probability_of_class_1(tmp_path: Path, dtype) -> None:
    truth, probabilities = tissue(2, n=2)
    one = probabilities[1]
    if np.dtype(dtype).kind == "u":
        one = quantised(one, dtype)
    reading = ReadingSpec(values="probabilities", threshold=0.6)
    spec = spec_of(tmp_path, truth, one, reading=reading, metrics=("confusion", "ap", "roc", "calibration"))
    found = evaluate_classes(spec)
    steps = 65535 if dtype is np.float32 else np.iinfo(dtype).max
    levels = (one if np.dtype(dtype).kind == "u" else quantised(one, np.uint16)) / steps
    exact = ranking(levels, truth)
    assert found.evidence.rankings == {1: exact}
    assert found.evidence.confusion == confusion(truth, (levels >= 0.6).astype(np.uint8), 2)
    applied = found.points[0]
    assert (applied["rule"], applied["threshold"]) == ("applied", 0.6)
    assert applied["n_false_positive"] == found.evidence.confusion.counts[0, 1]
    assert found.row["ece"] == calibration(exact).ece
    best = found.points[1]
    everywhere = [
        confusion_scores(confusion(truth, (levels >= t).astype(np.uint8), 2)).classes[1].f1
        for t in exact.scores[:: max(1, len(exact.scores) // 60)]
    ]
    assert best["f1"] >= max(everywhere)


def test_scores_agree_with_an_independent_library(tmp_path: Path) -> None:
    judge = pytest.importorskip("sklearn.metrics")
    truth, probabilities = tissue(3)
    found = evaluate_classes(spec_of(tmp_path, truth, quantised(probabilities, np.uint8)))
    known = truth != 255
    scores = quantised(probabilities, np.uint8)[:, known].T / 255
    hits = np.eye(3, dtype=int)[truth[known]]
    called = scores.argmax(axis=1)
    theirs = {
        "f1_macro": judge.f1_score(truth[known], called, average="macro"),
        "iou_macro": judge.jaccard_score(truth[known], called, average="macro"),
        "kappa": judge.cohen_kappa_score(truth[known], called),
        "average_precision": judge.average_precision_score(hits, scores, average="macro"),
        "roc_auc": judge.roc_auc_score(hits, scores, average="macro"),
        "brier": ((scores - hits) ** 2).sum(axis=1).mean(),
    }
    assert {key: found.row[key] for key in theirs} == pytest.approx(theirs, rel=1e-12)


def test_intervals_are_those_of_the_bootstrap_over_sections_and_repeat(tmp_path: Path) -> None:
    truth, probabilities = tissue(4)
    how = BootstrapSpec(by="section", resamples=50, seed=7, block_vox=(2, 9, 10))
    spec = spec_of(tmp_path, truth, probabilities, bootstrap=how)
    found = evaluate_classes(spec)
    called = probabilities.argmax(axis=0)
    tables = [confusion(truth[z], called[z], 3) for z in range(len(truth))]
    rng = np.random.default_rng(7)
    expected = bootstrap(tables, lambda t: confusion_scores(t).macro.f1, add, rng, resamples=50)
    assert found.intervals["f1_macro"] == expected
    assert set(found.intervals) == {v.key for m in found.metrics for v in m.values}
    assert evaluate_classes(spec).intervals == found.intervals
    other = spec.model_copy(update={"bootstrap": how.model_copy(update={"seed": 8})})
    assert evaluate_classes(other).intervals["f1_macro"].low != expected.low
    said = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert said["bootstrap"]["seed"] == 8
    assert said["bootstrap"]["units"] == len(truth)


def test_a_block_in_which_nothing_counts_is_not_drawn(tmp_path: Path) -> None:
    truth, probabilities = tissue(5)
    truth[:3] = 255
    found = evaluate_classes(spec_of(tmp_path, truth, probabilities))
    assert found.units == 2 * 2 * 2
    assert all(interval.n_blocks == 8 for interval in found.intervals.values())


def test_a_crop_is_compared_with_its_part_of_the_truth(tmp_path: Path) -> None:
    truth, probabilities = tissue(6)
    box = Box((2, 4, 5), (4, 9, 11))
    spec = spec_of(tmp_path, truth, probabilities, metrics=("confusion",))
    called = probabilities.argmax(axis=0).astype(np.uint8)[box.slices()]
    part = write(tmp_path / "part.zarr", called, grid=GRID.crop(box))
    spec = spec.model_copy(update={"predicted": part, "classes": ClassesSpec(n=3)})
    assert evaluate_classes(spec).evidence.confusion == confusion(truth[box.slices()], called, 3)


def test_counts_are_kept_for_the_same_question_and_made_again_for_another(tmp_path: Path) -> None:
    truth, probabilities = tissue(7)
    spec = spec_of(tmp_path, truth, probabilities)
    first = evaluate_classes(spec)
    files = sorted((tmp_path / "out" / "classes").iterdir())
    before = [path.stat().st_mtime_ns for path in files]
    assert evaluate_classes(spec).row == first.row
    assert [path.stat().st_mtime_ns for path in files] == before
    wider = evaluate_classes(spec.model_copy(update={"near": NearSpec(distance_nm=50)}))
    assert wider.row["accuracy"] == first.row["accuracy"]
    assert wider.row["boundary_f1"] > first.row["boundary_f1"]
    assert len(list((tmp_path / "out" / ROOT / "classes").iterdir())) == 1


def test_every_value_stands_in_the_files_and_on_the_page(tmp_path: Path) -> None:
    truth, probabilities = tissue(8)
    names = ("cytosol", "mito", "<membrane>")
    reading = ReadingSpec(recall=0.8, prevalence=0.01)
    spec = spec_of(tmp_path, truth, probabilities, classes=ClassesSpec(names=names), reading=reading)
    found = evaluate_classes(spec)
    page = write_class_report(spec, found).read_text()
    for metric in found.metrics:
        assert metric.name in page
        for value in metric.values:
            interval = found.intervals[value.key]
            assert all(show(v) in page for v in (found.row[value.key], interval.low, interval.high))
            assert value.title in unescape(page)
    assert page.count("data:image/png;base64,") == 3 + WORST
    assert "&lt;membrane&gt;" in page
    assert "<membrane>" not in page
    assert "seed 0" in page
    out = tmp_path / "out"
    said = json.loads((out / "scores.json").read_text())
    assert said["rows"] == [found.row]
    assert said["confusion"] == found.evidence.confusion.counts.tolist()
    with (out / "classes.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["name"], float(row["f1"])) for row in rows] == [(row["name"], row["f1"]) for row in found.classes]
    with (out / "curves.csv").open() as stream:
        drawn = list(csv.DictReader(stream))
    for label, each in found.evidence.rankings.items():
        assert [float(row["threshold"]) for row in drawn if row["class"] == str(label)] == each.scores.tolist()


@pytest.mark.parametrize("cell", [(3, 9, 10), (7, 18, 20), (1, 5, 20)])
def test_enclosure_counts_every_face_once_and_has_intervals(tmp_path: Path, cell) -> None:
    truth, probabilities = tissue(12, n=4)
    probabilities[:, 3, 4:8, :6] = 0  # not predicted there
    usable = np.random.default_rng(1).random(SHAPE) < 0.9
    names = ("a", "b", "c", "d")
    rules = (EnclosureRule(inside="c", wall="d"), EnclosureRule(inside="a", wall="b", allowed=("d",)))
    spec = spec_of(
        tmp_path,
        truth,
        probabilities,
        metrics=("f1", "enclosure"),
        mask=write(tmp_path / "m.zarr", usable.astype(np.uint8)),
        classes=ClassesSpec(names=names, enclosed=rules),
        bootstrap=BootstrapSpec(block_vox=cell, resamples=20),
    )
    found = evaluate_classes(spec)
    called = np.where(usable & probabilities.any(axis=0), probabilities.argmax(axis=0), 255).astype(np.uint8)
    known = np.where(usable, truth, 255).astype(np.uint8)
    for rule in resolve(rules, names, GRID.voxel_size_nm):
        for array, key in ((called, ""), (known, "_truth")):
            rate = violation_rate(enclosure_faces(array, rule), GRID.voxel_size_nm)
            key = f"enclosure_violation_{rule.name}{key}"
            assert 0.1 < rate < 1
            assert found.row[key] == rate
            interval = found.intervals[key]
            assert found.units == 1 or interval.low <= rate <= interval.high
    assert "surface of c that touches what it must not, truth" in write_class_report(spec, found).read_text()
    plain = spec.model_copy(
        update={"metrics": ("f1",), "output": str(tmp_path / "f"), "classes": ClassesSpec(n=4)}
    )
    assert evaluate_classes(plain).row["f1_macro"] == found.row["f1_macro"]


def test_enclosure_and_its_rules_go_together(tmp_path: Path) -> None:
    truth, probabilities = tissue(12)
    names, rule = ("a", "b", "c"), EnclosureRule(inside="c", wall="wall")
    for metrics, classes, words in (
        (("f1",), ClassesSpec(names=names, enclosed=(EnclosureRule(inside="c", wall="b"),)), "go together"),
        (("enclosure",), ClassesSpec(names=names), "go together"),
        (("enclosure",), ClassesSpec(names=names, enclosed=(rule,)), "'wall' is no class"),
    ):
        folder = tmp_path / f"{metrics[0]} {words}"
        spec = spec_of(folder, truth, probabilities, metrics=metrics, classes=classes)
        with pytest.raises(InputError, match=words):
            evaluate_classes(spec)
    with pytest.raises(InputError, match="give the names of all"):
        ClassesSpec.from_dict({"enclosed": [{"inside": "a", "wall": "b"}]})
    nothing = np.zeros(SHAPE, np.uint8)
    spec = spec_of(
        tmp_path,
        nothing,
        nothing,
        metrics=("enclosure",),
        classes=ClassesSpec(names=names, enclosed=(EnclosureRule(inside="c", wall="b"),)),
    )
    assert "no surface" in evaluate_classes(spec).undefined["enclosure"]


def test_what_is_not_defined_is_null_in_json_and_says_why_on_the_page(tmp_path: Path) -> None:
    truth = np.zeros(SHAPE, np.uint8)
    spec = spec_of(tmp_path, truth, np.full(SHAPE, 0.1, np.float32), bootstrap=BootstrapSpec(resamples=5))
    found = evaluate_classes(spec)
    said = json.loads((tmp_path / "out" / "scores.json").read_text())
    for key in ("average_precision", "roc_auc", "kappa", "boundary_f1", "accuracy_near"):
        assert said["rows"][0][key] is None
    assert set(said["undefined"]) == {"kappa", "boundary", "band", "ap", "roc"}
    assert said["intervals"]["accuracy"]["low"] is None
    page = write_class_report(spec, found).read_text()
    for name, why in found.undefined.items():
        assert f"{name} is not defined here: {why}" in page
    assert "one block says nothing" in page.lower()


def test_bad_input_is_named_before_anything_is_counted(tmp_path: Path) -> None:
    truth, probabilities = tissue(9)
    spec = spec_of(tmp_path, truth, probabilities)
    ids = write(tmp_path / "ids.zarr", truth % np.uint8(3))
    other_grid = write(tmp_path / "grid.zarr", probabilities, grid=Grid((40.0, 4.0, 4.0)))
    wide = write(tmp_path / "wide.zarr", probabilities.astype(np.float32), kind="lsds")
    signed = write(tmp_path / "signed.zarr", truth.astype(np.int32)[None])
    refused = {
        r"no metric 'kapa'; did you mean 'kappa'": {"metrics": ("kapa",)},
        "no metric is asked for": {"metrics": ()},
        "voi is a metric of segments": {"metrics": ("voi",)},
        r"boundary, band are about what is near an interface: say how near": {"near": None},
        "does not say how many classes": {"predicted": ids, "metrics": ("f1",)},
        "ap, roc, calibration are read from probabilities": {"predicted": ids, "classes": ClassesSpec(n=3)},
        "has 3 channels, which is 3 classes, not 4": {"classes": ClassesSpec(n=4)},
        "not on the voxel grid": {"predicted": other_grid},
        "holds lsds": {"predicted": wide},
        "stores int32: probabilities are": {"predicted": signed},
        "the truth .* is zyx of float32|the truth .* is czyx": {"truth": spec.predicted},
        r"classes.averaged \(1, 3\)": {"classes": ClassesSpec(averaged=(1, 3))},
        "has 3 channels: a mask is zyx": {"mask": spec.predicted},
        "has 3 channels: a raw volume is zyx": {"raw": spec.predicted},
        "is not on the voxel grid": {"raw": other_grid},
    }
    for message, change in refused.items():
        with pytest.raises(InputError, match=message):
            evaluate_classes(spec.model_copy(update=change))
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="3 classes have 2 names"):
        ClassesSpec.from_dict({"n": 3, "names": ["a", "b"]})


def test_values_that_are_no_class_or_no_probability_are_named(tmp_path: Path) -> None:
    truth, probabilities = tissue(10)
    with pytest.raises(InputError, match="there is no voxel to score"):
        evaluate_classes(spec_of(tmp_path / "a", np.full_like(truth, 255), probabilities))
    logits = probabilities * 9 - 4
    with pytest.raises(BlocksFailedError, match="no probabilities"):
        evaluate_classes(spec_of(tmp_path / "b", truth, logits))
    called = np.full(SHAPE, 9, np.uint8)
    with pytest.raises(BlocksFailedError, match="the prediction holds class 9"):
        evaluate_classes(spec_of(tmp_path / "c", truth, called, metrics=("f1",), classes=ClassesSpec(n=3)))


def test_the_work_of_a_block_travels(tmp_path: Path) -> None:
    truth, probabilities = tissue(11)
    spec = spec_of(tmp_path, truth, probabilities)
    work = CountClasses(judged_of(spec, class_metrics_named(EVERY)), tmp_path)
    assert pickle.loads(pickle.dumps(work)) == work


def test_names_of_class_metrics_are_those_of_no_other_metric() -> None:
    assert not set(CLASS_METRICS) & set(METRICS)
    keys = [value.key for metric in CLASS_METRICS.values() for value in metric.values]
    assert len(set(keys)) == len(keys)
    assert not set(keys) & {value.key for metric in METRICS.values() for value in metric.values}
