"""Clefts as objects in files: in blocks of any shape as at once, by ids, masks, and from the command line."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo
from emloom.metrics.cleftobjects import object_scores
from emloom.metrics.contingency import contingency
from emloom.run.executor import Serial
from emloom.tasks import cleftblocks, cleftobjects
from emloom.tasks.cleftobjects import ObjectsSpec, objects_overlap, score_objects
from emloom.tasks.synapsereport import write_synapse_report
from emloom.tasks.synapsescoring import evaluate_synapses
from emloom.tasks.synapsespec import CleftsSpec, SynapseSpec

GRID = Grid((40.0, 4.0, 4.0), (400.0, 40.0, 40.0))
STRUCTURES = {n: ndimage.generate_binary_structure(3, k) for k, n in ((1, 6), (2, 18), (3, 26))}


def volume(path: Path, array, kind="labels") -> str:
    info = VolumeInfo(array.shape, array.dtype, GRID, kind=kind, chunks=(4, 16, 16))
    create_volume(path, info).write(info.box, array)
    return str(path)


def components(mask, connectivity: int):
    return ndimage.label(mask, STRUCTURES[connectivity])[0].astype(np.uint64)


def sizes(table) -> list[tuple[int, ...]]:
    """Return what a table says whatever the names are: sizes of both objects and of what they share, sorted."""
    a, b = (dict(zip(*(c.tolist() for c in s()), strict=True)) for s in (table.truth_sizes, table.segment_sizes))
    rows = zip(table.truth_ids.tolist(), table.segment_ids.tolist(), table.counts.tolist(), strict=True)
    return sorted((t != 0, s != 0, a[t], b[s], n) for t, s, n in rows)


@given(
    seed=st.integers(0, 10**6),
    cell=st.tuples(*[st.integers(3, 24)] * 3),
    connectivity=st.sampled_from([6, 18, 26]),
)
@settings(max_examples=10, phases=[Phase.generate], deadline=None)
def test_objects_in_blocks_of_any_shape_are_those_at_once(tmp_path_factory, seed, cell, connectivity) -> None:
    tmp_path = tmp_path_factory.mktemp("objects")
    rng = np.random.default_rng(seed)
    shape, density = (5, 18, 20), rng.choice([0.0, 0.05, 0.12, 0.3], 2)
    truth, found = ((rng.random(shape) < d).astype(np.uint8) for d in density)
    usable = (rng.random(shape) < 0.95).astype(np.uint8)
    paths = cleftblocks.CleftPaths(
        volume(tmp_path / "truth.zarr", truth),
        volume(tmp_path / "found.zarr", found),
        volume(tmp_path / "mask.zarr", usable, kind="mask"),
    )
    spec = ObjectsSpec(connectivity=connectivity, min_iou=0.3)
    before, cleftblocks.CELL = cleftblocks.CELL, cell
    try:
        table = objects_overlap(paths, spec, tmp_path / "out", Serial())
        scores = score_objects(paths, spec, tmp_path / "out", Serial())
    finally:
        cleftblocks.CELL = before
    whole = objects_overlap(paths, spec, tmp_path / "whole", Serial())
    assert table == whole  # names and all
    known = usable != 0
    expected = contingency(
        components((truth != 0) & known, connectivity),
        components((found != 0) & known, connectivity),
        mask=known,
        ignore_truth=(),
    )
    assert sizes(table) == sizes(expected)
    assert scores.tally == object_scores(expected, spec.options).tally


def test_ids_are_objects_where_asked_for(tmp_path: Path) -> None:
    truth = np.zeros((4, 20, 20), np.uint16)
    truth[1, 2, 2:6] = 7
    truth[1, 2, 6:9] = 8  # touches 7
    truth[1, 12, 2:6] = truth[3, 12, 2:6] = 9  # in two pieces
    found = truth.copy()
    found[1, 2, 9] = 8
    paths = cleftblocks.CleftPaths(volume(tmp_path / "t.zarr", truth), volume(tmp_path / "f.zarr", found))
    by_ids = score_objects(paths, ObjectsSpec(truth="ids", found="ids"), tmp_path / "ids", Serial())
    assert (by_ids.tp, by_ids.fp, by_ids.fn) == (3, 0, 0)
    listed = list(csv.DictReader((tmp_path / "ids" / "cleft_objects.csv").read_text().splitlines()))
    assert [(one["truth"], one["found"], one["z_nm"]) for one in listed] == [(i, i, "") for i in "789"]
    pieces = score_objects(paths, ObjectsSpec(), tmp_path / "pieces", Serial())
    assert (pieces.tp, pieces.fp, pieces.fn) == (3, 0, 0)
    mixed = score_objects(paths, ObjectsSpec(truth="ids"), tmp_path / "mixed", Serial())
    # One found object for the two that touch, two for the one in pieces.
    assert (mixed.tp, mixed.fp, mixed.fn) == (2, 1, 1)


def test_objects_are_scored_and_shown_beside_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth = ndimage.binary_dilation(rng.random((6, 60, 60)) < 0.001, iterations=2).astype(np.uint8)
    found = np.roll(truth, 1, axis=2)
    found[:, :12] = 0
    spec = SynapseSpec(
        found=volume(tmp_path / "found.zarr", found),
        truth=volume(tmp_path / "truth.zarr", truth),
        output=str(tmp_path / "out"),
        metrics=("clefts", "cleft_objects"),
        clefts=CleftsSpec(objects=ObjectsSpec(connectivity=6, min_iou=0.2, doubtful_vox=3)),
    )
    result = evaluate_synapses(spec)
    row = result.row
    assert 0 < row["cleft_objects_f1_low"] <= row["cleft_objects_f1"] <= row["cleft_objects_f1_high"] <= 1
    assert row["n_clefts_truth"] == row["cleft_objects_tp"] + row["cleft_objects_fn"]
    assert row["n_clefts_truth"] + row["n_clefts_doubtful"] == components(truth, 6).max()
    listed = list(csv.DictReader((tmp_path / "out" / "cleft_objects.csv").read_text().splitlines()))
    judged = Counter(one["judged"] for one in listed)
    assert judged["right"] == row["cleft_objects_tp"]
    assert (judged["missed"], judged["invented"]) == (row["cleft_objects_fn"], row["cleft_objects_fp"])
    for one in listed:
        z, y, x = GRID.containing([float(one[f"{axis}_nm"]) for axis in "zyx"])
        assert (found if one["judged"] == "invented" else truth)[z, y, x]
    assert sum(int(one["truth_voxels"] or 0) for one in listed) == np.count_nonzero(truth)
    assert sum(int(one["found_voxels"] or 0) for one in listed) == np.count_nonzero(found)
    assert "F1 of clefts as objects" in write_synapse_report(spec, result).read_text()

    # Nothing is counted again where nothing has changed; what an object is counts anew.
    def refuse(*_):
        pytest.fail("counted twice")

    with monkeypatch.context() as patched:
        patched.setattr(cleftobjects.CountObjects, "__call__", refuse)
        assert evaluate_synapses(spec).row == row
    other = spec.model_copy(update={"clefts": CleftsSpec(objects=ObjectsSpec(connectivity=26))})
    assert evaluate_synapses(other).row["n_clefts_truth"] == components(truth, 26).max()
    evaluate_synapses(spec.model_copy(update={"metrics": ("clefts",)}))
    assert not (tmp_path / "out" / "cleft_objects.csv").exists()


def test_bad_input(tmp_path: Path) -> None:
    signed = volume(tmp_path / "s.zarr", np.zeros((4, 20, 20), np.int32), kind=None)
    good = volume(tmp_path / "g.zarr", np.zeros((4, 20, 20), np.uint8))
    with pytest.raises(InputError, match="stores int32"):
        score_objects(cleftblocks.CleftPaths(good, signed), ObjectsSpec(), tmp_path / "out", Serial())
    for wrong in ({"min_iou": 0}, {"min_iou": 2}, {"connectivity": 8}, {"doubtful_vox": -1}, {"truth": "blobs"}):
        with pytest.raises(InputError):
            ObjectsSpec.from_dict(wrong, "objects")
