"""From region graphs to the merge tree: at once where the graph fits into memory, else node by node of an octree.

Both ways give the same tree (`emloom.ops.octree`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import Block, Box, cells
from emloom.io import graphstore
from emloom.io.graphstore import read_edges, read_merges, write_edges, write_merges
from emloom.io.tables import count_rows, write_table
from emloom.ops.agglomerate import Linkage, MergeTree, agglomerate_part, join_trees
from emloom.ops.octree import Contraction, Node, Octree
from emloom.ops.regions import RegionGraph, merge_graphs
from emloom.run.blockjournal import name_of
from emloom.run.machine import give_back
from emloom.run.perworker import once
from emloom.run.stage import Output
from emloom.tasks.graphfiles import edge_columns, load_graph, load_nodes, save_lut, save_tree
from emloom.tasks.segment import merged
from emloom.tasks.segmentblocks import Site, read_faces, small_file
from emloom.tasks.segmentspec import MutexLinkage, QuantileLinkage


def node_blocks(octree: Octree, level: int) -> list[Block]:
    """Return the nodes of a level as blocks; their boxes mean nothing."""
    nothing = Box.whole((0, 0, 0))
    return [Block(node.index, nothing, nothing) for node in octree.nodes(level)]


def octree_of(site: Site) -> Octree:
    """Return the octree over the cells of a segmentation; each process builds it once."""
    box, cell = site.affinities().info.box, site.job.segmentation.cell
    return once(("octree", box, cell), lambda: Octree(tuple(index for index, _ in cells(box, cell))))


@dataclass(frozen=True)
class MergeNode:
    """Makes the merges of one node of the octree that nothing outside of it can change.

    Attributes:
        site: where.
        level: of the nodes.
        most_edges: a node whose children left more over contracts halves of them first.
    """

    site: Site
    level: int
    most_edges: int

    def __call__(self, block: Block) -> list[Output]:
        """Write the merges of the node, and the graph it leaves over."""
        site, node = self.site, Node(self.level, block.index)
        octree = octree_of(site)
        linkage, quantile, floor = _rule(site)
        contraction = Contraction(
            octree,
            graph=lambda node: RegionGraph(**read_edges(self._graph_file(node))[0]),
            edges=lambda node: count_rows(self._graph_file(node)),
            faces=lambda leaf: read_faces(site, leaf),
            part=partial(_part, linkage=linkage, quantile=quantile, threshold=floor),
            most_edges=self.most_edges,
        )
        tree, left = contraction.contract(octree.children(node) or [node])
        merges, residual = (_node_file(site, node, part) for part in ("merges", "residual"))
        write_merges(merges, {name: getattr(tree, name) for name in graphstore.MERGES}, tree.floor)
        write_edges(residual, edge_columns(left), site.graph_info())
        return site.told(merges, residual)

    def _graph_file(self, node: Node) -> Path:
        if self.level == 0:
            return graphstore.block_file(self.site.folder, "edges", node.index)
        return _node_file(self.site, node, "residual")


@dataclass(frozen=True)
class GrowTree:
    """Writes the merge tree of the whole volume, and the look-up tables that the job asks for."""

    site: Site
    in_parts: bool

    def __call__(self, block: Block) -> list[Output]:
        """Write tree and tables."""
        site, job = self.site, self.site.job
        tree = self._tree()
        paths = [save_tree(site.folder, tree)]
        for threshold in job.wanted:
            paths.append(save_lut(site.folder, job.segmentation.linkage.name, threshold, tree))
        if job.threshold is not None and job.min_segment_vox:
            paths.append(self._save_small(tree, job.threshold))
        return site.told(*paths)

    def _tree(self) -> MergeTree:
        site = self.site
        if not self.in_parts:
            against = load_repulsion(site) if site.job.segmentation.repels else None
            return merged(load_graph(site.folder), against, site.job.segmentation.linkage, site.job.floor)
        octree, trees = octree_of(site), []
        for level in range(octree.depth + 1):
            for node in octree.nodes(level):
                columns, floor = read_merges(_node_file(site, node, "merges"))
                trees.append(MergeTree(**columns, floor=floor))
        return join_trees(trees)

    def _save_small(self, tree: MergeTree, threshold: float) -> Path:
        nodes = load_nodes(self.site.folder)
        segments, place = np.unique(tree.lut(nodes["id"], threshold), return_inverse=True)
        sizes = np.zeros(len(segments), np.int64)
        np.add.at(sizes, place, nodes["size"])
        path = small_file(self.site.folder, threshold)
        write_table(path, {"segment": segments[sizes < self.site.job.min_segment_vox]})
        return path


def load_repulsion(site: Site) -> RegionGraph:
    """Return what is known of pairs of fragments further apart, summed over cells."""
    indices = graphstore.block_files(site.folder, "edges")
    return merge_graphs([RegionGraph(**read_edges(site.table("repulsion", index))[0]) for index in indices])


def _rule(site: Site) -> tuple[Linkage, int, float]:
    linkage = site.job.segmentation.linkage
    assert not isinstance(linkage, MutexLinkage)  # never in parts, see `emloom.tasks.segmenting`
    quantile = linkage.quantile if isinstance(linkage, QuantileLinkage) else 50
    return linkage.kind, quantile, site.job.floor


def _part(graph: RegionGraph, frozen: NDArray[np.uint64], **rule: Any) -> tuple[MergeTree, RegionGraph]:
    give_back()  # what reading and adding up have left is as large as the graph
    return agglomerate_part(graph, frozen, **rule)


def _node_file(site: Site, node: Node, part: str) -> Path:
    folder = graphstore.graph_folder(site.folder) / "octree" / str(node.level)
    return folder / f"{name_of(node.index)}.{part}.parquet"
