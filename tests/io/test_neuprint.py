"""neuPrint's files: their headers, and the graph that they tell joined together."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from emloom.errors import InputError
from emloom.geometry.synapses import SynapseTable
from emloom.io.neuprint import write_neuprint
from emloom.ops.connectome import edges_of, neurons_of
from tests.tasks.drawnsynapses import GRID, between, drawn

HEADERS = {
    "Neurons": ":ID(Body-ID),bodyId:long,pre:int,post:int,upstream:int,downstream:int,size:long,:LABEL",
    "Neuron_Connections": ":START_ID(Body-ID),weight:int,:END_ID(Body-ID)",
    "Synapses": ":ID(Syn-ID),type:string,confidence:float,location:point{srid:9157},:Label",
    "Synapse_Connections": ":START_ID(Syn-ID),:END_ID(Syn-ID)",
    "SynapseSet": ":ID(SynSet-ID),:Label",
    "Neuron_to_SynapseSet": ":START_ID(Body-ID),:END_ID(SynSet-ID)",
    "SynapseSet_to_Synapses": ":START_ID(SynSet-ID),:END_ID(Syn-ID)",
    "SynapseSet_to_SynapseSet": ":START_ID(SynSet-ID),:END_ID(SynSet-ID)",
}


def written(folder: Path, table: SynapseTable) -> dict[str, list[list[str]]]:
    neurons = neurons_of(table, edges_of(table), np.array([1, 500], np.uint64), np.array([7, 8]))
    columns = {"id": neurons.ids, "voxels": neurons.voxels, "pre_sites": neurons.pre_sites}
    columns |= {"outputs": neurons.outputs, "inputs": neurons.inputs}
    write_neuprint(folder, columns, table, GRID)
    out = {}
    for path in folder.iterdir():
        rows = list(csv.reader(path.read_text().splitlines()))
        name = path.stem.removeprefix("Neuprint_")
        assert ",".join(rows[0]) == HEADERS[name]
        out[name] = rows[1:]
    assert set(out) == set(HEADERS)
    return out


def within(table: SynapseTable) -> SynapseTable:
    return table.rows(np.flatnonzero((table.pre_segments != 0) & (table.post_segments != 0)))


@pytest.mark.parametrize("seed", range(3))
def test_joined_together_the_files_tell_the_table(tmp_path: Path, seed: int) -> None:
    table = within(drawn(seed))
    found = written(tmp_path / "cube", table)
    body_of_set = {b: int(a) for a, b in found["Neuron_to_SynapseSet"]}
    bodies: dict[str, set[int]] = {}
    for set_id, synapse in found["SynapseSet_to_Synapses"]:
        bodies.setdefault(synapse, set()).add(body_of_set[set_id])
    assert all(len(bodies[row[0]]) == 1 for row in found["Synapses"])
    body = {synapse: next(iter(ids)) for synapse, ids in bodies.items()}
    joined = Counter((body[a], body[b]) for a, b in found["Synapse_Connections"])
    want = Counter(zip(table.pre_segments.tolist(), table.post_segments.tolist(), strict=True))
    assert joined == want
    assert {(int(a), int(b)): int(w) for a, w, b in found["Neuron_Connections"]} == want
    assert [row[1] for row in found["Synapses"]].count("pre") == len(np.unique(table.polyads))
    by_id = {row[0]: row for row in found["Neurons"]}
    pre_sites = Counter(body[row[0]] for row in found["Synapses"] if row[1] == "pre")
    for number, row in by_id.items():
        n = int(number)
        assert int(row[2]) == pre_sites[n]
        assert int(row[5]) == sum(w for (a, _), w in want.items() if a == n)
        assert int(row[3]) == int(row[4]) == sum(w for (_, b), w in want.items() if b == n)
    assert by_id["500"][6:] == ["8", "Segment;cube_Segment"]
    assert by_id["1"][7] == "Segment;cube_Segment;Neuron;cube_Neuron"


def test_locations_are_voxels_x_y_z(tmp_path: Path) -> None:
    table = between([(1, 2)])
    table = SynapseTable(
        table.ids, table.polyads, np.array([GRID.centre((3, 4, 5))]), np.array([GRID.to_world((6, 7, 8))]),
        table.pre_segments, table.post_segments, table.sizes_vox, table.scores,
    )  # fmt: skip
    rows = written(tmp_path / "cube", table)["Synapses"]
    assert [row[3] for row in rows] == ["{x:5, y:4, z:3}", "{x:8, y:7, z:6}"]


def test_no_contact_is_files_of_headers(tmp_path: Path) -> None:
    found = written(tmp_path / "cube", SynapseTable.empty())
    assert {name: len(rows) for name, rows in found.items()} == dict.fromkeys(HEADERS, 0) | {"Neurons": 2}


def test_a_site_in_no_neuron_is_refused(tmp_path: Path) -> None:
    columns = {name: np.array([1]) for name in ("id", "voxels", "pre_sites", "outputs", "inputs")}
    with pytest.raises(InputError, match="in no neuron"):
        write_neuprint(tmp_path / "cube", columns, between([(1, 0)]), GRID)
