"""Scores of patches are read back; genEM3's table gives its figures; maps are read at the centres of patches."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.geometry.lattice import Lattice
from emloom.geometry.patches import PatchLabels
from emloom.geometry.patchscores import PatchScores
from emloom.io.patchopen import PatchReading, open_patches
from emloom.io.patchscores import (
    as_probabilities,
    is_genem3_table,
    read_genem3_labels,
    read_scores,
    scores_of_map,
    write_scores,
)
from emloom.io.patchtables import write_patches
from emloom.io.volume import ArrayVolume
from emloom.metrics.curves import at_threshold, average_precision
from emloom.metrics.patches import judged
from tests.geometry.patchmaking import assert_same, random_labels

GRID = Grid((35, 32, 32), (70, 0, 64))
SIZE, PATCH = (35.0, 32.0, 32.0), (1, 140, 140)


@given(st.integers(0, 10**6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_what_is_written_is_read_back(tmp_path: Path, seed: int) -> None:
    truth = random_labels(seed).consensus()
    rng = np.random.default_rng(seed)
    scores = PatchScores(truth.grid, truth.shape, truth.starts, rng.random(len(truth)))
    write_scores(tmp_path / "s.csv", scores, overwrite=True)
    again = read_scores(tmp_path / "s.csv", truth)
    assert (again.grid, again.shape) == (scores.grid, scores.shape)
    assert np.array_equal(again.starts, scores.starts)
    assert np.array_equal(again.scores, scores.scores)


@pytest.mark.real_data
def test_the_stored_table_of_the_originals(real_data: Path) -> None:
    """33 / 460 / 19 / 913 above 0.5, in the center box; also as their own confusion table says."""
    folder = real_data / "artifacts" / "genEM3_annotations"
    path = folder / "patch_test_data.csv"
    assert is_genem3_table(path)
    truth = read_genem3_labels(path, voxel_size_nm=SIZE, shape=PATCH)
    patches = judged(read_scores(path, truth), truth)
    ranking = patches.ranking()
    point = at_threshold(ranking, np.nextafter(0.5, 1))  # they called positive what is above 0.5
    counts = (point.n_true_positive, point.n_false_positive)
    rest = (ranking.n_positive - counts[0], ranking.n_negative - counts[1])
    assert (*counts, *rest) == (33, 460, 19, 913)
    stored = [row[1:] for row in csv.reader((folder / "patch_confusion.csv").read_text().splitlines())][1:]
    assert [[int(float(v)) for v in row] for row in stored] == [[33, 460], [19, 913]]
    assert average_precision(ranking) == pytest.approx(average_precision_score(patches.truth, patches.scores))
    assert truth.centres[0].tolist() == [3555, 20900, 24996]
    assert truth.starts.min(axis=0).tolist() == [3555, 20830, 24926]


def test_the_three_boxes_together() -> None:
    """Arithmetic of the published counts: 145 / 1784 / 53 / 2293, hence a precision of 0.075, not 0.10."""
    top, center, bottom = (37, 564, 17, 807), (33, 460, 19, 913), (75, 760, 17, 573)
    whole = tuple(map(sum, zip(top, center, bottom, strict=True)))
    assert whole == (145, 1784, 53, 2293)
    assert sum(whole) == 3 * 1425
    assert whole[0] / (whole[0] + whole[1]) == pytest.approx(0.0752, abs=5e-5)


@given(st.integers(0, 10**6))
def test_a_map_is_read_at_the_patches(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lattice = Lattice((1, 6, 7), (1, 3, 2), tuple(rng.integers(-5, 6, 3).tolist()))
    first, shape = tuple(rng.integers(-3, 4, 3).tolist()), tuple(rng.integers(1, 6, 3).tolist())
    values = rng.random(shape).astype(np.float32)
    values[rng.random(shape) < 0.2] = np.nan
    volume = ArrayVolume(values, lattice.map_grid(GRID, first))
    index = rng.integers(-4, 9, (30, 3))
    starts = np.unique(lattice.starts_of(index), axis=0)
    starts = starts[rng.permutation(len(starts))]
    truth = PatchLabels(GRID, lattice.shape, starts, ("a",), np.zeros((len(starts), 1), np.int8))
    found = scores_of_map(volume, truth, as_probabilities)
    expected = {}
    for start in starts.tolist():
        at = lattice.indices(np.array([start]))[0] - first
        if ((at >= 0) & (at < shape)).all() and not np.isnan(values[tuple(at)]):
            expected[tuple(start)] = float(values[tuple(at)])
    assert dict(zip(map(tuple, found.starts.tolist()), found.scores.tolist(), strict=True)) == expected


def test_levels_are_parts_of_the_highest() -> None:
    assert as_probabilities(np.array([0, 51, 255], np.uint8)).tolist() == [0, 0.2, 1]
    assert as_probabilities(np.array([65535], np.uint16)).tolist() == [1]
    with pytest.raises(InputError, match="no probabilities"):
        as_probabilities(np.zeros(1, np.int32))


def test_maps_and_tables_of_something_else_are_refused(tmp_path: Path) -> None:
    truth = random_labels(0).consensus()
    grid = Lattice(truth.shape, (1, 2, 2)).map_grid(truth.grid)
    with pytest.raises(InputError, match="2 channels"):
        scores_of_map(ArrayVolume(np.zeros((2, 1, 1, 1)), grid), truth, as_probabilities)
    with pytest.raises(InputError, match="not on the lattice"):
        scores_of_map(ArrayVolume(np.zeros((1, 1, 1)), grid), truth, as_probabilities)
    (tmp_path / "t.csv").write_text("z,y,x,score\n1,2,3,0.5\n")
    with pytest.raises(InputError, match="no column 'prob'"):
        read_scores(tmp_path / "t.csv", truth)
    assert read_scores(tmp_path / "t.csv", truth, column="score").starts.tolist() == [[1, 2, 3]]
    (tmp_path / "t.csv").write_text("z,y,x,prob\n1,2,3,high\n")
    with pytest.raises(InputError, match="row 1 has prob='high'"):
        read_scores(tmp_path / "t.csv", truth)
    with pytest.raises(InputError, match=r"does not end in \.csv"):
        write_scores(tmp_path / "t.txt", PatchScores(GRID, (1, 4, 4), truth.starts, np.zeros(len(truth))))


@pytest.mark.real_data
def test_every_file_of_the_originals_opens(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "artifacts"
    how = PatchReading(voxel_size_nm=SIZE, shape=PATCH)
    rows = {
        "genEM3_annotations/artefact_trainingData.nml": 600,
        "genEM3_annotations/patch_test_data.csv": 1425,
        "genEM3_boxes/test_bottom.nml": 1425,
    }
    for name, n in rows.items():
        labels = open_patches(folder / name, how)
        assert (len(labels), labels.shape) == (n, PATCH)
        for ending in ("csv", "json"):
            write_patches(tmp_path / f"again.{ending}", labels, overwrite=True)
            assert_same(open_patches(tmp_path / f"again.{ending}"), labels)
    for name, words in (
        ("genEM3_annotations/patch_test_data.csv", "voxel size"),
        ("genEM3_annotations/artefact_trainingData.nml", "how large a patch"),
    ):
        with pytest.raises(InputError, match=words):
            open_patches(folder / name)
    with pytest.raises(InputError, match=r"give \.csv, \.json or \.nml"):
        open_patches(tmp_path / "x.txt")
    assert Box.whole(PATCH).size == 140 * 140
