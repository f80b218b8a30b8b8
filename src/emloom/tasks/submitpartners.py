"""Synaptic partners for a submission: from a CREMI file as it is, from tables what lies in the labels' box.

::

    .h5 of CREMI                sites, partners and comments as they stand; a site outside the box is an error
    folder of connectome        the contacts that make edges; those with a site outside the box are left out
    table, folder of synapses   all contacts; likewise

A submission covers the labels, and detection sees the padded raw: contacts beyond the labels are no mistake, so
they are left out and counted. Positions of tables are half a voxel beyond CREMI's, and are converted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from emloom.errors import InputError
from emloom.geometry import Grid, Vec
from emloom.geometry.skeletons import voxels_containing
from emloom.geometry.synapses import SynapseTable
from emloom.io.annotations import Annotations
from emloom.io.cremi import read_annotations
from emloom.io.cremisynapses import annotations_of
from emloom.tasks.connectomegraph import EDGES, read_graph
from emloom.tasks.synapsesource import CREMI, read_source


@dataclass(frozen=True)
class SubmittedPartners:
    """What there is to submit.

    Attributes:
        sites: at CREMI's positions in the world of the prediction.
        outside: contacts that were left out because a site lies outside the box.
        unused: contacts of a connectome that make no edge, and were left out therefore.
    """

    sites: Annotations
    outside: int = 0
    unused: int = 0

    def to_text(self) -> str:
        """Return a line for a person, empty where nothing was left out."""
        reasons = {
            "with a site outside the box": self.outside,
            "that make no edge of the connectome": self.unused,
        }
        told = [f"{count} contacts {why}" for why, count in reasons.items() if count]
        return f"left out: {'; '.join(told)}" if told else ""


def partners_in(path: str, grid: Grid, shape: Vec) -> SubmittedPartners:
    """Return the partners of a file that lie in a box.

    Args:
        path: CREMI file, table of synapses, or folder of `emloom synapses` or `emloom connectome`.
        grid: of the submission, in the world of the prediction.
        shape: voxels of the submission.

    Raises:
        InputError: the file is missing, damaged or none of these; it has contacts, and none lies in the box.
    """
    if Path(path).suffix.lower() in CREMI:
        return SubmittedPartners(read_annotations(path))
    table, unused = _contacts(path, grid)
    ends = (voxels_containing(grid, points) for points in (table.pre_nm, table.post_nm))
    inside = np.logical_and.reduce([((at >= 0) & (at < np.array(shape))).all(axis=1) for at in ends])
    if len(table) and not inside.any():
        raise InputError(
            f"{path}: none of {len(table)} contacts lies in the {shape} voxels from {grid.offset_nm} nm on: check "
            "shape and offset"
        )
    kept = table.rows(np.flatnonzero(inside))
    return SubmittedPartners(annotations_of(kept, grid.voxel_size_nm), len(table) - len(kept), unused)


def _contacts(path: str, grid: Grid) -> tuple[SynapseTable, int]:
    """Return the contacts to submit, and how many of a connectome make no edge."""
    if not (Path(path) / EDGES).is_file():
        return read_source(path, grid.voxel_size_nm).table, 0
    graph = read_graph(path)
    used = graph.left_out == ""
    return graph.synapses.rows(np.flatnonzero(used)), int(np.count_nonzero(~used))
