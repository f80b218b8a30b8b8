"""Synapses scored from files: by hand, in blocks as at once; bad input is named before anything is counted."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Box, Grid
from emloom.io.annotations import POST, PRE, Annotations
from emloom.io.cremi import CLEFTS, INVALID, NEURON_IDS, TRANSPARENT, write_annotations
from emloom.io.open import create_volume, open_volume
from emloom.io.volume import VolumeInfo
from emloom.metrics import book
from emloom.metrics.clefts import cleft_scores
from emloom.metrics.partnerpairs import PartnerPairs, segments_of
from emloom.metrics.partners import partner_scores
from emloom.metrics.synapsebook import METRICS
from emloom.run.executor import Serial
from emloom.tasks import cleftblocks
from emloom.tasks.synapseplaces import read_window
from emloom.tasks.synapsereport import write_synapse_report
from emloom.tasks.synapsescoring import evaluate_synapses
from emloom.tasks.synapsesites import segments_under
from emloom.tasks.synapsespec import CleftsSpec, PartnersSpec, SynapseSpec
from emloom.view.marked import RING_RGB

GRID = Grid((40.0, 4.0, 4.0), (400.0, 40.0, 40.0))
SHAPE = (6, 60, 60)
EVERY = tuple(METRICS)


def volume(path: Path, array, grid: Grid = GRID, kind="labels") -> str:
    info = VolumeInfo(array.shape, array.dtype, grid, kind=kind, chunks=(4, 16, 16))
    create_volume(path, info).write(info.box, array)
    return str(path)


def cremi(path: Path, pairs, *, neurons=None, clefts=None, grid: Grid = GRID) -> str:
    """Write a CREMI file whose pairs are ((z, y, x), (z, y, x)) in voxels of the grid."""
    points = np.array(pairs, float).reshape(-1, 3) * grid.voxel_size_nm + np.array(grid.offset_nm)
    ids = np.arange(len(points), dtype=np.uint64) + np.uint64(100)
    words = Annotations(ids, (PRE, POST) * len(pairs), points, ids.reshape(-1, 2), source=str(path))
    write_annotations(path, words)
    with h5py.File(path, "r+") as h5:
        for name, array in ((NEURON_IDS, neurons), (CLEFTS, clefts)):
            if array is not None:
                h5[name] = array
                h5[name].attrs["resolution"], h5[name].attrs["offset"] = grid.voxel_size_nm, grid.offset_nm
    return str(path)


def stripes() -> np.ndarray:
    """Return neurons 1, 2, 3, 4 of 15 rows each, and a row that is nobody's."""
    neurons = np.repeat(np.arange(1, 5, dtype=np.uint64), 15)[None, :, None] * np.ones(SHAPE, np.uint64)
    neurons[:, 14] = TRANSPARENT
    return neurons


TRUE = [
    ((1, 10, 10), (1, 20, 10)),  # 1 -> 2
    ((1, 10, 40), (1, 20, 40)),  # 1 -> 2
    ((4, 25, 50), (4, 35, 50)),  # 2 -> 3, missed
]
FOUND = [
    ((1, 11, 12), (1, 21, 12)),  # matches the first: |(1, 2)| * 4 nm at either site
    ((1, 10, 40), (1, 20, 40)),  # the second
    ((5, 50, 5), (5, 40, 5)),  # 4 -> 3, invented
]


def spec_of(tmp_path: Path, true=TRUE, found=FOUND, **more) -> SynapseSpec:
    clefts = np.full(SHAPE, TRANSPARENT, np.uint64)
    clefts[1, 14:16, 8:12] = 3
    clefts[2, 30] = INVALID
    guess = np.zeros(SHAPE, np.uint8)
    guess[1, 15:17, 8:12] = guess[2, 30] = 1
    given = {
        "truth": cremi(tmp_path / "truth.h5", true, neurons=stripes(), clefts=clefts),
        "found": cremi(tmp_path / "found.h5", found),
        "output": str(tmp_path / "out"),
        "metrics": EVERY,
        "clefts": CleftsSpec(found=volume(tmp_path / "guess.zarr", guess, kind="mask")),
        **more,
    }
    return SynapseSpec(**given)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_three_metrics_by_hand(tmp_path: Path) -> None:
    result = evaluate_synapses(spec_of(tmp_path))
    row = result.row
    # Clefts: of 8 voxels on either side 4 lie on the other, 4 lie 4 nm away; what is ignored is not counted.
    assert (row["n_cleft_voxels_truth"], row["n_cleft_voxels_found"]) == (8, 8)
    assert row["n_cleft_voxels_known"] == np.prod(SHAPE) - 60
    assert (row["cleft_adgt_nm"], row["cleft_adf_nm"], row["cleft_cremi_score_nm"]) == (2.0, 2.0, 2.0)
    assert (row["cleft_fp"], row["cleft_fn"], row["cleft_f1"]) == (0, 0, 1.0)
    # Partners.
    assert [row[f"partner_{k}"] for k in ("tp", "fp", "fn")] == [2, 1, 1]
    assert row["partner_fscore"] == pytest.approx(2 / 3)
    assert row["partner_cost_nm"] == pytest.approx(4 * np.sqrt(5))
    # Connections: 1->2 twice in both; 2->3 missed; 4->3 invented.
    assert [row[f"connection_{k}"] for k in ("tp", "fp", "fn", "f1")] == [1, 1, 1, 0.5]
    assert row["connection_synapse_recall"] == pytest.approx(2 / 3)
    assert row["connection_median_log2_ratio"] == 0

    out = tmp_path / "out"
    (missed,), (invented,) = rows_of(out / "missed.csv"), rows_of(out / "invented.csv")
    assert (missed["row"], missed["pre_id"], missed["post_id"]) == ("2", "104", "105")
    position = [float(missed[f"post_{axis}_nm"]) for axis in "zyx"]
    assert position == [400 + 4 * 40, 40 + 35 * 4, 40 + 50 * 4]
    assert (missed["pre_segment"], missed["post_segment"]) == ("2", "3")
    assert (invented["pre_segment"], invented["post_segment"]) == ("4", "3")
    # The nearest found pair of the missed one is the second: (120, 60, 40) nm at either site.
    assert float(missed["nearest_nm"]) == pytest.approx(np.linalg.norm([120, 60, 40]))
    (scores,) = rows_of(out / "scores.csv")
    assert float(scores["partner_recall"]) == row["partner_recall"]
    assert json.loads((out / "provenance.json").read_text())["spec"]["minimum_weight"] == 1


def test_what_is_not_defined_is_null_with_a_reason(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, found=[])
    empty = volume(tmp_path / "empty.zarr", np.zeros(SHAPE, np.uint8))
    spec = spec.model_copy(update={"clefts": CleftsSpec(found=empty)})
    result = evaluate_synapses(spec)
    words = json.loads((tmp_path / "out" / "scores.json").read_text())
    (row,) = words["rows"]
    assert row["cleft_cremi_score_nm"] is row["cleft_precision"] is row["connection_precision"] is None
    assert (row["cleft_fn"], row["cleft_recall"], row["partner_precision"], row["partner_recall"]) == (8, 0, 1, 0)
    assert "the result has no cleft" in words["undefined"]["clefts"]
    assert "the result has no edge" in words["undefined"]["connections"]
    assert "nothing was found" in words["notes"]["partners"][0]
    assert [r["nearest_nm"] for r in rows_of(tmp_path / "out" / "missed.csv")] == [""] * 3
    page = write_synapse_report(spec, result).read_text()
    assert "clefts is not wholly defined here: the result has no cleft" in page
    assert "not defined" in page
    assert "There is none: every found pair has its match" in page


def test_a_metric_that_is_no_longer_asked_for_leaves_no_list(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    evaluate_synapses(spec)
    result = evaluate_synapses(spec.model_copy(update={"metrics": ("connections",)}))
    assert not (tmp_path / "out" / "missed.csv").exists()
    assert not any(key.startswith(("partner", "cleft")) for key in result.row)


def test_connections_between_segments_go_by_the_neuron_they_overlap_most(tmp_path: Path) -> None:
    segments = stripes() + np.uint64(10)
    segments[:, 14] = 0
    segments[:, 7:14, 30:] = 50  # a piece of neuron 1, which majority gives back to it
    segments[:, 30:60] = 60  # neurons 3 and 4 in one, which goes to the one with more voxels: 4
    path = volume(tmp_path / "segments.zarr", segments)
    spec = spec_of(tmp_path, found=[*FOUND, TRUE[2]], found_segmentation=path, metrics=("connections",))
    row = evaluate_synapses(spec).row
    # The invented pair is an autapse of the merged segment; 2->3 has become 2->the merged one.
    merged = 4 if np.count_nonzero(stripes() == 4) > np.count_nonzero(stripes() == 3) else 3
    true_edges = {(1, 2), (2, 3)}
    found_edges = {(1, 2), (2, merged), (merged, merged)}
    assert row["connection_tp"] == len(true_edges & found_edges)
    assert row["connection_fp"] == len(found_edges - true_edges)
    assert row["connection_fn"] == len(true_edges - found_edges)
    without = spec.model_copy(update={"partners": PartnersSpec(drop_autapses=True)})
    assert evaluate_synapses(without).row["connection_fp"] == len(found_edges - true_edges) - 1


def test_a_minimum_weight_takes_weak_connections_out_of_both(tmp_path: Path) -> None:
    row = evaluate_synapses(spec_of(tmp_path, metrics=("connections",), minimum_weight=2)).row
    assert [row[f"connection_{k}"] for k in ("tp", "fp", "fn")] == [1, 0, 0]


@given(seed=st.integers(0, 10**6), cell=st.tuples(*[st.integers(3, 40)] * 3))
@settings(max_examples=8, phases=[Phase.generate], deadline=None)
def test_clefts_in_blocks_of_any_shape_are_those_at_once(tmp_path_factory, seed, cell) -> None:
    tmp_path = tmp_path_factory.mktemp("clefts")
    rng = np.random.default_rng(seed)
    shape, density = (5, 30, 40), rng.choice([0.0, 0.0005, 0.02])
    truth = np.where(rng.random(shape) < density, np.uint64(7), np.uint64(TRANSPARENT))
    truth[rng.random(shape) < 0.05] = INVALID
    found = (rng.random(shape) < 0.005).astype(np.uint16)
    usable = (rng.random(shape) < 0.9).astype(np.uint8)
    paths = cleftblocks.CleftPaths(
        f"{cremi(tmp_path / 't.h5', [], clefts=truth)}/{CLEFTS}",
        volume(tmp_path / "found.zarr", found),
        volume(tmp_path / "mask.zarr", usable, kind="mask"),
    )
    options = cleftblocks.CleftOptions(limit_nm=30.0)
    before, cleftblocks.CELL = cleftblocks.CELL, cell
    try:
        blocks = cleftblocks.score_clefts(paths, options, tmp_path / "out", Serial())
    finally:
        cleftblocks.CELL = before
    at_once = cleft_scores(
        truth, found, GRID.voxel_size_nm, known_ZYX=usable, zero_is_background=True, options=options
    )
    assert repr(blocks) == repr(at_once)  # NaN included


def test_clefts_of_a_part_are_compared_where_it_lies(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    truth = (rng.random(SHAPE) < 0.01).astype(np.uint8)
    box = Box((1, 10, 20), (4, 40, 30))
    found = (rng.random(box.shape) < 0.01).astype(np.uint8)
    spec = SynapseSpec(
        found=volume(tmp_path / "found.zarr", found, GRID.crop(box)),
        truth=volume(tmp_path / "truth.zarr", truth),
        output=str(tmp_path / "out"),
        metrics=("clefts",),
    )
    row = evaluate_synapses(spec).row
    expected = cleft_scores(truth[box.slices()], found, GRID.voxel_size_nm, zero_is_background=True)
    assert row["cleft_cremi_score_nm"] == expected.cremi_score_nm
    # Other clefts in the same place are counted anew.
    volume(tmp_path / "other.zarr", truth)
    again = spec.model_copy(update={"found": str(tmp_path / "other.zarr")})
    assert evaluate_synapses(again).row["cleft_cremi_score_nm"] == 0


def test_clefts_go_on_where_they_were_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleftblocks, "CELL", (3, 20, 20))
    spec = spec_of(tmp_path, metrics=("clefts",))
    whole, seen = evaluate_synapses(spec).row, []
    monkeypatch.setattr(cleftblocks.CountClefts, "__call__", lambda *_: pytest.fail("counted twice"))
    monkeypatch.setattr(cleftblocks.MeasureClefts, "__call__", lambda *_: pytest.fail("measured twice"))
    assert evaluate_synapses(spec, on_block=lambda *n: seen.append(n)).row == whole
    # 18 blocks are counted; the clefts of both sides lie in one of them.
    assert {total for _, total in seen} == {18, 1}
    assert all(done == total for done, total in seen)


def test_blocks_of_clefts_can_be_sent_to_workers(tmp_path: Path) -> None:
    from emloom.run.cluster import executor_of

    spec = spec_of(tmp_path, metrics=("clefts",))
    alone = evaluate_synapses(spec).row
    elsewhere = spec.model_copy(update={"output": str(tmp_path / "elsewhere")})
    with executor_of(2, None) as executor:
        assert evaluate_synapses(elsewhere, executor).row == alone


@given(seed=st.integers(0, 10**6), n=st.integers(0, 40))
@settings(max_examples=10, phases=[Phase.generate], deadline=None)
def test_sites_chunk_by_chunk_are_those_of_the_whole(tmp_path_factory, seed, n) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 2**40, SHAPE).astype(np.uint64)
    path = volume(tmp_path_factory.mktemp("sites") / "ids.zarr", ids)
    span = np.array(SHAPE) * GRID.voxel_size_nm
    pre, post = (rng.uniform(-0.1, 1.1, (n, 3)) * span + np.array(GRID.offset_nm) for _ in range(2))
    pairs = PartnerPairs(pre, post)
    placed = segments_under(pairs, open_volume(path), "unmatched")
    segments, inside = segments_of(pairs, ids, GRID, "unmatched")
    assert (placed.segments == segments).all()
    assert (placed.inside == inside).all()


def test_names_are_nobody_elses() -> None:
    others = {value.key for metric in book.METRICS.values() for value in metric.values}
    keys = [value.key for metric in METRICS.values() for value in metric.values]
    assert not set(METRICS) & set(book.METRICS)
    assert not set(keys) & others
    assert len(set(keys)) == len(keys)
    for metric in METRICS.values():
        assert metric.headline in {value.key for value in metric.values}


def test_bad_input_is_named_before_anything_is_counted(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)

    def refused(words: str, **changes) -> None:
        with pytest.raises(InputError, match=words):
            evaluate_synapses(spec.model_copy(update=changes))
        assert not (tmp_path / "out").exists()

    refused("no metric of synapses 'cleft'; did you mean 'clefts'", metrics=("cleft",))
    refused("no metric is asked for", metrics=())
    refused("does not exist", found=str(tmp_path / "none.h5"))
    refused("holds no synapses: they are read from CREMI files", found=str(tmp_path / "guess.zarr"))
    refused(f"found.h5 has no {CLEFTS}: give the volume itself", clefts=CleftsSpec())
    refused("has no volumes/labels/neuron_ids", truth=spec.found, metrics=("partners",))
    coarse = volume(tmp_path / "coarse.zarr", np.zeros(SHAPE, np.uint8), Grid((40.0, 8.0, 8.0)))
    refused("not on the voxel grid", clefts=CleftsSpec(found=coarse))
    raw = volume(tmp_path / "raw.zarr", np.zeros(SHAPE, np.uint8), Grid((40.0, 8.0, 8.0)), kind="raw")
    refused("not on the voxel grid", raw=raw)
    signed = volume(tmp_path / "signed.zarr", np.zeros(SHAPE, np.int32), kind=None)
    refused("stores int32", clefts=CleftsSpec(found=signed))
    refused("stores int32", segmentation=signed)
    far = cremi(tmp_path / "far.h5", [((1, 10, 10), (1, 20, 90))])
    refused("the post site of pair 0 lies at", found=far)
    stranger = cremi(tmp_path / "stranger.h5", TRUE)
    with h5py.File(stranger, "r+") as h5:
        h5["annotations/presynaptic_site/partners"][0, 1] = 999
    refused("name the site 999, which does not exist", found=stranger)
    loose = spec.model_copy(update={"found": far, "partners": PartnersSpec(outside="unmatched")})
    row = evaluate_synapses(loose).row
    assert (row["partner_fp"], row["n_connections_found"]) == (1, 0)


def test_what_is_wrong_is_drawn_with_its_sites(tmp_path: Path) -> None:
    raw = np.random.default_rng(0).integers(90, 160, SHAPE).astype(np.uint8)
    spec = spec_of(tmp_path, raw=volume(tmp_path / "raw.zarr", raw, kind="raw"))
    result = evaluate_synapses(spec)
    page = write_synapse_report(spec, result).read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "missed: sites 104 and 105, from segment 2 to segment 3; the nearest other pair is 140 nm away" in page
    assert "invented: sites 104 and 105, from segment 4 to segment 3" in page
    for name in EVERY:
        for value in METRICS[name].values:
            assert value.title in page.replace("&#39;", "'")
    bare = spec.model_copy(update={"raw": None, "metrics": ("partners",)})
    page = write_synapse_report(bare, evaluate_synapses(bare)).read_text()
    assert "data:image/png;base64," not in page
    assert "There are no pictures" in page


def test_marks_lie_on_the_sites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The centre of the pre site's ring, in every tile, is the middle of its voxel."""
    from emloom.tasks import synapseplaces

    tiles = []
    monkeypatch.setattr(synapseplaces, "panel", lambda given, **_: tiles.extend(given))
    path = volume(tmp_path / "raw.zarr", np.zeros(SHAPE, np.uint8), kind="raw")
    scene = synapseplaces.scene_of(path, None)
    assert scene is not None
    pre, post = ((np.array(v) * GRID.voxel_size_nm + np.array(GRID.offset_nm)) for v in ((2, 20, 30), (2, 45, 30)))
    synapseplaces.picture(scene, pre, post, "here")
    for tile, axes in zip(tiles, ((1, 2), (0, 2), (0, 1)), strict=True):
        where = np.argwhere((tile.image == RING_RGB).all(axis=2)) + 0.5
        assert len(where)
        centre = (where.min(axis=0) + where.max(axis=0)) / 2 * tile.spacing_nm
        expected = (np.array((2, 20, 30)) + 0.5)[list(axes)] * np.array(GRID.voxel_size_nm)[list(axes)]
        assert np.abs(centre - expected).max() <= max(tile.spacing_nm)


def test_a_window_of_another_volume_is_cut_where_it_lies(tmp_path: Path) -> None:
    array = np.arange(1, np.prod(SHAPE) + 1, dtype=np.uint32).reshape(SHAPE)
    part = Box((2, 10, 10), (3, 20, 20))
    ground = open_volume(volume(tmp_path / "ground.zarr", array))
    inner = open_volume(volume(tmp_path / "inner.zarr", array[part.slices()], GRID.crop(part)))
    window = Box((1, 5, 25), (3, 10, 20))
    expected = np.where(np.isin(array, array[part.slices()]), array, 0)[window.slices()]
    assert (read_window(inner, ground, window) == expected).all()


@pytest.mark.real_data
def test_real_synapses_moved_and_thinned(tmp_path: Path, real_data: Path) -> None:
    """Real synapse masks and neurons; the result is the truth without one synapse, shifted by one pixel."""
    source = real_data / "isbi2012_cardona" / "train_z00-19.h5"
    with h5py.File(source) as h5:
        ids = h5["volumes/labels/synapse_ids"][()]
        neurons = h5["volumes/labels/neuron_ids"][()].astype(np.uint64)
    grid = Grid((50.0, 4.0, 4.0))
    pairs = []
    for one in np.unique(ids[ids > 0]):
        z, y, x = np.argwhere(ids == one).T
        # From the first voxel of the synapse to the last: two real places, whatever neurons lie there.
        pairs.append(((z[0], y[0], x[0]), (z[-1], y[-1], x[-1])))
    found = np.where(ids == ids.max(), 0, np.roll(ids, 1, axis=2)).astype(np.uint8)
    spec = SynapseSpec(
        truth=cremi(tmp_path / "truth.h5", pairs, neurons=neurons, grid=grid),
        found=cremi(tmp_path / "found.h5", pairs[:-1], grid=grid),
        output=str(tmp_path / "out"),
        metrics=EVERY,
        clefts=CleftsSpec(
            truth=f"{source}/volumes/labels/synapse_ids", found=volume(tmp_path / "found.zarr", found, grid)
        ),
        raw=f"{source}/volumes/raw",
    )
    result = evaluate_synapses(spec)
    at_once = cleft_scores(ids, found, (50, 4, 4), zero_is_background=True)
    assert result.row["cleft_cremi_score_nm"] == at_once.cremi_score_nm
    assert result.row["partner_fn"] == 1
    assert result.row["partner_fp"] == 0
    places = [np.array([p[k] for p in pairs], float) * grid.voxel_size_nm for k in range(2)]
    truth = PartnerPairs(*places)
    fewer = replace(truth, pre_nm=truth.pre_nm[:-1], post_nm=truth.post_nm[:-1])
    assert partner_scores(truth, fewer, neurons, grid).tp == result.row["partner_tp"]
    page = write_synapse_report(spec, result).read_text()
    assert page.count("data:image/png;base64,") == 1
