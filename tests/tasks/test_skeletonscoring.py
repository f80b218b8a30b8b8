"""`emloom evaluate` with tracings: alone, with a region that no segment may enter, and where they meet errors."""

from __future__ import annotations

import io
import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid, blocks
from emloom.io.open import create_volume
from emloom.io.volume import VolumeInfo
from emloom.metrics.contingency import contingency
from emloom.tasks import scoring, skeletonreport
from emloom.tasks.comparing import compare
from emloom.tasks.errorplaces import read_segments
from emloom.tasks.nomerge import CountNoMerge
from emloom.tasks.scorereport import write_score_report
from emloom.tasks.scorespec import EvaluateSpec, SkeletonsSpec, Subject
from emloom.tasks.scoring import evaluate
from emloom.tasks.skeletonreport import Errors, skeleton_sections
from emloom.view.marked import CROSS_RGB, RING_RGB
from tests.tasks.tracings import write_nml

SHAPE = (9, 20, 22)
GRID = Grid((40.0, 8.0, 8.0))
ALONG_X = [[(x, y, 4) for x in range(1, 22, 4)] for y in (3, 10, 17)]


def write(path: Path, ids, kind="labels", grid=GRID) -> str:
    info = VolumeInfo(ids.shape, ids.dtype, grid, kind=kind, chunks=(4, 8, 8))
    create_volume(path, info).write(info.box, ids)
    return str(path)


def slabs() -> np.ndarray:
    """Three slabs across y, numbered 1 to 3: one for each tracing of `ALONG_X`."""
    ids = np.zeros(SHAPE, np.uint64)
    for number, rows in enumerate((slice(0, 7), slice(7, 14), slice(14, 20)), 1):
        ids[:, rows] = number
    return ids


@pytest.fixture
def broken(tmp_path: Path) -> EvaluateSpec:
    """Slab 1 is split behind x = 8, slabs 2 and 3 are one segment."""
    ids = slabs()
    ids[:, :7, 8:] = 9
    ids[ids == 3] = 2
    return EvaluateSpec(
        segmentation=write(tmp_path / "seg.zarr", ids),
        output=str(tmp_path / "out"),
        metrics=("nerl", "edges"),
        raw=write(tmp_path / "raw.zarr", np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint8), "raw"),
        skeletons=SkeletonsSpec(path=write_nml(tmp_path / "t.nml", ALONG_X)),
    )


def test_tracings_alone_score_as_beside_true_labels(broken: EvaluateSpec, tmp_path: Path) -> None:
    alone = evaluate(broken)
    truth = write(tmp_path / "truth.zarr", slabs())
    both = evaluate(broken.model_copy(update={"truth": truth, "output": str(tmp_path / "both")}))
    assert alone.voxels is None
    assert both.voxels is not None
    assert {key: both.row[key] for key in alone.row} == alone.row
    assert (alone.row["n_skeletons"], alone.row["n_nodes"], alone.row["n_nodes_outside"]) == (3, 18, 0)
    # Skeleton 1 runs 32 nm, breaks, and runs 96 nm; the two others merge.
    assert alone.row["erl_nm"] == pytest.approx((32**2 + 96**2) / 480)
    assert [alone.row[f"edges_{name}"] for name in ("correct", "split", "merged")] == [4 / 15, 1 / 15, 10 / 15]
    said = json.loads((Path(broken.output) / "scores.json").read_text())
    assert [row["skeleton"] for row in said["skeletons"]] == [2, 3, 1]
    assert [(row["segment"], row["skeletons"]) for row in said["merges"]] == [(2, [2, 3])]
    assert "worst" not in said


def test_metrics_of_voxels_need_true_labels(broken: EvaluateSpec) -> None:
    with pytest.raises(InputError, match="voi, cremi compare voxels: give true labels"):
        evaluate(broken.model_copy(update={"metrics": ("nerl", "voi", "cremi")}))
    assert not Path(broken.output).exists()


def test_a_segment_that_enters_the_region_merges(broken: EvaluateSpec, tmp_path: Path) -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 5, 20] = 255
    traced = broken.skeletons.model_copy(update={"no_merge": write(tmp_path / "m.zarr", mask, "mask")})
    spec = broken.model_copy(update={"skeletons": traced})
    found = evaluate(spec)
    assert found.row["erl_nm"] == pytest.approx(32**2 / 480)
    merges = {merge.segment: merge.no_merge_voxels for merge in found.traced.lengths.merges}
    assert merges == {2: 0, 9: 1}
    errors = Errors(found.traced, found.subject)
    assert [errors.merge(merge) is None for merge in found.traced.lengths.merges] == [False, True]
    # Another region in its place is counted anew.
    mask[2, 5, 2] = 1
    other = write(tmp_path / "m2.zarr", mask, "mask")
    again = evaluate(spec.model_copy(update={"skeletons": traced.model_copy(update={"no_merge": other})}))
    assert again.row["erl_nm"] == 0
    away = write(tmp_path / "m3.zarr", mask, "mask", Grid((40.0, 8.0, 8.0), (3.0, 0.0, 0.0)))
    with pytest.raises(InputError, match="not on the voxel grid"):
        evaluate(spec.model_copy(update={"skeletons": traced.model_copy(update={"no_merge": away})}))


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10**6), cell=st.tuples(*[st.integers(5, 12)] * 3), share=st.sampled_from([0.0, 0.01, 0.5])
)
def test_the_no_merge_table_is_that_of_the_whole(tmp_path_factory, seed, cell, share) -> None:
    folder = tmp_path_factory.mktemp("region")
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 6, SHAPE).astype(np.uint16)
    mask = (rng.random(SHAPE) < share).astype(np.uint8) * np.uint8(255)
    around = np.zeros((11, 23, 25), np.uint8)
    around[1:10, 2:22, 3:25] = mask
    grid = Grid(GRID.voxel_size_nm, (-40.0, -16.0, -24.0))
    region = CountNoMerge(write(folder / "s.zarr", ids), write(folder / "m.zarr", around, "mask", grid), folder)
    region.check()
    cells = blocks(VolumeInfo(SHAPE, ids.dtype, GRID).box, cell)
    for block in cells:
        region(block)
    assert region.read(cells) == contingency((mask > 0).astype(np.uint8), ids, ignore_truth=(0,)).without(
        segments=[0]
    )


def test_places_are_where_the_errors_were_made(broken: EvaluateSpec) -> None:
    found = evaluate(broken)
    errors = Errors(found.traced, found.subject)
    scores = {score.skeleton: errors.split(score) for score in found.traced.lengths.worst_skeletons()}
    assert scores[2] is scores[3] is None  # all of them in one segment
    assert scores[1].marks == ((4, 3, 5), (4, 3, 9))
    assert scores[1].at == (4, 3, 7)
    assert scores[1].segments == (1, 9)
    (merge,) = found.traced.lengths.worst_merges()
    place = errors.merge(merge)
    assert place.segments == (2,)
    assert {mark[1] for mark in place.marks} == {10, 17}
    assert place.marks[0][2] == place.marks[1][2]


def test_pictures_show_the_segments_and_mark_the_nodes(broken: EvaluateSpec) -> None:
    found = evaluate(broken)
    page = write_score_report(broken, found).read_text(encoding="utf-8")
    _, skeletons, merges = skeleton_sections(broken, found, found.traced)
    for section, words in (
        (skeletons, "from segment 1 (ring) to segment 9"),
        (merges, "skeletons 2 (ring) and 3"),
    ):
        (figure,) = section.figures
        assert words in figure.caption
        assert words in page
        assert "segmentation=" in figure.opening.command
        image = np.asarray(iio.imread(io.BytesIO(figure.png), mode="RGBA"))[..., :3].astype(int)
        for colour in (RING_RGB, CROSS_RGB):
            assert (image == colour).all(axis=2).sum() > 50
    assert "--at 4,3,7 --segment segmentation=1,9" in skeletons.figures[0].opening.command


def test_without_path_or_errors_there_is_nothing_to_draw(tmp_path: Path) -> None:
    perfect = EvaluateSpec(
        segmentation=write(tmp_path / "seg.zarr", slabs()),
        output=str(tmp_path / "out"),
        metrics=("nerl",),
        skeletons=SkeletonsSpec(path=write_nml(tmp_path / "t.nml", ALONG_X)),
    )
    found = evaluate(perfect)
    assert found.row["nerl"] == 1
    assert [section.title for section in skeleton_sections(perfect, found, found.traced)] == [
        "Along the skeletons"
    ]
    dots = SkeletonsSpec(path=write_nml(tmp_path / "dots.nml", [[(1, 1, 1)]]))
    found = evaluate(perfect.model_copy(update={"skeletons": dots, "output": str(tmp_path / "dots")}))
    assert np.isnan(found.row["nerl"])
    assert "no path" in found.undefined["nerl"]
    assert (
        "no path"
        in write_score_report(perfect.model_copy(update={"output": str(tmp_path / "dots")}), found).read_text()
    )


def test_nodes_outside_may_be_omitted_and_are_told(broken: EvaluateSpec, tmp_path: Path) -> None:
    far = write_nml(tmp_path / "far.nml", [*ALONG_X, [(1, 3, 4), (60, 3, 4)]])
    with pytest.raises(InputError, match="1 of 20 nodes lie outside"):
        evaluate(broken.model_copy(update={"skeletons": SkeletonsSpec(path=far)}))
    found = evaluate(broken.model_copy(update={"skeletons": SkeletonsSpec(path=far, outside="omit")}))
    assert found.row["n_nodes_outside"] == 1
    assert "1 of them outside" in skeleton_sections(broken, found, found.traced)[0].text


def test_results_are_compared_on_the_same_tracings_only(broken: EvaluateSpec, tmp_path: Path) -> None:
    def scored(name: str, **changes: object) -> str:
        out = str(tmp_path / name)
        evaluate(broken.model_copy(update={"output": out, **changes}))
        return out

    whole = write(tmp_path / "whole.zarr", slabs())
    one, two = scored("one"), scored("two", segmentation=whole)
    compare([one, two], str(tmp_path / "both"))
    rows = (tmp_path / "both" / "compare.csv").read_text().splitlines()
    assert rows[2].startswith("two,")
    assert dict(zip(rows[0].split(","), rows[2].split(","), strict=True))["nerl"] == "1.0"
    fewer = SkeletonsSpec(path=write_nml(tmp_path / "fewer.nml", ALONG_X[:2]))
    with pytest.raises(InputError, match="not the same or has changed"):
        compare([one, scored("three", skeletons=fewer)], str(tmp_path / "no"))


def test_the_region_is_counted_once(broken: EvaluateSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.ones(SHAPE, np.uint8)
    traced = broken.skeletons.model_copy(update={"no_merge": write(tmp_path / "m.zarr", mask, "mask")})
    spec = broken.model_copy(update={"skeletons": traced})
    first = evaluate(spec).row

    def never(*_: object) -> None:
        raise AssertionError("counted again")

    monkeypatch.setattr(scoring.CountNoMerge, "__call__", never)
    assert evaluate(spec).row == first


def test_pictures_of_nodes_far_apart_read_sections_only(
    broken: EvaluateSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluate(broken)
    read = []

    def watched(subject: Subject, box: Box) -> np.ndarray:
        read.append(box.shape)
        return read_segments(subject, box)

    monkeypatch.setattr(skeletonreport, "read_segments", watched)
    skeleton_sections(broken, found, found.traced)
    assert len(read) == 3 * 2  # a picture of the split, one of the merge
    assert all(min(shape) == 1 for shape in read)
