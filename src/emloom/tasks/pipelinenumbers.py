"""The numbers on the page of a pipeline, read from the files of its stages; a stage that was left out has none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.geometry.box import Vec
from emloom.geometry.grid import Vec3
from emloom.io.open import open_volume
from emloom.ops.connectome import adjacency, busiest, clustered
from emloom.run.workspace import Workspace
from emloom.tasks.connectomegraph import read_graph
from emloom.tasks.graphfiles import load_nodes, load_tree
from emloom.tasks.pipelineback import UNDIRECTED
from emloom.tasks.pipelinestages import Layout
from emloom.tasks.scorefiles import read_rows
from emloom.tasks.segmentspec import SegmentJob
from emloom.tasks.synapsesource import read_source
from emloom.view.connectomefigures import adjacency_figure
from emloom.view.figures import Figure
from emloom.view.report import show

DRAWN = 100
"""Neurons of the matrix, at most."""


@dataclass(frozen=True, eq=False)
class Numbers:
    """What stages said, as plain values.

    Attributes:
        shape: of the raw, voxels.
        voxel_size_nm: of the raw.
        qc: `qc.json`.
        align: `align.json`.
        repair: `repair.json`.
        sizes: voxels of every segment, largest first, int64.
        graph: contacts used, and left out by reason, edges, neurons with contacts, whether sides are known.
        neurons: scores against true neurons.
        synapses: scores against true synapses.
    """

    shape: Vec
    voxel_size_nm: Vec3
    qc: Mapping[str, Any] | None = None
    align: Mapping[str, Any] | None = None
    repair: Mapping[str, Any] | None = None
    sizes: NDArray[np.int64] | None = None
    graph: Mapping[str, Any] | None = None
    neurons: Mapping[str, Any] | None = None
    synapses: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, layout: Layout) -> Numbers:
        """Read the numbers of a pipeline; raises `InputError` where a file is damaged."""
        job = layout.job
        info = open_volume(job.raw, voxel_size_nm=job.voxel_size_nm, kind="raw").info
        return cls(
            shape=info.shape,
            voxel_size_nm=info.grid.voxel_size_nm,
            qc=_plain(layout.path("qc") / "qc.json") if job.qc else None,
            align=_plain(layout.path("align") / "align.json") if job.align else None,
            repair=_plain(layout.path("repair") / "repair.json") if job.repair else None,
            sizes=segment_sizes(layout.path("segment")) if job.neurons else None,
            graph=_graph(layout) if job.synapses else None,
            neurons=_scores(layout, "neurons"),
            synapses=_scores(layout, "synapses"),
        )


def _plain(path: Path) -> Mapping[str, Any]:
    words: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return words


def _scores(layout: Layout, what: str) -> Mapping[str, Any] | None:
    folder = layout.path("evaluate") / what
    if layout.job.truth is None or not (folder / "scores.json").is_file():
        return None
    row = read_rows(folder)[0]
    if (folder / UNDIRECTED).is_file():
        row |= {f"undirected_{name}": value for name, value in _plain(folder / UNDIRECTED).items()}
    return row


def segment_sizes(container: Path) -> NDArray[np.int64]:
    """Return the voxels of every segment of a container of `emloom segment`, largest first, int64 [n].

    Raises:
        InputError: it is not finished, or has no threshold.
    """
    job = SegmentJob.from_dict(Workspace(container).record()["job"], f"the job of {container}")
    assert job.threshold is not None
    nodes = load_nodes(container)
    ids, place = np.unique(load_tree(container).lut(nodes["id"], job.threshold), return_inverse=True)
    sizes = np.zeros(len(ids), np.int64)
    np.add.at(sizes, place, nodes["size"])
    return np.sort(sizes[(ids != 0) & (sizes >= job.min_segment_vox)])[::-1]


def _graph(layout: Layout) -> Mapping[str, Any]:
    graph = read_graph(layout.path("connectome"))
    reasons = graph.reasons
    connected = int(((graph.neurons.outputs + graph.neurons.inputs) > 0).sum())
    return {
        "contacts": len(graph.synapses),
        "used": len(graph.synapses) - sum(reasons.values()),
        "left_out": reasons,
        "edges": len(graph.edges),
        "connected": connected,
        "notes": list(read_source(layout.path("synapses")).notes),
    }


def edge_words(layout: Layout, said: Mapping[str, Any]) -> tuple[str, list[Figure]]:
    """Return what is said of a connectome, and the picture of its matrix where it has edges."""
    away = [f"{n} {reason}" for reason, n in said["left_out"].items() if n]
    text = (
        f"{show(said['contacts'])} contacts were found; {show(said['used'])} make {show(said['edges'])} edges "
        f"between {show(said['connected'])} neurons."
    )
    if away:
        text += f" Left out, with the reason in connectome/synapses.parquet: {', '.join(away)}."
    text += "".join(f"\n\nNote: {note}." for note in said["notes"])
    if not said["edges"]:
        return text, []
    graph = read_graph(layout.path("connectome"))
    ids = graph.neurons.ids[busiest(graph.neurons, DRAWN)]
    matrix = adjacency(graph.edges, ids)
    order = clustered(matrix)
    caption = f"The {len(ids)} neurons with most contacts. {graph.sides}; orange is the most contacts."
    return text, [adjacency_figure(matrix[order][:, order], ids[order].tolist(), caption, graph.directed)]
