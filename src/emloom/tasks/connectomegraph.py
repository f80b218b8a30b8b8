"""A connectome as a value: contacts, edges and neurons; its files, and as a `networkx` graph.

Law: ``read_graph(folder)`` is what was written, row by row; only the units of scores are rounded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Grid
from emloom.geometry.synapses import SynapseTable
from emloom.io.synapsetable import ORIENTED, SYNAPSES, of_columns, to_columns
from emloom.io.tables import read_table, write_table
from emloom.ops.connectome import REASONS, Edges, Neurons, Rules, Words, edges_of, left_out, neurons_of
from emloom.tasks.connectomesource import SiteSegments

Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]
EDGES, NEURONS = "edges.parquet", "neurons.parquet"
VOXEL_SIZE, OFFSET = "voxel_size_nm", "offset_nm"


@dataclass(frozen=True, eq=False)
class Graph:
    """A connectome in memory.

    Attributes:
        synapses: all contacts, of the final neurons.
        left_out: n words, why a contact makes no edge; empty where it makes one.
        edges: between neurons.
        neurons: all of them.
        notes: what a person should know.
        words: to be kept with every table.
    """

    synapses: SynapseTable
    left_out: Words
    edges: Edges
    neurons: Neurons
    notes: tuple[str, ...] = ()
    words: Mapping[str, str] = field(default_factory=dict)

    @property
    def directed(self) -> bool:
        """Whether it is known which side of a contact sends."""
        return self.words.get(ORIENTED) != "no"

    @property
    def sides(self) -> str:
        """What rows and columns of its matrix are."""
        return "Rows send, columns receive" if self.directed else "Which side sends is not known"

    @property
    def reasons(self) -> dict[str, int]:
        """How many contacts were left out, by reason; every reason is listed."""
        counts = Counter(self.left_out.tolist())
        return {reason: counts[reason] for reason in REASONS}


def graph_of(
    table: SynapseTable,
    segments: SiteSegments,
    neurons: tuple[Ids, Counts],
    rules: Rules | None = None,
    notes: tuple[str, ...] = (),
    words: Mapping[str, str] | None = None,
) -> Graph:
    """Return the connectome of contacts whose segments are known.

    Args:
        table: contacts.
        segments: of their sites, final.
        neurons: (ids, voxels) of the segmentation, ascending, without 0; empty where there is none.
        rules: which contacts make edges.
        notes: what a person should know.
        words: to be kept with the tables.
    """
    made = table.with_segments(segments.pre, segments.post)
    why = left_out(made, segments.outside, rules or Rules())
    used = made.rows(np.flatnonzero(why == ""))
    edges = edges_of(used)
    return Graph(made, why, edges, neurons_of(used, edges, *neurons), notes, words or {})


def edge_columns(edges: Edges) -> dict[str, NDArray[Any]]:
    """Return the columns by which edges are stored."""
    return {
        "pre": edges.pre, "post": edges.post, "count": edges.counts, "size_vox": edges.sizes_vox,
        "mean_score": edges.mean_scores, "max_score": edges.max_scores,
    }  # fmt: skip


def neuron_columns(neurons: Neurons) -> dict[str, NDArray[Any]]:
    """Return the columns by which neurons are stored."""
    names = ("voxels", "pre_sites", "outputs", "inputs", "partners_out", "partners_in")
    return {"id": neurons.ids, **{name: getattr(neurons, name) for name in names}}


def write_graph(graph: Graph, folder: Path) -> None:
    """Write the three tables of a connectome; raises `InputError` where the disk refuses."""
    words = dict(graph.words)
    synapses = {**to_columns(graph.synapses), "left_out": graph.left_out.astype(str)}
    write_table(folder / SYNAPSES, synapses, words)
    write_table(folder / EDGES, edge_columns(graph.edges), words)
    write_table(folder / NEURONS, neuron_columns(graph.neurons), words)


def read_graph(folder: str | Path) -> Graph:
    """Read a connectome that `emloom connectome` made.

    Raises:
        InputError: the folder is none, or a table is missing, damaged or lacks a column.
    """
    require_graph(folder)
    path = Path(folder)
    table, edges, neurons = (read_table(path / name) for name in (SYNAPSES, EDGES, NEURONS))
    synapses = of_columns(table.columns, str(path / SYNAPSES))
    why: Words = np.asarray(table["left_out"], object)
    # Sums of scores from the contacts themselves: edges keep only what they come to.
    used = edges_of(synapses.rows(np.flatnonzero(why == "")))
    if not (np.array_equal(used.pre, edges["pre"]) and np.array_equal(used.counts, edges["count"])):
        raise InputError(f"{folder}: the edges are not those of the contacts: make the connectome again")
    names = ("voxels", "pre_sites", "outputs", "inputs", "partners_out", "partners_in")
    return Graph(
        synapses, why, used, Neurons(neurons["id"], *(neurons[name] for name in names)), words=table.metadata
    )


def require_graph(folder: str | Path) -> Path:
    """Return a folder of a connectome; raises `InputError` where it is none."""
    path = Path(folder)
    missing = [name for name in (SYNAPSES, EDGES, NEURONS) if not (path / name).is_file()]
    if missing:
        raise InputError(f"{folder} holds no {missing[0]}: give a folder that emloom connectome has made")
    return path


def grid_of(graph: Graph, voxel_size_nm: tuple[float, float, float] | None = None) -> Grid:
    """Return the grid of the segmentation of a connectome.

    Args:
        graph: the connectome.
        voxel_size_nm: (z, y, x), where it was made without a segmentation.

    Raises:
        InputError: nobody says a voxel size, or two differ.
    """
    said = graph.words.get(VOXEL_SIZE)
    if said is None:
        if voxel_size_nm is None:
            raise InputError(
                f"{graph.synapses.source} does not say a voxel size, because it was made without a segmentation: "
                "give --voxel-size z,y,x (nm)"
            )
        return Grid(voxel_size_nm)
    grid = Grid(json.loads(said), json.loads(graph.words.get(OFFSET, "[0, 0, 0]")))
    if voxel_size_nm is not None and not Grid(voxel_size_nm).matches(Grid(grid.voxel_size_nm)):
        raise InputError(
            f"{graph.synapses.source} says voxels of {grid.voxel_size_nm} nm, not {voxel_size_nm}: leave out the "
            "voxel size"
        )
    return grid


def to_networkx(graph: Graph | str | Path) -> Any:
    """Return a connectome as a `networkx.DiGraph`: neurons by id, with their columns, and edges with theirs.

    Args:
        graph: a connectome, or the folder of one.

    Returns:
        The graph: nodes are Python integers; nodes and edges have the columns of the tables as attributes, and
        edges also ``weight``, the number of contacts, which networkx takes for the strength.

    Raises:
        InputError: networkx is not installed, or as `read_graph`.
    """
    try:
        networkx = import_module("networkx")
    except ModuleNotFoundError as problem:
        if problem.name != "networkx":
            raise
        raise InputError("a networkx graph needs the networkx package: pip install 'emloom[networkx]'") from None
    found = graph if isinstance(graph, Graph) else read_graph(graph)
    made = networkx.DiGraph()
    neurons, edges = _rows(neuron_columns(found.neurons)), _rows(edge_columns(found.edges))
    made.add_nodes_from((row.pop("id"), row) for row in neurons)
    made.add_edges_from((row.pop("pre"), row.pop("post"), {"weight": row["count"], **row}) for row in edges)
    return made


def _rows(columns: Mapping[str, NDArray[Any]]) -> list[dict[str, Any]]:
    values = (column.tolist() for column in columns.values())
    return [dict(zip(columns, row, strict=True)) for row in zip(*values, strict=True)]
