"""What a connectome is made of: a table of synapses in any format, and the segments under its sites.

Segments come from one of two places, and are then mapped by look-up tables, of the merge tree first::

    sites   looked up in the segmentation, chunk by chunk, each chunk read once: any segmentation will do
    table   as the table says: it must be of this segmentation

A site lies in the voxel that contains it. One outside the volume is in segment 0, and told apart from one in the
background.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.grid import Vec3
from emloom.geometry.skeletons import voxels_containing
from emloom.geometry.synapses import SynapseTable
from emloom.io.checks import require_labels
from emloom.io.cremi import read_annotations
from emloom.io.cremisynapses import repeated, table_of, unpaired
from emloom.io.graphstore import read_lut
from emloom.io.nml import read_nml_tracing
from emloom.io.open import inspect
from emloom.io.synapsetable import FINGERPRINT, ORIENTED, SEGMENTATION, read_synapse_table, words_of_table
from emloom.io.volume import Volume, borrow
from emloom.ops.labels import apply_lut, require_ids
from emloom.ops.synapsetracing import synapses_of
from emloom.tasks.nodelookup import by_chunk

Ids = NDArray[np.uint64]
F64 = NDArray[np.float64]
Lut = tuple[Ids, Ids]
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


def read_any_synapses(path: str, voxel_size_nm: Vec3 | None = None) -> SynapseSource:
    """Read synapses: `.parquet`, `.csv`, a folder that holds `synapses.parquet`, a CREMI file, or a tracing.

    Args:
        path: the table.
        voxel_size_nm: (z, y, x) of a CREMI file that holds no volume, by half of which its positions differ, or of
            a tracing that does not state its scale.

    Raises:
        InputError: it is missing, damaged or none of these, its sites contradict each other, or the voxel size of
            a CREMI file is unknown.
    """
    ending = Path(path).suffix.lower()
    if ending in CREMI:
        return _of_cremi(path, voxel_size_nm)
    if ending in NML:
        return SynapseSource(synapses_of(read_nml_tracing(path, voxel_size_nm=voxel_size_nm)), {}, ())
    words = words_of_table(path)
    told = words.get(ORIENTED) == "no"
    notes = (f"{path} does not know which side of a contact is pre: edges have no direction",) if told else ()
    return SynapseSource(read_synapse_table(path), words, notes)


def _of_cremi(path: str, voxel_size_nm: Vec3 | None) -> SynapseSource:
    annotations = read_annotations(path)
    table = table_of(annotations, voxel_size_nm or _voxel_size(path))
    counted = {
        "sites have no partner: they are no contacts": unpaired(annotations),
        "pairs of partners stand there once more: each is one contact": repeated(annotations),
    }
    return SynapseSource(table, {}, tuple(f"{path}: {n} {what}" for what, n in counted.items() if n))


def _voxel_size(path: str) -> Vec3:
    """Return what the volumes of a CREMI file say; raises `InputError` where that is nothing, or several."""
    try:
        found = inspect(path)
    except InputError:  # no volume in it; its annotations were read before
        found = []
    sizes = {tuple(hit.voxel_size_nm) for hit in found if hit.voxel_size_nm is not None}
    if len(sizes) != 1:
        raise InputError(
            f"{path} {'says several voxel sizes' if sizes else 'holds no volume with a voxel size'}: CREMI's "
            "positions differ from ours by half a voxel, so give --voxel-size z,y,x (nm)"
        )
    z, y, x = sizes.pop()
    return (z, y, x)


@dataclass(frozen=True, eq=False)
class SiteSegments:
    """The segments under contacts.

    Attributes:
        pre: uint64 [n], of the pre sites; 0 in background and outside.
        post: uint64 [n], of the post sites.
        outside: bool [n], contacts of which a site lies outside the volume.
    """

    pre: Ids
    post: Ids
    outside: NDArray[np.bool_]

    def mapped(self, luts: Sequence[Lut]) -> SiteSegments:
        """Return them after look-up tables, in order; ids that no table lists stay.

        Raises:
            InputError: as `ops.labels.apply_lut`.
        """
        pre, post = self.pre, self.post
        for keys, values in luts:
            pre, post = (apply_lut(ids, keys, values) for ids in (pre, post))
        return SiteSegments(pre, post, self.outside)


def segments_at(table: SynapseTable, volume: Volume) -> SiteSegments:
    """Return the segments under the sites of contacts.

    Args:
        table: contacts, in the world of the volume.
        volume: labels.

    Raises:
        InputError: the volume holds no labels, or every site lies outside of it.
    """
    info = require_labels(volume)
    n = len(table)
    voxels = voxels_containing(info.grid, np.concatenate([table.pre_nm, table.post_nm]))
    inside: NDArray[np.bool_] = np.all((voxels >= 0) & (voxels < np.array(info.shape)), axis=1)
    if n and not inside.any():
        end = [o + k * s for o, k, s in zip(info.grid.offset_nm, info.shape, info.grid.voxel_size_nm, strict=True)]
        raise InputError(
            f"no site of {table.source} lies in {info.source}: the first pre site is at "
            f"{table.pre_nm[0].tolist()} nm (z, y, x), the volume from {list(info.grid.offset_nm)} to {end} nm: "
            "check offset, unit and voxel size"
        )
    found = np.zeros(2 * n, np.uint64)
    rows_in = np.flatnonzero(inside)
    for rows, box in by_chunk(info, voxels[rows_in]):
        z, y, x = (voxels[rows_in[rows]] - np.array(box.start)).T
        found[rows_in[rows]] = borrow(volume, box)[z, y, x]
    found = require_ids(found, info.source)
    return SiteSegments(found[:n], found[n:], ~(inside[:n] & inside[n:]))


def segments_said(table: SynapseTable) -> SiteSegments:
    """Return the segments that a table says; raises `InputError` where an id is 2^63 or more."""
    pre, post = (require_ids(ids, table.source) for ids in (table.pre_segments, table.post_segments))
    return SiteSegments(pre, post, np.zeros(len(table), bool))


def read_lut_file(path: str) -> Lut:
    """Return the look-up table of a file; raises `InputError` where it is missing, damaged, or none."""
    if Path(path).suffix.lower() != ".parquet":
        raise InputError(f"{path} is no look-up table: give one of OUT.zarr/graph/luts, a .parquet")
    return read_lut(path)
