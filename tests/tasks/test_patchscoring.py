"""An evaluation of patches: the stored figures of genEM3, and every number of a made-up detector, counted anew."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn import metrics as sk

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels, joined
from emloom.io.evaluationboxes import write_evaluation_box
from emloom.io.open import create_volume
from emloom.io.patchtables import write_patches
from emloom.io.volume import VolumeInfo
from emloom.metrics.recalibrate import fit_platt
from emloom.ops.logits import decode_probabilities, encode_probabilities
from emloom.tasks.patchevaluation import PatchEvaluation
from emloom.tasks.patchreport import write_patch_report
from emloom.tasks.patchscoring import evaluate_patches, raw_start
from emloom.tasks.patchspec import PatchSpec

GRID = Grid((35, 32, 32))
LATTICE = Lattice((1, 8, 8), (1, 4, 4), (2, 3, 5))
SHAPE = (12, 5, 6)


def write_volume(path: Path, array: np.ndarray, grid: Grid) -> str:
    info = VolumeInfo(array.shape, array.dtype, grid)
    create_volume(path, info).write(info.box, array)
    return str(path)


def made_up(folder: Path, seed: int) -> tuple[str, str, PatchLabels, np.ndarray]:
    """Return the paths of a map and of labels by two annotators, their consensus, and the map."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(SHAPE) < 0.15).astype(np.int8)
    logits = 2.5 * truth - 1 + 1.5 * rng.normal(size=SHAPE)
    scores = expit(logits).astype(np.float32)
    starts = LATTICE.starts(Box.whole(SHAPE))
    myelin = rng.integers(0, 2, truth.size).astype(np.int8)
    first = PatchLabels(
        GRID,
        LATTICE.shape,
        starts,
        ("debris", "myelin"),
        np.column_stack([truth.reshape(-1), myelin]),
        ("Ada",),
        columns={"tissue": rng.choice(["soma", "neuropil"], truth.size)},
    )
    flipped = np.where(rng.random(truth.size) < 0.05, 1 - truth.reshape(-1), truth.reshape(-1)).astype(np.int8)
    second = replace(first, labels=np.column_stack([flipped, myelin]), annotators=("Bea",))
    both = joined([first, second])
    folder.mkdir()
    write_patches(folder / "labels.csv", both)
    path = write_volume(folder / "map.zarr", scores, LATTICE.map_grid(GRID))
    return path, str(folder / "labels.csv"), both.consensus(), scores


@pytest.fixture(scope="module")
def judged_by_all(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[PatchSpec, PatchEvaluation, PatchLabels, np.ndarray]:
    folder = tmp_path_factory.mktemp("patches")
    found, truth, labels, scores = made_up(folder / "test", 1)
    val_found, val_truth, _, _ = made_up(folder / "val", 2)
    raw = write_volume(
        folder / "raw.zarr", np.random.default_rng(0).integers(0, 255, (14, 40, 40)).astype(np.uint8), GRID
    )
    spec = PatchSpec(
        found=found,
        truth=truth,
        output=str(folder / "scores"),
        validation={"found": val_found, "truth": val_truth},
        prevalence=0.02,
        raw=raw,
        bootstrap={"resamples": 50},
    )
    return spec, evaluate_patches(spec), labels, scores


def test_scores_are_those_of_scikit_learn(judged_by_all) -> None:
    _, found, labels, scores = judged_by_all
    y, s = labels.of("debris"), scores.reshape(-1).astype(np.float64)
    known = y >= 0
    assert found.ranked.average_precision == pytest.approx(sk.average_precision_score(y[known], s[known]))
    assert found.ranked.roc_auc == pytest.approx(sk.roc_auc_score(y[known], s[known]))
    point = found.applied
    called = s[known] >= point["threshold"]
    assert point["precision"] == pytest.approx(sk.precision_score(y[known], called))
    assert point["recall"] == pytest.approx(sk.recall_score(y[known], called))
    fpr = called[y[known] == 0].mean()
    assert point["precision_at_prevalence"] == pytest.approx(
        0.02 * point["recall"] / (0.02 * point["recall"] + 0.98 * fpr)
    )
    covered = np.zeros((SHAPE[0], 100, 100), np.bool_)
    for z, y0, x0 in labels.starts[known].tolist():
        covered[z - 2, y0 : y0 + 8, x0 : x0 + 8] = True
    area = covered.sum() * 32 * 32 * 1e-12
    assert point["false_positives_per_mm2"] == pytest.approx(point["n_false_positive"] / area)
    assert point["false_positives_per_section"] == point["n_false_positive"] / SHAPE[0]


def test_the_threshold_and_the_calibration_come_from_validation_data(judged_by_all, tmp_path: Path) -> None:
    spec, found, labels, scores = judged_by_all
    _, _, val_labels, val_scores = made_up(tmp_path / "val", 2)
    y, s = val_labels.of("debris"), val_scores.reshape(-1).astype(np.float64)
    positives = np.sort(s[y == 1])[::-1]
    assert found.applied["threshold"] == positives[int(np.ceil(0.8 * positives.size)) - 1]
    assert found.applied["rule"] == "recall 0.8 on validation data"
    platt = fit_platt(s[y >= 0], y[y >= 0])
    assert [each.name for each in found.calibrated] == ["as they are", "temperature", "Platt", "Platt, at 0.02"]
    assert found.calibrated[2].line == platt
    assert found.calibrated[3].line == platt.shifted((y == 1).sum() / (y >= 0).sum(), 0.02)
    known = labels.of("debris") >= 0
    p = platt.apply(scores.reshape(-1)[known])
    assert found.calibrated[2].result.brier == pytest.approx(np.mean((p - labels.of("debris")[known]) ** 2))
    assert found.calibrated[2].result.ece < found.calibrated[0].result.ece
    assert not any("flatters" in note for note in found.notes)
    assert spec.threshold.value is None


def test_objects_sections_and_groups_are_counted_in_one_unit(judged_by_all) -> None:
    from scipy import ndimage

    _, found, labels, scores = judged_by_all
    y = labels.of("debris").reshape(SHAPE)
    called = scores.astype(np.float64) >= found.applied["threshold"]
    flat = np.zeros((3, 3, 3), int)
    flat[1] = 1
    true_ids, n_true = ndimage.label(y == 1, flat)
    ids, _ = ndimage.label(called, flat)
    shared = (true_ids > 0) & (ids > 0)
    assert (found.objects.n_truth, found.objects.n_hit) == (n_true, len(set(true_ids[shared])))
    assert (found.objects.n_found, found.objects.n_right) == (
        len(set(ids[called & (y >= 0)])),
        len(set(ids[shared])),
    )
    for row in found.groups[1:]:
        name, _, word = row["group"].replace("tissue ", "tissue: ").partition(": ")
        column = labels.columns["tissue"] if name == "tissue" else labels.of("myelin")
        member = (column == (word if name == "tissue" else {"yes": 1, "no": 0}[word])) & (y.reshape(-1) >= 0)
        assert row["n"] == member.sum()
        assert row["called"] == pytest.approx(called.reshape(-1)[member].mean())
    assert [row["group"] for row in found.groups] == [
        "all",
        "tissue neuropil",
        "tissue soma",
        "myelin: yes",
        "myelin: no",
    ]
    section = found.sections
    positive = [(y[z] == 1).any() for z in range(SHAPE[0]) if (y[z] == 1).any() or (y[z] == 0).all()]
    assert (section["n_truth"], section["n_sections"]) == (sum(positive), len(positive))


def test_files_hold_what_was_found_and_the_page_shows_it(judged_by_all) -> None:
    spec, found, labels, _ = judged_by_all
    folder = Path(spec.output)
    page = unescape(write_patch_report(spec, found).read_text(encoding="utf-8"))
    words = json.loads((folder / "scores.json").read_text())
    assert words["rows"][0]["average_precision"] == found.ranked.average_precision
    assert words["intervals"]["average_precision"]["n_blocks"] == SHAPE[0]
    (pair,) = found.agreement
    assert f"{pair.kappa:.3f}" in page
    assert f"an F1 of {pair.f1:.3f}" in page
    assert (pair.first, pair.second) == ("Ada", "Bea")
    rows = list(csv.DictReader((folder / "patches.csv").read_text().splitlines()))
    assert len(rows) == len(labels)
    wrong = [row for row in rows if row["debris"] == "no" and row["called"] == "yes"]
    assert rows[: len(wrong)] == wrong
    assert len(wrong) == found.applied["n_false_positive"]
    assert [float(row["prob"]) for row in wrong] == sorted((float(r["prob"]) for r in wrong), reverse=True)
    for title in (
        "What it finds",
        "Where it is wrong",
        "Objects and sections",
        "By tissue",
        "Calibration",
        "agree",
    ):
        assert title in page
    assert page.count("<img") == 5  # curves, two of mistakes, two of calibration
    assert page.count("<script") == 1


def test_it_repeats_to_the_bit(judged_by_all, tmp_path: Path) -> None:
    spec, _, _, _ = judged_by_all
    again = spec.model_copy(update={"output": str(tmp_path / "again")})
    evaluate_patches(again)
    for name in ("scores.json", "scores.csv", "points.csv", "curves.csv", "patches.csv"):
        assert (Path(spec.output) / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


@pytest.mark.real_data
def test_the_stored_predictions_of_the_originals(real_data: Path, tmp_path: Path) -> None:
    table = str(real_data / "artifacts" / "genEM3_annotations" / "patch_test_data.csv")
    reading = {"voxel_size_nm": (35, 32, 32), "patch_vox": (1, 140, 140)}
    spec = PatchSpec(
        found=table, truth=table, output=str(tmp_path / "s"), reading=reading, threshold={"value": 0.5},
        bootstrap={"resamples": 0},
    )  # fmt: skip
    found = evaluate_patches(spec)
    point = found.applied
    assert (point["n_true_positive"], point["n_false_positive"]) == (33, 460)
    assert point["false_positive_rate"] == pytest.approx(0.335, abs=5e-4)
    assert (found.ranked.n_positive, found.ranked.n_negative) == (52, 1373)
    with open(table) as file:
        rows = list(csv.DictReader(file))
    y, s = [row["class"] == "True" for row in rows], [float(row["prob"]) for row in rows]
    assert found.ranked.average_precision == pytest.approx(sk.average_precision_score(y, s), rel=1e-12)
    clusters = {row["cluster_id"] for row in rows} - {""}
    assert found.objects.n_truth == len(clusters)
    assert found.objects.n_found > found.objects.n_right  # single patches were their false positives
    assert not found.intervals


def test_an_evaluation_box_is_a_truth(tmp_path: Path) -> None:
    found, _, labels, _ = made_up(tmp_path / "a", 5)
    write_evaluation_box(tmp_path / "box.nml", labels)
    box = PatchSpec(found=found, truth=str(tmp_path / "box.nml"), output=str(tmp_path / "s"))
    result = evaluate_patches(box)
    assert result.ranked.n_positive == int((labels.of("debris") == 1).sum())
    assert any("flatters" in note for note in result.notes)
    assert any("One annotator" in note for note in result.notes)
    write_patch_report(box, result)


def test_what_cannot_be_scored_is_said_before_anything_is_written(tmp_path: Path) -> None:
    found, truth, labels, _ = made_up(tmp_path / "a", 3)
    clean = replace(labels, labels=np.zeros_like(labels.labels))
    write_patches(tmp_path / "clean.csv", clean)
    other = write_volume(tmp_path / "raw.zarr", np.zeros((2, 8, 8), np.uint8), Grid((35, 16, 16)))
    out = str(tmp_path / "s")
    for words, changes in (
        ("some of both", {"truth": str(tmp_path / "clean.csv")}),
        ("no class 'fold'", {"target": "fold"}),
        ("no annotator 'Cid'", {"reading": {"final": "Cid"}}),
        ("that they were taken from", {"raw": other}),
        ("does not exist", {"found": str(tmp_path / "none.zarr")}),
    ):
        with pytest.raises(InputError, match=words):
            evaluate_patches(PatchSpec.from_dict({"found": found, "truth": truth, "output": out, **changes}))
    assert not Path(out).exists()
    Path(out).mkdir()
    with pytest.raises(InputError, match="already exists"):
        evaluate_patches(PatchSpec(found=found, truth=truth, output=out))
    with pytest.raises(InputError, match="leave out one"):
        PatchSpec.from_dict(
            {
                "found": "a",
                "truth": "b",
                "output": "c",
                "threshold": {"value": 0.1},
                "validation": {"found": "a", "truth": "b"},
            }
        )


def test_patches_on_no_lattice_have_no_objects_until_a_stride_is_stated(tmp_path: Path) -> None:
    starts = np.array([(0, y, x) for y in (0, 3, 7) for x in (0, 5)], np.int64)
    words = np.array([1, 1, 0, 0, 1, 0], np.int8)
    write_patches(tmp_path / "t.csv", PatchLabels(GRID, (1, 8, 8), starts, ("debris",), words[:, None]))
    lines = ["z,y,x,prob", *(f"{z},{y},{x},{p}" for (z, y, x), p in zip(starts.tolist(), words, strict=True))]
    (tmp_path / "f.csv").write_text("\n".join(lines) + "\n")
    spec = PatchSpec(
        found=str(tmp_path / "f.csv"), truth=str(tmp_path / "t.csv"), output=str(tmp_path / "s"),
        reading={"stride_vox": (1, 3, 5)}, threshold={"value": 0.5},
    )  # fmt: skip
    stated = evaluate_patches(spec)
    assert stated.objects is not None
    assert (stated.objects.n_truth, stated.objects.n_hit) == (
        2,
        2,
    )  # y = 7 is 4 from 3, and none of its neighbours
    free = spec.model_copy(update={"reading": type(spec.reading)(), "output": str(tmp_path / "u")})
    result = evaluate_patches(free)
    assert result.objects is None
    assert any("Objects are not scored" in note for note in result.notes)
    assert "objects" not in (row[0] for row in _rows_of_units(write_patch_report(free, result)))


def _rows_of_units(page: Path) -> list[list[str]]:
    text = page.read_text(encoding="utf-8").partition("counted in")[2].partition("</table>")[0]
    return [re.findall(r"<t[dh][^>]*>([^<]*)<", row) for row in text.split("<tr")[1:]]


def test_a_map_of_coded_logits_is_read_as_probabilities(judged_by_all, tmp_path: Path) -> None:
    spec, found, labels, scores = judged_by_all
    coded = encode_probabilities(scores)
    info = VolumeInfo(coded.shape, coded.dtype, LATTICE.map_grid(GRID), kind="logits")
    create_volume(tmp_path / "map.zarr", info).write(info.box, coded)
    changes = {"found": str(tmp_path / "map.zarr"), "output": str(tmp_path / "s"), "validation": None}
    known = spec.model_copy(update=changes)
    patches = evaluate_patches(known).patches
    at = LATTICE.indices(patches.starts)
    assert np.array_equal(patches.scores, decode_probabilities(coded)[tuple(at.T)])
    assert np.abs(patches.scores - found.patches.scores).max() < 1 / 64 + 1e-6  # half a step of 1/8, slope 1/4
    first = int(np.flatnonzero(labels.of("debris") >= 0)[0])
    coded[np.unravel_index(first, SHAPE)] = 0  # never predicted
    create_volume(tmp_path / "holes.zarr", info).write(info.box, coded)
    holes = known.model_copy(update={"found": str(tmp_path / "holes.zarr"), "output": str(tmp_path / "t")})
    with pytest.raises(InputError, match="1 of 360 patches"):
        evaluate_patches(holes)


def test_pictures_are_taken_where_the_patches_are(judged_by_all, tmp_path: Path) -> None:
    _, found, _, _ = judged_by_all
    cut = GRID.crop(Box((2, 3, 4), (1, 1, 1)))
    raw = write_volume(tmp_path / "raw.zarr", np.zeros((2, 8, 8), np.uint8), cut)
    assert raw_start(raw, found.patches) == (-2, -3, -4)
    between = Grid(GRID.voxel_size_nm, (0, 0, 16))
    with pytest.raises(InputError, match="that they were taken from"):
        raw_start(write_volume(tmp_path / "other.zarr", np.zeros((2, 8, 8), np.uint8), between), found.patches)
