"""Synapses of CREMI files as a `SynapseTable`, and back.

CREMI's positions are those of voxel centres at whole multiples of the voxel size, half a voxel before where the
centre is in our world; both look up the same voxel::

    stored position p nm  ->  voxel floor(p / size + 1/2)  ->  p + size / 2 in the table, which lies in that voxel

A pre site with several partners is one polyad: its site is stored once. Sites that have no partner are no contact
and stand in no table; `unpaired` counts them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emloom.geometry.grid import as_nm
from emloom.geometry.synapses import SynapseTable
from emloom.io.annotations import POST, PRE, Annotations

F64 = NDArray[np.float64]


def table_of(annotations: Annotations, voxel_size_nm: Sequence[float]) -> SynapseTable:
    """Return the partners of a CREMI file as contacts, in their order.

    Args:
        annotations: as `io.cremi.read_annotations` gives them, at CREMI's positions.
        voxel_size_nm: (z, y, x), by half of which the positions differ from ours.

    Returns:
        Contacts 1, 2, ...; a pair that stands twice is one contact. Polyads are numbered by the first
        contact of their pre site. Segments are 0 (not looked up yet), sizes 0, scores 1.

    Raises:
        InputError: the voxel size is not three numbers.
    """
    half = np.array(as_nm(voxel_size_nm, "voxel size")) / 2
    once = np.sort(np.unique(annotations.partners.reshape(-1, 2), axis=0, return_index=True)[1])
    partners = annotations.partners[once]
    n = len(partners)
    if not n:
        return SynapseTable.empty(annotations.source)
    order = np.argsort(annotations.ids)
    rows = order[np.searchsorted(annotations.ids, partners, sorter=order)]
    ids = np.arange(1, n + 1, dtype=np.uint64)
    _, first, which = np.unique(partners[:, 0], return_index=True, return_inverse=True)
    place = annotations.locations_nm + half
    none = np.zeros(n, np.uint64)
    return SynapseTable(
        ids, ids[first][which], place[rows[:, 0]], place[rows[:, 1]], none, none,
        np.zeros(n, np.int64), np.ones(n, np.float32), annotations.source,
    )  # fmt: skip


def unpaired(annotations: Annotations) -> int:
    """Return how many sites have no partner."""
    return int(np.count_nonzero(~np.isin(annotations.ids, annotations.partners)))


def repeated(annotations: Annotations) -> int:
    """Return how many pairs of partners stand there once more."""
    return len(annotations.partners) - len(np.unique(annotations.partners.reshape(-1, 2), axis=0))


def annotations_of(table: SynapseTable, voxel_size_nm: Sequence[float]) -> Annotations:
    """Return contacts as CREMI's sites and partners, one pre site for each polyad, at CREMI's positions.

    Sites are numbered from 1: pre sites in the order of their polyads, then post sites in the order of contacts.

    Raises:
        InputError: the voxel size is not three numbers.
    """
    half = np.array(as_nm(voxel_size_nm, "voxel size")) / 2
    polyads, first, which = np.unique(table.polyads, return_index=True, return_inverse=True)
    k, n = len(polyads), len(table)
    ids = np.arange(1, k + n + 1, dtype=np.uint64)
    return Annotations(
        ids=ids,
        types=(PRE,) * k + (POST,) * n,
        locations_nm=np.concatenate([table.pre_nm[first], table.post_nm]) - half,
        partners=np.stack([ids[:k][which], ids[k:]], axis=1) if n else np.zeros((0, 2), np.uint64),
        source=table.source,
    )
