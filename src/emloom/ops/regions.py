"""The region adjacency graph: which fragments touch, and what the affinities say about each contact.

Every statistic is an integer, so graphs of disjoint sets of voxel pairs add up exactly, in any order::

    merge_graphs([region_graph(block) for block in blocks]) == region_graph(whole)

A voxel pair (p, p + offset) belongs to the block that owns p, whatever block holds the other voxel: a block reads
one voxel more on the side its offsets point to (its halo), and no pair is counted twice or lost::

        block A      │ block B          offset (0, 0, -1): the pair ←b belongs to B, which reads one voxel of A
      a   a   a   a ←│ b   b   b        offset (0, 0, +1): the pair  a→ belongs to A, which reads one voxel of B
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.errors import InputError
from emloom.geometry import Box

Ids = NDArray[np.uint64]
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class RegionGraph:
    """Edges between fragments, sorted by (u, v); all arrays have one entry (row) per edge.

    Attributes:
        u: uint64 [E], smaller fragment id.
        v: uint64 [E], larger fragment id.
        n: int64 [E], affinities pooled in this edge.
        total: int64 [E], sum of the pooled uint8 affinities, 0 .. 255 n.
        peak: int64 [E], largest pooled affinity, 0 .. 255.
        contacts: int64 [E], pooled affinities of face neighbours; equals `n` without long-range channels, and is 0
            where two fragments were only ever compared across a gap.
        histogram: int64 [E, bins], pooled affinities per value range (bin b holds values
            ``256 b / bins <= value < 256 (b + 1) / bins``); None where it was not asked for.
    """

    u: Ids
    v: Ids
    n: Counts
    total: Counts
    peak: Counts
    contacts: Counts
    histogram: Counts | None = None

    @property
    def bins(self) -> int:
        """Number of histogram bins, 0 without histogram."""
        return 0 if self.histogram is None else int(self.histogram.shape[1])

    def __len__(self) -> int:
        return len(self.u)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RegionGraph) or self.bins != other.bins:
            return False
        return all(np.array_equal(a, b) for a, b in zip(self._columns(), other._columns(), strict=True))

    __hash__ = None  # type: ignore[assignment]

    def take(self, rows: NDArray[Any]) -> RegionGraph:
        """Return the graph of these edges only (boolean mask or ascending row numbers)."""
        picked = [column[rows] for column in self._columns()]
        return RegionGraph(*picked)

    def _columns(self) -> list[NDArray[Any]]:
        columns: list[NDArray[Any]] = [self.u, self.v, self.n, self.total, self.peak, self.contacts]
        return columns if self.histogram is None else [*columns, self.histogram]


def region_graph(
    fragments_ZYX: NDArray[Any],
    affinities_CZYX: NDArray[np.uint8],
    neighborhood: Sequence[Sequence[int]],
    *,
    owned: Box | None = None,
    bins: int = 0,
    long_range: bool | Literal["only"] = False,
) -> RegionGraph:
    """Pool the affinities between every two fragments that touch.

    One pass over the voxels with a hash table of the contacts: O(C Z Y X) time, O(edges) memory beside the input.

    Args:
        fragments_ZYX: fragment ids, any unsigned integer below 2^63; 0 is background and has no edges.
        affinities_CZYX: uint8 [C, Z, Y, X]; channel c at p is about the pair (p, p + neighborhood[c]).
        neighborhood: offset (z, y, x) of each channel.
        owned: voxels p, in array coordinates, whose pairs are counted; the rest of the array is halo (default:
            all are owned). A pair whose other voxel lies outside the array is not counted.
        bins: histogram bins per edge, a divisor of 256; 0 for no histogram (the quantile linkage needs one).
        long_range: also pool the channels with longer offsets. Edges seen only across a gap are kept with
            ``contacts == 0``, because the contact may lie in another block; agglomeration ignores them.
            "only": those channels alone.

    Raises:
        InputError: shapes, dtypes, neighborhood or bins break these rules.
    """
    fragments = _as_ids(fragments_ZYX)
    offsets = _check_affinities(affinities_CZYX, neighborhood, fragments.shape)
    if bins < 0 or (bins and 256 % bins):
        raise InputError(
            f"{bins} histogram bins do not divide the 256 affinity values: use 256, 128, 64, ... or 0"
        )
    box = Box.whole(fragments.shape) if owned is None else owned
    if not Box.whole(fragments.shape).contains(box):
        raise InputError(f"the owned {box} leaves the array of shape {fragments.shape}")
    used = _used(offsets, long_range)
    bounds = np.array([box.start, box.stop], dtype=np.int64)
    affinities = np.ascontiguousarray(affinities_CZYX)
    table = _accumulate(fragments, affinities, offsets[used], used, bounds)
    slots = np.flatnonzero(table[:, U])
    slots = slots[np.lexsort((table[slots, V], table[slots, U]))]
    u, v = (table[slots, end].view(np.uint64) for end in (U, V))
    n, total, peak, contacts = (table[slots, column] for column in (N, TOTAL, PEAK, CONTACTS))
    if not bins:
        return RegionGraph(u, v, n, total, peak, contacts)
    table[slots, ROW] = np.arange(len(slots))
    histogram = np.zeros((len(slots), bins), np.int64)
    _count_values(fragments, affinities, offsets[used], used, bounds, (table, histogram))
    return RegionGraph(u, v, n, total, peak, contacts, histogram)


def merge_graphs(graphs: Sequence[RegionGraph]) -> RegionGraph:
    """Add up graphs of disjoint sets of voxel pairs: counts, sums and histograms add, peaks take the maximum.

    Raises:
        InputError: the graphs have different numbers of histogram bins.
    """
    if not graphs:
        return _empty_graph()
    if len({graph.bins for graph in graphs}) > 1:
        raise InputError(
            f"graphs have different bins {sorted({g.bins for g in graphs})}: compute all with the same"
        )
    u, v = (np.concatenate([getattr(graph, end) for graph in graphs]) for end in ("u", "v"))
    order = np.lexsort((v, u))
    u, v = u[order], v[order]
    first = np.ones(len(u), dtype=bool)
    first[1:] = (u[1:] != u[:-1]) | (v[1:] != v[:-1])
    starts = np.flatnonzero(first)
    if not len(starts):
        return graphs[0]
    u, v = u[starts], v[starts]

    def pooled(name: str, pool: np.ufunc = np.add) -> Counts:
        """One column at a time: together they would be the largest arrays of all."""
        column = np.concatenate([getattr(graph, name) for graph in graphs])[order]
        out: Counts = pool.reduceat(column, starts, axis=0)
        return out

    histogram = pooled("histogram") if graphs[0].bins else None
    n = pooled("n")
    # Without channels across a gap the two are equal: one array for both.
    alike = all(graph.contacts is graph.n or np.array_equal(graph.contacts, graph.n) for graph in graphs)
    contacts = n if alike else pooled("contacts")
    return RegionGraph(u, v, n, pooled("total"), pooled("peak", np.maximum), contacts, histogram)


def _empty_graph() -> RegionGraph:
    ids, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
    return RegionGraph(ids, ids, counts, counts, counts, counts)


def _as_ids(fragments_ZYX: NDArray[Any]) -> NDArray[np.int64]:
    if fragments_ZYX.ndim != 3 or fragments_ZYX.dtype.kind != "u":
        kind = f"{fragments_ZYX.dtype} array with {fragments_ZYX.ndim} axes"
        raise InputError(f"fragments are a {kind}: they must be unsigned integers [Z, Y, X]")
    ids = np.ascontiguousarray(fragments_ZYX, dtype=np.uint64)
    if ids.size and int(ids.max()) >= 2**63:
        raise InputError(f"fragment id {int(ids.max())} is not below 2^63: relabel the fragments")
    return ids.view(np.int64)


def _check_affinities(
    affinities_CZYX: NDArray[np.uint8], neighborhood: Sequence[Sequence[int]], shape: tuple[int, ...]
) -> NDArray[np.int64]:
    if affinities_CZYX.dtype != np.uint8:
        raise InputError(f"affinities are {affinities_CZYX.dtype}: store them as uint8, 0 .. 255, first")
    if affinities_CZYX.ndim != 4 or affinities_CZYX.shape[1:] != tuple(shape):
        raise InputError(f"affinities {affinities_CZYX.shape} do not fit fragments {shape}: give [C, Z, Y, X]")
    offsets = np.asarray(neighborhood, dtype=np.int64).reshape(-1, 3)
    if len(offsets) != len(affinities_CZYX):
        raise InputError(
            f"{len(offsets)} offsets do not fit {len(affinities_CZYX)} affinity channels: one for each"
        )
    return offsets


def _used(offsets: NDArray[np.int64], long_range: bool | Literal["only"]) -> NDArray[np.intp]:
    """Return the channels that are pooled."""
    steps = np.abs(offsets).sum(axis=1)
    used = np.flatnonzero({False: steps == 1, True: steps > 0, "only": steps > 1}[long_range])
    if not len(used):
        wanted = (
            "an offset beyond face neighbours: predict some" if long_range == "only" else "one to a face neighbour"
        )
        raise InputError(f"neighborhood {offsets.tolist()} lacks {wanted}; a region graph needs it")
    return used


# The hash table of contacts: int64 [slots, 8], rows of 64 bytes: a look costs one cache line. Free where u == 0.
U, V, N, TOTAL, PEAK, CONTACTS, ROW = range(7)


@njit(cache=True, nogil=True)
def _accumulate(fragments, affinities, offsets, used, bounds):  # type: ignore[no-untyped-def]
    room = fragments.shape[2]
    table = np.zeros((2048, 8), np.int64)
    edges = 0
    for z in range(bounds[0, 0], bounds[1, 0]):
        for y in range(bounds[0, 1], bounds[1, 1]):
            for k in range(len(used)):
                while len(table) < 2 * (edges + room):
                    table = _grown(table)
                contact = 1 if np.abs(offsets[k]).sum() == 1 else 0
                near, far, values = _row(fragments, affinities[used[k]], offsets[k], bounds, z, y)
                edges += _pool_row(table, near, far, values, contact)
    return table


@njit(cache=True, nogil=True)
def _count_values(fragments, affinities, offsets, used, bounds, result):  # type: ignore[no-untyped-def]
    """Second pass: fill the histograms, whose number and order are known now."""
    table, histogram = result
    bins = histogram.shape[1]
    for z in range(bounds[0, 0], bounds[1, 0]):
        for y in range(bounds[0, 1], bounds[1, 1]):
            for k in range(len(used)):
                near, far, values = _row(fragments, affinities[used[k]], offsets[k], bounds, z, y)
                for x in range(len(near)):
                    a, b = near[x], far[x]
                    if a != b and a != 0 and b != 0:
                        row = table[_find(table, min(a, b), max(a, b)), ROW]
                        histogram[row, np.int64(values[x]) * bins >> 8] += 1


@njit(cache=True, nogil=True)
def _row(fragments, values, offset, bounds, z, y):  # type: ignore[no-untyped-def]
    """Return a row of owned voxels, the voxels they are compared with, and the affinities; empty if outside."""
    n_z, n_y, n_x = fragments.shape
    dz, dy, dx = offset
    x0, x1 = max(bounds[0, 2], -dx), min(bounds[1, 2], n_x - dx)
    if x0 >= x1 or z + dz < 0 or z + dz >= n_z or y + dy < 0 or y + dy >= n_y:
        return fragments[z, y, :0], fragments[z, y, :0], values[z, y, :0]
    return fragments[z, y, x0:x1], fragments[z + dz, y + dy, x0 + dx : x1 + dx], values[z, y, x0:x1]


@njit(cache=True, nogil=True)
def _pool_row(table, near, far, values, contact):  # type: ignore[no-untyped-def]
    """Add a row of voxel pairs; the table has room for as many new edges. Return the number of new edges."""
    last_u, last_v, slot = np.int64(-1), np.int64(-1), np.int64(0)
    new = 0
    for x in range(len(near)):
        a, b = near[x], far[x]
        if a == b or a == 0 or b == 0:
            continue
        u, v = min(a, b), max(a, b)
        if u != last_u or v != last_v:
            slot = _find(table, u, v)
            if table[slot, U] == 0:
                table[slot, U], table[slot, V] = u, v
                new += 1
            last_u, last_v = u, v
        value = np.int64(values[x])
        table[slot, N] += 1
        table[slot, TOTAL] += value
        table[slot, PEAK] = max(table[slot, PEAK], value)
        table[slot, CONTACTS] += contact
    return new


@njit(cache=True, nogil=True)
def _find(table, u, v):  # type: ignore[no-untyped-def]
    """Return the slot of edge (u, v), or the free one where it belongs (linear probing)."""
    mask = len(table) - 1
    mixed = u * np.int64(-7046029254386353131) + v * np.int64(-4417276706812531889)
    slot = (mixed ^ (mixed >> np.int64(29)) ^ (mixed >> np.int64(47))) & mask
    while table[slot, U] != 0 and (table[slot, U] != u or table[slot, V] != v):
        slot = (slot + 1) & mask
    return slot


@njit(cache=True, nogil=True)
def _grown(table):  # type: ignore[no-untyped-def]
    out = np.zeros((2 * len(table), table.shape[1]), np.int64)
    for slot in range(len(table)):
        if table[slot, U] != 0:
            out[_find(out, table[slot, U], table[slot, V])] = table[slot]
    return out
