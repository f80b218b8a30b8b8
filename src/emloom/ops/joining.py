"""Parts of cells to components of the volume: the same, bit for bit, whatever the cells.

::

    cell A  │  cell B        rim voxels of A and B that are neighbours, in one layer and one segment, join the
      a a a │ b b            parts they belong to; sums of parts add up, since all are whole numbers

Where components are first those of single sections (VESICLE's rule), parts join within sections; those whose area
is too small or too large are dropped; what is left joins across sections. Then components that are too small, or
span too few sections, are dropped, and the others are numbered from 0 on in raster order of their first voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from emloom.geometry import Vec
from emloom.ops.cellparts import PART_COLUMNS, CellParts, Columns, LayerRule
from emloom.ops.labels import Ids
from emloom.ops.runs import I64, before

_ADDED = ("n", "z_sum", "y_sum", "x_sum", "evidence_sum")
_LEAST = ("first", "z_low", "y_low", "x_low")
_MOST = ("peak", "z_high", "y_high", "x_high")
ANY = np.iinfo(np.int64).max


@dataclass(frozen=True)
class SizeRule:
    """Which components are kept.

    Attributes:
        min_vox, max_vox: voxels, both included.
        min_sections: sections it spans at least.
        area_vox: voxels of a component of a single section, at least and at most; None: not looked at.
    """

    min_vox: int = 1
    max_vox: int = ANY
    min_sections: int = 1
    area_vox: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False)
class Joined:
    """Components of the volume.

    Attributes:
        components: columns of `emloom.ops.cellparts.PART_COLUMNS`, one row per component, in raster order of first
            voxels within a layer, layer by layer.
        of_part: per cell, in order of `join`'s argument: int64 [parts], the component of each; -1: dropped.
        dropped: how many components were dropped.
    """

    components: Columns
    of_part: tuple[I64, ...]
    dropped: int


def join(cells: Sequence[CellParts], rules: Sequence[tuple[LayerRule, SizeRule]], total_shape: Vec) -> Joined:
    """Join the parts of all cells.

    Args:
        cells: what each said; their runs are not looked at.
        rules: per layer, how its components were made and which are kept.
        total_shape: shape of the whole volume.
    """
    starts = np.cumsum([0, *(cell.n for cell in cells)])
    parts = {name: _joined([cell.parts[name] for cell in cells], dtype) for name, dtype in PART_COLUMNS}
    places = _joined([cell.rim_places for cell in cells], np.int64)
    of_rim = _joined([cell.rim_parts + start for cell, start in zip(cells, starts, strict=False)], np.int64)
    edges = _joined([cell.edges + start for cell, start in zip(cells, starts, strict=False)], np.int64, (0, 2))
    numbers = np.full(starts[-1], -1, np.int64)
    made: list[Columns] = []
    dropped = n = 0
    for layer, rule in enumerate(rules):
        mine = np.flatnonzero(parts["layer"] == layer)
        own = np.full(starts[-1], -1, np.int64)
        own[mine] = np.arange(len(mine))
        at_rim = np.flatnonzero(own[of_rim] >= 0)
        touching = own[edges[own[edges[:, 0]] >= 0]] if len(edges) else edges
        rim = places[at_rim], own[of_rim[at_rim]]
        found, which, gone = _join_layer(
            {name: column[mine] for name, column in parts.items()}, rim, touching, rule, total_shape
        )
        numbers[mine] = np.where(which >= 0, which + n, -1)
        n += len(found["n"])
        dropped += gone
        made.append(found)
    components = {name: _joined([each[name] for each in made], dtype) for name, dtype in PART_COLUMNS}
    return Joined(components, tuple(numbers[a:b] for a, b in pairwise(starts)), dropped)


def _joined(arrays: Sequence[NDArray[Any]], dtype: type, empty: tuple[int, ...] = (0,)) -> NDArray[Any]:
    return np.concatenate([np.zeros(empty, dtype), *arrays]).astype(dtype, copy=False)


def _join_layer(
    parts: Columns, rim: tuple[I64, I64], edges: I64, rule: tuple[LayerRule, SizeRule], total_shape: Vec
) -> tuple[Columns, I64, int]:
    """Return components, the component of every part (-1: dropped), and how many components were dropped."""
    layer, sizes = rule
    parent = np.arange(len(parts["n"]), dtype=np.int64)
    across = _meet(rim, parts["segment"], layer, total_shape)
    if not layer.per_section:
        _unite(parent, across)
        return _kept(parts, parent, sizes, np.ones(len(parent), np.bool_))
    # The parts of one section lie in one: their first and last section are the same.
    level = parts["z_low"][across[:, 0]] == parts["z_low"][across[:, 1]]
    _unite(parent, across[level])
    areas = np.zeros(len(parent), np.int64)
    np.add.at(areas, parent, parts["n"])
    least, most = sizes.area_vox if sizes.area_vox is not None else (1, ANY)
    fits = ((areas >= least) & (areas <= most))[parent]
    climbing = np.concatenate([across[~level], edges])
    _unite(parent, climbing[fits[climbing].all(axis=1)])
    return _kept(parts, parent, sizes, fits)


def _meet(rim: tuple[I64, I64], segments: Ids, layer: LayerRule, total_shape: Vec) -> I64:
    """Return the pairs of parts with neighbouring rim voxels."""
    order = np.argsort(rim[0], kind="stable")
    places, of_rim = rim[0][order], rim[1][order]
    # Where cells have a face in common, both see it: a voxel occurs once, since cells do not overlap.
    pairs = np.empty((len(places) * 13, 2), np.int64)
    shape = np.array(total_shape, np.int64)
    n = _neighbours(places, of_rim, segments, np.array(_offsets(layer.connectivity), np.int64), shape, pairs)
    found: I64 = np.unique(pairs[:n], axis=0)
    return found


def _offsets(connectivity: int) -> list[Vec]:
    """Return the neighbours of a voxel that come before it in raster order."""
    rows = [(dz, dy, dx) for dz, dy, reach in before(connectivity) for dx in range(-reach, reach + 1)]
    return [(0, 0, -1), *rows]


def _kept(parts: Columns, parent: I64, sizes: SizeRule, fits: NDArray[np.bool_]) -> tuple[Columns, I64, int]:
    roots, which = np.unique(parent[fits], return_inverse=True)
    n = len(roots)
    sums: Columns = {}
    for name, dtype in PART_COLUMNS:
        values = parts[name][fits]
        if name in _ADDED:
            sums[name] = np.zeros(n, np.int64)
            np.add.at(sums[name], which, values)
        elif name in _LEAST:
            sums[name] = np.full(n, ANY, np.int64)
            np.minimum.at(sums[name], which, values)
        elif name in _MOST:
            sums[name] = np.zeros(n, np.int64)
            np.maximum.at(sums[name], which, values)
        else:
            sums[name] = np.zeros(n, dtype)
            sums[name][which] = values
    sections = sums["z_high"] - sums["z_low"]
    good = (sums["n"] >= sizes.min_vox) & (sums["n"] <= sizes.max_vox) & (sections >= sizes.min_sections)
    order = np.argsort(sums["first"][good], kind="stable")
    # Raster order of first voxels; layers may share voxels, a layer's components do not.
    numbers = np.full(n, -1, np.int64)
    numbers[np.flatnonzero(good)[order]] = np.arange(len(order))
    of_part = np.full(len(parent), -1, np.int64)
    of_part[fits] = numbers[which]
    return {name: sums[name][good][order] for name, _ in PART_COLUMNS}, of_part, int(n - len(order))


def _unite(parent: I64, pairs: I64) -> None:
    """Unite the parts of pairs; the smallest of a set is its root, and every part points to it."""
    _unite_all(parent, np.ascontiguousarray(pairs))


@njit(cache=True, nogil=True)
def _unite_all(parent: I64, pairs: I64) -> None:
    for i in range(len(pairs)):
        a, b = pairs[i, 0], pairs[i, 1]
        while parent[a] != a:
            parent[a] = parent[parent[a]]
            a = parent[a]
        while parent[b] != b:
            parent[b] = parent[parent[b]]
            b = parent[b]
        parent[max(a, b)] = min(a, b)
    for i in range(len(parent)):
        parent[i] = parent[parent[i]]


@njit(cache=True, nogil=True)
def _neighbours(places: I64, parts: I64, segments: Ids, offsets: I64, shape: I64, pairs: I64) -> int:
    n = 0
    for k in range(len(offsets)):
        step = (offsets[k, 0] * shape[1] + offsets[k, 1]) * shape[2] + offsets[k, 2]
        j = 0  # the sought places rise with i
        for i in range(len(places)):
            place = places[i]
            y, x = place // shape[2] % shape[1] + offsets[k, 1], place % shape[2] + offsets[k, 2]
            if y < 0 or y >= shape[1] or x < 0 or x >= shape[2]:
                continue
            while j < len(places) and places[j] < place + step:
                j += 1
            if j == len(places) or places[j] != place + step:
                continue
            a, b = parts[i], parts[j]
            if a != b and segments[a] == segments[b]:
                pairs[n, 0], pairs[n, 1] = min(a, b), max(a, b)
                n += 1
    return n
