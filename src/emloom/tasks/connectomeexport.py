"""`emloom connectome export`: a connectome in the formats of other programs.

================  ========================  ==================================================================
to                output                    what it holds
================  ========================  ==================================================================
graphml           file                      neurons and edges: Gephi, Cytoscape, igraph, networkx
neuprint          folder of CSV             neurons, edges, synapses and their sets, as neuPrint is filled
cremi             HDF5 file                 annotations: sites, partners; a pre site once for all its partners
annotations       folder                    precomputed annotations of neuroglancer: lines from pre to post
neuroglancer      JSON file                 a state of neuroglancer with the lines in it
nml               NML file, or archive      a tree of two nodes for each contact, grouped by polyad
csv               folder of CSV             the three tables
================  ========================  ==================================================================

Written are the contacts that make edges, or with `every` those that were left out, too (not as neuPrint, nor in
the edges). Half a voxel lies between CREMI's positions and ours; whoever writes them converts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from emloom.errors import InputError
from emloom.geometry.grid import Grid, Vec3
from emloom.geometry.synapses import SynapseTable
from emloom.io.annotationlayers import write_annotation_layer, write_state
from emloom.io.cremi import write_annotations
from emloom.io.cremisynapses import annotations_of
from emloom.io.files import staged
from emloom.io.graphml import write_graphml
from emloom.io.neuprint import write_neuprint
from emloom.io.nml import write_nml
from emloom.io.synapsetable import to_columns
from emloom.io.tables import write_csv
from emloom.ops.synapsetracing import tracing_of
from emloom.spec import Spec
from emloom.tasks.connectomegraph import VOXEL_SIZE, Graph, edge_columns, grid_of, neuron_columns, read_graph

Format = Literal["graphml", "neuprint", "cremi", "annotations", "neuroglancer", "nml", "csv"]


class ExportGraphSpec(Spec):
    """Write a connectome in the format of another program (`emloom connectome export`)."""

    graph: str
    """Folder of `emloom connectome`."""
    to: Format
    """Format of the output; see the module."""
    output: str
    """File or folder to be made."""
    every: bool = False
    """Write the contacts that were left out, too."""
    voxel_size_nm: Vec3 | None = None
    """(z, y, x) in nm, where the connectome was made without a segmentation."""
    segmentation: str | None = None
    """Only for `neuroglancer`: address of the labels for a layer, such as ``precomputed://https://...``."""
    overwrite: bool = False
    """Replace what is there."""


@dataclass(frozen=True)
class ExportedGraph:
    """What was written.

    Attributes:
        output: where.
        neurons: in the connectome.
        edges: in the connectome.
        contacts: that were written.
    """

    output: str
    neurons: int
    edges: int
    contacts: int

    def to_text(self) -> str:
        """Return a line for a person."""
        return f"{self.output}: {self.contacts} contacts, {self.edges} edges, {self.neurons} neurons"


def export_graph(spec: ExportGraphSpec) -> ExportedGraph:
    """Write a connectome in another format.

    Raises:
        InputError: the folder holds no connectome, a voxel size is needed and unknown, an option does not fit the
            format, the name ends otherwise than the format's, or the output exists.
    """
    if spec.segmentation is not None and spec.to != "neuroglancer":
        raise InputError(f"{spec.to} shows no layer of labels: give a segmentation with neuroglancer only")
    if spec.every and spec.to in ("graphml", "neuprint"):
        raise InputError(f"{spec.to} holds contacts between neurons: leave out --every")
    _require_ending(spec)
    graph = read_graph(spec.graph)
    table = graph.synapses
    if not spec.every:
        table = table.rows(np.flatnonzero(graph.left_out == ""))
    _WRITERS[spec.to](spec, graph, table)
    return ExportedGraph(spec.output, len(graph.neurons), len(graph.edges), len(table))


_ENDINGS: dict[str, tuple[str, ...]] = {
    "graphml": (".graphml",),
    "cremi": (".h5", ".hdf", ".hdf5"),
    "neuroglancer": (".json",),
    "nml": (".nml", ".zip", ".nmx"),
}


def _require_ending(spec: ExportGraphSpec) -> None:
    endings, ending = _ENDINGS.get(spec.to, ()), Path(spec.output).suffix.lower()
    if endings and ending not in endings:
        raise InputError(f"{spec.output} is no name for {spec.to}: end it with {' or '.join(endings)}")


def _graphml(spec: ExportGraphSpec, graph: Graph, table: SynapseTable) -> None:
    edges = edge_columns(graph.edges)
    # By custom the strength of an edge is its weight: other programs look for that name.
    columns = {"weight" if name == "count" else name: column for name, column in edges.items()}
    write_graphml(spec.output, neuron_columns(graph.neurons), columns, ("pre", "post"), overwrite=spec.overwrite)


def _neuprint(spec: ExportGraphSpec, graph: Graph, table: SynapseTable) -> None:
    grid = grid_of(graph, spec.voxel_size_nm)
    write_neuprint(spec.output, neuron_columns(graph.neurons), table, grid, overwrite=spec.overwrite)


def _cremi(spec: ExportGraphSpec, graph: Graph, table: SynapseTable) -> None:
    sites = annotations_of(table, grid_of(graph, spec.voxel_size_nm).voxel_size_nm)
    with staged(spec.output, overwrite=spec.overwrite) as temporary:
        write_annotations(temporary, sites)


def _annotations(spec: ExportGraphSpec, graph: Graph, table: SynapseTable) -> None:
    write_annotation_layer(spec.output, table, _unit(spec, graph), overwrite=spec.overwrite)


def _neuroglancer(spec: ExportGraphSpec, graph: Graph, table: SynapseTable) -> None:
    write_state(spec.output, table, _unit(spec, graph), spec.segmentation, overwrite=spec.overwrite)


def _nml(spec: ExportGraphSpec, graph: Graph, table: SynapseTable) -> None:
    tracing = tracing_of(table, grid_of(graph, spec.voxel_size_nm).voxel_size_nm)
    write_nml(spec.output, tracing, overwrite=spec.overwrite)


def _csv(spec: ExportGraphSpec, graph: Graph, table: SynapseTable) -> None:
    rows = graph.left_out if spec.every else np.full(len(table), "", object)
    with staged(spec.output, overwrite=spec.overwrite) as temporary:
        temporary.mkdir()
        write_csv(temporary / "synapses.csv", {**to_columns(table), "left_out": rows})
        write_csv(temporary / "edges.csv", edge_columns(graph.edges))
        write_csv(temporary / "neurons.csv", neuron_columns(graph.neurons))


def _unit(spec: ExportGraphSpec, graph: Graph) -> Vec3:
    """Return the unit of a page: the voxel, or 1 nm where no voxel size is known."""
    known = spec.voxel_size_nm is not None or VOXEL_SIZE in graph.words
    grid = grid_of(graph, spec.voxel_size_nm) if known else Grid((1.0, 1.0, 1.0))
    return grid.voxel_size_nm


_WRITERS: dict[Format, Callable[[ExportGraphSpec, Graph, SynapseTable], None]] = {
    "graphml": _graphml,
    "neuprint": _neuprint,
    "cremi": _cremi,
    "annotations": _annotations,
    "neuroglancer": _neuroglancer,
    "nml": _nml,
    "csv": _csv,
}
