"""Connectomes for other programs: read back by them, or by our own readers, they are what they were."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import h5py
import networkx as nx
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry.synapses import SynapseTable
from emloom.io.annotationlayers import read_annotation_lines
from emloom.io.cremi import read_annotations
from emloom.io.cremisynapses import table_of
from emloom.io.nml import read_nml_tracing
from emloom.io.synapsetable import read_synapse_table, write_synapse_table
from emloom.metrics.partnerpairs import PartnerPairs, site_voxels
from emloom.ops.synapsetracing import synapses_of
from emloom.tasks.connectome import ConnectomeJob, connectome
from emloom.tasks.connectomeexport import ExportGraphSpec, export_graph
from emloom.tasks.connectomegraph import read_graph, to_networkx
from tests.tasks.drawnsynapses import GRID, SHAPE, drawn, labels, stored


def made(folder: Path, table: SynapseTable, array: np.ndarray | None) -> Path:
    write_synapse_table(folder / "s.parquet", table)
    given = {"synapses": str(folder / "s.parquet"), "output": str(folder / "graph")}
    if array is not None:
        given["segmentation"] = stored(folder / "seg.zarr", array)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("emloom.tasks.connectome.write_connectome_report", lambda *_: None)
        return connectome(ConnectomeJob(**given)).folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("export"), drawn(3), labels(3))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a connectome without a segmentation."""
    return made(tmp_path_factory.mktemp("alone"), drawn(3), None)


def used(folder: Path) -> SynapseTable:
    graph = read_graph(folder)
    return graph.synapses.rows(np.flatnonzero(graph.left_out == ""))


def export(folder: Path, to: str, output: Path, **more) -> Path:
    export_graph(ExportGraphSpec(graph=str(folder), to=to, output=str(output), **more))
    return output


def test_graphml_is_the_graph_of_networkx(folder: Path, tmp_path: Path) -> None:
    read = nx.read_graphml(export(folder, "graphml", tmp_path / "g.graphml"), node_type=int)
    want = to_networkx(folder)
    assert dict(read.nodes(data=True)) == dict(want.nodes(data=True))
    for a, b, words in want.edges(data=True):
        words.pop("count")
        assert read.edges[a, b] == words
    assert read.number_of_edges() == want.number_of_edges()


def test_cremi_finds_the_same_voxels(folder: Path, tmp_path: Path) -> None:
    table = used(folder)
    path = export(folder, "cremi", tmp_path / "c.h5")
    read = read_annotations(path)
    pairs = PartnerPairs.from_sites(read.ids, read.locations_nm, read.partners)
    voxels, inside = site_voxels(pairs, SHAPE, GRID)
    assert inside.all()
    array = labels(3)
    z, y, x = np.moveaxis(voxels, -1, 0)
    assert np.array_equal(array[z, y, x], np.stack([table.pre_segments, table.post_segments], axis=1))
    back = table_of(read, GRID.voxel_size_nm)
    np.testing.assert_allclose(back.post_nm, table.post_nm, atol=1e-9)
    with h5py.File(path) as h5:
        assert h5.attrs["file_format"] == "0.2"
        assert (h5["annotations/types"].asstr()[()] == "presynaptic_site").sum() == len(np.unique(table.polyads))


def test_nml_comes_back_with_polyads(folder: Path, tmp_path: Path) -> None:
    table = used(folder)
    back = synapses_of(read_nml_tracing(export(folder, "nml", tmp_path / "s.nml")))
    assert np.array_equal(back.ids, table.ids)
    assert np.array_equal(back.scores, table.scores)
    np.testing.assert_allclose(back.pre_nm, table.pre_nm, atol=1e-9)
    assert np.array_equal(back.polyads[:, None] == back.polyads, table.polyads[:, None] == table.polyads)


def test_annotations_and_states_count_in_voxels(folder: Path, tmp_path: Path) -> None:
    table = used(folder)
    ids, lines = read_annotation_lines(export(folder, "annotations", tmp_path / "a"))
    assert np.array_equal(ids, table.ids)
    np.testing.assert_allclose(lines["points"][:, 0, ::-1] * np.array(GRID.voxel_size_nm), table.pre_nm, rtol=1e-6)
    address = "precomputed://https://example.org/seg"
    state = json.loads(export(folder, "neuroglancer", tmp_path / "s.json", segmentation=address).read_text())
    assert state["layers"][0]["source"] == address
    assert len(state["layers"][1]["annotations"]) == len(table)


def test_neuprint_has_the_edges(folder: Path, tmp_path: Path) -> None:
    path = export(folder, "neuprint", tmp_path / "np") / "Neuprint_Neuron_Connections.csv"
    rows = [tuple(map(int, row)) for row in list(csv.reader(path.read_text().splitlines()))[1:]]
    edges = read_graph(folder).edges
    assert rows == list(zip(edges.pre.tolist(), edges.counts.tolist(), edges.post.tolist(), strict=True))


def test_csv_is_the_three_tables(folder: Path, tmp_path: Path) -> None:
    path = export(folder, "csv", tmp_path / "csv", every=True)
    assert sorted(p.name for p in path.iterdir()) == ["edges.csv", "neurons.csv", "synapses.csv"]
    table = read_synapse_table(path / "synapses.csv")
    assert np.array_equal(table.pre_nm, read_graph(folder).synapses.pre_nm)
    assert len(table) == 60
    assert len(read_synapse_table(export(folder, "csv", tmp_path / "used") / "synapses.csv")) == len(used(folder))


def test_every_writes_what_was_left_out(folder: Path, tmp_path: Path) -> None:
    assert len(read_annotation_lines(export(folder, "annotations", tmp_path / "a", every=True))[0]) == 60
    assert len(read_annotations(export(folder, "cremi", tmp_path / "c.h5", every=True)).partners) == 60


def test_without_a_segmentation_the_voxel_size_is_asked_for(alone: Path, tmp_path: Path) -> None:
    for to, name in (("cremi", "c.h5"), ("neuprint", "np"), ("nml", "s.nml")):
        with pytest.raises(InputError, match="does not say a voxel size"):
            export(alone, to, tmp_path / name)
        export(alone, to, tmp_path / name, voxel_size_nm=GRID.voxel_size_nm)
    lines = read_annotation_lines(export(alone, "annotations", tmp_path / "a"))[1]
    np.testing.assert_allclose(lines["points"][:, 1, ::-1], used(alone).post_nm, rtol=1e-6)  # nm


@pytest.mark.parametrize("to", ["graphml", "neuprint", "cremi", "annotations", "neuroglancer", "nml", "csv"])
def test_an_empty_graph_is_an_empty_file(tmp_path: Path, to: str) -> None:
    folder = made(tmp_path, SynapseTable.empty(), labels(1))
    name = {"graphml": "g.graphml", "cremi": "c.h5", "neuroglancer": "s.json", "nml": "s.nml"}.get(to, "out")
    assert export(folder, to, tmp_path / name).exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"to": "graphml", "output": "g.xml"}, "end it with .graphml"),
        ({"to": "cremi", "output": "c.nml"}, "end it with .h5"),
        ({"to": "graphml", "output": "g.graphml", "every": True}, "leave out --every"),
        ({"to": "nml", "output": "s.nml", "segmentation": "precomputed://x"}, "with neuroglancer only"),
        ({"to": "nml", "output": "s.nml", "voxel_size_nm": (1.0, 2.0, 3.0)}, "leave out the voxel size"),
        ({"to": "csv", "output": "there"}, "exists"),
    ],
)
def test_bad_input_is_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    with pytest.raises(InputError, match=message):
        export_graph(ExportGraphSpec(graph=str(folder), **more))
    assert [p.name for p in tmp_path.iterdir()] == ["there"]
