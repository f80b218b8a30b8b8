"""Synapses, whatever file holds them: tables, CREMI annotations, tracings of webKnossos.

::

    .parquet .csv, or the folder of `emloom synapses`     `emloom.io.synapsetable`
    .h5 .hdf .hdf5      a CREMI file: partners are joined by the ids of their sites, in whatever order they stand,
                        and half a voxel is added, since CREMI counts from half a voxel earlier
    .nml .zip .nmx      a tracing: every tree with a node commented `pre` is a synapse, see below

In a tracing a synapse is a tree of its own. The comment of one node is, or begins with, ``pre``, and that of one
or more others ``post`` (upper or lower case; ``presynaptic``, ``post 2``)::

    o pre                    o pre ── o post               two contacts of one polyad:
     `── o post                  `── o ── o post 2         other nodes do not matter

Trees without such a comment are tracings of something else. A tree with one of both words only, or with two pre
nodes, is an error: nothing is guessed.

Where neurons are given, every site is looked up in them: the segments of the result are those under the sites,
whatever the file says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.skeletons import voxels_containing
from emloom.geometry.synapses import SynapseTable
from emloom.geometry.tracings import Tracing
from emloom.io import hdf5
from emloom.io.checks import require_labels
from emloom.io.cremi import read_annotations
from emloom.io.nml import read_nml_tracings
from emloom.io.synapsetable import read_synapse_table
from emloom.io.volume import Volume, borrow
from emloom.tasks.nodelookup import by_chunk
from emloom.tasks.synapsesites import HDF5

F64 = NDArray[np.float64]
Ids = NDArray[np.uint64]

NML = (".nml", ".zip", ".nmx")
_VOLUMES = ("volumes/raw", "volumes/labels/neuron_ids", "volumes/labels/clefts")


def read_any_synapses(
    path: str | Path, neurons: Volume | None = None, *, voxel_size_nm: Sequence[float] | None = None
) -> SynapseTable:
    """Read synapses from a file of any kind; see the module.

    Args:
        path: table, CREMI file or tracing.
        neurons: labels to look the sites up in; without, segments are those of a table, else 0.
        voxel_size_nm: voxel size (z, y, x) that a CREMI file or a tracing counts in, only where it does not state
            it; `neurons` state it, too.

    Raises:
        InputError: it is of no such kind, missing or damaged, its parts contradict each other, or the voxel size
            that half a voxel is of is not known.
    """
    ending = Path(path).suffix.lower()
    if ending in HDF5:
        table = _of_cremi(path, _voxel_size(path, neurons, voxel_size_nm))
    elif ending in NML:
        table = _of_nml(path, voxel_size_nm)
    elif ending in (".parquet", ".csv") or Path(path).is_dir():
        table = read_synapse_table(path)
    else:
        raise InputError(
            f"{path} is no file of synapses: give a table (.parquet, .csv), the folder of `emloom synapses`, a "
            f"CREMI file ({', '.join(HDF5)}) or a tracing ({', '.join(NML)})"
        )
    if neurons is None:
        return table
    return table.with_segments(segments_at(neurons, table.pre_nm), segments_at(neurons, table.post_nm))


def read_any_sites(path: str | Path, voxel_size_nm: Sequence[float] | None = None) -> F64:
    """Return every site of a file once, pre and post, partners or not: float64 [n, 3], world nm (z, y, x).

    Raises:
        InputError: as `read_any_synapses`.
    """
    if Path(path).suffix.lower() in HDF5:
        return read_annotations(path).locations_nm + _half(_voxel_size(path, None, voxel_size_nm))
    table = read_any_synapses(path, voxel_size_nm=voxel_size_nm)
    sites: F64 = np.concatenate([table.pre_nm[first_rows(table.polyads)], table.post_nm])
    return sites


def first_rows(polyads: Ids) -> NDArray[np.int64]:
    """Return the first row of every polyad, in the order of polyads."""
    rows: NDArray[np.int64] = np.unique(polyads, return_index=True)[1]
    return rows


def segments_at(volume: Volume, points_nm: F64) -> Ids:
    """Return the label of the voxel that contains each point: uint64 [n], 0 outside the volume.

    Raises:
        InputError: the volume holds no labels.
    """
    info = require_labels(volume)
    voxels = voxels_containing(info.grid, points_nm)
    inside = np.flatnonzero(((voxels >= 0) & (voxels < np.array(info.shape))).all(axis=1))
    found = np.zeros(len(voxels), np.uint64)
    for rows, box in by_chunk(info, voxels[inside]):
        z, y, x = (voxels[inside[rows]] - np.array(box.start)).T
        found[inside[rows]] = borrow(volume, box)[z, y, x]
    return found


def _half(voxel_size_nm: Sequence[float]) -> F64:
    return np.asarray(voxel_size_nm, np.float64) / 2


def _voxel_size(path: str | Path, neurons: Volume | None, given: Sequence[float] | None) -> Sequence[float]:
    """Return the voxel size that the sites of a CREMI file count in."""
    if given is not None:
        return given
    if neurons is not None:
        return neurons.info.grid.voxel_size_nm
    if Path(path).is_file():
        with hdf5.opened(Path(path), "r") as h5:
            for name in _VOLUMES:
                if name in h5 and "resolution" in h5[name].attrs:
                    z, y, x = (float(v) for v in h5[name].attrs["resolution"])
                    return (z, y, x)
    raise InputError(
        f"{path} holds no volume that states a voxel size, and CREMI's sites count from the middle of a voxel: "
        "give the voxel size, or the neurons that the sites are of"
    )


def _of_cremi(path: str | Path, voxel_size_nm: Sequence[float]) -> SynapseTable:
    annotations = read_annotations(path)
    order = np.argsort(annotations.ids)
    ids, at = annotations.ids[order], annotations.locations_nm[order] + _half(voxel_size_nm)
    # Sorted, so that the order in which partners stand changes nothing; every pair counts once.
    partners = np.unique(annotations.partners.reshape(-1, 2), axis=0)
    pre, post = (np.searchsorted(ids, partners[:, side]) for side in range(2))
    _, polyads = np.unique(partners[:, 0], return_inverse=True)
    return _table(polyads + 1, at[pre], at[post], str(path))


def _of_nml(path: str | Path, voxel_size_nm: Sequence[float] | None) -> SynapseTable:
    polyads: list[int] = []
    pre: list[Any] = []
    post: list[Any] = []
    found = 0
    for name, tracing in read_nml_tracings(path, voxel_size_nm=voxel_size_nm).items():
        at = tracing.skeletons.positions_nm
        for tree, (heads, ends) in sorted(_marked(tracing).items()):
            if len(heads) != 1 or not ends:
                number = int(tracing.skeletons.ids[tree])
                raise InputError(
                    f"{path}: tree {number} of {name} has {len(heads)} nodes commented 'pre' and {len(ends)} "
                    "commented 'post': a synapse is a tree of its own with one pre node and at least one post node"
                )
            found += 1
            polyads += [found] * len(ends)
            pre += [at[heads[0]]] * len(ends)
            post += [at[end] for end in ends]
    pre_nm, post_nm = (np.array(side, np.float64).reshape(-1, 3) for side in (pre, post))
    return _table(np.array(polyads, np.int64), pre_nm, post_nm, str(path))


def _marked(tracing: Tracing) -> dict[int, tuple[list[int], list[int]]]:
    """Return the rows of pre and of post nodes of every tree that has any."""
    marked: dict[int, tuple[list[int], list[int]]] = {}
    comments = tracing.comments
    texts = comments.columns["content"].tolist() if "content" in comments.columns else [""] * len(comments.rows)
    for row, text in sorted(zip(comments.rows.tolist(), (str(text or "") for text in texts), strict=True)):
        word = text.strip().lower()
        side = 0 if word.startswith("pre") else 1 if word.startswith("post") else None
        if side is not None:
            marked.setdefault(int(tracing.skeletons.skeletons[row]), ([], []))[side].append(row)
    return marked


def _table(polyads: NDArray[Any], pre_nm: F64, post_nm: F64, source: str) -> SynapseTable:
    n = len(polyads)
    none = np.zeros(n, np.uint64)
    return SynapseTable(
        ids=np.arange(1, n + 1, dtype=np.uint64),
        polyads=polyads.astype(np.uint64),
        pre_nm=pre_nm,
        post_nm=post_nm,
        pre_segments=none,
        post_segments=none,
        sizes_vox=np.zeros(n, np.int64),
        scores=np.ones(n, np.float32),
        source=source,
    )
