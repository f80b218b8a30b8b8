"""GraphML: what networkx reads is what was written."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from emloom.errors import InputError
from emloom.io.graphml import write_graphml

NODES = {
    "id": np.array([3, 2**62, 7], np.uint64),
    "voxels": np.array([5, 2**40, 0]),
    "name": np.array(["a", "<&>\"'", "é"]),
}
EDGES = {
    "pre": np.array([3, 3], np.uint64),
    "post": np.array([3, 2**62], np.uint64),
    "weight": np.array([2, 9]),
    "mean_score": np.array([0.1, 1 / 3]),
    "max_score": np.array([0.1, 1], np.float32),
}


def test_networkx_reads_what_was_written(tmp_path: Path) -> None:
    write_graphml(tmp_path / "g.graphml", NODES, EDGES, ("pre", "post"))
    graph = nx.read_graphml(tmp_path / "g.graphml", node_type=int)
    assert graph.is_directed()
    assert dict(graph.nodes(data=True)) == {
        3: {"voxels": 5, "name": "a"},
        2**62: {"voxels": 2**40, "name": "<&>\"'"},
        7: {"voxels": 0, "name": "é"},
    }
    assert sorted(graph.edges(data=True)) == [
        (3, 3, {"weight": 2, "mean_score": 0.1, "max_score": float(np.float32(0.1))}),
        (3, 2**62, {"weight": 9, "mean_score": 1 / 3, "max_score": 1.0}),
    ]


def test_no_edge_and_no_node(tmp_path: Path) -> None:
    none = {name: column[:0] for name, column in EDGES.items()}
    write_graphml(tmp_path / "a.graphml", NODES, none, ("pre", "post"))
    assert len(nx.read_graphml(tmp_path / "a.graphml")) == 3
    write_graphml(
        tmp_path / "b.graphml", {name: column[:0] for name, column in NODES.items()}, none, ("pre", "post")
    )
    assert len(nx.read_graphml(tmp_path / "b.graphml")) == 0


def test_an_edge_to_nowhere_and_a_strange_column_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ends at 3, which is no node"):
        write_graphml(tmp_path / "g.graphml", {"id": np.array([2**62], np.uint64)}, EDGES, ("pre", "post"))
    with pytest.raises(InputError, match="complex"):
        write_graphml(tmp_path / "g.graphml", NODES | {"z": np.zeros(3, complex)}, EDGES, ("pre", "post"))
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "g.graphml"
    write_graphml(path, NODES, EDGES, ("pre", "post"))
    with pytest.raises(InputError, match="exists"):
        write_graphml(path, NODES, EDGES, ("pre", "post"))
    write_graphml(path, NODES, EDGES, ("pre", "post"), overwrite=True)
