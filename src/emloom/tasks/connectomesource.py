"""Between which segments contacts are: those under their sites, or those that a table says.

Segments come from one of two places, and are then mapped by look-up tables, of the merge tree first::

    sites   looked up in the segmentation, chunk by chunk, each chunk read once: any segmentation will do
    table   as the table says: it must be of this segmentation

A site lies in the voxel that contains it. One outside the volume is in segment 0, and told apart from one in the
background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry.skeletons import voxels_containing
from emloom.geometry.synapses import SynapseTable
from emloom.io.checks import require_labels
from emloom.io.graphstore import read_lut
from emloom.io.volume import Volume
from emloom.ops.labels import apply_lut, require_ids
from emloom.tasks.synapsesource import segments_at as labels_at

Ids = NDArray[np.uint64]
F64 = NDArray[np.float64]
Lut = tuple[Ids, Ids]


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
    points = np.concatenate([table.pre_nm, table.post_nm])
    voxels = voxels_containing(info.grid, points)
    inside: NDArray[np.bool_] = np.all((voxels >= 0) & (voxels < np.array(info.shape)), axis=1)
    if n and not inside.any():
        end = [o + k * s for o, k, s in zip(info.grid.offset_nm, info.shape, info.grid.voxel_size_nm, strict=True)]
        raise InputError(
            f"no site of {table.source} lies in {info.source}: the first pre site is at "
            f"{table.pre_nm[0].tolist()} nm (z, y, x), the volume from {list(info.grid.offset_nm)} to {end} nm: "
            "check offset, unit and voxel size"
        )
    found = labels_at(volume, points)
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
