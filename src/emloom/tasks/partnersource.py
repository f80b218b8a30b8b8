"""Where partner pairs are read from: CREMI files, and tables of synapses, in one convention.

Two conventions are half a voxel apart. In a CREMI file a site at ``offset + v * voxel size`` lies in voxel v; in a
table (`geometry.synapses`) a site lies in the voxel that contains it, so the same place is written half a voxel
further::

    CREMI     |----.----|----.----|      a dot is where CREMI writes the site of a voxel ..
    table     |    .    |    .    |      .. and where a table does: what CREMI calls voxel v begins half a voxel
              v         v+1              before v

Metrics count as CREMI does, so half a voxel of the segmentation in which sites are looked up is taken off the
positions of a table. A synapse written as CREMI and as a table then looks up the same voxels, and the two are 0 nm
apart. Messages and lists show positions as they are stored.

The table in a folder of `emloom connectome` holds contacts that make no edge, too, with the reason in `left_out`:
these do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.geometry.synapses import SynapseTable
from emloom.io import hdf5
from emloom.io.cremi import read_annotations
from emloom.io.synapsetable import SYNAPSES, read_synapse_table
from emloom.io.tables import read_table
from emloom.metrics.partnerpairs import Ids, PartnerPairs
from emloom.tasks.synapsesites import HDF5

TABLES = (".parquet", ".csv")
LEFT_OUT = "left_out"
"""Column of the table of a connectome: why a contact makes no edge; empty where it makes one."""


@dataclass(frozen=True, eq=False)
class Synapses:
    """Partner pairs, and what their file says about them.

    Attributes:
        pairs: positions, counted as CREMI does.
        sites: uint64 [m, 2], ids of the (pre, post) sites; of a table (polyad, id).
        polyads: uint64 [m], pairs of one pre site share it.
        scores: float32 [m], 0 to 1; None where the file has none, as CREMI's.
    """

    pairs: PartnerPairs
    sites: Ids
    polyads: Ids
    scores: NDArray[np.float32] | None = None


def read_synapses(path: str, voxel_size_nm: Vec3) -> Synapses:
    """Return the partner pairs of a CREMI file, or of a table (`.parquet`, `.csv`, or a folder that holds one).

    Of a connectome's folder, the contacts that make an edge.

    Args:
        path: of the file or folder.
        voxel_size_nm: of the segmentation in which sites are looked up.

    Raises:
        InputError: it is neither, is missing or damaged, or contradicts itself.
    """
    if is_table(path):
        return of_table(_counted(path, read_synapse_table(path)), voxel_size_nm)
    if Path(path).exists() and not is_file_of_hdf5(path):
        raise InputError(
            f"{path} holds no synapses: they are read from CREMI files (HDF5), from tables (.parquet, .csv), and "
            f"from folders that hold {SYNAPSES}, as emloom synapses writes them"
        )
    annotations = read_annotations(path)
    pairs = PartnerPairs.from_sites(annotations.ids, annotations.locations_nm, annotations.partners, path)
    return Synapses(pairs, annotations.partners, annotations.partners[:, 0])


def _counted(path: str, table: SynapseTable) -> SynapseTable:
    """Return the contacts that count: those of a connectome say themselves whether they make an edge."""
    file = Path(path) / SYNAPSES if Path(path).is_dir() else Path(path)
    if file.suffix.lower() != ".parquet":
        return table
    columns = read_table(file).columns
    if LEFT_OUT not in columns:
        return table
    return table.rows(np.array([not why for why in columns[LEFT_OUT].tolist()], bool))


def of_table(table: SynapseTable, voxel_size_nm: Vec3) -> Synapses:
    """Return the partner pairs of a table; see the module."""
    half = np.array(voxel_size_nm) / 2
    z, y, x = half.tolist()
    pairs = PartnerPairs(table.pre_nm - half, table.post_nm - half, table.source, (z, y, x))
    sites = np.stack([table.polyads, table.ids], axis=1)
    return Synapses(pairs, sites, table.polyads, table.scores)


def is_table(path: str) -> bool:
    """Whether a path is a table of synapses, or a folder that holds one."""
    place = Path(path)
    return place.suffix.lower() in TABLES or (place.is_dir() and (place / SYNAPSES).is_file())


def is_file_of_hdf5(path: str) -> bool:
    """Whether a path is an HDF5 file, and nothing inside of one."""
    return Path(path).suffix.lower() in HDF5 and Path(path).is_file()


def volume_in(path: str, name: str, option: str) -> str:
    """Return the path of a volume that a CREMI file holds under its usual name; other paths name volumes already.

    Args:
        path: CREMI file, or any volume.
        name: of the volume in a CREMI file.
        option: what to give instead where the file has none, for the message.

    Raises:
        InputError: the file has no volume of that name, or is a table.
    """
    if is_table(path):
        raise InputError(f"{path} is a table of synapses and holds no {name}: give the volume itself ({option})")
    if not is_file_of_hdf5(path):
        return path
    with hdf5.opened(Path(path), "r") as h5:
        if name not in h5:
            raise InputError(f"{path} has no {name}: give the volume itself ({option})")
    return f"{path}/{name}"
