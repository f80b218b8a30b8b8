"""A connectome as the CSV files from which neuPrint's database (neo4j) is filled.

One folder, headers as in the files of the hemibrain (Scheffer et al., eLife 2020, doi:10.7554/eLife.57443), whose
readers take them as they are::

    Neuprint_Neurons.csv                      :ID(Body-ID), bodyId:long, pre:int, post:int, upstream:int,
                                              downstream:int, size:long, :LABEL
    Neuprint_Neuron_Connections.csv           :START_ID(Body-ID), weight:int, :END_ID(Body-ID)
    Neuprint_Synapses.csv                     :ID(Syn-ID), type:string, confidence:float,
                                              location:point{srid:9157}, :Label
    Neuprint_Synapse_Connections.csv          :START_ID(Syn-ID), :END_ID(Syn-ID)
    Neuprint_SynapseSet.csv                   :ID(SynSet-ID), :Label
    Neuprint_Neuron_to_SynapseSet.csv         :START_ID(Body-ID), :END_ID(SynSet-ID)
    Neuprint_SynapseSet_to_Synapses.csv       :START_ID(SynSet-ID), :END_ID(Syn-ID)
    Neuprint_SynapseSet_to_SynapseSet.csv     :START_ID(SynSet-ID), :END_ID(SynSet-ID)

neuPrint counts as the tables here do: `pre` are pre sites (each once), `post` and `upstream` contacts received,
`downstream` contacts sent, `weight` contacts. Locations are voxels, x, y, z. Synapses are numbered: pre sites in
the order of their polyads, then post sites in the order of contacts; a set holds the sites of one edge on one
side.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.grid import Grid
from emloom.geometry.skeletons import voxels_containing
from emloom.geometry.synapses import SynapseTable
from emloom.io.files import staged
from emloom.io.tables import write_csv

Columns = Mapping[str, NDArray[Any]]
LOCATION = "location:point{srid:9157}"
"""neo4j's name of a three-dimensional point without a unit."""


def write_neuprint(
    folder: str | Path, neurons: Columns, table: SynapseTable, grid: Grid, *, overwrite: bool = False
) -> None:
    """Write the files; a reader sees the whole folder or none.

    Args:
        folder: to be made; its name becomes the data set's, with `_Neuron` and the like as labels.
        neurons: `id`, `voxels`, `pre_sites`, `outputs`, `inputs`.
        table: the contacts that make edges.
        grid: whose voxels the locations count.
        overwrite: replace a folder that is there.

    Raises:
        InputError: the folder exists, a contact is not between neurons, or the disk refuses.
    """
    if not (table.pre_segments.all() and table.post_segments.all()):
        raise InputError(f"{table.source}: a contact has a site in no neuron: leave it out")
    name = Path(folder).name
    sites = _Sites(table, grid)
    with staged(folder, overwrite=overwrite) as temporary:
        temporary.mkdir()
        for file, columns in {
            "Neurons": _neurons(neurons, name),
            "Neuron_Connections": _connections(table),
            "Synapses": sites.columns(name),
            "Synapse_Connections": {":START_ID(Syn-ID)": sites.pre, ":END_ID(Syn-ID)": sites.post},
            **_sets(table, sites, name),
        }.items():
            write_csv(temporary / f"Neuprint_{file}.csv", columns)


class _Sites:
    """Sites as neuPrint's synapses: one pre site for each polyad.

    Attributes:
        pre: uint64 [n], number of each contact's pre site.
        post: uint64 [n], of its post site.
    """

    def __init__(self, table: SynapseTable, grid: Grid) -> None:
        self._table = table
        self._first, which = np.unique(table.polyads, return_index=True, return_inverse=True)[1:]
        k = len(self._first)
        self.pre = (1 + which).astype(np.uint64)
        self.post = np.arange(k + 1, k + 1 + len(table), dtype=np.uint64)
        points = np.concatenate([table.pre_nm[self._first], table.post_nm])
        self._voxels = voxels_containing(grid, points)

    def columns(self, name: str) -> Columns:
        """Return the table of synapses."""
        k, n = len(self._first), len(self._table)
        # A pre site is as sure as the best of its contacts.
        best = np.zeros(k, np.float32)
        np.maximum.at(best, self.pre.astype(np.int64) - 1, self._table.scores)
        scores = np.concatenate([best, self._table.scores])
        places = [f"{{x:{x}, y:{y}, z:{z}}}" for z, y, x in self._voxels.tolist()]
        return {
            ":ID(Syn-ID)": np.arange(1, k + n + 1),
            "type:string": np.array(["pre"] * k + ["post"] * n, object),
            "confidence:float": np.array([float(f"{score:.6g}") for score in scores.tolist()], np.float64),
            LOCATION: np.array(places, object),
            ":Label": _labels(k + n, "Synapse", name),
        }


def _neurons(neurons: Columns, name: str) -> Columns:
    ids = neurons["id"]
    return {
        ":ID(Body-ID)": ids,
        "bodyId:long": ids,
        "pre:int": neurons["pre_sites"],
        "post:int": neurons["inputs"],
        "upstream:int": neurons["inputs"],
        "downstream:int": neurons["outputs"],
        "size:long": neurons["voxels"],
        # neuPrint calls a segment a neuron where it has synapses.
        ":LABEL": np.where(
            neurons["outputs"] + neurons["inputs"] > 0,
            f"Segment;{name}_Segment;Neuron;{name}_Neuron",
            f"Segment;{name}_Segment",
        ),
    }


def _edges(table: SynapseTable) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """Return (pre, post) of every edge, which each contact belongs to, and how many there are."""
    pairs = np.stack([table.pre_segments, table.post_segments], axis=1)
    found, which, counts = np.unique(pairs.reshape(-1, 2), axis=0, return_inverse=True, return_counts=True)
    return found, which.reshape(-1).astype(np.int64), counts.astype(np.int64)


def _connections(table: SynapseTable) -> Columns:
    pairs, _, counts = _edges(table)
    return {":START_ID(Body-ID)": pairs[:, 0], "weight:int": counts, ":END_ID(Body-ID)": pairs[:, 1]}


def _sets(table: SynapseTable, sites: _Sites, name: str) -> dict[str, Columns]:
    pairs, which, _ = _edges(table)
    called = [f"{a}_{b}" for a, b in pairs.tolist()]
    pre, post = (np.array([f"{pair}_{side}" for pair in called], object) for side in ("pre", "post"))
    # A pre site with several partners of one neuron stands in their set once.
    once = np.unique(np.stack([which, sites.pre.astype(np.int64)], axis=1).reshape(-1, 2), axis=0)
    return {
        "SynapseSet": {
            ":ID(SynSet-ID)": np.concatenate([pre, post]),
            ":Label": _labels(2 * len(called), "SynapseSet", name),
        },
        "Neuron_to_SynapseSet": {
            ":START_ID(Body-ID)": np.concatenate([pairs[:, 0], pairs[:, 1]]),
            ":END_ID(SynSet-ID)": np.concatenate([pre, post]),
        },
        "SynapseSet_to_Synapses": {
            ":START_ID(SynSet-ID)": np.concatenate([pre[once[:, 0]], post[which]]),
            ":END_ID(Syn-ID)": np.concatenate([once[:, 1].astype(np.uint64), sites.post]),
        },
        "SynapseSet_to_SynapseSet": {":START_ID(SynSet-ID)": pre, ":END_ID(SynSet-ID)": post},
    }


def _labels(n: int, what: str, name: str) -> NDArray[np.object_]:
    return np.full(n, f"{what};{name}_{what}", object)
