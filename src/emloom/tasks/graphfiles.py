"""The region graph of a segmentation between memory and disk: what blockwise segmentation writes, and reads again.

Kernels know arrays (`ops.regions`, `ops.nodes`, `ops.agglomerate`), files know columns (`io.graphstore`); this is
where the two meet::

    save_cell(out, index, region_graph(...), node_table(...), info)      once per cell, in any order, by anyone
    load_graph(out)   == region_graph(whole volume)
    load_nodes(out)   == node_table(whole volume)
    save_tree(out, tree); load_tree(out) == tree
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.io import graphstore
from emloom.io.graphstore import GraphInfo, Part
from emloom.ops.agglomerate import MergeTree
from emloom.ops.nodes import Nodes, merge_nodes
from emloom.ops.regions import RegionGraph, merge_graphs


def save_cell(
    folder: str | Path, index: Vec, graph: RegionGraph, nodes: Mapping[str, NDArray[Any]], info: GraphInfo
) -> tuple[Path, Path]:
    """Write the edges a cell owns and its fragments' statistics; return the two files.

    Args:
        folder: the segmentation container.
        index: lattice position of the cell.
        graph: only pairs whose first voxel lies in the cell (`owned` of `region_graph`).
        nodes: `node_table` of the cell alone, in positions of the whole volume.
        info: the same for all cells.

    Raises:
        InputError: the columns do not fit `info`, or the disk refuses.
    """
    edges, parts = (graphstore.block_file(folder, part, index) for part in ("edges", "nodes"))
    graphstore.write_edges(edges, edge_columns(graph), info)
    graphstore.write_nodes(parts, nodes, info)
    return edges, parts


def edge_columns(graph: RegionGraph) -> dict[str, NDArray[Any]]:
    """Return a graph as the columns `io.graphstore.write_edges` takes."""
    columns: dict[str, NDArray[Any]] = {name: getattr(graph, name) for name in graphstore.EDGES}
    return columns if graph.histogram is None else columns | {"histogram": graph.histogram}


def load_graph(folder: str | Path) -> RegionGraph:
    """Return the whole region graph of a container, summed over its cells.

    Raises:
        InputError: there is no graph, or a file is damaged.
    """
    files = require_files(folder, "edges")
    return merge_graphs([RegionGraph(**graphstore.read_edges(path)[0]) for path in files.values()])


def load_nodes(folder: str | Path) -> Nodes:
    """Return size, sums of positions and bounding box of every fragment of a container; raises as `load_graph`."""
    return merge_nodes([graphstore.read_nodes(path)[0] for path in require_files(folder, "nodes").values()])


def require_files(folder: str | Path, part: Part) -> dict[Vec, Path]:
    """Return the files of a container's edges or nodes by cell; raises `InputError` where there is none."""
    files = graphstore.block_files(folder, part)
    if not files:
        place = graphstore.graph_folder(folder) / part
        raise InputError(
            f"{place} holds no tables, so {folder} has no region graph: give a container that has graph/{part}"
        )
    return files


def save_tree(folder: str | Path, tree: MergeTree) -> Path:
    """Write the merge tree of a container; return the file."""
    path = graphstore.merges_file(folder)
    graphstore.write_merges(path, {name: getattr(tree, name) for name in graphstore.MERGES}, tree.floor)
    return path


def load_tree(folder: str | Path) -> MergeTree:
    """Return the merge tree of a container; raises `InputError` where there is none, or it is damaged."""
    path = graphstore.merges_file(folder)
    if not path.is_file():
        raise InputError(f"{path} does not exist: {folder} was never agglomerated, so it knows fragments only")
    columns, floor = graphstore.read_merges(path)
    return MergeTree(**columns, floor=floor)


def save_lut(folder: str | Path, linkage: str, threshold: float, tree: MergeTree) -> Path:
    """Write which segment each fragment belongs to at a threshold; return the file.

    Raises:
        InputError: the threshold is outside what the tree knows, or the disk refuses.
    """
    path = graphstore.lut_file(folder, linkage, threshold)
    graphstore.write_lut(path, *tree.table(threshold))
    return path
