"""The segments that synaptic sites lie in: looked up chunk by chunk, each chunk read once.

A site lies in voxel ``floor((position - offset) / voxel size + 1/2)``, CREMI's rule (`metrics.partnerpairs`). What
is held in memory is a chunk and the sites, whatever the size of the volume::

    segments_under(pairs, volume) == segments_of(pairs, whole array)

In neuron ids of a CREMI file the stored values count, as in cremi_python: its special values are segments like any
other for matching. As neurons of a connectome they are background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emloom.geometry import cells
from emloom.io.checks import require_labels
from emloom.io.cremi import NEURON_IDS, CremiLabels
from emloom.io.open import open_volume
from emloom.io.volume import Volume, borrow
from emloom.metrics.connections import Connectome
from emloom.metrics.contingency import Contingency, add, contingency
from emloom.metrics.partnerpairs import Ids, Outside, PartnerPairs, site_voxels
from emloom.tasks.lattice import common_box
from emloom.tasks.nodelookup import by_chunk
from emloom.tasks.overlaptable import CELL, SPECIAL

HDF5 = (".h5", ".hdf", ".hdf5")
NO_NEURON = (0, *SPECIAL)


@dataclass(frozen=True, eq=False)
class Placed:
    """The segments under partner pairs.

    Attributes:
        segments: uint64 [m, 2], of the (pre, post) sites; 0 outside the volume.
        inside: bool [m], whether both sites lie in the volume.
    """

    segments: Ids
    inside: NDArray[np.bool_]


def stored_labels(path: str) -> Volume:
    """Open labels; of CREMI's neuron ids the values as they are stored.

    Raises:
        InputError: it holds no labels.
    """
    volume = open_volume(path)
    require_labels(volume)
    cremi = isinstance(volume, CremiLabels) and volume.info.source.endswith(NEURON_IDS)
    return volume.stored if cremi and isinstance(volume, CremiLabels) else volume


def segments_under(pairs: PartnerPairs, volume: Volume, outside: Outside = "refuse") -> Placed:
    """Return the segments under the sites of pairs.

    Args:
        pairs: sites, in the world of the volume.
        volume: labels.
        outside: what a site outside the volume is: an error, or in segment 0 and unmatched.

    Raises:
        InputError: a site lies outside, unless that is allowed.
    """
    info = volume.info
    voxels, inside = site_voxels(pairs, info.shape, info.grid, outside)
    at = voxels[inside]
    found = np.zeros(len(at), np.uint64)
    for rows, box in by_chunk(info, at):
        z, y, x = (at[rows] - np.array(box.start)).T
        found[rows] = borrow(volume, box)[z, y, x]
    segments = np.zeros(inside.shape, np.uint64)
    segments[inside] = found
    return Placed(segments, inside[:, 0] & inside[:, 1])


def connectome_of(segments: Ids, *, autapses: bool = True) -> Connectome:
    """Return the connectome of pairs by the segments of their sites, uint64 [m, 2]; background is no neuron."""
    edges = Connectome.from_rows(segments[:, 0], segments[:, 1]).without(np.array(NO_NEURON, np.uint64))
    return edges if autapses else edges.without_autapses()


def overlap_of(truth: Volume, found: Volume) -> Contingency:
    """Return the overlap of two segmentations, block by block; true background and special ids do not count.

    Raises:
        InputError: `found` is not on the grid of `truth`, or leaves it.
    """
    start = common_box(found, truth).start
    return add(
        contingency(borrow(truth, box.shift(start)), borrow(found, box), ignore_truth=NO_NEURON)
        for _, box in cells(found.info.box, CELL)
    )
