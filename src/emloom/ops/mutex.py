"""Fragments by the mutex watershed: affinities between neighbours merge, long ones forbid merging.

Wolf et al., TPAMI 2020 (arXiv:1904.12654, doi:10.1109/TPAMI.2020.2980827). Every voxel pair is an edge. Pairs of
face neighbours attract, with the weight ``affinity + bias``; pairs further apart repel, with ``255 - affinity``;
weights of 0 or less are no edges. All edges are taken by falling weight::

    attraction  u - v    merge the sets of u and v, unless these exclude each other
    repulsion   u ~ v    from now on the sets of u and v exclude each other, unless they are one already

No seeds, no thresholds. Edges of one weight: attractive ones first; then in the order of the channels; then in
scan order (z, y, x) of the voxel p that the affinity stands at. That is a total order of places, so the result
does not depend on how the array is stored or where in the volume it lies. It does depend on what the array holds:
an edge far away can decide. So a block must see a halo, crop, and call `emloom.ops.fragments.name_pieces`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Vec
from emloom.geometry.box import as_vec
from emloom.ops.affinities import near_channels, require_neighborhood
from emloom.ops.exclusions import new_exclusions
from emloom.ops.fragments import name_labels
from emloom.ops.mutexsets import GROWN, MOST_LONG, RING, Sets, attract, labels_of, repel
from emloom.ops.places import require_place

_SHARE = 4  # edges are sorted and taken in about so many portions: as much less memory


@dataclass(frozen=True, slots=True)
class Mutex:
    """How a mutex watershed weighs affinities.

    Args:
        bias: added to the affinities (0 .. 255) of face neighbours: more of it merges more. A negative one also
            drops attractions of ``-bias`` and below, so that voxels without better ones stay alone.
        repulsive_stride_vox: only voxels of the whole volume whose coordinates are multiples of this (one number
            or z, y, x) repel: fewer false splits, and less to do.
        per_section: work in each section alone, with the channels in its plane.
        min_size: fragments of fewer voxels become background.

    Raises:
        InputError: a value is out of range.
    """

    bias: int = 0
    repulsive_stride_vox: int | Sequence[int] = 1
    per_section: bool = False
    min_size: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "repulsive_stride_vox", as_vec(self.repulsive_stride_vox))
        if not -255 <= self.bias <= 255:
            raise InputError(f"attraction bias {self.bias} is outside -255 .. 255, the range of affinities")
        if min(self.stride) < 1:
            raise InputError(f"repulsive stride {self.stride} is below 1: 1 takes every voxel, 2 every second")
        if self.min_size < 0:
            raise InputError(f"smallest fragment {self.min_size} is negative: give a number of voxels")

    @property
    def stride(self) -> Vec:
        """Stride of the repulsive edges (z, y, x)."""
        return as_vec(self.repulsive_stride_vox)


def mutex_fragments(
    affinities_CZYX: NDArray[np.uint8],
    neighborhood: Sequence[Sequence[int]],
    params: Mutex | None = None,
    *,
    mask_ZYX: NDArray[Any] | None = None,
    origin: Vec = (0, 0, 0),
    total_shape: Vec | None = None,
) -> NDArray[np.uint64]:
    """Cut a volume into fragments.

    Time is linear in the edges but for hash tables and short paths. Memory beside the affinities is about 24 bytes
    per voxel and one per channel.

    Args:
        affinities_CZYX: uint8 [C, Z, Y, X]; channel c at p is about the pair (p, p + neighborhood[c]), which is
            skipped where it leaves the array.
        neighborhood: offset (z, y, x) of each channel; both face neighbours and longer offsets are needed.
        params: see `Mutex`; default its defaults.
        mask_ZYX: zero where no fragment may be; such voxels have no edges.
        origin: voxel (z, y, x) of the whole volume at which this array starts.
        total_shape: shape of the whole volume; default the array's.

    Returns:
        uint64 [Z, Y, X] fragment ids: 1 + the linear index, in the whole volume, of the first voxel of the
        fragment. Every fragment is connected through voxel faces.

    Raises:
        InputError: shapes, dtypes or neighborhood break these rules, or the array has 2^31 voxels or more.
    """
    params = params or Mutex()
    near, far = _channels(affinities_CZYX, neighborhood, params.per_section)
    shape = affinities_CZYX.shape[1:]
    require_place(shape, origin, total_shape)
    mask = np.ones(shape, np.bool_) if mask_ZYX is None else np.ascontiguousarray(mask_ZYX != 0)
    if mask.shape != shape:
        raise InputError(f"mask {mask.shape} does not fit affinities {affinities_CZYX.shape}")
    if mask.size >= 2**31:
        raise InputError(f"array {shape} is too large for one mutex watershed: work in blocks below 2^31 voxels")
    if not mask.any():
        return np.zeros(shape, np.uint64)
    offsets = np.asarray(neighborhood, np.int64)
    edges = _Edges(
        np.ascontiguousarray(affinities_CZYX),
        np.concatenate([near, far]),
        np.stack(
            [_frame(offsets[c], shape, origin, (1, 1, 1)) for c in near]
            + [_frame(offsets[c], shape, origin, params.stride) for c in far]
        ),
        np.concatenate([np.tile(_attraction(params.bias), (len(near), 1)), np.tile(_REPULSION, (len(far), 1))]),
        mask,
    )
    kept = np.zeros((mask.size, 2), np.int32 if 2 * len(far) < 31 else np.int64)
    labels = _watershed(edges, len(near), kept).reshape(shape)
    return name_labels(labels, origin, total_shape, params.min_size)


_REPULSION = np.arange(255, -1, -1, dtype=np.int16)  # weight of each affinity


def _attraction(bias: int) -> NDArray[np.int16]:
    return np.clip(np.arange(256) + bias, 0, None).astype(np.int16)


def _channels(
    affinities: NDArray[np.uint8], neighborhood: Sequence[Sequence[int]], per_section: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the attractive and the repulsive channels."""
    near = near_channels(affinities, require_neighborhood(neighborhood), per_section)
    offsets = np.asarray(neighborhood, np.int64)
    long = np.abs(offsets).sum(axis=1) > 1
    if per_section:
        long &= offsets[:, 0] == 0
    far = np.flatnonzero(long)
    if not 1 <= len(far) <= MOST_LONG:
        where = " in the section's plane" if per_section else ""
        raise InputError(
            f"neighborhood {tuple(map(tuple, neighborhood))} has {len(far)} long offsets{where}: a mutex watershed"
            f" needs 1 .. {MOST_LONG} to keep objects apart; predict some, or cut other kinds of fragments"
        )
    return near, far


def _frame(offset: NDArray[np.int64], shape: Sequence[int], origin: Vec, stride: Vec) -> NDArray[np.int64]:
    """Return int64 [4, 3]: offset, first and last + 1 voxel with a partner, step between voxels."""
    low = np.maximum(0, -offset)
    high = np.minimum(shape, np.array(shape) - offset)
    step = np.array(stride)
    low += -(low + np.array(origin)) % step
    return np.stack([offset, low, high, step])


class _Edges(NamedTuple):
    """All edges; k numbers the used channels, attractive ones first."""

    affinities: NDArray[np.uint8]  # [C, Z, Y, X]
    channel: NDArray[np.intp]  # [K]
    frame: NDArray[np.int64]  # [K, 4, 3], see `_frame`
    weight: NDArray[np.int16]  # [K, 256] weight of each affinity; 0: no edge
    mask: NDArray[np.bool_]  # [Z, Y, X]


@njit(cache=True, nogil=True)
def _watershed(edges, attractive, kept):  # type: ignore[no-untyped-def]
    """Return int32 [voxels], sets numbered from 1; 0 outside the mask."""
    count = len(edges.channel)
    steps = np.empty(count, np.int64)
    _, n_y, n_x = edges.mask.shape
    for k in range(count):
        steps[k] = (edges.frame[k, 0, 0] * n_y + edges.frame[k, 0, 1]) * n_x + edges.frame[k, 0, 2]
    counts = np.zeros((edges.weight.max() + 1) * count, np.int64)
    _sweep(edges, (count, len(counts) - 1), counts, np.zeros(0, np.int32))
    n = len(kept)
    kept[:, RING] = np.arange(n)
    long = steps[attractive:]
    sets = Sets(np.full(n, -1, np.int32), kept, np.concatenate((long, -long)), np.zeros(1, np.int64))
    exclusions = new_exclusions(n // GROWN + 1)
    order = np.zeros(0, np.int32)
    last = count  # repulsion after the last attraction changes nothing
    while last < len(counts) and (counts[last] == 0 or last % count < count - attractive):
        last += 1
    high, room = len(counts) - 1, counts.sum() // _SHARE
    while high >= last:
        low, ends = _portion(counts, high, last, room)
        if len(order) < ends[low]:
            order = np.empty(ends[low], np.int32)
        _sweep(edges, (low, high), ends - counts, order)
        for rank in range(high, low - 1, -1):
            bucket = order[ends[rank] - counts[rank] : ends[rank]]
            k = count - 1 - rank % count
            if k < attractive:
                exclusions = attract(sets, exclusions, bucket, steps[k])
            else:
                exclusions = repel(sets, exclusions, bucket, k - attractive)
        high = low - 1
    order = np.zeros(0, np.int32)
    return labels_of(sets, edges.mask.reshape(-1))


@njit(cache=True, nogil=True)
def _portion(counts, high, last, room):  # type: ignore[no-untyped-def]
    """Return the lowest rank such that all edges from there to `high` fit into the room, and where ranks end."""
    ends = np.zeros_like(counts)
    low, ends[high] = high, counts[high]
    while low > last and ends[low] + counts[low - 1] <= room:
        low -= 1
        ends[low] = ends[low + 1] + counts[low]
    return low, ends


@njit(cache=True, nogil=True)
def _sweep(edges, ranks, places, order):  # type: ignore[no-untyped-def]
    """Visit the edges of some ranks in scan order: write each to its place, or count them.

    Edges are taken from the highest rank down; with K channels, the rank is ``weight K + K - 1 - k``.

    ranks: lowest and highest.
    places: int64 [ranks], advanced by one for each edge.
    order: int32, takes the linear index of p; of length 0 to count only.
    """
    count = len(edges.channel)
    _, n_y, n_x = edges.mask.shape
    for k in range(count):
        offset, first, stop, step = edges.frame[k]
        rank_of = edges.weight[k].astype(np.int64) * count + count - 1 - k
        for z in range(first[0], stop[0], step[0]):
            for y in range(first[1], stop[1], step[1]):
                values = edges.affinities[edges.channel[k], z, y]
                here = edges.mask[z, y]
                there = edges.mask[z + offset[0], y + offset[1]]
                start = (z * n_y + y) * n_x
                for x in range(first[2], stop[2], step[2]):
                    rank = rank_of[values[x]]
                    if ranks[0] <= rank <= ranks[1] and here[x] and there[x + offset[2]]:
                        if len(order):
                            order[places[rank]] = start + x
                        places[rank] += 1
