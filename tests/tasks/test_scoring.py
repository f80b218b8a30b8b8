"""`emloom evaluate`: the same numbers in blocks as at once, of fragments as of segments; errors where they are."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo
from emloom.metrics.book import METRICS, metrics_named
from emloom.metrics.contingency import contingency
from emloom.metrics.cremi import TRANSPARENT, cremi_border_mask
from emloom.metrics.overlap import border_mask, overlap_scores
from emloom.tasks import overlaptable
from emloom.tasks.errorplaces import places_of
from emloom.tasks.overlaptable import SPECIAL
from emloom.tasks.scorereport import write_score_report
from emloom.tasks.scorespec import BorderSpec, EvaluateSpec, SkeletonsSpec
from emloom.tasks.scoring import evaluate
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import AscentSpec, SegmentJob, SegmentSpec
from tests.tasks.tracings import write_nml

SHAPE = (9, 20, 22)
GRID = Grid((40.0, 8.0, 8.0))
OF_VOXELS = tuple(name for name, metric in METRICS.items() if metric.rule != "nodes")


def write(path: Path, ids, grid=GRID, kind="labels") -> str:
    info = VolumeInfo(ids.shape, ids.dtype, grid, kind=kind, chunks=(4, 8, 8))
    create_volume(path, info).write(info.box, ids)
    return str(path)


def blobs(seed, shape=SHAPE):
    """Truth with background, special ids and objects of several pieces; a segmentation that errs."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 6, (3, 2, 2))
    truth = np.kron(coarse, np.ones((3, 14, 14), int))[tuple(slice(n) for n in shape)].astype(np.uint64)
    truth[0, 3] = truth[4, :3, :3] = TRANSPARENT
    truth[1] = 1
    found = np.where(rng.random(shape) < 0.9, truth % np.uint64(7), rng.integers(0, 9, shape).astype(np.uint64))
    return truth, found.astype(np.uint64)


def spec_of(tmp_path: Path, truth, found, name="out", **more) -> EvaluateSpec:
    paths = {
        "truth": write(tmp_path / f"{name}-t.zarr", truth),
        "segmentation": write(tmp_path / f"{name}-s.zarr", found),
    }
    return EvaluateSpec(**paths, output=str(tmp_path / name), metrics=OF_VOXELS, **more)


def at_once(truth, found, usable, border, in_plane):
    """The tables of every rule, from whole arrays."""
    plain = (0, *SPECIAL)
    return {
        "known": contingency(truth, found, mask=usable, ignore_truth=plain),
        "inner": contingency(truth, found, mask=usable & border_mask(truth, border, in_plane), ignore_truth=plain),
        "cremi": contingency(
            truth, found, mask=usable & cremi_border_mask(truth, 8.0), ignore_truth=(TRANSPARENT,)
        ),
        "whole": contingency(truth, found, mask=usable, ignore_truth=()),
    }


@given(
    seed=st.integers(0, 10**6),
    cell=st.tuples(*[st.integers(5, 24)] * 3),
    border=st.integers(0, 3),
    in_plane=st.booleans(),
)
@settings(max_examples=8, phases=[Phase.generate], deadline=None)
def test_blocks_of_any_shape_count_what_the_whole_counts(tmp_path_factory, seed, cell, border, in_plane) -> None:
    tmp_path = tmp_path_factory.mktemp("blocks")
    truth, found = blobs(seed)
    usable = np.random.default_rng(seed).random(SHAPE) < 0.9
    mask = write(tmp_path / "mask.zarr", usable.astype(np.uint8), kind="mask")
    spec = spec_of(tmp_path, truth, found, mask=mask, border=BorderSpec(width_vox=border, in_plane=in_plane))
    before, overlaptable.CELL = overlaptable.CELL, cell
    try:
        result = evaluate(spec)
    finally:
        overlaptable.CELL = before
    tables = at_once(truth, found, usable, border, in_plane)
    assert result.voxels.known == tables["known"]
    for metric in metrics_named(OF_VOXELS):
        if tables[metric.rule].n_voxels == 0:
            assert np.isnan([result.row[value.key] for value in metric.values]).all()
            continue
        for key, value in metric.of(tables[metric.rule], truth.size).items():
            assert result.row[key] == value or np.isnan([result.row[key], value]).all()


def test_a_crop_is_compared_with_its_part_of_the_truth(tmp_path: Path) -> None:
    truth, found = blobs(3)
    box = Box((2, 4, 5), (5, 9, 11))
    part = write(tmp_path / "part.zarr", found[box.slices()], Grid(GRID.voxel_size_nm, (80.0, 32.0, 40.0)))
    spec = spec_of(tmp_path, truth, found).model_copy(update={"segmentation": part, "metrics": ("voi",)})
    expected = overlap_scores(contingency(truth[box.slices()], found[box.slices()], ignore_truth=(0, *SPECIAL)))
    assert evaluate(spec).row["voi_sum"] == expected.voi_sum


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What `emloom segment` makes of noisy affinities, and some truth."""
    folder = tmp_path_factory.mktemp("container")
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(1, 30, (3, 5, 6)), np.ones((4, 4, 4), int)).astype(np.uint64)
    offsets = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    affinities = np.stack([np.where(truth == np.roll(truth, 1, k), 190, 80) for k in range(3)])
    affinities = np.clip(affinities + rng.normal(0, 30, affinities.shape), 0, 255).astype(np.uint8)
    info = VolumeInfo(truth.shape, np.dtype(np.uint8), GRID, 3, (4, 8, 8), "affinities", offsets)
    create_volume(folder / "pred.zarr", info).write(info.box, affinities)
    job = SegmentJob(
        affinities=str(folder / "pred.zarr"),
        output=str(folder / "seg.zarr"),
        threshold=0.6,
        min_segment_vox=5,
        segmentation=SegmentSpec(fragments=AscentSpec(), thresholds=(0.3,), cell_shape_vox=(8, 8, 8)),
    )
    segment(job)
    return folder, write(folder / "truth.zarr", truth)


def test_a_container_scores_as_its_segmentation(container, tmp_path: Path) -> None:
    folder, truth = container
    names = OF_VOXELS
    ours = evaluate(
        EvaluateSpec(segmentation=str(folder / "seg.zarr"), truth=truth, output=str(tmp_path / "a"), metrics=names)
    )
    plain = EvaluateSpec(
        segmentation=str(folder / "seg.zarr/segmentation"), truth=truth, output=str(tmp_path / "b"), metrics=names
    )
    theirs = evaluate(plain)
    assert ours.row["threshold"] == 0.6
    assert {k: v for k, v in ours.row.items() if k not in ("segmentation", "threshold")} == {
        k: v for k, v in theirs.row.items() if k not in ("segmentation", "threshold")
    }
    assert ours.voxels.worst == theirs.voxels.worst
    assert theirs.sweep == []


def test_every_threshold_of_the_sweep_scores_as_the_relabelled_volume(container, tmp_path: Path) -> None:
    folder, truth = container
    spec = EvaluateSpec(
        segmentation=str(folder / "seg.zarr"),
        truth=truth,
        output=str(tmp_path),
        metrics=("voi", "cremi"),
        thresholds=9,
    )
    found = evaluate(spec)
    tree = found.subject.tree
    assert tree is not None
    from emloom.io.open import open_volume

    fragments, ids = (open_volume(path) for path in (folder / "seg.zarr" / "fragments", truth))
    fragments, ids = (volume.read(volume.info.box) for volume in (fragments, ids))
    assert [point["threshold"] for point in found.sweep] == pytest.approx(
        np.linspace(0.3, 1, 9).tolist(), abs=1e-6
    )
    for point in found.sweep:
        scores = overlap_scores(contingency(ids, tree.lut(fragments, point["threshold"])))
        assert (point["voi_split"], point["voi_merge"]) == (scores.voi_split, scores.voi_merge)
    splits, merges = ([point[key] for point in found.sweep] for key in ("voi_split", "voi_merge"))
    assert splits == sorted(splits)
    assert merges == sorted(merges, reverse=True)
    with (tmp_path / "sweep.csv").open() as stream:
        assert [float(row["voi_split"]) for row in csv.DictReader(stream)] == splits


def test_skeletons_are_scored_at_every_threshold(container, tmp_path: Path) -> None:
    folder, truth = container
    rng = np.random.default_rng(3)
    lines = [[(x, y, z) for x in range(0, 23, 2)] for y, z in rng.integers(0, 12, (5, 2)).tolist()]
    skeletons = SkeletonsSpec(path=write_nml(tmp_path / "t.nml", lines))
    spec = EvaluateSpec(
        segmentation=str(folder / "seg.zarr"),
        truth=truth,
        output=str(tmp_path / "a"),
        metrics=("nerl", "edges"),
        thresholds=5,
        skeletons=skeletons,
    )
    found = evaluate(spec)
    plain = evaluate(
        spec.model_copy(
            update={"segmentation": str(folder / "seg.zarr/segmentation"), "output": str(tmp_path / "b")}
        )
    )
    keys = [value.key for metric in metrics_named(spec.metrics) for value in metric.values]
    assert {key: found.row[key] for key in keys} == {key: plain.row[key] for key in keys}
    assert 0 <= found.row["nerl"] <= 1
    assert sum(found.row[f"edges_{name}"] for name in ("correct", "split", "merged", "omitted")) == pytest.approx(
        1
    )
    assert found.sweep[-1]["edges_split"] >= found.sweep[0]["edges_split"]
    with pytest.raises(InputError, match="nerl, edges are about skeletons: give their file"):
        evaluate(spec.model_copy(update={"skeletons": None}))
    far = SkeletonsSpec(path=write_nml(tmp_path / "far.nml", [[(0, 0, 0), (900, 0, 0)]]))
    with pytest.raises(InputError, match="outside"):
        evaluate(spec.model_copy(update={"skeletons": far}))


def test_counts_are_kept_for_the_same_question_and_made_again_for_another(tmp_path: Path) -> None:
    truth, found = blobs(6)
    spec = spec_of(tmp_path, truth, found)
    first = evaluate(spec).row
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "overlap").rglob("*.parquet")}
    assert evaluate(spec).row == first
    assert before == {path: path.stat().st_mtime_ns for path in before}
    wider = evaluate(spec.model_copy(update={"border": BorderSpec(width_vox=3)})).row
    assert wider["voi_sum"] == first["voi_sum"]
    assert wider["inner_voi_sum"] != first["inner_voi_sum"]
    assert len(list((tmp_path / "out" / "run" / "overlap").iterdir())) == 1


def test_a_broken_object_is_shown_where_it_breaks(tmp_path: Path) -> None:
    truth = np.zeros((8, 40, 40), np.uint64)
    truth[:, 2:18, 2:38] = 1
    truth[:, 22:38, 2:38] = 2
    found = truth.copy()
    found[5:7, 4:9, 30:36] = 9  # a split of object 1
    found[2, 26:30, 10:14] = 1  # a merge into segment 1
    spec = spec_of(
        tmp_path, truth, found, raw=write(tmp_path / "raw.zarr", truth.astype(np.uint8) * 60, kind="raw")
    )
    result = evaluate(spec)
    places = {(p.kind, p.error.id): p for p in places_of(result.voxels, result.subject, tmp_path / "out")}
    split, merge = places["split", 1], places["merge", 1]
    assert (split.main, split.box) == (1, Box((5, 4, 30), (2, 5, 6)))
    assert split.box.contains(Box(split.at, (1, 1, 1)))
    assert (merge.main, merge.box) == (1, Box((2, 26, 10), (1, 4, 4)))
    page = write_score_report(spec, result).read_text()
    assert page.count("data:image/png;base64,") == len(places)
    for metric in metrics_named(OF_VOXELS):
        for value in metric.values:
            assert value.title in page
    assert "split: true object 1" in page


def test_what_is_not_defined_is_null_in_json_and_said_on_the_page(tmp_path: Path) -> None:
    truth = np.ones((4, 8, 8), np.uint64)
    spec = spec_of(tmp_path, truth, np.zeros_like(truth)).model_copy(update={"metrics": ("pq", "voi", "matching")})
    result = evaluate(spec)
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["rows"][0]["segmentation_quality"] is None
    assert "not defined" in write_score_report(spec, result).read_text()


def test_a_rule_that_leaves_no_voxel_makes_its_metric_undefined_and_says_why(tmp_path: Path) -> None:
    truth = np.indices((2, 8, 8)).sum(axis=0).astype(np.uint64) % np.uint64(2) + np.uint64(1)
    spec = spec_of(tmp_path, truth, truth)
    result = evaluate(spec)
    assert result.row["voi_sum"] == 0
    assert np.isnan(result.row["cremi_score"])
    assert np.isnan(result.row["inner_voi_sum"])
    assert set(result.undefined) == {"cremi", "inner"}
    assert "cremi is not defined here: no voxel counts" in write_score_report(spec, result).read_text()


def test_bad_input_is_named_before_anything_is_counted(tmp_path: Path) -> None:
    truth, found = blobs(7)
    spec = spec_of(tmp_path, truth, found)
    with pytest.raises(InputError, match=r"no metric 'vio'; did you mean 'voi'"):
        evaluate(spec.model_copy(update={"metrics": ("vio",)}))
    with pytest.raises(InputError, match="no metric is asked for"):
        evaluate(spec.model_copy(update={"metrics": ()}))
    other = write(tmp_path / "other.zarr", found, Grid((40.0, 4.0, 4.0)))
    with pytest.raises(InputError, match="not on the voxel grid"):
        evaluate(spec.model_copy(update={"segmentation": other}))
    signed = write(tmp_path / "signed.zarr", found.astype(np.int64), kind=None)
    with pytest.raises(InputError, match="stores int64"):
        evaluate(spec.model_copy(update={"truth": signed}))
    assert not (tmp_path / "out").exists()
    nothing = write(tmp_path / "nothing.zarr", np.zeros_like(truth))
    with pytest.raises(InputError, match="there is no voxel to score"):
        evaluate(spec.model_copy(update={"truth": nothing}))
