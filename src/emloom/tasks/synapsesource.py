"""Synapses, whatever file holds them: tables, CREMI annotations, tracings of webKnossos.

::

    .parquet .csv, or a folder that holds `synapses.parquet`     `emloom.io.synapsetable`
    .h5 .hdf .hdf5      a CREMI file: partners are joined by the ids of their sites, in whatever order they stand,
                        and half a voxel is added, since CREMI counts from half a voxel earlier
    .nml .zip .nmx      tracings: a tree with one node commented `pre` and others commented `post`
                        (`emloom.ops.synapsetracing`); of an archive all of them

Where neurons are given, every site is looked up in them: the segments of the result are those under the sites,
whatever the file says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.geometry.skeletons import voxels_containing
from emloom.geometry.synapses import SynapseTable, joined
from emloom.io.checks import require_labels
from emloom.io.cremi import read_annotations
from emloom.io.cremisynapses import repeated, table_of, unpaired
from emloom.io.nml import read_nml_tracings
from emloom.io.open import inspect
from emloom.io.synapsetable import FINGERPRINT, ORIENTED, SEGMENTATION, read_synapse_table, words_of_table
from emloom.io.volume import Volume, borrow
from emloom.ops.synapsetracing import synapses_of
from emloom.tasks.nodelookup import by_chunk

F64 = NDArray[np.float64]
Ids = NDArray[np.uint64]

CREMI = (".h5", ".hdf", ".hdf5")
NML = (".nml", ".zip", ".nmx")


@dataclass(frozen=True, eq=False)
class SynapseSource:
    """A table of synapses, as it was found.

    Attributes:
        table: the contacts.
        words: that were kept with it: of which segmentation its segments are, whether sides are known.
        notes: what a person should know.
    """

    table: SynapseTable
    words: Mapping[str, str]
    notes: tuple[str, ...]

    def is_of(self, segmentation: str, mark: str) -> bool | None:
        """Whether its segments are of a segmentation of this path and fingerprint; None where it does not say."""
        said = self.words.get(SEGMENTATION)
        if said is None:
            return None
        return mark == self.words.get(FINGERPRINT) or Path(said).resolve() == Path(segmentation).resolve()


def read_source(path: str | Path, voxel_size_nm: Sequence[float] | None = None) -> SynapseSource:
    """Read synapses from a file of any kind, with what it says about them; see the module.

    Args:
        path: table, CREMI file or tracing.
        voxel_size_nm: (z, y, x) that a CREMI file or a tracing counts in, only where it does not state it.

    Raises:
        InputError: it is of no such kind, missing or damaged, its parts contradict each other, or the voxel size
            that half a voxel is of is not known.
    """
    ending = Path(path).suffix.lower()
    if ending in CREMI:
        return _of_cremi(path, voxel_size_nm)
    if ending in NML:
        tracings = read_nml_tracings(path, voxel_size_nm=voxel_size_nm)
        table = joined([synapses_of(tracing) for tracing in tracings.values()], str(path))
        return SynapseSource(table, {}, ())
    if (ending or Path(path).is_file()) and ending not in (".parquet", ".csv") and not Path(path).is_dir():
        raise InputError(
            f"{path} is no file of synapses: give a table (.parquet, .csv), the folder of `emloom synapses`, a "
            f"CREMI file ({', '.join(CREMI)}) or a tracing ({', '.join(NML)})"
        )
    words = words_of_table(path)
    told = words.get(ORIENTED) == "no"
    notes = (f"{path} does not know which side of a contact is pre: edges have no direction",) if told else ()
    return SynapseSource(read_synapse_table(path), words, notes)


def read_any_synapses(
    path: str | Path, neurons: Volume | None = None, *, voxel_size_nm: Sequence[float] | None = None
) -> SynapseTable:
    """Read the synapses of a file of any kind, between the neurons under their sites.

    Args:
        path: table, CREMI file or tracing.
        neurons: labels to look the sites up in; without, segments are those of a table, else 0.
        voxel_size_nm: as of `read_source`; `neurons` state it, too.

    Raises:
        InputError: as `read_source`, or `neurons` are no labels.
    """
    if voxel_size_nm is None and neurons is not None and Path(path).suffix.lower() in CREMI:
        voxel_size_nm = neurons.info.grid.voxel_size_nm
    table = read_source(path, voxel_size_nm).table
    if neurons is None:
        return table
    return table.with_segments(segments_at(neurons, table.pre_nm), segments_at(neurons, table.post_nm))


def read_any_sites(path: str | Path, voxel_size_nm: Sequence[float] | None = None) -> F64:
    """Return every site of a file once, pre and post, partners or not: float64 [n, 3], world nm (z, y, x).

    Raises:
        InputError: as `read_source`.
    """
    if Path(path).suffix.lower() in CREMI:
        half = np.asarray(voxel_size_nm or _voxel_size(path), np.float64) / 2
        return read_annotations(path).locations_nm + half
    table = read_source(path, voxel_size_nm).table
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


def _of_cremi(path: str | Path, voxel_size_nm: Sequence[float] | None) -> SynapseSource:
    annotations = read_annotations(path)
    table = table_of(annotations, voxel_size_nm or _voxel_size(path))
    counted = {
        "sites have no partner: they are no contacts": unpaired(annotations),
        "pairs of partners stand there once more: each is one contact": repeated(annotations),
    }
    notes = tuple(f"{path}: {n} {what}" for what, n in counted.items() if n)
    return SynapseSource(replace(table, source=str(path)), {}, notes)


def _voxel_size(path: str | Path) -> Vec3:
    """Return what the volumes of a CREMI file say; raises `InputError` where that is nothing, or several."""
    try:
        found = inspect(path)
    except InputError:  # no volume in it; its annotations are read all the same
        found = []
    sizes = {tuple(hit.voxel_size_nm) for hit in found if hit.voxel_size_nm is not None}
    if len(sizes) != 1:
        raise InputError(
            f"{path} {'says several voxel sizes' if sizes else 'holds no volume that states a voxel size'}: "
            "CREMI's positions differ from ours by half a voxel, so give the voxel size (--voxel-size z,y,x in nm)"
        )
    z, y, x = sizes.pop()
    return (z, y, x)
