"""`emloom connectome`: segments under sites, look-up tables, what is left out, resuming, and bad input."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import h5py
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.synapses import SynapseTable
from emloom.io.annotations import POST, PRE, Annotations
from emloom.io.cremi import write_annotations
from emloom.io.graphstore import write_lut
from emloom.io.nml import write_nml
from emloom.io.synapsetable import SYNAPSES, read_synapse_table, to_columns, write_synapse_table
from emloom.io.tables import read_table
from emloom.io.volume import ArrayVolume
from emloom.metrics.partnerpairs import PartnerPairs, segments_of
from emloom.ops.labels import apply_lut
from emloom.ops.synapsetracing import tracing_of
from emloom.run.executor import Serial
from emloom.tasks import connectomevoxels
from emloom.tasks.connectome import ConnectomeJob, connectome
from emloom.tasks.connectomegraph import graph_of, read_graph, to_networkx
from emloom.tasks.connectomereport import write_connectome_report
from emloom.tasks.connectomesource import SiteSegments, segments_at, segments_said
from emloom.tasks.resume import result_status, retry
from emloom.tasks.segmenting import segment
from emloom.tasks.segmentspec import SegmentJob, SegmentSpec
from emloom.tasks.synapsesource import read_source
from tests.tasks import weaving
from tests.tasks.drawnsynapses import GRID, SHAPE, between, drawn, labels, stored

NONE = (np.zeros(0, np.uint64), np.zeros(0, np.int64))


@pytest.fixture(autouse=True)
def _no_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw no page, which takes longer than all else, but in the tests of it."""
    if "page" not in request.node.name and "no_synapse" not in request.node.name:
        monkeypatch.setattr("emloom.tasks.connectome.write_connectome_report", lambda *_: None)


def saved(folder: Path, table: SynapseTable, words: dict[str, str] | None = None) -> str:
    folder.mkdir(exist_ok=True)
    write_synapse_table(folder / SYNAPSES, table, words)
    return str(folder)


def job(
    tmp_path: Path, table: SynapseTable, array: np.ndarray | None, name: str = "graph", **more
) -> ConnectomeJob:
    given = {"synapses": saved(tmp_path / "syn", table), "output": str(tmp_path / name), **more}
    if array is not None:
        path = tmp_path / "seg.zarr"
        given["segmentation"] = str(path) if path.exists() else stored(path, array)
    return ConnectomeJob(**given)


def at_sites(table: SynapseTable, array: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (pre, post, outside) the slow way: one site after the other."""
    found = [[], []]
    outside = np.zeros(len(table), bool)
    for side, points in enumerate((table.pre_nm, table.post_nm)):
        for row, point in enumerate(points.tolist()):
            voxel = GRID.containing(point)
            inside = all(0 <= v < n for v, n in zip(voxel, array.shape, strict=True))
            found[side].append(int(array[voxel]) if inside else 0)
            outside[row] |= not inside
    return np.array(found[0], np.uint64), np.array(found[1], np.uint64), outside


# ---- what it makes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_segments_are_those_under_the_sites(tmp_path: Path, seed: int) -> None:
    table, array = drawn(seed), labels(seed)
    report = connectome(job(tmp_path, table, array, block_vox=(3, 10, 24)))
    pre, post, outside = at_sites(table, array)
    found = read_synapse_table(report.folder)
    assert np.array_equal(found.pre_segments, pre)
    assert np.array_equal(found.post_segments, post)
    why = read_table(report.folder / SYNAPSES)["left_out"]
    background = ~outside & ((pre == 0) | (post == 0))
    assert np.array_equal(why == "outside", outside)
    assert np.array_equal(why == "background", background)
    assert report.left_out == {
        "outside": outside.sum(), "background": background.sum(), "autapse": 0, "score": 0, "weight": 0
    }  # fmt: skip
    assert report.contacts == len(table) == report.used + sum(report.left_out.values())
    ids, voxels = np.unique(array[array != 0], return_counts=True)
    neurons = read_table(report.folder / "neurons.parquet")
    assert neurons["id"].tolist() == ids.tolist()
    assert neurons["voxels"].tolist() == voxels.tolist()
    used = ~outside & ~background
    pairs, counts = np.unique(np.stack([pre[used], post[used]], axis=1), axis=0, return_counts=True)
    edges = read_table(report.folder / "edges.parquet")
    assert np.array_equal(np.stack([edges["pre"], edges["post"]], axis=1), pairs)
    assert np.array_equal(edges["count"], counts)
    assert (report.edges, report.connected) == (len(pairs), len(np.unique(pairs)))
    assert "left out: outside" in report.to_text()


def test_what_is_read_is_what_was_made(tmp_path: Path) -> None:
    table, array = drawn(4), labels(4)
    report = connectome(job(tmp_path, table, array, minimum_score=0.2))
    graph = read_graph(report.folder)
    pre, post, outside = at_sites(table, array)
    ids, voxels = np.unique(array[array != 0], return_counts=True)
    made = graph_of(table, SiteSegments(pre, post, outside), (ids, voxels), _rules(0.2))
    for name, column in to_columns(made.synapses).items():
        assert np.array_equal(column, to_columns(graph.synapses)[name]), name
    for a, b in ((made.edges, graph.edges), (made.neurons, graph.neurons)):
        assert all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    assert np.array_equal(made.left_out, graph.left_out)
    assert json.loads(graph.words["voxel_size_nm"]) == list(GRID.voxel_size_nm)


def _rules(score: float):
    from emloom.ops.connectome import Rules

    return Rules(minimum_score=score)


def test_networkx_has_neurons_and_edges(tmp_path: Path) -> None:
    report = connectome(job(tmp_path, drawn(5), labels(5)))
    graph = to_networkx(report.folder)
    assert isinstance(graph, nx.DiGraph)
    edges, neurons = (read_table(report.folder / f"{name}.parquet") for name in ("edges", "neurons"))
    assert list(graph.nodes) == neurons["id"].tolist()
    assert {(a, b): d["weight"] for a, b, d in graph.edges(data=True)} == dict(
        zip(zip(edges["pre"].tolist(), edges["post"].tolist(), strict=True), edges["count"].tolist(), strict=True)
    )
    assert dict(graph.out_degree()) == dict(
        zip(neurons["id"].tolist(), neurons["partners_out"].tolist(), strict=True)
    )
    assert dict(graph.in_degree()) == dict(
        zip(neurons["id"].tolist(), neurons["partners_in"].tolist(), strict=True)
    )


@given(st.integers(0, 10**6))
@settings(deadline=None, max_examples=25)
def test_another_segmentation_without_another_detection(seed: int) -> None:
    """Looking up in merged labels is looking up and merging, and permuted labels permute the graph."""
    rng, table, array = np.random.default_rng(seed), drawn(seed), labels(seed)
    keys = np.arange(10, dtype=np.uint64)
    values = np.concatenate([[0], rng.integers(1, 6, 9) if seed % 2 else rng.permutation(keys[1:])]).astype(
        np.uint64
    )
    here, there = (
        segments_at(table, ArrayVolume(a, GRID, "labels")) for a in (array, apply_lut(array, keys, values))
    )
    mapped = here.mapped([(keys, values)])
    assert np.array_equal(mapped.pre, there.pre)
    assert np.array_equal(mapped.post, there.post)
    a, b = graph_of(table, here, NONE), graph_of(table, there, NONE)
    merged = a.edges.merged(keys, values)
    assert all(np.array_equal(getattr(merged, f.name), getattr(b.edges, f.name)) for f in fields(merged))
    assert np.array_equal(a.left_out, b.left_out)


def test_a_lut_maps_segments_voxels_and_edges(tmp_path: Path) -> None:
    table, array = drawn(6), labels(6)
    keys, values = np.array([2, 3, 5], np.uint64), np.array([1, 1, 0], np.uint64)
    write_lut(tmp_path / "lut.parquet", keys, values)
    plain = connectome(job(tmp_path, table, array))
    mapped = connectome(job(tmp_path, table, array, "mapped", lut=str(tmp_path / "lut.parquet")))
    want = read_graph(plain.folder).edges.merged(keys, values)
    found = read_graph(mapped.folder)
    assert all(np.array_equal(getattr(want, f.name), getattr(found.edges, f.name)) for f in fields(want))
    merged = apply_lut(array, keys, values)
    ids, voxels = np.unique(merged[merged != 0], return_counts=True)
    assert found.neurons.ids.tolist() == ids.tolist()
    assert found.neurons.voxels.tolist() == voxels.tolist()
    # From the table of the first graph, without any volume.
    again = connectome(
        ConnectomeJob(
            synapses=str(plain.folder), output=str(tmp_path / "again"), lut=str(tmp_path / "lut.parquet")
        )
    )
    edges = read_graph(again.folder).edges
    assert all(np.array_equal(getattr(want, f.name), getattr(edges, f.name)) for f in fields(want))


def test_the_table_of_a_graph_has_the_same_graph(tmp_path: Path) -> None:
    first = connectome(job(tmp_path, drawn(7), labels(7)))
    again = connectome(ConnectomeJob(synapses=str(first.folder), output=str(tmp_path / "again")))
    assert first.edges == again.edges
    a, b = read_graph(first.folder), read_graph(again.folder)
    assert np.array_equal(a.edges.score_sums, b.edges.score_sums)
    assert again.left_out["background"] == first.left_out["background"] + first.left_out["outside"]


def test_blocks_change_nothing(tmp_path: Path) -> None:
    table, array = drawn(8), labels(8)
    whole = connectome(job(tmp_path, table, array, "whole"))
    parts = connectome(job(tmp_path, table, array, "parts", block_vox=(3, 24, 7)))
    for name in (SYNAPSES, "edges.parquet", "neurons.parquet"):
        assert (whole.folder / name).read_bytes() == (parts.folder / name).read_bytes()


def test_a_crash_is_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = job(tmp_path, drawn(9), labels(9), block_vox=(2, 24, 24))
    whole = connectome(job(tmp_path, drawn(9), labels(9), "whole"))
    count, seen = connectomevoxels.CountVoxels.__call__, []

    def failing(self, block):
        seen.append(block.index)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return count(self, block)

    monkeypatch.setattr(connectomevoxels.CountVoxels, "__call__", failing)
    with pytest.raises(KeyboardInterrupt):
        connectome(given, executor=Serial())
    assert not Path(given.output).exists()
    before = len(seen)
    connectome(given)
    assert len(seen) - before == 4 - 2  # two blocks were done
    for name in (SYNAPSES, "edges.parquet", "neurons.parquet"):
        assert (Path(given.output) / name).read_bytes() == (whole.folder / name).read_bytes()
    assert connectome(given).to_dict() == connectome(given).to_dict()
    assert len(seen) == before + 2


def test_no_autapses_minimum_score_and_weight(tmp_path: Path) -> None:
    table = between([(1, 1), (1, 2), (1, 2), (1, 2), (3, 2)], [1, 0.2, 0.9, 0.9, 1])
    rules = {"autapses": False, "minimum_score": 0.5, "minimum_weight": 2}
    report = connectome(job(tmp_path, table, None, **rules))
    edges = read_table(report.folder / "edges.parquet")
    assert {name: column.tolist() for name, column in edges.columns.items()} == {
        "pre": [1], "post": [2], "count": [2], "size_vox": [20],
        "mean_score": [pytest.approx(0.9)], "max_score": [np.float32(0.9)],
    }  # fmt: skip
    assert report.left_out == {"outside": 0, "background": 0, "autapse": 1, "score": 1, "weight": 1}


def test_the_page_shows_what_was_made(tmp_path: Path) -> None:
    report = connectome(job(tmp_path, drawn(10), labels(10)))
    page = (report.folder / "report.html").read_text()
    assert page.count("<img") == 2
    for alt in re.findall(r'alt="([^"]*)"', page):
        assert len(alt) > 20
    for word in (
        "Strongest connections",
        "Adjacency matrix",
        "Weights and degrees",
        f"of {report.contacts} in the",
    ):
        assert word in page
    assert json.loads((report.folder / "provenance.json").read_text())["spec"]["autapses"] is True


# ---- other sources ----------------------------------------------------------------------------------------------


def test_a_cremi_file_and_a_tracing_are_tables_too(tmp_path: Path) -> None:
    table, array = drawn(11, n=20), labels(11)
    ours = connectome(job(tmp_path, table, array))
    half = np.array(GRID.voxel_size_nm) / 2
    pre = np.unique(table.polyads, return_index=True)[1]
    ids = np.concatenate([table.polyads[pre], 100 + table.ids])
    points = np.concatenate([table.pre_nm[pre], table.post_nm]) - half
    partners = np.stack([table.polyads, 100 + table.ids], axis=1)
    lonely = np.array([999], np.uint64)
    words = Annotations(
        np.concatenate([ids, lonely]), (PRE,) * len(pre) + (POST,) * (len(table) + 1),
        np.concatenate([points, [[500.0, 60.0, 100.0]]]), np.concatenate([partners, partners[:1]]),
    )  # fmt: skip
    write_annotations(tmp_path / "a.h5", words)
    write_nml(tmp_path / "a.nml", tracing_of(table, GRID.voxel_size_nm))
    for name, more in (("a.h5", {"voxel_size_nm": GRID.voxel_size_nm}), ("a.nml", {})):
        given = {"synapses": str(tmp_path / name), "segmentation": str(tmp_path / "seg.zarr"), **more}
        report = connectome(ConnectomeJob(output=str(tmp_path / f"{name}.graph"), **given))
        a, b = read_graph(ours.folder).edges, read_graph(report.folder).edges
        assert all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("pre", "post", "counts"))
        notes = " ".join(report.notes)
        assert ("1 sites have no partner" in notes and "1 pairs of partners" in notes) == (name == "a.h5")


def test_the_voxel_size_of_a_cremi_file_is_its_volumes(tmp_path: Path) -> None:
    words = Annotations(np.array([1, 2], np.uint64), (PRE, POST), np.zeros((2, 3)), np.array([[1, 2]], np.uint64))
    write_annotations(tmp_path / "a.h5", words)
    with pytest.raises(InputError, match="holds no volume that states a voxel size"):
        read_source(str(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5", "r+") as h5:
        h5["volumes/raw"] = np.zeros((2, 2, 2), np.uint8)
        h5["volumes/raw"].attrs["resolution"] = (40.0, 4.0, 4.0)
    assert read_source(str(tmp_path / "a.h5")).table.pre_nm.tolist() == [[20.0, 2.0, 2.0]]


def test_csv_has_no_words(tmp_path: Path) -> None:
    write_synapse_table(tmp_path / "s.csv", drawn(1))
    source = read_source(str(tmp_path / "s.csv"))
    assert source.words == {}
    assert len(source.table) == 60


# ---- what is told, and bad input --------------------------------------------------------------------------------


def test_no_synapse_is_a_graph_without_edges_and_a_note(tmp_path: Path) -> None:
    array = labels(1)
    report = connectome(job(tmp_path, SynapseTable.empty(), array))
    assert (report.edges, report.used, report.contacts, report.connected) == (0, 0, 0, 0)
    assert report.neurons == len(np.unique(array[array != 0]))
    assert "holds no synapse" in " ".join(report.notes)
    assert len(read_graph(report.folder).edges) == 0
    page = (report.folder / "report.html").read_text()
    assert "holds no synapse" in page
    assert "<img" not in page


def test_a_table_of_another_segmentation_is_told(tmp_path: Path) -> None:
    table, array = drawn(2), labels(2)
    given = job(tmp_path, table, array)
    saved(tmp_path / "syn", table, {"segmentation": "/elsewhere/other.zarr"})
    report = connectome(given)
    pre, post, _ = at_sites(table, array)
    said = np.concatenate([table.pre_segments, table.post_segments])
    differ = ((said != np.concatenate([pre, post])) & (said != 0)).sum()
    assert report.notes == (
        "the table says that its segments are of /elsewhere/other.zarr; they were looked up anew",
        f"{differ} of {len(said)} sites lie in another segment than the table says",
    )
    assert connectome(given).notes == report.notes  # a finished result says the same


def test_a_table_of_the_same_segmentation_is_no_news(tmp_path: Path) -> None:
    given = job(tmp_path, drawn(2), array := labels(2))
    first = connectome(given)
    again = connectome(job(tmp_path, drawn(2), array, "again").model_copy(update={"synapses": str(first.folder)}))
    assert (again.notes, again.edges) == ((), first.edges)
    # One that was mapped is of no volume, and says so.
    write_lut(tmp_path / "lut.parquet", np.array([2], np.uint64), np.array([1], np.uint64))
    mapped = connectome(job(tmp_path, drawn(2), array, "mapped", lut=str(tmp_path / "lut.parquet")))
    later = connectome(job(tmp_path, drawn(2), array, "later").model_copy(update={"synapses": str(mapped.folder)}))
    assert "mapped by" in later.notes[0]


def test_sides_that_are_not_known_are_told(tmp_path: Path) -> None:
    given = job(tmp_path, drawn(2), None)
    saved(tmp_path / "syn", drawn(2), {"oriented": "no"})
    made = connectome(given)
    assert "edges have no direction" in " ".join(made.notes)
    assert not read_graph(made.folder).directed
    provenance = json.loads((made.folder / "provenance.json").read_text())
    page = write_connectome_report(read_graph(made.folder), made.folder, provenance).read_text()
    assert "without a direction" in page
    assert "Which side sends is not known" in page
    assert "Rows send" not in page


def test_segments_of_the_table_must_be_those_of_the_segmentation(tmp_path: Path) -> None:
    array = labels(3)
    pre, post, outside = at_sites(table := drawn(3), array)
    keep = ~outside
    right = table.rows(keep).with_segments(pre[keep], post[keep])
    report = connectome(job(tmp_path, right, array, segments="table"))
    assert report.used == (pre[keep].astype(bool) & post[keep].astype(bool)).sum()
    post = post[keep].copy()
    post[0] = 77
    wrong = right.with_segments(right.pre_segments, post)
    with pytest.raises(InputError, match=r"names segment 77, which .* lacks \(1 of"):
        connectome(job(tmp_path, wrong, array, "other", segments="table"))
    assert not (tmp_path / "other").exists()


def test_sites_that_all_lie_elsewhere_are_an_error(tmp_path: Path) -> None:
    array = labels(1)
    table = drawn(1, grid=Grid(GRID.voxel_size_nm, (1e6, 0.0, 0.0)))
    with pytest.raises(InputError, match=r"no site of .* lies in .*seg.zarr.*check offset, unit and voxel size"):
        connectome(job(tmp_path, table, array))


def test_a_table_without_segments_alone_has_no_edge_and_says_so(tmp_path: Path) -> None:
    table = drawn(1)
    zero = np.zeros(len(table), np.uint64)
    report = connectome(job(tmp_path, table.with_segments(zero, zero), None))
    assert report.edges == 0
    assert "the table has no segments" in " ".join(report.notes)
    assert report.left_out["background"] == len(table)


def test_ids_that_no_id_can_be_are_refused() -> None:
    big = np.full(60, 2**63, np.uint64)
    with pytest.raises(InputError, match=r"below 2\*\*63"):
        segments_said(drawn(1).with_segments(big, big))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"synapses": "nothing"}, "nothing does not exist: give a folder of emloom synapses"),
        ({"synapses": "raw.zarr"}, "holds no synapses.parquet"),
        ({"segmentation": "raw.zarr"}, "uint8|labels|raw"),
        ({"segmentation": "nothing.zarr"}, "nothing.zarr"),
        ({"lut": "lut.csv"}, "is no look-up table"),
        ({"lut": "nothing.parquet"}, "does not exist"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    good = job(tmp_path, drawn(1), labels(1))
    stored(tmp_path / "raw.zarr", np.zeros(SHAPE, np.float32))
    with pytest.raises(InputError, match=message):
        connectome(good.model_copy(update=more))
    assert not (tmp_path / "graph").exists()


def test_another_job_in_its_place_is_refused(tmp_path: Path) -> None:
    connectome(job(tmp_path, drawn(1), labels(1)))
    with pytest.raises(InputError, match="autapses was true, is false"):
        connectome(job(tmp_path, drawn(1), None, autapses=False, segmentation=str(tmp_path / "seg.zarr")))
    connectome(
        job(tmp_path, drawn(1), None, autapses=False, segmentation=str(tmp_path / "seg.zarr")), discard=True
    )


@pytest.mark.parametrize("name", [SYNAPSES, "edges.parquet", "neurons.parquet"])
def test_a_folder_that_is_no_connectome_is_named(tmp_path: Path, name: str) -> None:
    report = connectome(job(tmp_path, drawn(1), labels(1)))
    (report.folder / name).unlink()
    with pytest.raises(InputError, match=f"holds no {name}"):
        read_graph(report.folder)


def test_tables_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    a = connectome(job(tmp_path, drawn(1), labels(1)))
    b = connectome(job(tmp_path, drawn(2), labels(1), "other"))
    (a.folder / "edges.parquet").write_bytes((b.folder / "edges.parquet").read_bytes())
    with pytest.raises(InputError, match="not those of the contacts"):
        read_graph(a.folder)


# ---- segmentations of emloom, and going on ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return a container of `emloom segment`, and a table of sites in it."""
    folder, shape = tmp_path_factory.mktemp("segment"), (16, 20, 20)
    affinities = weaving.write_affinities(folder / "pred.zarr", weaving.few_values(shape, 3))
    spec = SegmentSpec(thresholds=(0.3,), cell_shape_vox=(16, 16, 16))
    out = segment(
        SegmentJob(affinities=affinities, output=str(folder / "seg.zarr"), threshold=0.6, segmentation=spec)
    )
    return out, saved(folder / "syn", drawn(1, grid=weaving.GRID, shape=shape))


def test_a_container_is_its_segments_not_its_fragments(segmented: tuple[Path, str], tmp_path: Path) -> None:
    seg, syn = segmented
    given = {"synapses": syn, "minimum_weight": 1}
    whole = connectome(ConnectomeJob(segmentation=str(seg), output=str(tmp_path / "a"), **given))
    volume = connectome(ConnectomeJob(segmentation=str(seg / "segmentation"), output=str(tmp_path / "b"), **given))
    for name in ("edges.parquet", "neurons.parquet"):
        a, b = (read_table(report.folder / name).columns for report in (whole, volume))
        assert all(np.array_equal(a[key], b[key]) for key in a)
    assert whole.used > 5


def test_a_lut_file_of_the_tree_gives_the_same_from_fragments(segmented: tuple[Path, str], tmp_path: Path) -> None:
    seg, syn = segmented
    (lut,) = (seg / "graph" / "luts").rglob("0.6.parquet")
    paths = {"synapses": syn, "segmentation": str(seg / "fragments"), "lut": str(lut)}
    mapped = connectome(ConnectomeJob(output=str(tmp_path / "a"), **paths))
    whole = connectome(ConnectomeJob(synapses=syn, segmentation=str(seg), output=str(tmp_path / "b")))
    for name in ("edges.parquet", "neurons.parquet"):
        a, b = (read_table(report.folder / name).columns for report in (mapped, whole))
        assert all(np.array_equal(a[key], b[key]) for key in a)


def test_a_damaged_block_is_found_and_made_again(tmp_path: Path) -> None:
    report = connectome(job(tmp_path, drawn(9), labels(9), block_vox=(4, 24, 24)))
    before = (report.folder / "neurons.parquet").read_bytes()
    (part, *_) = sorted((report.folder / "run" / "voxels-counted").iterdir())
    part.write_bytes(b"nothing")
    assert [damage.index for damage in result_status(report.folder, look=True).damages] == [(0, 0, 0)]
    retry(report.folder, look=True)
    assert result_status(report.folder, look=True).is_well
    assert (report.folder / "neurons.parquet").read_bytes() == before


@pytest.mark.parametrize("seed", range(3))
def test_a_cremi_file_has_the_segments_that_its_metrics_look_up(tmp_path: Path, seed: int) -> None:
    """Whole nm, as CREMI's positions are, often lie just between two voxels: both rules say the same."""
    rng, size = np.random.default_rng(seed), (40.0, 4.0, 4.0)
    array = labels(seed)
    ids = rng.permutation(np.arange(1, 81)).astype(np.uint64)
    places = rng.integers(0, (np.array(SHAPE) - 1) * size, (80, 3)).astype(float)
    partners = np.stack([ids[:40], ids[40:]], axis=1)
    path = tmp_path / "sample.h5"
    write_annotations(path, Annotations(ids, (PRE,) * 40 + (POST,) * 40, places, partners, source="sample"))
    with h5py.File(path, "r+") as h5:
        h5["volumes/labels/neuron_ids"] = np.where(array == 1, np.uint64(0xFFFFFFFFFFFFFFFF), array)
        h5["volumes/labels/neuron_ids"].attrs["resolution"] = size
    given = {"synapses": str(path), "segmentation": f"{path}/volumes/labels/neuron_ids"}
    report = connectome(ConnectomeJob(output=str(tmp_path / "graph"), **given))
    pairs = PartnerPairs(places[:40], places[40:])
    known = np.where(array == 1, np.uint64(0), array)
    want, inside = segments_of(pairs, known, Grid(size))
    assert inside.all()
    found = read_synapse_table(report.folder)
    assert np.array_equal(np.stack([found.pre_segments, found.post_segments], axis=1), want)
    assert report.left_out["background"] == (want == 0).any(axis=1).sum() > 0
    assert 1 not in read_table(report.folder / "neurons.parquet")["id"]  # unlabelled is no neuron
